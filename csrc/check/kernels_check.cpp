// Runs every call of qwa.h on small random inputs, for the sanitizers: `make sanitize`. Buffers end where their
// contents end, so that AddressSanitizer sees a byte read too many; several threads call at once while the number of
// threads changes, so that ThreadSanitizer sees what is not synchronised. It also holds that every instruction set of
// this CPU, any number of threads and any number of callers give the same bits.
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "../qwa.h"

extern "C" {
double qwa_bench_read(const void* data, int64_t bytes, int threads);
double qwa_bench_fma(const char* isa, int threads, int64_t rounds);
double qwa_bench_int8(const char* isa, int threads, int64_t rounds);

// A request for more memory than there is returns NULL, as without a sanitizer.
QWA_API const char* __asan_default_options() { return "allocator_may_return_null=1"; }
QWA_API const char* __tsan_default_options() { return "allocator_may_return_null=1:halt_on_error=1"; }
QWA_API const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }
}

#if defined(__SANITIZE_THREAD__)
#define QWA_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QWA_THREAD_SANITIZER 1
#endif
#endif

namespace {

using Floats = std::vector<float>;

const char* const kIsas[] = {"amx", "avx512", "avx2", "portable"};
int g_failures = 0;

void expect(bool right, const char* what, const char* detail = "") {
    if (right) return;
    fprintf(stderr, "kernels_check: %s %s\n", what, detail);
    ++g_failures;
}

bool same(const Floats& a, const Floats& b) {
    return a.size() == b.size() && !memcmp(a.data(), b.data(), 4 * a.size());
}

bool finite(const Floats& x) {
    for (float v : x)
        if (!isfinite(v)) return false;
    return true;
}

std::mt19937 g_random(0);

Floats normal(size_t count) {
    std::normal_distribution<float> draw;
    Floats out(count);
    for (float& v : out) v = draw(g_random);
    return out;
}

// Float16 numbers between 2^-5 and 2, with either sign if asked for.
std::vector<uint16_t> halves(size_t count, bool either_sign) {
    std::vector<uint16_t> out(count);
    for (uint16_t& v : out) {
        const unsigned bits = g_random();
        v = static_cast<uint16_t>((either_sign ? bits & 0x8000 : 0) | (10 + bits % 6) << 10 | (bits >> 5 & 0x3ff));
    }
    return out;
}

// ---- Linears ----

struct Linear {
    std::vector<uint8_t> codes;
    std::vector<uint16_t> scales, half_codes;
    Floats float_codes, bias;
    qwa_linear struct_{};

