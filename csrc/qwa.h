// The C ABI of the native kernels: linear layers with quantised weights, and what a decode step computes between them.
//
// M rows, K inputs, N outputs, G groups of inputs, P panels of 16 outputs. Activations are float32, row-major.
//
// The kernels read weights in the layout of the checkpoint's file (P = ceil(N/16), G = ceil(K/group)):
//   bits 4   codes uint8 [P, G, group/8, 64]: byte 4j+i of chunk t has column j of the panel, input 8t+i in its low
//            nibble and input 8t+4+i in its high one; value = code - 8
//   bits 8   codes uint8 [P, G, group/4, 64]: byte 4j+i of chunk t is column j, input 4t+i; value = code - 128
//   both     scales float16 [P, G, 16]
//   bits 16  codes float16 [P, K, 16], no scales
//   bits 32  codes float32 [N, K], a Linear's own weights, no scales: only in qwa_layers, for all linears of a layer
//
// One 64-byte chunk is 16 columns x 4 inputs: two AVX2 registers, one AVX-512 register, or one row of an AMX tile.
//
// Activations are quantised per row and group: scale = absmax / 127, q = round-half-even(x * (127 / absmax)).
//   for each group, in order: y = fma(float(dot), weight scale * activation scale, y); then y + bias
// The sequence of float operations is the same on every instruction set and for any number of rows, so results are
// equal bit for bit.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QWA_ABI 4
#define QWA_API __attribute__((visibility("default")))

typedef struct {
    const void* codes;
    const uint16_t* scales;  // float16; NULL for bits 16 and 32
    const float* bias;       // [N] or NULL
    int32_t in_features;
    int32_t out_features;
    int32_t bits;   // 4, 8, 16 or 32
    int32_t group;  // 32 or 64; ignored for bits 16 and 32
} qwa_linear;

QWA_API int qwa_abi(void);

// The status that calls with working memory return. QWA_NO_MEMORY: the system refused the memory; the call has computed
// nothing and written nothing.
enum { QWA_OK = 0, QWA_NO_MEMORY = 1 };

// Instruction sets are "amx", "avx512", "avx2" and "portable". qwa_supported returns 1 if this CPU has it. qwa_select
// returns 0 if the kernels now use it; no other call may be running meanwhile.
QWA_API int qwa_supported(const char* isa);
QWA_API int qwa_select(const char* isa);
QWA_API const char* qwa_selected(void);

// The number of threads of every later call. Any thread may set it at any time.
QWA_API void qwa_set_threads(int threads);
QWA_API int qwa_get_threads(void);

// Use the threads of the process's OpenMP runtime, so that two teams do not compete for the cores. The arguments are
// the addresses of its GOMP_parallel, omp_get_num_threads and omp_get_thread_num. Without this call, and in the child
// of a fork, the library has threads of its own.
QWA_API void qwa_use_openmp(void* gomp_parallel, void* omp_get_num_threads, void* omp_get_thread_num);

// y[i] [M, N_i] = x [M, K] times linear i, for `count` linears that share their input. Strides are in floats.
QWA_API int qwa_linears(const qwa_linear* const* linears, int count, const float* x, int64_t rows, int64_t x_stride,
                        float* const* y, const int64_t* y_strides);

// y [M, N] = x [M, K] times float32 weights [N, K]; bias [N] or NULL. All are contiguous. Fast for up to about 64 rows.
// A row's results do not depend on the other rows.
QWA_API int qwa_dense(const float* weight, const float* bias, int64_t inputs, int64_t outputs, const float* x,
                      int64_t rows, float* y);

// ---- Between the matrix products (ops.cpp, attention.cpp, layer.cpp) ----
//
// B rows of a batch, Q new positions of each, D head width. A row's results do not depend on the other rows, on the
// number of threads, or on how its positions are split into passes.
//
// A step can also be packed: S sequences over a paged cache, each with its own number of new positions, one sequence
// after another. Then [N, ...] replaces [B, Q, ...] below, with N new positions in all.

// out [M, width] = weight * (x / rms(x)). out may be x.
QWA_API void qwa_rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t width, float* out);

// out = silu(gate) * up. out may be gate or up.
QWA_API void qwa_silu_mul(const float* gate, const float* up, int64_t count, float* out);

// The dtype of a KV cache. int8 has one scale for each head and position: value = code * scale.
enum { QWA_FLOAT32 = 0, QWA_FLOAT16 = 1, QWA_INT8 = 2 };

// One layer's cache. Position p of row b and head h has index (b * kv_heads + h) * capacity + p; in a packed step,
// position p of sequence s has index (tables[s][p / block] * kv_heads + h) * block + p % block.
typedef struct {
    void* keys;           // [B, kv_heads, capacity, D], after RoPE; packed [blocks, kv_heads, block, D]
    void* values;         // the same
    float* key_scales;    // the same without D, or NULL where dtype is not int8
    float* value_scales;  // the same
    int64_t capacity;     // positions; not used in a packed step
} qwa_kv;

// What all layers of a forward pass share.
typedef struct {
    int32_t batch, queries;  // B and Q; packed: S and 0
    int32_t past;            // positions that the cache holds before this pass; packed: 0
    int32_t heads, kv_heads, head_dim;
    int32_t kv_dtype;
    float scale;                 // of the scores
    const float *cosine, *sine;  // [B or 1, Q, D]; packed [N, D]
    int64_t rope_stride;         // floats from one row to the next: 0 if all rows share the angles
    const uint8_t* mask;         // [B, past + Q], 0 is padding, which only itself sees; NULL: no padding, or packed
    // The step is packed if tables is not NULL.
    const int32_t* tables;        // [S, table_stride]: the blocks of each sequence, in order
    const int32_t* starts;        // [S + 1]: where each sequence's new positions begin among the N
    const int32_t* num_computed;  // [S]: positions that the cache holds of each before this pass
    int64_t table_stride;
    int32_t block;  // positions of a block: a power of two from 16 to 256
} qwa_step;

// RoPE in place on x [B, Q, heads * D], queries or keys: the first half of a head pairs with the second.
QWA_API void qwa_rotate(const qwa_step* step, int heads, float* x);

// Writes keys and values [B, Q, kv_heads * D] to the cache, after the positions that it holds.
QWA_API void qwa_write_kv(const qwa_step* step, const qwa_kv* kv, const float* keys, const float* values);

// out [B, Q, heads * D]: q, of the same shape, attends causally to the cache, the new positions included.
QWA_API int qwa_attention(const qwa_step* step, const qwa_kv* kv, const float* q, float* out);

// One layer of the language model. Norm weights [H]; q, k and v share one input, gate and up another.
typedef struct {
    qwa_linear q, k, v, o, gate, up, down;
    const float *attention_norm, *mlp_norm;
    float eps;
} qwa_layer;

// x [B * Q, H] through `count` layers in place, each with its cache. Fast for up to about 32 rows.
QWA_API int qwa_layers(const qwa_layer* layers, const qwa_kv* caches, int count, const qwa_step* step, float* x);

// How this library lays out the structs above: a caller in another language has declared them again and compares. Each
// struct has an entry with its size and an empty field name, then one for each field. The last structure is NULL.
typedef struct {
    const char* structure;
    const char* field;
    int64_t offset, size;
} qwa_layout_entry;

QWA_API const qwa_layout_entry* qwa_layout(void);

#ifdef __cplusplus
}
#endif
