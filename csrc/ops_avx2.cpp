// ops_body.h for CPUs with AVX2.
#if defined(__x86_64__)
#include "ops_body.h"

namespace qwa {

const Ops kOpsAvx2 = {QWA_OPS("avx2")};

}  // namespace qwa
#endif
