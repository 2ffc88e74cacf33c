import json
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from qwen2_audio.audio.io import SoundWarning
from qwen2_audio.errors import AudioError, ConfigError, PromptError, Qwen2AudioError
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import AutoProcessor, Qwen2AudioProcessor
from qwen2_audio.text.chat_template import BUILTIN_TEMPLATE
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
CONFIG = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left", "model_max_length": 8192}
WRAPPED = "<|audio_bos|><|AUDIO|><|audio_eos|>"


def tiny_tokenizer(control=CONTROL) -> Tokenizer:
    """Every byte a token of its own, and the control tokens."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level_bpe(BPE(vocab, []))
    backend.add_special_tokens(control)
    return Tokenizer(backend, CONFIG)


@pytest.fixture(scope="module")
def processor() -> Qwen2AudioProcessor:
    return Qwen2AudioProcessor(WhisperFeatureExtractor(), tiny_tokenizer())


def sound(samples: int) -> np.ndarray:
    """A 440 Hz tone at 16 kHz."""
    return (0.5 * np.sin(2 * np.pi * 440 / 16000 * np.arange(samples))).astype(np.float32)


def wav(path: Path, samples: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound(samples) * 32767).astype("<i2").tobytes())
    return path


def spans(processor, inputs) -> list[str]:
    return [
        text.replace("<|AUDIO|>", "A").replace("<|audio_bos|>", "[").replace("<|audio_eos|>", "]")
        for text in processor.batch_decode(inputs["input_ids"])
    ]


# -- shapes and types


def test_what_it_hands_over(processor):
    inputs = processor(
        text=[WRAPPED + "x", "y" + WRAPPED], audio=[sound(16000), sound(640)], padding=True, return_tensors="pt"
    )
    assert list(inputs) == ["input_ids", "attention_mask", "input_features", "feature_attention_mask"]
    assert inputs.input_ids.shape == inputs.attention_mask.shape == (2, 28)
    assert inputs.input_features.shape == (2, 128, 3000)
    assert [value.dtype for value in inputs.values()] == [torch.int64, torch.int64, torch.float32, torch.int32]
    assert inputs.feature_attention_mask.sum(-1).tolist() == [100, 4]
    assert inputs.attention_mask.sum(-1).tolist() == [28, 4]
    assert inputs.attention_mask[1, 0] == 0  # filled on the left


def test_without_tensors_ids_are_lists_and_features_numpy(processor):
    inputs = processor(text=WRAPPED, audio=sound(16000))
    assert [len(row) for row in inputs.input_ids] == [27]
    assert isinstance(inputs.input_features, np.ndarray)
    assert isinstance(processor(text=WRAPPED, audio=sound(16000), return_tensors="np").input_ids, np.ndarray)


@pytest.mark.parametrize("audio", [None, []])
def test_text_alone(processor, audio):
    inputs = processor(text="hello", audio=audio, return_tensors="pt")
    assert list(inputs) == ["input_ids", "attention_mask"]
    assert inputs.input_ids.shape == (1, 5)


def test_assigning_an_attribute_changes_what_is_unpacked(processor):
    inputs = processor(text="hello", return_tensors="pt")
    inputs.input_ids = inputs.input_ids[:, :2]
    assert dict(**inputs)["input_ids"].shape == (1, 2)
    inputs["input_ids"] = inputs.attention_mask
    assert inputs.input_ids is inputs.attention_mask
    with pytest.raises(
        AttributeError, match=r"^These inputs have no 'labels'; they have \['input_ids', 'attention_mask'\]"
    ):
        inputs.labels  # noqa: B018
    assert not hasattr(inputs, "labels")
    del inputs.attention_mask
    assert list(inputs) == ["input_ids"]


def test_to_casts_only_what_is_floating(processor):
    inputs = processor(text=WRAPPED, audio=sound(640), return_tensors="pt")
    assert inputs.to("cpu", torch.bfloat16) is inputs
    assert inputs.input_features.dtype == torch.bfloat16
    assert inputs.to(dtype=torch.float16, device="cpu").input_features.dtype == torch.float16
    assert inputs.to(torch.device("meta")).input_ids.dtype == torch.int64
    assert {value.device.type for value in inputs.values()} == {"meta"}
    with pytest.raises(PromptError, match=r"^input_ids is a list and cannot be moved; pass return_tensors='pt'"):
        processor(text="x").to("cpu")


# -- placeholders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|AUDIO|>x", "[A]x"),
        (WRAPPED + "x", "[A]x"),
        ("<|audio_bos|><|AUDIO|>x", "[Ax"),
        ("x<|AUDIO|><|audio_eos|>", "xA]"),
        ("<|audio_bos|> <|AUDIO|>", "[ [A]"),
    ],
)
def test_a_bare_placeholder_is_wrapped_a_half_wrapped_one_is_not(processor, text, expected):
    assert spans(processor, processor(text=text, audio=sound(640))) == [expected]


def test_wrapping_can_be_switched_off(processor):
    assert spans(processor, processor(text="<|AUDIO|>x", audio=sound(640), wrap_audio=False)) == ["Ax"]


def test_clips_go_to_their_placeholders_in_order_over_the_batch(processor):
    text = ["<|AUDIO|><|AUDIO|>", "none", "x" + WRAPPED]
    clips = [sound(640), sound(16000), sound(64800)]
    inputs = processor(text=text, audio=clips, padding=False)
    assert spans(processor, inputs) == ["[A][" + "A" * 25 + "]", "none", "x[" + "A" * 101 + "]"]
    for row, clip in enumerate(clips):
        alone = processor(text=WRAPPED, audio=clip).input_features[0]
        assert np.array_equal(inputs.input_features[row], alone)


@pytest.mark.parametrize(
    ("samples", "tokens"), [(321, 1), (480, 1), (800, 1), (801, 1), (1120, 2), (16000, 25), (64800, 101), (480000, 750)]
)
def test_the_length_table(processor, samples, tokens):
    assert processor(text=WRAPPED, audio=sound(samples)).input_ids[0].count(processor.audio_token_id) == tokens


@pytest.mark.parametrize("samples", [1, 160, 320])
def test_a_clip_that_would_not_be_heard_is_refused(processor, samples):
    with pytest.raises(
        AudioError,
        match=rf"^Clip 2 has {samples} samples \(\d+ ms\): too short, it makes 0 audio tokens .* at least 321 samples",
    ):
        processor(text=WRAPPED * 2, audio=[sound(16000), sound(samples)])


@pytest.mark.parametrize(("text", "clips"), [("x", 1), (WRAPPED, 0), (WRAPPED * 2, 1), ([WRAPPED, WRAPPED], 3)])
def test_clips_and_placeholders_must_match(processor, text, clips):
    places = "".join(text).count("<|AUDIO|>")
    with pytest.raises(
        PromptError,
        match=rf"^The text has {places} <\|AUDIO\|> placeholder\(s\) and {clips} clip\(s\) were given; expected one",
    ):
        processor(text=text, audio=[sound(640)] * clips)
    if not clips:
        with pytest.raises(PromptError, match=r"1 <\|AUDIO\|> placeholder\(s\) and 0 clip\(s\)"):
            processor(text=text)


def test_a_clip_over_30_s_is_cut_with_a_warning_at_the_callers_line(processor):
    clip = sound(40 * 16000 + 1600)
    with pytest.warns(
        UserWarning, match=r"^Clip 1 lasts 40\.1 s; only its first 30 s are heard, 10\.1 s are left out\."
    ) as caught:
        inputs = processor(text=WRAPPED, audio=clip)
    assert caught[0].filename == __file__
    assert inputs.input_ids[0].count(processor.audio_token_id) == 750
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = processor(text=WRAPPED, audio=clip[:480000])
    assert np.array_equal(inputs.input_features, expected.input_features)
    assert inputs.feature_attention_mask.sum() == 3000


def test_the_warning_names_the_source_and_is_of_the_kind_that_comes_every_time(processor, tmp_path):
    path = wav(tmp_path / "talk.wav", 31 * 16000)
    with path.open("rb") as file:
        for source in (path, str(path), file):
            with pytest.warns(SoundWarning, match=rf"^Clip 1 \({path}\) lasts 31\.0 s; only its first 30 s are heard"):
                processor(text=WRAPPED, audio=source)


# -- forms of sound


def test_every_form_of_a_clip(processor, tmp_path):
    path = wav(tmp_path / "a.wav", 1600)
    expected = processor(text=WRAPPED, audio=sound(1600)).input_features
    same = [sound(1600).astype(np.float64), torch.from_numpy(sound(1600)), sound(1600).tolist(), (sound(1600), 16000)]
    same += [[sound(1600)], [[sound(1600)]], (sound(1600),)]
    for form in same:
        np.testing.assert_allclose(processor(text=WRAPPED, audio=form).input_features, expected, atol=1e-5)
    for form in (path, str(path), path.read_bytes(), path.as_uri()):  # 16 bits: rounded
        np.testing.assert_allclose(processor(text=WRAPPED, audio=form).input_features, expected, atol=2e-2)
    two = processor(text=WRAPPED * 2, audio=[path, torch.from_numpy(sound(1600))])
    assert two.feature_attention_mask.sum(-1).tolist() == [10, 10]
    other_rate = processor(text=WRAPPED, audio=(sound(3200), 32000))
    assert other_rate.feature_attention_mask.sum() == 10


def test_audios_is_the_older_name(processor):
    assert "input_features" in processor(text=WRAPPED, audios=[sound(640)])
    with pytest.raises(
        PromptError, match=r"^Both audio= and audios= were given; they are one option, pass audio= only\.$"
    ):
        processor(text=WRAPPED, audio=sound(640), audios=sound(640))


def test_only_16_khz_needs_no_word(processor):
    processor(text=WRAPPED, audio=sound(640), sampling_rate=16000)
    processor(text=WRAPPED, audio=sound(640), audio_kwargs={"sampling_rate": 16000})
    for options in ({"sampling_rate": 44100}, {"audio_kwargs": {"sampling_rate": 44100}}):
        with pytest.raises(
            AudioError, match=r"^sampling_rate is 44100, .* Give each clip as \(samples, 44100\), which is con"
        ):
            processor(text=WRAPPED, audio=sound(640), **options)


# -- options


def test_text_options_flat_and_grouped(processor):
    for options in (
        {"padding": "max_length", "max_length": 9},
        {"text_kwargs": {"padding": "max_length", "max_length": 9}},
    ):
        inputs = processor(text=["hello", "x"], padding_side="right", **options)
        assert [len(row) for row in inputs.input_ids] == [9, 9]
        assert inputs.attention_mask[1] == [1] + [0] * 8
    assert processor(text="hello", truncation=True, max_length=2).input_ids[0] == processor.tokenizer.encode("he")


def test_cutting_the_text_never_touches_the_sound(processor):
    inputs = processor(text=WRAPPED + "hello", audio=sound(16000), truncation=True, max_length=28)
    assert inputs.feature_attention_mask.sum() == 100
    with pytest.raises(PromptError, match=r"^Cutting the prompt from 32 to 10 tokens would cut into the sound; allow"):
        processor(text=WRAPPED + "hello", audio=sound(16000), truncation=True, max_length=10)


def test_rows_of_unequal_length_need_padding(processor):
    with pytest.raises(
        PromptError, match=r"^The rows have 1 to 5 tokens and do not make one tensor; pass padding=True"
    ):
        processor(text=["hello", "x"], return_tensors="pt")
    assert [len(row) for row in processor(text=["hello", "x"]).input_ids] == [5, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paddding": True}, r"^The processor has no option 'paddding'\. Did you mean 'padding'\?$"),
        ({"images": 1}, r"^The processor has no option 'images'\."),
        ({"text_kwargs": {"pading": True}}, r"^text_kwargs has no option 'pading'\. Did you mean 'padding'\?$"),
        ({"audio_kwargs": {"pading": True}}, r"^audio_kwargs has no option 'pading'\. Did you mean 'padding'\?$"),
        ({"audio_kwargs": {"padding": True}}, r"^audio_kwargs sets padding to True; expected 'max_length': a clip fil"),
        ({"padding": True, "text_kwargs": {"padding": True}}, r"^padding was given twice, directly and in text_kwargs"),
        ({"return_tensors": "pth"}, r"^return_tensors is 'pth'; expected 'pt', 'np' or None\. Did you mean 'pt'\?$"),
    ],
)
def test_unknown_and_doubled_options_are_refused(processor, options, message):
    with pytest.raises(PromptError, match=message):
        processor(text="x", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^Neither text nor clips were given; pass text=, and audio= for its clips\.$"),
        ({"audio": np.ones(640)}, r"^Clips were given without text; pass text= with one <\|AUDIO\|> for each clip\.$"),
        ({"text": 5}, r"^text is a int; expected a string or a list of strings\.$"),
        ({"text": [5]}, r"^text is a list; expected a string or a list of strings\.$"),
        ({"text": []}, r"^text is an empty list; expected a string or a list of strings\.$"),
    ],
)
def test_text_must_be_given(processor, arguments, message):
    with pytest.raises(PromptError, match=message):
        processor(**arguments)


def test_calls_leave_nothing_behind(processor):
    first = processor(text="hello")
    processor(text=["hello", "x"], padding=True, padding_side="right", truncation=True, max_length=3)
    processor(text="<|AUDIO|>", audio=sound(640), wrap_audio=False, audio_kwargs={"sampling_rate": 16000})
    assert processor(text="hello") == first


# -- conversations


def test_apply_chat_template_gives_text(processor):
    messages = [{"role": "user", "content": [{"type": "audio", "audio_url": "x"}, {"type": "text", "text": "hi"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text.endswith(f"<|im_start|>user\nAudio 1: {WRAPPED}\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert processor.apply_chat_template([messages] * 2, add_generation_prompt=True) == [text, text]
    assert processor.apply_chat_template(messages, "{{ messages[0].role }}") == "user"
    messages = [{"role": "assistant", "content": "It is "}]
    assert processor.apply_chat_template(messages, continue_final_message=True).endswith("assistant\nIt is ")


@pytest.mark.parametrize("key", ["audio", "audio_url", "url", "path"])
def test_apply_chat_template_loads_the_sound_of_every_key(processor, tmp_path, key):
    messages = [{"role": "user", "content": [{"type": "audio", key: str(wav(tmp_path / "a.wav", 1600))}]}]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs.feature_attention_mask.sum() == 10
    several = processor.apply_chat_template([messages] * 2, tokenize=True, return_dict=True, padding=True)
    assert len(several.input_ids) == len(several.input_features) == 2
    ids = processor.apply_chat_template(messages, tokenize=True)
    assert ids == inputs.input_ids.tolist()


def test_apply_chat_template_refuses_what_would_have_no_effect(processor):
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(PromptError, match=r"^return_tensors has no effect on a text; pass tokenize=True as well"):
        processor.apply_chat_template(messages, return_tensors="pt")
    with pytest.raises(PromptError, match=r"^apply_chat_template has no option 'pading'\. Did you mean 'padding'\?$"):
        processor.apply_chat_template(messages, tokenize=True, pading=True)
    with pytest.raises(
        PromptError, match=r"^padding was given twice, directly and in processor_kwargs; give it once\.$"
    ):
        processor.apply_chat_template(messages, tokenize=True, padding=True, processor_kwargs={"padding": True})
    with pytest.raises(PromptError, match=r"the clip names no sound"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=True)


def test_decode_is_the_tokenizers(processor):
    ids = processor(text="hi<|im_end|>").input_ids
    assert processor.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == ["hi"]
    assert processor.decode(ids[0]) == "hi<|im_end|>"


# -- files


def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    names = {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja"}
    assert {path.name for path in tmp_path.iterdir()} == names
    again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert isinstance(again, Qwen2AudioProcessor)
    assert again.chat_template == BUILTIN_TEMPLATE
    assert again(text=WRAPPED, audio=sound(640)).input_ids == processor(text=WRAPPED, audio=sound(640)).input_ids


def test_the_template_of_the_checkpoint_holds(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    assert Qwen2AudioProcessor.from_pretrained(tmp_path).chat_template == BUILTIN_TEMPLATE
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    own = Qwen2AudioProcessor.from_pretrained(tmp_path)
    assert own.apply_chat_template([{"role": "user", "content": "hi"}]) == "hi"


def test_a_tokenizer_without_audio_tokens_is_refused():
    with pytest.raises(
        ConfigError, match=r"^The tokenizer has no control token <\|AUDIO\|>; expected a Qwen2-Audio tok"
    ):
        Qwen2AudioProcessor(WhisperFeatureExtractor(), tiny_tokenizer(CONTROL[:3]))


def test_errors_are_value_errors_of_this_package(processor):
    with pytest.raises(ValueError, match="placeholder") as caught:
        processor(text=WRAPPED)
    assert isinstance(caught.value, Qwen2AudioError)
