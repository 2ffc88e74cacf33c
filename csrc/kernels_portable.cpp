// Plain C++ for any processor: the readable counterpart of the other kernels.
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace qwa {
namespace {

float float_of_half(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    const int exponent = (h >> 10) & 31;
    const uint32_t fraction = h & 0x3ff;
    if (exponent == 0) {  // subnormal: fraction * 2^-24
        const float f = static_cast<float>(fraction) * 5.9604644775390625e-8f;
        return sign ? -f : f;
    }
    const uint32_t bits =
        sign | (exponent == 31 ? 0x7f800000u : static_cast<uint32_t>(exponent + 112) << 23) | fraction << 13;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void quantize_row(const float* x, int in_features, const Activations& a, int tile, int row) {
    for (int g = 0; g < a.groups; ++g) {
        const size_t at = row_offset(a, tile, row) + static_cast<size_t>(g) * a.tile;
        const int n = in_features - g * a.group < a.group ? in_features - g * a.group : a.group;
        int8_t* q = a.q + at * a.group;
        uint32_t most = 0;  // the largest |x|, as bits, which have the order of |x|, with NaN above all
        for (int i = 0; i < n; ++i) {
            uint32_t bits;
            memcpy(&bits, x + g * a.group + i, 4);
            bits &= 0x7fffffff;
            if (bits > most) most = bits;
        }
        float absmax;
        memcpy(&absmax, &most, 4);
        const bool finite = most < kInfinity, some = finite && absmax >= kTiny;
        const float inverse = some ? 127.0f / absmax : 0.0f;
        int pair[2] = {0, 0};
        for (int i = 0; i < a.group; ++i) {
            const int v = some && i < n ? static_cast<int>(nearbyintf(x[g * a.group + i] * inverse)) : 0;
            q[i] = static_cast<int8_t>(v);
            pair[i / 2 % 2] += v;
        }
        a.scale[at] = finite ? (some ? absmax / 127.0f : 0.0f) : NAN;
        a.sum[at] = pair[0] + pair[1];
        a.pair[at] = static_cast<int32_t>(static_cast<uint32_t>(pair[0]) & 0xffff) |
                     static_cast<int32_t>(static_cast<uint32_t>(pair[1]) << 16);
    }
}

void dot_group(const qwa_linear& w, const uint8_t* codes, const int8_t* q, int32_t sum, int32_t* dot) {
    for (int j = 0; j < 16; ++j) dot[j] = -(w.bits == 4 ? 8 : 128) * sum;
    if (w.bits == 4) {
        for (int t = 0; t < w.group / 8; ++t, codes += 64, q += 8)
            for (int j = 0; j < 16; ++j)
                for (int i = 0; i < 4; ++i)
                    dot[j] += (codes[4 * j + i] & 15) * q[i] + (codes[4 * j + i] >> 4) * q[4 + i];
    } else {
        for (int t = 0; t < w.group / 4; ++t, codes += 64, q += 4)
            for (int j = 0; j < 16; ++j)
                for (int i = 0; i < 4; ++i) dot[j] += codes[4 * j + i] * q[i];
    }
}

void rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    const size_t block = static_cast<size_t>(w.group) * (w.bits == 4 ? 8 : 16);
    for (int p = first; p < last; ++p) {
        for (int m = 0; m < a.rows; ++m) {
            float acc[16] = {0};
            for (int g = 0; g < a.groups; ++g) {
                const size_t at = row_offset(a, m / a.tile, m % a.tile) + static_cast<size_t>(g) * a.tile;
                const size_t pg = static_cast<size_t>(p) * a.groups + g;
                int32_t dot[16];
                dot_group(w, static_cast<const uint8_t*>(w.codes) + pg * block, a.q + at * a.group, a.sum[at], dot);
                for (int j = 0; j < 16; ++j) {
                    const float scale = float_of_half(w.scales[pg * 16 + j]) * a.scale[at];
                    acc[j] = fmaf(static_cast<float>(dot[j]), scale, acc[j]);
                }
            }
            for (int j = 0; j < columns_in(w, p); ++j)
                y[m * stride + 16 * p + j] = acc[j] + (w.bias ? w.bias[16 * p + j] : 0.0f);
        }
    }
}

void many_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last, void*) {
    rows(w, a, y, stride, first, last);
}

void fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride, int first,
          int last) {
    const int inputs = w.in_features;
    for (int p = first; p < last; ++p) {
        const uint16_t* codes = static_cast<const uint16_t*>(w.codes) + static_cast<size_t>(p) * inputs * 16;
        for (int m = 0; m < rows; ++m) {
            float acc[16] = {0};
            for (int k = 0; k < inputs; ++k)
                for (int j = 0; j < 16; ++j)
                    acc[j] = fmaf(float_of_half(codes[16 * k + j]), x[m * x_stride + k], acc[j]);
            for (int j = 0; j < columns_in(w, p); ++j)
                y[m * y_stride + 16 * p + j] = acc[j] + (w.bias ? w.bias[16 * p + j] : 0.0f);
        }
    }
}

}  // namespace

const Kernels kPortable = {"portable", quantize_row, rows, many_rows, no_bytes, fp16};

}  // namespace qwa