    Linear(int outputs, int inputs, int bits, int group, bool with_bias = true) {
        const size_t panels = (outputs + 15) / 16, groups = group ? (inputs + group - 1) / group : 0;
        const void* address;
        if (bits == 32) {
            float_codes = normal(static_cast<size_t>(outputs) * inputs);
            address = float_codes.data();
        } else if (bits == 16) {
            half_codes = halves(panels * inputs * 16, true);
            address = half_codes.data();
        } else {
            codes.resize(panels * groups * group * 2 * bits);
            for (uint8_t& code : codes) code = static_cast<uint8_t>(1 + g_random() % 255);
            scales = halves(panels * groups * 16, false);
            address = codes.data();
        }
        if (with_bias) bias = normal(outputs);
        struct_ = {
            address, scales.empty() ? nullptr : scales.data(), with_bias ? bias.data() : nullptr, inputs, outputs, bits,
            group};
    }
};

// y of each linear, x [rows, inputs].
std::vector<Floats> multiply(const std::vector<Linear>& linears, const Floats& x, int rows) {
    std::vector<const qwa_linear*> structs;
    std::vector<Floats> y;
    std::vector<float*> addresses;
    std::vector<int64_t> strides;
    for (const Linear& w : linears) {
        structs.push_back(&w.struct_);
        y.emplace_back(static_cast<size_t>(rows) * w.struct_.out_features, NAN);
        strides.push_back(w.struct_.out_features);
    }
    for (Floats& out : y) addresses.push_back(out.data());
    const int inputs = linears[0].struct_.in_features;
    expect(qwa_linears(structs.data(), static_cast<int>(structs.size()), x.data(), rows, inputs, addresses.data(),
                       strides.data()) == QWA_OK,
           "qwa_linears failed");
    return y;
}

void select_best() {
    for (const char* isa : kIsas)
        if (qwa_select(isa) == 0) return;
}

// Runs `compute` on each instruction set with 1 and 3 threads; every result has to be the same bits, except that the
// plain C++ of the operations in float32 rounds differently (`exact` false).
void on_all(const char* what, bool exact, const std::function<Floats()>& compute) {
    Floats vector_result;
    for (const char* isa : kIsas) {
        if (qwa_select(isa) != 0) continue;
        qwa_set_threads(1);
        const Floats alone = compute();
        expect(finite(alone), what, "is not finite");
        qwa_set_threads(3);
        expect(same(compute(), alone), what, "depends on the number of threads");
        if (!strcmp(isa, "portable") && !exact) continue;
        if (!vector_result.empty()) expect(same(alone, vector_result), what, "depends on the instruction set");
        vector_result = alone;
    }
    select_best();
}

Floats joined(const std::vector<Floats>& parts) {
    Floats out;
    for (const Floats& part : parts) out.insert(out.end(), part.begin(), part.end());
    return out;
}

void check_linears() {
    const int forms[][2] = {{4, 64}, {4, 32}, {8, 64}, {8, 32}, {16, 0}};
    const int shapes[][2] = {{50, 200}, {1, 7}, {33, 1060}};  // outputs, inputs
    for (const auto& [bits, group] : forms)
        for (const auto& [outputs, inputs] : shapes) {
            std::vector<Linear> linear;
            linear.emplace_back(outputs, inputs, bits, group);
            for (int rows : {1, 3, 8, 9, 37}) {
                const Floats x = normal(static_cast<size_t>(rows) * inputs);
                on_all("qwa_linears", true, [&] { return joined(multiply(linear, x, rows)); });
            }
        }
    std::vector<Linear> mixed;
    for (const auto& [bits, group] : forms) mixed.emplace_back(40, 200, bits, group, bits != 8);
    for (int rows : {2, 20}) {
        const Floats x = normal(static_cast<size_t>(rows) * 200);
        on_all("qwa_linears of several kinds", true, [&] { return joined(multiply(mixed, x, rows)); });
    }
    const Floats weight = normal(37 * 300), bias = normal(37);
    for (int rows : {1, 16, 19}) {
        const Floats x = normal(static_cast<size_t>(rows) * 300);
        on_all("qwa_dense", false, [&] {
            Floats y(static_cast<size_t>(rows) * 37, NAN);
            expect(qwa_dense(weight.data(), bias.data(), 300, 37, x.data(), rows, y.data()) == QWA_OK, "qwa_dense");
            return y;
        });
    }
}

void check_elementwise() {
    const Floats x = normal(20 * 1111), y = normal(20 * 1111), weight = normal(1111);
    for (int64_t rows : {1, 20}) {
        on_all("qwa_rms_norm", false, [&] {
            Floats out(rows * 1111, NAN);
            qwa_rms_norm(x.data(), weight.data(), 1e-6f, rows, 1111, out.data());
            return out;
        });
        on_all("qwa_silu_mul", false, [&] {
            Floats out(rows * 1111, NAN);
            qwa_silu_mul(x.data(), y.data(), rows * 1111, out.data());
            return out;
        });
    }
}

// ---- Attention ----

constexpr int kHeads = 6, kKvHeads = 2, kDim = 40, kLayers = 2;

// What a step needs: the cache in one dtype, unpaged for a batch of two with padding, or paged for two sequences.
struct Case {
    int dtype, past, queries;
    bool paged;
    Floats cosine, sine;
    std::vector<uint8_t> mask;
    std::vector<int32_t> tables, starts, num_computed;
    std::vector<std::vector<uint8_t>> keys, values;
    std::vector<Floats> key_scales, value_scales;
    std::vector<qwa_kv> caches;
    qwa_step step{};

    Case(int dtype_, int past_, int queries_, bool paged_)
        : dtype(dtype_), past(past_), queries(queries_), paged(paged_), cosine(angles()), sine(angles()) {
        constexpr int kBlock = 32;
        const int length = past + queries, per = (length + kBlock - 1) / kBlock;
        const size_t positions = static_cast<size_t>(paged ? 2 * per * kBlock : 2 * length) * kKvHeads;
        for (int layer = 0; layer < kLayers; ++layer) {
            const size_t bytes = positions * kDim * (dtype == QWA_FLOAT32 ? 4 : dtype == QWA_FLOAT16 ? 2 : 1);
            keys.emplace_back(bytes);
            values.emplace_back(bytes);
            key_scales.emplace_back(dtype == QWA_INT8 ? positions : 0);
            value_scales.emplace_back(dtype == QWA_INT8 ? positions : 0);
        }
        for (int layer = 0; layer < kLayers; ++layer) {
            float* const scales = dtype == QWA_INT8 ? key_scales[layer].data() : nullptr;
            float* const more = dtype == QWA_INT8 ? value_scales[layer].data() : nullptr;
            caches.push_back({keys[layer].data(), values[layer].data(), scales, more, length});
        }
        step.batch = 2;
        step.heads = kHeads;
        step.kv_heads = kKvHeads;
        step.head_dim = kDim;
        step.kv_dtype = dtype;
        step.scale = 0.2f;
        if (!paged) {
            mask.assign(2 * length, 1);
            for (int i = 0; i < past / 2; ++i) mask[length + i] = 0;
            step.mask = mask.data();
            return;
        }
        for (int i = 0; i < 2 * per; ++i) tables.push_back(2 * per - 1 - i);
        step.tables = tables.data();
        step.table_stride = per;
        step.block = kBlock;
    }

