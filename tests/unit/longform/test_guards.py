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
        asked=("Transcribe the speech.",), refused=True, expected="fr",
    )  # fmt: skip
    assert flags == ("repetition", "length", "echo", "refusal", "rate")
    assert set(flags) - {"refusal"} == guards.HARD
    text = "this is what we have in the house"
    assert guards.flags_of(text, seconds=9, tokens=8, finish_reason="stop", expected="fr") == ("language",)
    assert guards.flags_of(text, seconds=9, tokens=8, finish_reason="stop", expected="en") == ()
    assert guards.flags_of(text, seconds=9, tokens=8, finish_reason="stop") == ()
    segment = guards.with_flag(Segment(0, 1, "x", flags=("length", "low_confidence")), "language")
    assert segment.flags == ("length", "language", "low_confidence")


def test_low_confidence_needs_a_threshold():
    assert guards.low_confidence(0.5, 0.6) and not guards.low_confidence(0.6, 0.6)
    assert not guards.low_confidence(0.01, None) and not guards.low_confidence(None, 0.6)


@pytest.mark.parametrize(
    ("text", "found", "expected", "other"),
    [
        ("this is what we have in it", "en", "fr", True),
        ("this is what we have in it", "en", "en", False),
        ("Maria de la Cruz", "ro", "en", False),  # too short to tell
        ("この話です", "ja", "en", True),
        ("東京", "zh", "ja", False),  # without kana
        ("在东京", "zh", "ko", True),
        ("semua orang akan bisa untuk itu", "id", "ms", False),
        ("x y z", None, "en", False),
    ],
)
def test_another_language_than_expected(text, found, expected, other):
    assert guards.other_language(found, expected, text) is other


def segments_in(*languages):
    return [
        Segment(n, n + seconds, "one two three four five", language) for n, (language, seconds) in enumerate(languages)
    ]


def test_a_segment_in_another_language_than_nine_tenths_of_the_sound():
    marked = guards.flag_other_languages(segments_in(("de", 91), ("fr", 9), (None, 500)))
    assert [segment.flags for segment in marked] == [(), ("language",), ()]
    assert [s.flags for s in guards.flag_other_languages(segments_in(("de", 89), ("fr", 11)))] == [(), ()]
    assert guards.flag_other_languages([]) == []
    silent = Segment(0, 900, "", "fr")
    assert guards.flag_other_languages([silent, *segments_in(("de", 3))])[0].flags == ()
