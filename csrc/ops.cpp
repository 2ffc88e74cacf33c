// RMSNorm and SwiGLU as calls of their own, for passes of many rows.
#include <string.h>

#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {

const Ops& ops() {
#if defined(__x86_64__)
    const char* isa = qwa_selected();
    if (strcmp(isa, "avx2") == 0) return kOpsAvx2;
    if (strcmp(isa, "portable") != 0) return kOpsAvx512;  // "avx512" and "amx"
#endif
    return kOpsPortable;
}

namespace {

constexpr int64_t kAlone = 1 << 14;  // with fewer numbers, one thread is faster than waking the others

template <class F>
void shared_out(int64_t numbers, F& body) {
    if (numbers < kAlone)
        body(0, 1);
    else
        parallel(threads(), body);
}

// A thread's part of a long vector begins at a whole cache line.
struct Part {
    int64_t begin, count;
};
Part part(int64_t count, int index, int team) {
    const int64_t lines = (count + 15) / 16;
    const int64_t begin = 16 * (lines * index / team), end = 16 * (lines * (index + 1) / team);
    return {begin, (end < count ? end : count) - begin};
}

}  // namespace
}  // namespace qwa

using namespace qwa;

void qwa_rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t width, float* out) {
    auto body = [&](int index, int team) {
        const Range own = share(static_cast<int>(rows), index, team);
        for (int row = own.begin; row < own.end; ++row)
            ops().rms_norm(x + row * width, weight, eps, static_cast<int>(width), out + row * width);
    };
    shared_out(rows * width, body);
}

void qwa_silu_mul(const float* gate, const float* up, int64_t count, float* out) {
    auto body = [&](int index, int team) {
        const Part own = part(count, index, team);
        ops().silu_mul(gate + own.begin, up + own.begin, own.count, out + own.begin);
    };
    shared_out(count, body);
}
