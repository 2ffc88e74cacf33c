"""What nano is taught to say: unambiguous words, the official template, a loss on the assistant's words only."""

import numpy as np
import pytest
from recipes.nano.batches import caption_pieces, tokenised
from recipes.nano.clips import Entry
from recipes.nano.conversations import CAPTION_PROMPT, WHAT, WHAT_HELD_OUT, Writer, caption_of, is_it, level, name_it
from recipes.nano.mix import Clip
from recipes.nano.sounds.kinds import NAMED, NAMES
from recipes.nano.tokenizer import train_tokenizer
from recipes.nano.words import ABSTAIN, WORDS, kinds_named

from qwen2_audio.text.chat import render


class FakeLibrary:
    """One clip of every kind, ten tokens long."""

    entries = [Entry(Clip(name, 0.4, -27.0), 0, 42, 40) for name in NAMES]  # noqa: RUF012


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.fixture(scope="module")
def writer():
    clips = [entry.clip for entry in FakeLibrary.entries]
    return Writer(clips, {name: [i] for i, name in enumerate(NAMES)})


@pytest.mark.parametrize("kind", NAMED)
def test_everything_said_of_a_kind_names_it_and_nothing_else(kind):
    rng = np.random.default_rng(0)
    for style in WHAT:
        for _ in range(8):
            assert kinds_named(name_it(kind, style, rng)) == {kind}
    for caption in WORDS[kind].captions:
        assert kinds_named(caption) == {kind}


@pytest.mark.parametrize("kind", list(ABSTAIN))
def test_abstentions_name_no_sound(kind):
    for sentence in (*ABSTAIN[kind].says, ABSTAIN[kind].caption):
        assert kinds_named(sentence) == {kind}


def test_an_answer_that_names_two_kinds_names_two():
    assert kinds_named("I hear a dog, or it may be a cat.") == {"dog", "cat"}
    assert kinds_named("I do not know, perhaps a dog.") == {"dog"}
    assert kinds_named("This is the sound of a scattered crowd.") == set()


def test_held_out_wordings_are_never_trained_on():
    trained = {question for questions in WHAT.values() for question in questions}
    held_out = {question for questions in WHAT_HELD_OUT.values() for question in questions}
    assert not trained & held_out
    assert set(WHAT) == set(WHAT_HELD_OUT)


def test_yes_or_no_is_right():
    rng = np.random.default_rng(1)
    for name in NAMES:
        for _ in range(6):
            question, answer = is_it(Clip(name, 1.0, -20.0), rng)
            asked_right = name in WORDS and WORDS[name].noun in question
            assert answer.startswith("Yes" if asked_right else "No")


def test_loudness_follows_the_level():
    rng = np.random.default_rng(1)
    assert level(Clip("dog", 1.0, -15.0), rng)[1] == "It is loud."
    assert level(Clip("dog", 1.0, -40.0), rng)[1] == "It is quiet."
    assert level(Clip("silence", 1.0, -120.0), rng)[1] == "It is silent."


def test_the_same_generator_writes_the_same_conversation(writer):
    first, second = (
        [writer.write(rng) for _ in range(20)] for rng in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert first == second


def test_ids_are_the_rendered_template_and_only_answers_are_trained(writer, tokenizer):
    rng = np.random.default_rng(2)
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    seen = 0
    while seen < 60:
        conversation = writer.write(rng)
        if conversation.caption is not None:
            continue
        seen += 1
        example = tokenised(conversation, tokenizer, FakeLibrary)
        assert example.ids.count(audio) == 10 * len(conversation.clips)
        slots = [i for k, i in enumerate(example.ids) if i != audio or example.ids[k - 1] != audio]
        assert slots == tokenizer.encode(render(conversation.messages))
        trained = tokenizer.decode([i for i, on in zip(example.ids, example.trained, strict=True) if on])
        answers = [m["content"] for m in conversation.messages if m["role"] == "assistant"]
        assert trained == "".join(answer + "<|im_end|>" for answer in answers)


def test_a_caption_continues_the_documented_prompt(tokenizer):
    pieces = caption_pieces(caption_of("dog", np.random.default_rng(0)))
    text = "".join(piece.text for piece in pieces)
    assert text.startswith(CAPTION_PROMPT + " ")
    assert text.endswith(".<|endoftext|>")
    assert [piece.text for piece in pieces if piece.trained] == [pieces[-2].text, "<|endoftext|>"]


def test_every_form_comes_up_and_clips_match_placeholders(writer):
    rng = np.random.default_rng(9)
    conversations = [writer.write(rng) for _ in range(300)]
    assert {len(c.clips) for c in conversations} >= {0, 1, 2, 3}
    assert any(c.caption for c in conversations)
    for c in conversations:
        parts = [p for m in c.messages if isinstance(m["content"], list) for p in m["content"]]
        assert c.caption or c.clips == [p["audio"] for p in parts if p["type"] == "audio"]
