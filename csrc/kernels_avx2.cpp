// AVX2, FMA and F16C. Compiled with these flags, and called only if the CPU has them.
//
// int4: vpmaddubsw multiplies unsigned codes by signed activations, summed in int16. The sum starts at -8 * sum(a), so
// at the end it is the dot product of the centred codes: at most 64/4 * 2 * 8 * 127 = 32512. It may wrap on the way,
// which two's complement undoes.
//
// int8: |w| times (a with w's sign), because u8 * s8 pairs of full range would saturate: 2 * 127 * 127 = 32258 fits.
#if defined(__x86_64__)
#include <string.h>

#include "intrinsics.h"
#include "kernels.h"

namespace qwa {
namespace {

constexpr int kAhead = 2048;  // bytes from what is read to what is prefetched

struct Pair {  // 16 columns
    __m256 a, b;
};

inline Pair load_scales(const uint16_t* s) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s + 8)))};
}

// -8 times both halves of the pair of sums, in each pair of int16 lanes.
inline __m256i start4(int32_t pair) {
    return _mm256_slli_epi16(_mm256_sub_epi16(_mm256_setzero_si256(), _mm256_set1_epi32(pair)), 3);
}

void quantize_row(const float* x, int in_features, const Activations& a, int tile, int row) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    alignas(32) float tail[64];
    for (int g = 0; g < a.groups; ++g) {
        const size_t at = row_offset(a, tile, row) + static_cast<size_t>(g) * a.tile;
        const float* from = x + g * a.group;
        const int n = in_features - g * a.group;
        if (n < a.group) {
            memset(tail, 0, sizeof tail);
            memcpy(tail, from, 4 * n);
            from = tail;
        }
        __m256i most = _mm256_setzero_si256();
        for (int i = 0; i < a.group; i += 8)
            most = _mm256_max_epu32(
                most, _mm256_and_si256(magnitude, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i))));
        __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
        const uint32_t bits = static_cast<uint32_t>(_mm_cvtsi128_si32(m));
        const float absmax = _mm_cvtss_f32(_mm_castsi128_ps(m));
        const bool finite = bits < kInfinity, some = finite && absmax >= kTiny;
        const __m256 inverse = _mm256_set1_ps(some ? 127.0f / absmax : 0.0f);
        a.scale[at] = finite ? (some ? absmax / 127.0f : 0.0f) : __builtin_nanf("");
        int8_t* q = a.q + at * a.group;
        __m256i pairs = _mm256_setzero_si256();  // int16 sums of neighbours: [0 1 | 2 3 | ...]
        for (int i = 0; i < a.group; i += 32) {
            __m256i v[4];
            for (int k = 0; k < 4; ++k)
                v[k] = some ? _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i + 8 * k), inverse))
                            : _mm256_setzero_si256();
            const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
            const __m256i bytes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), bytes);
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));
        }
        __m128i p = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        p = _mm_add_epi16(p, _mm_shuffle_epi32(p, 0x4e));
        p = _mm_add_epi16(p, _mm_shuffle_epi32(p, 0xb1));
        const int32_t pair = _mm_cvtsi128_si32(p);
        a.pair[at] = pair;
        a.sum[at] = static_cast<int16_t>(pair & 0xffff) + (pair >> 16);
    }
}

// The inner loops are assembly, because GCC 12 would keep their sums on the stack and lose a quarter of the speed.
//
// One step takes 64 bytes of weights: 16 columns x 4 inputs, or x 8 inputs for nibbles. Operands: w the weights, q the
// first row's activations (rows are GROUP apart), s0..s7 the sums of rows 0..3 in columns 0-7 and 8-15, k a constant.
// clang-format off: lines of assembly, kept as they are read
#define QWA_LOAD_ACTIVATION(row, at) "vpbroadcastd " #row "*%c[group]+" at "(%[q]), %[a]\n"
#define QWA_ADD16(w, sum) "vpmaddubsw %[a], %[" w "], %[m]\nvpaddw %[m], %[" sum "], %[" sum "]\n"

