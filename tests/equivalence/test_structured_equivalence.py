"""An answer that is held to a schema or a grammar is the one that `generate` gives with the mask of every token.

Whatever it is batched with, however it is computed; and where the free answer fits, it is the free answer.
"""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pytest

import qwen2_audio as qa
from kit.random_weights import randomize
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.engine.structured.constrained_sampler import logits_processor
from qwen2_audio.engine.structured.grammar import Matcher
from qwen2_audio.errors import ConfigError
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt, build_prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.types import Heard, SamplingParams

pytest.importorskip("llguidance")

NEW = 40
SOUNDS = ["dog", "rain", "glass breaking"]
SCHEMA = {
    "type": "object",
    "properties": {
        "sound_that_was_heard": {"enum": SOUNDS},
        "seconds": {"type": "integer", "minimum": 0, "maximum": 30},
        "words": {"type": "string", "maxLength": 8},
    },
    "required": ["sound_that_was_heard", "seconds", "words"],
    "additionalProperties": False,
}
HELD = {
    "schema": {"json_schema": SCHEMA},
    "regex": {"regex": "[a-z]{3,9}( [a-z]{2,9}){0,4}[.!]"},
    "choice": {"choice": ("a dog barks", "a dog", "rain")},
    "triggered": {"grammar": 'start: "e" /[0-9]{3}/ "!"', "trigger": "e"},
    "grammar": {"grammar": 'start: "[" item ("," item)* "]"\nitem: /[0-9]{1,4}/ | "dog" | "cat"'},
}


@pytest.fixture(scope="module")
def loaded():
    """nano's tokenizer and shape with random weights: no answer of its own is JSON."""
    processor = Qwen2AudioProcessor.from_pretrained(qa.nano_path())
    model = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    randomize(model)
    ends = ("<|im_end|>", processor.tokenizer.eos_token)
    model.generation_config.eos_token_id = [processor.tokenizer.convert_tokens_to_ids(end) for end in ends]
    return model, processor.tokenizer


