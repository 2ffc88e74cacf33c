"""A draft's guesses change how soon an answer comes, never the answer; whatever happens to the draft stays its own."""

from __future__ import annotations

import copy
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine import engine as engine_module
from qwen2_audio.engine import settings as settings_module
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.engine.speculative.draft_model import RETRY_AFTER, DraftModel, check_same_tokens, same_encoder
from qwen2_audio.engine.speculative.proposer import MAX_MISSES
from qwen2_audio.errors import ConfigError
from qwen2_audio.inputs import prompt as prompts
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.types import Heard, SamplingParams

NEW = 48  # more than a block, so that room runs out on the way
PROMPTS = [(1, (180,), 5), (2, (), 9), (3, (90, 300), 4), (4, (61,), 40), (5, (420,), 3), (6, (), 70), (7, (33,), 6)]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path):
    return Qwen2AudioProcessor.from_pretrained(tiny_checkpoint).tokenizer


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    """Answers that never end by themselves, so that they are long enough to be guessed at."""
    made = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype="float32")
    made.generation_config.eos_token_id = None
    with torch.no_grad():
        made.language_model.lm_head.weight[320:] = 0  # control tokens: no logit of theirs is the largest
    return made


@pytest.fixture(scope="module")
def stranger(model):
    """As large as the model, and of another mind."""
    with torch.random.fork_rng():
        torch.manual_seed(77)
        return type(model)(model.config).eval()


