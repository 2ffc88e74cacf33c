// Threads: a team that runs one function together, either OpenMP's team, which torch keeps, or a team of our own.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <atomic>

namespace qwa {

// How many threads a call may use. Another thread may change it meanwhile, so each call reads it once.
int threads();

// Runs body(context, index, count) on each thread of a team, index 0 .. count - 1, and returns when all have finished.
// `count` is at most `threads`; it is less inside another parallel region and where the system gives no more threads.
void parallel(int threads, void (*body)(void* context, int index, int count), void* context);

template <class F>
static inline void parallel(int threads, F& body) {
    const auto call = [](void* f, int index, int count) { (*static_cast<F*>(f))(index, count); };
    parallel(threads, call, &body);
}

// Each thread of the current parallel region waits until all of them have arrived. Made before the region begins.
class Barrier {
   public:
    void wait(int count);

   private:
    std::atomic<int> arrived_{0};
    std::atomic<int> phase_{0};
};

struct Range {
    int begin, end;
};

// The part of `items` that belongs to thread `index` of `count`, in whole multiples of `grain`.
Range share(int items, int index, int count, int grain = 1);

// Working memory of one call: a part that all threads share, and a part for each thread, both 64-byte aligned. The
// calling thread gets all of it before the parallel region begins: a call that lacks memory has then written nothing.
class Workspace {
   public:
    // False if the system does not give the memory. The memory stays with the calling thread and is used again by its
    // next call, so a thread has one Workspace at a time.
    bool reserve(int threads, size_t shared_bytes, size_t own_bytes);

    char* shared() const { return memory_; }
    char* own(int index) const { return memory_ + shared_bytes_ + index * own_bytes_; }

   private:
    char* memory_ = nullptr;
    size_t shared_bytes_ = 0, own_bytes_ = 0;
};

}  // namespace qwa