    Floats angles() const { return normal(2 * static_cast<size_t>(past + queries) * kDim); }

    // `count` new positions of each of the two, behind `before` others.
    void move_to(int before, int count) {
        step.cosine = cosine.data() + (paged ? 2 * before * kDim : before * kDim);
        step.sine = sine.data() + (paged ? 2 * before * kDim : before * kDim);
        starts = {0, count, 2 * count};
        num_computed = {before, before};
        step.starts = paged ? starts.data() : nullptr;
        step.num_computed = paged ? num_computed.data() : nullptr;
        step.queries = paged ? 0 : count;
        step.past = paged ? 0 : before;
    }
};

// Fills the cache with `past` positions, then attends for `queries` more.
Floats attend(Case& c, const Floats& q, const Floats& k, const Floats& v) {
    Floats out;
    for (const auto& [before, count] : {std::pair{0, c.past}, std::pair{c.past, c.queries}}) {
        if (!count) continue;
        c.move_to(before, count);
        const auto part = [&, first = 2 * before, rows = 2 * count](const Floats& x, int heads) {
            return Floats(x.begin() + first * heads * kDim, x.begin() + (first + rows) * heads * kDim);
        };
        Floats new_q = part(q, kHeads), new_k = part(k, kKvHeads);
        const Floats new_v = part(v, kKvHeads);
        qwa_rotate(&c.step, kHeads, new_q.data());
        qwa_rotate(&c.step, kKvHeads, new_k.data());
        qwa_write_kv(&c.step, &c.caches[0], new_k.data(), new_v.data());
        if (count != c.queries) continue;
        out.assign(new_q.size(), NAN);
        expect(qwa_attention(&c.step, &c.caches[0], new_q.data(), out.data()) == QWA_OK, "qwa_attention failed");
    }
    return out;
}

void check_attention() {
    for (int dtype : {QWA_FLOAT32, QWA_FLOAT16, QWA_INT8})
        for (bool paged : {false, true})
            for (const auto& [past, queries] : {std::pair{0, 5}, std::pair{300, 1}, std::pair{270, 30}}) {
                Case c(dtype, past, queries, paged);
                const size_t rows = 2 * static_cast<size_t>(past + queries);
                const Floats q = normal(rows * kHeads * kDim), k = normal(rows * kKvHeads * kDim), v = normal(k.size());
                on_all("qwa_attention", false, [&] { return attend(c, q, k, v); });
            }
}

// ---- Whole layers ----

void check_layers() {
    constexpr int kHidden = 72, kInner = 100;
    const int forms[][7] = {{4, 4, 4, 4, 4, 4, 4}, {8, 4, 16, 8, 4, 8, 16}, {32, 32, 32, 32, 32, 32, 32}};
    for (const auto& bits : forms) {
        const int shapes[7][2] = {{kHeads * kDim, kHidden}, {kKvHeads * kDim, kHidden}, {kKvHeads * kDim, kHidden},
                                  {kHidden, kHeads * kDim}, {kInner, kHidden},          {kInner, kHidden},
                                  {kHidden, kInner}};
        std::vector<Linear> linears;
        for (int i = 0; i < 7 * kLayers; ++i) {
            const int form = bits[i % 7];
            linears.emplace_back(shapes[i % 7][0], shapes[i % 7][1], form, form >= 16 ? 0 : i % 2 ? 32 : 64, i % 7 < 3);
        }
        const Floats norm = normal(kHidden);
        std::vector<qwa_layer> layers;
        for (int i = 0; i < kLayers; ++i) {
            const Linear* w = linears.data() + 7 * i;
            layers.push_back({w[0].struct_, w[1].struct_, w[2].struct_, w[3].struct_, w[4].struct_, w[5].struct_,
                              w[6].struct_, norm.data(), norm.data(), 1e-6f});
        }
        for (bool paged : {false, true})
            for (int queries : {1, 13}) {
                Case c(QWA_FLOAT16, 40, queries, paged);
                const Floats x = normal(2 * static_cast<size_t>(queries) * kHidden);
                c.move_to(40, queries);
                on_all("qwa_layers", false, [&] {
                    Floats out = x;
                    expect(qwa_layers(layers.data(), c.caches.data(), kLayers, &c.step, out.data()) == QWA_OK,
                           "qwa_layers failed");
                    return out;
                });
            }
    }
}

// ---- Threads, memory, processes ----

// Several threads compute at once while the number of threads goes up and down: a worker that wakes up late for a call
// that it has no part in must not touch the next one.
void check_callers() {
    std::vector<Linear> linears;
    linears.emplace_back(64, 256, 4, 64);
    const Floats few = normal(2 * 256), many = normal(20 * 256);
    qwa_set_threads(1);
    const Floats expected_few = multiply(linears, few, 2)[0], expected_many = multiply(linears, many, 20)[0];
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i)
        callers.emplace_back([&] {
            for (int round = 0; round < 1500; ++round) {
                wrong += !same(multiply(linears, few, 2)[0], expected_few);
                wrong += !same(multiply(linears, many, 20)[0], expected_many);
            }
        });
    std::thread changes([&] {
        for (int i = 0; !done; ++i) {
            qwa_set_threads(1 + i % 4);
            usleep(200);
        }
    });
    for (std::thread& caller : callers) caller.join();
    done = true;
    changes.join();
    expect(wrong == 0, "qwa_linears", "differs when several threads call it");
}

