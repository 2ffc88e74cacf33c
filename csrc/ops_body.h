// The operations of ops_kernels.h, written once; ops_*.cpp compile them for each instruction set.
#include "attend_body.h"
#include "dense_body.h"
#include "ops_kernels.h"
#include "simd.h"

namespace qwa {
namespace {

void rms_norm(const float* x, const float* weight, float eps, int width, float* out) {
    V even = set1(0.0f), odd = even;
    int i = 0;
    for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
        const V a = load(x + i), b = load(x + i + kLanes);
        even = fma(a, a, even);
        odd = fma(b, b, odd);
    }
    for (; i < width; i += kLanes) {
        const V a = load_some(x + i, width - i);
        even = fma(a, a, even);
    }
    const V scale = set1(1.0f / sqrtf(sum(add(even, odd)) / static_cast<float>(width) + eps));
    for (i = 0; i < width; i += kLanes)
        store_some(out + i, mul(load_some(weight + i, width - i), mul(load_some(x + i, width - i), scale)), width - i);
}

void add_to(float* x, const float* y, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(x + i, add(load(x + i), load(y + i)));
    for (; i < count; ++i) x[i] += y[i];
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
    const V one = set1(1.0f), zero = set1(0.0f);
    for (int64_t i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        const V g = load_some(gate + i, n);
        const V silu = div(g, add(one, exponential(sub(zero, g))));
        store_some(out + i, mul(silu, load_some(up + i, n)), n);
    }
}

void rotate(float* x, const float* cosine, const float* sine, int head_dim) {
    const int half = head_dim / 2;
    for (int i = 0; i < half; i += kLanes) {
        const int n = half - i;
        const V first = load_some(x + i, n), second = load_some(x + half + i, n);
        const V a = mul(first, load_some(cosine + i, n)), b = mul(second, load_some(cosine + half + i, n));
        store_some(x + i, sub(a, mul(second, load_some(sine + i, n))), n);
        store_some(x + half + i, add(b, mul(first, load_some(sine + half + i, n))), n);
    }
}

void write_kv(const float* x, int head_dim, int dtype, void* to, float* scale) {
    if (dtype == QWA_FLOAT32) {
        memcpy(to, x, head_dim * sizeof(float));
        return;
    }
    if (dtype == QWA_FLOAT16) {
        for (int i = 0; i < head_dim; i += kLanes)
            store_some(static_cast<uint16_t*>(to) + i, load_some(x + i, head_dim - i), head_dim - i);
        return;
    }
    V most = set1(0.0f);
    for (int i = 0; i < head_dim; i += kLanes) most = max(most, absolute(load_some(x + i, head_dim - i)));
    const float absmax = largest(most);
    const V inverse = set1(absmax > 1e-30f ? 127.0f / absmax : 0.0f);
    *scale = absmax > 1e-30f ? absmax / 127.0f : 0.0f;
    for (int i = 0; i < head_dim; i += kLanes)
        store_some(static_cast<int8_t*>(to) + i, mul(load_some(x + i, head_dim - i), inverse), head_dim - i);
}

void merge(const float* parts, int64_t stride, int chunks, int head_dim, float* out) {
    float top = -INFINITY, total = 0.0f;
    for (int c = 0; c < chunks; ++c) top = parts[c * stride] > top ? parts[c * stride] : top;
    float weights[kLanes];
    for (int at = 0; at < head_dim; at += kLanes) store_some(out + at, set1(0.0f), head_dim - at);
    for (int c = 0; c < chunks; ++c) {
        const float* part = parts + c * stride;
        if (part[1] == 0.0f) continue;  // the query sees nothing of this chunk
        store(weights, exponential(set1(part[0] - top)));
        total += weights[0] * part[1];
        const V w = set1(weights[0]);
        for (int at = 0; at < head_dim; at += kLanes)
            store_some(out + at, fma(w, load(part + kPartHead + at), load_some(out + at, head_dim - at)),
                       head_dim - at);
    }
    const V inverse = set1(1.0f / total);
    for (int at = 0; at < head_dim; at += kLanes)
        store_some(out + at, mul(load_some(out + at, head_dim - at), inverse), head_dim - at);
}

}  // namespace
}  // namespace qwa

#define QWA_OPS(name) name, rms_norm, add_to, silu_mul, rotate, write_kv, attend, merge, dense
