import math

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from kit.clip_files import wav_bytes as tone
from qwen2_audio.api.decisions import Question, conversation
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.prompt import build_prompt

ASKED = {"question": "What is it?", "choices": ["a dog", "a cat", "rain"]}


@torch.no_grad()
def shares_of(chat, messages, answer=()):
    """log-softmax [T, V] of one plain pass over the prompt and `answer`."""
    prompt = build_prompt(messages, chat.processor)
    prompt = prompt.with_ids([*prompt.ids, *answer])
    return chat.model(**to_tensors([prompt], 0)).logits[0].log_softmax(-1)


def test_letters_are_read_where_the_answer_begins(tiny_chat):
    decision = tiny_chat.decide(tone(1.0), ASKED)
    text = "What is it?\nA. a dog\nB. a cat\nC. rain\nAnswer with the letter alone."
    row = shares_of(tiny_chat, [qa.user(text, audio=tone(1.0))])[-1].exp()
    letters = [tiny_chat.processor.tokenizer.encode_plain(letter)[0][0] for letter in "ABC"]
    mass = float(row[letters].sum())
    assert decision.probabilities == pytest.approx([float(row[i]) / mass for i in letters], abs=1e-4)
    assert decision.label_mass == pytest.approx(mass, rel=1e-3)
    assert decision.argmax_is_label == (int(row.argmax()) in letters)
    assert decision.choice == ASKED["choices"][int(np.argmax(decision.probabilities))]
    assert decision.confidence == pytest.approx(max(decision.probabilities) * mass, rel=1e-3)
    assert decision.usage.completion_tokens == 0 and decision.heard[0].tokens == 25


def test_words_are_scored_whole(tiny_chat):
    decision = tiny_chat.decide(tone(1.0), {**ASKED, "labels": "words"})
    tokenizer, logs = tiny_chat.processor.tokenizer, []
    ends = sorted(tiny_chat.service()._engine.eos_ids)
    assert len(tokenizer.encode_plain("a dog")[0]) > 1, "one token would prove little"
    for choice in ASKED["choices"]:
        answer = tokenizer.encode_plain(choice)[0]
        shares = shares_of(tiny_chat, [qa.user("What is it?", audio=tone(1.0))], answer)
        start = len(shares) - len(answer) - 1
        log = sum(float(shares[start + i, token]) for i, token in enumerate(answer))
        logs.append(log + math.log(float(shares[-1, ends].exp().sum())))
    expected = np.exp(np.array(logs) - max(logs))
    assert decision.probabilities == pytest.approx(list(expected / expected.sum()), abs=1e-3)
    assert decision.label_mass == pytest.approx(sum(map(math.exp, logs)), rel=1e-2)
    assert decision.argmax_is_label is None


def test_questions_about_one_clip_share_its_encoding_and_its_prompt(tiny_checkpoint):
    chat = qa.load(tiny_checkpoint, device="cpu", dtype="float32")
    questions = [ASKED, {"question": "Is it loud?"}, {"question": "How loud?", "levels": ["low", "mid", "high"]}]
    alone = [chat.decide(tone(4.0), question).probabilities for question in questions]
    fresh = qa.load(tiny_checkpoint, device="cpu", dtype="float32")
    together = fresh.decide(tone(4.0), questions)
    assert [one.probabilities for one in together] == [pytest.approx(one, abs=1e-5) for one in alone]
    stats = fresh.service().stats()
    assert stats.clips_encoded == 1
    prompt = [one.usage.prompt_tokens for one in together]
    assert stats.prefill_tokens < sum(prompt) - 2 * 100, "the clip's 100 positions are computed once"
    assert sum(one.usage.cached_tokens for one in together) == sum(prompt) - stats.prefill_tokens


def test_a_predicate_and_a_scale(tiny_chat):
    yes, scale = tiny_chat.decide(
        [qa.system("Be brief."), qa.user(audio=tone(1.0))],
        [{"question": "Is it loud?"}, {"question": "How loud?", "levels": ["low", "mid", "high"]}],
    )
    assert yes.question.kind == "predicate" and yes.choice in (True, False)
    assert yes.probability == yes.probabilities[0] and sum(yes.probabilities) == pytest.approx(1)
    assert scale.score == pytest.approx(scale.probabilities[1] + 2 * scale.probabilities[2])
    assert set(yes.to_dict()["probabilities"]) == {"yes", "no"} and yes.to_dict()["probability"] == yes.probability


