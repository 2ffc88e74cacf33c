"""The loss mask on every shape of conversation, against tables written by hand."""

import pytest
import torch

from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.prompt import encode_segments
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train import masks
from qwen2_audio.train.batches import check_batch, collate
from qwen2_audio.train.data import Example
from qwen2_audio.train.loss import IGNORED

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
CLIP = "Audio {}: <|audio_bos|>" + "<|AUDIO|>" * 3 + "<|audio_eos|>\n"


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return Tokenizer.from_pretrained(tiny_checkpoint)


def says(role, content):
    return {"role": role, "content": content}


def clip(text=None):
    return [{"type": "audio", "audio": "a.wav"}, *([{"type": "text", "text": text}] if text else [])]


# shape: messages, which of them are learned, clips, and the rendered row: (trained on?, text) by hand
TABLE = {
    "voice chat": (
        [says("user", clip()), says("assistant", "Hi.")], [1], 1,
        [(0, SYSTEM + USER + CLIP.format(1) + END + "\n" + ASSISTANT), (1, "Hi." + END), (0, "\n")],
    ),
    "audio analysis": (
        [says("user", clip("What?")), says("assistant", "A dog.")], [1], 1,
        [(0, SYSTEM + USER + CLIP.format(1) + "What?" + END + "\n" + ASSISTANT), (1, "A dog." + END), (0, "\n")],
    ),
    "text only": (
        [says("user", "What?"), says("assistant", "That.")], [1], 0,
        [(0, SYSTEM + USER + "What?" + END + "\n" + ASSISTANT), (1, "That." + END), (0, "\n")],
    ),
    "own system turn": (
        [says("system", "Be brief."), says("user", "What?"), says("assistant", "That.")], [2], 0,
        [(0, "<|im_start|>system\nBe brief." + END + "\n" + USER + "What?" + END + "\n" + ASSISTANT),
         (1, "That." + END), (0, "\n")],
    ),
    "two turns, all": (
        [says("user", clip("a")), says("assistant", "b"), says("user", clip("c")), says("assistant", "d")], [1, 3], 2,
        [(0, SYSTEM + USER + CLIP.format(1) + "a" + END + "\n" + ASSISTANT), (1, "b" + END),
         (0, "\n" + USER + CLIP.format(2) + "c" + END + "\n" + ASSISTANT), (1, "d" + END), (0, "\n")],
    ),
    "two turns, the last": (
        [says("user", clip("a")), says("assistant", "b"), says("user", "c"), says("assistant", "d")], [3], 1,
        [(0, SYSTEM + USER + CLIP.format(1) + "a" + END + "\n" + ASSISTANT + "b" + END + "\n" + USER + "c" + END
          + "\n" + ASSISTANT), (1, "d" + END), (0, "\n")],
    ),
    "two turns, the first, own system turn": (
        [says("system", "s"), says("user", "a"), says("assistant", "b"), says("user", "c"), says("assistant", "d")],
        [2], 0,
        [(0, "<|im_start|>system\ns" + END + "\n" + USER + "a" + END + "\n" + ASSISTANT), (1, "b" + END),
         (0, "\n" + USER + "c" + END + "\n" + ASSISTANT + "d" + END + "\n")],
    ),
    "two clips in a turn": (
        [says("user", [*clip(), *clip("Same?")]), says("assistant", "No.")], [1], 2,
        [(0, SYSTEM + USER + CLIP.format(1) + CLIP.format(2) + "Same?" + END + "\n" + ASSISTANT),
         (1, "No." + END), (0, "\n")],
    ),
    "text before the clip": (
        [says("user", [{"type": "text", "text": "Listen:"}, *clip()]), says("assistant", "Rain.")], [1], 1,
        [(0, SYSTEM + USER + "Listen:" + CLIP.format(1) + END + "\n" + ASSISTANT), (1, "Rain." + END), (0, "\n")],
    ),
    "a clip between two texts": (
        [says("user", [{"type": "text", "text": "a"}, *clip("b")]), says("assistant", "c")], [1], 1,
        [(0, SYSTEM + USER + "a" + CLIP.format(1) + "b" + END + "\n" + ASSISTANT), (1, "c" + END), (0, "\n")],
    ),
    "own system turn, a clip in the second turn only": (
        [says("system", "s"), says("user", "a"), says("assistant", "b"), says("user", clip()), says("assistant", "d")],
        [2, 4], 1,
        [(0, "<|im_start|>system\ns" + END + "\n" + USER + "a" + END + "\n" + ASSISTANT), (1, "b" + END),
         (0, "\n" + USER + CLIP.format(1) + END + "\n" + ASSISTANT), (1, "d" + END), (0, "\n")],
    ),
    "three turns, the middle one switched off": (
        [says("user", clip()), says("assistant", "b"), says("user", "c"), says("assistant", "d"),
         says("user", [*clip(), *clip()]), says("assistant", "f")], [1, 5], 3,
        [(0, SYSTEM + USER + CLIP.format(1) + END + "\n" + ASSISTANT), (1, "b" + END),
         (0, "\n" + USER + "c" + END + "\n" + ASSISTANT + "d" + END + "\n" + USER + CLIP.format(2) + CLIP.format(3)
          + END + "\n" + ASSISTANT), (1, "f" + END), (0, "\n")],
    ),
    "an answer in two parts": (
        [says("user", "a"), says("assistant", [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}])], [1], 0,
        [(0, SYSTEM + USER + "a" + END + "\n" + ASSISTANT), (1, "bc" + END), (0, "\n")],
    ),
    "an answer that begins with line ends": (
        [says("user", "a"), says("assistant", "\n\n b")], [1], 0,
        [(0, SYSTEM + USER + "a" + END + "\n" + ASSISTANT), (1, "\n\n b" + END), (0, "\n")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", list(TABLE))
def test_the_mask_covers_the_answers_and_their_ends_only(shape, tokenizer):
    messages, learned, clips, expected = TABLE[shape]
    ids, trained = masks.encode_chat(messages, [3] * clips, tokenizer, learned)
    found = [(int(flag), tokenizer.decode(run)) for flag, run in masks.stretches(ids, trained)]
    assert found == expected


def test_the_prompt_is_the_one_the_model_is_used_with(tokenizer):
    """What is before the last answer has the ids that a generation starts from."""
    from qwen2_audio.text import chat_template as chat

    for messages, _, clips, _ in TABLE.values():
        ids, trained = masks.encode_chat(messages, [3] * clips, tokenizer, [len(messages) - 1])
        asked = chat.render_segments(messages[:-1], add_generation_prompt=True)
        prompt, _ = encode_segments(asked, tokenizer, [3] * clips)
        assert ids[: trained.index(True)] == prompt


def test_control_tokens_typed_in_data_stay_text(tokenizer):
    typed = "<|im_end|>\n<|im_start|>assistant\n<|AUDIO|>"
    ids, trained = masks.encode_chat([says("user", typed), says("assistant", typed)], [], tokenizer, [1])
    ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(ends) == 3  # system, user, assistant
    assert tokenizer.convert_tokens_to_ids("<|AUDIO|>") not in ids
    said = [token for token, flag in zip(ids, trained, strict=True) if flag]
    assert said[-1] == ends and ends not in said[:-1]
    assert tokenizer.decode(said) == typed + END


def test_base_form(tokenizer):
    ids, trained = masks.encode_base("Recognize:", "hello", 3, tokenizer)
    found = [(int(flag), tokenizer.decode(run)) for flag, run in masks.stretches(ids, trained)]
    heard = "<|audio_bos|>" + "<|AUDIO|>" * 3 + "<|audio_eos|>"
    assert found == [(0, heard + "Recognize:"), (1, "hello<|endoftext|>")]
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    unknown_tag, _ = masks.encode_base("Recognize: <|en|>", "<|endoftext|>", 3, tokenizer)
    assert tokenizer.decode(unknown_tag).endswith("Recognize: <|en|><|endoftext|>")
    assert unknown_tag.count(ids[-1]) == 1


def test_language_tags_of_the_base_model_are_control_tokens_where_it_has_them(tiny_checkpoint):
    tokenizer = Tokenizer.from_pretrained(tiny_checkpoint)
    tokenizer._backend.add_special_tokens(["<|en|>"])
    ids, trained = masks.encode_base("Say: <|en|>", "hi <|en|>", 1, tokenizer)
    tag = tokenizer.convert_tokens_to_ids("<|en|>")
    assert [flag for token, flag in zip(ids, trained, strict=True) if token == tag] == [False, True]


# -- broken on purpose


@pytest.fixture
def good(tokenizer):
    messages = [says("user", clip("a")), says("assistant", "bcd"), says("user", "e"), says("assistant", "fgh")]
    return masks.encode_chat(messages, [3], tokenizer, [1, 3])


ANSWERS = ["bcd", "fgh"]


def test_check_accepts_the_right_mask(good, tokenizer):
    masks.check_chat(good, ANSWERS, tokenizer)


def shifted(ids, trained, tokenizer):
    return [False, *trained[:-1]]


def everything(ids, trained, tokenizer):
    return [True] * len(ids)


def nothing(ids, trained, tokenizer):
    return [False] * len(ids)


def first_turn_only(ids, trained, tokenizer):
    second = trained.index(False, trained.index(True))
    return trained[:second] + [False] * (len(ids) - second)


def without_the_end(ids, trained, tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return [flag and token != end for token, flag in zip(ids, trained, strict=True)]


def audio_too(ids, trained, tokenizer):
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    return [flag or token == audio for token, flag in zip(ids, trained, strict=True)]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (shifted, "covers 'cd<|im_end|>\\n'; expected the answer 'bcd<|im_end|>'"),
        (everything, "covers audio positions"),
        (nothing, "covers 0 stretch(es) of tokens; expected 2"),
        (first_turn_only, "covers 1 stretch(es) of tokens; expected 2"),
        (without_the_end, "covers 'bcd'; expected"),
        (audio_too, "covers audio positions"),
        (lambda ids, trained, tokenizer: trained[1:], "entries for"),
    ],
)
def test_a_wrong_mask_is_caught(broken, sentence, good, tokenizer):
    ids, trained = good
    with pytest.raises(PromptError) as error:
        masks.check_chat((ids, broken(ids, trained, tokenizer)), ANSWERS, tokenizer)
    assert sentence in str(error.value)


def test_a_mis_masked_batch_is_caught(good, tokenizer):
    ids, trained = good
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    short = trained.index(False, trained.index(True))  # ends with the first answer
    examples = [Example(ids, trained, [], [], 1), Example(ids[:short], trained[:short], [], [], 2)]
    batch = collate(examples, tokenizer.pad_token_id)
    check_batch(batch, audio)
    for change, sentence in [
        (lambda b: b["input_ids"], "cover audio positions, first in row 1"),
        (lambda b: torch.where(b["attention_mask"] == 0, b["input_ids"], b["labels"]), "cover padding, first in row 2"),
        (lambda b: b["labels"].roll(-1, 1), "cover tokens that are not there"),
        (lambda b: torch.full_like(b["labels"], IGNORED), "Row 1 of the batch has no label"),
    ]:
        with pytest.raises(PromptError, match=sentence):
            check_batch({**batch, "labels": change(batch)}, audio)


def test_the_example_check_runs_on_every_row(monkeypatch, tiny_checkpoint, tmp_path):
    """A walk that mis-masks cannot reach training."""
    import json

    from qwen2_audio.inputs.processor import Qwen2AudioProcessor
    from qwen2_audio.train.data import Dataset
    from qwen2_audio.train.quarantine import BadRow

    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": [says("user", "a"), says("assistant", "b")]}))
    dataset = Dataset(file, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint))
    dataset.example(0)
    right = masks.encode_chat

    def wrong(*given):
        ids, trained = right(*given)
        return ids, [True] * len(trained)

    monkeypatch.setattr(masks, "encode_chat", wrong)
    with pytest.raises(BadRow, match="The loss mask covers"):
        dataset.example(0)


def test_an_answer_shares_no_token_with_the_template():
    """Where "\\n\\n" is a token, as in Qwen2's vocabulary, an answer that begins with "\\n" is still learned whole."""
    from tokenizers import pre_tokenizers, trainers
    from tokenizers.models import BPE

    from qwen2_audio.text.tokenizer_files import byte_level_bpe

    backend = byte_level_bpe(BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["a\n\nb"] * 9, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|AUDIO|>"])
    tokenizer = Tokenizer(backend)
    assert len(tokenizer.encode("\n\n")) == 1
    encoded = masks.encode_chat([says("user", "a"), says("assistant", "\nb")], [], tokenizer, [1])
    masks.check_chat(encoded, ["\nb"], tokenizer)
