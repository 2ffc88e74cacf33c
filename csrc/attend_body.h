// Attention over one chunk of a KV cache. Included by ops_body.h.
//
// A query's result has the same bits whatever other queries are computed with it: each score is one chain of fma over
// the head's width, each output one chain over the positions, and a position that the query does not see has weight 0.
#pragma once
#include "ops_kernels.h"
#include "simd.h"

namespace qwa {
namespace {

#if defined(__AVX512F__)
constexpr int kKeys = 4, kWide = 4;  // for four queries: keys scored at a time, vectors of values summed at a time
#else
constexpr int kKeys = 1, kWide = 2;
#endif
constexpr int kDirect = 8;         // up to so many rows read the cache directly; for more it is converted to float32
constexpr int kWideFloats = 4096;  // converted at a time, so that they stay in L1

// Keeps the memory busy: a chunk's values are prefetched while its scores are computed, and the next keys while its
// values are summed.
inline void fetch(const void* rows, int k, int row_bytes) {
    if (!rows) return;
    const char* row = static_cast<const char*>(rows) + static_cast<int64_t>(k) * row_bytes;
    for (int i = 0; i < row_bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

// Scores of R queries at `count` keys, K of them at a time.
template <class T, int R, int K>
void scores(const T* keys, int count, int d, float scale, const float* const* q, const void* ahead, float* const* s) {
    for (int k = 0; k < count; k += K) {
        const T* key[K];
        for (int j = 0; j < K; ++j) key[j] = keys + static_cast<int64_t>(k + j < count ? k + j : count - 1) * d;
        V dot[R * K];
        for (V& x : dot) x = set1(0.0f);
        for (int j = 0; j < K; ++j) fetch(ahead, k + j, d * static_cast<int>(sizeof(T)));
        int i = 0;
        for (; i + kLanes <= d; i += kLanes)
            for (int j = 0; j < K; ++j) {
                const V a = load(key[j] + i);
                for (int r = 0; r < R; ++r) dot[r * K + j] = fma(load(q[r] + i), a, dot[r * K + j]);
            }
        if (i < d)
            for (int j = 0; j < K; ++j) {
                const V a = load_some(key[j] + i, d - i);
                for (int r = 0; r < R; ++r) dot[r * K + j] = fma(load_some(q[r] + i, d - i), a, dot[r * K + j]);
            }
        float out[R * K];
#if defined(__AVX512F__)
        if constexpr (R * K == 16) store(out, mul(sums16(dot), set1(scale)));
#endif
        if constexpr (R * K == 4) {
            sums(dot[0], dot[1], dot[2], dot[3], out);
            for (float& x : out) x *= scale;
        }
        static_assert(R * K == 4 || (R * K == 16 && kKeys == 4), "sums of four or sixteen");
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < K && k + j < count; ++j) s[r][k + j] = out[r * K + j];
    }
}

// Multiplies s [count] by the scales of its positions.
void scale_by(const Chunk& c, const float* const* scales, int count, float* s) {
    for (int begin = 0; begin < count; begin += c.block) {
        const float* scale = scales[begin / c.block];
        const int n = count - begin < c.block ? count - begin : c.block;
        for (int k = 0; k < n; k += kLanes) store(s + begin + k, mul(load(s + begin + k), load_some(scale + k, n - k)));
    }
}

// Turns scores into weights exp(score - largest), 0 for what `position` does not see. `part` gets largest and sum.
void weigh(const Chunk& c, int position, int count, float* s, float* part) {
    if (c.key_scales[0]) scale_by(c, c.key_scales, count, s);
    const int seen = position + 1 - c.first;  // causality
    if (c.mask)
        for (int k = 0; k < count; ++k)
            if (!c.mask[k] && k + c.first != position) s[k] = -INFINITY;  // a query that is padding sees itself
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
    if (c.value_scales[0]) scale_by(c, c.value_scales, count, s);
}

// Adds `count` weighted values to the sums of R queries: N vectors of the head's width from `at` on. `start`: the sums
// begin at 0.
template <class T, int R, int N>
void gather(const T* value, int count, int d, int at, bool start, const void* ahead, const float* const* w,
            float* const* out) {
    V acc[R][N];
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) acc[r][n] = start ? set1(0.0f) : load(out[r] + at + n * kLanes);
    value += at;
    for (int k = 0; k < count; ++k, value += d) {
        fetch(ahead, k, d * static_cast<int>(sizeof(T)));
        for (int n = 0; n < N; ++n) {
            const V a = N > 1 ? load(value + n * kLanes) : load_some(value, d - at);
            for (int r = 0; r < R; ++r) acc[r][n] = fma(set1(w[r][k]), a, acc[r][n]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) store(out[r] + at + n * kLanes, acc[r][n]);
}

template <class T, int R>
void gather_all(const T* values, int count, int d, bool start, const void* ahead, const float* const* w,
                float* const* out) {
    constexpr int kVectors = R > 1 ? kWide : 4;
    int at = 0;
    for (; kVectors > 1 && at + kVectors * kLanes <= d; at += kVectors * kLanes, ahead = nullptr)
        gather<T, R, kVectors>(values, count, d, at, start, ahead, w, out);
    for (; at < d; at += kLanes, ahead = nullptr) gather<T, R, 1>(values, count, d, at, start, ahead, w, out);
}

// R queries of a chunk from `row` on. Their scores have rows of kChunk.
template <int R>
struct Few {
    const float* q[R];
    float *s[R], *part[R], *out[R];
    int position[R];
    int count;  // positions that the last of them sees; the others see no more

    Few(const Chunk& c, int row, float* scores) {
        for (int r = 0; r < R; ++r) {
            const int i = (row + r) / c.group, j = (row + r) % c.group;
            q[r] = c.q + i * c.q_position + static_cast<int64_t>(j) * c.head_dim;
            s[r] = scores + r * kChunk;
            part[r] = c.part + (row + r) * c.part_row;
            out[r] = part[r] + kPartHead;
            position[r] = c.past + i;
        }
        const int seen = position[R - 1] + 1 - c.first;
        count = seen < 0 ? 0 : seen < c.count ? seen : c.count;
    }

    void weigh_all(const Chunk& c) {
        for (int r = 0; r < R; ++r) weigh(c, position[r], count, s[r], part[r]);
    }

    // Positions [at, at + n) of the chunk.
    template <class T>
    void score(const Chunk& c, const T* keys, int at, int n, const void* ahead) {
        n = n < count - at ? n : count - at;
        float* to[R];
        for (int r = 0; r < R; ++r) to[r] = s[r] + at;
        if (n > 0) scores<T, R, R == 1 ? 4 : kKeys>(keys, n, c.head_dim, c.scale, q, ahead, to);
    }
    template <class T>
    void sum_values(const Chunk& c, const T* values, int at, int n, const void* ahead) {
        n = n < count - at ? n : count - at;
        const float* w[R];
        for (int r = 0; r < R; ++r) w[r] = s[r] + at;
        if (n > 0) gather_all<T, R>(values, n, c.head_dim, at == 0, ahead, w, out);
    }
};

// Rows [row, row + R), reading the cache directly.
template <class T, int R>
void attend_direct(const Chunk& c, int row) {
    alignas(64) float s[R * kChunk];
    Few<R> few(c, row, s);
    for (int at = 0; at < few.count; at += c.block) {
        const int b = at / c.block;
        few.score(c, static_cast<const T*>(c.keys[b]), at, c.block, row ? nullptr : c.values[b]);
    }
    few.weigh_all(c);
    for (int at = 0; at < few.count; at += c.block) {
        const int b = at / c.block;
        few.sum_values(c, static_cast<const T*>(c.values[b]), at, c.block, row ? nullptr : c.next_keys[b]);
    }
}

template <class T>
const float* as_float(const T* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
        store_some(to + i, load_some(from + i, n), n);
    }
    return to;
}
inline const float* as_float(const float* from, int64_t, float*) { return from; }

// Calls f(floats, at, n) for stretches of the chunk's keys or values (`sides`): positions [at, at + n) in float32.
template <class T, class F>
void each_stretch(const Chunk& c, const void* const* sides, F f) {
    alignas(64) float wide[kWideFloats];
    const int fit = kWideFloats / c.head_dim / 4 * 4, most = fit < c.block ? fit : c.block;
    for (int begin = 0; begin < c.count; begin += c.block) {
        const int end = begin + c.block < c.count ? begin + c.block : c.count;
        for (int at = begin; at < end; at += most) {
            const int n = end - at < most ? end - at : most;
            const T* from =
                static_cast<const T*>(sides[begin / c.block]) + static_cast<int64_t>(at - begin) * c.head_dim;
            f(as_float(from, static_cast<int64_t>(n) * c.head_dim, wide), at, n);
        }
    }
}

// Calls f(Few<4> or Few<1>) for all rows of the chunk.
template <class F>
void each_few(const Chunk& c, float* s, F f) {
    const int rows = c.queries * c.group;
    int row = 0;
    for (; row + 4 <= rows; row += 4) f(Few<4>(c, row, s + row * kChunk));
    for (; row < rows; ++row) f(Few<1>(c, row, s + row * kChunk));
}

template <class T>
void attend_all(const Chunk& c) {
    const int rows = c.queries * c.group;
    if (rows <= kDirect || rows > kMostRows || c.head_dim > kWideFloats / 4) {
        int row = 0;
        for (; row + 4 <= rows; row += 4) attend_direct<T, 4>(c, row);
        for (; row < rows; ++row) attend_direct<T, 1>(c, row);
        return;
    }
    alignas(64) float s[kMostRows * kChunk];
    each_stretch<T>(c, c.keys, [&](const float* keys, int at, int n) {
        each_few(c, s, [&](auto few) { few.score(c, keys, at, n, nullptr); });
    });
    each_few(c, s, [&](auto few) { few.weigh_all(c); });
    each_stretch<T>(c, c.values, [&](const float* values, int at, int n) {
        each_few(c, s, [&](auto few) { few.sum_values(c, values, at, n, nullptr); });
    });
}

void attend(const Chunk& c, int dtype) {
    if (dtype == QWA_FLOAT32)
        attend_all<float>(c);
    else if (dtype == QWA_FLOAT16)
        attend_all<uint16_t>(c);
    else
        attend_all<int8_t>(c);
}

}  // namespace
}  // namespace qwa
