import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2_audio.errors import ConfigError
from qwen2_audio.text.detokenize import Detokenizer, StopBuffer


def streamed(tokenizer, ids, **options):
    detokenizer = Detokenizer(tokenizer, **options)
    return [detokenizer.push(i) for i in ids], detokenizer.flush()


@given(ids=st.lists(st.integers(0, 340)), skip=st.booleans())
def test_the_increments_are_the_whole_for_any_ids(tiny, ids, skip):
    increments, rest = streamed(tiny, ids, skip_special_tokens=skip)
    assert "".join(increments) + rest == tiny.decode(ids, skip_special_tokens=skip)


PIECES: dict[int, str] = {}  # shared by all examples of the next test


@given(ids=st.lists(st.integers(0, 340)))
def test_what_one_answer_learned_of_an_id_holds_for_the_next(tiny, ids):
    increments, rest = streamed(tiny, ids, token_texts=PIECES)
    assert "".join(increments) + rest == tiny.decode(ids, skip_special_tokens=True)
    assert all(text == tiny.decode([one], skip_special_tokens=True) for one, text in PIECES.items())


@given(text=st.text())
def test_text_arrives_without_replacement_characters(tiny, text):
    text = text.replace("\ufffd", "").replace("<|", "")
    increments, rest = streamed(tiny, tiny.encode(text))
    assert not any("\ufffd" in increment for increment in increments)
    assert rest == ""


def test_a_character_appears_when_it_is_whole(tiny):
    ids = tiny.convert_tokens_to_ids(["a", "ð", "Ł", "ĺ", "Ģ", "b"])  # a, the four bytes of U+1F600, b
    assert streamed(tiny, ids) == (["a", "", "", "", "\U0001f600", "b"], "")
    assert streamed(tiny, ids[:3]) == (["a", "", ""], "\ufffd")


def test_broken_bytes_come_out_once_it_is_clear_that_they_are(tiny):
    assert streamed(tiny, tiny.convert_tokens_to_ids(["Ã", "Ã", "a"])) == (["", "", "\ufffd\ufffda"], "")


def test_control_tokens_are_left_out_unless_wanted(tiny):
    ids = tiny.encode("h<|im_end|>")
    assert streamed(tiny, ids)[0] == ["h", ""]
    assert streamed(tiny, ids, skip_special_tokens=False)[0] == ["h", "<|im_end|>"]


# -- stop strings


def through(buffer, pushes):
    return "".join(buffer.push(push) for push in pushes) + buffer.flush()


def test_a_possible_beginning_of_a_stop_string_is_held_back():
    buffer = StopBuffer(["STOP", "\n\n"])
    assert [buffer.push(text) for text in ("one S", "T", "ART\n", "two")] == ["one ", "", "START", "\ntwo"]
    assert [buffer.push(text) for text in ("ST", "OP three", "four")] == ["", "", ""]
    assert buffer.stopped
    assert buffer.flush() == ""


def test_what_was_held_back_comes_out_at_the_end():
    buffer = StopBuffer("STOP")
    assert buffer.push("a STO") == "a "
    assert buffer.flush() == "STO"
    assert not buffer.stopped


def test_the_stop_string_complete_first_wins():
    assert through(StopBuffer(["abcd", "bc"]), ["xabcd"]) == "xa"
    assert through(StopBuffer(["bc", "abc"]), ["xabcd"]) == "x"
    assert through(StopBuffer([]), ["x"]) == "x"


@given(
    text=st.text(alphabet="abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=4)), data=st.data()
)
def test_the_outcome_does_not_depend_on_the_cuts_and_nothing_leaks(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    out = through(StopBuffer(stops), pieces)
    assert out == through(StopBuffer(stops), [text]) == through(StopBuffer(stops), list(text))
    assert text.startswith(out)
    assert not any(stop in out for stop in stops)
    assert (out == text) == (not any(stop in text for stop in stops))


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ConfigError, match=r"^An empty stop string was found; every stop string needs at least one"):
        StopBuffer(["a", ""])
