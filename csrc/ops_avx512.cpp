// ops_body.h for CPUs with AVX-512.
#if defined(__x86_64__)
#include "ops_body.h"

namespace qwa {

const Ops kOpsAvx512 = {QWA_OPS("avx512")};

}  // namespace qwa
#endif
