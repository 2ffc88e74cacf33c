// AMX: tiles of 16 rows x 64 bytes. Prefill only; few rows go through the AVX-512 kernels.
//
// A group of 64 inputs of one panel, unpacked, is exactly one B tile (16 x [16 columns x 4 inputs]); 16 rows' group is
// one A tile. The dot products of a group leave the tile unit as int32 and are scaled and added in AVX-512.
#if defined(__x86_64__)
#include "kernels_avx512.h"

#include <string.h>

#include "parallel.h"

namespace qwa {
namespace {

using avx512::load_scales;
using avx512::store_row;

constexpr int kDepth = 16;   // groups at a time: their B tiles, 16 KiB, stay in L1
constexpr int kPanels = 16;  // panels that share the rows while these are in L2

struct __attribute__((packed)) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tile registers; macros, as GCC's intrinsics paste the number into an instruction's text.
#define DOT0 0
#define DOT1 1
#define A0 2
#define A1 3
#define B0 4
#define B1 5

void configure(int group) {
    TileConfig config;
    for (int t = DOT0; t <= B1; ++t) {
        config.row_bytes[t] = static_cast<uint16_t>(t == A0 || t == A1 ? group : 64);
        config.rows[t] = static_cast<uint8_t>(t == B0 || t == B1 ? group / 4 : 16);
    }
    _tile_loadconfig(&config);
}

void unpack4(const uint8_t* codes, int bytes, uint8_t* at) {
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < bytes; i += 64, at += 128) {
        const __m512i v = _mm512_loadu_si512(codes + i);
        _mm512_store_si512(at, _mm512_and_si512(v, nibble));
        _mm512_store_si512(at + 64, _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble));
    }
}

// One group's dot products from memory into the 16 sums.
template <int ZERO>
inline void add_group(const int32_t* dot, const Activations& a, size_t at, __m512 weight_scale, __m512 (&acc)[16]) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
        const __m512i centred = _mm512_sub_epi32(_mm512_load_si512(dot + 16 * r), _mm512_set1_epi32(ZERO * a.sum[at + r]));
        const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(a.scale[at + r]));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(centred), scale, acc[r]);
    }
}

// Groups [from, to) of one panel and one tile of rows, added to `sums` [16, 16]. Two groups are under way at a time.
template <int ZERO>
void tile_panel(const qwa_linear& w, const Activations& a, int panel, int tile, int from, int to, const uint8_t* b, float* sums) {
    alignas(64) int32_t dot[2][256];
    const int group = a.group;
    const uint16_t* scales = w.scales + static_cast<size_t>(panel) * a.groups * 16;
    __m512 acc[16];
    for (int r = 0; r < 16; ++r) acc[r] = _mm512_load_ps(sums + 16 * r);
    for (int g = from; g < to; g += 2) {
        const size_t at = row_offset(a, tile, 0) + static_cast<size_t>(g) * 16;
        const int8_t* q = a.q + at * group;
        const bool two = g + 1 < to;
        _tile_zero(DOT0);
        _tile_loadd(A0, q, group);
        _tile_loadd(B0, b + (g - from) * group * 16, 64);
        _tile_dpbsud(DOT0, A0, B0);
        if (two) {
            _tile_zero(DOT1);
            _tile_loadd(A1, q + 16 * group, group);
            _tile_loadd(B1, b + (g + 1 - from) * group * 16, 64);
            _tile_dpbsud(DOT1, A1, B1);
        }
        _tile_stored(DOT0, dot[0], 64);
        if (two) _tile_stored(DOT1, dot[1], 64);
        add_group<ZERO>(dot[0], a, at, load_scales(scales + 16 * g), acc);
        if (two) add_group<ZERO>(dot[1], a, at + 16, load_scales(scales + 16 * g + 16), acc);
    }
    for (int r = 0; r < 16; ++r) _mm512_store_ps(sums + 16 * r, acc[r]);
}

template <int BITS>
void many(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    constexpr int kZero = BITS == 4 ? 8 : 128, kUnpacked = kDepth * 64 * 16;
    const int block = a.group * (BITS == 4 ? 8 : 16);
    const size_t padded = static_cast<size_t>(tiles_of(a)) * 256;  // sums of a panel
    uint8_t* unpacked = static_cast<uint8_t*>(scratch(kPanel, kUnpacked + 4 * kPanels * padded));
    float* sums = reinterpret_cast<float*>(unpacked + kUnpacked);
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes);
    configure(a.group);
    for (int p0 = first; p0 < last; p0 += kPanels) {
        const int panels = last - p0 < kPanels ? last - p0 : kPanels;
        memset(sums, 0, 4 * panels * padded);
        for (int g = 0; g < a.groups; g += kDepth) {
            const int to = g + kDepth < a.groups ? g + kDepth : a.groups;
            for (int p = 0; p < panels; ++p) {
                const uint8_t* from = codes + (static_cast<size_t>(p0 + p) * a.groups + g) * block;
                if (BITS == 4) unpack4(from, (to - g) * block, unpacked);
                const uint8_t* b = BITS == 4 ? unpacked : from;
                for (int tile = 0; tile < tiles_of(a); ++tile)
                    tile_panel<kZero>(w, a, p0 + p, tile, g, to, b, sums + p * padded + 256 * tile);
            }
        }
        for (int p = 0; p < panels; ++p)
            for (int m = 0; m < a.rows; ++m)
                store_row(w, p0 + p, _mm512_load_ps(sums + p * padded + 16 * m), y + m * stride + 16 * (p0 + p));
    }
    _tile_release();
}

void many_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    (w.bits == 4 ? many<4> : many<8>)(w, a, y, stride, first, last);
}

}  // namespace

const Kernels kAmx = {"amx", avx512::quantize_row, avx512::few_rows, many_rows, avx512::fp16};

}  // namespace qwa
#endif
