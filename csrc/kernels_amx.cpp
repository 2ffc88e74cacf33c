// AMX: tiles of 16 rows x 64 bytes. For prefill only: few rows use the AVX-512 kernels.
//
// An unpacked group of 64 inputs of one panel is exactly one B tile (16 x [16 columns x 4 inputs]), and the group of 16
// rows is one A tile. The tile unit gives a group's dot products as int32; AVX-512 scales and adds them.
#if defined(__x86_64__)
#include <string.h>

#include "kernels_avx512.h"
namespace qwa {
namespace {

using avx512::load_scales;
using avx512::store_row;

constexpr int kDepth = 16;   // groups at a time: their B tiles, 16 KiB, stay in L1
constexpr int kPanels = 16;  // panels that use the rows while these are in L2

struct __attribute__((packed)) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tile registers. They are macros, because GCC's intrinsics paste the number into an instruction's text.
#define DOT0 0
#define DOT1 1
#define DOT2 2
#define DOT3 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

void configure(int group) {
    TileConfig config;
    for (int t = DOT0; t <= B1; ++t) {
        config.row_bytes[t] = static_cast<uint16_t>(t == A0 || t == A1 ? group : 64);
        config.rows[t] = static_cast<uint8_t>(t == B0 || t == B1 ? group / 4 : 16);
    }
    _tile_loadconfig(&config);
}

// Unpacks `bytes` of codes to centred int8, so that the tiles' products are the dot products. `next`: the codes that
// are unpacked next, to prefetch.
template <int BITS>
void unpack(const uint8_t* codes, int bytes, const uint8_t* next, int8_t* at) {
    const __m512i nibble = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8),
                  half = _mm512_set1_epi8(static_cast<char>(128));
    for (int i = 0; i < bytes; i += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T1);
        const __m512i v = _mm512_loadu_si512(codes + i);
        if constexpr (BITS == 4) {
            _mm512_store_si512(at + 2 * i, _mm512_sub_epi8(_mm512_and_si512(v, nibble), eight));
            _mm512_store_si512(at + 2 * i + 64,
                               _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(v, 4), nibble), eight));
        } else {
            _mm512_store_si512(at + i, _mm512_xor_si512(v, half));
        }
    }
}

// Adds one group's dot products to the 16 sums.
inline void add_group(const int32_t* dot, const float* scale, __m512 weight_scale, __m512 (&acc)[16]) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r)
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dot + 16 * r)),
                                 _mm512_mul_ps(weight_scale, _mm512_set1_ps(scale[r])), acc[r]);
}

// Writes the dot products of two groups, or of one, to `dot`. `q` and `b`: the first group's tiles.
#define QWA_TWO_GROUPS(FIRST, SECOND)           \
    _tile_zero(FIRST);                          \
    _tile_loadd(A0, q, group);                  \
    _tile_loadd(B0, b, 64);                     \
    _tile_dpbssd(FIRST, A0, B0);                \
    if (two) {                                  \
        _tile_zero(SECOND);                     \
        _tile_loadd(A1, q + 16 * group, group); \
        _tile_loadd(B1, b + group * 16, 64);    \
        _tile_dpbssd(SECOND, A1, B1);           \
    }                                           \
    _tile_stored(FIRST, dot, 64);               \
    if (two) _tile_stored(SECOND, dot + 256, 64)
inline void multiply_even(const int8_t* q, const int8_t* b, int group, bool two, int32_t* dot) {
    QWA_TWO_GROUPS(DOT0, DOT1);
}
inline void multiply_odd(const int8_t* q, const int8_t* b, int group, bool two, int32_t* dot) {
    QWA_TWO_GROUPS(DOT2, DOT3);
}
#undef QWA_TWO_GROUPS

// Adds groups [from, to) of one panel and one tile of rows to `sums` [16, 16]. The tile unit multiplies two groups
// while AVX-512 scales and adds the two before.
void tile_panel(const qwa_linear& w, const Activations& a, int panel, int tile, int from, int to, const int8_t* b,
                float* sums) {
    alignas(64) int32_t dot[2][512];
    const int group = a.group;
    const uint16_t* scales = w.scales + static_cast<size_t>(panel) * a.groups * 16;
    const size_t first = row_offset(a, tile, 0);
    const auto multiply = [&](int g) {
        if (g >= to) return;
        const int odd = (g - from) / 2 % 2;
        (odd ? multiply_odd : multiply_even)(a.q + (first + static_cast<size_t>(g) * 16) * group,
                                             b + (g - from) * group * 16, group, g + 1 < to, dot[odd]);
    };
    __m512 acc[16];
    for (int r = 0; r < 16; ++r) acc[r] = _mm512_load_ps(sums + 16 * r);
    multiply(from);
    for (int g = from; g < to; g += 2) {
        multiply(g + 2);
        const int32_t* products = dot[(g - from) / 2 % 2];
        const float* scale = a.scale + first + static_cast<size_t>(g) * 16;
        add_group(products, scale, load_scales(scales + 16 * g), acc);
        if (g + 1 < to) add_group(products + 256, scale + 16, load_scales(scales + 16 * g + 16), acc);
    }
    for (int r = 0; r < 16; ++r) _mm512_store_ps(sums + 16 * r, acc[r]);
}

constexpr int kUnpacked = kDepth * 64 * 16;

size_t many_rows_bytes(int rows) { return kUnpacked + 4 * kPanels * 16 * static_cast<size_t>((rows + 15) / 16 * 16); }

template <int BITS>
void many(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last, void* memory) {
    const int block = a.group * (BITS == 4 ? 8 : 16);
    const size_t padded = static_cast<size_t>(tiles_of(a)) * 256;  // floats of a panel's sums
    int8_t* unpacked = static_cast<int8_t*>(memory);
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
                const uint8_t* next = p + 1 < panels ? from + static_cast<size_t>(a.groups) * block
                                                     : codes + (static_cast<size_t>(p0) * a.groups + to) * block;
                unpack<BITS>(from, (to - g) * block, next, unpacked);
                for (int tile = 0; tile < tiles_of(a); ++tile)
                    tile_panel(w, a, p0 + p, tile, g, to, unpacked, sums + p * padded + 256 * tile);
            }
        }
        for (int p = 0; p < panels; ++p)
            for (int m = 0; m < a.rows; ++m)
                store_row(w, p0 + p, _mm512_load_ps(sums + p * padded + 16 * m), y + m * stride + 16 * (p0 + p));
    }
    _tile_release();
}

void many_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last, void* memory) {
    (w.bits == 4 ? many<4> : many<8>)(w, a, y, stride, first, last, memory);
}

}  // namespace

const Kernels kAmx = {"amx", avx512::quantize_row, avx512::few_rows, many_rows, many_rows_bytes, avx512::fp16};

}  // namespace qwa
#endif
