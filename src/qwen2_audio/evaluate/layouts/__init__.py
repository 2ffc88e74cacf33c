"""The rows of each benchmark, however its files lie on disk; find.py is the one entry."""
