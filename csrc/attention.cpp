// Attention over a KV cache, for few new positions.
#include "attention.h"

namespace qwa {
namespace {

const char* at_position(const qwa_step& s, const void* side, int64_t position) {
    return static_cast<const char*>(side) + position * s.head_dim * element_bytes(s.kv_dtype);
}

}  // namespace

void rotate_heads(const qwa_step& s, float* x, int heads, int row, int first, int last) {
    for (int i = 0; i < s.queries; ++i) {
        const int64_t angle = row * s.rope_stride + static_cast<int64_t>(i) * s.head_dim;
        float* head = x + (static_cast<int64_t>(row * s.queries + i) * heads + first) * s.head_dim;
        for (int h = first; h < last; ++h, head += s.head_dim)
            ops().rotate(head, s.cosine + angle, s.sine + angle, s.head_dim);
    }
}

void keep_head(const qwa_step& s, const qwa_kv& kv, const float* keys, const float* values, int head) {
    const int row = head / s.kv_heads, h = head % s.kv_heads;
    for (int i = 0; i < s.queries; ++i) {
        const int64_t from = (static_cast<int64_t>(row * s.queries + i) * s.kv_heads + h) * s.head_dim;
        const int64_t position = head * kv.capacity + s.past + i;
        const bool int8 = s.kv_dtype == QWA_INT8;
        ops().keep(keys + from, s.head_dim, s.kv_dtype, const_cast<char*>(at_position(s, kv.keys, position)),
                   int8 ? kv.key_scales + position : nullptr);
        ops().keep(values + from, s.head_dim, s.kv_dtype, const_cast<char*>(at_position(s, kv.values, position)),
                   int8 ? kv.value_scales + position : nullptr);
    }
}

Attention::Attention(const qwa_step& step, const qwa_kv& kv, const float* q, float* out)
    : s_(step), kv_(kv), q_(q), out_(out), group_(step.heads / step.kv_heads), length_(step.past + step.queries) {
    chunks_ = (length_ + kChunk - 1) / kChunk;
    width_ = part_floats(s_.head_dim);
    head_floats_ = width_ * chunks_ * s_.queries * group_;
    const int heads = s_.batch * s_.kv_heads, team = threads();
    by_heads_ = heads % team == 0 || heads >= 4 * team;
}

size_t Attention::shared_bytes() const {
    return by_heads_ ? 0 : static_cast<size_t>(head_floats_) * s_.batch * s_.kv_heads * sizeof(float);
}

int Attention::first_seen(int row) const {
    if (!s_.mask) return 0;
    const uint8_t* mask = s_.mask + static_cast<int64_t>(row) * length_;
    int first = 0;
    while (first < s_.past && !mask[first]) ++first;
    return first;
}

void Attention::enter(float* q, float* keys, const float* values, int head) const {
    const int row = head / s_.kv_heads, h = head % s_.kv_heads;
    rotate_heads(s_, q, s_.heads, row, h * group_, (h + 1) * group_);
    rotate_heads(s_, keys, s_.kv_heads, row, h, h + 1);
    keep_head(s_, kv_, keys, values, head);
}

void Attention::chunk(int head, int first_seen, int index, float* parts) const {
    const int row = head / s_.kv_heads, h = head % s_.kv_heads;
    const int first = first_seen + index * kChunk;
    const int64_t position = head * kv_.capacity + first;
    Chunk c;
    c.q = q_ + static_cast<int64_t>(row) * s_.queries * s_.heads * s_.head_dim + static_cast<int64_t>(h) * group_ * s_.head_dim;
    c.q_position = static_cast<int64_t>(s_.heads) * s_.head_dim;
    c.keys = at_position(s_, kv_.keys, position);
    c.values = at_position(s_, kv_.values, position);
    c.key_scales = s_.kv_dtype == QWA_INT8 ? kv_.key_scales + position : nullptr;
    c.value_scales = s_.kv_dtype == QWA_INT8 ? kv_.value_scales + position : nullptr;
    const bool last = first + kChunk >= length_;
    c.next_keys = last && head + 1 == s_.batch * s_.kv_heads ? nullptr
                  : at_position(s_, kv_.keys, last ? (head + 1) * kv_.capacity : position + kChunk);
    c.mask = s_.mask ? s_.mask + static_cast<int64_t>(row) * length_ + first : nullptr;
    c.count = length_ - first < kChunk ? length_ - first : kChunk;
    c.first = first;
    c.queries = s_.queries;
    c.group = group_;
    c.past = s_.past;
    c.head_dim = s_.head_dim;
    c.scale = s_.scale;
    c.part = parts + index * width_;
    c.part_row = width_ * chunks_;
    ops().attend(c, s_.kv_dtype);
}

void Attention::merge(int head, int first_seen, const float* parts) const {
    const int row = head / s_.kv_heads, h = head % s_.kv_heads;
    const int chunks = (length_ - first_seen + kChunk - 1) / kChunk;
    for (int i = 0; i < s_.queries; ++i)
        for (int j = 0; j < group_; ++j, parts += width_ * chunks_) {
            const int64_t to = static_cast<int64_t>(row * s_.queries + i) * s_.heads + h * group_ + j;
            ops().merge(parts, width_, chunks, s_.head_dim, out_ + to * s_.head_dim);
        }
}

void Attention::run(float* q, float* keys, const float* values, float* shared, Barrier& barrier, int index, int team) const {
    const int heads = s_.batch * s_.kv_heads;
    const Range own = share(heads, index, team);
    for (int head = own.begin; head < own.end && keys; ++head) enter(q, keys, values, head);
    if (by_heads_) {
        float* parts = static_cast<float*>(scratch(kAttention, head_floats_ * sizeof(float)));
        for (int head = own.begin; head < own.end; ++head) {
            const int first = first_seen(head / s_.kv_heads);
            for (int i = 0; first + i * kChunk < length_; ++i) chunk(head, first, i, parts);
            merge(head, first, parts);
        }
        return;
    }
    if (keys) barrier.wait(team);
    const Range pieces = share(heads * chunks_, index, team);
    for (int piece = pieces.begin; piece < pieces.end; ++piece) {
        const int head = piece / chunks_, i = piece % chunks_, first = first_seen(head / s_.kv_heads);
        if (first + i * kChunk < length_) chunk(head, first, i, shared + head * head_floats_);
    }
    barrier.wait(team);
    for (int head = own.begin; head < own.end; ++head)
        merge(head, first_seen(head / s_.kv_heads), shared + head * head_floats_);
}

}  // namespace qwa

using namespace qwa;

void qwa_rotate(const qwa_step* step, int heads, float* x) {
    auto body = [&](int index, int team) {
        const Range own = share(step->batch * heads, index, team);
        for (int i = own.begin; i < own.end; ++i) rotate_heads(*step, x, heads, i / heads, i % heads, i % heads + 1);
    };
    parallel(body);
}

void qwa_keep(const qwa_step* step, const qwa_kv* kv, const float* keys, const float* values) {
    auto body = [&](int index, int team) {
        const Range own = share(step->batch * step->kv_heads, index, team);
        for (int head = own.begin; head < own.end; ++head) keep_head(*step, *kv, keys, values, head);
    };
    parallel(body);
}

void qwa_attention(const qwa_step* step, const qwa_kv* kv, const float* q, float* out) {
    const Attention attention(*step, *kv, q, out);
    float* shared = static_cast<float*>(scratch(kStep, attention.shared_bytes()));
    Barrier barrier;
    auto body = [&](int index, int team) { attention.run(nullptr, nullptr, nullptr, shared, barrier, index, team); };
    parallel(body);
}
