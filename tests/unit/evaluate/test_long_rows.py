"""Rows whose clips are heard whole: what a checkpoint here and a server are asked."""

import numpy as np

import qwen2_audio as qa
from qwen2_audio.evaluate.endpoint import _request
from qwen2_audio.evaluate.local_model import LocalModel
from qwen2_audio.evaluate.question import Question

GREEDY = qa.SamplingParams(temperature=0, max_tokens=5)
NOISE = np.random.default_rng(0).normal(0, 0.1, 16_000 * 35).astype(np.float32)


def test_a_checkpoint_here_hears_all_of_a_clip(tiny_chat):
    model = LocalModel(tiny_chat, {})
    whole = tiny_chat.chat([qa.user("What?", audio=NOISE)], GREEDY, long="parts")
    answer = model.submit(Question(NOISE, "What?", GREEDY, long="parts"))()
    assert (answer.text, answer.tokens) == (whole.text, whole.usage.completion_tokens) and len(whole.parts) == 2
    short = model.submit(Question(NOISE[:16_000], "What?", GREEDY, long="parts"))()
    assert short.text == tiny_chat.chat([qa.user("What?", audio=NOISE[:16_000])], GREEDY).text


def test_a_server_gets_the_field():
    assert _request(Question(NOISE, "What?", GREEDY, long="parts"))["extra_body"] == {"long": "parts"}
    assert "extra_body" not in _request(Question(NOISE, "What?", GREEDY))
