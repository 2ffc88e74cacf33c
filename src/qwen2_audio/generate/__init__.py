"""Generation, the readable path: prompt in, token ids out, every step in plain sight.

`generate.generate` is the entry; `config` the options, `processors` and `sampling` the choice of a token, `stopping`
the end, `decode` the model's side of a step, `beam` and `lookup` the two other ways to search. The engine is held to
what this package computes.
"""
