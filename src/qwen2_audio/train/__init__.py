"""Training: from conversations in a JSONL file to a checkpoint or an adapter.

Data: `formats` reads a line in any of several formats, `clips` decodes its clips, `augment` varies them, `masks`
decides which tokens are trained on, `data` makes examples of rows, `batches` groups and pads them, and `quarantine`
reports rows that cannot be used; `preview` shows the result. Training: `start` loads what a config names, `feed` orders
the micro-batches, `loop` runs the steps of `sft` and `dpo`, and `checkpoint` saves and restores a run.
"""
