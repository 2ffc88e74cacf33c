// Products with float32 weights as they are, for a few rows: pieces that other operations call within a parallel
// region.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace qwa {

constexpr int kDenseRows = 16;    // of activations: the lanes of simd.h
constexpr int kDenseColumns = 6;  // rows of weights: on AVX2 twelve sums, two inputs and a weight fill the registers

// Bytes that `rows` transposed rows take.
size_t transposed_bytes(int64_t rows, int64_t inputs);

// x [rows, inputs] -> transposed [ceil(rows / 16), inputs, 16], filled up with zeros. One thread.
void transpose(const float* x, int64_t rows, int64_t inputs, float* transposed);

// Columns [first, last) of y [rows, outputs] = x times weight [outputs, inputs], bias added. One thread.
void dense_columns(const float* weight, const float* bias, int64_t inputs, int64_t outputs, const float* transposed,
                   int64_t rows, int64_t first, int64_t last, float* y);

}  // namespace qwa
