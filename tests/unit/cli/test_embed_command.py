import json
import os

import numpy as np
import pytest

import qwen2_audio as qa


def test_lines_of_json(cli, wav_file, tiny_chat):
    first, second = wav_file("a.wav"), wav_file("b.wav", 2.0)
    status, out, _ = cli("embed", first, second, "--text", "a dog")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [line["source"] for line in lines] == [str(first), str(second), "a dog"]
    expected = tiny_chat.embed([first, second, qa.user("a dog")])
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-6)


def test_files(cli, wav_file, tmp_path, tiny_chat):
    clip = wav_file("a.wav")
    assert cli("embed", clip, clip, "-o", tmp_path / "x.npy", "--source", "encoder")[0] == 0
    rows = np.load(tmp_path / "x.npy")
    assert rows.shape == (2, 32) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], tiny_chat.embed([clip], source="encoder")[0], atol=1e-6)
    options = ("--source", "encoder", "--pooling", "none", "--layer", 1, "--no-normalize")
    assert cli("embed", clip, "-o", tmp_path / "x.npz", *options)[0] == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["000000"].shape == (50, 32)
    assert cli("embed", clip, "-o", tmp_path / "x.jsonl")[0] == 0
    assert len(json.loads((tmp_path / "x.jsonl").read_text())["embedding"]) == 32


def test_a_clip_that_fails_is_named_and_the_others_are_done(cli, wav_file, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    status, _, err = cli("embed", wav_file("a.wav"), tmp_path / "bad.wav", "-o", tmp_path / "x.npy")
    rows = np.load(tmp_path / "x.npy")
    assert status == 1 and "bad.wav" in err and "1 of 2" in err
    assert np.isfinite(rows[0]).all() and np.isnan(rows[1]).all()


def test_a_layer_that_is_not_there_is_said_once(cli, wav_file):
    clip = wav_file("a.wav")
    status, out, err = cli("embed", clip, clip, "--layer", 99)
    assert (status, out) == (2, "") and err.count("layer is 99") == 1


def test_a_long_clip_s_error_names_no_option_of_another_command(cli, wav_file):
    for command in (("embed",), ("decide", "-p", "Is it loud?")):
        status, _, err = cli(*command, wav_file("long.wav", 31.0))
        assert status in (1, 2) and "Split it into clips of at most 30 s.\n" in err and "long=" not in err


def test_a_name_that_is_no_utf_8_is_escaped(cli, wav_file, tmp_path):
    clip = tmp_path / os.fsdecode(b"caf\xe9.wav")
    clip.write_bytes(wav_file("a.wav").read_bytes())
    assert cli("embed", clip, "-o", tmp_path / "x.jsonl")[0] == 0
    assert json.loads((tmp_path / "x.jsonl").read_text())["source"] == str(clip)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to embed"),
        (("--text", "a", "-o", "x.csv"), "ends in .npy, .npz, .jsonl"),
        (("--text", "a", "-o", "x.npy", "--pooling", "none"), "write .npz or .jsonl"),
        (("--text", "a", "--source", "ears"), "source is 'ears'"),
        (("missing.wav",), "No such file"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(cli, arguments, message):
    status, out, err = cli("embed", *arguments)
    assert (status, out) == (2, "") and message in err and "float32 on" not in err