def prompt_of(tokenizer, seed, clips=(), words=6):
    """A prompt of random words and clips of so many mel frames."""
    rng = random.Random(seed)
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    ids = [rng.randrange(20, 300) for _ in range(words)]
    heard = []
    for frames in clips:
        ids += [audio] * num_audio_tokens(frames) + [rng.randrange(20, 300) for _ in range(3)]
        heard.append(Heard(frames / 100, num_audio_tokens(frames)))
    sounds = [
        np.random.default_rng(f).standard_normal((128, 2 * (-(-f // 2)) + 2)).astype(np.float32) * 0.3 for f in clips
    ]
    return Prompt(ids, sounds, list(clips), tuple(heard))


@pytest.fixture(scope="module")
def asked(tokenizer):
    return [prompt_of(tokenizer, seed, clips, words) for seed, clips, words in PROMPTS]


@pytest.fixture(scope="module")
def expected(model, asked):
    """What `generate` says to each prompt."""
    said = [alone(model, prompt) for prompt in asked]
    assert len({tuple(tokens) for tokens in said}) == len(asked), "equal answers would prove little"
    assert all(len(set(tokens)) > 5 for tokens in said), "answers that repeat one token would prove little"
    return said


def alone(model, prompt, **options):
    inputs = to_tensors([prompt], 0)
    out = model.generate(**inputs, **{"max_new_tokens": NEW, "do_sample": False, **options})
    return out[0, len(prompt.ids) :].tolist()


def greedy(**more):
    return SamplingParams(temperature=0, max_tokens=NEW, logprobs=0, **more)


def send(engine, prompt, params=None):
    params = params or greedy()
    handle = RequestHandle(params.n, engine.cancel)
    engine.submit(prompt, params, handle)
    return handle


def finish(engine, handles):
    """Tokens of the only answer of each."""
    run(engine)
    return [[one.token for one in handle.completions()[0].logprobs] for handle in handles]


def run(engine):
    started = time.monotonic()
    while not engine.idle:
        engine.step()
        assert time.monotonic() - started < 60
    nothing_is_held(engine)


def draft_of(engine) -> DraftModel:
    return engine._speculative._proposers[-1]


def nothing_is_held(engine):
    draft, guesses = draft_of(engine), engine._speculative
    for pool in (engine._scheduler.block_manager, draft._block_manager):
        assert pool.used == 0 and pool.free == pool.blocks
    assert not draft._drafts and not draft._retry_at and not guesses._histories and not guesses._source
    assert not engine._encoder_cache._users and not draft._encoder_cache._users and not draft._encoder_cache._queue


def answers(engine, asked):
    return finish(engine, [send(engine, prompt) for prompt in asked])


SETTINGS = {
    "together": EngineSettings(kv_tokens=4096),
    "chunked": EngineSettings(kv_tokens=4096, max_num_batched_tokens=17),
    "two at a time": EngineSettings(kv_tokens=4096, max_num_seqs=2, num_speculative_tokens=7),
    "one guess": EngineSettings(kv_tokens=4096, num_speculative_tokens=1),
    "with lookup": EngineSettings(
        kv_tokens=4096, num_prompt_lookup_tokens=3, max_num_batched_tokens=40, max_num_seqs=3
    ),
    "nothing kept": EngineSettings(kv_tokens=4096, enable_prefix_caching=False),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("own_ears", [False, True])
def test_a_draft_that_knows_everything(model, tokenizer, asked, expected, settings, own_ears, monkeypatch):
    """The model itself: each of its guesses is taken, which it can only make if it has heard the clips."""
    if own_ears:
        monkeypatch.setattr(engine_module, "same_encoder", lambda *_: False)
    engine = Engine(model, tokenizer, settings, draft=model)
    assert answers(engine, asked) == expected
    stats = engine.stats
    assert stats.draft_tokens_accepted == stats.draft_tokens_proposed > 0
    assert stats.draft_failures == stats.draft_cache_full == 0 and stats.seconds_draft > 0
    assert (draft_of(engine)._encoder_cache is engine._encoder_cache) is not own_ears
    assert stats.clips_encoded == sum(len(prompt.clips) for prompt in asked), "what the draft hears is not counted"


def test_guesses_save_steps(model, tokenizer, asked, expected):
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=512), draft=model)
    assert answers(engine, asked[1:2]) == expected[1:2]
    assert engine.stats.steps <= 1 + -(-NEW // 5) + 1, "five tokens a step: four guesses and one behind them"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_draft_of_another_mind(model, stranger, tokenizer, asked, expected, settings):
    engine = Engine(model, tokenizer, settings, draft=stranger)
    assert not same_encoder(model, stranger)
    assert answers(engine, asked) == expected
    made, accepted = engine.stats.draft_tokens_proposed, engine.stats.draft_tokens_accepted
    assert made > 0 and accepted < 0.3 * made
    assert made < len(asked) * NEW, "one that is wrong is asked less"


def test_who_is_wrong_is_asked_now_and_then(model, stranger, tokenizer):
    with torch.no_grad():
        mute = copy.deepcopy(stranger)
        mute.language_model.lm_head.weight.zero_()
        mute.language_model.lm_head.weight[510] = 1e-3 * torch.ones(32)  # says a token that the model never says
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=512), draft=mute)
    answers(engine, [prompt_of(tokenizer, 2)])
    assert engine.stats.draft_tokens_accepted == 0
    # Four guesses, then one a step, then one in sixteen tokens: at 16 and at 32.
    assert engine.stats.draft_tokens_proposed == 4 + (MAX_MISSES - 1) + 2


def test_nano_in_four_bits_guesses_what_nano_says():
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), dtype="float32")
    small = Qwen2AudioForConditionalGeneration.from_pretrained(qa.nano_path(), quantize="int4")
    processor = Qwen2AudioProcessor.from_pretrained(qa.nano_path())
    clips = sorted((qa.nano_path() / "clips").glob("*.wav"))[:3]
    asked = [prompts.build_prompt([qa.user("What is that sound?", audio=clip)], processor) for clip in clips]
    engine = Engine(plain, processor.tokenizer, EngineSettings(kv_tokens=2048), draft=small)
    found = answers(engine, asked)
    itself = Engine(plain, processor.tokenizer, EngineSettings(kv_tokens=2048), draft=plain)
    assert answers(itself, asked) == found
    assert itself.stats.draft_tokens_accepted == itself.stats.draft_tokens_proposed > 0
    assert found == [alone(plain, prompt) for prompt in asked]
    assert all(len(tokens) < NEW for tokens in found), "they end, and nothing behind their end was guessed"
    assert engine.stats.draft_tokens_accepted > 0.5 * engine.stats.draft_tokens_proposed > 0


def test_who_leaves_in_the_middle_disturbs_nobody(model, tokenizer, asked, expected):
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048, max_num_batched_tokens=48), draft=model)
    rng, handles = random.Random(3), []
    for number, prompt in enumerate(asked):
        handles.append(send(engine, prompt))
        noise = send(engine, prompt_of(tokenizer, 100 + number, (77,)))
        for _ in range(rng.randrange(1, 6)):
            engine.step()
        noise.cancel()
        assert [chunk.finish_reason for chunk in noise][-1] in ("cancelled", "length")
    assert finish(engine, handles) == expected
    assert engine.stats.draft_tokens_accepted == engine.stats.draft_tokens_proposed > 0


