import numpy as np
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes as tone
from qwen2_audio.types import EmbeddingInput


def test_what_may_be_embedded(tiny_chat, wav_file):
    wav = wav_file("dog.wav")
    rows = tiny_chat.embed([wav, qa.user(audio=wav), qa.user("a dog"), [qa.user("a dog", audio=wav)]])
    assert rows.shape == (4, 32) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert abs(rows[1:] @ rows[1:].T - np.eye(3)).max() < 0.999, "three different inputs"
    lists = tiny_chat.embed([wav, tone(2.0)], source="encoder", pooling="none")
    assert [one.shape for one in lists] == [(25, 32), (50, 32)]
    assert tiny_chat.embed([tone(1.0)], source="projector").shape == (1, 32)


def test_a_conversation_takes_the_template(tiny_chat):
    service, tokenizer = tiny_chat.service(), tiny_chat.processor.tokenizer
    rendered = tiny_chat.processor.apply_chat_template([qa.user("Hi")], tokenize=False)
    ids = tuple(tokenizer(rendered)["input_ids"])
    (as_conversation,) = tiny_chat.embed([[qa.user("Hi")]])
    (as_ids,) = tiny_chat.embed([EmbeddingInput(ids=ids)])
    np.testing.assert_allclose(as_conversation, as_ids, atol=1e-6)
    rendered = tiny_chat.processor.apply_chat_template([qa.user("Hi")], tokenize=False, add_generation_prompt=True)
    ids = tuple(tokenizer(rendered)["input_ids"])
    source = EmbeddingInput(conversation=(qa.user("Hi"),), add_generation_prompt=True)
    np.testing.assert_allclose(*tiny_chat.embed([source, EmbeddingInput(ids=ids)]), atol=1e-6)
    assert service.context == 2048


def test_many_more_than_are_queued_at_a_time(tiny_chat):
    texts = [qa.user(f"number {number}") for number in range(150)]
    rows = tiny_chat.embed(texts)
    np.testing.assert_allclose(rows[77], tiny_chat.embed([texts[77]])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("dog.wav", "embed.. takes a list"),
        ([], "empty list"),
        ([qa.user("a"), "no-such.wav"], "Input 2: .*no-such.wav"),
        ([tone(31.0)], r"Input 1: .*lasts 31 s.*Split it into clips of at most 30 s\.$"),
        ([qa.user("")], "Input 1: The text is empty"),
        ([EmbeddingInput(ids=(5, -1))], "Input 1: .*holds the id -1"),
        ([{"role": "user", "content": "a", "texts": "b"}], "Input 1: .*texts"),
    ],
)
def test_what_is_wrong_is_named(tiny_chat, inputs, message):
    with pytest.raises(qa.Qwen2AudioError, match=message):
        tiny_chat.embed(inputs)


def test_the_encoder_reads_no_text(tiny_chat):
    with pytest.raises(qa.PromptError, match="Input 1: source is 'encoder'"):
        tiny_chat.embed([qa.user("a dog")], source="encoder")


def test_a_layer_that_is_not_there_is_no_input_s_fault(tiny_chat):
    with pytest.raises(qa.ConfigError, match=r"^layer is 99"):
        tiny_chat.embed([qa.user("a dog")], layer=99)
