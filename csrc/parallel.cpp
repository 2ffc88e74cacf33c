#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "qwa.h"

namespace qwa {
namespace {

using Body = void (*)(void*, int, int);

// Pauses before a waiting thread gives its core away: 10-100 us, which covers the gaps inside a decode step. On a busy
// machine the thread waited for may have no core but this one.
constexpr int kSpins = 2000;

int g_threads = 1;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// Until done() says so.
template <class F>
inline void wait_until(F done) {
    for (int i = 0; !done(); ++i) {
        if (i < kSpins)
            pause();
        else
            sched_yield();
    }
}

// The OpenMP runtime of the process, when it gave us its entry points.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*num_threads)() = nullptr;
    int (*thread_num)() = nullptr;
} g_openmp;

struct Call {
    Body body;
    void* context;
};

void run_in_openmp(void* data) {
    const Call* call = static_cast<const Call*>(data);
    call->body(call->context, g_openmp.thread_num(), g_openmp.num_threads());
}

// A team of our own: the caller and count - 1 workers, who wait for the next ticket.
class Team {
   public:
    bool run(int count, Call call) {
        if (pthread_mutex_trylock(&busy_) != 0) return false;  // another caller has it: he runs alone
        while (started_ < count - 1 && start_worker()) continue;
        const int team = started_ < count - 1 ? started_ + 1 : count;
        call_ = call;
        count_ = team;
        __atomic_store_n(&pending_, team - 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&mutex_);
        __atomic_add_fetch(&ticket_, 1, __ATOMIC_RELEASE);
        pthread_cond_broadcast(&wake_);
        pthread_mutex_unlock(&mutex_);
        call.body(call.context, 0, team);
        wait_until([this] { return __atomic_load_n(&pending_, __ATOMIC_ACQUIRE) == 0; });
        pthread_mutex_unlock(&busy_);
        return true;
    }

    // After fork() only the calling thread is there.
    void forget_workers() {
        started_ = 0;
        ticket_ = 0;
        pthread_mutex_init(&busy_, nullptr);
        pthread_mutex_init(&mutex_, nullptr);
        pthread_cond_init(&wake_, nullptr);
    }

   private:
    struct Start {
        Team* team;
        int index;
        unsigned ticket;
    };

    bool start_worker() {
        Start* start = static_cast<Start*>(malloc(sizeof(Start)));
        *start = {this, started_ + 1, ticket_};
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

    void work(int index, unsigned seen) {
        for (;;) {
            seen = next_ticket(seen);
            if (index < count_) {
                call_.body(call_.context, index, count_);
                __atomic_sub_fetch(&pending_, 1, __ATOMIC_RELEASE);
            }
        }
    }

    unsigned next_ticket(unsigned seen) {
        for (int i = 0; i < kSpins; ++i) {
            const unsigned now = __atomic_load_n(&ticket_, __ATOMIC_ACQUIRE);
            if (now != seen) return now;
            pause();
        }
        pthread_mutex_lock(&mutex_);
        while (__atomic_load_n(&ticket_, __ATOMIC_ACQUIRE) == seen) pthread_cond_wait(&wake_, &mutex_);
        const unsigned now = ticket_;
        pthread_mutex_unlock(&mutex_);
        return now;
    }

    Call call_{};
    int count_ = 0;
    int pending_ = 0;
    int started_ = 0;
    unsigned ticket_ = 0;
    pthread_mutex_t busy_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
} g_team;

struct Memory {
    void* at = nullptr;
    size_t size = 0;
};

struct Slots {
    Memory memory[kSlots];
    ~Slots() {
        for (Memory& m : memory) free(m.at);
    }
};

thread_local Slots t_slots;

void forked() { g_team.forget_workers(); }

}  // namespace

int threads() { return g_threads; }

void parallel(Body body, void* context) {
    Call call{body, context};
    if (g_threads > 1 && g_openmp.parallel) {
        g_openmp.parallel(run_in_openmp, &call, static_cast<unsigned>(g_threads), 0);
    } else if (g_threads == 1 || !g_team.run(g_threads, call)) {
        body(context, 0, 1);
    }
}

void Barrier::wait(int count) {
    if (count == 1) return;
    const int phase = __atomic_load_n(&phase_, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == count) {
        __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&phase_, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    wait_until([this, phase] { return __atomic_load_n(&phase_, __ATOMIC_ACQUIRE) != phase; });
}

Range share(int items, int index, int count, int grain) {
    const int grains = (items + grain - 1) / grain;
    const int begin = static_cast<int>(static_cast<int64_t>(grains) * index / count) * grain;
    const int end = static_cast<int>(static_cast<int64_t>(grains) * (index + 1) / count) * grain;
    return {begin < items ? begin : items, end < items ? end : items};
}

void* scratch(Slot slot, size_t bytes) {
    Memory& m = t_slots.memory[slot];
    if (m.size < bytes) {
        free(m.at);
        m.size = (bytes + bytes / 4 + 4095) / 4096 * 4096;
        if (posix_memalign(&m.at, 64, m.size) != 0) {
            fprintf(stderr, "qwen2-audio: the kernels could not get %zu bytes of working memory.\n", m.size);
            abort();
        }
    }
    return m.at;
}

}  // namespace qwa

void qwa_set_threads(int threads) { qwa::g_threads = threads < 1 ? 1 : threads; }

int qwa_get_threads(void) { return qwa::g_threads; }

void qwa_use_openmp(void* gomp_parallel, void* omp_get_num_threads, void* omp_get_thread_num) {
    using namespace qwa;
    static bool registered = false;
    if (!registered) pthread_atfork(nullptr, nullptr, forked);
    registered = true;
    g_openmp.parallel = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(gomp_parallel);
    g_openmp.num_threads = reinterpret_cast<int (*)()>(omp_get_num_threads);
    g_openmp.thread_num = reinterpret_cast<int (*)()>(omp_get_thread_num);
}
