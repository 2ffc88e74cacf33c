// Linear layers: choosing the kernels, quantising the rows, dividing the work among the threads.
#include "linear.h"

#include <string.h>

#include <atomic>

#include "kernels.h"
#include "parallel.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qwa {
namespace {

std::atomic<const Kernels*> g_kernels{&kPortable};

const Kernels& kernels() { return *g_kernels.load(std::memory_order_relaxed); }

#if defined(__x86_64__)
// Linux gives the tile registers, 8 KiB a thread, to processes that ask for them.
bool amx_granted() {
#if defined(__linux__)
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned tile_and_int8 = 3u << 24;
    if ((d & tile_and_int8) != tile_and_int8) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

bool runs(const Kernels* kernels) {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    if (kernels == &kAvx2) return avx2;  // every CPU with AVX2 has F16C, too
    if (kernels == &kAvx512) return avx512;
    if (kernels == &kAmx) return avx512 && amx_granted();
    return true;
}

const Kernels* const kAll[] = {&kAmx, &kAvx512, &kAvx2, &kPortable};
#else
bool runs(const Kernels*) { return true; }
const Kernels* const kAll[] = {&kPortable};
#endif

const Kernels* find(const char* name) {
    for (const Kernels* k : kAll)
        if (strcmp(k->name, name) == 0 && runs(k)) return k;
    return nullptr;
}

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

int tile_rows(int rows) { return rows <= kSmallRows ? rows : 16; }

// Several linears with one input.
struct Linears {
    const qwa_linear* const* linears;
    int count;
    const float* x;
    int rows;
    int64_t x_stride;
    float* const* y;
    const int64_t* y_strides;

    bool wants(int group) const {
        for (int i = 0; i < count; ++i)
            if (linears[i]->bits != 16 && linears[i]->group == group) return true;
        return false;
    }

    void multiply(int i, const Activations& a, int index, int team, void* memory) const {
        const qwa_linear& w = *linears[i];
        const Range panels = share(panels_of(w), index, team, 2);
        if (w.bits == 16)
            linear_panels_fp16(w, x, x_stride, rows, y[i], y_strides[i], panels.begin, panels.end);
        else
            linear_panels(w, a, y[i], y_strides[i], panels.begin, panels.end, memory);
    }

    // Few rows of one group size (0: 16 bits). Each thread quantises all rows: that is faster than a barrier.
    void few(int group, int index, int team, void* memory) const {
        const int inputs = linears[0]->in_features;
        Activations a{};
        if (group) {
            a = activations_in(memory, rows, inputs, group);
            quantize_tiles(x, x_stride, inputs, a, 0, tiles_of(a));
        }
        for (int i = 0; i < count; ++i)
            if (group ? linears[i]->bits != 16 && linears[i]->group == group : linears[i]->bits == 16)
                multiply(i, a, index, team, nullptr);
    }

    // Many rows of one group size. Each thread quantises some of the rows, then computes its panels for all rows.
    void many(int group, int threads, const Workspace& workspace) const {
        const int inputs = linears[0]->in_features;
        Activations a = activations_in(workspace.shared(), rows, inputs, group);
        Barrier quantised;
        auto body = [&](int index, int team) {
            const Range tiles = share(tiles_of(a), index, team);
            quantize_tiles(x, x_stride, inputs, a, tiles.begin, tiles.end);
            quantised.wait(team);
            for (int i = 0; i < count; ++i)
                if (linears[i]->bits != 16 && linears[i]->group == group)
                    multiply(i, a, index, team, workspace.own(index));
        };
        parallel(threads, body);
    }
};

}  // namespace

size_t activation_bytes(int rows, int in_features, int group) {
    const size_t tile = tile_rows(rows), tiles = (rows + tile - 1) / tile, groups = (in_features + group - 1) / group;
    return aligned(tiles * groups * tile * group) + 3 * aligned(tiles * groups * tile * 4);
}

Activations activations_in(void* memory, int rows, int in_features, int group) {
    Activations a;
    a.rows = rows;
    a.group = group;
    a.groups = (in_features + group - 1) / group;
    a.tile = tile_rows(rows);
    const size_t cells = static_cast<size_t>(tiles_of(a)) * a.groups * a.tile, part = aligned(4 * cells);
    char* at = static_cast<char*>(memory);
    a.q = reinterpret_cast<int8_t*>(at);
    at += aligned(cells * group);
    a.scale = reinterpret_cast<float*>(at);
    a.sum = reinterpret_cast<int32_t*>(at + part);
    a.pair = reinterpret_cast<int32_t*>(at + 2 * part);
    return a;
}

void quantize_tiles(const float* x, int64_t stride, int in_features, Activations& a, int first, int last) {
    for (int tile = first; tile < last; ++tile) {
        for (int row = 0; row < a.tile; ++row) {
            const int m = tile * a.tile + row;
            if (m < a.rows) {
                kernels().quantize_row(x + m * stride, in_features, a, tile, row);
                continue;
            }
            for (int g = 0; g < a.groups; ++g) {
                const size_t at = row_offset(a, tile, row) + static_cast<size_t>(g) * a.tile;
                memset(a.q + at * a.group, 0, a.group);
                a.scale[at] = 0.0f;
                a.sum[at] = a.pair[at] = 0;
            }
        }
    }
}

size_t panel_bytes(int rows) { return rows <= kSmallRows ? 0 : kernels().many_rows_bytes(rows); }

void linear_panels(const qwa_linear& w, const Activations& a, float* y, int64_t stride, int first, int last,
                   void* memory) {
    if (first >= last) return;
    if (a.rows <= kSmallRows)
        kernels().few_rows(w, a, y, stride, first, last);
    else
        kernels().many_rows(w, a, y, stride, first, last, memory);
}

void linear_panels_fp16(const qwa_linear& w, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                        int first, int last) {
    if (first < last) kernels().fp16(w, x, x_stride, rows, y, y_stride, first, last);
}

}  // namespace qwa

