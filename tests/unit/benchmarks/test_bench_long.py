"""`python -m benchmarks long`: recordings that know their words and times, and every row from seconds of speech."""

import shutil
import wave
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import main as bench
from benchmarks.long import cuts, recognition, recording, run, session, spoken, streams
from qwen2_audio.audio.io import SoundStream, load
from qwen2_audio.bench.report import Row, more_is_better
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.nano.speech.voices import Manner, Voice
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.transcript import Word
from qwen2_audio.longform.windows import Window

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs espeak-ng and flite"
)
RATE = recording.RATE


@pytest.fixture(scope="module")
def spoken_recording():
    return recording.record(8.0)


def test_a_recording_knows_where_its_utterances_lie(spoken_recording):
    made = spoken_recording
    ends = [0, *(end for _, end in made.spans)]
    for (start, end), before in zip(made.spans, ends, strict=False):
        assert 0.6 * RATE - 1 <= start - before <= 2 * RATE + 1
        assert not made.samples[before:start].any()
        assert np.sqrt((made.samples[start:end] ** 2).mean()) == pytest.approx(recording.LEVEL, rel=1e-3)
    noise = made.in_noise(20.0).samples - made.samples
    assert 20 * np.log10(recording.LEVEL / np.sqrt((noise**2).mean())) == pytest.approx(20, abs=0.2)


def test_a_recording_knows_when_its_words_begin(spoken_recording):
    made = spoken_recording
    for text, (start, end), words in zip(made.texts, made.spans, made.words, strict=True):
        assert " ".join(word for word, _ in words) == text.lower().strip(".").replace(",", "")
        times = [at for _, at in words if at is not None]
        assert len(times) >= len(words) - 1 and times == sorted(times)
        assert start / RATE - 0.1 <= times[0] <= start / RATE + 0.3 and times[-1] < end / RATE
    first = [words[0][1] * RATE for words in made.words]
    for at, (start, _) in zip(first, made.spans, strict=True):  # silence before the first word, sound behind it
        assert np.abs(made.samples[start : max(start, round(at) - 400)]).max(initial=0.0) < 0.02
        assert np.abs(made.samples[round(at) : round(at) + 1600]).max() > 0.02


def test_the_library_says_what_the_program_says():
    """espeak-ng called by ctypes, for its times, and as a program, as nano's training calls it."""
    from qwen2_audio.audio.mel import log_mel
    from qwen2_audio.evaluate.nano.speech.engines import say

    voice, manner = Voice("espeak", "f4", "woman"), Manner("en", 50.0, 1.1, 1.05)
    text = "The old boat is still near the river."
    program, library = say(text, voice, manner), spoken.say(text, voice, manner)
    count = min(len(program), len(library.samples))
    assert abs(len(program) - len(library.samples)) < 0.05 * RATE
    # Not the samples: after other sentences the library's flutter goes on from there.
    mels = [log_mel(samples[:count]).ravel() for samples in (program, library.samples)]
    assert np.corrcoef(*mels)[0, 1] > 0.95  # another voice: 0.81
    assert [word for word, _ in library.words] == text.lower().strip(".").split()


@pytest.mark.parametrize(("engine", "name"), recording.MONOLOGUES)
def test_phones_are_where_the_sound_is(engine, name):
    said = spoken.say_plainly("Anna found a red key near the river.", engine, name)
    assert said.phones[0][0] == 0 and said.phones[-1][1] == pytest.approx(len(said.samples) / RATE, abs=2 / RATE)
    assert 20 <= len(said.phones) <= 32 and all(0.005 < end - start < 0.4 for start, end in said.phones)


def test_cuts_in_phones():
    monologue = recording.Monologue(np.zeros(10 * RATE, np.float32), np.array([[1.0, 2.0], [2.1, 3.0], [5.0, 6.0]]))

    def windows(*spans):
        return [Window(round(a * RATE), np.zeros(round((b - a) * RATE), np.float32), np.zeros(0)) for a, b in spans]

    assert cuts.cuts_of(monologue, windows((0, 1.5), (1.5, 2.05), (2.05, 3.01), (3.01, 10))) == [True, False, False]
    assert cuts.cuts_of(monologue, windows((0, 4), (5.5, 9))) == [True]  # what follows begins in a phone


