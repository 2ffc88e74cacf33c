// Inside the library: attention over a cache, shared out among the threads of a parallel region.
#pragma once
#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {

// A row of the batch, or a sequence of a packed step: its first new position among all of them, how many there are, and
// the positions that the cache holds before.
struct Sequence {
    int row, queries, past;
};
Sequence sequence_of(const qwa_step& step, int index);

// New positions of a step in all.
int rows_of(const qwa_step& step);

// The unit of work is a tile: some queries of a sequence, and a head of keys that `group` of their heads look at. It
// meets the cache in chunks of kChunk positions, counted from the first one that its row may see, so that padding on
// the left changes nothing. Every chunk gives a part, and a tile's parts are merged in their order, whoever computed
// them.
class Attention {
   public:
    // What has yet to be rotated, and put into the cache.
    struct PendingQKV {
        float *q, *keys;
        const float* values;
    };

    // Made before the parallel region, which has at most `threads` threads; the step must outlive it.
    Attention(const qwa_step& step, int threads);

    // Memory that the threads share for their parts, in bytes: 0 where each thread has whole tiles.
    size_t shared_bytes() const;

    // Memory that each thread has of its own, in bytes.
    size_t own_bytes() const;

    // What thread `index` of `team` has to do for one layer: q and out [N, heads * D]. Where `pending_qkv` is not NULL,
    // RoPE and the way into the cache come first. `memory`: shared_bytes() that all threads share, and own_bytes() of
    // the thread's own. Others may still be at work when it returns.
    struct Memory {
        float *shared, *own;
    };
    void run(const qwa_kv& kv, const float* q, float* out, const PendingQKV* pending_qkv, Memory memory,
             Barrier& barrier, int index, int team) const;

   private:
    struct Tile {
        int index, head;  // of the sequence, of the keys
        Sequence of;
        int first, queries;  // within the sequence's new positions
    };
    struct Layer {
        const qwa_kv& kv;
        const float* q;
        float* out;
    };

    template <class F>
    void each_tile(F f) const;
    int end(const Tile& t) const { return t.of.past + t.first + t.queries; }  // of the positions that it sees
    int first_seen(const Tile& t) const;
    int chunks(const Tile& t, int from) const { return (end(t) - from + kChunk - 1) / kChunk; }
    int64_t work(const Tile& t) const { return static_cast<int64_t>(t.queries) * (end(t) + kChunk / 4); }
    int64_t part_floats_of(const Tile& t) const;

    void rotate_and_write(const qwa_kv& kv, const PendingQKV& pending_qkv, int sequence, int head) const;
    void find(const qwa_kv& kv, const void* side, const Tile& t, int first, int count, const void** at) const;
    void find_scales(const float* scales, const qwa_kv& kv, const Tile& t, int first, int count,
                     const float** at) const;
    void find_next(const qwa_kv& kv, const Tile& t, int first, const void** at) const;
    void chunk(const Layer& layer, const Tile& t, int from, int index, float* parts) const;
    void merge(const Layer& layer, const Tile& t, int from, const float* parts) const;
    void run_whole(const Layer& layer, const PendingQKV* pending_qkv, float* parts, int index, int team) const;
    void run_chunks(const Layer& layer, float* shared, Barrier& barrier, int index, int team) const;

    const qwa_step& s_;
    int group_, tile_queries_;
    int64_t width_;                                                           // floats of a part
    int64_t work_ = 0, pieces_ = 0, part_floats_ = 0, most_part_floats_ = 0;  // of all tiles, and of one
    bool whole_;                                                              // threads have whole tiles
    bool one_each_ = true;  // every head of every sequence is one tile
};

// RoPE in place on heads [first, last) of new position i of a sequence: x [N, heads * D].
void rotate_heads(const qwa_step& step, float* x, int heads, int sequence, int i, int first, int last);

// Keys and values [N, kv_heads * D] of new position i of a sequence and one head into the cache.
void write_kv_head(const qwa_step& step, const qwa_kv& kv, const float* keys, const float* values, int sequence, int i,
                   int head);

}  // namespace qwa