def test_the_question_stands_behind_what_all_questions_share():
    last = conversation([qa.user("Listen.", audio="a.wav")], "Q")[-1]
    assert [part.get("text") for part in last["content"]] == [None, "Listen.\n\n", "Q"]
    assert conversation([qa.user("Hi")], "Q")[-1]["content"][0]["text"] == "Hi\n\n"
    assert [m["role"] for m in conversation([qa.user("a"), qa.assistant("b")], "Q")] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"choices": ["a", "b"]}, "expected a dict with 'question'"),
        ({"question": "?", "choices": ["a"]}, "1 choices; expected 2 to 26"),
        ({"question": "?", "choices": list(map(str, range(27)))}, "27 choices"),
        ({"question": "?", "levels": list(map(str, range(11)))}, "11 levels; expected 2 to 10"),
        ({"question": "?", "choices": ["a", "a"]}, "the choice 'a' twice"),
        ({"question": "?", "choices": [True, "yes"]}, "the choice 'yes' twice"),
        ({"question": 5}, "A question is 5; expected a text"),
        ({"question": "?", "choices": ["a", ""]}, "a choice without a text"),
        ({"question": "?", "choices": ["a", 3]}, "A choice of '\\?' is 3"),
        ({"question": "?", "choices": "ab"}, "expected a list"),
        ({"question": " ", "choices": ["a", "b"]}, "A question is empty"),
        ({"question": "?", "choices": ["a", "b"], "levels": ["a", "b"]}, "give one of them"),
        ({"question": "?", "labels": "numbers"}, "labels is 'numbers'"),
        ({"question": "?", "choicse": ["a", "b"]}, "choicse"),
    ],
)
def test_what_is_wrong_with_a_question(question, message):
    with pytest.raises(qa.PromptError, match=message):
        Question.of(question)


def test_errors_of_the_clip_and_of_too_many(tiny_chat):
    with pytest.raises(qa.AudioError, match=r"no-such\.wav"):
        tiny_chat.decide("no-such.wav", [ASKED, ASKED])
    with pytest.raises(qa.PromptError, match="201 questions; expected 1 to 200"):
        tiny_chat.decide(tone(1.0), [ASKED] * 201)
    many = {"question": "?", "choices": list("abcdefghijklmnopqrstuvwxyz"), "labels": "words"}
    with pytest.raises(qa.PromptError, match="520 choices to score"):
        tiny_chat.decide(tone(1.0), [many] * 20)
    with pytest.raises(qa.PromptError, match="0 questions"):
        tiny_chat.decide(tone(1.0), [])


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "user"}, "has no 'content'"),
        ({"role": "user", "content": None}, "a NoneType as its content"),
        ({"role": "user", "content": 5}, "a int as its content"),
        ({"role": "user", "content": ["text"]}, "part 1: found a str"),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "nothing would reach the model"),
        (5, "Message 2 is a int"),
    ],
)
def test_a_malformed_last_message_is_refused_as_everywhere(tiny_chat, message, sentence):
    with pytest.raises(qa.PromptError, match=sentence):
        tiny_chat.decide([qa.user("Hi"), message], ASKED)


def test_a_long_clip_s_error_names_no_option_that_decide_has_not(tiny_chat):
    with pytest.raises(qa.AudioError, match=r"lasts 31 s.* Split it into clips of at most 30 s\.$"):
        tiny_chat.decide(tone(31.0), ASKED)


def test_descriptions_and_true_beside_its_word():
    question = Question.of({"question": "Which?", "choices": {"dog": "it barks", "other": None}})
    assert question.prompt() == "Which?\nA. dog: it barks\nB. other\nAnswer with the letter alone."
    both = Question("Which?", (("true", ""), (True, "")))
    assert [value for value, _ in both.options] == ["true", True]
