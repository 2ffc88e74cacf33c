"""transformers beside us, on nano: equal; and faults of ours show in the rows they belong to."""

import importlib.util

import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.audio import mel
from qwen2_audio.evaluate.verify import reference
from qwen2_audio.evaluate.verify.reference import reference_rows
from qwen2_audio.model import attention

pytestmark = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is the oracle")


@pytest.fixture(scope="module")
def said():
    """What transformers says, asked once."""
    return reference._in_a_process(qa.nano_path(), torch.device("cpu"), torch.float32)


@pytest.fixture
def rows(said, monkeypatch):
    monkeypatch.setattr(reference, "_in_a_process", lambda *_: said)
    return lambda: list(reference_rows("nano", qa.nano_path(), torch.device("cpu"), torch.float32))


def bad(rows):
    return {row.check.partition(": ")[2] for row in rows() if row.state == "OUT OF BOUNDS"}


def test_they_agree(rows):
    found = rows()
    assert len(found) == 4 * len(reference.PROMPTS)
    assert [row for row in found if row.state != "ok"] == []


def test_other_logits(rows, monkeypatch):
    sdpa = attention._sdpa
    monkeypatch.setattr(attention, "_sdpa", lambda *a, **k: sdpa(*a, **k) * 1.5)
    assert bad(rows) == {"logits", "greedy tokens"}


def test_other_sounds(rows, monkeypatch):
    monkeypatch.setattr(mel, "RANGE", 7.9)
    assert "log-mels" in bad(rows)


def test_other_ids(rows, monkeypatch):
    encode = qa.Qwen2AudioProcessor.from_pretrained(qa.nano_path()).tokenizer.__class__.__call__
    monkeypatch.setattr(
        "qwen2_audio.text.tokenizer.Tokenizer.__call__",
        lambda self, text, **k: encode(self, [t.replace("Detect", "detect") for t in text], **k),
    )
    found = {row.check for row in rows() if row.state == "OUT OF BOUNDS"}
    assert "transcription: ids" in found
    assert "caption: ids" not in found


def test_without_transformers(monkeypatch):
    monkeypatch.setattr(reference, "find_spec", lambda name: None)
    found = list(reference_rows("nano", qa.nano_path(), torch.device("cpu"), torch.float32))
    assert {row.state for row in found} == {"not here"}
    assert "transformers is not installed" in found[0].note


def test_a_transformers_that_fails_is_out_of_bounds(tmp_path):
    found = list(reference_rows("empty", tmp_path, torch.device("cpu"), torch.float32))
    assert {row.state for row in found} == {"OUT OF BOUNDS"}
    assert "transformers failed" in found[0].note
