"""Training: from conversations in a JSONL file to a checkpoint or an adapter.

The data side: `formats` reads a line in whatever form it has, `clips` opens its sounds, `masks` decides which tokens
are trained on, `augment` varies the sound, `data` makes examples, `batches` puts them together and `quarantine`
reports what could not be used; `preview` shows all of it.
"""
