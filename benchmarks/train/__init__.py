"""`python -m benchmarks train`: one optimiser step."""
