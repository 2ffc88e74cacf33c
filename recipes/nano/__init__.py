"""Nano: a very small Qwen2-Audio, trained from nothing on sounds made here. `python -m recipes.nano` does all of it."""
