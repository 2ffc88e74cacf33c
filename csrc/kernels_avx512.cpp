// AVX-512 with VNNI: one register holds 16 columns x 4 inputs, which vpdpbusd multiplies and sums into int32.
// Compiled with these flags, and called only if the CPU has them.
#if defined(__x86_64__)
#include "kernels_avx512.h"

#include <string.h>

namespace qwa {
namespace avx512 {
namespace {

constexpr int kAhead = 2048;  // bytes from what is read to what is prefetched

inline __m512i broadcast4(const int8_t* q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_set1_epi32(v);
}

// Rows [row, row + R) of a tile with panels [panel, panel + P).
template <int BITS, int GROUP, int R, int P>
void block(const qwa_linear& w, const Activations& a, int tile, int row, float* y, int64_t stride, int panel) {
    constexpr int kBlock = GROUP * (BITS == 4 ? 8 : 16), kZero = BITS == 4 ? 8 : 128;
    const __m512i nibble = _mm512_set1_epi8(15);
    const size_t next = static_cast<size_t>(a.groups) * kBlock;  // bytes from a panel to the next
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + panel * next;
    const uint16_t* scales = w.scales + static_cast<size_t>(panel) * a.groups * 16;
    __m512 acc[R][P];
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) acc[r][p] = _mm512_setzero_ps();
    for (int g = 0; g < a.groups; ++g, codes += kBlock, scales += 16) {
        const size_t at = row_offset(a, tile, row) + static_cast<size_t>(g) * a.tile;
        const int8_t* q = a.q + at * GROUP;
        __m512i dot[R][P];
        for (int r = 0; r < R; ++r)
            for (int p = 0; p < P; ++p) dot[r][p] = _mm512_set1_epi32(-kZero * a.sum[at + r]);
#pragma GCC unroll 16
        for (int t = 0; t < kBlock / 64; ++t) {
            for (int p = 0; p < P; ++p) {
                const uint8_t* c = codes + p * next + 64 * t;
                _mm_prefetch(reinterpret_cast<const char*>(c + kAhead), _MM_HINT_T0);
                const __m512i v = _mm512_loadu_si512(c);
                if constexpr (BITS == 4) {
                    const __m512i low = _mm512_and_si512(v, nibble),
                                  high = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
                    for (int r = 0; r < R; ++r) {
                        dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], low, broadcast4(q + r * GROUP + 8 * t));
                        dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], high, broadcast4(q + r * GROUP + 8 * t + 4));
                    }
                } else {
                    for (int r = 0; r < R; ++r)
                        dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], v, broadcast4(q + r * GROUP + 4 * t));
                }
            }
        }
        for (int p = 0; p < P; ++p) {
            const __m512 s = load_scales(scales + static_cast<size_t>(p) * a.groups * 16);
            for (int r = 0; r < R; ++r)
                acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]),
                                            _mm512_mul_ps(s, _mm512_set1_ps(a.scale[at + r])), acc[r][p]);
        }
    }
    const int m = tile * a.tile + row;
    for (int r = 0; r < R && m + r < a.rows; ++r)
        for (int p = 0; p < P; ++p) store_row(w, panel + p, acc[r][p], y + (m + r) * stride + 16 * (panel + p));
}

template <int BITS, int GROUP, int R>
void few_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    constexpr int kPair = R <= 4 ? 2 : 1;  // two panels are two streams from memory: faster than one
    int p = first;
    for (; p + kPair <= last; p += kPair) block<BITS, GROUP, R, kPair>(w, a, 0, 0, y, stride, p);
    for (; p < last; ++p) block<BITS, GROUP, R, 1>(w, a, 0, 0, y, stride, p);
}

// All rows use a pair of panels while it is in the CPU's cache.
template <int BITS, int GROUP>
void many_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    int p = first;
    for (; p + 2 <= last; p += 2)
        for (int tile = 0; tile < tiles_of(a); ++tile)
            for (int row = 0; row < 16; row += 4) block<BITS, GROUP, 4, 2>(w, a, tile, row, y, stride, p);
    for (; p < last; ++p)
        for (int tile = 0; tile < tiles_of(a); ++tile)
            for (int row = 0; row < 16; row += 8) block<BITS, GROUP, 8, 1>(w, a, tile, row, y, stride, p);
}

