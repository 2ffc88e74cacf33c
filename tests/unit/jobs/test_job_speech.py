"""Sounds that can only be decoded whole: few at a time, and together no more than there is room for."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from qwen2_audio.datasets.row import Row, Sound
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.jobs import reading, speech
from qwen2_audio.jobs.ask import Ask
from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.runner import JobRow

IN_A_STORE = Sound("memory://bucket/talk.wav")


def loading(monkeypatch, samples: int):
    """Stands for load_sound; returns what was loaded."""
    loaded = []

    def load(sound, *, limits):
        loaded.append(sound)
        return SimpleNamespace(waveform=np.zeros(samples, np.float32))

    monkeypatch.setattr(speech, "load_sound", load)
    return loaded


@pytest.mark.parametrize("operation", [speech.Speech, Ask])
def test_reading_ahead_decodes_nothing(monkeypatch, operation):
    loaded = loading(monkeypatch, 10)
    made = operation.__new__(operation)
    made._threads = object()  # of `long`
    assert operation.read(made, JobRow(0, Row("a", IN_A_STORE, {}, "here"))) is IN_A_STORE
    assert loaded == []


def test_samples_share_a_room_and_leave_it(monkeypatch):
    loading(monkeypatch, 100)
    sounds, inside, most = speech.LongSounds(room=1000), [], []

    def work():
        with sounds.opened(IN_A_STORE) as source:
            inside.append(source)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 12 and max(most) == 2, "two of 400 bytes have room, a third does not"
    with pytest.raises(RuntimeError), speech.LongSounds(room=1).opened(IN_A_STORE):  # too long, but alone
        raise RuntimeError


def test_a_file_is_read_as_it_is_needed(monkeypatch):
    loaded = loading(monkeypatch, 100)
    with speech.LongSounds().opened(Sound("talk.wav")) as source:
        assert source == "talk.wav" and loaded == []
    with speech.LongSounds().opened(Sound("talk.wav", 1.0)) as source:
        assert len(source) == 100


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch):
    monkeypatch.setattr(reading, "PATIENCE", 0.0)
    tries = []

    def load(sound, *, limits):
        tries.append(sound)
        if len(tries) < 3:
            raise AudioError("gone") from TimeoutError()
        return SimpleNamespace(waveform=np.zeros(1, np.float32))

    monkeypatch.setattr(speech, "load_sound", load)
    with speech.LongSounds().opened(IN_A_STORE) as source:
        assert len(source) == 1 and len(tries) == 3


def test_a_language_that_nobody_knows_is_named_with_its_key():
    config = JobConfig.of({"input": "clips", "output": "out", "translate": "klingon"})
    with pytest.raises(ConfigError, match=r"^translate is 'klingon'; expected one of"):
        speech.Speech(None, config)
