"""Rows on time and memory: windows together or one after another, finding speech, ten hours against one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from qwen2_audio.api.chat import AudioChat
from qwen2_audio.api.loading import load
from qwen2_audio.bench.report import Row
from qwen2_audio.inputs.messages import user
from qwen2_audio.longform.asking import Task, WindowAsker
from qwen2_audio.types import SamplingParams

from ..harness.rows import row_of
from ..harness.worker_process import Worker
from .cuts import BLOCK, windows_of
from .recording import RATE
from .session import Session, detector
from .streams import write_long_file


def speedup(session: Session, name: str) -> Row:
    """The whole recording against the same with its windows asked one after another; both find them first."""
    samples = session.recording().samples
    session.progress("timing the recording")
    chat = _warm(load("nano", device="cpu", dtype="float32"), session)
    started = time.perf_counter()
    talk = chat.transcribe(samples)
    together = time.perf_counter() - started
    session.progress("timing its windows one after another")
    chat = _warm(load("nano", device="cpu", dtype="float32"), session)  # the other one has the clips' encodings
    asker = WindowAsker(chat.service(), Task(), chat.transcription)
    started = time.perf_counter()
    windows = windows_of(samples, chat.transcription)
    alone_segments = [segment for window in windows for segment in asker.segments(window, asker.submit(window))]
    alone = time.perf_counter() - started
    same = [segment.text for segment in alone_segments] == [segment.text for segment in talk.segments]
    note = f"{together:.1f} s together, {alone:.1f} s alone; {'the same texts' if same else 'texts differ'}"
    return row_of(name, "x faster", [alone / together], note=note)


def _warm(chat: AudioChat, session: Session) -> AudioChat:
    clip = session.recording().utterances()[0]
    chat.batch([[user("Transcribe the speech.", audio=clip)]] * 2, SamplingParams(max_tokens=8, temperature=0.0))
    return chat


def vad_speed(session: Session, name: str) -> Row:
    """Seconds of sound for each second of one thread."""
    samples = session.recording().samples
    session.progress("finding speech")
    torch.set_num_threads(1)
    try:
        found = detector()
        found.push(samples[:BLOCK])
        started = time.process_time()
        for start in range(0, len(samples), BLOCK):
            found.push(samples[start : start + BLOCK])
        seconds = time.process_time() - started
    finally:
        torch.set_num_threads(session.threads)
    return row_of(name, "s/s", [len(samples) / RATE / seconds])


def memory_growth(session: Session, name: str) -> Row:
    """How much more memory a process holds at most for a stream that lasts ten times as long: the file is decoded,
    cut, and asked about, by a model that answers at once."""
    short, long = session.amounts.stream
    speech = session.recording().samples[: int(600 * RATE)]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (short, long):
            session.progress(f"a stream of {_duration(seconds)}")
            path = write_long_file(Path(folder) / "long.opus", speech, seconds)
            with Worker("ours", 1, module="long.stream_worker") as worker:
                peaks.append(worker.ask("hear", path=str(path))["peak"])
    growth = [None if None in peaks else 100 * (peaks[1] / peaks[0] - 1)]
    held = " and ".join("?" if peak is None else f"{1000 * peak:.0f} MB" for peak in peaks)
    return row_of(name, "%", growth, note=f"{held} for {_duration(short)} and {_duration(long)}")


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
