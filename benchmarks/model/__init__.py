"""`python -m benchmarks model`: a whole model, from loading to an answer; with `--device`, one made on a GPU."""
