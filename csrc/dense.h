// Inside the library: linear layers with float32 weights for few rows, in parts that a parallel region calls.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace qwa {

constexpr int kDenseRows = 16;    // rows of activations at a time: the lanes of simd.h
constexpr int kDenseColumns = 6;  // columns at a time: with AVX2, 12 sums, 2 inputs and a weight fill the registers

// Bytes of `rows` transposed rows.
size_t transposed_bytes(int64_t rows, int64_t inputs);

// x [rows, inputs] -> transposed [ceil(rows / 16), inputs, 16], filled up with zeros, in the calling thread.
void transpose(const float* x, int64_t rows, int64_t inputs, float* transposed);

// Columns [first, last) of y [rows, outputs] = x times weight [outputs, inputs], with the bias, in the calling thread.
void dense_columns(const float* weight, const float* bias, int64_t inputs, int64_t outputs, const float* transposed,
                   int64_t rows, int64_t first, int64_t last, float* y);

}  // namespace qwa
