"""Nano's vocabulary: the same every time, the official control tokens, files that the reference reads too."""

import json

import pytest
from recipes.nano.tokenizer import BPE_SIZE, CONTROL, save_processor, train_tokenizer

from qwen2_audio.inputs.processor import Qwen2AudioProcessor

TEXT = "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat's that sound? Grüße 12 <|im_end|>\n"


def test_training_it_twice_gives_the_same_vocabulary(tokenizer):
    assert train_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_control_tokens_follow_the_bpe_in_the_official_order(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(list(CONTROL))
    assert ids == list(range(ids[0], ids[0] + 6))
    assert ids[0] == tokenizer.vocab_size <= BPE_SIZE


def test_any_text_comes_back(tokenizer):
    for text in (TEXT, "日本語 – naïve\r\n\t x", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_of_its_world_are_few_tokens(tokenizer):
    assert len(tokenizer.encode("This is the sound of a dog barking.")) <= 10


def test_saved_files_have_the_official_layout_and_load_again(tokenizer, tmp_path):
    save_processor(tokenizer, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "preprocessor_config.json",
        "chat_template.jinja",
    }
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["padding_side"] == "left"
    assert {entry["content"] for entry in config["added_tokens_decoder"].values()} == set(CONTROL)
    processor = Qwen2AudioProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert processor.feature_extractor.feature_size == 128


def test_the_reference_reads_the_same_ids(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_processor(tokenizer, tmp_path)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reference(TEXT)["input_ids"] == tokenizer.encode(TEXT)
    assert reference.eos_token_id == tokenizer.eos_token_id
    assert reference.pad_token_id == tokenizer.pad_token_id