def prompt_of(tokenizer, seed, clips=(), words=6):
    rng, samples = random.Random(seed), np.random.default_rng(seed)
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    ids = [rng.randrange(20, 400) for _ in range(words)]
    for frames in clips:
        ids += [audio] * num_audio_tokens(frames) + [rng.randrange(20, 400) for _ in range(3)]
    mels = [(samples.standard_normal((128, 2 * (-(-f // 2)) + 2)) * 0.3).astype(np.float32) for f in clips]
    return Prompt(ids, mels, list(clips), tuple(Heard(f / 100, num_audio_tokens(f)) for f in clips))


def alone(loaded, prompt, params, **options):
    """What `generate` says with the mask at every token: the specification."""
    model, tokenizer = loaded
    held = [logits_processor(model, tokenizer, params)] if params.constraint else []
    options = {"max_new_tokens": params.max_tokens, "do_sample": False, **options}
    out = model.generate(**to_tensors([prompt], 0), logits_processor=held, **options)
    return out[0, len(prompt.ids) :].tolist()


def run(engine, asked):
    """asked: (prompt, params) pairs, all at once -> the tokens of each one's answers, and their completions."""
    handles = [RequestHandle(params.n, engine.cancel) for _, params in asked]
    for (prompt, params), handle in zip(asked, handles, strict=True):
        engine.submit(prompt, params, handle)
    started = time.monotonic()
    while not engine.idle:
        engine.step()
        assert time.monotonic() - started < 120
    found = [handle.completions() for handle in handles]
    return [[[one.token for one in answer.logprobs] for answer in answers] for answers in found], found


def greedy(**more):
    return SamplingParams(**{"temperature": 0, "max_tokens": NEW, "logprobs": 0, **more})


def valid(kind, text):
    if kind == "schema":
        value = json.loads(text)
        return list(value) == list(SCHEMA["properties"]) and value["sound_that_was_heard"] in SOUNDS
    return text in HELD["choice"]["choice"] if kind == "choice" else bool(text)


@pytest.fixture(scope="module")
def specified(loaded):
    """A request of each kind and a free one, and what `generate` says to each of them alone."""
    asked = []
    for number, (kind, held) in enumerate([*HELD.items(), ("free", {}), *HELD.items()]):
        clips = [(61,), (), (90, 180)][number % 3]
        asked.append((kind, prompt_of(loaded[1], number, clips, 4 + 7 * number), greedy(**held)))
    expected = [alone(loaded, prompt, params) for _, prompt, params in asked]
    assert len({tuple(tokens) for tokens in expected}) >= 7, "equal answers would prove little"
    return asked, expected


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_batched_tokens": 17},
        {"num_prompt_lookup_tokens": 4, "max_num_seqs": 3},
    ],
    ids=["together", "chunked", "guessing"],
)
def test_the_engine_says_what_generate_says(loaded, specified, settings):
    asked, expected = specified
    engine = Engine(*loaded, EngineSettings(**{"kv_tokens": 4096, **settings}))
    found, completions = run(engine, [(prompt, params) for _, prompt, params in asked])
    assert [answers[0] for answers in found] == expected
    for (kind, _, _), (completion,) in zip(asked, completions, strict=True):
        assert completion.finish_reason in ("stop", "length")
        assert completion.finish_reason == "length" or kind == "free" or valid(kind, completion.text)
    assert sum(completion.finish_reason == "stop" for (completion,) in completions) >= 6
    assert engine._forced_tokens.matchers == {} and engine._scheduler.block_manager.used == 0


def test_who_is_sent_back_for_want_of_memory_goes_on_where_it_was(loaded):
    asked = [(prompt_of(loaded[1], number, (), 30), greedy(regex="[a-z ]{120,}", max_tokens=48)) for number in range(4)]
    engine = Engine(*loaded, EngineSettings(kv_tokens=32 * 8))
    found, _ = run(engine, asked)
    assert [answers[0] for answers in found] == [alone(loaded, prompt, params) for prompt, params in asked]
    assert engine.stats.preemptions > 0


def test_forced_text_costs_no_pass_of_its_own(loaded):
    prompt, params = prompt_of(loaded[1], 3), greedy(json_schema=SCHEMA)
    engine = Engine(*loaded, EngineSettings(kv_tokens=1024))
    (((tokens,),), _) = run(engine, [(prompt, params)])
    assert engine.stats.steps < len(tokens)


@pytest.mark.parametrize("drafted", [False, True])
def test_a_draft_model_changes_nothing(loaded, specified, drafted):
    asked, expected = specified
    draft = loaded[0] if drafted else Qwen2AudioForConditionalGeneration(loaded[0].config).eval()
    engine = Engine(*loaded, EngineSettings(kv_tokens=4096, num_speculative_tokens=3), draft)
    found, _ = run(engine, [(prompt, params) for _, prompt, params in asked])
    assert [answers[0] for answers in found] == expected
    assert engine.stats.draft_tokens_proposed > 0


@pytest.mark.parametrize("more", [{}, {"num_prompt_lookup_tokens": 4}])
def test_drawn_answers_are_those_of_generate(loaded, more):
    options = {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.1}
    asked, expected = [], []
    for number, held in enumerate(HELD.values()):
        prompt = prompt_of(loaded[1], 20 + number, (61,) if number % 2 else ())
        params = SamplingParams(max_tokens=NEW, logprobs=0, seed=number, **options, **held)
        asked.append((prompt, params))
        expected.append(alone(loaded, prompt, params, do_sample=True, seed=number, **options))
    found, _ = run(Engine(*loaded, EngineSettings(kv_tokens=4096, **more)), asked)
    assert [answers[0] for answers in found] == expected


def test_several_answers_to_one_prompt(loaded):
    prompt, params = (
        prompt_of(loaded[1], 9, (61,)),
        SamplingParams(temperature=1.0, seed=4, n=4, max_tokens=NEW, logprobs=0, json_schema=SCHEMA),
    )
    ((answers,), ((completions),)) = run(Engine(*loaded, EngineSettings(kv_tokens=2048)), [(prompt, params)])
    assert len({tuple(tokens) for tokens in answers}) > 1
    for index, tokens in enumerate(answers):
        assert tokens == alone(loaded, prompt, params, do_sample=True, temperature=1.0, seed=4 + index)
    assert all(valid("schema", one.text) for one in completions if one.finish_reason == "stop")


def test_what_the_free_answer_fits_changes_nothing(loaded, monkeypatch):
    """Token for token, and drawn ones too; the matcher's mask is never made for a greedy one.

    With nano's own weights: what random ones say is no text at all.
    """
    nano = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    messages = [qa.user("What is that?", audio=qa.nano_path() / "clips" / "dog.wav")]
    prompt = build_prompt(messages, Qwen2AudioProcessor.from_pretrained(qa.nano_path()))
    made, allowed = [], Matcher.allowed
    monkeypatch.setattr(Matcher, "allowed", lambda self: made.append(self) or allowed(self))
    for params in (greedy(), SamplingParams(temperature=1.0, top_k=0, top_p=1.0, seed=3, max_tokens=NEW, logprobs=0)):
        engine = Engine(nano, loaded[1], EngineSettings(kv_tokens=1024))
        free, _ = run(engine, [(prompt, params)])
        names = ("temperature", "top_k", "top_p", "seed", "max_tokens", "logprobs")
        fields = {name: getattr(params, name) for name in names}
        counted = len(made)
        held, _ = run(engine, [(prompt, SamplingParams(**fields, regex=r"(?s:.*)"))])
        assert held == free
        assert (len(made) > counted) == bool(params.temperature)


def test_an_answer_that_may_not_end_yet_ends_where_its_grammar_does(loaded):
    """min_tokens asks for more than the grammar has: the grammar holds."""
    prompt, params = prompt_of(loaded[1], 12), greedy(choice=("dog",), min_tokens=20)
    _, (((completion),),) = run(Engine(*loaded, EngineSettings(kv_tokens=1024)), [(prompt, params)])
    assert (completion.text, completion.finish_reason) == ("dog", "stop")


def test_stop_strings_and_budgets_end_held_answers(loaded):
    prompt = prompt_of(loaded[1], 13)
    both = greedy(json_schema=SCHEMA, stop=('"seconds"',)), greedy(json_schema=SCHEMA, max_tokens=3)
    asked = [(prompt, params) for params in both]
    _, ((stopped,), (cut,)) = run(Engine(*loaded, EngineSettings(kv_tokens=1024)), asked)
    assert stopped.finish_reason == "stop" and stopped.text.endswith('", ')
    assert cut.finish_reason == "length" and '{"sound_that_was_heard"'.startswith(cut.text)


def test_one_that_fails_on_the_way_ends_alone(loaded, monkeypatch):
    """A grammar that becomes too complex ends its own answer with the reason; others go on."""
    engine = Engine(*loaded, EngineSettings(kv_tokens=1024))
    handles = [RequestHandle(1, engine.cancel) for _ in range(2)]
    prompt = prompt_of(loaded[1], 14)
    engine.submit(prompt, greedy(regex="[a-z]+x"), handles[0])
    engine.submit(prompt, greedy(json_schema=SCHEMA), handles[1])
    first = next(iter(engine._forced_tokens.matchers.values()))
    monkeypatch.setattr(first, "accepts", lambda token: (_ for _ in ()).throw(ConfigError("too complex")))
    while not engine.idle:
        engine.step()
    with pytest.raises(ConfigError, match="too complex"):
        handles[0].completions()
    assert handles[1].completions()[0].finish_reason in ("stop", "length")


def test_a_stream_is_the_whole(tiny_chat):
    messages, params = [qa.user("What is that?")], qa.SamplingParams(max_tokens=60, temperature=0, json_schema=SCHEMA)
    whole = tiny_chat.chat(messages, params)
    assert "".join(chunk.text for chunk in tiny_chat.stream(messages, params)) == whole.text
    assert tiny_chat.batch([messages, messages], [params, qa.SamplingParams(max_tokens=5)])[0] == whole


def test_what_cannot_be_honoured_is_refused_before_anything_is_computed(tiny_chat):
    for call in (tiny_chat.chat, tiny_chat.stream):
        with pytest.raises(ConfigError, match=r"json_schema cannot be honoured: .*uniqueItems"):
            call([qa.user("?")], qa.SamplingParams(json_schema={"type": "array", "uniqueItems": True}))
    with pytest.raises(ConfigError, match="Conversation 2: regex cannot be honoured"):
        tiny_chat.batch([[qa.user("?")]] * 2, [qa.SamplingParams(max_tokens=2), qa.SamplingParams(regex="(")])
