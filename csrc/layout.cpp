// The offsets and sizes of the structs of qwa.h, as this compiler laid them out.
#include "qwa.h"

namespace {

#define QWA_STRUCT(type) #type, "", 0, sizeof(type)
#define QWA_FIELD(type, name) #type, #name, offsetof(type, name), sizeof(type::name)

const qwa_layout_entry kLayout[] = {
    {QWA_STRUCT(qwa_linear)},
    {QWA_FIELD(qwa_linear, codes)},
    {QWA_FIELD(qwa_linear, scales)},
    {QWA_FIELD(qwa_linear, bias)},
    {QWA_FIELD(qwa_linear, in_features)},
    {QWA_FIELD(qwa_linear, out_features)},
    {QWA_FIELD(qwa_linear, bits)},
    {QWA_FIELD(qwa_linear, group)},

    {QWA_STRUCT(qwa_kv)},
    {QWA_FIELD(qwa_kv, keys)},
    {QWA_FIELD(qwa_kv, values)},
    {QWA_FIELD(qwa_kv, key_scales)},
    {QWA_FIELD(qwa_kv, value_scales)},
    {QWA_FIELD(qwa_kv, capacity)},

    {QWA_STRUCT(qwa_step)},
    {QWA_FIELD(qwa_step, batch)},
    {QWA_FIELD(qwa_step, queries)},
    {QWA_FIELD(qwa_step, past)},
    {QWA_FIELD(qwa_step, heads)},
    {QWA_FIELD(qwa_step, kv_heads)},
    {QWA_FIELD(qwa_step, head_dim)},
    {QWA_FIELD(qwa_step, kv_dtype)},
    {QWA_FIELD(qwa_step, scale)},
    {QWA_FIELD(qwa_step, cosine)},
    {QWA_FIELD(qwa_step, sine)},
    {QWA_FIELD(qwa_step, rope_stride)},
    {QWA_FIELD(qwa_step, mask)},
    {QWA_FIELD(qwa_step, tables)},
    {QWA_FIELD(qwa_step, starts)},
    {QWA_FIELD(qwa_step, num_computed)},
    {QWA_FIELD(qwa_step, table_stride)},
    {QWA_FIELD(qwa_step, block)},

    {QWA_STRUCT(qwa_layer)},
    {QWA_FIELD(qwa_layer, q)},
    {QWA_FIELD(qwa_layer, k)},
    {QWA_FIELD(qwa_layer, v)},
    {QWA_FIELD(qwa_layer, o)},
    {QWA_FIELD(qwa_layer, gate)},
    {QWA_FIELD(qwa_layer, up)},
    {QWA_FIELD(qwa_layer, down)},
    {QWA_FIELD(qwa_layer, attention_norm)},
    {QWA_FIELD(qwa_layer, mlp_norm)},
    {QWA_FIELD(qwa_layer, eps)},

    {nullptr, nullptr, 0, 0},
};

}  // namespace

const qwa_layout_entry* qwa_layout(void) { return kLayout; }