using namespace qwa;

int qwa_abi(void) { return QWA_ABI; }

int qwa_supported(const char* isa) { return find(isa) != nullptr; }

int qwa_select(const char* isa) {
    const Kernels* found = find(isa);
    if (found) g_kernels.store(found, std::memory_order_relaxed);
    return found ? 0 : -1;
}

const char* qwa_selected(void) { return kernels().name; }

int qwa_linears(const qwa_linear* const* linears, int count, const float* x, int64_t rows, int64_t x_stride,
                float* const* y, const int64_t* y_strides) {
    const Linears all{linears, count, x, static_cast<int>(rows), x_stride, y, y_strides};
    const int groups[] = {all.wants(64) ? 64 : 0, all.wants(32) ? 32 : 0}, team_size = threads();
    const bool few = rows <= kSmallRows;
    bool fp16 = false;
    for (int i = 0; i < count; ++i) fp16 |= linears[i]->bits == 16;
    size_t quantised_bytes = 0;  // the two group sizes use the memory one after the other
    for (int group : groups) {
        const size_t bytes = group ? activation_bytes(all.rows, linears[0]->in_features, group) : 0;
        quantised_bytes = bytes > quantised_bytes ? bytes : quantised_bytes;
    }
    Workspace workspace;
    const bool there = few ? workspace.reserve(team_size, 0, quantised_bytes)
                           : workspace.reserve(team_size, quantised_bytes, quantised_bytes ? panel_bytes(all.rows) : 0);
    if (!there) return QWA_NO_MEMORY;
    if (few) {
        auto body = [&](int index, int team) {
            for (int group : groups)
                if (group) all.few(group, index, team, workspace.own(index));
            if (fp16) all.few(0, index, team, nullptr);
        };
        parallel(team_size, body);
        return QWA_OK;
    }
    for (int group : groups)
        if (group) all.many(group, team_size, workspace);
    if (fp16) {
        auto body = [&](int index, int team) {
            for (int i = 0; i < count; ++i)
                if (linears[i]->bits == 16) all.multiply(i, Activations{}, index, team, nullptr);
        };
        parallel(team_size, body);
    }
    return QWA_OK;
}
