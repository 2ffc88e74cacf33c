"""The stages: losses that fall, an encoder put in the imagined one's place, configs that the trainer takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.nano.batches import (
    CLASSES,
    LETTERS,
    NO_SEX,
    EncoderBatch,
    augmented,
    kind_shares,
    letters_of,
)
from recipes.nano.ctc import Listener, distance, greedy, join
from recipes.nano.imagine import imagined
from recipes.nano.network import nano_config
from recipes.nano.pseudo import LANGUAGE, Lessons
from recipes.nano.stages import Plan, configured
from recipes.nano.tables import Tables

from qwen2_audio.checkpoint.config import Qwen2AudioEncoderConfig
from qwen2_audio.distributed.process_group import Processes
from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.model.encoder import Qwen2AudioEncoder
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration

SAID = Clip(SPEECH, 2.0, -20.0, "One.", "chat", "Two.", "woman", "", "dog")


def small_encoder():
    torch.manual_seed(0)
    return Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            num_mel_bins=128, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64, d_model=32
        )
    )


def test_letters_and_shares():
    assert letters_of("A b'c!") == [LETTERS.index(letter) + 1 for letter in "a b'c"]
    shares = kind_shares(SAID)
    assert shares[CLASSES.index(SPEECH)] == shares[CLASSES.index("dog")] == 0.5
    assert sum(kind_shares(Clip("cat", 1.0, -20.0))) == 1


def test_the_encoders_loss_falls_and_sounds_alone_have_no_letters():
    network, rng = Listener(small_encoder()), np.random.default_rng(0)
    features = torch.from_numpy(rng.standard_normal((3, 128, 83)).astype(np.float32))
    clips = [SAID, Clip("cat", 1.0, -20.0), replace(SAID, sex="man")]
    kinds, sexes = torch.tensor([kind_shares(clip) for clip in clips]), torch.tensor([1, NO_SEX, 0])
    batch = EncoderBatch(features, [80, 61, 72], kinds, sexes, [0, 2], [letters_of("one"), letters_of("to")], clips)
    frames = network.frames(network.states(batch))
    assert [len(clip) for clip in frames] == [40, 31, 36]
    pooled = network.tower.encode(features, [80, 61, 72])
    assert len(pooled) == 20 + 15 + 18
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = network.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    silent = replace(batch, spoken=[], letters=[], sexes=torch.full((3,), NO_SEX))
    assert float(network.loss(silent).detach()) > 0


def test_greedy_ctc_and_edit_distance():
    logits = torch.nn.functional.one_hot(torch.tensor([0, 2, 2, 0, 2, 3, 3]), 5).float()
    assert list(greedy(logits)) == [2, 2, 3]
    assert distance([1, 2, 3], [1, 3]) == 1
    assert distance([], [1, 3]) == 2


def test_augmentation_keeps_the_shape_and_leaves_silence_alone():
    rng = np.random.default_rng(0)
    silent = np.full((128, 50), -1.5, np.float32)
    for _ in range(10):
        assert np.array_equal(augmented(silent, rng), silent)
        heard = augmented(rng.standard_normal((128, 50)).astype(np.float32), rng)
        assert heard.shape == (128, 50) and heard.dtype == np.float32


def test_imagined_states_tell_words_and_sex():
    tables = Tables.drawn(32)
    states = tables.states(SAID, np.random.default_rng(0))
    assert states.dtype == np.float32 and states.shape[1] == 32 and len(states) > 3
    other = tables.colour(replace(SAID, sex="man"))
    assert not np.allclose(tables.colour(SAID), other)


@pytest.fixture
def shallow(tokenizer):
    """A fresh model with one layer."""
    config = nano_config(tokenizer)
    torch.manual_seed(0)
    config.text_config.num_hidden_layers = 1
    return Qwen2AudioForConditionalGeneration(config)


def test_a_lesson_is_reproducible_and_its_loss_is_that_of_guessing_at_first(shallow, tokenizer):
    lessons = Lessons(shallow, tokenizer, 0)
    assert [one.ids for one in lessons(3)] == [one.ids for one in Lessons(shallow, tokenizer, 0)(3)]
    assert len(lessons(0)) == LANGUAGE.batch
    assert abs(float(lessons.loss(0).detach()) - np.log(len(tokenizer))) < 0.7


def test_two_processes_share_a_batch_of_lessons_and_its_loss(shallow, tokenizer):
    whole = Lessons(shallow, tokenizer, 0)
    tokens = sum(sum(one.trained) for one in whole(5))

    class Here(Processes):
        def total(self, numbers):
            return {"tokens": tokens}

    halves = [Lessons(shallow, tokenizer, 0, Here(rank, 2)) for rank in range(2)]
    assert sorted(one.ids for half in halves for one in half(5)) == sorted(one.ids for one in whole(5))
    losses = [half.loss(5).item() for half in halves]
    assert losses[0] != losses[1]
    assert sum(losses) / 2 == pytest.approx(whole.loss(5).item(), rel=1e-5)


def test_imagined_clips_are_of_every_sort():
    rng = np.random.default_rng(0)
    clips = [imagined(rng) for _ in range(300)]
    assert {clip.kind for clip in clips} >= {"speech", "strange", "dog"}
    assert any(clip.background for clip in clips)


@pytest.mark.parametrize("name", ["joint", "sft", "voices", "dpo", "people", "people-dpo"])
def test_the_configs_are_the_trainers(name):
    plan = Plan(Path("elsewhere"), scale=0.5)
    config = configured(name, "before", plan)
    assert config.method == "full"
    assert config.model == "elsewhere/before" and config.output == f"elsewhere/{name}"
    assert config.data.train == f"elsewhere/data/{name}.jsonl"
    assert config.optim.final_fraction == (0.3 if name == "joint" else 0.0)  # the last stages end on a decay


def test_the_bridge_before_the_projector_is_the_projector_after_the_bridge():
    network, projector = Listener(small_encoder()), torch.nn.Linear(32, 48)
    heard = torch.randn(5, 32)
    wanted = projector(network.bridge(heard))
    join(network, projector)
    assert torch.allclose(projector(heard), wanted, atol=1e-5)


def test_a_vocabulary_that_is_no_longer_the_first_stages_is_refused(tmp_path, monkeypatch, tokenizer):
    from recipes.nano import stages

    monkeypatch.setattr(stages, "train_tokenizer", lambda: tokenizer)
    stages._model(Plan(tmp_path))
    stages._model(Plan(tmp_path))
    (tmp_path / "vocabulary.txt").write_text("another")
    with pytest.raises(RuntimeError, match="lists other tokens than the recipe now makes; begin anew in another"):
        stages._model(Plan(tmp_path))
