// Attention over a KV cache.
#include "attention.h"

namespace qwa {
namespace {

// The index of a position in the cache, in units of one head of one position.
int64_t position_index(const qwa_step& s, const qwa_kv& kv, int sequence, int head, int position) {
    if (!s.tables) return (static_cast<int64_t>(sequence) * s.kv_heads + head) * kv.capacity + position;
    const int64_t block = s.tables[sequence * s.table_stride + position / s.block];
    return (block * s.kv_heads + head) * s.block + position % s.block;
}

const char* address_of(const qwa_step& s, const void* side, int64_t index) {
    return static_cast<const char*>(side) + index * s.head_dim * element_bytes(s.kv_dtype);
}

int block_of(const qwa_step& s) { return s.tables ? s.block : kChunk; }

// Calls f(sequence, i) for the new positions in rows [rows.begin, rows.end).
template <class F>
void each_row(const qwa_step& s, Range rows, F f) {
    for (int index = 0; index < s.batch; ++index) {
        const Sequence of = sequence_of(s, index);
        for (int i = rows.begin > of.row ? rows.begin - of.row : 0; i < of.queries && of.row + i < rows.end; ++i)
            f(index, i);
    }
}

}  // namespace

Sequence sequence_of(const qwa_step& s, int index) {
    if (!s.tables) return {index * s.queries, s.queries, s.past};
    return {s.starts[index], s.starts[index + 1] - s.starts[index], s.num_computed[index]};
}

int rows_of(const qwa_step& s) { return s.tables ? s.starts[s.batch] : s.batch * s.queries; }

void rotate_heads(const qwa_step& s, float* x, int heads, int sequence, int i, int first, int last) {
    const int64_t row = sequence_of(s, sequence).row + i;
    const int64_t angle = s.tables ? row * s.head_dim : sequence * s.rope_stride + static_cast<int64_t>(i) * s.head_dim;
    float* head = x + (row * heads + first) * s.head_dim;
    for (int h = first; h < last; ++h, head += s.head_dim)
        ops().rotate(head, s.cosine + angle, s.sine + angle, s.head_dim);
}

void write_kv_head(const qwa_step& s, const qwa_kv& kv, const float* keys, const float* values, int sequence, int i,
                   int head) {
    const Sequence of = sequence_of(s, sequence);
    const int64_t from = (static_cast<int64_t>(of.row + i) * s.kv_heads + head) * s.head_dim;
    const int64_t to = position_index(s, kv, sequence, head, of.past + i);
    const bool int8 = s.kv_dtype == QWA_INT8;
    ops().write_kv(keys + from, s.head_dim, s.kv_dtype, const_cast<char*>(address_of(s, kv.keys, to)),
                   int8 ? kv.key_scales + to : nullptr);
    ops().write_kv(values + from, s.head_dim, s.kv_dtype, const_cast<char*>(address_of(s, kv.values, to)),
                   int8 ? kv.value_scales + to : nullptr);
}

Attention::Attention(const qwa_step& step, int threads)
    : s_(step), group_(step.heads / step.kv_heads), width_(part_floats(step.head_dim)) {
    tile_queries_ = group_ < kMostRows ? kMostRows / group_ : 1;
    int64_t largest = 0, tiles = 0;
    bool alike = true;
    each_tile([&](const Tile& t) {
        const int64_t floats = part_floats_of(t);
        alike &= !tiles || work(t) == largest;
        ++tiles;
        largest = work(t) > largest ? work(t) : largest;
        work_ += work(t);
        pieces_ += static_cast<int64_t>(t.queries) * chunks(t, 0);
        part_floats_ += floats;
        most_part_floats_ = floats > most_part_floats_ ? floats : most_part_floats_;
        one_each_ &= t.queries == t.of.queries;
    });
    whole_ = 4 * threads * largest <= work_ || (alike && tiles % threads == 0);
}

template <class F>
void Attention::each_tile(F f) const {
    for (int index = 0; index < s_.batch; ++index) {
        const Sequence of = sequence_of(s_, index);
        for (int head = 0; head < s_.kv_heads; ++head)
            for (int first = 0; first < of.queries; first += tile_queries_) {
                const int left = of.queries - first;
                f(Tile{index, head, of, first, left < tile_queries_ ? left : tile_queries_});
            }
    }
}

size_t Attention::shared_bytes() const { return whole_ ? 0 : static_cast<size_t>(part_floats_) * sizeof(float); }

size_t Attention::own_bytes() const { return whole_ ? static_cast<size_t>(most_part_floats_) * sizeof(float) : 0; }

int64_t Attention::part_floats_of(const Tile& t) const { return width_ * chunks(t, 0) * t.queries * group_; }

int Attention::first_seen(const Tile& t) const {
    if (!s_.mask) return 0;
    const uint8_t* mask = s_.mask + static_cast<int64_t>(t.index) * (s_.past + s_.queries);
    int first = 0;
    while (first < s_.past && !mask[first]) ++first;
    return first;
}

void Attention::rotate_and_write(const qwa_kv& kv, const PendingQKV& pending_qkv, int sequence, int head) const {
    for (int i = 0; i < sequence_of(s_, sequence).queries; ++i) {
        rotate_heads(s_, pending_qkv.q, s_.heads, sequence, i, head * group_, (head + 1) * group_);
        rotate_heads(s_, pending_qkv.keys, s_.kv_heads, sequence, i, head, head + 1);
        write_kv_head(s_, kv, pending_qkv.keys, pending_qkv.values, sequence, i, head);
    }
}

void Attention::block_addresses(const qwa_kv& kv, const void* side, const Tile& t, int first, int count,
                                const void** at) const {
    for (int i = 0; i < count; i += block_of(s_))
        *at++ = address_of(s_, side, position_index(s_, kv, t.index, t.head, first + i));
}

void Attention::scale_addresses(const float* scales, const qwa_kv& kv, const Tile& t, int first, int count,
                                const float** at) const {
    for (int i = 0; i < count; i += block_of(s_)) *at++ = scales + position_index(s_, kv, t.index, t.head, first + i);
}

// The keys that are read after the chunk at `first`: those of the next chunk, head or sequence.
void Attention::next_key_addresses(const qwa_kv& kv, const Tile& t, int first, const void** at) const {
    Tile next = t;
    int from = first + kChunk;
    if (from >= end(t)) {
        from = 0;
        if (++next.head == s_.kv_heads) {
            next.head = 0;
            if (++next.index == s_.batch) return;
            next.of = sequence_of(s_, next.index);
        }
    }
    const int left = next.of.past - from;  // another thread may not have written the new ones yet
    block_addresses(kv, kv.keys, next, from, left < kChunk ? left : kChunk, at);
}

void Attention::chunk(const Layer& layer, const Tile& t, int from, int index, float* parts) const {
    const int first = from + index * kChunk, left = end(t) - first, total = chunks(t, from);
    Chunk c{};
    c.q = layer.q + (static_cast<int64_t>(t.of.row + t.first) * s_.heads + t.head * group_) * s_.head_dim;
    c.q_position = static_cast<int64_t>(s_.heads) * s_.head_dim;
    c.block = block_of(s_);
    c.count = left < kChunk ? left : kChunk;
    c.first = first;
    block_addresses(layer.kv, layer.kv.keys, t, first, c.count, c.keys);
    block_addresses(layer.kv, layer.kv.values, t, first, c.count, c.values);
    next_key_addresses(layer.kv, t, first, c.next_keys);
    if (s_.kv_dtype == QWA_INT8) {
        scale_addresses(layer.kv.key_scales, layer.kv, t, first, c.count, c.key_scales);
        scale_addresses(layer.kv.value_scales, layer.kv, t, first, c.count, c.value_scales);
    }
    c.mask = s_.mask ? s_.mask + static_cast<int64_t>(t.index) * (s_.past + s_.queries) + first : nullptr;
    c.queries = t.queries;
    c.group = group_;
    c.past = t.of.past + t.first;
    c.head_dim = s_.head_dim;
    c.scale = s_.scale;
    c.part = parts + index * width_;
    c.part_row = width_ * total;
    ops().attend(c, s_.kv_dtype);
}

void Attention::merge(const Layer& layer, const Tile& t, int from, const float* parts) const {
    const int total = chunks(t, from);
    for (int i = 0; i < t.queries; ++i)
        for (int j = 0; j < group_; ++j, parts += width_ * total) {
            const int64_t to = static_cast<int64_t>(t.of.row + t.first + i) * s_.heads + t.head * group_ + j;
            ops().merge(parts, width_, total, s_.head_dim, layer.out + to * s_.head_dim);
        }
}

// Each thread gets the same amount of work, which is not the same number of tiles.
void Attention::run_whole(const Layer& layer, const PendingQKV* pending_qkv, float* parts, int index, int team) const {
    const int64_t begin = work_ * index / team, stop = work_ * (index + 1) / team;
    int64_t at = 0;
    each_tile([&](const Tile& t) {
        const bool own = at >= begin && at < stop;
        at += work(t);
        if (!own) return;
        if (pending_qkv) rotate_and_write(layer.kv, *pending_qkv, t.index, t.head);
        const int from = first_seen(t);
        for (int i = 0; i < chunks(t, from); ++i) chunk(layer, t, from, i, parts);
        merge(layer, t, from, parts);
    });
}

void Attention::run_chunks(const Layer& layer, float* shared, Barrier& barrier, int index, int team) const {
    const int64_t begin = pieces_ * index / team, stop = pieces_ * (index + 1) / team;
    int64_t at = 0;
    float* parts = shared;
    each_tile([&](const Tile& t) {
        const int all = chunks(t, 0);
        if (at < stop && at + static_cast<int64_t>(all) * t.queries > begin) {
            const int from = first_seen(t);
            for (int i = 0; i < chunks(t, from); ++i) {
                const int64_t piece = at + static_cast<int64_t>(i) * t.queries;
                if (piece >= begin && piece < stop) chunk(layer, t, from, i, parts);
            }
        }
        at += static_cast<int64_t>(all) * t.queries;
        parts += part_floats_of(t);
    });
    barrier.wait(team);
    int tile = 0;
    parts = shared;
    each_tile([&](const Tile& t) {
        if (tile++ % team == index) merge(layer, t, first_seen(t), parts);
        parts += part_floats_of(t);
    });
}

void Attention::run(const qwa_kv& kv, const float* q, float* out, const PendingQKV* pending_qkv, Memory memory,
                    Barrier& barrier, int index, int team) const {
    const Layer layer{kv, q, out};
    if (whole_ && (one_each_ || !pending_qkv)) return run_whole(layer, pending_qkv, memory.own, index, team);
    if (pending_qkv) {
        const Range own = share(s_.batch * s_.kv_heads, index, team);
        for (int i = own.begin; i < own.end; ++i) rotate_and_write(kv, *pending_qkv, i / s_.kv_heads, i % s_.kv_heads);
        barrier.wait(team);
    }
    if (whole_) return run_whole(layer, nullptr, memory.own, index, team);
    run_chunks(layer, memory.shared, barrier, index, team);
}

}  // namespace qwa

