// Inside the library: the parts of a linear layer that other operations call in a parallel region.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "qwa.h"

namespace qwa {

constexpr int kSmallRows = 8;  // up to so many rows use the kernels for decoding

// Rows that are quantised for a linear, in tiles of `tile` rows: few rows are one tile, many rows are in tiles of 16.
//   q [tiles, G, tile, group], scale [tiles, G, tile], sum [tiles, G, tile] of q over the group, and pair, the same
//   sum as two int16: over inputs with index % 4 in {0, 1}, and in {2, 3}.
// The last tile is filled up with rows of zeros.
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

// Bytes of `rows` quantised rows of K inputs.
size_t activation_bytes(int rows, int in_features, int group);

// Activations of `rows` rows in `memory`, which is 64-byte aligned and has activation_bytes.
Activations activations_in(void* memory, int rows, int in_features, int group);

// Quantises tiles [first, last) of x [M, K], stride in floats, in the calling thread.
void quantize_tiles(const float* x, int64_t stride, int in_features, Activations& a, int first, int last);

// Bytes of working memory that each thread needs for linear_panels of `rows` rows.
size_t panel_bytes(int rows);

// Computes panels [first, last) of y [M, N], stride in floats, for all rows of `a` and with the bias, in the calling
// thread. w has 4 or 8 bits and a.group == w.group. `memory`: this thread's panel_bytes(a.rows), 64-byte aligned.
void linear_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last,
                   void* memory);

// The same for weights in 16 bits, whose rows are not quantised.
void linear_panels_fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                        int first, int last);

}  // namespace qwa
