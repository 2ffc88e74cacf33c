"""A second question costs neither the encoder nor the prompt's beginning, and has the answer it has without that."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.api import reuse
from qwen2_audio.api.hearing import hear
from qwen2_audio.api.prompt import build
from qwen2_audio.engine.request import Prompt
from qwen2_audio.engine.sounds import stack_clips
from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.generate.decode import Reading

GREEDY = qa.SamplingParams(temperature=0, max_tokens=12)


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    return qa.load("nano", device="cpu", dtype="float32", reuse=False)


@pytest.fixture
def chat(plain):
    return qa.AudioChat(plain.model, plain.processor)


@pytest.fixture
def computed(plain, monkeypatch):
    """What ran: the positions of each pass of the language model, and how many clips were encoded at a time."""
    seen = {"positions": [], "clips": []}
    model, forward, encode = plain.model, plain.model.language_model.forward, plain.model.audio_tower.encode

    def counted_forward(*args, **kwargs):
        seen["positions"].append(kwargs["inputs_embeds"].shape[1])
        return forward(*args, **kwargs)

    def counted_encode(features, lengths):
        seen["clips"].append(len(lengths))
        return encode(features, lengths)

    monkeypatch.setattr(model.language_model, "forward", counted_forward)
    monkeypatch.setattr(model.audio_tower, "encode", counted_encode)
    return seen


def questions(first: str, second: str) -> list[list[dict]]:
    return [[qa.user(text, audio=tone(2.0))] for text in (first, second)]


def test_a_second_question_about_a_clip_encodes_nothing_and_reads_only_itself(plain, chat, computed) -> None:
    one, two = questions("What is that sound?", "How many times does it come?")
    expected = [plain.chat(messages, GREEDY) for messages in (one, two)]
    computed["clips"].clear()
    first = chat.chat(one, GREEDY)
    assert computed["clips"] == [1]
    computed["positions"].clear()
    second = chat.chat(two, GREEDY)
    assert computed["clips"] == [1]
    assert [first, second] == expected
    assert (first.usage.cached_tokens, second.usage.audio_tokens) == (0, 50)
    assert second.usage.cached_tokens > 50
    assert computed["positions"][0] == second.usage.prompt_tokens - second.usage.cached_tokens < 30


def test_the_next_turn_reads_only_what_is_new(plain, chat, computed) -> None:
    messages = [qa.user("What is that sound?", audio=tone(1.0))]
    for text in ("And now?", "Listen again."):
        answer = chat.chat(messages, GREEDY)
        assert answer == plain.chat(messages, GREEDY)
        messages = [*messages, qa.assistant(answer.text), qa.user(text)]
    computed["clips"].clear()
    last = chat.chat(messages, GREEDY)
    assert computed["clips"] == []
    assert last.usage.cached_tokens > 0.7 * last.usage.prompt_tokens
    assert last == plain.chat(messages, GREEDY)


def test_the_same_question_again_has_the_same_answer(plain, chat) -> None:
    messages = questions("What is that sound?", "")[0]
    answers = [chat.chat(messages, GREEDY) for _ in range(3)]
    assert answers == [plain.chat(messages, GREEDY)] * 3
    assert answers[2].usage.cached_tokens == answers[2].usage.prompt_tokens - 1


def test_streamed_is_whole_and_says_what_was_cached(plain, chat) -> None:
    one, two = questions("What is that sound?", "Is it loud?")
    chat.chat(one, GREEDY)
    *pieces, last = chat.stream(two, GREEDY)
    assert "".join(piece.text for piece in pieces) == plain.chat(two, GREEDY).text
    assert last.usage.cached_tokens > 50


def test_another_clip_of_the_same_length_is_not_taken_for_the_first(plain, chat) -> None:
    for hertz in (300.0, 2000.0):
        messages = [qa.user("What is that sound?", audio=tone(2.0, hertz))]
        answer = chat.chat(messages, GREEDY)
        assert answer == plain.chat(messages, GREEDY)
        assert answer.usage.cached_tokens < 50


def test_of_two_clips_only_the_new_one_is_encoded(plain, chat, computed) -> None:
    chat.chat([qa.user("What is that sound?", audio=tone(1.0))], GREEDY)
    messages = [qa.user("Which is louder?", audio=[tone(1.0), tone(0.5, 900)])]
    expected = plain.chat(messages, GREEDY)
    computed["clips"].clear()
    assert chat.chat(messages, GREEDY) == expected
    assert computed["clips"] == [1]
    swapped = [qa.user("Which is louder?", audio=[tone(0.5, 900), tone(1.0)])]
    expected = plain.chat(swapped, GREEDY)
    computed["clips"].clear()
    assert chat.chat(swapped, GREEDY) == expected
    assert computed["clips"] == []


def test_a_clip_twice_in_a_prompt_is_encoded_once(plain, chat, computed) -> None:
    messages = [qa.user("Same?", audio=[tone(1.0), tone(1.0)])]
    expected = plain.chat(messages, GREEDY)
    computed["clips"].clear()
    assert chat.chat(messages, GREEDY) == expected
    assert computed["clips"] == [1]


def test_a_short_branch_leaves_the_long_conversation_its_cache(plain, chat) -> None:
    sound = qa.user("What is that sound?", audio=tone(0.5))
    long = [sound, qa.assistant("a bell " * 60), qa.user("Go on.")]
    chat.chat(long, GREEDY)
    branch = [qa.user("Is it a dog?", audio=tone(0.5))]
    assert chat.chat(branch, GREEDY) == plain.chat(branch, GREEDY)
    again = chat.chat(long, GREEDY)
    assert again == plain.chat(long, GREEDY)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_it_can_be_switched_off(plain, computed) -> None:
    assert plain.reuse is None
    messages = questions("What is that sound?", "")[0]
    assert [plain.chat(messages, GREEDY).usage.cached_tokens for _ in range(2)] == [0, 0]
    assert computed["clips"] == [1, 1]


def test_a_changed_model_forgets(plain, chat) -> None:
    one, two = questions("What is that sound?", "How many?")
    chat.chat(one, GREEDY)
    weight = plain.model.language_model.model.norm.weight
    with torch.no_grad():
        weight.mul_(1.0)
    assert chat.chat(two, GREEDY).usage.cached_tokens == 0
    assert chat.chat(one, GREEDY).usage.cached_tokens > 50
    chat.reuse.forget()
    assert chat.chat(one, GREEDY).usage.cached_tokens == 0


def test_the_budget_holds_and_the_longest_unused_goes_first(plain, chat) -> None:
    chat.chat([qa.user("What is that sound?", audio=tone(1.0))], GREEDY)
    one_conversation = chat.reuse.nbytes
    chat.reuse.budget = 3 * one_conversation
    for hertz in (500.0, 600.0, 700.0, 800.0):
        chat.chat([qa.user("What is that sound?", audio=tone(1.0, hertz))], GREEDY)
        assert chat.reuse.nbytes <= chat.reuse.budget
    assert chat.chat([qa.user("And?", audio=tone(1.0, 800.0))], GREEDY).usage.cached_tokens > 25
    assert chat.chat([qa.user("And?", audio=tone(1.0))], GREEDY).usage.cached_tokens < 25
    chat.reuse.forget()
    chat.reuse.budget = 10
    messages = questions("What is that sound?", "")[0]
    assert [chat.chat(messages, GREEDY).usage.cached_tokens for _ in range(2)] == [0, 0]
    assert chat.reuse.nbytes == 0


def test_conversations_are_counted_too(plain, chat, monkeypatch) -> None:
    monkeypatch.setattr(reuse, "CONVERSATIONS", 2)
    for word in ("One", "Two", "Three"):
        chat.chat(
            [qa.system(f"{word} is a number, and it is not the only one.")],
            qa.SamplingParams(temperature=0, max_tokens=2),
        )
    held = [entry for entry in chat.reuse._held.values() if isinstance(entry, reuse.Conversation)]
    assert len(held) == 2


def test_threads_may_ask_about_one_clip_at_once(plain, chat) -> None:
    asked = [[qa.user(text, audio=tone(1.0))] for text in ("What is it?", "Is it loud?", "How often?", "Where?")]
    expected = [plain.chat(messages, GREEDY) for messages in asked]
    answers: dict[int, qa.Completion] = {}

    def ask(number: int) -> None:
        for _ in range(3):
            answers[number] = chat.chat(asked[number], GREEDY)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(len(asked))] == expected


def test_a_cache_belongs_to_one_answer_at_a_time(plain, chat) -> None:
    one, two = (build(messages, plain.processor) for messages in questions("What is that sound?", "How many?"))
    chat.chat(questions("What is that sound?", "")[0], GREEDY)
    first, second = chat.reuse.begin(one, 8), chat.reuse.begin(two, 8)
    assert (first.cached > 50, second.cached) == (True, 0)
    assert first.reading.cache is not second.reading.cache


def test_an_answer_that_was_broken_off_can_be_built_on(plain, chat) -> None:
    one, two = questions("What is that sound?", "How many?")
    chunks = chat.stream(one, qa.SamplingParams(temperature=0, max_tokens=100, min_tokens=90))
    next(chunks)
    chunks.close()
    answer = chat.chat(two, GREEDY)
    assert answer.usage.cached_tokens > 50
    assert answer == plain.chat(two, GREEDY)


def test_a_reading_must_fit_its_prompt(plain) -> None:
    model = plain.model
    ids = torch.tensor([[1, 2, 3]])
    reading = Reading(model.new_cache(1, 8), model.get_input_embeddings()(ids[:, 1:]))
    with pytest.raises(
        PromptError, match=r"^reading= has 0 positions in its cache and 2 to read, and the prompt has 3"
    ):
        model.generate(input_ids=ids, reading=reading, max_new_tokens=1)
    with pytest.raises(PromptError, match=r"^reading= is for one prompt without padding; found \[2, 3\]\."):
        model.generate(
            input_ids=ids.repeat(2, 1),
            attention_mask=torch.ones(2, 3),
            reading=reading,
            max_new_tokens=1,
            pad_token_id=0,
        )
    with pytest.raises(ConfigError, match=r"^reading= is a cache and use_cache is False"):
        model.generate(input_ids=ids, reading=reading, use_cache=False, max_new_tokens=1)


def test_a_prompt_may_be_continued_within_a_clip(plain) -> None:
    model = plain.model
    sound = hear(tone(1.0))
    audio_id = model.config.audio_token_index
    ends_in_sound = Prompt([1, 2, *[audio_id] * 25], [sound.log_mel(128)], [sound.frames], (sound.heard,))
    kept = reuse.Reuse(model)
    first = kept.begin(ends_in_sound, 1)
    ids = torch.tensor([ends_in_sound.ids])
    with torch.no_grad():
        model.language_model(inputs_embeds=first.reading.embeds, past_key_values=first.reading.cache)
    kept.keep(first, ends_in_sound.ids)
    second = kept.begin(ends_in_sound, 1)
    features = stack_clips(ends_in_sound.clips, ends_in_sound.frames)
    with torch.no_grad():
        whole = model.embed_prompt(ids, **features).inputs_embeds
    assert (first.cached, second.cached, kept.clips_encoded) == (0, 26, 1)
    assert torch.equal(first.reading.embeds, whole)
    assert torch.equal(second.reading.embeds, whole[:, 26:])