using namespace qwa;

void qwa_rotate(const qwa_step* step, int heads, float* x) {
    auto body = [&](int index, int team) {
        each_row(*step, share(rows_of(*step), index, team),
                 [&](int sequence, int i) { rotate_heads(*step, x, heads, sequence, i, 0, heads); });
    };
    parallel(threads(), body);
}

void qwa_write_kv(const qwa_step* step, const qwa_kv* kv, const float* keys, const float* values) {
    auto body = [&](int index, int team) {
        each_row(*step, share(rows_of(*step), index, team), [&](int sequence, int i) {
            for (int head = 0; head < step->kv_heads; ++head)
                write_kv_head(*step, *kv, keys, values, sequence, i, head);
        });
    };
    parallel(threads(), body);
}

int qwa_attention(const qwa_step* step, const qwa_kv* kv, const float* q, float* out) {
    const int team_size = threads();
    const Attention attention(*step, team_size);
    Workspace workspace;
    if (!workspace.reserve(team_size, attention.shared_bytes(), attention.own_bytes())) return QWA_NO_MEMORY;
    Barrier barrier;
    auto body = [&](int index, int team) {
        const Attention::Memory memory{reinterpret_cast<float*>(workspace.shared()),
                                       reinterpret_cast<float*>(workspace.own(index))};
        attention.run(*kv, q, out, nullptr, memory, barrier, index, team);
    };
    parallel(team_size, body);
    return QWA_OK;
}
