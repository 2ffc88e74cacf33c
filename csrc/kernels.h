// The linear kernels of one instruction set, as a table of functions. linear.cpp picks a table.
#pragma once
#include "linear.h"

namespace qwa {

struct Kernels {
    const char* name;
    // Quantises a row of K floats into row `row` of tile `tile`.
    void (*quantize_row)(const float* x, int in_features, const Activations& a, int tile, int row);
    // linear_panels for at most kSmallRows rows (decode), and for more (prefill).
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

// A group whose numbers are all below this is stored as zeros: the reciprocal of its scale would overflow.
constexpr float kTiny = 1e-30f;
constexpr uint32_t kInfinity = 0x7f800000;  // bits of |x| from here on are infinity or NaN

// The index of group 0 of one row in scale, sum and pair; group g is g * a.tile further on.
static inline size_t row_offset(const Activations& a, int tile, int row) {
    return static_cast<size_t>(tile) * a.groups * a.tile + row;
}

static inline size_t no_bytes(int) { return 0; }

// The columns of a panel that are outputs: fewer than 16 in the last panel of some layers.
static inline int columns_in(const qwa_linear& w, int panel) {
    const int left = w.out_features - 16 * panel;
    return left < 16 ? left : 16;
}

}  // namespace qwa
