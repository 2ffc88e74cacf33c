"""Quantised nano with native layers against itself without: the same tokens, however they are asked for."""

import copy

import pytest
import torch
from torch import nn

import qwen2_audio as qa
from qwen2_audio.model.paged import PagedAttentionBatch
from qwen2_audio.native import fused
from qwen2_audio.native.install import accelerate
from qwen2_audio.quantize.linear import QuantizedLinear
from qwen2_audio.quantize.scheme import Scheme, replace
from qwen2_audio.quantize.search import quantize_linear

CLIPS = ["dog", "bell", "rain", "glass"]
SEARCHES = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "beams, all answers": {"num_beams": 3, "num_return_sequences": 3},
    "penalised": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    "sampled": {"do_sample": True, "seed": 3, "temperature": 1.5},
}
every_search = pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture(scope="module")
def nano():
    """nano in fp32 and its processor."""
    model = qa.Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    return model, qa.AutoProcessor.from_pretrained(qa.nano_path())


@pytest.fixture(scope="module", params=["int4", "int8"])
def pair(request, nano):
    """nano quantised without native layers, and with them and a float16 cache."""
    if fused.kernels() is None:
        pytest.skip("there are no native kernels here")
    plain = copy.deepcopy(nano[0])
    for path, form in Scheme.for_model(plain, request.param).modules.items():
        linear = plain.get_submodule(path)
        if isinstance(linear, nn.Linear):
            new = QuantizedLinear(linear.in_features, linear.out_features, form, bias=linear.bias is not None)
            new.set_weight(quantize_linear(linear.weight.detach(), form))
            new.bias = None if linear.bias is None else linear.bias.detach().clone()
            replace(plain, path, new.eval())
    native = copy.deepcopy(plain)
    assert accelerate(native) == 8
    return plain, native


