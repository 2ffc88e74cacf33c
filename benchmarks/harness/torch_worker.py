"""The main function of a worker that computes with torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from .worker_loop import serve, stdout_for_replies


def run_torch_worker(make_session: Callable[[int], Any], *, gradients: bool = False) -> None:
    """Answer orders on stdin until they end, with as many threads as the command line says.

    `make_session(threads)` gives the object whose methods are the orders. Without `gradients` nothing records them.
    """
    threads = int(sys.argv[1])
    replies = stdout_for_replies()
    torch.set_num_threads(threads)
    with torch.set_grad_enabled(gradients):
        serve(make_session(threads), sys.stdin, replies)
