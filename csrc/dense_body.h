// A few columns of weights times sixteen rows of activations, in one thread. Included by ops_body.h.
#pragma once
#include "dense.h"
#include "simd.h"

namespace qwa {
namespace {

constexpr int64_t kSpan = 256;  // inputs that get a sum of their own before it is added: rounding errors grow less

// `Columns` columns at once: enough independent sums that none waits for the one before it.
template <int Columns>
void dense_columns(const float* weight, int64_t inputs, const float* panel, float* out) {
    V total[Columns];
    for (int c = 0; c < Columns; ++c) total[c] = set1(0.0f);
    for (int64_t begin = 0; begin < inputs; begin += kSpan) {
        const int64_t end = begin + kSpan < inputs ? begin + kSpan : inputs;
        V part[Columns];
        for (int c = 0; c < Columns; ++c) part[c] = set1(0.0f);
        for (int64_t k = begin; k < end; ++k) {
            if (k % kDenseRows == 0)  // a cache line of each of the next columns
                for (int c = 0; c < Columns; ++c) __builtin_prefetch(weight + (Columns + c) * inputs + k);
            const V x = load(panel + k * kDenseRows);
            for (int c = 0; c < Columns; ++c) part[c] = fma(set1(weight[c * inputs + k]), x, part[c]);
        }
        for (int c = 0; c < Columns; ++c) total[c] = add(total[c], part[c]);
    }
    for (int c = 0; c < Columns; ++c) store(out + c * kDenseRows, total[c]);
}

// weight [columns, inputs] times panel [inputs, 16] -> out [columns, 16]; columns at most kDenseColumns.
void dense(const float* weight, int64_t inputs, int columns, const float* panel, float* out) {
    switch (columns) {
        case 1: return dense_columns<1>(weight, inputs, panel, out);
        case 2: return dense_columns<2>(weight, inputs, panel, out);
        case 3: return dense_columns<3>(weight, inputs, panel, out);
        case 4: return dense_columns<4>(weight, inputs, panel, out);
        case 5: return dense_columns<5>(weight, inputs, panel, out);
        default: return dense_columns<kDenseColumns>(weight, inputs, panel, out);
    }
}

}  // namespace
}  // namespace qwa
