// Inside the library: attention over a cache, shared out among the threads of a parallel region.
#pragma once
#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {

// A head is a (row of the batch, head of keys) pair; `group` heads of queries look at its keys. A chunk is kChunk
// positions of it, counted from the first one that its row may see, so that padding on the left changes nothing.
// Every chunk gives a part, and a head's parts are merged in their order, whoever computed them.
class Attention {
   public:
    // q and out [B, Q, heads * D]. Made before the parallel region; the references must outlive it.
    Attention(const qwa_step& step, const qwa_kv& kv, const float* q, float* out);

    // Memory that the threads share for their parts, in bytes: 0 where each thread has whole heads.
    size_t shared_bytes() const;

    // What thread `index` of `team` has to do. Where `keys` is not NULL, RoPE on q and keys and their way into the cache
    // come first. `shared` is shared_bytes() long. Others may still be at work when it returns.
    void run(float* q, float* keys, const float* values, float* shared, Barrier& barrier, int index, int team) const;

   private:
    int first_seen(int row) const;
    void enter(float* q, float* keys, const float* values, int head) const;
    void chunk(int head, int first_seen, int index, float* parts) const;
    void merge(int head, int first_seen, const float* parts) const;

    const qwa_step& s_;
    const qwa_kv& kv_;
    const float* q_;
    float* out_;
    int group_, length_, chunks_;
    int64_t width_, head_floats_;  // of a part, and of all parts of a head
    bool by_heads_;
};

// RoPE in place on heads [first, last) of row `row` of x [B, Q, heads * D].
void rotate_heads(const qwa_step& step, float* x, int heads, int row, int first, int last);

// Keys and values [B, Q, kv_heads * D] of one head into the cache.
void keep_head(const qwa_step& step, const qwa_kv& kv, const float* keys, const float* values, int head);

}  // namespace qwa
