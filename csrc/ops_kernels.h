// The operations between the matrix products, for one thread: one table of functions for each instruction set.
#pragma once
#include "qwa.h"

namespace qwa {

constexpr int kChunk = 256;    // positions of a cache that one call attends to
constexpr int kMostRows = 64;  // queries times heads that one call attends for

constexpr int kLeastBlock = 16;
constexpr int kBlocks = kChunk / kLeastBlock;  // a chunk has at most so many blocks of a paged cache

// One chunk of a cache, and queries that attend to it: `queries` positions times the `group` heads of one KV head.
struct Chunk {
    const float* q;  // query i, head j at i * q_position + j * head_dim
    int64_t q_position;
    const void *keys[kBlocks], *values[kBlocks];               // [block, head_dim] each, in the cache's dtype
    const float *key_scales[kBlocks], *value_scales[kBlocks];  // [block] each, of int8, else NULL
    const void* next_keys[kBlocks];                            // the chunk that is read next, to prefetch; or NULL
    const uint8_t* mask;                                       // [count], 0 is hidden; NULL: nothing is hidden
    int block;                                                 // positions that are contiguous in memory
    int count, first;                                          // positions of the chunk, and the first of them
    int queries, group, past, head_dim;                        // the first query stands at position `past`
    float scale;
    float* part;  // query i, head j at (i * group + j) * part_row: see kPartHead
    int64_t part_row;
};

// A part, the result over one chunk: the largest score, the sum of exp(score - largest), and from kPartHead on the
// weighted sum of the values.
constexpr int kPartHead = 16;

struct Ops {
    const char* name;
    void (*rms_norm)(const float* x, const float* weight, float eps, int width, float* out);
    void (*add)(float* x, const float* y, int64_t count);
    void (*silu_mul)(const float* gate, const float* up, int64_t count, float* out);
    void (*rotate)(float* x, const float* cosine, const float* sine, int head_dim);
    // Writes one head of one position to the cache; for int8 its scale to `scale`.
    void (*write_kv)(const float* x, int head_dim, int dtype, void* to, float* scale);
    void (*attend)(const Chunk& chunk, int dtype);
    // Merges the parts of `chunks` chunks, `stride` floats apart, into one head's output.
    void (*merge)(const float* parts, int64_t stride, int chunks, int head_dim, float* out);
    // weight [columns, inputs] times panel [inputs, kDenseRows] -> out [columns, kDenseRows]; see dense.h.
    void (*dense)(const float* weight, int64_t inputs, int columns, const float* panel, float* out);
};

extern const Ops kOpsPortable;
#if defined(__x86_64__)
extern const Ops kOpsAvx2, kOpsAvx512;
#endif

// The table for the instruction set that is in use.
const Ops& ops();

static inline int part_floats(int head_dim) { return kPartHead + (head_dim + 15) / 16 * 16; }
static inline size_t element_bytes(int dtype) { return dtype == QWA_FLOAT32 ? 4 : dtype == QWA_FLOAT16 ? 2 : 1; }

}  // namespace qwa
