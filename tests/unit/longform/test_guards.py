import pytest

from qwen2_audio.longform import guards
from qwen2_audio.longform.transcript import Segment


@pytest.mark.parametrize(
    ("text", "tokens", "loops"),
    [
        ("the cat sat", 3, False),
        ("no no no", 3, False),
        ("no no no no", 4, True),
        ("I said that we go and so on and so on and so on and so on", 15, True),
        ("and so on and so on and so on and so on but then it ended", 15, False),
        ("Well, " + "a b c d e f g h " * 4, 33, True),
        ("谢谢谢谢", 4, True),
        ("谢谢大家", 4, False),
        ("我们走吧我们走吧我们走吧我们走吧", 16, True),
        ("ha" * 60, 40, True),  # one word, which compresses
        ("ha" * 60, 20, False),
        ("", 0, False),
    ],
)
def test_repetition(text, tokens, loops):
    assert guards.repetition(text, tokens) is loops


def test_echo():
    assert guards.echo("Sure. TRANSCRIBE, the speech!", "Transcribe the speech.")
    assert not guards.echo("We transcribe.", "Transcribe the speech.") and not guards.echo("it is so", "is")


def test_refusal():
    assert guards.refusal("Nobody is speaking; I hear rain.", ("Nobody is speaking.",))
    assert not guards.refusal("There is nobody", ("Nobody is speaking.",)) and not guards.refusal("a", ())


def test_rate():
    assert guards.rate("a b c d e f g h i j k l m n", 1.0) and not guards.rate("a b c d e f g h i j k l", 2.0)
    assert not guards.rate("a b", 0.1)  # too short to tell
    assert guards.rate("一二三四五六七八九十" * 4, 2.0) and not guards.rate("一二三四五六七八九十" * 2, 2.0)


def test_silence():
    assert guards.silence(0.0) and not guards.silence(0.001)


def test_flags_have_an_order_and_change_no_text():
    flags = guards.flags_of(
        "Transcribe the speech. " + "no " * 60, seconds=1.0, tokens=60, finish_reason="length",
        asked=("Transcribe the speech.",), confidence=0.2, min_confidence=0.5,
    )  # fmt: skip
    assert flags == ("repetition", "length", "echo", "rate", "low_confidence")
    assert set(flags) - {"low_confidence"} == guards.HARD
    assert guards.flags_of("Hello.", seconds=1.0, tokens=3, finish_reason="stop", confidence=0.2) == ()
    assert Segment(0, 1, "x").flags == ()
