"""Speed next to other implementations and to what the machine can do (docs/performance.md says how it is measured).

Run `python -m benchmarks kernels|model|engine|train|accuracy` in the root of the repository; the installed package has
none of this.
"""
