// Inside the library: pieces of a linear layer that other operations call within a parallel region.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "qwa.h"

namespace qwa {

constexpr int kSmallRows = 8;  // rows up to here go through the fused decode kernels

// Rows quantised for a linear, in tiles of `tile` rows: the number of rows for few rows, 16 for many.
//   q [tiles, G, tile, group], scale [tiles, G, tile], sum [tiles, G, tile] of q over the group, and pair, the same
//   sum in two int16: over inputs with index % 4 in {0, 1}, and in {2, 3}.
// Rows that fill up the last tile are zeros.
struct Activations {
    int rows, groups, group, tile;
    int8_t* q;
    float* scale;
    int32_t* sum;
    int32_t* pair;
};

static inline int panels_of(const qwa_linear& w) { return (w.out_features + 15) / 16; }
static inline int groups_of(const qwa_linear& w) { return (w.in_features + w.group - 1) / w.group; }
static inline int tiles_of(const Activations& a) { return (a.rows + a.tile - 1) / a.tile; }

// Bytes that `rows` quantised rows of K inputs take.
size_t activation_bytes(int rows, int in_features, int group);

// Lay out `rows` rows over `memory`: 64-byte aligned, activation_bytes long.
Activations activations_in(void* memory, int rows, int in_features, int group);

// Quantise tiles [first, last) of x [M, K], stride in floats. One thread; few rows are one tile.
void quantize_tiles(const float* x, int64_t stride, int in_features, Activations& a, int first, int last);

// Bytes of working memory that a thread needs for linear_panels of `rows` rows.
size_t panel_bytes(int rows);

// Outputs of panels [first, last) for all rows of `a` (bits 4 or 8, a.group == w.group), bias added. One thread.
// y [M, N], stride in floats. `memory`: panel_bytes(a.rows) of the thread's own, 64-byte aligned.
void linear_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last,
                   void* memory);

// The same for bits 16, which takes the rows as they are.
void linear_panels_fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                        int first, int last);

}  // namespace qwa