def test_who_is_sent_back_for_want_of_memory_says_the_same(model, tokenizer):
    asked = [prompt_of(tokenizer, seed, (), 30) for seed in range(4)]  # a block each, and soon a second and a third
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=32 * 8), draft=model)
    assert answers(engine, asked) == [alone(model, prompt) for prompt in asked]
    assert engine.stats.preemptions > 0 and engine.stats.draft_tokens_proposed > 0


def test_an_answer_without_room_in_the_drafts_cache_goes_on_without_it(model, tokenizer):
    asked = [prompt_of(tokenizer, seed, (), 30) for seed in range(4)]
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048), draft=model)
    engine._speculative._proposers[-1] = DraftModel(
        model, 3, engine.settings, engine.stats, encoder_cache=engine._encoder_cache
    )
    assert answers(engine, asked) == [alone(model, prompt) for prompt in asked]
    assert engine.stats.draft_tokens_proposed > 0
    assert 0 < engine.stats.draft_cache_full < 8, f"asked again after {RETRY_AFTER} tokens, not at every step"
    assert engine.stats.draft_failures == 0


@pytest.mark.parametrize("calls", [0, 1, 7, 30])
def test_a_draft_that_raises(model, stranger, tokenizer, asked, expected, monkeypatch, caplog, calls):
    broken = copy.deepcopy(model)
    forward, left = broken.language_model.forward, [calls]

    def fails(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("no memory left")
        return forward(*args, **options)

    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=broken)
    monkeypatch.setattr(broken.language_model, "forward", fails)
    assert answers(engine, asked) == expected
    assert 0 < engine.stats.draft_failures <= len(asked), "each answer finds out once"
    assert engine.stats.finished == {"length": len(asked)}
    assert caplog.text.count("no memory left") == 1
    monkeypatch.undo()
    before = engine.stats.draft_failures
    assert answers(engine, [prompt_of(tokenizer, 50)]) == [alone(model, prompt_of(tokenizer, 50))]
    assert engine.stats.draft_failures == before, "the next request has guesses again"


@pytest.mark.parametrize("part", ["audio_tower", "multi_modal_projector"])
def test_a_draft_that_cannot_hear(model, tokenizer, asked, expected, monkeypatch, part):
    """Its encoder fails: those with clips go on without it, the others keep theirs."""
    deaf = copy.deepcopy(model)
    monkeypatch.setattr(engine_module, "same_encoder", lambda *_: False)
    where = deaf.audio_tower if part == "audio_tower" else deaf.multi_modal_projector
    monkeypatch.setattr(where, "encode_in_steps" if part == "audio_tower" else "forward", lambda *_: 1 / 0)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=deaf)
    assert answers(engine, asked) == expected
    assert engine.stats.draft_failures == sum(bool(prompt.clips) for prompt in asked)
    assert engine.stats.draft_tokens_accepted == engine.stats.draft_tokens_proposed > 0


def test_a_draft_that_says_nan(model, tokenizer, asked, expected):
    spoiled = copy.deepcopy(model)
    weight = spoiled.language_model.model.layers[1].self_attn.v_proj.weight.data
    good = weight.clone()
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=spoiled)
    weight[:] = float("nan")
    assert answers(engine, asked) == expected
    assert engine.stats.draft_failures == len(asked) and engine.stats.draft_tokens_proposed == 0
    weight[:] = good
    assert answers(engine, asked) == expected
    assert engine.stats.draft_failures == len(asked), "what it left in the cache is gone"
    assert engine.stats.draft_tokens_accepted == engine.stats.draft_tokens_proposed > 0


def test_stop_strings_end_an_answer_at_the_same_place(model, tokenizer, asked):
    def texts(draft):
        plain = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=draft)
        whole = [send(plain, prompt) for prompt in asked]
        while not plain.idle:
            plain.step()
        stops = [handle.completions()[0].text[5:8] for handle in whole]
        handles = [send(plain, prompt, greedy(stop=(stop,))) for prompt, stop in zip(asked, stops, strict=True)]
        while not plain.idle:
            plain.step()
        return [(one.text, one.finish_reason, one.usage) for t in handles for one in t.completions()]

    found = texts(model)
    assert found == texts(None)
    assert {reason for _, reason, _ in found} == {"stop"}


def test_an_answer_has_no_more_tokens_than_were_asked_for(model, tokenizer, asked, expected):
    for most in range(1, 8):
        engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=model)
        params = SamplingParams(temperature=0, max_tokens=most, logprobs=0)
        found = finish(engine, [send(engine, prompt, params) for prompt in asked])
        assert found == [tokens[:most] for tokens in expected]


