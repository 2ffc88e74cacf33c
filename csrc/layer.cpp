// All layers of the language model for few rows, in one parallel region.
#include <string.h>

#include "attention.h"
#include "dense.h"
#include "linear.h"
#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {
namespace {

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct Columns {
    int begin, end;
};
Columns columns_of(const qwa_linear& w, Range panels) {
    const int end = 16 * panels.end;
    return {16 * panels.begin, end < w.out_features ? end : w.out_features};
}

// The input of several linears, quantised (or transposed, for float32 weights) when the first linear of a kind needs
// it. Each thread has its own and quantises all rows: that is faster than a barrier.
class Input {
   public:
    // `memory`: bytes() for the rows, and `panel_memory` for linear_panels.
    Input(const float* x, int rows, int features, char* memory, char* panel_memory)
        : x_(x), rows_(rows), features_(features), memory_(memory), panel_memory_(panel_memory) {}

    static size_t bytes(int rows, int features) {
        const size_t quantised = activation_bytes(rows, features, 32) + activation_bytes(rows, features, 64);
        const size_t transposed = transposed_bytes(rows, features);
        return quantised > transposed ? quantised : transposed;
    }

    // Panels [panels.begin, panels.end) of w's outputs.
    void multiply(const qwa_linear& w, Range panels, float* y) {
        if (panels.begin >= panels.end) return;
        if (w.bits == 32) {  // then all linears of the layer have float32 weights
            float* const transposed = reinterpret_cast<float*>(memory_);
            if (!made_[0]) transpose(x_, rows_, features_, transposed);
            made_[0] = true;
            const Columns c = columns_of(w, panels);
            const float* const weight = static_cast<const float*>(w.codes);
            return dense_columns(weight, w.bias, features_, w.out_features, transposed, rows_, c.begin, c.end, y);
        }
        if (w.bits == 16)
            return linear_panels_fp16(w, x_, features_, rows_, y, w.out_features, panels.begin, panels.end);
        const int which = w.group == 64;
        if (!made_[which]) {
            char* at = memory_ + (which ? activation_bytes(rows_, features_, 32) : 0);
            by_group_[which] = activations_in(at, rows_, features_, w.group);
            quantize_tiles(x_, features_, features_, by_group_[which], 0, tiles_of(by_group_[which]));
            made_[which] = true;
        }
        linear_panels(w, by_group_[which], y, w.out_features, panels.begin, panels.end, panel_memory_);
    }

   private:
    const float* x_;
    int rows_, features_;
    char *memory_, *panel_memory_;
    Activations by_group_[2];
    bool made_[2] = {false, false};
};

// Activations that the threads share, rows_ rows of each.
struct Rows {
    float *q, *k, *v, *attended, *delta, *gate, *up, *parts;
};

class Step {
   public:
    Step(const qwa_layer* layers, const qwa_kv* caches, int count, const qwa_step& step, float* x)
        : layers_(layers),
          caches_(caches),
          count_(count),
          x_(x),
          rows_(rows_of(step)),
          threads_(threads()),
          attention_(step, threads_) {
        hidden_ = layers[0].q.in_features;
        inner_ = layers[0].gate.out_features;
        width_ = step.heads * step.head_dim;
        kv_width_ = step.kv_heads * step.head_dim;
        widest_ = width_ > inner_ ? width_ : inner_;
        if (hidden_ > widest_) widest_ = hidden_;
    }

    // False if the system refuses the memory.
    bool reserve() {
        const size_t parts = attention_.shared_bytes() / sizeof(float);
        const size_t sizes[] = {row_floats(width_),  row_floats(kv_width_), row_floats(kv_width_), row_floats(width_),
                                row_floats(hidden_), row_floats(inner_),    row_floats(inner_),    parts};
        float** const places[] = {&r_.q, &r_.k, &r_.v, &r_.attended, &r_.delta, &r_.gate, &r_.up, &r_.parts};
        size_t total = 0;
        for (size_t size : sizes) total += size;
        normed_bytes_ = sizeof(float) * row_floats(hidden_);
        input_bytes_ = Input::bytes(rows_, widest_);
        panel_bytes_ = aligned(panel_bytes(rows_));
        const size_t own_bytes = normed_bytes_ + input_bytes_ + panel_bytes_ + attention_.own_bytes();
        if (!workspace_.reserve(threads_, total * sizeof(float), own_bytes)) return false;
        float* at = reinterpret_cast<float*>(workspace_.shared());
        for (int i = 0; i < 8; ++i) {
            *places[i] = at;
            at += sizes[i];
        }
        return true;
    }

