"""Clips of more than 30 s in `ask` and `chat`."""

import json

import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes

FAST = ("--max-tokens", "4", "--temperature", "0")


@pytest.fixture
def talk(tmp_path):
    (tmp_path / "talk.wav").write_bytes(wav_bytes(65.0))
    return tmp_path / "talk.wav"


def expected(chat, path, long="parts"):
    return chat.chat([qa.user("What?", audio=path)], qa.SamplingParams(max_tokens=4, temperature=0), long=long)


def test_ask_takes_parts_and_says_so_before_it_starts(cli, talk, tiny_chat, monkeypatch):
    status, out, err = cli("ask", talk, "-p", "What?", *FAST)
    answer = expected(tiny_chat, talk)
    assert (status, out) == (0, answer.text + "\n")
    first = f"{talk} lasts 1:05, and 30 s are heard at once: it is heard in parts of at most 30 s, each alone, and the"
    assert first in err and err.index(first) < err.index("float32 on")
    for part in answer.parts:
        assert f"] {' '.join(part.text.split())}\n" in err
    assert answer.heard[0].notes[0] in err


def test_json_has_all(cli, talk, tiny_chat):
    status, out, _ = cli("ask", talk, "-p", "What?", "--json", *FAST)
    report, answer = json.loads(out), expected(tiny_chat, talk)
    assert status == 0 and report["text"] == answer.text
    assert report["parts"] == [part.to_dict() for part in answer.parts]
    (heard,) = report["heard"]
    assert (heard["source"], heard["seconds"], heard["long"], heard["parts"]) == (str(talk), 65.0, "parts", 3)


def test_refused_when_asked_to(cli, talk, monkeypatch):
    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", lambda *_: 1 / 0)
    status, out, err = cli("ask", talk, "-p", "What?", "--long", "refuse")
    assert (status, out) == (2, "") and "lasts 65 s, and 30 s are heard at a time" in err
    status, _, err = cli("ask", talk)
    assert status == 2 and "comes without a question" in err
    status, _, err = cli("ask", talk, "-p", "What?", "--long", "transcipt")
    assert status == 2 and "long is 'transcipt'; expected" in err and "Did you mean 'transcript'?" in err


def test_native(cli, talk, tiny_chat):
    status, out, err = cli("ask", talk, "-p", "What?", "--long", "native", *FAST)
    assert (status, out) == (0, expected(tiny_chat, talk, "native").text + "\n")
    assert "It was heard in 3 windows of one prompt." in err


def test_a_transcript_is_kept_in_the_users_cache(cli, talk, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    status, first, err = cli("ask", talk, "-p", "What?", "--long", "transcript", *FAST)
    assert status == 0 and "it is transcribed, and its text is asked about" in err
    assert len(list((tmp_path / "cache" / "qwen2-audio" / "transcripts").glob("*.json"))) == 1
    monkeypatch.setattr("qwen2_audio.longform.questions.transcript.transcribe", lambda *_, **__: 1 / 0)
    assert cli("ask", talk, "-p", "What?", "--long", "transcript", *FAST)[:2] == (0, first)


def test_chat_remembers_notes_on_a_long_clip(cli, talk, tiny_chat):
    status, out, err = cli("chat", *FAST, stdin=f"/parts\n{talk} What?\n/parts\nAnd why?\n")
    answer = expected(tiny_chat, talk)
    assert status == 0 and "No clip of more than 30 s was heard yet." in err
    assert out.startswith(answer.text + "\n") and len(out) > len(answer.text) + 2
    shown = [line for line in err.splitlines() if line.startswith(("[0:", "[1:"))]
    assert len(shown) >= 2 * sum(part.used for part in answer.parts)
    status, out, err = cli("chat", "--long", "refuse", stdin=f"{talk} What?\n")
    assert status == 2 and "lasts 65 s" in err


def test_a_short_clip_beside_it_is_heard_with_every_part(cli, talk, wav_file):
    short = wav_file("dog.wav")
    status, _, err = cli("ask", short, talk, "-p", "What?", *FAST)
    assert status == 0 and f"heard {short}: 1.00 s, 25 audio tokens" in err and f"{talk} lasts 1:05" in err
    two = talk.with_name("two.wav")
    two.write_bytes(wav_bytes(40.0))
    status, _, err = cli("ask", two, talk, "-p", "What?", *FAST)
    assert status == 2 and "both last longer than is heard at once" in err and str(two) in err


def test_stdin(cli, talk):
    status, _, err = cli("ask", "-", "-p", "What?", *FAST, stdin=talk.read_bytes())
    assert status == 0 and "stdin lasts 1:05" in err
