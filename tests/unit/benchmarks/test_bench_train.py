"""`bench train` on a tiny checkpoint: both sides learn the same, and the rows say how fast."""

from __future__ import annotations

import pytest

from benchmarks.harness.bars import RATIOS
from benchmarks.train import run as train
from benchmarks.train.run import Options, choose_optimiser, positions, run
from benchmarks.train.session import ANSWER_TOKENS, Session, batch
from benchmarks.train.worker import Ours
from qwen2_audio import nano_path
from qwen2_audio.checkpoint import memory
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.errors import CapacityError, ConfigError


def test_both_sides_take_the_same_step(folder):
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("peft", reason="peft is not installed")
    said = []
    report = run(Options(model=folder, quick=True, threads=1), said.append)
    assert [row.name for row in report.rows] == [
        f"checkpoint.train.{method}.{what}" for method in ("lora", "full") for what in ("rate", "peak_gb")
    ]
    for row in report.rows:
        assert row.value > 0 and row.peer > 0 and row.ratio > 0
        if row.unit == "tokens/s":
            assert row.note.startswith("adamw, batch of clips of 2, 3 s; loss: same within "), row.note
    assert report.machine["peer"].startswith("transformers 5")
    assert said[0] == "lora step, ours: 1 of 1"
    assert len(said) == 4


def test_our_side_alone(folder):
    report = run(Options(model=folder, peer="none", methods=("lora",), repeats=1, steps=2, threads=1))
    rate, peak = report.rows
    assert (rate.unit, peak.unit) == ("tokens/s", "GB")
    assert rate.peer is None and rate.ratio is None
    assert rate.spread is not None
    assert rate.note == "adamw, batch of clips of 2, 4, 7, 10 s"


def test_our_steps_lower_the_loss(folder):
    session = Session(Ours())
    for method, optimiser in (("lora", "adamw"), ("full", "adamw"), ("full", "sgd")):
        session.load(str(folder), method, optimiser, [1.0, 2.0])
        losses = [session.step()["check"][0] for _ in range(4)]
        assert losses == sorted(losses, reverse=True) and len(set(losses)) == 4, (method, optimiser, losses)


def test_the_batch_is_counted_without_its_padding(folder):
    made = batch([1.0, 2.0], Qwen2AudioConfig.from_pretrained(folder))
    assert int(made["attention_mask"].sum()) == positions([1.0, 2.0])
    assert (made["labels"] != -100).sum(1).tolist() == [ANSWER_TOKENS, ANSWER_TOKENS]
    assert (made["labels"][made["attention_mask"] == 0] == -100).all()


def test_a_full_step_without_room_for_moments_goes_without_on_both_sides(monkeypatch):
    def room(size):
        for module in (memory, train):
            monkeypatch.setattr(module, "available_bytes", lambda: size)

    room(100 * 10**9)
    assert choose_optimiser("full", 10**9) == "adamw"
    room(12 * 10**9)
    assert choose_optimiser("full", 10**9) == "sgd"
    assert choose_optimiser("lora", 10**9) == "adamw"
    room(3 * 10**9)
    with pytest.raises(
        CapacityError, match=r"A full step without moments takes 8 GB of memory, and 3 GB are available"
    ):
        choose_optimiser("full", 10**9)
    with pytest.raises(CapacityError, match=r"A lora step takes 4 GB of memory"):
        choose_optimiser("lora", 10**9)


def test_names_and_limits():
    assert Options(model=nano_path()).label == "nano"
    assert Options().label == "model1b"
    assert RATIOS["model1b.train.lora.rate"] == RATIOS["nano.train.full.rate"] == 1.5
    assert RATIOS["model1b.train.full.peak_gb"] == 1.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"repeats": 0}, "repeats is 0; expected at least 1."),
        ({"threads": 0}, "threads is 0; expected at least 1."),
        ({"peer": "peft"}, "peer is 'peft'; bench train expects one of transformers, none."),
        ({"methods": ("lorra",)}, "methods is 'lorra'; expected some of lora,full."),
        ({"model": "nowhere"}, "nowhere has no config.json; expected the folder of a Qwen2-Audio checkpoint."),
    ],
)
def test_options_that_cannot_work_are_one_sentence(options, sentence):
    from pathlib import Path

    if "model" in options:
        options = {"model": Path(options["model"])}
    with pytest.raises(ConfigError) as caught:
        Options(**options)
    assert str(caught.value) == sentence


def test_a_peer_that_is_asked_for_and_absent(folder, monkeypatch):
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"but finds no transformers and no peft; install 'qwen2-audio\[oracles\]'"):
        run(Options(model=folder, peer="transformers"))
