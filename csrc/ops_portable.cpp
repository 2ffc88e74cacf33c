// ops_body.h in plain C++.
#include "ops_body.h"

namespace qwa {

const Ops kOpsPortable = {QWA_OPS("portable")};

}  // namespace qwa