#define QWA_NIBBLES                                                     \
    "vmovdqu qwa_i*64(%[w]), %[w0]\nvmovdqu qwa_i*64+32(%[w]), %[w1]\n" \
    "vpsrlw $4, %[w0], %[h0]\nvpsrlw $4, %[w1], %[h1]\n"                \
    "vpand %[k], %[w0], %[w0]\nvpand %[k], %[w1], %[w1]\n"              \
    "vpand %[k], %[h0], %[h0]\nvpand %[k], %[h1], %[h1]\n"
#define QWA_NIBBLE_ROW(row, s, t)       \
    QWA_LOAD_ACTIVATION(row, "qwa_i*8") \
    QWA_ADD16("w0", s) QWA_ADD16("w1", t) QWA_LOAD_ACTIVATION(row, "qwa_i*8+4") QWA_ADD16("h0", s) QWA_ADD16("h1", t)

#define QWA_BYTES "vmovdqa qwa_i*64(%[w]), %[w0]\nvmovdqa qwa_i*64+32(%[w]), %[w1]\n"
#define QWA_BYTE_ROW(row, s, t) QWA_LOAD_ACTIVATION(row, "qwa_i*4") QWA_ADD16("w0", s) QWA_ADD16("w1", t)

// int8: |w| times the activation with w's sign; k is int16 ones.
#define QWA_SIZES "vpabsb %[w0], %[h0]\nvpabsb %[w1], %[h1]\n"
#define QWA_CODES                                                       \
    "vmovdqu qwa_i*64(%[w]), %[w0]\nvmovdqu qwa_i*64+32(%[w]), %[w1]\n" \
    "vpxor %[centre], %[w0], %[w0]\nvpxor %[centre], %[w1], %[w1]\n" QWA_SIZES
#define QWA_CENTRED QWA_BYTES QWA_SIZES
#define QWA_ADD32(w, size, sum)                              \
    "vpsignb %[" w "], %[a], %[m]\nvpmaddubsw %[m], %[" size \
    "], %[m]\nvpmaddwd %[k], %[m], %[m]\n"                   \
    "vpaddd %[m], %[" sum "], %[" sum "]\n"
#define QWA_SIGNED_ROW(row, s, t) QWA_LOAD_ACTIVATION(row, "qwa_i*4") QWA_ADD32("w0", "h0", s) QWA_ADD32("w1", "h1", t)

#define QWA_ROWS1(ROW) ROW(0, "s0", "s1")
#define QWA_ROWS2(ROW) QWA_ROWS1(ROW) ROW(1, "s2", "s3")
#define QWA_ROWS3(ROW) QWA_ROWS2(ROW) ROW(2, "s4", "s5")
#define QWA_ROWS4(ROW) QWA_ROWS3(ROW) ROW(3, "s6", "s7")
#define QWA_SUMS1 [s0] "+x"(d[0][0]), [s1] "+x"(d[0][1])
#define QWA_SUMS2 QWA_SUMS1, [s2] "+x"(d[1][0]), [s3] "+x"(d[1][1])
#define QWA_SUMS3 QWA_SUMS2, [s4] "+x"(d[2][0]), [s5] "+x"(d[2][1])
#define QWA_SUMS4 QWA_SUMS3, [s6] "+x"(d[3][0]), [s7] "+x"(d[3][1])
#define QWA_LOOP(STEP, ROW, rows, steps_)                                                                            \
    __asm__(                                                                                                         \
        ".set qwa_i, 0\n.rept %c[steps]\n" STEP QWA_ROWS##rows(ROW) ".set qwa_i, qwa_i+1\n.endr"                     \
        : QWA_SUMS##rows, [w0] "=&x"(w0), [w1] "=&x"(w1), [h0] "=&x"(h0), [h1] "=&x"(h1), [a] "=&x"(a), [m] "=&x"(m) \
        : [w] "r"(w), [q] "r"(q), [k] "x"(k), [centre] "m"(centre), [group] "i"(GROUP), [steps] "i"(steps_)          \
        : "memory")
