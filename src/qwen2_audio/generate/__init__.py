"""Generation, the readable path: prompts to token ids. Tests compare the engine with it.

`generate.generate` is the entry point; `config` and `options` are its options, `decode` runs the model, `processors`
and `sampling` choose a token, `stopping` ends a row, and `search`, `beam` and `lookup` are the three searches.
"""
