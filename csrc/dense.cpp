// Linear layers with float32 weights [N, K], row-major, for few rows. A BLAS library is slow for few rows, because it
// first copies the weights into its own layout.
#include "dense.h"

#include "ops_kernels.h"
#include "parallel.h"

namespace qwa {

size_t transposed_bytes(int64_t rows, int64_t inputs) {
    return sizeof(float) * ((rows + kDenseRows - 1) / kDenseRows) * kDenseRows * inputs;
}

void transpose(const float* x, int64_t rows, int64_t inputs, float* transposed) {
    for (int64_t first = 0; first < rows; first += kDenseRows, transposed += kDenseRows * inputs)
        for (int m = 0; m < kDenseRows; ++m) {
            const int64_t row = first + m;
            for (int64_t k = 0; k < inputs; ++k)
                transposed[k * kDenseRows + m] = row < rows ? x[row * inputs + k] : 0.0f;
        }
}

void dense_columns(const float* weight, const float* bias, int64_t inputs, int64_t outputs, const float* transposed,
                   int64_t rows, int64_t first, int64_t last, float* y) {
    for (int64_t n = first; n < last; n += kDenseColumns) {
        const int columns = static_cast<int>(last - n < kDenseColumns ? last - n : kDenseColumns);
        for (int64_t begin = 0; begin < rows; begin += kDenseRows) {
            float block[kDenseColumns * kDenseRows];
            ops().dense(weight + n * inputs, inputs, columns, transposed + begin * inputs, block);
            for (int m = 0; m < kDenseRows && begin + m < rows; ++m)
                for (int c = 0; c < columns; ++c)
                    y[(begin + m) * outputs + n + c] = block[c * kDenseRows + m] + (bias ? bias[n + c] : 0.0f);
        }
    }
}

}  // namespace qwa

using namespace qwa;

int qwa_dense(const float* weight, const float* bias, int64_t inputs, int64_t outputs, const float* x, int64_t rows,
              float* y) {
    const int team_size = threads();
    Workspace workspace;
    if (!workspace.reserve(team_size, 0, transposed_bytes(rows, inputs))) return QWA_NO_MEMORY;
    auto body = [&](int index, int team) {
        const Range own = share(static_cast<int>(outputs), index, team, kDenseColumns);
        if (own.begin >= own.end) return;
        // Each thread transposes all rows for itself: that is faster than a barrier.
        float* transposed = reinterpret_cast<float*>(workspace.own(index));
        transpose(x, rows, inputs, transposed);
        dense_columns(weight, bias, inputs, outputs, transposed, rows, own.begin, own.end, y);
    };
    parallel(team_size, body);
    return QWA_OK;
}
