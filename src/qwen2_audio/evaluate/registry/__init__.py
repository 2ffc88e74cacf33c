"""The benchmarks as their authors run them, one Task a row; tasks.py finds them by name."""