#define QWA_LOOPS(STEP, ROW, steps_)    \
    if constexpr (R == 1)               \
        QWA_LOOP(STEP, ROW, 1, steps_); \
    else if constexpr (R == 2)          \
        QWA_LOOP(STEP, ROW, 2, steps_); \
    else if constexpr (R == 3)          \
        QWA_LOOP(STEP, ROW, 3, steps_); \
    else                                \
        QWA_LOOP(STEP, ROW, 4, steps_)
// clang-format on

// The dot products of a group, int32 in 16 columns, for R rows. `w`: the codes as stored, or as `unpack` writes them.
template <int BITS, int GROUP, int R, bool UNPACKED>
inline void dot_group(const uint8_t* w, const int8_t* q, const int32_t* pair, __m256i (&dot)[R][2]) {
    static_assert(R <= 4, "16 registers hold the sums of 4 rows");
    const __m256i ones = _mm256_set1_epi16(1), centre = _mm256_set1_epi8(static_cast<char>(0x80));
    const __m256i k = BITS == 4 ? _mm256_set1_epi8(15) : ones;
    __m256i d[R][2], w0, w1, h0, h1, a, m;
    for (int r = 0; r < R; ++r) d[r][0] = d[r][1] = BITS == 4 ? start4(pair[r]) : _mm256_setzero_si256();
    if constexpr (BITS == 4 && UNPACKED) {
        QWA_LOOPS(QWA_BYTES, QWA_BYTE_ROW, GROUP / 4);
    } else if constexpr (BITS == 4) {
        QWA_LOOPS(QWA_NIBBLES, QWA_NIBBLE_ROW, GROUP / 8);
    } else if constexpr (UNPACKED) {
        QWA_LOOPS(QWA_CENTRED, QWA_SIGNED_ROW, GROUP / 4);
    } else {
        QWA_LOOPS(QWA_CODES, QWA_SIGNED_ROW, GROUP / 4);
    }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half)
            dot[r][half] = BITS == 4 ? _mm256_madd_epi16(d[r][half], ones) : d[r][half];
}

inline void store_row(const qwa_linear& w, int panel, Pair acc, float* y) {
    alignas(32) float out[16];
    const int columns = columns_in(w, panel);
    float* at = columns == 16 ? y : out;
    if (w.bias && columns == 16) {
        acc.a = _mm256_add_ps(acc.a, _mm256_loadu_ps(w.bias + 16 * panel));
        acc.b = _mm256_add_ps(acc.b, _mm256_loadu_ps(w.bias + 16 * panel + 8));
    }
    _mm256_storeu_ps(at, acc.a);
    _mm256_storeu_ps(at + 8, acc.b);
    for (int j = 0; columns < 16 && j < columns; ++j) y[j] = out[j] + (w.bias ? w.bias[16 * panel + j] : 0.0f);
}

// R rows with P panels. Two panels are two streams from memory, which together are faster than one.
template <int BITS, int GROUP, int R, int P>
void few_block(const qwa_linear& w, const Activations& a, int row, float* y, int64_t stride, int panel) {
    constexpr int kBlock = GROUP * (BITS == 4 ? 8 : 16);
    const size_t first = static_cast<size_t>(panel) * a.groups;
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + first * kBlock;
    const uint16_t* scales = w.scales + 16 * first;
    Pair acc[P][R];
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < R; ++r) acc[p][r].a = acc[p][r].b = _mm256_setzero_ps();
    for (int g = 0; g < a.groups; ++g, codes += kBlock, scales += 16) {
        const size_t at = static_cast<size_t>(g) * a.tile + row;
        for (int p = 0; p < P; ++p) {
            const uint8_t* c = codes + static_cast<size_t>(p) * a.groups * kBlock;
            for (int line = 0; line < kBlock; line += 64)
                _mm_prefetch(reinterpret_cast<const char*>(c + kAhead + line), _MM_HINT_T0);
            __m256i dot[R][2];
            dot_group<BITS, GROUP, R, false>(c, a.q + at * GROUP, a.pair + at, dot);
            const Pair s = load_scales(scales + static_cast<size_t>(p) * a.groups * 16);
            for (int r = 0; r < R; ++r) {
                const __m256 scale = _mm256_set1_ps(a.scale[at + r]);
                Pair& sum = acc[p][r];
                sum.a = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][0]), _mm256_mul_ps(s.a, scale), sum.a);
                sum.b = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][1]), _mm256_mul_ps(s.b, scale), sum.b);
            }
        }
    }
    for (int p = 0; p < P; ++p)
        for (int r = 0; r < R; ++r) store_row(w, panel + p, acc[p][r], y + (row + r) * stride + 16 * (panel + p));
}

