"""`truncation` by the reference's names: cut or kept as they say, anything else refused; nothing is cut unasked."""

from __future__ import annotations

import numpy as np
import pytest

from kit.small_processor import small_tokenizer, write_small_processor
from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import Qwen2AudioProcessor

TALK = [{"role": "user", "content": "hello"}]
CUT, KEPT = (True, "longest_first", "only_first"), (False, None, "do_not_truncate")


@pytest.fixture(scope="module")
def processor():
    return Qwen2AudioProcessor(WhisperFeatureExtractor(), small_tokenizer())


def calls(processor):
    """Every way to a row of ids, as a function of `truncation`."""
    tokenizer = processor.tokenizer
    return {
        "tokenizer": lambda t: tokenizer("hello", truncation=t, max_length=3).input_ids,
        "its template": lambda t: tokenizer.apply_chat_template(TALK, truncation=t, max_length=3).input_ids,
        "processor": lambda t: processor(text="hello", truncation=t, max_length=3).input_ids[0],
        "text_kwargs": lambda t: processor(text="hello", text_kwargs={"truncation": t, "max_length": 3}).input_ids[0],
        "a conversation": lambda t: processor.apply_chat_template(TALK, tokenize=True, truncation=t, max_length=3)[0],
    }


@pytest.mark.parametrize("name", ["tokenizer", "its template", "processor", "text_kwargs", "a conversation"])
def test_every_name(processor, name):
    call = calls(processor)[name]
    whole = call(False)
    assert len(whole) > 3
    for truncation in CUT:
        assert call(truncation) == whole[:3]
    for truncation in KEPT:
        assert call(truncation) == whole
    for truncation in ("only_second", "longest", "yes", "", 2):
        with pytest.raises(PromptError, match=r"^truncation is .*; expected True, 'longest_first', 'only_first', Fal"):
            call(truncation)


@pytest.mark.parametrize("truncation", [*CUT, "do_not_truncate", False])
def test_as_transformers(processor, tmp_path, truncation):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(write_small_processor(tmp_path))
    options = {"truncation": truncation, "max_length": 3}
    assert processor.tokenizer("hello", **options).input_ids == theirs("hello", **options).input_ids


def test_sound_is_never_cut(processor):
    prompt = {"text": "<|AUDIO|>hello", "audio": np.zeros(16_000, np.float32), "max_length": 10}
    assert len(processor(**prompt, truncation="do_not_truncate").input_ids[0]) == 32
    with pytest.raises(PromptError, match=r"^Cutting the prompt from 32 to 10 tokens would cut into the sound"):
        processor(**prompt, truncation="longest_first")