template <int BITS, int GROUP>
void few(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    static constexpr decltype(&few_panels<BITS, GROUP, 1>) by_rows[kSmallRows] = {
        few_panels<BITS, GROUP, 1>, few_panels<BITS, GROUP, 2>, few_panels<BITS, GROUP, 3>, few_panels<BITS, GROUP, 4>,
        few_panels<BITS, GROUP, 5>, few_panels<BITS, GROUP, 6>, few_panels<BITS, GROUP, 7>, few_panels<BITS, GROUP, 8>,
    };
    by_rows[a.rows - 1](w, a, y, stride, first, last);
}

void many_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last, void*) {
    (w.bits == 4 ? (w.group == 64 ? many_panels<4, 64> : many_panels<4, 32>)
                 : (w.group == 64 ? many_panels<8, 64> : many_panels<8, 32>))(w, a, y, stride, first, last);
}

template <int R>
void fp16_panel(const qwa_linear& w, const float* x, int64_t x_stride, float* y, int64_t y_stride, int panel) {
    const uint16_t* codes = static_cast<const uint16_t*>(w.codes) + static_cast<size_t>(panel) * w.in_features * 16;
    __m512 acc[R];
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
    for (int k = 0; k < w.in_features; ++k, codes += 16) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + kAhead, _MM_HINT_T0);
        const __m512 c = load_scales(codes);
        for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(c, _mm512_set1_ps(x[r * x_stride + k]), acc[r]);
    }
    for (int r = 0; r < R; ++r) store_row(w, panel, acc[r], y + r * y_stride + 16 * panel);
}

}  // namespace

void quantize_row(const float* x, int in_features, const Activations& a, int tile, int row) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int g = 0; g < a.groups; ++g) {
        const size_t at = row_offset(a, tile, row) + static_cast<size_t>(g) * a.tile;
        const int left = in_features - g * a.group;
        __m512 v[4];
        __m512i most = _mm512_setzero_si512();
        for (int k = 0; k < a.group / 16; ++k) {
            const int n = left - 16 * k;
            const __mmask16 there = n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
            v[k] = _mm512_maskz_loadu_ps(there, x + g * a.group + 16 * k);
            most = _mm512_max_epu32(most, _mm512_and_si512(magnitude, _mm512_castps_si512(v[k])));
        }
        const uint32_t bits = _mm512_reduce_max_epu32(most);
        float absmax;
        memcpy(&absmax, &bits, 4);
        const bool finite = bits < kInfinity, some = finite && absmax >= kTiny;
        const __m512 inverse = _mm512_set1_ps(some ? 127.0f / absmax : 0.0f);
        a.scale[at] = finite ? (some ? absmax / 127.0f : 0.0f) : __builtin_nanf("");
        __m128i pairs = _mm_setzero_si128();  // int16 sums of neighbours
        for (int k = 0; k < a.group / 16; ++k) {
            const __m128i q =
                some ? _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v[k], inverse))) : _mm_setzero_si128();
            _mm_storeu_si128(reinterpret_cast<__m128i*>(a.q + at * a.group + 16 * k), q);
            pairs = _mm_add_epi16(pairs, _mm_maddubs_epi16(_mm_set1_epi8(1), q));
        }
        pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0x4e));
        pairs = _mm_add_epi16(pairs, _mm_shuffle_epi32(pairs, 0xb1));
        const int32_t pair = _mm_cvtsi128_si32(pairs);
        a.pair[at] = pair;
        a.sum[at] = static_cast<int16_t>(pair & 0xffff) + (pair >> 16);
    }
}

void few_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    (w.bits == 4 ? (w.group == 64 ? few<4, 64> : few<4, 32>) : (w.group == 64 ? few<8, 64> : few<8, 32>))(
        w, a, y, stride, first, last);
}

void fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride, int first,
          int last) {
    for (int p = first; p < last; ++p) {
        int m = 0;
        for (; m + 12 <= rows; m += 12) fp16_panel<12>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
        for (; m + 4 <= rows; m += 4) fp16_panel<4>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
        for (; m < rows; ++m) fp16_panel<1>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
    }
}

}  // namespace avx512

const Kernels kAvx512 = {"avx512", avx512::quantize_row, avx512::few_rows, avx512::many_rows, no_bytes, avx512::fp16};

}  // namespace qwa
#endif
