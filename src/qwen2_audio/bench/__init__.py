"""Speed, next to other implementations and to what the machine can do, in one run (docs/performance.md says how).

Sides run in processes of their own and take turns: a driver (`kernels`, `model`) talks through `channel` to a worker
(`kernel_worker`, `kernel_peer`, `worker`), whose end of it is `serving`. For a whole model, `checkpoint` and `inputs`
make what is measured on; `contestant`, `ours` and `peer` are the two sides, and `profile` says where our time goes.
`ceilings` measures the machine, `bars` says what a figure must reach, `report` and `roofline` show the result.
"""
