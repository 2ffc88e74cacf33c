"""A checkpoint that was trained on conversations stops at <|im_end|>, whatever its base's generation_config names."""

import json
import shutil

import pytest

from qwen2_audio import GenerationConfig
from qwen2_audio.cli.merge import merge
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train import sft


@pytest.mark.parametrize("eos", [None, "<|endoftext|>", ["<|endoftext|>", "<|im_end|>"]])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_im_end_is_among_the_ends(make, tmp_path, tiny_checkpoint, eos, method):
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, base)
    tokenizer = Tokenizer.from_pretrained(base)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ([eos] if isinstance(eos, str) else eos or [])]
    path = base / "generation_config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "eos_token_id": ends or None}))
    folder = sft.run(make(model=str(base), steps=1, method=method))
    if method == "lora":
        merge(str(base), folder, tmp_path / "merged", check=False)
        folder = tmp_path / "merged"
    found = GenerationConfig.from_pretrained(folder).eos_ids
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in found
    assert found[: len(ends)] == ends
    assert len(set(found)) == len(found)
