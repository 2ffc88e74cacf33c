"""What the forward pass refuses, and the figures of the published fixture."""

import pytest
import torch
from torch.testing import assert_close

from kit.tiny import tiny_dict
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.errors import AudioError, ConfigError, PromptError
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration

CONFIG = tiny_dict(text={"num_key_value_heads": 4, "rms_norm_eps": 1e-5})


@pytest.fixture(scope="module")
def model():
    """Weights 0.2 sin(0.7 k + i): element k of the i-th tensor by name, one more for norm weights."""
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(**CONFIG)).eval()
    state = {}
    for i, name in enumerate(sorted(dict(model.named_parameters()))):
        parameter = model.get_parameter(name)
        k = torch.arange(parameter.numel(), dtype=torch.float64)
        state[name] = (0.2 * torch.sin(0.7 * k + i)).float().view_as(parameter)
        if "norm" in name and name.endswith("weight"):
            state[name] += 1.0
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def inputs():
    j, t = torch.arange(8.0)[:, None] + 1, torch.arange(60.0)[None]
    feature_mask = (torch.arange(60) < torch.tensor([[60], [37]])).int()
    ids = torch.tensor([[5, 6] + [63] * 15 + [7, 8], [0] * 7 + [9] + [63] * 9 + [10, 11]])
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    return dict(
        input_ids=ids,
        attention_mask=mask,
        input_features=torch.stack([torch.sin(0.05 * t * j), torch.cos(0.03 * t * j)]),
        feature_attention_mask=feature_mask,
    )


@torch.no_grad()
def test_the_fixture(model, inputs):
    audio, tokens = model.encode_audio(inputs["input_features"], inputs["feature_attention_mask"])
    assert tokens == [15, 9]
    close = dict(atol=2e-6, rtol=0)
    assert_close(audio[0, :4], torch.tensor([0.129177, -0.433231, -0.090200, 0.518534]), **close)
    assert_close(audio[-1, :4], torch.tensor([-0.233654, 0.176249, 0.520086, 0.156836]), **close)
    assert_close(audio[:15].sum(), torch.tensor(4.496965785), atol=1e-4, rtol=0)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    out = model(**inputs, labels=labels)
    assert_close(out.loss, torch.tensor(4.752063274), atol=2e-6, rtol=0)
    assert_close(out.logits[0, 0, :4], torch.tensor([0.516949, -0.377481, 0.175788, 0.054883]), **close)
    assert out.logits[:, -1].argmax(-1).tolist() == [42, 52]
    assert_close(out.logits[:, -1].max(-1).values, torch.tensor([0.818985, 0.404382]), **close)


