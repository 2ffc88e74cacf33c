"""`qwen2-audio transcribe` after an interrupt, on a full disk, of a part of a sound; and its picture."""

import json
import os
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.audio.io import load
from qwen2_audio.cli.sound_files import seconds_of
from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.asking import WindowAsker
from qwen2_audio.longform.transcript import Transcript

RATE = 16_000
CLIPS = qa.nano_path() / "clips"


@pytest.fixture(scope="module")
def recording():
    """Four utterances with pauses."""
    pause = np.zeros(RATE, np.float32)
    parts = [part for name in ("capital", "sum", "capital", "sum") for part in (pause, load(CLIPS / f"{name}.wav"))]
    return np.concatenate([*parts, pause])


@pytest.fixture
def talk(tmp_path, recording):
    path = tmp_path / "talk.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((recording * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def nano(cli, monkeypatch):
    monkeypatch.setenv("QWEN2_AUDIO_MODEL", "nano")
    return cli


@pytest.fixture
def asked(monkeypatch):
    """First samples of the windows that the model is asked about."""
    windows, original = [], WindowAsker.submit

    def submit(self, window, *rest):
        windows.append(window.start)
        return original(self, window, *rest)

    monkeypatch.setattr(WindowAsker, "submit", submit)
    return windows


def test_an_interrupted_sound_goes_on_by_its_windows(nano, talk, tmp_path, asked, monkeypatch):
    nano("transcribe", talk, "-o", "whole", "-f", "srt")
    total, done, original = len(asked), [], WindowAsker.segments

    def interrupted(self, window, handle):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(window)
        return original(self, window, handle)

    monkeypatch.setattr(WindowAsker, "segments", interrupted)
    status, _, err = nano("transcribe", talk, "-o", "out", "-f", "srt")
    assert status == 130 and "Interrupted: what was heard is in out/talk.unfinished.jsonl, and the same" in err
    assert os.listdir("out") == ["talk.unfinished.jsonl"]
    monkeypatch.setattr(WindowAsker, "segments", original)
    asked.clear()
    status, _, err = nano("transcribe", talk, "-o", "out", "-f", "srt")
    assert status == 0 and "2 windows were heard before, by out/talk.unfinished.jsonl; the others follow." in err
    assert len(asked) == total - 2
    assert os.listdir("out") == ["talk.srt"]
    assert (tmp_path / "out" / "talk.srt").read_bytes() == (tmp_path / "whole" / "talk.srt").read_bytes()


def test_a_full_disk_keeps_what_was_heard(nano, talk, asked, monkeypatch):
    original = Transcript.save

    def save(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Transcript, "save", save)
    status, _, err = nano("transcribe", talk, "-o", "out")
    assert status == 1 and "could not be written: No space left on device." in err
    assert "what was heard is kept in out/talk.unfinished.jsonl; make room, and run the same command again." in err
    monkeypatch.setattr(Transcript, "save", original)
    asked.clear()
    assert nano("transcribe", talk, "-o", "out")[0] == 0
    assert asked == [] and os.listdir("out") == ["talk.txt"]


@pytest.mark.exhaustive  # two starts of Python with torch
def test_a_killed_one_goes_on_too(talk, tmp_path):
    command = [sys.executable, "-m", "qwen2_audio", "transcribe", str(talk), "-o", str(tmp_path / "out"), "-f", "json"]
    environment = {**os.environ, "QWEN2_AUDIO_MODEL": "nano"}
    journal = tmp_path / "out" / "talk.unfinished.jsonl"
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as running:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert running.poll() is None, "it was too fast to be killed"
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
    kept = journal.read_bytes().count(b"\n") - 1
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"{kept} windows were heard before" in done.stderr and os.listdir(tmp_path / "out") == ["talk.json"]


def test_a_corrupt_middle_costs_the_middle_and_is_told(nano, talk, recording, tmp_path):
    import av

    whole = json.loads(nano("transcribe", talk, "--json")[1])["segments"]
    with av.open(str(tmp_path / "talk.flac"), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((recording[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    data = bytearray((tmp_path / "talk.flac").read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    (tmp_path / "talk.flac").write_bytes(data)
    status, out, err = nano("transcribe", "talk.flac", "--json")
    rest = json.loads(out)
    assert status == 0 and "talk.flac: talk.flac" in err and "s of silence stand for what is missing" in err
    assert rest["notes"] and rest["segments"][0]["text"] == whole[0]["text"]
    last = rest["segments"][-1]
    assert last["text"] == whole[-1]["text"] and last["start"] == pytest.approx(whole[-1]["start"], abs=0.1)


def test_a_part_of_a_sound(nano, talk):
    whole = json.loads(nano("transcribe", talk, "--json")[1])
    third = whole["segments"][2]
    begin, end = third["start"] - 0.5, third["end"] + 0.5
    status, out, err = nano("transcribe", talk, "--json", "--from", f"0:{begin}", "--to", end)
    part = json.loads(out)
    assert status == 0 and [s["text"] for s in part["segments"]] == [third["text"]]
    assert part["segments"][0]["start"] == pytest.approx(third["start"], abs=0.05)
    assert f"{end - begin:.1f} s of sound" in err
    status, _, err = nano("transcribe", talk, "--from", "1:00:00")
    assert status == 1 and "s long, and the part to hear begins at 3600.00 s." in err


def test_a_picture(nano, talk, tmp_path):
    pytest.importorskip("matplotlib")
    assert nano("transcribe", talk, "-o", "out", "--png")[0] == 0
    assert sorted(os.listdir("out")) == ["talk.png", "talk.txt"]
    assert (tmp_path / "out" / "talk.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    status, out, _ = nano("transcribe", talk, "--png")
    assert status == 0 and out and (tmp_path / "talk.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["TALK", "--from", "soon"], "--from is 'soon'; expected seconds, or a time such as 1:30 or 1:02:03.5."),
        (
            ["TALK", "--from", "2:00", "--to", "90"],
            "The part to hear ends at 90 s and begins at 120 s; let it end later.",
        ),
        (["-", "--png"], "--png reads a sound a second time"),
    ],
)
def test_mistakes(nano, talk, arguments, sentence, monkeypatch):
    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    status, _, err = nano("transcribe", *[str(talk) if argument == "TALK" else argument for argument in arguments])
    assert status == 2 and sentence in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("1:02:03.5", 3723.5), ("0:00", 0), (None, None)]
)
def test_times(text, seconds):
    assert seconds_of(text, "--from") == seconds


@pytest.mark.parametrize("text", ["", "1:", "1:2:3:4", "-5", "1h", "1:99:00"])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match=r"--to is "):
        seconds_of(text, "--to")
