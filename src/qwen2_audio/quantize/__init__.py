"""Weights in 4 and 8 bits: how they are found, how they lie in files and memory, how a model computes with them."""
