// The limits of the machine, for the benchmark: reading memory, fp32 multiply-adds, 8-bit multiply-adds.
//
// Each measurement starts threads of its own and takes the time from the first one's start to the last one's end, so it
// depends neither on the library's team nor on the caller's OpenMP.
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <atomic>

#include "intrinsics.h"
#include "qwa.h"

namespace {

constexpr int kMaxThreads = 256;
constexpr int kStreams = 4;  // streams that one thread reads: a single one does not keep the memory busy

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Work {
    void (*run)(const Work&, int index);
    int threads;
    const uint8_t* data;
    int64_t size;  // bytes to read, or rounds of a loop
    int* ready;
};

struct Member {
    const Work* work;
    int index;
    double start, end;
    pthread_t thread;
};

std::atomic<uint64_t> g_sink;  // or the compiler would remove the loops

void keep_alive(uint64_t result) { g_sink.store(result, std::memory_order_relaxed); }

void* member(void* argument) {
    Member* m = static_cast<Member*>(argument);
    __atomic_add_fetch(m->work->ready, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(m->work->ready, __ATOMIC_ACQUIRE) < m->work->threads) continue;
    m->start = now();
    m->work->run(*m->work, m->index);
    m->end = now();
    return nullptr;
}

// Seconds that `work` takes on all its threads; 0 if they could not be started.
double measure(Work work) {
    if (work.threads < 1 || work.threads > kMaxThreads) return 0.0;
    Member members[kMaxThreads];
    int ready = 0;
    work.ready = &ready;
    for (int i = 1; i < work.threads; ++i) {
        members[i] = {&work, i, 0, 0, {}};
        if (pthread_create(&members[i].thread, nullptr, member, &members[i]) != 0) {
            __atomic_store_n(&ready, work.threads, __ATOMIC_RELEASE);  // ends those that wait for the others
            for (int j = 1; j < i; ++j) pthread_join(members[j].thread, nullptr);
            return 0.0;
        }
    }
    members[0] = {&work, 0, 0, 0, {}};
    member(&members[0]);
    double start = members[0].start, end = members[0].end;
    for (int i = 1; i < work.threads; ++i) {
        pthread_join(members[i].thread, nullptr);
        start = members[i].start < start ? members[i].start : start;
        end = members[i].end > end ? members[i].end : end;
    }
    return end - start;
}

typedef uint64_t Line __attribute__((vector_size(64)));

void read(const Work& w, int index) {
    const int64_t lines = w.size / 64 / w.threads / kStreams;  // of one stream
    const Line* at = reinterpret_cast<const Line*>(w.data) + index * kStreams * lines;
    Line a{}, b{}, c{}, d{};
    for (int64_t i = 0; i < lines; ++i) {
        a ^= at[i];
        b ^= at[lines + i];
        c ^= at[2 * lines + i];
        d ^= at[3 * lines + i];
    }
    a ^= b ^ c ^ d;
    uint64_t all = 0;
    for (int i = 0; i < 8; ++i) all ^= a[i];
    keep_alive(all);
}

// A loop, and the operations of one round: a multiplication and an addition count as one each.
struct Loop {
    void (*run)(const Work&, int);
    double operations;
};

void fma_portable(const Work& w, int) {
    typedef float V __attribute__((vector_size(16)));
    V sums[8];
    for (int i = 0; i < 8; ++i) sums[i] = V{1, 1, 1, 1} * static_cast<float>(i);
    const V factor = {0.5f, 0.5f, 0.5f, 0.5f}, more = {1, 1, 1, 1};
    for (int64_t round = 0; round < w.size; ++round)
        for (int i = 0; i < 8; ++i) sums[i] = sums[i] * factor + more;
    for (int i = 1; i < 8; ++i) sums[0] += sums[i];
    keep_alive(static_cast<uint64_t>(sums[0][0]));
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void fma_avx2(const Work& w, int) {
    __m256 sums[12];
    for (int i = 0; i < 12; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
    const __m256 factor = _mm256_set1_ps(0.5f), more = _mm256_set1_ps(1.0f);
    for (int64_t round = 0; round < w.size; ++round)
        for (int i = 0; i < 12; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, more);
    for (int i = 1; i < 12; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    keep_alive(static_cast<uint64_t>(_mm256_cvtss_f32(sums[0])));
}

__attribute__((target("avx512f"))) void fma_avx512(const Work& w, int) {
    __m512 sums[12];
    for (int i = 0; i < 12; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
    const __m512 factor = _mm512_set1_ps(0.5f), more = _mm512_set1_ps(1.0f);
    for (int64_t round = 0; round < w.size; ++round)
        for (int i = 0; i < 12; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, more);
    for (int i = 1; i < 12; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    keep_alive(static_cast<uint64_t>(_mm512_cvtss_f32(sums[0])));
}

// 8-bit products summed in int16, as in the int4 kernels: vpmaddubsw and vpaddw. Registers hold six sums.
__attribute__((target("avx2"))) void int8_avx2(const Work& w, int) {
    __m256i sums[6];
    for (int i = 0; i < 6; ++i) sums[i] = _mm256_setzero_si256();
    __m256i codes = _mm256_set1_epi8(3), values = _mm256_set1_epi8(1);
    for (int64_t round = 0; round < w.size; ++round) {
        __asm__ volatile(""
                         : "+x"(codes),
                           "+x"(values));  // or the compiler would compute the products once for all rounds
        for (int i = 0; i < 6; ++i) {
            __m256i product;
            __asm__ volatile("vpmaddubsw %1, %2, %0" : "=x"(product) : "x"(values), "x"(codes));
            sums[i] = _mm256_add_epi16(sums[i], product);
        }
    }
    for (int i = 1; i < 6; ++i) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
    keep_alive(static_cast<uint64_t>(_mm256_extract_epi64(sums[0], 0)));
}

__attribute__((target("avx512f,avx512vnni"))) void int8_avx512(const Work& w, int) {
    __m512i sums[12];
    for (int i = 0; i < 12; ++i) sums[i] = _mm512_setzero_si512();
    const __m512i codes = _mm512_set1_epi32(0x03030303), values = _mm512_set1_epi32(0x01010101);
    for (int64_t round = 0; round < w.size; ++round)
        for (int i = 0; i < 12; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], codes, values);
    for (int i = 1; i < 12; ++i) sums[0] = _mm512_xor_si512(sums[0], sums[i]);
    keep_alive(static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0]))));
}

#if defined(__linux__)
// Four tiles of sums, two of rows, two of weights: 16 x 16 x 64 products each. qwa_supported("amx") comes first.
__attribute__((target("amx-tile,amx-int8"))) void int8_amx(const Work& w, int) {
    struct alignas(64) {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    alignas(64) uint8_t ones[1024];
    memset(ones, 1, sizeof ones);
    const int64_t stride = 64;
    __asm__ volatile(
        "tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n"
        "tileloadd (%0,%1,1), %%tmm4\n tileloadd (%0,%1,1), %%tmm5\n"
        "tileloadd (%0,%1,1), %%tmm6\n tileloadd (%0,%1,1), %%tmm7\n" ::"r"(ones),
        "r"(stride)
        : "memory");
    for (int64_t round = 0; round < w.size; ++round)
        __asm__ volatile(
            "tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm7, %tmm4, %tmm1\n"
            "tdpbusd %tmm6, %tmm5, %tmm2\n tdpbusd %tmm7, %tmm5, %tmm3\n");
    __asm__ volatile("tilerelease");
}
#endif
#endif

Loop fma_loop(const char* isa) {
#if defined(__x86_64__)
    if (!strcmp(isa, "avx2")) return {fma_avx2, 12 * 8 * 2};
    if (!strcmp(isa, "avx512") || !strcmp(isa, "amx")) return {fma_avx512, 12 * 16 * 2};
#endif
    (void)isa;
    return {fma_portable, 8 * 4 * 2};
}

Loop int8_loop(const char* isa) {
#if defined(__x86_64__)
    if (!strcmp(isa, "avx2")) return {int8_avx2, 6 * 32 * 2};
    if (!strcmp(isa, "avx512")) return {int8_avx512, 12 * 64 * 2};
#if defined(__linux__)
    if (!strcmp(isa, "amx")) return {int8_amx, 4 * 16 * 16 * 64 * 2};
#endif
#endif
    (void)isa;
    return {nullptr, 0};
}

double rate(Loop loop, int threads, int64_t rounds) {
    if (!loop.run) return 0.0;
    const double seconds = measure({loop.run, threads, nullptr, rounds, nullptr});
    return seconds > 0.0 ? loop.operations * static_cast<double>(rounds) * threads / seconds : 0.0;
}

}  // namespace

extern "C" {

// Bytes a second that `threads` threads read of `data` (64-byte aligned), each its own part; 0 if they do not start.
QWA_API double qwa_bench_read(const void* data, int64_t bytes, int threads) {
    const double seconds = measure({read, threads, static_cast<const uint8_t*>(data), bytes, nullptr});
    return seconds > 0.0 ? static_cast<double>(bytes) / seconds : 0.0;
}

// Operations a second of fp32 multiply-adds in registers, with what `isa` has (a name that qwa_supported accepts).
QWA_API double qwa_bench_fma(const char* isa, int threads, int64_t rounds) {
    return rate(fma_loop(isa), threads, rounds);
}

// The same for 8-bit products and their sums; 0 where `isa` has no instruction for them.
QWA_API double qwa_bench_int8(const char* isa, int threads, int64_t rounds) {
    return rate(int8_loop(isa), threads, rounds);
}
}