// More working memory than an address space holds is refused before anything is read or written.
void check_memory() {
    constexpr int kHuge = 2000000000, kWide = 1 << 20;
    qwa_linear w{nullptr, nullptr, nullptr, kWide, 16, 4, 64};
    const qwa_linear* const linears[] = {&w};
    float* const y[] = {nullptr};
    const int64_t strides[] = {16};
    expect(qwa_linears(linears, 1, nullptr, kHuge, kWide, y, strides) == QWA_NO_MEMORY, "qwa_linears took memory");
    expect(qwa_dense(nullptr, nullptr, kWide, 16, nullptr, kHuge, nullptr) == QWA_NO_MEMORY, "qwa_dense took memory");
    qwa_step step{};
    step.batch = step.queries = step.kv_heads = 1;
    step.past = kHuge;
    step.heads = kWide;
    step.head_dim = 128;
    qwa_kv kv{};
    expect(qwa_attention(&step, &kv, nullptr, nullptr) == QWA_NO_MEMORY, "qwa_attention took memory");
    qwa_layer layer{w, w, w, w, w, w, w, nullptr, nullptr, 0.0f};
    step.past = 0;
    step.queries = 1 << 24;
    step.heads = 1;
    layer.q.in_features = layer.gate.out_features = 1 << 28;
    expect(qwa_layers(&layer, &kv, 1, &step, nullptr) == QWA_NO_MEMORY, "qwa_layers took memory");
}

// A child of fork() has none of its parent's threads; it computes with new ones.
void check_fork() {
    std::vector<Linear> linears;
    linears.emplace_back(64, 256, 4, 64);
    const Floats x = normal(20 * 256);
    qwa_set_threads(3);
    const Floats expected = multiply(linears, x, 20)[0];
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(same(multiply(linears, x, 20)[0], expected) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child", "does not compute");
}

void check_ceilings() {
    const std::vector<uint64_t> data(1 << 16);
    std::thread another([&] { expect(qwa_bench_read(data.data(), 8 << 16, 2) > 0, "qwa_bench_read"); });
    for (const char* isa : kIsas) {
        if (!qwa_supported(isa)) continue;
        expect(qwa_bench_fma(isa, 2, 100) > 0, "qwa_bench_fma", isa);
        qwa_bench_int8(isa, 2, 100);
    }
    another.join();
}

void check_layout() {
    int structs = 0;
    for (const qwa_layout_entry* entry = qwa_layout(); entry->structure; ++entry) structs += !*entry->field;
    expect(structs == 4, "qwa_layout", "does not list four structs");
}

}  // namespace

int main() {
    check_layout();
    check_linears();
    check_elementwise();
    check_attention();
    check_layers();
    check_callers();
    check_memory();
    check_ceilings();
#if !defined(QWA_THREAD_SANITIZER)  // which has no threads after a fork
    check_fork();
#endif
    if (g_failures == 0) printf("kernels_check: all calls are right\n");
    return g_failures != 0;
}
