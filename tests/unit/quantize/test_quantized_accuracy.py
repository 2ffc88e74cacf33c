"""What quantising costs the bundled checkpoint, and that rows do not mind their neighbours."""

from functools import cache

import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.inputs import prompt
from qwen2_audio.inputs.collate import to_tensors

CLIPS = ("dog.wav", "rain.wav", "bell.wav")


@cache
def chat(scheme: str | None) -> qa.AudioChat:
    return qa.load("nano", device="cpu", dtype="float32", quantize=scheme)


def inputs(name: str) -> dict[str, torch.Tensor]:
    clip = qa.nano_path() / "clips" / name
    conversation = [qa.user("What is that sound?", audio=str(clip))]
    return to_tensors([prompt.build_prompt(conversation, chat(None).processor)], 0)


@pytest.mark.parametrize(("scheme", "most"), [("int8", 0.001), ("int4", 0.05)])
def test_logits_stay_close(torch_only, scheme, most):
    for name in CLIPS:
        with torch.no_grad():
            p, q = (torch.log_softmax(chat(s).model(**inputs(name)).logits, -1) for s in (None, scheme))
        assert float((p.exp() * (p - q)).sum(-1).mean()) < most  # KL in nats, over the prompt's positions


@pytest.mark.parametrize("scheme", ["int4", "int8"])
def test_greedy_tokens_do_not_depend_on_the_batch(torch_only, scheme):
    questions = ["What is that sound?", "Describe the clip in one long sentence, please.", "Hm?"]
    conversations = [
        [qa.user(question, audio=str(qa.nano_path() / "clips" / name))]
        for name, question in zip(CLIPS, questions, strict=True)
    ]
    params = qa.SamplingParams(temperature=0, max_tokens=24)
    together = [answer.text for answer in chat(scheme).batch(conversations, params)]
    assert together == [chat(scheme).chat(conversation, params).text for conversation in conversations]
    assert all(together)