def test_samples_that_are_heard_or_skipped_not_once_are_counted(tmp_path, monkeypatch):
    speech = np.random.default_rng(0).normal(size=20 * RATE).astype(np.float32) * 0.05
    path, rng = tmp_path / "a.wav", np.random.default_rng(1)
    case = cuts._Case(TranscriptionSettings(window_seconds=5.0), True, False)
    for _ in range(3):
        cuts.write_random_file(path, rng, speech)
        assert cuts.count_unaccounted(path, len(load(path)), case) == 0
    with wave.open(str(path)) as file:
        assert file.getframerate() in (8_000, 16_000, 44_100)
    whole = cuts.Windower.push
    monkeypatch.setattr(
        cuts.Windower, "push", lambda self, samples: [replace(w, start=w.start + 1) for w in whole(self, samples)]
    )
    cuts.write_random_file(path, rng, speech)
    lost = cuts.count_unaccounted(
        path, len(load(path)), replace(case, settings=TranscriptionSettings(window_seconds=1))
    )
    assert lost > 0


def test_only_right_words_are_asked_for_their_place(spoken_recording):
    truth = [word for utterance in spoken_recording.words for word in utterance]
    said = [Word(f" {word}", None if at is None else at + 0.1, at) for word, at in truth]
    said[3] = Word(" zebra", 1e3, None)
    errors = recognition.start_errors(spoken_recording, (*said, Word(" more", 0.0, None)))
    known = [at for number, (_, at) in enumerate(truth) if number != 3 and at is not None]
    np.testing.assert_allclose(errors, 0.1, atol=1e-6)
    assert len(errors) == len(known)


def test_a_long_file_is_its_sound_again_and_again(tmp_path):
    tone = 0.3 * np.sin(np.arange(2 * RATE) / 10).astype(np.float32)
    path = streams.write_long_file(tmp_path / "long.opus", tone, 13.0)
    blocks = [block for (block,) in SoundStream(path).blocks()]
    samples = np.concatenate(blocks)
    assert 13.5 < len(samples) / RATE < 14.5 and [p.name for p in tmp_path.iterdir()] == ["long.opus"]
    assert np.sqrt((samples**2).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_rows_that_are_right_are_better_when_more():
    assert Row("a", 96.0, "% right", limit=97.0).missed and not Row("a", 97.0, "% right", limit=97.0).missed
    assert not more_is_better("%") and Row("a", 1.0, "samples", limit=0.0).missed


def test_rows_are_chosen_by_name():
    assert run.Options(("long.speedup", " unaccounted")).rows == ("speedup", "unaccounted")
    with pytest.raises(ConfigError, match=r"There is no row 'speedups'; .*Did you mean 'speedup'"):
        run.Options(("speedups",))


@pytest.mark.slow
def test_every_row_from_seconds_of_speech(monkeypatch, tmp_path):
    """The command, its table and its JSON; values are sane, not good: seconds of sound say little."""
    import json

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(recording, "SENTENCES", 4)
    monkeypatch.setattr(session, "QUICK", session.Amounts(12.0, 40.0, 3, (4.0, 8.0)))
    out = tmp_path / "long.json"
    again = ("wer_excess_20db", "cuts_in_speech_10db")  # the same in noise
    with_own_tests = ("word_start_ms", "find_fact", "memory_growth")
    rows = ",".join(name for name in run.ROWS if name not in (*again, *with_own_tests))
    app = bench.typer.Typer()
    app.command()(bench.command)
    ran = CliRunner().invoke(
        app, ["long", "--quick", "--threads", "1", "--rows", rows, "--json", str(out)], catch_exceptions=False
    )
    assert ran.exit_code == 0 and "nano on 0 minutes of synthetic speech" in ran.stdout
    found = {row["name"].removeprefix("long."): row for row in json.loads(out.read_text())["rows"]}
    assert set(found) == set(rows.split(",")) and all(name in ran.stdout for name in found)
    assert all(row["limit"] is not None for name, row in found.items() if name != "segment_start_ms")
    assert found["unaccounted"]["value"] == 0 and found["vad_x_real_time"]["value"] > 50
    assert abs(found["wer_excess"]["value"]) < 40 and found["segment_start_ms"]["value"] < 100
    assert "the same texts" in found["speedup"]["note"]
    assert " of 3 cuts" in found["cuts_in_speech"]["note"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "qwen2-audio" / "bench" / "long").iterdir()) == [
        "monologue", "monologue", "monologue", "recording",
    ]  # fmt: skip


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_the_sound(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(session, "QUICK", session.Amounts(12.0, 40.0, 3, (60.0, 600.0)))
    (row,) = run.run(run.Options(("memory_growth",), quick=True, threads=1)).rows
    assert row.unit == "%" and -5 < row.value < row.limit == 10 and "for 1 min and 10 min" in row.note
