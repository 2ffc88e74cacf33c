// Threads: a team that runs one function together, either the one that the caller's OpenMP runtime keeps or our own.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace qwa {

int threads();

// Run body(context, index, count) on every thread of the team, index 0 .. count - 1, and return when all are done.
// `count` may be less than threads(), as within another parallel region.
void parallel(void (*body)(void* context, int index, int count), void* context);

template <class F>
static inline void parallel(F& body) {
    parallel([](void* f, int index, int count) { (*static_cast<F*>(f))(index, count); }, &body);
}

// Everybody in the current parallel region waits for everybody. One object per region, made before the region begins.
class Barrier {
   public:
    void wait(int count);

   private:
    int arrived_ = 0;
    int phase_ = 0;
};

struct Range {
    int begin, end;
};

// The part of `items` that thread `index` of `count` has, in whole multiples of `grain`.
Range share(int items, int index, int count, int grain = 1);

// Memory of the calling thread, 64-byte aligned, until its next call with the same slot.
enum Slot { kRows, kPanel, kStep, kAttention, kSlots };
void* scratch(Slot slot, size_t bytes);

}  // namespace qwa
