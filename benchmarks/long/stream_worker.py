"""A process that hears a long file, with a model that answers at once: how much memory does it hold at most?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.longform.asking import Task
from qwen2_audio.longform.settings import read_settings
from qwen2_audio.longform.transcribe import Finished, transcribe
from qwen2_audio.types import Chunk, Ending, Heard, Message, SamplingParams, TokenLogprob, Usage

from ..harness.torch_worker import run_torch_worker

ANSWER = ("Anna", " found", " a", " red", " key", " near", " the", " river", ".")


class AtOnce:
    """Answers every window with the same words."""

    is_base = False

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        raw: bool = False,
        ending: Ending = "answer",
    ) -> RequestHandle:
        handle = RequestHandle(1, lambda handle: None)
        tokens = tuple(TokenLogprob(number, text, text.encode(), -0.01) for number, text in enumerate(ANSWER))
        handle.put(Chunk("".join(ANSWER), logprobs=tokens))
        handle.put(Chunk("", "stop", Usage(800, 750, len(tokens)), (Heard(2.0, 50),)))
        return handle


class Session:
    """The worker's orders."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def hear(self, path: str) -> dict[str, Any]:
        """A whole file, by nano's windows, of which there are the most: GB held at most, and what was heard."""
        settings = read_settings(nano_path())
        for event in transcribe(AtOnce(), [(path, "The stream")], Task(), settings):
            if isinstance(event, Finished):
                if event.error is not None:
                    raise event.error
                return {
                    "peak": peak_gb(),
                    "seconds": event.transcript.seconds,
                    "segments": len(event.transcript.segments),
                }
        raise AssertionError("a source without an end")


if __name__ == "__main__":
    run_torch_worker(Session)