    void run() {
        auto body = [this](int index, int team) {
            for (int i = 0; i < count_; ++i) {
                attention(layers_[i], caches_[i], index, team);
                mlp(layers_[i], index, team);
            }
        };
        parallel(threads_, body);
    }

   private:
    size_t row_floats(int width) const { return aligned(sizeof(float) * rows_ * width) / sizeof(float); }

    // A thread's own memory: normed rows, what Input needs, what its panels need, what attention needs.
    char* own_memory(int index) const { return workspace_.own(index); }
    Input input_of(const float* x, int features, int index) const {
        char* memory = own_memory(index) + normed_bytes_;
        return Input(x, rows_, features, memory, memory + input_bytes_);
    }

    Input normed(const float* weight, float eps, int index) const {
        float* out = reinterpret_cast<float*>(own_memory(index));
        for (int m = 0; m < rows_; ++m) {
            const int64_t at = static_cast<int64_t>(m) * hidden_;
            ops().rms_norm(x_ + at, weight, eps, hidden_, out + at);
        }
        return input_of(out, hidden_, index);
    }

    // x += w times rows. Each thread adds the columns that it has computed.
    void add_product(const qwa_linear& w, const float* rows, int index, int team) {
        Input input = input_of(rows, w.in_features, index);
        const Range panels = share(panels_of(w), index, team);
        input.multiply(w, panels, r_.delta);
        const Columns c = columns_of(w, panels);
        for (int m = 0; m < rows_; ++m) {
            const int64_t at = static_cast<int64_t>(m) * hidden_ + c.begin;
            ops().add(x_ + at, r_.delta + at, c.end - c.begin);
        }
        barrier_.wait(team);
    }

    void attention(const qwa_layer& layer, const qwa_kv& kv, int index, int team) {
        Input input = normed(layer.attention_norm, layer.eps, index);
        const qwa_linear* const linears[] = {&layer.q, &layer.k, &layer.v};
        float* const outputs[] = {r_.q, r_.k, r_.v};
        int panels = 0;
        for (const qwa_linear* w : linears) panels += panels_of(*w);
        const Range own = share(panels, index, team);
        int begin = 0;  // of this linear's panels among those of all three
        for (int i = 0; i < 3; ++i) {
            const int count = panels_of(*linears[i]);
            const Range part = {own.begin > begin ? own.begin - begin : 0,
                                own.end < begin + count ? own.end - begin : count};
            input.multiply(*linears[i], part, outputs[i]);
            begin += count;
        }
        barrier_.wait(team);
        const Attention::PendingQKV pending_qkv{r_.q, r_.k, r_.v};
        char* const parts = own_memory(index) + normed_bytes_ + input_bytes_ + panel_bytes_;
        const Attention::Memory memory{r_.parts, reinterpret_cast<float*>(parts)};
        attention_.run(kv, r_.q, r_.attended, &pending_qkv, memory, barrier_, index, team);
        barrier_.wait(team);
        add_product(layer.o, r_.attended, index, team);
    }

    void mlp(const qwa_layer& layer, int index, int team) {
        Input input = normed(layer.mlp_norm, layer.eps, index);
        const Range panels = share(panels_of(layer.gate), index, team);
        input.multiply(layer.gate, panels, r_.gate);
        input.multiply(layer.up, panels, r_.up);
        const Columns c = columns_of(layer.gate, panels);
        for (int m = 0; m < rows_; ++m) {
            const int64_t at = static_cast<int64_t>(m) * inner_ + c.begin;
            ops().silu_mul(r_.gate + at, r_.up + at, c.end - c.begin, r_.gate + at);
        }
        barrier_.wait(team);
        add_product(layer.down, r_.gate, index, team);
    }

    const qwa_layer* layers_;
    const qwa_kv* caches_;
    int count_;
    float* x_;
    int rows_, threads_, hidden_, inner_, width_, kv_width_, widest_;
    Attention attention_;
    Workspace workspace_;
    size_t normed_bytes_, input_bytes_, panel_bytes_;  // the parts of a thread's own memory
    Rows r_;
    Barrier barrier_;
};

}  // namespace
}  // namespace qwa

int qwa_layers(const qwa_layer* layers, const qwa_kv* caches, int count, const qwa_step* step, float* x) {
    if (count <= 0) return QWA_OK;
    qwa::Step all(layers, caches, count, *step, x);
    if (!all.reserve()) return QWA_NO_MEMORY;
    all.run();
    return QWA_OK;
}