@torch.no_grad()
def test_decode_equals_the_whole(model, inputs):
    whole = model(**inputs).logits
    cut = {**inputs, "input_ids": inputs["input_ids"][:, :-1], "attention_mask": inputs["attention_mask"][:, :-1]}
    first = model(**cut)
    last = model(
        input_ids=inputs["input_ids"][:, -1:],
        attention_mask=inputs["attention_mask"],
        past_key_values=first.past_key_values,
    )
    assert_close(last.logits[:, -1], whole[:, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_logits_to_keep(model, inputs):
    whole = model(**inputs).logits
    assert_close(model(**inputs, logits_to_keep=1).logits, whole[:, -1:], atol=1e-6, rtol=0)
    chosen = model(**inputs, logits_to_keep=torch.tensor([3, 18])).logits
    assert_close(chosen[:, 0], whole[torch.arange(2), torch.tensor([3, 18])], atol=1e-6, rtol=0)


@torch.no_grad()
def test_outputs_answer_by_name_key_index_and_tuple(model, inputs):
    out = model(**inputs, use_cache=False)
    assert out["logits"] is out.logits is out[0]
    assert list(out.keys()) == ["logits", "attention_mask"]
    with pytest.raises(KeyError):
        out["loss"]
    assert torch.equal(model(**inputs, use_cache=False, return_dict=False)[0], out.logits)


@torch.no_grad()
def test_outputs_are_mappings_of_what_is_there(model, inputs):
    out = model(**inputs, use_cache=False)
    assert "logits" in out
    assert "loss" not in out
    assert list(out) == list(dict(out)) == [name for name, _ in out.items()] == ["logits", "attention_mask"]
    assert len(out) == len(out.values()) == 2
    assert out.get("loss") is None
    assert out.get("logits") is out.logits


@torch.no_grad()
def test_a_clip_without_any_frame_is_passed_over(model, inputs):
    """An empty row of features beside others: no sound, no positions, no error."""
    frames = torch.stack([inputs["feature_attention_mask"][0], torch.zeros(60, dtype=torch.int32)])
    row = {"input_ids": inputs["input_ids"][:1], "attention_mask": inputs["attention_mask"][:1]}
    both = model(**row, input_features=inputs["input_features"], feature_attention_mask=frames)
    alone = model(**row, input_features=inputs["input_features"][:1], feature_attention_mask=frames[:1])
    assert_close(both.logits, alone.logits, atol=1e-6, rtol=0)


def test_the_feature_mask_may_have_any_dtype():
    """2999 is no number of bf16: a mask cast with the features must still be counted right."""
    config = CONFIG | {"audio_config": CONFIG["audio_config"] | {"max_source_positions": 1500}}
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(**config)).eval()
    mask = (torch.arange(3000) < 2999).bfloat16()[None]
    assert model.encode_audio(torch.zeros(1, 8, 3000), mask)[1] == [750]


def test_no_cache_is_kept_while_training(model, inputs):
    model.train()
    try:
        assert model(**inputs).past_key_values is None
    finally:
        model.eval()
    assert model(**inputs).past_key_values.length == 19


REFUSED = {
    "lists": ({"input_ids": [[1, 2]]}, PromptError, "input_ids is a list; expected a tensor: make it with"),
    "nothing": ({"input_ids": None}, PromptError, "exactly one of input_ids and inputs_embeds"),
    "deaf": (
        {"input_features": None},
        PromptError,
        "has 24 audio placeholders but no input_features: the model would not hear",
    ),
    "no feature mask": ({"feature_attention_mask": None}, PromptError, "came without feature_attention_mask"),
    "mel bins": ({"input_features": torch.zeros(2, 9, 60)}, AudioError, r"shape \[2, 9, 60\]; expected \[clips, 8,"),
    "rows": ({"feature_attention_mask": torch.ones(1, 60)}, AudioError, "has 1 rows for 2 clips"),
    "cut features": (
        {"input_features": torch.zeros(2, 8, 40)},
        AudioError,
        "have 40 mel frames, but clips of up to 60 valid frames need 60",
    ),
    "mask": ({"attention_mask": torch.ones(2, 5)}, PromptError, r"attention_mask is \[2, 5\]; expected \[2, 19\]"),
    "attentions": ({"output_attentions": True}, ConfigError, "output_attentions needs attn_implementation='eager'"),
    "labels": (
        {"labels": torch.zeros(2, 5, dtype=torch.long)},
        PromptError,
        r"labels is \[2, 5\]; expected \[2, 19\], as input_ids",
    ),
    "one kept and trained": (
        {"labels": torch.zeros(2, 19, dtype=torch.long), "logits_to_keep": torch.tensor([1, 1])},
        ConfigError,
        "labels need the logits of all positions",
    ),
    "kept and trained": (
        {"labels": torch.zeros(2, 19, dtype=torch.long), "logits_to_keep": 1},
        ConfigError,
        "labels need the logits of all positions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_words(model, inputs, case):
    change, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        model(**{**inputs, **change})


@torch.no_grad()
def test_a_mask_of_the_new_positions_alone_is_refused(model, inputs):
    """All ones and too short, it would unhide the padding that the cache holds."""
    past = model(**inputs).past_key_values
    with pytest.raises(ConfigError, match=r"attention_mask covers 1 positions; expected 20 \(19 cached and 1 new\)"):
        model(input_ids=torch.tensor([[5], [6]]), attention_mask=torch.ones(2, 1), past_key_values=past)


def test_the_encoder_names_the_length_it_wants(model):
    with pytest.raises(AudioError, match="features of length 60, but found 50"):
        model.audio_tower(torch.zeros(1, 8, 50))


def test_official_shape_without_weights():
    """876 tensors and 8,397,094,912 parameters, as published; built on the meta device, so it costs nothing."""
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(
                text_config=dict(
                    vocab_size=156032, intermediate_size=11008, max_position_embeddings=8192, rms_norm_eps=1e-5
                )
            )
        )
    parameters = dict(model.named_parameters())
    assert len(parameters) == 876
    assert sum(p.numel() for p in parameters.values()) == 8_397_094_912
    assert "audio_tower.layers.0.self_attn.k_proj.bias" not in parameters
    assert "language_model.model.layers.31.self_attn.k_proj.bias" in parameters
    assert not model.audio_tower.embed_positions.weight.requires_grad


def test_a_clip_of_a_second_turn_is_heard_over_a_cache(model, inputs):
    """Two passes, the second with a clip of its own, are one; a turn whose clip is not there is refused."""
    clips = [inputs["input_features"][:1], inputs["input_features"][:1].flip(2) * 0.5]
    masks = [inputs["feature_attention_mask"][:1]] * 2
    turns = [torch.tensor([[3, 63, 4]]), torch.tensor([[5, 63, 6, 7]])]
    with torch.no_grad():
        expected = model(
            input_ids=torch.cat(turns, 1),
            input_features=torch.cat(clips),
            feature_attention_mask=torch.cat(masks),
        )
        first = model(input_ids=turns[0], input_features=clips[0], feature_attention_mask=masks[0], use_cache=True)
        second = {"input_ids": turns[1], "past_key_values": first.past_key_values}
        with pytest.raises(PromptError, match="1 audio placeholders but no input_features"):
            model(**second)
        out = model(**second, input_features=clips[1], feature_attention_mask=masks[1])
    assert_close(out.logits[:, -4:], expected.logits[:, -4:], atol=1e-5, rtol=1e-5)
