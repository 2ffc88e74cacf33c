"""The engine gives the tokens that `generate` gives, whatever a request is batched with and however it is computed."""

import random
import time

import numpy as np
import pytest
import torch

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle, completions_of
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.messages import assistant, system, user
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.types import Heard, SamplingParams

NEW = 48  # more than a block, so that room runs out on the way


@pytest.fixture(scope="module", params=["fp32", "int8", "int4"])
def loaded(request, tiny_random):
    """A random model with sharp distributions, in three formats; tokenizer."""
    folder, processor = tiny_random
    quantize = None if request.param == "fp32" else request.param
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, quantize=quantize), processor.tokenizer


@pytest.fixture(scope="module")
def tiny_random(tmp_path_factory):
    """nano's tokenizer and shape, random weights: its answers depend on every position, and seldom end early."""
    import qwen2_audio as qa

    processor = Qwen2AudioProcessor.from_pretrained(qa.nano_path())
    model = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.6 / parameter.shape[-1] ** 0.5)
    ends = ("<|im_end|>", processor.tokenizer.eos_token)
    model.generation_config.eos_token_id = [processor.tokenizer.convert_tokens_to_ids(end) for end in ends]
    folder = tmp_path_factory.mktemp("random")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, processor


def sound(frames, seed):
    rng = np.random.default_rng(seed)
    needed = 2 * (-(-frames // 2)) + 2
    return (rng.standard_normal((128, needed)) * 0.3).astype(np.float32)


def prompt_of(tokenizer, seed, clips=(), words=6):
    """A prompt of random words and clips of so many mel frames."""
    rng = random.Random(seed)
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    ids = [rng.randrange(20, 400) for _ in range(words)]
    heard = []
    for frames in clips:
        ids += [audio] * num_audio_tokens(frames) + [rng.randrange(20, 400) for _ in range(3)]
        heard.append(Heard(frames / 100, num_audio_tokens(frames)))
    return Prompt(ids, [sound(f, f) for f in clips], list(clips), tuple(heard))


def alone(model, prompt, **options):
    """What `generate` says: the specification."""
    inputs = to_tensors([prompt], 0)
    out = model.generate(**inputs, **{"max_new_tokens": NEW, "do_sample": False, **options})
    return out[0, len(prompt.ids) :].tolist()


def run(engine, asked):
    """asked: (prompt, params) pairs, all at once -> tokens of each one's answers."""
    handles = [RequestHandle(params.n, engine.cancel) for _, params in asked]
    for (prompt, params), handle in zip(asked, handles, strict=True):
        engine.submit(prompt, params, handle)
    return finish(engine, handles)


def finish(engine, handles):
    started = time.monotonic()
    while not engine.idle:
        engine.step()
        assert time.monotonic() - started < 120
    return [[[one.token for one in c.logprobs] for c in handle.completions()] for handle in handles]


def greedy(**more):
    return SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, **more)


PROMPTS = [(1, (180,), 5), (2, (), 9), (3, (90, 300), 4), (4, (61,), 40), (5, (420,), 3), (6, (), 70), (7, (33,), 6)]


@pytest.fixture(scope="module")
def specified(loaded):
    """The prompts, and what `generate` says to each of them alone."""
    model, tokenizer = loaded
    asked = [prompt_of(tokenizer, seed, clips, words) for seed, clips, words in PROMPTS]
    expected = [alone(model, prompt) for prompt in asked]
    assert len({tuple(tokens) for tokens in expected}) == len(asked), "equal answers would prove little"
    return asked, expected


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(kv_tokens=4096),
        EngineSettings(kv_tokens=4096, max_num_batched_tokens=17),
        EngineSettings(kv_tokens=4096, max_num_seqs=2),
        EngineSettings(kv_tokens=4096, num_prompt_lookup_tokens=3),
        EngineSettings(kv_tokens=4096, max_num_batched_tokens=40, num_prompt_lookup_tokens=5, max_num_seqs=3),
    ],
    ids=["together", "chunked", "two at a time", "guessing", "all of it"],
)
def test_engine_equals_generate(loaded, specified, settings):
    asked, expected = specified
    engine = Engine(*loaded, settings)
    found = run(engine, [(prompt, greedy()) for prompt in asked])
    assert [answers[0] for answers in found] == expected
    assert engine._scheduler.block_manager.used == 0 and engine._encoder_cache._users == {}


def test_who_is_sent_back_for_want_of_memory_says_the_same(loaded):
    model, tokenizer = loaded
    asked = [prompt_of(tokenizer, seed, (), 30) for seed in range(4)]  # a block each, and soon a second and a third
    expected = [alone(model, prompt) for prompt in asked]
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=32 * 8))
    found = run(engine, [(prompt, greedy()) for prompt in asked])
    assert [answers[0] for answers in found] == expected
    assert engine.stats.preemptions > 0


