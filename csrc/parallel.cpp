#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "qwa.h"

namespace qwa {
namespace {

using Body = void (*)(void*, int, int);

// A waiting thread pauses this often (10-100 us, longer than the gaps inside a decode step) before it gives its core
// away: on a busy machine the thread it waits for may need this very core.
constexpr int kSpins = 2000;

std::atomic<int> g_threads{1};

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

template <class F>
inline void wait_until(F done) {
    for (int i = 0; !done(); ++i) {
        if (i < kSpins)
            pause();
        else
            sched_yield();
    }
}

// The functions of the process's OpenMP runtime that qwa_use_openmp was given.
struct OpenMP {
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    std::atomic<Parallel> parallel{nullptr};  // set last: whoever reads it sees the others, too
    std::atomic<int (*)()> num_threads{nullptr};
    std::atomic<int (*)()> thread_num{nullptr};
} g_openmp;

struct Call {
    Body body;
    void* context;
};

void run_in_openmp(void* data) {
    const Call* call = static_cast<const Call*>(data);
    const int index = g_openmp.thread_num.load(std::memory_order_relaxed)();
    call->body(call->context, index, g_openmp.num_threads.load(std::memory_order_relaxed)());
}

// A team of our own: the calling thread, and workers that wait for the next ticket. A ticket is one number that holds
// both a count of calls and the size of the team, so that a worker which wakes up late and has no part in the call
// learns this without reading anything that the next call may be writing.
class Team {
   public:
    // False if another thread is using the team.
    bool run(int count, Call call) {
        if (pthread_mutex_trylock(&busy_) != 0) return false;
        while (started_ < count - 1 && start_worker()) continue;
        const int team = started_ < count - 1 ? started_ + 1 : count;
        call_ = call;
        pending_.store(team - 1, std::memory_order_relaxed);
        const uint64_t calls = ticket_.load(std::memory_order_relaxed) >> kSizeBits;
        pthread_mutex_lock(&mutex_);
        ticket_.store((calls + 1) << kSizeBits | static_cast<uint64_t>(team), std::memory_order_release);
        pthread_cond_broadcast(&wake_);
        pthread_mutex_unlock(&mutex_);
        call.body(call.context, 0, team);
        wait_until([this] { return pending_.load(std::memory_order_acquire) == 0; });
        pthread_mutex_unlock(&busy_);
        return true;
    }

    // In the child of a fork only the forking thread exists, and a mutex may be held by a thread that does not.
    void forget_workers() {
        started_ = 0;
        pthread_mutex_init(&busy_, nullptr);
        pthread_mutex_init(&mutex_, nullptr);
        pthread_cond_init(&wake_, nullptr);
    }

    static constexpr int kSizeBits = 16, kLargest = 1 << 12;

   private:
    struct Start {
        Team* team;
        int index;
        uint64_t ticket;
    };

    bool start_worker() {
        Start* start = static_cast<Start*>(malloc(sizeof(Start)));
        if (!start) return false;
        *start = {this, started_ + 1, ticket_.load(std::memory_order_relaxed)};
        pthread_t thread;
        if (pthread_create(&thread, nullptr, &Team::entry, start) != 0) {
            free(start);
            return false;
        }
        pthread_detach(thread);
        ++started_;
        return true;
    }

    static void* entry(void* data) {
        const Start start = *static_cast<Start*>(data);
        free(data);
        start.team->work(start.index, start.ticket);
        return nullptr;
    }

    void work(int index, uint64_t seen) {
        for (;;) {
            seen = next_ticket(seen);
            const int team = static_cast<int>(seen & ((1 << kSizeBits) - 1));
            if (index >= team) continue;
            call_.body(call_.context, index, team);
            pending_.fetch_sub(1, std::memory_order_release);
        }
    }

