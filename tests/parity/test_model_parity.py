"""Every stage of the model against transformers on tiny random checkpoints, fp32 (tolerances: docs/parity.md)."""

import pytest
import torch
from torch.testing import assert_close

from kit.reference import reference_name, reference_shape
from kit.tiny import AUDIO_ID
from qwen2_audio.audio.mel import num_audio_tokens, num_encoder_frames
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.model.encoder import frames_needed
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration

transformers = pytest.importorskip("transformers")

SHAPES = {
    "plain": ({}, {}),
    "gqa": ({}, {"num_key_value_heads": 2}),
    "mqa": ({"encoder_attention_heads": 4}, {"num_key_value_heads": 1}),
    "odd widths": (
        {"d_model": 24, "encoder_attention_heads": 3, "encoder_ffn_dim": 40, "encoder_layers": 3, "num_mel_bins": 10},
        {"hidden_size": 40, "intermediate_size": 56, "num_attention_heads": 5, "num_key_value_heads": 5},
    ),
    "rope and norm": ({}, {"rope_theta": 500.0, "rms_norm_eps": 1e-3}),
}


def build(audio: dict, text: dict, seed: int = 0):
    """The reference and ours with the same random weights."""
    torch.manual_seed(seed)
    theirs_config = transformers.Qwen2AudioConfig(**reference_shape(audio, text))
    theirs_config.ignore_index = -100  # the reference's legacy merge reads it, and its own default lacks it
    theirs_config._attn_implementation = "eager"
    theirs = transformers.Qwen2AudioForConditionalGeneration(theirs_config).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # larger than the initial 0.02, biases and norms included, so that errors show
            p.add_(torch.randn_like(p) * 0.15)
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(**reference_shape(audio, text))).eval()
    state = theirs.state_dict()
    assert len(state) == len(ours.state_dict())
    ours.load_state_dict({name: state[reference_name(name)] for name in ours.state_dict()})
    return theirs, ours


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def pair(request):
    return build(*SHAPES[request.param])


@pytest.fixture(scope="module")
def plain():
    return build({}, {})


def features_of(lengths, bins, window=60, seed=1):
    """Noise where there is sound, a floor elsewhere, as a log-mel has; and its mask."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.full((len(lengths), bins, window), -1.0)
    mask = torch.zeros(len(lengths), window, dtype=torch.int32)
    for i, n in enumerate(lengths):
        features[i, :, : min(n + 2, window)] = torch.randn(bins, min(n + 2, window), generator=generator)
        mask[i, :n] = 1
    return features, mask


def batch_of(rows, lengths, bins, side="left"):
    """Rows of ids with -1 - clip for a clip's placeholders; padded on `side`."""
    expanded = []
    for row in rows:
        out = []
        for token in row:
            out += [AUDIO_ID] * num_audio_tokens(lengths[-1 - token]) if token < 0 else [token]
        expanded.append(out)
    width = max(map(len, expanded))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(expanded):
        at = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    features, feature_mask = features_of(lengths, bins)
    return dict(input_ids=ids, attention_mask=mask, input_features=features, feature_attention_mask=feature_mask)


