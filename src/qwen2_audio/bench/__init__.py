"""Speed of a server under load (`load`), and of one checkpoint on one machine (`throughput`).

Comparisons with other implementations are in benchmarks/, beside the package in the repository.
"""
