// The operations of ops_kernels.h, written once and compiled for each instruction set by ops_*.cpp.
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

void keep(const float* x, int head_dim, int dtype, void* to, float* scale) {
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

// Memory is kept busy: the values of a chunk are fetched while its scores are computed, and the next keys while the
// values are summed.
inline void fetch(const void* rows, int k, int row_bytes) {
    if (!rows) return;
    const char* row = static_cast<const char*>(rows) + static_cast<int64_t>(k) * row_bytes;
    for (int i = 0; i < row_bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

// Scores of R queries at keys [0, count). Each is one chain of fma over the head, whatever R is.
template <class T, int R>
void scores(const Chunk& c, const float* const* q, int count, const void* ahead, float (*s)[kChunk]) {
    const T* keys = static_cast<const T*>(c.keys);
    const int d = c.head_dim;
    constexpr int kKeys = 4 / R;  // four chains at a time
    for (int k = 0; k < count; k += kKeys) {
        const T* key[kKeys];
        for (int j = 0; j < kKeys; ++j) key[j] = keys + static_cast<int64_t>(k + j < count ? k + j : count - 1) * d;
        V dot[4];
        for (V& x : dot) x = set1(0.0f);
        for (int j = 0; j < kKeys; ++j) fetch(ahead, k + j, d * static_cast<int>(sizeof(T)));
        int i = 0;
        for (; i + kLanes <= d; i += kLanes)
            for (int j = 0; j < kKeys; ++j) {
                const V a = load(key[j] + i);
                for (int r = 0; r < R; ++r) dot[r * kKeys + j] = fma(load(q[r] + i), a, dot[r * kKeys + j]);
            }
        if (i < d)
            for (int j = 0; j < kKeys; ++j) {
                const V a = load_some(key[j] + i, d - i);
                for (int r = 0; r < R; ++r) dot[r * kKeys + j] = fma(load_some(q[r] + i, d - i), a, dot[r * kKeys + j]);
            }
        float out[4];
        sums(dot[0], dot[1], dot[2], dot[3], out);
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < kKeys && k + j < count; ++j) s[r][k + j] = out[r * kKeys + j] * c.scale;
    }
    if (c.key_scales)
        for (int r = 0; r < R; ++r)
            for (int k = 0; k < count; ++k) s[r][k] *= c.key_scales[k];
}

// Scores to weights exp(score - largest), 0 where `position` sees nothing; largest and sum go to `part`.
void weigh(const Chunk& c, int position, int count, float* s, float* part) {
    const int seen = position + 1 - c.first;  // causality
    if (c.mask)
        for (int k = 0; k < count; ++k)
            if (!c.mask[k] && k + c.first != position) s[k] = -INFINITY;  // a padded query sees itself
    for (int k = seen < 0 ? 0 : seen; k < count; ++k) s[k] = -INFINITY;
    for (int k = count; k % kLanes; ++k) s[k] = -INFINITY;
    V most = set1(-INFINITY);
    for (int k = 0; k < count; k += kLanes) most = max(most, load(s + k));
    const float top = largest(most);
    part[0] = top;
    V total = set1(0.0f);
    const V shift = set1(top == -INFINITY ? 0.0f : top);
    for (int k = 0; k < count; k += kLanes) {
        const V w = exponential(sub(load(s + k), shift));
        total = add(total, w);
        store(s + k, w);
    }
    part[1] = sum(total);
    if (c.value_scales)
        for (int k = 0; k < count; ++k) s[k] *= c.value_scales[k];
}

// Values [0, count) weighted and summed for R queries, N times 16 of the head's dimensions from `at` on.
template <class T, int R, int N>
void gather(const Chunk& c, int count, int at, const void* ahead, const float (*w)[kChunk], float* const* out) {
    const T* value = static_cast<const T*>(c.values) + at;
    V acc[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) acc[r][n] = set1(0.0f);
    for (int k = 0; k < count; ++k, value += c.head_dim) {
        fetch(ahead, k, c.head_dim * static_cast<int>(sizeof(T)));
        for (int n = 0; n < N; ++n) {
            const V a = N > 1 ? load(value + n * kLanes) : load_some(value, c.head_dim - at);
            for (int r = 0; r < R; ++r) acc[r][n] = fma(set1(w[r][k]), a, acc[r][n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(out[r] + at + n * kLanes, acc[r][n]);
}

// Queries [row, row + R) of the chunk.
template <class T, int R>
void attend_rows(const Chunk& c, int row) {
    alignas(64) float s[R][kChunk];
    const float* q[R];
    float *part[R], *out[R];
    int position = 0;
    for (int r = 0; r < R; ++r) {
        const int i = (row + r) / c.group, j = (row + r) % c.group;
        q[r] = c.q + i * c.q_position + static_cast<int64_t>(j) * c.head_dim;
        part[r] = c.part + (row + r) * c.part_row;
        out[r] = part[r] + kPartHead;
        position = c.past + i;  // of the last row, which sees most
    }
    const int seen = position + 1 - c.first, count = seen < 0 ? 0 : seen < c.count ? seen : c.count;
    scores<T, R>(c, q, count, row ? nullptr : c.values, s);
    for (int r = 0; r < R; ++r) weigh(c, c.past + (row + r) / c.group, count, s[r], part[r]);
    constexpr int kWide = R > 1 ? 2 : 4;
    int at = 0;
    const void* ahead = row ? nullptr : c.next_keys;
    for (; at + kWide * kLanes <= c.head_dim; at += kWide * kLanes, ahead = nullptr)
        gather<T, R, kWide>(c, count, at, ahead, s, out);
    for (; at < c.head_dim; at += kLanes, ahead = nullptr) gather<T, R, 1>(c, count, at, ahead, s, out);
}

template <class T>
void attend_all(const Chunk& c) {
    const int rows = c.queries * c.group;
    int row = 0;
    for (; row + 4 <= rows; row += 4) attend_rows<T, 4>(c, row);
    for (; row < rows; ++row) attend_rows<T, 1>(c, row);
}

void attend(const Chunk& c, int dtype) {
    if (dtype == QWA_FLOAT32)
        attend_all<float>(c);
    else if (dtype == QWA_FLOAT16)
        attend_all<uint16_t>(c);
    else
        attend_all<int8_t>(c);
}

void merge(const float* parts, int64_t stride, int chunks, int head_dim, float* out) {
    float top = -INFINITY, total = 0.0f;
    for (int c = 0; c < chunks; ++c) top = parts[c * stride] > top ? parts[c * stride] : top;
    float weights[kLanes];
    for (int at = 0; at < head_dim; at += kLanes) store_some(out + at, set1(0.0f), head_dim - at);
    for (int c = 0; c < chunks; ++c) {
        const float* part = parts + c * stride;
        if (part[1] == 0.0f) continue;  // a chunk of which nothing is seen
        store(weights, exponential(set1(part[0] - top)));
        total += weights[0] * part[1];
        const V w = set1(weights[0]);
        for (int at = 0; at < head_dim; at += kLanes)
            store_some(out + at, fma(w, load(part + kPartHead + at), load_some(out + at, head_dim - at)), head_dim - at);
    }
    const V inverse = set1(1.0f / total);
    for (int at = 0; at < head_dim; at += kLanes)
        store_some(out + at, mul(load_some(out + at, head_dim - at), inverse), head_dim - at);
}

}  // namespace
}  // namespace qwa

#define QWA_OPS(name) {name, rms_norm, add_to, silu_mul, rotate, keep, attend, merge}
