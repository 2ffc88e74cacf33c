"""An aligner's file, letters, and times of words on nano, whose truth a synthesiser tells."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from kit.tiny import tiny_model
from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.settings import ALIGNER
from qwen2_audio.longform.word_times import FLOOR, Aligner, Evidence, WordSpan, align_words, sounding
from qwen2_audio.longform.word_times_head import AlignerHead, encoder_states, fingerprint
from qwen2_audio.longform.word_times_letters import SYMBOLS, WILDCARD, labels_of, spell
from qwen2_audio.pretrained import Qwen2AudioEncoder

RATE = 16_000


def letters(word):
    return "".join("?" if value == WILDCARD else SYMBOLS[value - 1] for value in spell(word))


@pytest.mark.parametrize(
    ("word", "read"),
    [
        (" Hello,", "hello"), ("it's", "it's"), ("it\u2019s", "it's"), ("25", "??"), ("50%", "???"), ("A1", "a?"),
        ("\u2014", ""), ("'", ""), ("...", ""), ("Käthe", "kathe"), ("Straße", "strasse"), ("中", "zhong"),
        ("안녕", "annyeong"), ("Привет", "privet"), ("x²", "x?"),
    ],
)  # fmt: skip
def test_words_are_spelled_in_the_aligners_letters(word, read):
    assert letters(word) == read


def test_a_row_of_labels_has_a_blank_between_words_that_have_letters():
    labels, spans = labels_of([[3, 4], [], [5], [6, 7]])
    assert labels == [3, 4, 1, 5, 1, 6, 7] and spans == [(0, 2), (2, 2), (3, 4), (5, 7)]


@pytest.fixture
def tower():
    return tiny_model(noise=0.1).audio_tower


def head_of(tower, layer=1):
    random = np.random.default_rng(0)
    weight = random.normal(size=(len(SYMBOLS) + 1, tower.config.d_model)).astype(np.float32)
    return AlignerHead(weight, weight[:, 0], layer, fingerprint(tower, layer), 0.04, about="a test")


def test_a_file_comes_back_and_fits_its_encoder_in_any_dtype(tower, tmp_path):
    head, path = head_of(tower), tmp_path / ALIGNER
    head.save(path)
    read = AlignerHead.read(path)
    assert (read.layer, read.shift, read.symbols, read.about) == (1, 0.04, SYMBOLS, "a test")
    assert np.allclose(read.weight, head.weight, atol=2e-3) and read.weight.dtype == np.float32
    read.check_fits(tower, "it")
    read.check_fits(tower.to(torch.bfloat16), "it")
    assert [entry.name for entry in tmp_path.iterdir()] == [ALIGNER]


def test_another_encoders_file_is_refused(tower, tmp_path):
    head = head_of(tower)
    with pytest.raises(ConfigError, match=r"it was made for another encoder: .* differ by \d+ %"):
        head.check_fits(tiny_model(noise=0.1, seed=1).audio_tower, "it")
    with pytest.raises(ConfigError, match="layer 1 of 16, and this one has 4 layers of 192"):
        head.check_fits(Qwen2AudioEncoder.from_pretrained(qa.nano_path()), "it")
    path = tmp_path / ALIGNER
    with pytest.raises(ConfigError, match="There is no aligner"):
        AlignerHead.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="is no aligner, or a damaged one"):
        AlignerHead.read(path)
    shutil.copy(qa.nano_path() / "model.safetensors", path)
    with pytest.raises(ConfigError, match="is no aligner: 'aligner' is missing"):
        AlignerHead.read(path)
    with pytest.raises(ConfigError, match="Times of words need an aligner, and here has none"):
        Aligner(tower, None, "here").ensure_available()


def test_states_are_those_of_the_whole_encoder(tower):
    """The last layer's, pooled and normalised, are what the language model hears."""
    samples = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32)
    states = encoder_states(tower, samples, [0, 2])
    assert states[0].shape == states[2].shape == (29, 16)
    assert states[0].mean(1).abs().max() < 1e-5 and not torch.allclose(states[0], states[2])
    alone = encoder_states(tower, samples, [0])
    assert alone.keys() == {0} and torch.equal(alone[0], states[0])


def test_sound_is_told_from_silence_by_steps_of_10_ms():
    samples = np.zeros(3200, np.float32)
    samples[800:1600] = 0.1
    assert sounding(samples, 20).tolist() == [False] * 5 + [True] * 5 + [False] * 10
    assert not sounding(np.zeros(1600, np.float32), 10).any()


def test_a_letter_that_ctc_finds_a_little_likelier_in_silence_is_put_where_there_is_sound():
    log_probs = np.full((20, len(SYMBOLS) + 1), -6.0, np.float16)
    log_probs[:, 0] = -0.1
    log_probs[3, spell("a")], log_probs[14, spell("a")] = -1.0, -2.0
    starts, loud = np.arange(20) / 50, np.arange(40) >= 24
    for where, start in ((loud, 0.24), (np.ones(40, bool), 0.02)):
        (span,) = align_words([Evidence(log_probs, where, starts)], ["a"], SYMBOLS, 0.04)
        assert span.start == pytest.approx(start) and span.end == pytest.approx(start + 0.1)
    late = np.arange(40) >= 29  # the sound begins within the letter's frame
    (span,) = align_words([Evidence(log_probs, late, starts)], ["a"], SYMBOLS, 0.04)
    assert span.start == pytest.approx(0.29)


@pytest.fixture(scope="module")
def aligner():
    return Aligner(Qwen2AudioEncoder.from_pretrained(qa.nano_path()).eval(), qa.nano_path() / ALIGNER, "nano")


@pytest.fixture(scope="module")
def said():
    """Sentences of the test split by voices that training does not have: samples, words with their starts."""
    if shutil.which("espeak-ng") is None or shutil.which("flite") is None:
        pytest.skip("espeak-ng and flite tell when each word is said")
    from benchmarks.long.word_times import start_errors

    return start_errors


def test_words_begin_where_the_synthesiser_says(aligner, said):
    errors = said(aligner, 40)
    every = np.concatenate(list(errors.values()))
    assert len(every) > 200 and len(errors) == 3
    assert every.mean() <= 0.040 and (every < 0.1).mean() >= 0.95


def test_words_in_order_with_a_pause_kept_and_an_unknown_one_left_out(aligner):
    from qwen2_audio.audio.io import load

    clip = load(qa.nano_path() / "clips" / "capital.wav")
    quiet = np.zeros(RATE, np.float32)
    words = ["What", " is", " the", " capital", " of", " France?"]
    alone = aligner.words(clip, words)
    assert all(isinstance(word, WordSpan) and word.score > FLOOR for word in alone)
    later = aligner.words(np.concatenate([quiet, clip, quiet]), words, 5.0)
    shifts = [two.start - one.start for one, two in zip(alone, later, strict=True)]
    assert shifts == pytest.approx([6.0] * 6, abs=0.05)
    assert later[0].start >= 6.0 and later[-1].end <= 6.0 + len(clip) / RATE + 0.1
    for one, two in pairwise(alone):
        assert one.start < one.end <= two.start
    assert aligner.words(clip, ["\u2014", "..."]) == [None, None]
    assert aligner.words(clip[:300], words) == [None] * 6
    assert aligner.words(clip[:3200], words * 9) == [None] * 54  # more letters than frames
