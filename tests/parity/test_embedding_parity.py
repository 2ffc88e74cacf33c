"""Embeddings against transformers' hidden states on a tiny random checkpoint that transformers wrote, within 1e-4."""

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

import qwen2_audio as qa
from kit.reference import reference_shape
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

transformers = pytest.importorskip("transformers")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEXT = "What is that?"
SAMPLES = (961, 16_001, 47_999, 480_000)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Ours behind `qa.load`, and transformers' model and processor."""
    folder = tmp_path_factory.mktemp("embedded")
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level_bpe(BPE(letters, []))
    backend.add_special_tokens(CONTROL)
    tokenizer = Tokenizer(backend, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left"})
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    torch.manual_seed(0)
    shape = reference_shape(
        {"num_mel_bins": 128, "max_source_positions": 1500},
        {"vocab_size": 272, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = transformers.Qwen2AudioForConditionalGeneration(transformers.Qwen2AudioConfig(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than the initial 0.02, so that errors show
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    theirs = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return (
        qa.load(folder, device="cpu", dtype="float32"),
        theirs,
        transformers.Qwen2AudioProcessor.from_pretrained(folder),
    )


def clip(samples):
    noise = np.random.default_rng(samples).standard_normal(samples)
    return (noise * np.linspace(0.02, 0.3, samples)).astype(np.float32)


@torch.no_grad()
def hidden_states(theirs, processor, text, audio):
    inputs = processor(text=[text], audio=audio, sampling_rate=16_000, return_tensors="pt", padding=True)
    out = theirs(**inputs, output_hidden_states=True)
    return [state[0].numpy() for state in out.hidden_states]


@pytest.mark.parametrize("samples", SAMPLES)
def test_the_language_model_s_states(pair, samples):
    ours, theirs, processor = pair
    states = hidden_states(theirs, processor, f"<|audio_bos|><|AUDIO|><|audio_eos|>{TEXT}", [clip(samples)])
    asked = [qa.user(TEXT, audio=clip(samples))]
    for layer in (-1, 0, 1, 2):
        (found,) = ours.embed(asked, layer=layer, pooling="none", normalize=False)
        np.testing.assert_allclose(found, states[layer], atol=1e-4)
    (last,) = ours.embed(asked)
    np.testing.assert_allclose(last, states[-1][-1] / np.linalg.norm(states[-1][-1]), atol=1e-4)


def test_text_alone(pair):
    ours, theirs, processor = pair
    ids = processor.tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**ids, output_hidden_states=True).hidden_states[-1][0].numpy()
    (found,) = ours.embed([qa.user(TEXT)], pooling="mean", normalize=False)
    np.testing.assert_allclose(found, expected.mean(0), atol=1e-4)


@pytest.mark.parametrize("samples", SAMPLES)
def test_the_encoder_s_states(pair, samples):
    ours, theirs, processor = pair
    features = processor.feature_extractor(
        [clip(samples)], sampling_rate=16_000, return_tensors="pt", return_attention_mask=True, padding="max_length"
    )
    frames = int(features["attention_mask"].sum())
    encoder_frames, tokens = -(-frames // 2), -(-frames // 2) // 2
    visible = torch.arange(1500) < encoder_frames
    mask = torch.zeros(1, 1, 1500, 1500).masked_fill(~visible, float("-inf"))
    with torch.no_grad():
        tower = theirs.model.audio_tower
        output = tower(features["input_features"], attention_mask=mask).last_hidden_state[0, :tokens]
        projected = theirs.model.multi_modal_projector(output)
    for source, expected in (("encoder", output), ("projector", projected)):
        (found,) = ours.embed([clip(samples)], source=source, pooling="none", normalize=False)
        np.testing.assert_allclose(found, expected, atol=1e-4)