def labels_of(inputs):
    """All text but the first token of a row, which the reference predicts from padding in a left-padded row."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    first = mask.cumsum(1) == 1
    return ids.masked_fill((ids == AUDIO_ID) | (mask == 0) | first, -100)


def bins(model):
    return model.config.audio_config.num_mel_bins


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_encoder_on_whole_windows(pair, implementation):
    theirs, ours = pair
    ours.set_attn_implementation(implementation)
    features, _ = features_of([60, 31, 60], bins(ours))
    expected = theirs.model.audio_tower(features).last_hidden_state
    assert_close(ours.audio_tower(features).last_hidden_state, expected, atol=1e-5, rtol=0)
    frames = torch.tensor([num_encoder_frames(n) for n in (60, 31, 60)])
    keys = (torch.arange(30)[None] < frames[:, None]).long()
    additive = (1.0 - keys[:, None, None].float()) * torch.finfo(torch.float32).min
    expected = theirs.model.audio_tower(features, attention_mask=additive).last_hidden_state
    assert_close(ours.audio_tower(features, attention_mask=keys).last_hidden_state, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_unpadded_equals_padded_for_every_length(plain):
    """The heart of the speed: computing valid frames only gives the numbers of the whole masked window."""
    _, ours = plain
    for length in range(3, 61):
        features, _ = features_of([length], bins(ours), seed=length)
        frames = num_encoder_frames(length)
        keys = (torch.arange(30) < frames)[None].long()
        padded = ours.audio_tower(features, attention_mask=keys).last_hidden_state[0, : num_audio_tokens(length)]
        assert_close(ours.audio_tower.encode(features, [length]), padded, atol=1e-5, rtol=0)
        cut = features[..., : frames_needed(length, 60)]
        assert_close(ours.audio_tower.encode(cut, [length]), padded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_clips_of_a_batch_do_not_touch_each_other(pair):
    _, ours = pair
    lengths = [60, 5, 37, 38, 3, 37]
    features, mask = features_of(lengths, bins(ours))
    together, tokens = ours.encode_audio(features, mask)
    alone = [ours.encode_audio(features[i : i + 1], mask[i : i + 1])[0] for i in range(len(lengths))]
    assert tokens == [num_audio_tokens(n) for n in lengths]
    assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_mask_switch_gives_the_unmasked_reference(plain):
    theirs, ours = plain
    features, mask = features_of([41, 17], bins(ours))
    unmasked = theirs.model.multi_modal_projector(theirs.model.audio_tower(features).last_hidden_state)
    expected = torch.cat([unmasked[0, :10], unmasked[1, :4]])
    masked, _ = ours.encode_audio(features, mask)
    ours.encoder_mask = False
    try:
        found, tokens = ours.encode_audio(features, mask)
    finally:
        ours.encoder_mask = True
    assert tokens == [10, 4]
    assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - masked).abs().max() > 1e-3  # the switch does something


ROWS = {
    "one clip": ([[5, 6, -1, 7, 8]], [60]),
    "two clips in a row": ([[5, -1, 7, -2, 8, 9]], [37, 12]),
    "clips side by side": ([[5, -1, -2, 8]], [20, 21]),
    "batch of mixed lengths": ([[5, 6, -1, 7], [9, -2, 10, 11, 12], [1, -3]], [60, 37, 5]),
    "rows with and without": ([[5, 6, 7, 8, 9], [1, -1, 2, -2, 3], [4, 5]], [33, 9]),
}


@torch.no_grad()
@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_logits_and_loss(pair, case, side, implementation):
    theirs, ours = pair
    ours.set_attn_implementation(implementation)
    inputs = batch_of(*ROWS[case], bins(ours), side=side)
    labels = labels_of(inputs)
    expected = theirs(**inputs, labels=labels)
    found = ours(**inputs, labels=labels)
    valid = inputs["attention_mask"].bool()
    assert_close(found.logits[valid], expected.logits[valid], atol=1e-4, rtol=0)
    assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_only(pair):
    theirs, ours = pair
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_legacy_prompts_expand_as_in_the_reference(plain, side):
    theirs, ours = plain
    ids = torch.tensor([[5, 6, AUDIO_ID, 7, AUDIO_ID, 8], [0, 0, 9, AUDIO_ID, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    if side == "right":
        ids[1], mask[1] = ids[1].roll(-2), mask[1].roll(-2)
    features, feature_mask = features_of([60, 37, 22], bins(ours))
    labels = labels_of({"input_ids": ids, "attention_mask": mask})
    inputs = dict(
        input_ids=ids,
        attention_mask=mask,
        input_features=features,
        feature_attention_mask=feature_mask,
        labels=labels,
    )
    expected, found = theirs(**inputs), ours(**inputs)
    assert torch.equal(found.attention_mask, expected.attention_mask)
    valid = expected.attention_mask.bool()
    assert_close(found.logits[valid], expected.logits[valid], atol=1e-4, rtol=0)
    assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_loss_does_not_depend_on_the_padding_side(plain):
    _, ours = plain
    losses = []
    for side in ("left", "right"):
        inputs = batch_of(*ROWS["rows with and without"], bins(ours), side=side)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        losses.append(ours(**inputs, labels=labels).loss)
    assert_close(losses[0], losses[1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_hidden_states_and_attentions(plain):
    theirs, ours = plain
    ours.set_attn_implementation("eager")
    inputs = batch_of(*ROWS["two clips in a row"], bins(ours))
    want = dict(output_hidden_states=True, output_attentions=True)
    expected, found = theirs(**inputs, **want), ours(**inputs, **want)
    assert len(found.hidden_states) == len(expected.hidden_states)
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(a, b, atol=1e-4, rtol=0)
    for a, b in zip(found.attentions, expected.attentions, strict=True):
        assert_close(a, b, atol=1e-5, rtol=0)


def test_gradients_of_one_step(plain):
    theirs, ours = plain
    inputs = batch_of(*ROWS["batch of mixed lengths"], bins(ours))
    labels = labels_of(inputs)
    for model in plain:
        model.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
    pairs = {
        "conv1": (theirs.model.audio_tower.conv1, ours.audio_tower.conv1),
        "projector": (theirs.model.multi_modal_projector.linear, ours.multi_modal_projector.linear),
        "q_proj": (
            theirs.model.language_model.layers[0].self_attn.q_proj,
            ours.language_model.model.layers[0].self_attn.q_proj,
        ),
        "head": (theirs.lm_head, ours.language_model.lm_head),
    }
    for name, (a, b) in pairs.items():
        assert b.weight.grad.abs().max() > 0, name
        assert_close(b.weight.grad, a.weight.grad, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(plain, dtype):
    theirs, ours = plain
    inputs = batch_of(*ROWS["one clip"], bins(ours))
    wide = ours(**inputs).logits
    theirs.to(dtype), ours.to(dtype)
    try:
        expected, found = theirs(**inputs).logits.float(), ours(**inputs).logits.float()
    finally:
        theirs.float(), ours.float()
    tolerance = 0.1 if dtype is torch.bfloat16 else 0.02
    assert_close(found, expected, atol=tolerance, rtol=0)
    assert_close(found, wide, atol=tolerance, rtol=0)
