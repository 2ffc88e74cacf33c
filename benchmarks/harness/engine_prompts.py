"""The same prompts as the engine takes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qwen2_audio.audio.mel import log_mel, num_audio_tokens, num_frames
from qwen2_audio.audio.resample import SAMPLE_RATE
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Heard

from .prompt_ids import question_ids_for


def clip_prompt(config: Qwen2AudioConfig, waveform: npt.NDArray[np.float32], question: int = 0) -> Prompt:
    """The documented question about a clip, float32 [S] at 16 kHz: what a server makes of a clip once it is decoded."""
    frames = num_frames(len(waveform))
    heard = Heard(len(waveform) / SAMPLE_RATE, num_audio_tokens(frames))
    return Prompt(question_ids_for(config, heard.tokens, question), [log_mel(waveform)], [frames], (heard,))


def random_text_prompt(config: Qwen2AudioConfig, length: int, variant: int) -> Prompt:
    """`length` random ids without a clip; others for another `variant`."""
    highest = min(config.text_config.vocab_size, config.audio_token_index)
    ids = np.random.default_rng((length, variant)).integers(0, highest, length)
    return Prompt(ids.tolist(), [], [], ())
