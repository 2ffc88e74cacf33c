"""`python -m benchmarks engine`: many requests at once."""
