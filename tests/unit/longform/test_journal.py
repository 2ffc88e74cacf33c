"""A transcription that was ended goes on by its windows, to the same result."""

import json
import os

import numpy as np
import pytest

from kit.scripted_listener import ScriptedListener
from qwen2_audio.longform import transcribe as module
from qwen2_audio.longform.asking import Task
from qwen2_audio.longform.journal import Journal
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.transcribe import Finished, Listening, Progress, transcribe

RATE = 16_000
ONE_SECOND = TranscriptionSettings(window_seconds=1.0)
IDENTITY = {"weights": "abc", "task": {"language": None}}
SOUND = np.repeat(np.arange(1, 7, dtype=np.float32) / 10, RATE)  # a second of each level


@pytest.fixture(autouse=True)
def _everything(monkeypatch):
    monkeypatch.setattr(module, "speech_detector", lambda: None)


def listener():
    return ScriptedListener(lambda samples, params: (f"level {10 * samples.max():.0f}", "stop", -0.123456789012345))


def run(model, path, *, identity=IDENTITY, stop_after=None, sound=SOUND):
    """The transcript and the journal; with `stop_after`, the work is ended after so many windows."""
    journal = Journal(path, identity)
    events = transcribe(model, [(sound, "a")], Task(), ONE_SECOND, Listening(everything=True), journals=[journal])
    done = 0
    for event in events:
        if isinstance(event, Finished):
            return event.transcript, journal
        done += isinstance(event, Progress)
        if done == stop_after:
            events.close()
            return None, journal
    raise AssertionError("it did not finish")


@pytest.fixture
def whole(tmp_path):
    return run(listener(), tmp_path / "whole.jsonl")[0]


def test_only_the_missing_windows_are_asked_and_the_result_is_equal_to_the_bit(tmp_path, whole):
    path = tmp_path / "a.jsonl"
    run(listener(), path, stop_after=2)
    assert path.read_bytes().count(b"\n") == 3  # the head, and two windows
    again = listener()
    talk, journal = run(again, path)
    assert journal.found == 2 and len(again.asked) == len(whole.segments) - 2
    assert talk == whole and talk.segments[0].avg_logprob == whole.segments[0].avg_logprob
    once_more = listener()
    assert run(once_more, path)[0] == whole and once_more.asked == []
    journal.remove()
    journal.remove()
    assert not path.exists()


@pytest.mark.parametrize("left", [-1, -20, -1000])
def test_a_line_that_a_kill_tore_is_done_again(tmp_path, whole, left):
    path = tmp_path / "a.jsonl"
    run(listener(), path, stop_after=3)
    os.truncate(path, path.stat().st_size + left)
    again = listener()
    talk, journal = run(again, path)
    assert talk == whole and journal.found < 3 and len(again.asked) == len(whole.segments) - journal.found
    assert [json.loads(line)[0] for line in path.read_text().splitlines()[1:]]  # every line is whole again


def test_other_options_or_weights_begin_anew_and_it_is_said(tmp_path, whole):
    path = tmp_path / "a.jsonl"
    run(listener(), path, stop_after=3)
    again = listener()
    talk, journal = run(again, path, identity={**IDENTITY, "weights": "def"})
    assert journal.found == 0 and len(again.asked) == len(whole.segments)
    assert talk.notes == (f"{path} is of another model or of other options, and is begun anew.",)
    assert talk.segments == whole.segments
    assert run(listener(), path, identity={**IDENTITY, "weights": "def"})[1].found == len(whole.segments)


def test_another_sound_finds_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    run(listener(), path)
    again = listener()
    run(again, path, sound=SOUND[::-1].copy())
    assert len(again.asked) == len(run(listener(), tmp_path / "b.jsonl", sound=SOUND[::-1].copy())[0].segments)


def test_a_full_disk_costs_the_journal_and_not_the_transcript(tmp_path, whole, monkeypatch):
    path, original = tmp_path / "a.jsonl", Journal._write
    written = []

    def write(self, line):
        written.append(line)
        if len(written) > 3:
            self._file.write(line[:10])  # what fits is written
            raise OSError(28, "No space left on device")
        original(self, line)

    monkeypatch.setattr(Journal, "_write", write)
    talk, _ = run(listener(), path)
    assert talk.segments == whole.segments
    (note,) = talk.notes
    assert note.startswith(f"{path} cannot be written (No space left on device); ") and len(written) == 4
    monkeypatch.undo()
    assert Journal(path, IDENTITY).found == 2


def test_two_runs_do_not_write_into_one_file(tmp_path, whole):
    path = tmp_path / "a.jsonl"
    first = Journal(path, IDENTITY)
    first._open()
    talk, second = run(listener(), path)
    assert "cannot be written" in second.note and len(talk.segments) == len(whole.segments)
    first.close()


def test_a_part_of_a_sound_has_times_of_the_whole():
    heard = Listening(everything=True, begin=1.5, end=4.25)
    *_, end = transcribe(listener(), [(SOUND, "a")], Task(), ONE_SECOND, heard)
    talk = end.transcript
    first = talk.segments[0].start
    assert first == pytest.approx(1.5, abs=0.032) and talk.skipped == ((0, first),)
    assert talk.seconds == talk.segments[-1].end == 4.25
    assert sum(s.end - s.start for s in talk.segments) == pytest.approx(4.25 - first)
    *_, end = transcribe(listener(), [(SOUND, "a")], Task(), ONE_SECOND, Listening(begin=60.0))
    assert str(end.error) == "a is 6.00 s long, and the part to hear begins at 60.00 s."
