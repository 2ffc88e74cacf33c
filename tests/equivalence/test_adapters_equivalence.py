"""Rows of different adapters in a step of the engine: each answer is that of the checkpoint with the adapter loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import qwen2_audio as qa
from kit.adapters import EVERYWHERE, write_adapter
from kit.clip_files import tone
from kit.random_weights import randomize
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.quantize.linear import QuantizedLayer

PARAMS = qa.SamplingParams(max_tokens=24, temperature=0, logprobs=0)
NAMES = (None, "text", "everywhere", "ear", "head")
TARGETS = {
    "text": None,
    "everywhere": EVERYWHERE,
    "ear": {"encoder": "v_proj|fc2", "projector": "linear"},
    "head": {"language_model": "lm_head"},
}
QUESTIONS = [
    [qa.user("What?", audio=(tone(1.0), 16_000))],
    [qa.user("Hello there")],
    [qa.user("What is it now?", audio=[(tone(0.7, 300.0), 16_000), (tone(1.0), 16_000)])],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of nano's shape with random weights, whose answers depend on every position; and its adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    model = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    randomize(model)
    model.save_pretrained(folder / "base")
    Qwen2AudioProcessor.from_pretrained(qa.nano_path()).save_pretrained(folder / "base")
    for seed, (name, targets) in enumerate(TARGETS.items()):
        write_adapter(folder / "loras" / name, model, seed, targets=targets)
    return folder


def load(folder, quantize=None, **options):
    dtype = "float32" if quantize is None else "auto"
    return qa.load(folder / "base", device="cpu", dtype=dtype, quantize=quantize, **options)


@pytest.fixture(scope="module", params=["fp32", "int8", "int4"])
def served(request, folder):
    """The checkpoint with adapters by request; and what it answers alone: with the adapter merged into plain weights,
    or by request beside quantised ones, each conversation by itself."""
    quantize = None if request.param == "fp32" else request.param
    lonely, alone = load(folder, quantize, lora_folder=folder / "loras"), {}
    for name in NAMES:
        m = load(folder, adapter=None if name is None else folder / "loras" / name) if quantize is None else lonely
        options = {} if quantize is None else {"adapter": name}
        alone[name] = [m.chat(question, PARAMS, **options) for question in QUESTIONS]
    return load(folder, quantize, lora_folder=folder / "loras"), alone


def quantized(m):
    return any(isinstance(module, QuantizedLayer) for module in m.model.modules())


def logprobs(answer):
    return np.array([token.logprob for token in answer.logprobs])


def test_mixed_rows_are_each_what_they_are_alone(served):
    m, alone = served
    near = 1e-5 if quantized(m) else 1e-3
    pairs = [(number, name) for number in range(len(QUESTIONS)) for name in NAMES]
    conversations, adapters = [QUESTIONS[number] for number, _ in pairs], [name for _, name in pairs]
    for _ in range(2):  # the second time from the prefix cache and the encoder cache
        answers = m.batch(conversations, PARAMS, adapters=adapters)
        for (number, name), answer in zip(pairs, answers, strict=True):
            assert answer.text == alone[name][number].text, (number, name)
            np.testing.assert_allclose(logprobs(answer), logprobs(alone[name][number]), atol=near)
    assert all(answer.usage.cached_tokens > 0 for answer in answers)
    for number in range(len(QUESTIONS)):
        said = {alone[name][number].text for name in NAMES if name != "ear" or number != 1}
        assert len(said) == len(NAMES) - (number == 1), "each adapter says something; the ear's not without a clip"


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_beside_quantised_weights_it_is_the_adapter_that_was_attached(folder, quantize):
    """Kernels round their inputs to 8 bits there, which makes more of a last bit: probabilities are near, not equal."""
    m = load(folder, quantize, lora_folder=folder / "loras")
    for name in ("text", "everywhere"):
        attached = load(folder, quantize, adapter=folder / "loras" / name)
        for question in QUESTIONS:
            first = attached.chat(question, PARAMS).logprobs[0]
            found = m.chat(question, PARAMS, adapter=name).logprobs[0]
            assert first.token == found.token and abs(first.logprob - found.logprob) < 0.1
            base = m.chat(question, PARAMS).logprobs[0]
            assert abs(base.logprob - found.logprob) > 0.15 or base.token != found.token


def test_the_base_is_computed_as_if_there_were_no_adapters(served, folder):
    """Bit by bit: by the same kernels, since no hook stays behind."""
    m, _ = served
    fresh = qa.AudioChat(m.model, m.processor, replace(m.settings, enable_prefix_caching=False))
    for question in QUESTIONS:
        before, _, after = (fresh.chat(question, PARAMS, adapter=name) for name in (None, "everywhere", None))
        assert logprobs(before).tolist() == logprobs(after).tolist()
    assert not any(module._forward_hooks for module in m.model.modules())


def test_several_answers_and_a_stream(served):
    m, alone = served
    text = "".join(chunk.text for chunk in m.stream(QUESTIONS[0], PARAMS, adapter="everywhere"))
    assert text == alone["everywhere"][0].text == m.with_adapter("everywhere").chat(QUESTIONS[0], PARAMS).text
    two = replace(PARAMS, n=2)
    assert {one.text for one in m.service().with_adapter("text").submit(QUESTIONS[1], two).completions()} == {
        alone["text"][1].text
    }
    assert m.chat(QUESTIONS[0], PARAMS).text == alone[None][0].text


def test_embeddings_and_decisions(folder):
    m, merged = load(folder, lora_folder=folder / "loras"), load(folder, adapter=folder / "loras" / "everywhere")
    adapted, sound = m.with_adapter("everywhere"), (tone(1.0), 16_000)
    for source in ("language_model", "encoder", "projector"):
        vector, expected, base = (one.embed([sound], source=source)[0] for one in (adapted, merged, m))
        np.testing.assert_allclose(vector, expected, atol=1e-4)
        assert np.abs(base - vector).max() > 1e-3
    question = {"question": "Is it a dog?", "choices": ["a dog", "a cat"]}
    decided, expected = (one.decide(sound, question) for one in (adapted, merged))
    np.testing.assert_allclose(decided.probabilities, expected.probabilities, atol=1e-4)


@pytest.mark.parametrize("options", [{"draft": True}, {"lookup": True}], ids=["draft model", "prompt lookup"])
def test_speculative_decoding_verifies_with_the_adapter(folder, options):
    m = load(folder, lora_folder=folder / "loras", **({"draft": folder / "base"} if "draft" in options else {}))
    if "lookup" in options:
        m.settings = replace(m.settings, num_prompt_lookup_tokens=4)
    plain = load(folder, lora_folder=folder / "loras")
    for name in NAMES:
        (answer,) = m.batch(QUESTIONS[:1], PARAMS, adapters=name)
        assert answer.text == plain.chat(QUESTIONS[0], PARAMS, adapter=name).text
    if "draft" in options:
        stats = m.service().stats()
        assert stats.draft_tokens_proposed > 0 and stats.draft_failures == 0


def test_more_adapters_than_fit_take_turns(folder):
    m = load(folder, lora_folder=folder / "loras", max_loras=1)
    names = ["text", "everywhere", None, "head", "text", "everywhere"]
    answers = m.batch([QUESTIONS[1]] * len(names), PARAMS, adapters=names)
    plain = load(folder, lora_folder=folder / "loras")
    expected = plain.batch([QUESTIONS[1]] * len(names), PARAMS, adapters=names)
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert m.service().stats().adapters_loaded == 1 and plain.service().stats().adapters_loaded == 3
