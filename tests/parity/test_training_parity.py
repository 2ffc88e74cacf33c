"""One training step next to the reference's: the same batch, the same gradients; what we save, it loads."""

import pytest
import torch

from kit.reference import reference_name
from kit.tiny import AUDIO_ID
from qwen2_audio.train.config import DataConfig, OptimConfig, TrainConfig
from qwen2_audio.train.loss import predict, token_losses, trained_tokens
from qwen2_audio.train.optim import optimiser, prepare, trained


def right_padded():
    """Two rows with a clip each, one of 60 and one of 37 frames; the loss on the last three tokens of each."""
    rows = [[5, 6] + [AUDIO_ID] * 15 + [7, 8, 12, 9], [4] + [AUDIO_ID] * 9 + [10, 11, 13]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        labels[i, len(row) - 3 : len(row)] = ids[i, len(row) - 3 : len(row)]
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels,
        "input_features": torch.randn(2, 8, 60, generator=generator),
        "feature_attention_mask": (torch.arange(60)[None] < torch.tensor([[60], [37]])).int(),
    }  # fmt: skip


@pytest.fixture
def gradients(random_twins):
    theirs, ours = random_twins
    batch = right_padded()
    for model in (theirs, ours):
        model.zero_grad()
    reference = theirs(**batch).loss
    reference.backward()
    config = TrainConfig(DataConfig("rows"), "out", method="full", parts=("encoder", "projector", "language_model"))
    prepare(ours, config)
    loss = token_losses(predict(ours, batch)) / trained_tokens(batch["labels"])
    loss.backward()
    yield theirs, ours, reference, loss
    for model in (theirs, ours):
        model.zero_grad()


def test_loss_and_gradients_of_a_step_are_the_references(gradients):
    theirs, ours, reference, loss = gradients
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    expected = dict(theirs.named_parameters())
    compared = 0
    for name, parameter in trained(ours).items():
        other = expected[reference_name(name)].grad
        scale = float(other.abs().max())
        assert float((parameter.grad - other).abs().max()) <= 1e-4 * scale + 1e-7, name
        compared += scale > 0
    assert compared > 40


def test_what_we_train_is_what_the_reference_would(random_twins):
    theirs, ours = random_twins
    config = TrainConfig(DataConfig("rows"), "out", method="full", parts=("encoder", "projector", "language_model"))
    prepare(ours, config)
    assert {reference_name(name) for name in trained(ours)} == {
        name for name, p in theirs.named_parameters() if p.requires_grad
    }


def test_a_trained_checkpoint_loads_in_the_reference(tmp_path, random_twins):
    transformers = pytest.importorskip("transformers")
    from qwen2_audio.checkpoint.config import Qwen2AudioConfig
    from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

    _, twin = random_twins
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(twin.config.to_dict()))
    ours.load_state_dict(twin.state_dict())
    batch = right_padded()
    config = TrainConfig(DataConfig("rows"), "out", method="full", parts=("projector", "language_model"))
    prepare(ours, config)
    step = optimiser(ours, OptimConfig(learning_rate=1e-3))
    (token_losses(predict(ours, batch)) / trained_tokens(batch["labels"])).backward()
    step.step()
    ours.eval().save_pretrained(tmp_path)
    theirs = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        valid = inputs["attention_mask"].bool()
        found, expected = ours(**inputs, use_cache=False).logits, theirs(**inputs).logits
    torch.testing.assert_close(found[valid], expected[valid], rtol=1e-3, atol=1e-4)


def test_a_merged_adapter_is_in_the_reference_what_it_is_here(tmp_path, random_twins):
    transformers = pytest.importorskip("transformers")
    from qwen2_audio import lora
    from qwen2_audio.checkpoint.config import Qwen2AudioConfig
    from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

    _, twin = random_twins
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(twin.config.to_dict())).eval()
    ours.load_state_dict(twin.state_dict())
    targets = {"encoder": "q_proj|fc1", "projector": "linear", "language_model": "v_proj|down_proj"}
    lora.inject(ours, lora.LoraConfig(rank=4, targets=targets))
    for module in lora.adapted(ours).values():
        torch.nn.init.normal_(module.lora_B.weight, std=0.05)
    inputs = {key: value for key, value in right_padded().items() if key != "labels"}
    with torch.no_grad():
        attached = ours(**inputs, use_cache=False).logits
    lora.merge(ours)
    ours.save_pretrained(tmp_path)
    theirs = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        valid = inputs["attention_mask"].bool()
        torch.testing.assert_close(attached[valid], theirs(**inputs).logits[valid], rtol=1e-3, atol=1e-4)
