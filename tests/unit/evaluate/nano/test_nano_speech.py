"""Speech: voices that only the test hears, words that nano does not know, and the same samples for the same seed."""

import os
import shutil

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE
from qwen2_audio.evaluate.nano.scene import TURNS, render, render_speech, render_strange
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED
from qwen2_audio.evaluate.nano.speech import engines
from qwen2_audio.evaluate.nano.speech.strange import LANGUAGES, unknown_words
from qwen2_audio.evaluate.nano.speech.variants import variant
from qwen2_audio.evaluate.nano.speech.voices import (
    ACCENTS,
    GROUPS,
    SEEN,
    TRAINED,
    UNSEEN_VARIANTS,
    UNSEEN_VOICES,
    draw_manner,
    draw_voice,
)
from qwen2_audio.evaluate.nano.world.speakers import known_question, utterance
from qwen2_audio.evaluate.nano.world.utterance import plain

spoken = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs espeak-ng and flite"
)
trained = pytest.mark.skipif(
    shutil.which("festival") is None or not engines.KED.is_dir(), reason="needs festival and festvox-kdlpc16k"
)


def test_held_out_voices_never_speak_in_training():
    trained = {(voice.engine, voice.name) for voice in TRAINED}
    assert not trained & {(voice.engine, voice.name) for voice in (*UNSEEN_VARIANTS, *UNSEEN_VOICES)}
    assert {(voice.engine, voice.sex) for voice in UNSEEN_VOICES} == {
        (engine, sex) for engine in ("espeak", "flite") for sex in ("man", "woman")
    }
    assert set(SEEN) < set(TRAINED), "what the test calls seen has been in training"
    assert {voice.engine for voice in SEEN} == {"espeak", "flite"}, "the test needs no festival"


@pytest.mark.parametrize("group", list(GROUPS))
def test_men_and_women_speak_alike_often(group):
    rng = np.random.default_rng(0)
    drawn = [draw_voice(rng, group) for _ in range(400)]
    assert 0.4 < np.mean([voice.sex == "man" for voice in drawn]) < 0.6
    for voice in drawn[:50]:
        manner = draw_manner(rng, voice)
        assert 0.8 <= manner.pace <= 1.25
        assert bool(manner.accent) == (voice.engine == "espeak")


def test_unknown_words_are_unknown_and_those_of_the_test_are_its_own():
    rng = np.random.default_rng(0)
    world = {word for _ in range(20_000) for word in plain(utterance(rng, "train").text).split()}
    for words in unknown_words().values():
        assert not world & set(words)
    assert not set(unknown_words()["train"]) & set(unknown_words()["test"])
    assert not set(LANGUAGES["train"]) & set(LANGUAGES["test"])


def test_a_missing_synthesiser_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(engines.shutil, "which", lambda name: None if name == "flite" else "/usr/bin/" + name)
    monkeypatch.setattr(engines, "KED", tmp_path / "none")
    with pytest.raises(RuntimeError, match=r"^flite cannot be found.*apt-get install espeak-ng flite"):
        engines.check_engines()
    with pytest.raises(RuntimeError, match=r"^flite and festival \(with festvox-kdlpc16k\) cannot be found"):
        engines.check_engines(training=True)


def test_drawn_variants_are_the_same_for_ever_and_differ():
    texts = [variant(number) for number in range(40)]
    assert texts == [variant(number) for number in range(40)]
    assert len(set(texts)) == 40
    assert "gender male" in texts[0] and "gender female" in texts[1]
    assert all(len([line for line in text.splitlines() if line.startswith("formant ")]) == 9 for text in texts)


@spoken
def test_a_drawn_variant_is_one_that_espeak_knows():
    first, second = (engines.espeak("One two three.", f"en-us+drawn{number:03}")[0] for number in (0, 101))
    plain = engines.espeak("One two three.", "en-us")[0]
    assert min(len(first), len(second)) > 8000
    assert len(first) != len(second) or not np.allclose(first, second)
    assert len(first) != len(plain) or not np.allclose(first, plain)


@trained
def test_festival_speaks_at_the_pace_and_pitch_asked_for():
    slow, rate = engines.festival('Say "one", two.', "ked", pace=0.8)
    fast, _ = engines.festival('Say "one", two.', "ked", pace=1.2)
    assert rate == 16_000
    assert 1.2 < len(slow) / len(fast) < 1.8


@trained
def test_what_festival_said_before_is_forgotten():
    def said(text, **manner):
        return engines.festival(text, "ked", **manner)[0]

    running = engines._festival_process(os.getpid())
    engines._festival_process.cache_clear()
    running.communicate()
    first = said("One two three.")
    assert not np.array_equal(said("One two three.", pitch=190, pace=0.9), first)
    assert np.array_equal(said("One two three."), first)
    with pytest.raises(RuntimeError, match=r"^festival could not say 'One' with the voice nobody\.$"):
        engines.festival("One", "nobody")
    assert np.array_equal(said("One two three."), first)


@trained
def test_a_festival_that_died_is_named_and_the_next_one_speaks():
    engines.festival("One", "ked")
    engines._festival_process(os.getpid()).kill()
    with pytest.raises(RuntimeError, match="festival stopped"):
        engines.festival("One", "ked")
    assert len(engines.festival("One", "ked")[0]) > 3000


@spoken
@pytest.mark.parametrize("name", [*dict.fromkeys(ACCENTS), *(name for names in LANGUAGES.values() for name in names)])
def test_a_variant_is_heard_in_every_accent_and_language(name):
    """espeak-ng says a name that is no voice's, only a language's, without the variant."""
    high, low = (engines.espeak("one two", f"{name}+{variant}")[0] for variant in ("f2", "m3"))
    assert len(high) != len(low) or not np.allclose(high, low)


@spoken
def test_the_same_seed_gives_the_same_speech_and_another_one_other_speech():
    first, clip = render_speech("test", 3, "seen", known_question)
    again, _ = render_speech("test", 3, "seen", known_question)
    other, _ = render_speech("test", 4, "seen", known_question)
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:8000], other[:8000])
    assert clip.kind == SPEECH and clip.text and clip.answer and clip.sex in ("man", "woman")
    assert clip.seconds == len(first) / 16_000
    assert first.dtype == np.float32 and 0.01 < np.abs(first).max() <= 1


@spoken
@pytest.mark.parametrize("group", ["seen", "variant", "voice", pytest.param("trained", marks=trained)])
def test_every_group_speaks_and_strangely(group):
    for index in range(3):
        wave, clip = render_speech("test", index, group, known_question)
        assert f"{clip.voice}" in {f"{voice.engine} {voice.name}" for voice in GROUPS[group]}
        assert 0.4 < clip.seconds < 8 and np.isfinite(wave).all()
    wave, clip = render_strange("test", 1, group)
    assert (clip.kind, clip.text) == (STRANGE, "") and len(wave) > 3000


@trained
@spoken
def test_training_has_every_sort_in_its_turn():
    for sort in ("speech", "sound", "strange", "mixed"):
        _, clip = render("train", TURNS.index(sort))
        assert (clip.kind == SPEECH) == (sort in ("speech", "mixed"))
        assert (clip.background in NAMED) == (sort == "mixed")
    assert TURNS.count("speech") / len(TURNS) > 0.5
