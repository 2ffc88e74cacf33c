import json
import shutil

import pytest

import qwen2_audio as qa
from qwen2_audio.checkpoint import locate


@pytest.fixture
def bundled(tiny_checkpoint, tmp_path, monkeypatch, wav_file):
    """The tiny checkpoint in the place of nano, with five clips."""
    package = tmp_path / "qwen2_audio"
    shutil.copytree(tiny_checkpoint, package / "nano")
    clips = package / "nano" / "clips"
    clips.mkdir()
    for number, name in enumerate(("capital", "command", "dog", "siren", "sum")):
        wav_file(f"{name}.wav", 1.0 + number / 2, hertz=200.0 * (number + 1)).rename(clips / f"{name}.wav")
    (clips / "README.md").write_text("Made by recipes/nano.")
    monkeypatch.setattr(locate, "__file__", str(package / "checkpoint" / "locate.py"))
    return package / "nano"


def test_the_three_programs(cli, bundled, tiny_chat):
    status, out, err = cli("demo", "--json", "--model", "nano")
    rows = json.loads(out)
    assert status == 0
    assert "nano: a 1-MB toy" in err
    assert [row["program"] for row in rows] == ["voice chat"] * 4 + ["audio analysis"] * 2 + ["batch of 5"] * 5
    assert [row["heard"][0]["clip"] for row in rows][:6] == [
        *["capital.wav"] * 2,
        *["command.wav"] * 2,
        "dog.wav",
        "sum.wav",
    ]
    assert [row["heard"][0]["tokens"] for row in rows][6:] == [25, 37, 50, 62, 75]
    assert [row["asked"] for row in rows][:6] == ["(sound alone)", "What did I say?"] * 2 + [
        "What's that sound?",
        "What does the person say?",
    ]
    first = [qa.user(audio=bundled / "clips" / "capital.wav")]
    assert rows[0]["said"] == tiny_chat.chat(first).text
    second = [*first, qa.assistant(rows[0]["said"]), qa.user("What did I say?")]
    assert rows[1]["said"] == tiny_chat.chat(second).text
    assert rows[9]["said"] == tiny_chat.chat([qa.user("What do you hear?", audio=bundled / "clips/siren.wav")]).text
    assert all(row["seconds"] >= 0 for row in rows)


def test_for_people_it_is_a_table(cli, bundled):
    status, out, _ = cli("demo")
    assert status == 0
    for word in ("program", "heard", "asked", "said", "seconds", "voice chat", "audio analysis", "sum.wav"):
        assert word in out


def test_missing_clips_are_told(cli, bundled):
    for name in ("sum.wav", "command.wav"):
        (bundled / "clips" / name).unlink()
    status, out, err = cli("demo")
    assert (status, out) == (2, "")
    assert "clips has no command.wav and no sum.wav; install the package again." in err
