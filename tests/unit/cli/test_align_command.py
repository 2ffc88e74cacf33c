"""`qwen2-audio align`, `transcribe --word-timestamps` and `train aligner`, on the bundled checkpoint."""

import json
import shutil

import pytest

import qwen2_audio as qa
from qwen2_audio.train import aligner as training

CLIPS = qa.nano_path() / "clips"
SAID = "What is the capital of France?"


@pytest.fixture
def nano(cli, monkeypatch):
    monkeypatch.setenv("QWEN2_AUDIO_MODEL", "nano")
    return cli


@pytest.fixture
def clip(tmp_path):
    return shutil.copy(CLIPS / "capital.wav", tmp_path / "capital.wav")


def test_ctm_of_a_text_and_of_a_file(nano, clip, tmp_path):
    (tmp_path / "said.txt").write_text(SAID)
    status, out, _ = nano("align", clip, SAID)
    rows = [line.split() for line in out.splitlines()]
    assert status == 0 and [row[4] for row in rows] == SAID.split() and {row[0] for row in rows} == {"capital"}
    starts = [float(row[2]) for row in rows]
    assert starts == sorted(starts)
    assert nano("align", clip, "said.txt")[1] == nano("align", clip, "-", stdin=SAID)[1] == out


def test_files_and_json(nano, clip, tmp_path):
    status, out, _ = nano("align", clip, SAID, "-f", "srt,textgrid", "-o", "out")
    assert (status, out) == (0, "") and SAID in (tmp_path / "out" / "capital.srt").read_text()
    assert 'name = "words"' in (tmp_path / "out" / "capital.TextGrid").read_text()
    assert "exists and is kept" in nano("align", clip, SAID, "-f", "srt", "-o", "out")[2]
    value = json.loads(nano("align", clip, SAID, "--json")[1])
    assert value["segments"][0]["timing"] == "aligned" and len(value["segments"][0]["words"]) == 6


def test_words_that_are_not_said_are_told(nano, clip):
    arguments = ("align", clip, f"{SAID} Zigzag quixotic fuzzy jukebox.")
    status, _, err = nano(*arguments)
    assert status == 0 and "words were not found in the sound, and have no times." in err
    assert nano(*arguments, "--strict")[0] == 1


def test_transcribe_with_times_of_words_and_speakers(nano, clip, tmp_path):
    (tmp_path / "who.rttm").write_text("SPEAKER x 1 0 9 <NA> <NA> ann <NA> <NA>\n")
    status, out, _ = nano("transcribe", clip, "--word-timestamps", "-f", "ctm")
    assert status == 0 and len(out.splitlines()) == 6
    assert nano("transcribe", clip, "--speakers", "who.rttm")[1].startswith("ann: ")
    value = json.loads(nano("transcribe", clip, "--word_timestamps", "True", "--json")[1])
    assert value["segments"][0]["words"][0]["start"] == float(out.split()[2])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["CLIP", "gone.txt"], "No such file: 'gone.txt'"),
        (["CLIP", "said.srt"], "ends as subtitles or a table do; expected plain text"),
        (["CLIP", SAID, "--model", "."], "Times of words need an aligner"),
        (["CLIP", SAID, "-f", "srt,vtt"], "give --output FOLDER"),
        (["CLIP", SAID, "-f", "srt", "--json"], "--json and --format both"),
        (["-", "-"], "stdin is read once"),
        (["gone.wav", SAID], "No such file: 'gone.wav'"),
        ([".", SAID], "holds 2 sounds; expected one"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(nano, clip, tmp_path, arguments, sentence, monkeypatch):
    (tmp_path / "said.srt").write_text("1\n")
    shutil.copy(clip, tmp_path / "other.wav")
    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    status, out, err = nano("align", *[str(clip) if argument == "CLIP" else argument for argument in arguments])
    assert (status, out) == (2, "") and sentence in err and len(err.splitlines()) == 1


def test_a_sound_that_cannot_be_read_is_one_sentence(nano, tmp_path):
    (tmp_path / "bad.wav").write_text("nothing")
    status, _, err = nano("align", "bad.wav", SAID)
    assert status == 2 and "bad.wav is text, not a sound" in err


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Nine clips with their texts and one without, which the model writes down itself."""
    monkeypatch.setattr(training.AlignerConfig, "steps", 3)
    texts = {"capital": SAID, "sum": "What is two plus two?"}
    lines = [json.dumps({"audio": str(CLIPS / f"{name}.wav"), "text": text}) for name, text in texts.items()] * 5
    lines[-1] = json.dumps({"audio": str(CLIPS / "sum.wav")})
    lines += [
        json.dumps({"audio": "gone.wav", "text": "gone"}),
        json.dumps({"audio": str(CLIPS / "sum.wav"), "text": "2"}),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path / "rows.jsonl"


def test_train_aligner(nano, rows, clip, tmp_path):
    status, out, err = nano("train", "aligner", "nano", rows, "-o", "own.safetensors")
    assert status == 0 and "9 clips trained, 1 held out" in out and out.count("held-out loss") == 5
    assert "1 clips left out: with digits" in out and "own.safetensors: " in out
    assert "1 sounds left out: No such file" in err
    status, _, err = nano("align", clip, SAID, "--aligner", "own.safetensors")
    assert status == 0
    status, _, err = nano("train", "aligner", "nano", rows, "-o", "own.safetensors")
    assert status == 2 and "own.safetensors exists; --force writes it anew" in err


def test_what_train_aligner_refuses(nano, rows, tiny_checkpoint):
    assert "needs a model and sounds" in nano("train", "aligner", "nano")[2]
    assert "aligner.safetensors exists; --force" in nano("train", "aligner", "nano", rows)[2]
    assert "which folder is not written to" in nano("train", "aligner", "Qwen/X", rows)[2].replace("whose", "which")
    assert "belong to train aligner" in nano("train", "overfit", "nano", "--force")[2]
    rows.write_text(rows.read_text().splitlines()[0])
    assert "1 clips can be used, and an aligner needs 8" in nano("train", "aligner", "nano", rows, "-o", "x")[2]
