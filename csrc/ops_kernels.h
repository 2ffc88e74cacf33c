// What stands between the matrix products, row by row, for one thread: one table for each instruction set.
#pragma once
#include "qwa.h"

namespace qwa {

constexpr int kChunk = 256;    // positions of a cache that are attended to at a time
constexpr int kMostRows = 64;  // queries times heads that attend to a chunk in one call

constexpr int kLeastBlock = 16;
constexpr int kBlocks = kChunk / kLeastBlock;  // a chunk's positions lie in as many places at most

// One chunk of a cache, and some queries of one head of keys: `queries` positions times `group` heads.
struct Chunk {
    const float* q;  // query i, head j at i * q_position + j * head_dim
    int64_t q_position;
    const void *keys[kBlocks], *values[kBlocks];               // [block, head_dim] each, in the cache's dtype
    const float *key_scales[kBlocks], *value_scales[kBlocks];  // [block] each, of int8, else NULL
    const void* next_keys[kBlocks];                            // what will be read after this chunk, or NULL
    const uint8_t* mask;                                       // [count], 0 is hidden; NULL: nothing is
    int block;                                                 // positions that lie behind one another
    int count, first;                                          // positions, and which one the chunk begins with
    int queries, group, past, head_dim;                        // the first query stands at position `past`
    float scale;
    float* part;  // query i, head j at (i * group + j) * part_row: see Part
    int64_t part_row;
};

// The result over one chunk: largest score, sum of exp(score - largest), then from kPartHead on the weighted values.
constexpr int kPartHead = 16;

struct Ops {
    const char* name;
    void (*rms_norm)(const float* x, const float* weight, float eps, int width, float* out);
    void (*add)(float* x, const float* y, int64_t count);
    void (*silu_mul)(const float* gate, const float* up, int64_t count, float* out);
    void (*rotate)(float* x, const float* cosine, const float* sine, int head_dim);
    // One head's values to a position of the cache; the scale of int8 is written to `scale`.
    void (*write_kv)(const float* x, int head_dim, int dtype, void* to, float* scale);
    void (*attend)(const Chunk& chunk, int dtype);
    // Parts of `chunks` chunks, `stride` floats apart, to one head's output.
    void (*merge)(const float* parts, int64_t stride, int chunks, int head_dim, float* out);
    // weight [columns, inputs] times panel [inputs, kDenseRows] -> out [columns, kDenseRows]; see dense.h.
    void (*dense)(const float* weight, int64_t inputs, int columns, const float* panel, float* out);
};

extern const Ops kOpsPortable;
#if defined(__x86_64__)
extern const Ops kOpsAvx2, kOpsAvx512;
#endif

// The table for the instruction set that the library runs.
const Ops& ops();

static inline int part_floats(int head_dim) { return kPartHead + (head_dim + 15) / 16 * 16; }
static inline size_t element_bytes(int dtype) { return dtype == QWA_FLOAT32 ? 4 : dtype == QWA_FLOAT16 ? 2 : 1; }

}  // namespace qwa
