"""A backend for the page's tests: it records requests and answers by a script.

The last text selects the answer: "count" (the number of clips, and their seconds), "on and on" (endless words), "busy"
(the queue is full, the first time), "too much" (the context is full), "break" (two words, then an error). Any other
message, also clips without text, gets one sentence.
"""

from __future__ import annotations

import io
import threading
import time
import wave
from collections.abc import Iterator

from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import AudioError, BusyError, ContextLengthError, UnknownAdapterError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.types import Chunk, FinishReason, Heard, SamplingParams, Usage

ANSWER = "That is a person talking, in a quiet room."


class PageBackend:
    name = "test/listener"
    about = "It answers by a script."
    context = 8192
    is_base = False
    version = "0.0.test"
    transcription = TranscriptionSettings()

    def __init__(self, delay: float = 0.02) -> None:
        self.delay = delay  # s a word
        self.defaults = {"max_tokens": 256, "temperature": 0.7, "top_p": 0.5, "top_k": 20}
        self.answer = ANSWER
        self.busy = 1  # times that "busy" is
        self.notes: tuple[str, ...] = ()  # on each clip
        self.seen: list[tuple[list, SamplingParams]] = []
        self.arrived: list[float] = []
        self.ends: list[str] = []
        self._cancelled: set[RequestHandle] = set()

    def adapters(self) -> list[str]:
        return []

    def with_adapter(self, name: str) -> PageBackend:
        raise UnknownAdapterError(f"There is no adapter {name!r} here.")

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def submit(self, messages, params=None, *, timeout=None, priority=0, raw=False, ending="answer") -> RequestHandle:
        self.arrived.append(time.time())
        text = text_of(messages[-1])
        if text == "busy" and self.busy:
            self.busy -= 1
            raise BusyError("8 requests wait already, as many as may.")
        if text == "too much":
            raise ContextLengthError("The prompt has 9000 positions; the model has 8192.")
        self.seen.append((messages, params))
        handle = RequestHandle(1, self._cancelled.add)
        threading.Thread(target=self._answer, args=(handle, messages, text), daemon=True).start()
        return handle

    def _answer(self, handle: RequestHandle, messages: list, text: str) -> None:
        try:
            heard = tuple(self._heard(*one) for one in enumerate(wav_files_of(messages), 1))
        except AudioError as error:
            self._end(handle, Chunk("", "error", error=error))
            return
        audio, words = sum(clip.tokens for clip in heard), 0
        end: FinishReason = "stop"
        for word in self._words(messages, text):
            time.sleep(self.delay)
            if handle in self._cancelled:
                end = "cancelled"
                break
            if word == "!":
                self._end(handle, Chunk("", "error", error=RuntimeError("a secret of the server")))
                return
            words += 1
            handle.put(Chunk(word))
        self._end(handle, Chunk("", end, Usage(24 + audio, audio, words), heard))

    def _heard(self, number: int, file) -> Heard:
        """What the page makes of sound is checked; a file that it sends as it is, is decoded; a window is samples."""
        if isinstance(file, tuple):
            return Heard(len(file[0]) / file[1], round(25 * len(file[0]) / file[1]))
        if not file.startswith(b"RIFF"):
            return load_clip(file, number).heard
        (seconds,) = seconds_of([file])
        return Heard(seconds, round(25 * seconds), self.notes)

    def _words(self, messages: list, text: str) -> Iterator[str]:
        if text == "on and on":
            while True:
                yield "and on "
        elif text == "break":
            yield from ("Two ", "words ", "!")
        elif text == "count":
            seconds = clips_of(messages[-1:])
            yield f"{len(seconds)} clips: " + ", ".join(f"{length:.2f} s" for length in seconds)
        else:
            yield from (f"{word} " for word in self.answer.split(" "))

    def _end(self, handle: RequestHandle, chunk: Chunk) -> None:
        assert chunk.finish_reason is not None
        self.ends.append(chunk.finish_reason)
        handle.put(chunk)

    def stats(self):
        raise NotImplementedError("the page asks for no metrics")

    def close(self, grace: float) -> None:
        pass


def text_of(message: dict) -> str:
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return "".join(part.get("text", "") for part in parts)


def wav_files_of(messages: list) -> list[bytes]:
    """The WAV files, in order."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part["audio"] for part in parts if part["type"] == "audio"]


def clips_of(messages: list) -> list[float]:
    """Seconds of each clip. Fails for anything but 16-bit mono at 16 kHz, which is what the page is to send."""
    return seconds_of(wav_files_of(messages))


def seconds_of(files: list[bytes]) -> list[float]:
    seconds = []
    for wav_file in files:
        with wave.open(io.BytesIO(wav_file)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            seconds.append(file.getnframes() / file.getframerate())
    return seconds
