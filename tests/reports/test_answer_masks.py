"""`return_assistant_tokens_mask`: which tokens of a conversation the assistant says."""

from __future__ import annotations

import numpy as np
import pytest

from kit.small_processor import write_small_processor
from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}{% elif m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p.type == 'audio' %}<|AUDIO|>{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}"
)
SHORT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "né"}]
LONG = [*SHORT, {"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(ours, theirs)"""
    transformers = pytest.importorskip("transformers")
    folder = write_small_processor(tmp_path_factory.mktemp("masks"))
    return Qwen2AudioProcessor.from_pretrained(folder), transformers.Qwen2AudioProcessor.from_pretrained(folder)


def said(processor, batch, row=0) -> str:
    ids, mask = batch["input_ids"][row], batch["assistant_masks"][row]
    return processor.decode([int(token) for token, flag in zip(ids, mask, strict=True) if flag])


@pytest.mark.parametrize("options", [{}, {"padding": True, "return_tensors": "pt"}, {"padding": True}])
def test_as_transformers(both, options):
    talks = [SHORT, LONG]
    call = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True, "chat_template": MARKED}
    ours, theirs = (processor.apply_chat_template(talks, **call, **options) for processor in both)
    for name in ("input_ids", "attention_mask", "assistant_masks"):
        for mine, expected in zip(ours[name], theirs[name], strict=True):
            assert np.array_equal(mine, expected), name
    assert said(both[0], ours, 1) == "né<|im_end|>\nyes<|im_end|>\n"
    call = {key: value for key, value in call.items() if key != "tokenize"}
    ours, theirs = (p.tokenizer.apply_chat_template(talks, **call, **options) for p in both)
    for mine, expected in zip(ours["assistant_masks"], theirs["assistant_masks"], strict=True):
        assert np.array_equal(mine, expected)


def test_one_conversation_of_the_tokenizer_is_flat(both):
    call = {"return_assistant_tokens_mask": True, "chat_template": MARKED}
    ours, theirs = (processor.tokenizer.apply_chat_template(SHORT, **call) for processor in both)
    assert ours["assistant_masks"] == theirs["assistant_masks"]


@pytest.mark.parametrize("wrap", [True, False])
def test_behind_the_tokens_of_clips(both, wrap):
    processor = both[0]
    clip = np.zeros(16_000, np.float32)
    question = {"role": "user", "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": "a"}] * 2}
    answer = {"role": "assistant", "content": "both"}
    for template, expected in ((MARKED, "both<|im_end|>\n"), (None, "both<|im_end|>")):
        batch = processor.apply_chat_template(
            [question, answer, question], template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
            wrap_audio=wrap,
        )  # fmt: skip
        assert said(processor, batch) == expected


def test_the_built_in_template_knows_its_answers(both):
    batch = both[0].apply_chat_template(LONG, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert said(both[0], batch) == "né<|im_end|>yes<|im_end|>"


def test_what_cannot_be(both):
    ours = both[0]
    mask = {"return_assistant_tokens_mask": True, "tokenize": True, "return_dict": True}
    with pytest.raises(PromptError, match=r"^The chat template does not say what the assistant's words are; put \{%"):
        ours.apply_chat_template(SHORT, "{{ messages[0].content }}", **mask)
    with pytest.raises(PromptError, match=r"^return_assistant_tokens_mask needs tokenize=True and return_dict=True"):
        ours.apply_chat_template(SHORT, return_assistant_tokens_mask=True)
    with pytest.raises(PromptError, match=r"and continue_final_message exclude each other; pass one\.$"):
        ours.apply_chat_template(SHORT, **mask, continue_final_message=True)
    marks = [{"role": "user", "content": "\ue5a2"}, *SHORT]
    with pytest.raises(PromptError, match=r"^The chat template changes what it has inside"):
        ours.apply_chat_template(marks, MARKED, **mask)
