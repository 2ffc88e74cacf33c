"""`qwen2-audio transcribe` and `translate`, on the bundled checkpoint."""

import json
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import webvtt

import qwen2_audio as qa
from qwen2_audio.audio.io import load
from qwen2_audio.cli import sound_progress
from qwen2_audio.cli.sound_files import sounds_of
from qwen2_audio.cli.whisper_options import from_whisper
from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.guards import with_flag
from qwen2_audio.longform.transcript import Transcript

RATE = 16_000
CLIPS = qa.nano_path() / "clips"


def save(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0] if samples.ndim == 2 else 1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples.T * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def talk(tmp_path):
    """Two utterances with a pause, 44 times what an ear can tell."""
    pause = np.zeros(RATE, np.float32)
    parts = [part for name in ("capital", "sum") for part in (pause, load(CLIPS / f"{name}.wav"))]
    return save(tmp_path / "talk.wav", np.concatenate([*parts, pause]))


@pytest.fixture
def nano(cli, monkeypatch):
    monkeypatch.setenv("QWEN2_AUDIO_MODEL", "nano")
    return cli


def test_one_sound_goes_to_stdout_and_the_rest_to_stderr(nano, talk):
    status, out, err = nano("transcribe", talk)
    assert status == 0 and out.splitlines() == [s.text for s in qa.load("nano").transcribe(talk).segments]
    assert len(out.splitlines()) == 2
    assert "s of sound" in err and "without speech skipped (--no-vad hears them)" in err and "times as fast" in err
    assert nano("transcribe", talk, "--quiet")[2].count("s of sound") == 0


def test_formats_on_stdout(nano, talk, tmp_path):
    out = nano("transcribe", talk, "-f", "srt")[1]
    assert out.startswith("1\n00:00:00,9") and out.count("-->") == 2
    lines = nano("transcribe", talk, "--json")[1].splitlines()
    assert len(lines) == 1 and json.loads(lines[0])["source"] == str(talk)
    assert os.listdir(tmp_path) == ["talk.wav"]


def test_files_in_a_folder_kept_until_force(nano, talk, tmp_path):
    status, out, _ = nano("transcribe", talk, "-o", "out", "-f", "vtt,json")
    assert (status, out) == (0, "")
    assert len(list(webvtt.read(str(tmp_path / "out" / "talk.vtt")))) == 2
    assert json.loads((tmp_path / "out" / "talk.json").read_text())["duration"] > 3
    (tmp_path / "out" / "talk.vtt").write_text("mine")
    status, _, err = nano("transcribe", talk, "-o", "out", "-f", "vtt,json")
    assert status == 0 and "exists and is kept; --force" in err and "float32" not in err  # no model was loaded
    assert (tmp_path / "out" / "talk.vtt").read_text() == "mine"
    nano("transcribe", talk, "-o", "out", "-f", "vtt", "--force")
    assert (tmp_path / "out" / "talk.vtt").read_text().startswith("WEBVTT")


def test_several_go_to_files_here_and_a_bad_one_costs_itself(nano, talk, tmp_path):
    (tmp_path / "bad.mp3").write_bytes(b"nothing")
    status, out, err = nano("transcribe", talk, "bad.mp3", "gone.wav", "-f", "txt")
    assert (status, out) == (1, "")
    assert (tmp_path / "talk.txt").read_text().count("\n") == 2
    assert "bad.mp3 is text, not a sound" in err and "No such file: 'gone.wav'" in err
    assert not (tmp_path / "bad.txt").exists()


def test_a_folder(nano, talk, tmp_path):
    (tmp_path / "calls" / "deep").mkdir(parents=True)
    for name in ("b.wav", "deep/a.wav", ".hidden.wav", "notes.doc"):
        (tmp_path / "calls" / name).write_bytes(talk.read_bytes())
    status, _, _ = nano("transcribe", "calls", "-o", "out")
    assert status == 0 and sorted(os.listdir("out")) == ["a.txt", "b.txt"]


def test_a_sound_from_stdin(nano, talk):
    assert nano("transcribe", "-", stdin=talk.read_bytes())[1] == nano("transcribe", talk)[1] != ""


def test_one_speaker_a_channel(nano, tmp_path):
    left, right = load(CLIPS / "capital.wav"), load(CLIPS / "sum.wav")
    stereo = np.zeros((2, len(left) + len(right) + 3 * RATE), np.float32)
    stereo[0, RATE : RATE + len(left)] = left
    stereo[1, -RATE - len(right) : -RATE] = right
    out = nano("transcribe", save(tmp_path / "call.wav", stereo), "--channels", "split")[1]
    assert [line.partition(":")[0] for line in out.splitlines()] == ["Channel 1", "Channel 2"]


def test_silence(nano, tmp_path):
    quiet = save(tmp_path / "quiet.wav", np.zeros(5 * RATE, np.float32))
    status, out, err = nano("transcribe", quiet)
    assert (status, out) == (0, "") and "5.0 s of sound, 0.0 s heard, 5.0 s without speech skipped" in err


def test_a_video_without_sound(nano, tmp_path):
    import av

    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    status, _, err = nano("transcribe", "film.mp4")
    assert status == 1 and "film.mp4 holds no sound: found only video streams" in err


