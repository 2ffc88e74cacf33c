"""Values that the official checkpoints and the reference's front end have.

Shapes and keys are the published configuration's; token ids are those that transformers' integration tests expect; the
log-mels were computed by transformers 5.23, the small model's numbers as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Keys of config.json as the model takes them, those that are absent from the official file included.
AUDIO_CONFIG: dict[str, Any] = {
    "num_mel_bins": 128, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "d_model": 1280,
    "activation_function": "gelu", "scale_embedding": False, "max_source_positions": 1500, "encoder_layerdrop": 0.0,
}  # fmt: skip
TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": 156032, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "use_sliding_window": False, "tie_word_embeddings": False,
}  # fmt: skip
AUDIO_TOKEN_INDEX = 151646
TENSORS, PARAMETERS = 876, 8_397_094_912

CONTROL_TOKENS = {
    "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645,
    "<|AUDIO|>": AUDIO_TOKEN_INDEX, "<|audio_bos|>": 151647, "<|audio_eos|>": 151648,
}  # fmt: skip
# A text and its ids. The first is a clip of 101 tokens and a question after the default system prompt.
PROMPTS: tuple[tuple[str, list[int]], ...] = (
    (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"Audio 1: <|audio_bos|>{'<|AUDIO|>' * 101}<|audio_eos|>\nWhat's that sound?<|im_end|>\n"
        "<|im_start|>assistant\n",
        [
            151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 14755, 220, 16, 25, 220,
            151647, *[AUDIO_TOKEN_INDEX] * 101, 151648, 198, 3838, 594, 429, 5112, 30, 151645, 198, 151644, 77091, 198,
        ],
    ),
)  # fmt: skip
# A text and the tokens that it consists of, as they are written.
TOKENS: tuple[tuple[str, list[str]], ...] = (
    (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>\n"
        "What is it in this audio?<|im_end|><|im_start|>assistant\n",
        [
            "<|im_start|>", "system", "\n", "Answer", " the", " questions", ".", "<|im_end|>", "<|im_start|>", "user",
            "\n", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>", "\n", "What", " is", " it", " in", " this", " audio",
            "?", "<|im_end|>", "<|im_start|>", "assistant", "\n",
        ],
    ),
)  # fmt: skip

# Mel filters [201, 128]: (bin, filter) -> weight; how many are not 0; their sum and largest.
FILTERS = {(1, 0): 0.01237399, (1, 1): 0.03039256, (195, 127): 0.00504160}
FILTERS_NONZERO, FILTERS_SUM, FILTERS_LARGEST = 394, 3.19098552854, 0.0416817493


def sine() -> np.ndarray:
    """A second of 440 Hz, float32."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)


def ramp() -> np.ndarray:
    """Three seconds from -1 to 1, float32."""
    return np.linspace(-1, 1, 48_000, dtype=np.float32)


# Log-mels of the padded window: valid frames; least, largest, mean; (mel bin, frame) -> value.
SINE = {"frames": 100, "min": -0.514646, "max": 1.485354, "mean": -0.51126859, "std": 0.07346797}
SINE_VALUES = {
    (0, 0): 0.9075196, (0, 1): 0.39551204, (0, 2): -0.51464593, (17, 50): 1.337491,
    (127, 99): -0.51464593, (127, 100): -0.23267841, (127, 101): -0.51464593, (127, 102): -0.51464593,
}  # fmt: skip
RAMP = {"frames": 300, "min": -0.378185, "max": 1.621815, "mean": -0.37388578}
RAMP_VALUES = {(0, 0): 1.5229559, (0, 1): 1.5216788, (0, 2): 1.5202143}
SILENCE = -1.5
# Samples -> mel frames, encoder frames, audio tokens.
LENGTHS = {
    1: (1, 1, 0), 160: (1, 1, 0), 161: (2, 1, 0), 320: (2, 1, 0), 321: (3, 2, 1), 480: (3, 2, 1), 481: (4, 2, 1),
    641: (5, 3, 1), 800: (5, 3, 1), 16_000: (100, 50, 25), 64_000: (400, 200, 100), 64_800: (405, 203, 101),
    479_841: (3000, 1500, 750), 480_000: (3000, 1500, 750),
}  # fmt: skip

# A model of two layers a side, whose weights and inputs are sines, and what the reference computes with it.
SMALL_AUDIO = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 8,
    "max_source_positions": 30,
}  # fmt: skip
SMALL_TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
}  # fmt: skip
SMALL_AUDIO_ID = 63
SMALL_FRAMES = (60, 37)
SMALL_IDS = ([5, 6, *[63] * 15, 7, 8], [*[0] * 7, 9, *[63] * 9, 10, 11])
SMALL_LOGITS = (
    [-0.098479, 0.413622, -0.660582, 0.798649, -0.805063, 0.678768],
    [-0.283559, 0.145096, 0.017286, -0.176818, 0.307203, -0.386947],
)  # of the first six tokens at the last position
SMALL_PROJECTED = ([0.129177, -0.433231, -0.090200, 0.518534], [-0.233654, 0.176249, 0.520086, 0.156836])
SMALL_GREEDY = ([42, 21, 7, 62, 9, 2], [52, 56, 5, 53, 62, 48])


def small_weight(index: int, name: str, size: int) -> np.ndarray:
    """float32 [size]: the values of the tensor that comes `index`-th in the order of names."""
    values = 0.2 * np.sin(0.7 * np.arange(size) + index)
    shifted: np.ndarray = (values + (name.endswith("weight") and "norm" in name)).astype(np.float32)
    return shifted


def small_features() -> np.ndarray:
    """float32 [2, 8, 60]: the log-mels of two clips."""
    bins, frames = np.arange(1, 9)[:, None], np.arange(2 * 30)
    return np.stack([np.sin(0.05 * frames * bins), np.cos(0.03 * frames * bins)]).astype(np.float32)
