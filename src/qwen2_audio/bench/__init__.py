"""Speed, next to another implementation on the same checkpoint, in one run (docs/performance.md says how).

`checkpoint` and `inputs` make what is measured on; `contestant`, `ours` and `peer` are the two sides; `worker` runs one
side in its own process and `channel` talks to it; `model` takes turns and `report` shows the result. `profile` says
where our time goes.
"""
