// What an instruction set must bring. One table each; linear.cpp picks one.
#pragma once
#include "linear.h"

namespace qwa {

struct Kernels {
    const char* name;
    // One row of K floats to one row of a tile: q, scale, sum and pair of group g lie g * the given strides further on.
    void (*quantize_row)(const float* x, int in_features, const Activations& a, int tile, int row);
    // linear_panels for rows <= kSmallRows (decode), and for many (prefill).
    void (*few_rows)(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last);
    // `memory`: many_rows_bytes(rows) of the calling thread's own, 64-byte aligned.
    void (*many_rows)(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last,
                      void* memory);
    size_t (*many_rows_bytes)(int rows);
    void (*fp16)(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride, int first,
                 int last);
};

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512, kAmx;
#endif

// Below this a group counts as zeros: its scale's reciprocal would overflow.
constexpr float kTiny = 1e-30f;
constexpr uint32_t kInfinity = 0x7f800000;  // bits of |x| from here on: infinite, or not a number

// Where the parts of one row lie.
static inline size_t row_offset(const Activations& a, int tile, int row) {
    return static_cast<size_t>(tile) * a.groups * a.tile + row;
}

static inline size_t no_bytes(int) { return 0; }

// A panel's outputs may end before its 16 columns do.
static inline int columns_in(const qwa_linear& w, int panel) {
    const int left = w.out_features - 16 * panel;
    return left < 16 ? left : 16;
}

}  // namespace qwa
