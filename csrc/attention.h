// Inside the library: attention over a KV cache, divided among the threads of a parallel region.
#pragma once
#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {

// A row of the batch, or a sequence of a packed step: the row of its first new position, the number of its new
// positions, and the positions that the cache holds before them.
struct Sequence {
    int row, queries, past;
};
Sequence sequence_of(const qwa_step& step, int index);

// The new positions of all sequences together.
int rows_of(const qwa_step& step);

// The unit of work is a tile: some queries of one sequence, and one KV head, which `group` of their heads attend to. A
// tile reads the cache in chunks of kChunk positions. They start at the first position that its row may see, so padding
// on the left does not change a result. Each chunk gives a part, and a tile's parts are merged in order, so it does not
// matter which thread computed them.
class Attention {
   public:
    // New queries, keys and values: RoPE and writing to the cache are still to be done.
    struct PendingQKV {
        float *q, *keys;
        const float* values;
    };

    // Made before the parallel region, which has at most `threads` threads. `step` must outlive it.
    Attention(const qwa_step& step, int threads);

    // Bytes for the parts that the threads share: 0 if each thread computes whole tiles.
    size_t shared_bytes() const;

    // Bytes for the parts that each thread has for itself.
    size_t own_bytes() const;

    // The work of thread `index` of `team` for one layer; q and out [N, heads * D]. If `pending_qkv` is not NULL, RoPE
    // and writing to the cache come first. `memory`: shared_bytes() for all threads, and own_bytes() for this one. When
    // it returns, other threads may not have finished.
    struct Memory {
        float *shared, *own;
    };
    void run(const qwa_kv& kv, const float* q, float* out, const PendingQKV* pending_qkv, Memory memory,
             Barrier& barrier, int index, int team) const;

   private:
    struct Tile {
        int index, head;  // the sequence, and the KV head
        Sequence of;
        int first, queries;  // among the sequence's new positions
    };
    struct Layer {
        const qwa_kv& kv;
        const float* q;
        float* out;
    };

    template <class F>
    void each_tile(F f) const;
    int end(const Tile& t) const { return t.of.past + t.first + t.queries; }  // of the positions that the tile sees
    int first_seen(const Tile& t) const;
    int chunks(const Tile& t, int from) const { return (end(t) - from + kChunk - 1) / kChunk; }
    int64_t work(const Tile& t) const { return static_cast<int64_t>(t.queries) * (end(t) + kChunk / 4); }
    int64_t part_floats_of(const Tile& t) const;

    void rotate_and_write(const qwa_kv& kv, const PendingQKV& pending_qkv, int sequence, int head) const;
    void block_addresses(const qwa_kv& kv, const void* side, const Tile& t, int first, int count,
                         const void** at) const;
    void scale_addresses(const float* scales, const qwa_kv& kv, const Tile& t, int first, int count,
                         const float** at) const;
    void next_key_addresses(const qwa_kv& kv, const Tile& t, int first, const void** at) const;
    void chunk(const Layer& layer, const Tile& t, int from, int index, float* parts) const;
    void merge(const Layer& layer, const Tile& t, int from, const float* parts) const;
    void run_whole(const Layer& layer, const PendingQKV* pending_qkv, float* parts, int index, int team) const;
    void run_chunks(const Layer& layer, float* shared, Barrier& barrier, int index, int team) const;

    const qwa_step& s_;
    int group_, tile_queries_;
    int64_t width_;                                                           // floats of a part
    int64_t work_ = 0, pieces_ = 0, part_floats_ = 0, most_part_floats_ = 0;  // most_: of one tile, else of all
    bool whole_;                                                              // each thread computes whole tiles
    bool one_each_ = true;  // each KV head of each sequence is one tile
};

// RoPE in place on heads [first, last) of a sequence's new position i; x [N, heads * D].
void rotate_heads(const qwa_step& step, float* x, int heads, int sequence, int i, int first, int last);

// Writes one head of a sequence's new position i to the cache; keys and values [N, kv_heads * D].
void write_kv_head(const qwa_step& step, const qwa_kv& kv, const float* keys, const float* values, int sequence, int i,
                   int head);

}  // namespace qwa
