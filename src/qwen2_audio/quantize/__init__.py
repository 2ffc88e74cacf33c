"""Weights in 4 and 8 bits: how they are quantised, stored in files and memory, and used by a model."""
