"""The sounds of nano's world, one function each; `kinds.py` lists them with the ranges of their parameters."""
