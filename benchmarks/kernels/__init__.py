"""`python -m benchmarks kernels`: the quantised matrix products alone."""