def test_a_draft_with_a_shorter_context_ends_early(model, tokenizer):
    short = copy.deepcopy(model)
    short.config = copy.deepcopy(model.config)
    short.config.text_config.max_position_embeddings = 30
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=512), draft=short)
    prompt = prompt_of(tokenizer, 2)
    assert answers(engine, [prompt]) == [alone(model, prompt)]
    assert 0 < engine.stats.draft_tokens_proposed <= 30 - len(prompt.ids)


@pytest.mark.parametrize("which", ["model", "stranger"])
def test_a_seed_gives_one_answer_alone_and_in_any_company(model, tokenizer, asked, which, request):
    draft = request.getfixturevalue(which)
    drawn = SamplingParams(temperature=0.6, top_k=50, max_tokens=NEW, seed=7, logprobs=0)
    prompt = prompt_of(tokenizer, 3, (90,), 8)
    expected = alone(model, prompt, do_sample=True, temperature=0.6, top_k=50, seed=7)
    for others in (asked, []):
        engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096), draft=draft)
        handles = [*(send(engine, one) for one in others), send(engine, prompt, drawn)]
        assert finish(engine, handles)[-1] == expected
        assert engine.stats.draft_tokens_proposed > 0


def test_several_answers_share_the_drafts_prompt_too(model, tokenizer, asked):
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048), draft=model)
    counted = positions_of(draft_of(engine))
    drawn = SamplingParams(temperature=1.0, max_tokens=NEW, seed=3, logprobs=0, n=2)
    handle = send(engine, asked[0], drawn)
    run(engine)
    found = [[one.token for one in answer.logprobs] for answer in handle.completions()]
    expected = [alone(model, asked[0], do_sample=True, temperature=1.0, seed=3 + i, top_k=50) for i in range(2)]
    assert found == expected
    prompt = len(asked[0].ids)
    assert max(sum(part) for part in counted) >= prompt
    assert sum(one >= prompt // 2 for part in counted for one in part) <= 2


def positions_of(draft):
    """New positions of each sequence in each of its passes, from now on."""
    runner, counted = draft._runner, []
    run_parts = runner.run

    def noted(parts):
        counted.append([part.count for part in parts])
        return run_parts(parts)

    runner.run = noted
    return counted


def test_its_prefill_goes_in_pieces(model, tokenizer, expected, asked):
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=4096, max_num_batched_tokens=24), draft=model)
    counted = positions_of(draft_of(engine))
    assert answers(engine, asked) == expected
    assert max(len(prompt.ids) for prompt in asked) > 3 * 24
    assert max(map(sum, counted)) <= 24


def test_its_memory_is_part_of_the_budget(model, tokenizer, monkeypatch):
    position = 2 * 2 * 2 * 8 * 4  # layers, sides, heads, width, bytes
    monkeypatch.setattr(
        settings_module, "available_bytes", lambda: round(650 * position / settings_module.MEMORY_SHARE)
    )
    without = Engine(model, tokenizer)
    engine = Engine(model, tokenizer, draft=model)
    assert (
        without._runner.storage.blocks == 20
        and engine._runner.storage.blocks == draft_of(engine)._block_manager.blocks == 10
    )


def test_no_guesses_no_draft(model, stranger, tokenizer):
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=64, num_speculative_tokens=0), draft=stranger)
    assert engine._speculative is None
    with pytest.raises(ConfigError, match="num_speculative_tokens is -1; expected a number of at least 0"):
        EngineSettings(num_speculative_tokens=-1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda config: setattr(config.text_config, "vocab_size", 500),
            "The draft has a vocabulary of 500 tokens and the model has a vocabulary of 512 tokens; a draft must be "
            "made for the same tokenizer.",
        ),
        (
            lambda config: setattr(config, "audio_token_index", 7),
            "The draft has 7 for a position of sound and the model has {} for a position of sound; a draft must be "
            "made for the same tokenizer.",
        ),
    ],
)
def test_a_draft_with_other_ids_is_refused(model, stranger, tokenizer, change, sentence):
    other = copy.copy(stranger)
    other.config = copy.deepcopy(stranger.config)
    change(other.config)
    with pytest.raises(ConfigError) as error:
        Engine(model, tokenizer, draft=other)
    assert str(error.value) == sentence.format(model.config.audio_token_index)
    check_same_tokens(model.config, stranger.config)
