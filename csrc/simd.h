// Sixteen floats at a time, by the same names on every instruction set.
//
// AVX2 first adds its two halves, and AVX-512 splits a sum in the same place, so both give the same bits.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "intrinsics.h"

namespace {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct V {
    __m512 v;
};
inline V set1(float x) { return {_mm512_set1_ps(x)}; }
inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline V load(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline V load(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline void store(float* p, V x) { _mm512_storeu_ps(p, x.v); }
inline void store(uint16_t* p, V x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store(int8_t* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
inline V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V nearest(V a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline V times_power_of_2(V a, V n) { return {_mm512_scalef_ps(a.v, n.v)}; }
inline V zero_below(V limit, V x, V value) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), value.v)};
}
inline __m256 halves_added(V x) { return _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1)); }

#elif defined(__AVX2__)

struct V {
    __m256 a, b;
};
inline V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline V load(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline V load(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
inline void store(float* p, V x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
inline void store(uint16_t* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline void store(int8_t* p, V x) {
    alignas(32) int32_t n[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(n), _mm256_cvtps_epi32(x.a));
    _mm256_store_si256(reinterpret_cast<__m256i*>(n + 8), _mm256_cvtps_epi32(x.b));
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(n[i]);
}
inline V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V div(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline V fma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline V max(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline V min(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline V nearest(V x) {
    return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
            _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline __m256 power_of_2(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline V times_power_of_2(V x, V n) {
    return {_mm256_mul_ps(x.a, power_of_2(n.a)), _mm256_mul_ps(x.b, power_of_2(n.b))};
}
inline V zero_below(V limit, V x, V value) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.a, limit.a, _CMP_GE_OQ), value.a),
            _mm256_and_ps(_mm256_cmp_ps(x.b, limit.b, _CMP_GE_OQ), value.b)};
}
inline __m256 halves_added(V x) { return _mm256_add_ps(x.a, x.b); }

#else

float float_of_half(uint16_t h) {
    // The product adds 112 to the exponent. It is exact, also for subnormals.
    const uint32_t bits = static_cast<uint32_t>(h & 0x7fff) << 13, sign = static_cast<uint32_t>(h & 0x8000) << 16;
    float f;
    memcpy(&f, &bits, 4);
    f *= 5.192296858534828e33f;  // 2^112
    uint32_t out;
    memcpy(&out, &f, 4);
    if ((h & 0x7c00) == 0x7c00) out |= 0x7f800000;
    out |= sign;
    memcpy(&f, &out, 4);
    return f;
}

uint16_t half_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and more
    if (magnitude < 0x38800000) {                                              // subnormal: a multiple of 2^-24
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(nearbyintf(fabsf(f) * 16777216.0f)));
    }
    const uint32_t even = magnitude >> 13 & 1;
    return static_cast<uint16_t>(sign | (magnitude - 0x38000000 + 0xfff + even) >> 13);
}

struct V {
    float f[kLanes];
};
#define QWA_EACH(expression)                                  \
    V out;                                                    \
    for (int i = 0; i < kLanes; ++i) out.f[i] = (expression); \
    return out
inline V set1(float x) { QWA_EACH(x); }
inline V load(const float* p) { QWA_EACH(p[i]); }
inline V load(const uint16_t* p) { QWA_EACH(float_of_half(p[i])); }
inline V load(const int8_t* p) { QWA_EACH(static_cast<float>(p[i])); }
inline void store(float* p, V x) { memcpy(p, x.f, sizeof x.f); }
inline void store(uint16_t* p, V x) {
    for (int i = 0; i < kLanes; ++i) p[i] = half_of_float(x.f[i]);
}
inline void store(int8_t* p, V x) {
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(nearbyintf(x.f[i]));
}
inline V add(V x, V y) { QWA_EACH(x.f[i] + y.f[i]); }
inline V sub(V x, V y) { QWA_EACH(x.f[i] - y.f[i]); }
inline V mul(V x, V y) { QWA_EACH(x.f[i] * y.f[i]); }
inline V div(V x, V y) { QWA_EACH(x.f[i] / y.f[i]); }
inline V fma(V x, V y, V z) { QWA_EACH(x.f[i] * y.f[i] + z.f[i]); }  // not fused: each fmaf would be a function call
inline V max(V x, V y) { QWA_EACH(x.f[i] > y.f[i] ? x.f[i] : y.f[i]); }
inline V min(V x, V y) { QWA_EACH(x.f[i] < y.f[i] ? x.f[i] : y.f[i]); }
inline V nearest(V x) { QWA_EACH(nearbyintf(x.f[i])); }
inline V times_power_of_2(V x, V n) { QWA_EACH(ldexpf(x.f[i], static_cast<int>(n.f[i]))); }
inline V zero_below(V limit, V x, V value) { QWA_EACH(x.f[i] >= limit.f[i] ? value.f[i] : 0.0f); }
#undef QWA_EACH

#endif

// Sums of the lanes of four vectors, always in the same order: out[i] = sum of xi.
#if defined(__AVX2__)
inline void sums(V x0, V x1, V x2, V x3, float* out) {
    const __m256 low = _mm256_hadd_ps(halves_added(x0), halves_added(x1));
    const __m256 high = _mm256_hadd_ps(halves_added(x2), halves_added(x3));
    const __m256 all = _mm256_hadd_ps(low, high);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
#else
inline float sum_of(const V& x) {
    float part[8];
    for (int i = 0; i < 8; ++i) part[i] = x.f[i] + x.f[i + 8];
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}
inline void sums(V x0, V x1, V x2, V x3, float* out) {
    out[0] = sum_of(x0);
    out[1] = sum_of(x1);
    out[2] = sum_of(x2);
    out[3] = sum_of(x3);
}
#endif

// The same for sixteen vectors.
#if defined(__AVX512F__)
template <int kPick>
inline V four_lanes(V x, V y) {
    return {_mm512_shuffle_f32x4(x.v, y.v, kPick)};
}
template <int kPick>
inline V in_lanes(V x, V y) {
    return {_mm512_shuffle_ps(x.v, y.v, kPick)};
}
inline V sums16(const V* x) {
    V halves[8], pairs[4], fours[2];  // sums of 2, 4 and 8 vectors of x: 8, 4 and 2 numbers belong to each vector
    for (int i = 0; i < 8; ++i) {
        const V a = x[i / 4 * 8 + i % 4], b = x[i / 4 * 8 + i % 4 + 4];
        halves[i] = add(four_lanes<0x44>(a, b), four_lanes<0xee>(a, b));
    }
    for (int i = 0; i < 4; ++i)
        pairs[i] =
            add(in_lanes<0x88>(halves[2 * i], halves[2 * i + 1]), in_lanes<0xdd>(halves[2 * i], halves[2 * i + 1]));
    for (int i = 0; i < 2; ++i)
        fours[i] = add(in_lanes<0x88>(pairs[2 * i], pairs[2 * i + 1]), in_lanes<0xdd>(pairs[2 * i], pairs[2 * i + 1]));
    return add(four_lanes<0x88>(fours[0], fours[1]), four_lanes<0xdd>(fours[0], fours[1]));
}
#endif

inline float sum(V x) {
    float out[4];
    sums(x, x, x, x, out);
    return out[0];
}

inline float largest(V x) {
    float f[kLanes];
    store(f, x);
    float out = f[0];
    for (int i = 1; i < kLanes; ++i) out = f[i] > out ? f[i] : out;
    return out;
}

// Loads the first n of 16 numbers; the others are zero.
template <class T>
inline V load_some(const T* p, int n) {
    if (n >= kLanes) return load(p);
    T some[kLanes] = {};
    memcpy(some, p, n * sizeof(T));
    return load(some);
}

template <class T>
inline void store_some(T* p, V x, int n) {
    if (n >= kLanes) return store(p, x);
    T some[kLanes];
    store(some, x);
    memcpy(p, some, n * sizeof(T));
}

inline V absolute(V x) { return max(x, sub(set1(0.0f), x)); }

// e^x within 2 units in the last place; 0 below -87, e^88 above 88.
inline V exponential(V x) {
    const V least = set1(-87.0f), bounded = min(max(x, least), set1(88.0f));
    const V n = nearest(mul(bounded, set1(1.44269504088896341f)));
    const V r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), bounded));  // x - n ln 2, ln 2 in two parts
    V p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = add(fma(mul(p, r), r, r), set1(1.0f));
    return zero_below(least, x, times_power_of_2(p, n));
}

}  // namespace
