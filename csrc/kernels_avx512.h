// What the AMX kernels use of the AVX-512 kernels.
#pragma once
#include "intrinsics.h"
#include "kernels.h"

namespace qwa {
namespace avx512 {

void quantize_row(const float* x, int in_features, const Activations& a, int tile, int row);
void few_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last);
void fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride, int first,
          int last);

static inline __m512 load_scales(const uint16_t* s) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(s)));
}

static inline void store_row(const qwa_linear& w, int panel, __m512 acc, float* y) {
    const __mmask16 there = static_cast<__mmask16>((1u << columns_in(w, panel)) - 1);
    if (w.bias) acc = _mm512_add_ps(acc, _mm512_maskz_loadu_ps(there, w.bias + 16 * panel));
    _mm512_mask_storeu_ps(y, there, acc);
}

}  // namespace avx512
}  // namespace qwa