def test_flags_and_strict(nano, tmp_path):
    silent = save(tmp_path / "silent.wav", np.zeros(2 * RATE, np.float32))
    status, _, err = nano("transcribe", silent, "--no-vad")
    assert status == 0 and "Flagged segments: 1 silence." in err
    assert nano("transcribe", silent, "--no-vad", "--strict")[0] == 1


def test_segments_in_another_language_count(nano, talk, monkeypatch):
    """Only the whole sound says that they are: none of them has the flag as it comes."""
    monkeypatch.setattr("qwen2_audio.longform.transcribe.flag_other_languages", _flagged)
    status, _, err = nano("transcribe", talk, "--strict")
    assert status == 1 and "Flagged segments: 1 language." in err


def _flagged(segments):
    return [with_flag(segments[0], "language"), *segments[1:]]


def test_a_full_disk_is_one_sentence_and_the_others_are_written(nano, talk, tmp_path, monkeypatch):
    (tmp_path / "other.wav").write_bytes(talk.read_bytes())
    original = Transcript.save

    def save(self, path, *rest):
        if Path(path).stem == "talk":
            raise OSError(28, "No space left on device")
        return original(self, path, *rest)

    monkeypatch.setattr(Transcript, "save", save)
    status, _, err = nano("transcribe", talk, "other.wav", "-o", "out")
    assert status == 1 and "could not be written: No space left on device." in err and "Traceback" not in err
    assert sorted(os.listdir("out")) == ["other.txt", "talk.unfinished.jsonl"]


def test_translate(nano, talk):
    status, out, _ = nano("translate", talk, "--to", "english", "--json")
    assert status == 0 and json.loads(out)["task"] == "translate"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.wav"], "No such file: 'gone.wav'."),
        (["TALK", "-f", "sbv"], "'sbv' is no format of transcripts"),
        (["TALK", "-f", "srt,vtt"], "Several formats are files, not one text; give --output FOLDER."),
        (["TALK", "-f", "ctm"], "ctm holds a time for each word; give --word-timestamps, or choose another format."),
        (["TALK", "--json", "-f", "srt"], "--json and --format both say what stdout gets"),
        (["TALK", "--language", "xx"], "language is 'xx'; expected one of ar"),
        (["TALK", "--channels", "left"], "--channels is 'left'; expected mix or split."),
        (["TALK", "--word_timestamps", "True", "--model", "EMPTY"], "Times of words need an aligner"),
        (["TALK", "--speakers", "gone.rttm"], "The speakers' file gone.rttm cannot be read"),
        (["TALK", "--max-line-count", "2"], "max_line_count needs max_line_width"),
        (["TALK", "--task", "translate"], "--task translate is another command"),
        (["TALK", "--condition_on_previous_text", "True"], "is not done here"),
        (["TALK", "--vad_filter", "maybe"], "--vad_filter is 'maybe'; expected True or False."),
        (["-", "-"], "- is given twice"),
        (["EMPTY"], "holds no file that ends as a sound does"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(nano, talk, tmp_path, arguments, sentence, monkeypatch):
    (tmp_path / "empty").mkdir()
    names = {"TALK": str(talk), "EMPTY": "empty"}
    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    status, out, err = nano("transcribe", *[names.get(argument, argument) for argument in arguments])
    assert (status, out) == (2, "") and sentence in err and len(err.splitlines()) == 1


def test_whispers_spellings():
    assert from_whisper("transcribe", ["a.wav", "--output_dir", "x", "--output_format=srt", "--language", "en"]) == [
        "a.wav", "--output", "x", "--format=srt", "--language", "en",
    ]  # fmt: skip
    given = "--vad_filter False --fp16 False --verbose False --task transcribe --condition_on_previous_text False"
    assert from_whisper("transcribe", [*given.split(), "--", "--fp16"]) == ["--no-vad", "--quiet", "--", "--fp16"]


def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "a.mp3", "b.wav"):
        (tmp_path / name).touch()
    urls = ["https://host/deep/my%20talk.mp3?x=1", "a.wav", "a.mp3", "b.wav", "b.wav"]
    assert [sound.stem for sound in sounds_of(urls)] == ["my talk", "a.wav", "a.mp3", "b.wav-4", "b.wav-5"]
    with pytest.raises(ConfigError, match="No such file"):
        sounds_of(["x.wav", "y.wav"])


def test_progress_counts_seconds_of_sound(capsys, monkeypatch):
    line = sound_progress.line("talk.mp3", 600.0, 3600.0, 60.0)
    assert line == "talk.mp3: 10:00 of 1:00:00, 10.0 times as fast as it is, 5:00 left"
    assert sound_progress.line("x" * 50, 61.0, None, 9.0) == f"...{'x' * 37}: 1:01"
    with sound_progress.SoundProgress() as progress:
        progress.show("a", 1.0, 2.0)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with sound_progress.SoundProgress() as progress:
        progress.show("a", 1.0, 2.0)
    assert capsys.readouterr().err == "\r\033[Ka: 0:01 of 0:02\r\033[K"