@pytest.fixture(scope="module")
def inputs(nano):
    """inputs("dog", "bell", side="left") -> a padded batch of questions of unlike lengths."""
    processor = nano[1]

    def make(*names, side="left"):
        texts, sounds = [], []
        for name in names:
            question = "What is that sound?" if CLIPS.index(name) % 2 else "Describe what you hear in this clip."
            content = [{"type": "audio", "audio_url": name}, {"type": "text", "text": question}]
            chat = [{"role": "user", "content": content}]
            texts.append(processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
            sounds.append(qa.audio.load(qa.nano_path() / "clips" / f"{name}.wav"))
        processor.tokenizer.padding_side = side
        return processor(text=texts, audio=sounds, return_tensors="pt", padding=True)

    return make


def answers(model, inputs, **options):
    """New tokens of each row, up to the end of text."""
    end = model.config.text_config.eos_token_id
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": end, **options}
    rows = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


@every_search
def test_tokens_with_native_layers_equal_those_without(pair, inputs, options):
    plain, native = pair
    for name in CLIPS:
        assert answers(native, inputs(name), **options) == answers(plain, inputs(name), **options)


@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_tokens_do_not_depend_on_the_cache_s_format(pair, inputs, kv_cache):
    plain, native = pair
    other = copy.deepcopy(native)
    accelerate(other, kv_cache)
    assert answers(other, inputs(*CLIPS)) == answers(plain, inputs(*CLIPS))


@every_search
def test_batched_equals_alone(pair, inputs, options):
    if options.get("do_sample"):
        pytest.skip("each row of a batch draws its own numbers")
    native = pair[1]
    alone = [answer for name in CLIPS for answer in answers(native, inputs(name), **options)]
    assert answers(native, inputs(*CLIPS), **options) == alone
    assert len({tuple(answer) for answer in alone}) >= len(CLIPS)


def test_more_rows_than_one_call_takes(pair, inputs):
    native = pair[1]
    alone = [answer for name in CLIPS for answer in answers(native, inputs(name))]
    assert answers(native, inputs(*CLIPS, *CLIPS, *CLIPS)) == alone * 3


@every_search
def test_padded_right_equals_padded_left(pair, inputs, options):
    native = pair[1]
    left, right = (answers(native, inputs(*CLIPS, side=side), **options) for side in ("left", "right"))
    assert left == right


@pytest.mark.parametrize("guesses", [1, 4, 12])
def test_lookup_equals_plain_decoding(pair, inputs, guesses):
    """Several new positions a step, and a cache cut back where guesses were wrong."""
    native = pair[1]
    for name in CLIPS[:2]:
        options = {"max_new_tokens": 40, "eos_token_id": None}
        expected = answers(native, inputs(name), **options)
        assert answers(native, inputs(name), prompt_lookup_num_tokens=guesses, **options) == expected


def test_cached_equals_computed_anew(pair, inputs):
    native = pair[1]
    assert answers(native, inputs(*CLIPS), use_cache=False) == answers(native, inputs(*CLIPS))


def test_threads_change_no_token(pair, inputs):
    native, before, results = pair[1], torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(answers(native, inputs(*CLIPS)))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_a_decode_step_is_one_call(pair, inputs, monkeypatch):
    native, seen, layers_ = pair[1], [], fused.layers_
    monkeypatch.setattr(fused, "layers_", lambda *args: seen.append(args[2]) or layers_(*args))
    answers(native, inputs(*CLIPS), max_new_tokens=5, eos_token_id=None)
    assert seen == [4] * 4


@pytest.mark.parametrize("kv_cache", ["float16", "int8"])
def test_packed_passes_give_the_bits_of_each_question_alone(pair, inputs, kv_cache):
    """The prompts of four questions in pieces of 100 positions together, then ten tokens of each together."""
    native = copy.deepcopy(pair[1])
    accelerate(native, kv_cache)
    language, storage = native.language_model, native.language_model.new_paged(64)
    embed = language.model.embed_tokens
    prompts, tables, alone = [], [], []
    for i, name in enumerate(CLIPS):
        ids = inputs(name)["input_ids"]
        prompts.append(torch.cat((ids, ids[:, -10:]), 1))
        tables.append(list(range(i, 64, 4)))
        cache = native.new_cache(1)
        with torch.no_grad():
            whole = language(inputs_embeds=embed(ids), past_key_values=cache).logits
            steps = [
                language(inputs_embeds=embed(ids[:, -10 + n, None]), past_key_values=cache).logits for n in range(10)
            ]
        alone.append(torch.cat((whole, *steps), 1)[0])
    done, found = [0] * 4, [[] for _ in CLIPS]
    while any(done[i] < prompts[i].shape[1] for i in range(4)):
        left = [prompts[i].shape[1] - 10 - done[i] for i in range(4)]
        running = [i for i in range(4) if left[i] > -10]
        counts = [min(100, left[i]) if left[i] > 0 else 1 for i in running]
        step = PagedAttentionBatch(storage, [tables[i] for i in running], [done[i] for i in running], counts)
        new = [prompts[i][:, done[i] : done[i] + n] for i, n in zip(running, counts, strict=True)]
        with torch.no_grad():
            out = language(inputs_embeds=embed(torch.cat(new, 1)), position_ids=step.positions, past_key_values=step)
        for i, n, logits in zip(running, counts, out.logits[0].split(counts), strict=True):
            done[i] += n
            found[i].append(logits)
    assert all(torch.equal(torch.cat(a), b) for a, b in zip(found, alone, strict=True))


def test_logits_with_native_layers_stay_near_those_without(pair, inputs):
    """Of the whole prompt: within 5 % of the largest in the worst case, 0.5 % on average."""
    plain, native = pair
    with torch.no_grad():
        found, expected = (model(**inputs("dog")).logits for model in (native, plain))
    difference, largest = (found - expected).abs(), float(expected.abs().max())
    assert float(difference.max()) < 0.05 * largest and float(difference.mean()) < 0.005 * largest
