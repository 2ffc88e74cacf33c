import io
import os
import sys
import types

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.cli import chat as chat_command
from qwen2_audio.cli.main import main
from qwen2_audio.types import Chunk


def test_a_conversation_from_a_pipe_is_kept(cli, wav_file, tiny_chat):
    wav = wav_file("dog.wav")
    status, out, err = cli("chat", stdin=f"{wav} What is it?\nAnd why?\n/new\nHello\n/quit\nnever read\n")
    turns = [qa.user("What is it?", audio=wav)]
    first = tiny_chat.chat(turns).text
    turns += [qa.assistant(first), qa.user("And why?")]
    second = tiny_chat.chat(turns).text
    assert status == 0
    assert out == f"{first}\n{second}\n{tiny_chat.chat([qa.user('Hello')]).text}\n"
    assert f"heard {wav}: 1.00 s, 25 audio tokens" in err
    assert "A new conversation." in err


def test_the_system_message_survives_new(cli, tiny_chat):
    _, out, _ = cli("chat", "--system", "Be brief.", stdin="Hello\n/new\nHello\n")
    answer = tiny_chat.chat([qa.system("Be brief."), qa.user("Hello")]).text
    assert out == f"{answer}\n{answer}\n"


def test_a_mistake_does_not_end_the_conversation(cli, tiny_chat):
    status, out, err = cli("chat", stdin="nope.wav what?\n/foo\nHello\n")
    assert status == 2
    assert "qwen2-audio: No such file: 'nope.wav'." in err
    assert "qwen2-audio: There is no command and no file '/foo'." in err
    assert out == tiny_chat.chat([qa.user("Hello")]).text + "\n"


def test_a_clip_that_cannot_be_heard_leaves_no_trace(cli, wav_file, tiny_chat):
    long = wav_file("long.wav", 31.0)
    _, out, err = cli("chat", stdin=f"{long}\nHello\n")
    assert "lasts longer than is heard at once, and comes without a question" in err
    assert out == tiny_chat.chat([qa.user("Hello")]).text + "\n"


def test_a_file_named_in_the_text_is_pointed_out(cli, wav_file):
    wav = wav_file("dog.wav")
    _, _, err = cli("chat", stdin=f"What is in {wav}?\n")
    assert f"{wav} is inside the text and is not heard; put clips first." in err


def test_a_file_that_is_not_there_is_pointed_out_where_nothing_is_heard(cli):
    _, _, err = cli("chat", stdin="My Bark.wav What is that?\n")
    assert "Bark.wav is inside the text and is not heard; put clips first." in err


def test_blanks_in_a_path_need_no_quotes(cli, wav_file, tiny_chat):
    wav = wav_file("My Bark.wav")
    _, out, err = cli("chat", stdin="My Bark.wav What is that?\n")
    assert out == tiny_chat.chat([qa.user("What is that?", audio=wav)]).text + "\n"
    assert "heard My Bark.wav: 1.00 s" in err


def test_names_and_lines_need_not_be_utf8(cli, wav_file, capsys, monkeypatch):
    os.rename(wav_file("dog.wav"), b"caf\xe9.wav")
    lines = b"caf\xe9.wav What?\ncaf\xe9?\nHello\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    with pytest.raises(SystemExit) as ended:
        main(["chat", "--max-tokens", "1"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out.count("\n")) == (2, 2)
    assert "heard caf\\udce9.wav: 1.00 s, 25 audio tokens" in err
    assert "qwen2-audio: The text has half a character at position" in err


def test_help_lists_the_commands(cli):
    _, _, err = cli("chat", stdin="/help\n")
    for name in ("/rec", "/new", "/help", "/quit"):
        assert name in err


def test_recording_without_the_extra_says_what_to_install(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, _, err = cli("chat", stdin="/rec 1\n")
    assert status == 2
    assert "Recording needs the sounddevice package: pip install 'qwen2-audio[mic]'." in err


def fake_microphone(monkeypatch, rec):
    fake = types.ModuleType("sounddevice")
    fake.rec, fake.wait, fake.PortAudioError = rec, lambda: None, type("PortAudioError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_a_recording_is_heard(cli, monkeypatch, tiny_chat):
    def rec(frames, samplerate, channels, dtype):
        assert (samplerate, channels, dtype) == (16_000, 1, "float32")
        return np.full((frames, 1), 0.25, np.float32)

    fake_microphone(monkeypatch, rec)
    status, out, err = cli("chat", stdin="/rec 2\n")
    answer = tiny_chat.chat([qa.user(audio=np.full(32_000, 0.25, np.float32))]).text
    assert (status, out) == (0, answer + "\n")
    assert "heard the recording: 2.00 s, 50 audio tokens" in err


def test_no_microphone_is_one_sentence(cli, monkeypatch):
    fake = fake_microphone(monkeypatch, lambda *_, **__: (_ for _ in ()).throw(fake.PortAudioError("no device")))
    status, _, err = cli("chat", stdin="/rec 1\n")
    assert status == 2
    assert "The microphone cannot be used (no device); check that there is one, and its rights." in err


class Interrupted:
    """A model whose answer is cut by Ctrl-C after `pieces`, while the iterator over it is still open."""

    def __init__(self, *pieces):
        self.pieces, self.closed = iter(pieces), False

    def stream(self, messages, params):
        return self

    def __next__(self):
        for piece in self.pieces:
            return Chunk(piece)
        raise KeyboardInterrupt

    def close(self):
        self.closed = True


@pytest.mark.parametrize(("pieces", "kept"), [(("A ", "dog"), 2), ((), 0)])
def test_ctrl_c_ends_the_answer_not_the_program(capsys, pieces, kept):
    model = Interrupted(*pieces)
    conversation = chat_command.Conversation(model, qa.SamplingParams())
    assert conversation.handle("Hello\n") is True
    assert model.closed
    assert len(conversation.messages) == kept
    out, err = capsys.readouterr()
    assert out == "".join(pieces) + "\n"
    assert "(interrupted)" in err
    if kept:
        assert conversation.messages[-1] == qa.assistant("A dog")
    else:
        assert "(no answer; this turn is dropped)" in err