    uint64_t next_ticket(uint64_t seen) {
        for (int i = 0; i < kSpins; ++i) {
            const uint64_t now = ticket_.load(std::memory_order_acquire);
            if (now != seen) return now;
            pause();
        }
        pthread_mutex_lock(&mutex_);
        while (ticket_.load(std::memory_order_acquire) == seen) pthread_cond_wait(&wake_, &mutex_);
        const uint64_t now = ticket_.load(std::memory_order_acquire);
        pthread_mutex_unlock(&mutex_);
        return now;
    }

    Call call_{};                  // read by the workers that have a part in it, which run() waits for
    int started_ = 0;              // workers; busy_ guards it
    std::atomic<int> pending_{0};  // workers that have yet to finish the call
    std::atomic<uint64_t> ticket_{0};
    pthread_mutex_t busy_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
} g_team;

// The child of a fork has neither our workers nor OpenMP's: a call would wait for them for ever. It starts workers of
// our own when it needs them.
void forget_threads() {
    g_openmp.parallel.store(nullptr, std::memory_order_relaxed);
    g_team.forget_workers();
}

// Registered when the library is loaded, before any thread could have been started.
[[maybe_unused]] const int g_fork_handler = pthread_atfork(nullptr, nullptr, forget_threads);

struct Memory {
    void* at = nullptr;
    size_t size = 0;
    ~Memory() { free(at); }
};

thread_local Memory t_memory;

size_t aligned(size_t bytes) { return (bytes + 127) / 128 * 128; }  // whole pairs of cache lines, as CPUs fetch them

}  // namespace

int threads() { return g_threads.load(std::memory_order_relaxed); }

void parallel(int threads, Body body, void* context) {
    Call call{body, context};
    const OpenMP::Parallel openmp = g_openmp.parallel.load(std::memory_order_acquire);
    if (threads > 1 && openmp) {
        openmp(run_in_openmp, &call, static_cast<unsigned>(threads), 0);
    } else if (threads == 1 || !g_team.run(threads, call)) {
        body(context, 0, 1);
    }
}

void Barrier::wait(int count) {
    if (count == 1) return;
    const int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
        arrived_.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    wait_until([this, phase] { return phase_.load(std::memory_order_acquire) != phase; });
}

Range share(int items, int index, int count, int grain) {
    const int grains = (items + grain - 1) / grain;
    const int begin = static_cast<int>(static_cast<int64_t>(grains) * index / count) * grain;
    const int end = static_cast<int>(static_cast<int64_t>(grains) * (index + 1) / count) * grain;
    return {begin < items ? begin : items, end < items ? end : items};
}

bool Workspace::reserve(int threads, size_t shared_bytes, size_t own_bytes) {
    shared_bytes_ = aligned(shared_bytes);
    own_bytes_ = aligned(own_bytes);
    const size_t bytes = shared_bytes_ + own_bytes_ * static_cast<size_t>(threads);
    Memory& m = t_memory;
    if (m.size < bytes) {
        free(m.at);
        m.size = 0;
        const size_t size = (bytes + bytes / 4 + 4095) / 4096 * 4096;  // calls that grow little by little fit again
        if (posix_memalign(&m.at, 128, size) != 0) {
            m.at = nullptr;
            return false;
        }
        m.size = size;
    }
    memory_ = static_cast<char*>(m.at);
    return true;
}

}  // namespace qwa

void qwa_set_threads(int threads) {
    const int largest = qwa::Team::kLargest;
    qwa::g_threads.store(threads < 1 ? 1 : threads > largest ? largest : threads, std::memory_order_relaxed);
}

int qwa_get_threads(void) { return qwa::threads(); }

void qwa_use_openmp(void* gomp_parallel, void* omp_get_num_threads, void* omp_get_thread_num) {
    using namespace qwa;
    g_openmp.num_threads.store(reinterpret_cast<int (*)()>(omp_get_num_threads), std::memory_order_relaxed);
    g_openmp.thread_num.store(reinterpret_cast<int (*)()>(omp_get_thread_num), std::memory_order_relaxed);
    g_openmp.parallel.store(reinterpret_cast<OpenMP::Parallel>(gomp_parallel), std::memory_order_release);
}