def test_requests_that_join_and_leave_do_not_disturb_each_other(loaded, specified):
    (model, tokenizer), (asked, expected) = loaded, specified
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048, max_num_batched_tokens=48))
    handles, rng = [], random.Random(3)
    for prompt in asked:
        handles.append(RequestHandle(1, engine.cancel))
        engine.submit(prompt, greedy(), handles[-1])
        noise = RequestHandle(1, engine.cancel)
        engine.submit(prompt_of(tokenizer, 100 + len(handles), (77,)), greedy(), noise)
        for _ in range(rng.randrange(1, 6)):
            engine.step()
        noise.cancel()
        assert [chunk.finish_reason for chunk in noise][-1] in ("cancelled", "length")
    assert [answers[0] for answers in finish(engine, handles)] == expected


def test_what_is_in_the_cache_changes_nothing_but_the_work(loaded):
    model, tokenizer = loaded
    first = prompt_of(tokenizer, 2, (180,), 5)
    expected = alone(model, first)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096))
    ((answer,),) = run(engine, [(first, greedy())])
    assert answer == expected
    work = engine.stats.prefill_tokens
    handle = RequestHandle(1, engine.cancel)
    engine.submit(first, greedy(), handle)
    ((again,),) = finish(engine, [handle])
    assert again == expected
    assert engine.stats.prefill_tokens - work == 1, "only the last position is computed again"
    # The next turn: the whole first turn is known, the answer's last token excepted.
    second = Prompt([*first.ids, *expected, 33, 34, 35], first.clips, first.frames, first.heard)
    handle = RequestHandle(1, engine.cancel)
    work, encoded = engine.stats.prefill_tokens, engine.stats.clips_encoded
    engine.submit(second, greedy(), handle)
    ((answer,),) = finish(engine, [handle])
    assert answer == alone(model, second)
    assert engine.stats.prefill_tokens - work == 4
    assert engine.stats.clips_encoded == encoded == 1


def test_a_seed_gives_one_answer_alone_and_in_any_company(loaded):
    model, tokenizer = loaded
    drawn = SamplingParams(temperature=1.2, top_k=50, max_tokens=NEW, seed=7, logprobs=0)
    prompt = prompt_of(tokenizer, 3, (90,), 8)
    expected = alone(model, prompt, do_sample=True, temperature=1.2, top_k=50, seed=7)
    others = [(prompt_of(tokenizer, seed, clips, words), greedy()) for seed, clips, words in PROMPTS]
    found = run(Engine(model, tokenizer, EngineSettings(kv_tokens=4096)), [*others, (prompt, drawn)])
    assert found[-1][0] == expected
    assert (
        run(Engine(model, tokenizer, EngineSettings(kv_tokens=4096, num_prompt_lookup_tokens=3)), [(prompt, drawn)])[0][
            0
        ]
        == expected
    )


def test_penalties_are_those_of_generate(loaded):
    model, tokenizer = loaded
    prompt = prompt_of(tokenizer, 3, (90,), 8)
    params = greedy(repetition_penalty=1.4, min_tokens=4)
    expected = alone(model, prompt, repetition_penalty=1.4, min_new_tokens=4)
    assert run(Engine(model, tokenizer, EngineSettings(kv_tokens=1024)), [(prompt, params)])[0][0] == expected


def test_several_answers_share_the_prompt(loaded):
    model, tokenizer = loaded
    prompt = prompt_of(tokenizer, 1, (180,), 5)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048))
    drawn = SamplingParams(temperature=1.0, max_tokens=NEW, seed=3, logprobs=0, n=3)
    (answers,) = run(engine, [(prompt, drawn)])
    assert len({tuple(tokens) for tokens in answers}) == 3
    expected = [alone(model, prompt, do_sample=True, temperature=1.0, seed=3 + i, top_k=50) for i in range(3)]
    assert answers == expected
    assert engine.stats.prefill_tokens <= len(prompt.ids) + 2


def test_an_engine_answers_a_real_conversation(nano_engine):
    """With the bundled checkpoint: text, usage, the sound heard; a second turn."""
    import qwen2_audio as qa

    service, clip = nano_engine
    messages = [system("You are a helpful assistant."), user("What is that sound?", audio=clip)]
    (first,) = service.submit(messages, SamplingParams(temperature=0)).completions()
    expected = qa.load().chat(messages, SamplingParams(temperature=0))
    assert (first.text, first.finish_reason, first.heard) == (expected.text, "stop", expected.heard)
    assert first.usage == expected.usage
    more = [*messages, assistant(first.text), user("Is anybody speaking?")]
    chunks = list(service.submit(more, SamplingParams(temperature=0)))
    (second,) = completions_of(chunks, 1)
    assert second.text == qa.load().chat(more, SamplingParams(temperature=0)).text
    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1


@pytest.fixture(scope="module")
def nano_engine():
    import qwen2_audio as qa
    from qwen2_audio.api.service import Service

    chat = qa.load()
    service = Service(chat.model, chat.processor, EngineSettings(kv_tokens=4096))
    yield service, qa.nano_path() / "clips" / "dog.wav"
    service.close()
