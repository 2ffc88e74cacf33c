import pytest

from qwen2_audio.engine.output_processor import OutputProcessor

END = 999


@pytest.fixture
def tokenizer(tiny_chat):
    return tiny_chat.processor.tokenizer


def feed(answer, ids):
    """Give an answer its tokens; the pieces that came of them."""
    pieces = []
    for token in ids:
        if answer.finish_reason is None:
            pieces.append(answer.push(token))
    return pieces


def test_an_end_of_text_token_stops_and_is_counted(tokenizer):
    answer = OutputProcessor(tokenizer, frozenset({END}), ())
    ids = tokenizer.encode("It is a dog.")
    text = "".join(feed(answer, [*ids, END]))
    assert (text, answer.finish_reason, answer.tokens) == ("It is a dog.", "stop", len(ids) + 1)


def test_a_stop_string_never_shows_and_nothing_comes_after_it(tokenizer):
    answer = OutputProcessor(tokenizer, frozenset({END}), ("barks",))
    seen = feed(answer, tokenizer.encode("It barks twice."))
    assert "".join(seen) == "It "
    assert answer.finish_reason == "stop"


def test_the_beginning_of_a_stop_string_comes_out_when_nothing_follows(tokenizer):
    answer = OutputProcessor(tokenizer, frozenset({END}), ("dogs",))
    seen = feed(answer, [*tokenizer.encode("a dog"), END])
    assert "".join(seen) == "a dog"


def test_half_a_character_is_held_back_until_it_is_whole(tokenizer):
    seen = feed(OutputProcessor(tokenizer, frozenset(), ()), tokenizer.encode("a中b"))
    assert "".join(seen) == "a中b"
    assert not any("\ufffd" in piece for piece in seen)


def test_half_a_character_at_the_end_comes_out_as_in_a_decode_of_the_whole(tokenizer):
    ids = tokenizer.encode("a中")[:-1]
    answer = OutputProcessor(tokenizer, frozenset(), ())
    text = "".join(feed(answer, ids)) + answer.end("length")
    assert text == tokenizer.decode(ids) == "a\ufffd"


def test_the_first_reason_stays(tokenizer):
    answer = OutputProcessor(tokenizer, frozenset({END}), ())
    feed(answer, [*tokenizer.encode("a"), END])
    assert answer.end("cancelled") == ""
    assert answer.finish_reason == "stop"