template <int BITS, int GROUP, int P>
void few_rows_of(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int panel) {
    int row = 0;  // the second pass over a panel reads it from the CPU's cache
    for (; row + 4 <= a.rows; row += 4) few_block<BITS, GROUP, 4, P>(w, a, row, y, stride, panel);
    if (a.rows - row == 3) few_block<BITS, GROUP, 3, P>(w, a, row, y, stride, panel);
    if (a.rows - row == 2) few_block<BITS, GROUP, 2, P>(w, a, row, y, stride, panel);
    if (a.rows - row == 1) few_block<BITS, GROUP, 1, P>(w, a, row, y, stride, panel);
}

template <int BITS, int GROUP>
void few_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    int p = first;
    for (; p + 2 <= last; p += 2) few_rows_of<BITS, GROUP, 2>(w, a, y, stride, p);
    if (p < last) few_rows_of<BITS, GROUP, 1>(w, a, y, stride, p);
}

// Prefill: a panel's codes are unpacked once for a block of inputs, then used by all rows. `at` gets 64 bytes for each
// 4 inputs: int4 as codes 0..15, int8 centred.
template <int BITS>
void unpack(const uint8_t* codes, int bytes, uint8_t* at) {
    const __m256i nibble = _mm256_set1_epi8(15), centre = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int i = 0; i < bytes; i += 32) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
        if constexpr (BITS == 4) {
            __m256i* out = reinterpret_cast<__m256i*>(at + i / 64 * 128 + i % 64);
            _mm256_store_si256(out, _mm256_and_si256(w, nibble));
            _mm256_store_si256(out + 2, _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble));
        } else {
            _mm256_store_si256(reinterpret_cast<__m256i*>(at + i), _mm256_xor_si256(w, centre));
        }
    }
}

constexpr int kDepth = 16;  // groups unpacked at a time: 16 * 64 * 16 = 16 KiB, which fit L1 with their rows
constexpr int kPanels = 8;  // panels that use the rows while these are in L2
constexpr int kTile = 4;    // rows at a time: 4 x 2 sums, 2 weights, 1 activation and temporaries fill 16 registers

// Adds groups [from, to) of one panel, for all rows, to `sums` [rows, 16].
template <int BITS, int GROUP>
void many_panel(const qwa_linear& w, const Activations& a, int panel, int from, int to, const uint8_t* unpacked,
                float* sums) {
    const uint16_t* scales = w.scales + (static_cast<size_t>(panel) * a.groups + from) * 16;
    alignas(32) float scale16[kDepth][16];
    for (int g = from; g < to; ++g) {
        const Pair s = load_scales(scales + 16 * (g - from));
        _mm256_store_ps(scale16[g - from], s.a);
        _mm256_store_ps(scale16[g - from] + 8, s.b);
    }
    for (int m = 0; m < a.rows; m += kTile) {
        const size_t base = row_offset(a, m / a.tile, m % a.tile);
        float* sum = sums + 16 * m;
        for (int g = from; g < to; ++g) {
            const size_t at = base + static_cast<size_t>(g) * a.tile;
            __m256i dot[kTile][2];
            dot_group<BITS, GROUP, kTile, true>(unpacked + (g - from) * GROUP * 16, a.q + at * GROUP, a.pair + at, dot);
            const __m256 s0 = _mm256_load_ps(scale16[g - from]), s1 = _mm256_load_ps(scale16[g - from] + 8);
            for (int r = 0; r < kTile; ++r) {
                const __m256 scale = _mm256_set1_ps(a.scale[at + r]);
                float* y = sum + 16 * r;
                _mm256_store_ps(
                    y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][0]), _mm256_mul_ps(s0, scale), _mm256_load_ps(y)));
                _mm256_store_ps(y + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][1]), _mm256_mul_ps(s1, scale),
                                                       _mm256_load_ps(y + 8)));
            }
        }
    }
}

