"""What the exit status of a command says."""

from __future__ import annotations

DONE = 0
SOME_FAILED = 1  # done, but some rows or files failed, which are named
MISTAKE = 2  # could not start as given, said in one sentence
OUT_OF_BOUNDS = 3  # a figure is out of its bounds: of verify, and where bars are asked for
INTERRUPTED = 130
