"""Native CPU kernels: the Python side of csrc/."""