constexpr int kUnpacked = kDepth * 64 * 16;

size_t many_rows_bytes(int rows) { return kUnpacked + 4 * kPanels * 16 * static_cast<size_t>((rows + 15) / 16 * 16); }

template <int BITS, int GROUP>
void many_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last,
                 void* memory) {
    constexpr int kBlock = GROUP * (BITS == 4 ? 8 : 16);
    const size_t padded = static_cast<size_t>(tiles_of(a)) * a.tile * 16;
    uint8_t* unpacked = static_cast<uint8_t*>(memory);
    float* sums = reinterpret_cast<float*>(unpacked + kUnpacked);
    const uint8_t* codes = static_cast<const uint8_t*>(w.codes);
    for (int p0 = first; p0 < last; p0 += kPanels) {
        const int panels = last - p0 < kPanels ? last - p0 : kPanels;
        memset(sums, 0, 4 * panels * padded);
        for (int g = 0; g < a.groups; g += kDepth) {
            const int to = g + kDepth < a.groups ? g + kDepth : a.groups;
            for (int p = 0; p < panels; ++p) {
                unpack<BITS>(codes + (static_cast<size_t>(p0 + p) * a.groups + g) * kBlock, (to - g) * kBlock,
                             unpacked);
                many_panel<BITS, GROUP>(w, a, p0 + p, g, to, unpacked, sums + p * padded);
            }
        }
        for (int p = 0; p < panels; ++p)
            for (int m = 0; m < a.rows; ++m) {
                const float* sum = sums + p * padded + 16 * m;
                store_row(w, p0 + p, {_mm256_load_ps(sum), _mm256_load_ps(sum + 8)}, y + m * stride + 16 * (p0 + p));
            }
    }
}

void few_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last) {
    (w.bits == 4 ? (w.group == 64 ? few_panels<4, 64> : few_panels<4, 32>)
                 : (w.group == 64 ? few_panels<8, 64> : few_panels<8, 32>))(w, a, y, stride, first, last);
}

void many_rows(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last, void* memory) {
    (w.bits == 4 ? (w.group == 64 ? many_panels<4, 64> : many_panels<4, 32>)
                 : (w.group == 64 ? many_panels<8, 64> : many_panels<8, 32>))(w, a, y, stride, first, last, memory);
}

template <int R>
void fp16_panel(const qwa_linear& w, const float* x, int64_t x_stride, float* y, int64_t y_stride, int panel) {
    const uint16_t* codes = static_cast<const uint16_t*>(w.codes) + static_cast<size_t>(panel) * w.in_features * 16;
    Pair acc[R];
    for (int r = 0; r < R; ++r) acc[r].a = acc[r].b = _mm256_setzero_ps();
    for (int k = 0; k < w.in_features; ++k, codes += 16) {
        _mm_prefetch(reinterpret_cast<const char*>(codes) + kAhead, _MM_HINT_T0);
        const Pair c = load_scales(codes);
        for (int r = 0; r < R; ++r) {
            const __m256 v = _mm256_set1_ps(x[r * x_stride + k]);
            acc[r].a = _mm256_fmadd_ps(c.a, v, acc[r].a);
            acc[r].b = _mm256_fmadd_ps(c.b, v, acc[r].b);
        }
    }
    for (int r = 0; r < R; ++r) store_row(w, panel, acc[r], y + r * y_stride + 16 * panel);
}

void fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride, int first,
          int last) {
    for (int p = first; p < last; ++p) {
        int m = 0;
        for (; m + 5 <= rows; m += 5) fp16_panel<5>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
        for (; m + 2 <= rows; m += 2) fp16_panel<2>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
        if (m < rows) fp16_panel<1>(w, x + m * x_stride, x_stride, y + m * y_stride, y_stride, p);
    }
}

}  // namespace

const Kernels kAvx2 = {"avx2", quantize_row, few_rows, many_rows, many_rows_bytes, fp16};

}  // namespace qwa
#endif
