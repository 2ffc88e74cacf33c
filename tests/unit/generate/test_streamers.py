import asyncio
import threading

import pytest
import torch

from qwen2_audio.errors import ConfigError, Qwen2AudioError
from qwen2_audio.generate.streamers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer, ending


class Recorder(TextStreamer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pieces = []

    def on_finalized_text(self, text, stream_end=False):
        self.pieces.append((text, stream_end))


def play(streamer, tokenizer, prompt, text):
    streamer.put(torch.tensor([tokenizer.encode(prompt)]))
    for token in tokenizer.encode(text):
        streamer.put(torch.tensor([token]))


def test_words_come_when_they_are_complete(letters):
    streamer = Recorder(letters, skip_prompt=True)
    play(streamer, letters, "who", "ab cd")
    assert streamer.pieces == [("", False), ("", False), ("ab ", False), ("", False), ("", False)]
    streamer.end()
    assert streamer.pieces[-1] == ("cd", True)


def test_a_newline_and_an_ideograph_flush(letters):
    streamer = Recorder(letters, skip_prompt=True)
    play(streamer, letters, "who", "ab\nc字d")
    assert [text for text, _ in streamer.pieces] == ["", "", "ab\n", "", "c字", ""]


def test_the_prompt_comes_first_unless_skipped(letters):
    streamer = Recorder(letters)
    play(streamer, letters, "who is ", "a ")
    assert [text for text, _ in streamer.pieces] == ["who is ", "", "a "]


def test_a_streamer_can_be_used_again(letters):
    streamer = Recorder(letters, skip_prompt=True)
    for _ in range(2):
        play(streamer, letters, "who", "ab")
        streamer.end()
    assert streamer.pieces[-3:] == [("", False), ("", False), ("ab", True)]


def test_printing(letters, capsys):
    streamer = TextStreamer(letters)
    play(streamer, letters, "who ", "ab c")
    streamer.end()
    assert capsys.readouterr().out == "who ab c\n"


def test_more_than_one_row_is_refused(letters):
    with pytest.raises(ConfigError, match="A text streamer shows one answer, and 2 are generated; leave streamer out"):
        TextStreamer(letters).put(torch.zeros(2, 3, dtype=torch.long))


def test_iteration_in_another_thread(letters):
    streamer = TextIteratorStreamer(letters, skip_prompt=True, timeout=5)

    def work():
        with ending(streamer):
            play(streamer, letters, "who", "ab cd")

    thread = threading.Thread(target=work)
    thread.start()
    assert "".join(streamer) == "ab cd"
    thread.join()


def test_an_error_reaches_who_iterates(letters):
    streamer = TextIteratorStreamer(letters, timeout=5)
    with pytest.raises(RuntimeError, match="boom"), ending(streamer):
        raise RuntimeError("boom")
    with pytest.raises(RuntimeError, match="boom"):
        list(streamer)


def test_nothing_comes_in_time(letters):
    with pytest.raises(Qwen2AudioError, match=r"No text came for 0\.01 s; raise timeout"):
        next(TextIteratorStreamer(letters, timeout=0.01))


def test_any_object_ends_when_generation_fails():
    class Ends:
        ended = 0

        def put(self, value): ...

        def end(self):
            self.ended += 1

    streamer = Ends()
    with pytest.raises(RuntimeError), ending(streamer):
        raise RuntimeError
    assert streamer.ended == 1


def test_async_iteration(letters):
    async def main():
        streamer = AsyncTextIteratorStreamer(letters, skip_prompt=True, timeout=5)

        def work():
            with ending(streamer):
                play(streamer, letters, "who", "ab cd")

        threading.Thread(target=work).start()
        text = "".join([piece async for piece in streamer])
        late = AsyncTextIteratorStreamer(letters, timeout=0.01)
        with pytest.raises(Qwen2AudioError, match="No text came"):
            await anext(late)
        broken = AsyncTextIteratorStreamer(letters, timeout=5)
        broken.fail(RuntimeError("boom"))
        with pytest.raises(RuntimeError, match="boom"):
            await anext(broken)
        return text

    assert asyncio.run(main()) == "ab cd"
