"""What a request takes of its prompt's own positions while they are computed: log-probabilities, or hidden states.

    position     0         1        2        3         the logits of a position are those of the token behind it: a
    token        <bos>     The      dog      barks     prompt's first token has none
    logits give  The       dog      barks    (answer)

A prompt is computed in chunks, and after a preemption once more from some point on; each position is taken once.
T positions of a prompt, V vocabulary, H width of the states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np
import torch

from ..audio.mel import num_audio_tokens, num_encoder_frames
from ..checkpoint.config import Qwen2AudioConfig
from ..errors import ConfigError, NumericsError, PromptError
from ..inputs.collate import stack_clips, to_device
from ..inputs.prompt import Prompt
from ..model.encoder import pad_to_window
from ..text.tokenizer import Tokenizer
from ..types import Chunk, PoolingParams, SamplingParams, TokenLogprob
from .executor.adapter_rows import of_encoder
from .executor.forward_batch import ForwardOutput
from .model_interface import EngineModel
from .request import Sequence
from .sampler import logprob_of


class PromptOutput(Protocol):
    """Takes what is wanted of a prompt, chunk by chunk, and hands it over in the last Chunk of the answer."""

    start: int  # the first position that is still to be taken; it must be computed, and not come from the prefix cache
    with_logits: bool  # it needs logits; otherwise the hidden states of `layer`
    layer: int

    def num_logits(self, start: int, end: int) -> int:
        """For how many of the last of positions start .. end - 1 it needs logits."""

    def take(self, start: int, result: ForwardOutput, rows: range, columns: range) -> None:
        """Take positions `start` and following: `rows` of the logits, those of the last ones, and `columns` of the
        hidden states, those of all of them."""

    def put_into(self, chunk: Chunk) -> None:
        """Hand over what was taken."""


class PromptLogprobs:
    """Log-probabilities of a prompt's tokens, and of the likeliest ones at their places."""

    with_logits, layer = True, -1

    def __init__(self, prompt: Prompt, params: SamplingParams, audio_id: int, tokenizer: Tokenizer) -> None:
        """`prompt_logprobs_start` of `params` is in the prompt: `OptionsResolver.limit` has said so."""
        self._ids, self._audio_id, self._tokenizer = prompt.ids, audio_id, tokenizer
        start, length = params.prompt_logprobs_start, len(prompt.ids)
        self._first, self._alternatives = start if start >= 0 else length + start, params.prompt_logprobs or 0
        self._found: dict[int, TokenLogprob] = {}  # by the position of the token
        self.start = self._first_wanted(max(self._first - 1, 0))

    def num_logits(self, start: int, end: int) -> int:
        return max(end - self._first_wanted(max(start, self.start)), 0)

    def _first_wanted(self, position: int) -> int:
        """The first position from `position` on behind which a token of text stands; T where there is none."""
        for following in range(position + 1, len(self._ids)):
            if self._ids[following] != self._audio_id:
                return following - 1
        return len(self._ids)

    def take(self, start: int, result: ForwardOutput, rows: range, columns: range) -> None:
        end = start + len(columns)
        for row, position in zip(rows, range(end - len(rows), end), strict=True):
            if position < self.start or position + 1 >= len(self._ids):
                continue
            token = self._ids[position + 1]
            if token != self._audio_id:
                if not result.greedy[row][1]:
                    raise NumericsError("The model's logits are not numbers (NaN or infinite); check the weights.")
                log_probs = result.log_probs[row]
                self._found[position + 1] = logprob_of(token, log_probs, self._alternatives, self._tokenizer, rank=True)
        self.start = max(self.start, end)

    def put_into(self, chunk: Chunk) -> None:
        chunk.prompt_logprobs = tuple(self._found.get(position) for position in range(self._first, len(self._ids)))


class HiddenStates:
    """Hidden states of one layer, pooled: the embedding of a prompt, or of its clips."""

    with_logits = False

    def __init__(self, params: PoolingParams, positions: int) -> None:
        """`positions`: of the prompt."""
        self.layer = params.layer
        self._params = params
        self.start = positions - 1 if params.pooled_by == "last" else 0
        self._taken: list[torch.Tensor] = []  # [n, H]

    def num_logits(self, start: int, end: int) -> int:
        return 0

    def take(self, start: int, result: ForwardOutput, rows: range, columns: range) -> None:
        skipped = max(self.start - start, 0)
        if skipped < len(columns):
            self.add(result.hidden[self.layer][columns.start + skipped : columns.stop])
            self.start = start + len(columns)

    def add(self, states: torch.Tensor) -> None:
        """Take the next states [n, H]. Raises NumericsError for states that are no numbers."""
        if not states.isfinite().all():
            raise NumericsError(
                "The model's hidden states are not numbers (NaN or infinite); check the weights, or load it in float32."
            )
        self._taken.append(states.float().cpu().clone())  # a copy: a view would keep the whole pass alive

    def put_into(self, chunk: Chunk) -> None:
        if self._taken:
            chunk.embedding = pool(torch.cat(self._taken).numpy(), self._params)


def pool(states: np.ndarray, params: PoolingParams) -> np.ndarray:
    """float32 [T, H] to [H], or to [T, H] with pooling "none"."""
    pooled = {"last": lambda: states[-1], "mean": lambda: states.mean(0), "none": lambda: states}[params.pooled_by]()
    if params.normalize:
        pooled = pooled / np.maximum(np.linalg.norm(pooled, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return np.ascontiguousarray(pooled, dtype=np.float32)


def check_pooling(model: EngineModel, prompt: Prompt, params: PoolingParams) -> None:
    """Raises ConfigError for a layer that the source has not, PromptError for a prompt that it does not read."""
    config = model.config
    states = {
        "language_model": config.text_config.num_hidden_layers + 1,
        "encoder": config.audio_config.encoder_layers + 2,  # its output, behind pooling and norm, is one more
        "projector": 1,
    }[params.source]
    if not -states <= params.layer < states:
        raise ConfigError(
            f"layer is {params.layer}, and the {params.source} has the states 0 to {states - 1}; "
            "-1 is its output, whatever their number."
        )
    if params.source != "language_model" and not prompt.clips:
        raise PromptError(f"source is {params.source!r}, which embeds sound, and there is no clip; give one.")


def num_numbers(config: Qwen2AudioConfig, prompt: Prompt, params: PoolingParams) -> int:
    """How many numbers the embedding of `prompt` has: T x H with pooling "none", else H."""
    text, audio = config.text_config, config.audio_config
    width = audio.d_model if params.source == "encoder" else text.hidden_size
    if params.pooled_by != "none":
        return int(width)
    if params.source == "language_model":
        return int(len(prompt.ids) * width)
    pooled = params.source == "projector" or params.layer in (-1, audio.encoder_layers + 1)
    count = num_audio_tokens if pooled else num_encoder_frames
    return int(sum(map(count, prompt.frames)) * width)


def layer_of(model: EngineModel, params: PoolingParams) -> PoolingParams:
    """`params` with the language model's output as layer -1, however it was named: it costs no other layer's states."""
    last = model.config.text_config.num_hidden_layers
    is_last = params.source == "language_model" and params.layer == last
    return PoolingParams(params.source, -1, params.pooling, params.normalize) if is_last else params


class ClipEmbedder:
    """Requests whose embeddings need only the encoder. Each clip is encoded by itself, so that nothing depends on what
    it comes with. Attribute `jobs`: the unfinished ones.

    Encoder states have 50 frames a second; the encoder's output and the projector's have 25.
    """

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self.jobs: dict[Sequence, Generator[None, None, None]] = {}

    def add(self, sequence: Sequence) -> None:
        """`sequence` has HiddenStates as its prompt_output, which takes the states of its clips."""
        self.jobs[sequence] = self._steps(sequence)

    def run(
        self, seconds: float, is_unfinished: Callable[[Sequence], bool]
    ) -> Iterator[tuple[Sequence, Exception | None]]:
        """Work for about `seconds`, in order of arrival. Yields what has ended, with the error that ended it;
        sequences that are finished already, by a cancellation say, are dropped."""
        until = time.monotonic() + seconds
        while self.jobs and time.monotonic() < until:
            sequence, steps = next(iter(self.jobs.items()))
            if not is_unfinished(sequence):
                del self.jobs[sequence]
                continue
            try:
                with of_encoder(self._model, sequence.request.adapter):
                    next(steps)
            except StopIteration:
                del self.jobs[sequence]
                yield sequence, None
            except Exception as error:  # of a clip, or of the machine: it ends this request
                del self.jobs[sequence]
                yield sequence, error

    def _steps(self, sequence: Sequence) -> Generator[None, None, None]:
        prompt, params, output = sequence.request.prompt, sequence.request.pooling, sequence.prompt_output
        assert params is not None and isinstance(output, HiddenStates)
        for clip, frames in zip(prompt.clips, prompt.frames, strict=True):
            output.add((yield from _clip_in_steps(self._model, clip, frames, params)))


def _clip_in_steps(
    model: EngineModel, clip: np.ndarray, frames: int, params: PoolingParams
) -> Generator[None, None, torch.Tensor]:
    """The states [n, d] of one clip, with a pause before each layer."""
    tower, inputs = model.audio_tower, stack_clips([clip], [frames])
    features = to_device(inputs["input_features"], tower.conv1.weight.device).to(tower.conv1.weight)
    layers: list[torch.Tensor] | None = None if params.layer == -1 or params.source == "projector" else []
    if model.encoder_mask:
        output = yield from tower.encode_in_steps(features, [frames], states=layers)
    else:  # it attends to padding, as some other runtimes do: in one go
        yield
        out = tower(pad_to_window(features, [frames], tower.window), output_hidden_states=layers is not None)
        output = out.last_hidden_state[0, : num_audio_tokens(frames)]
        if layers is not None:
            layers += [state[:, : num_encoder_frames(frames)] for state in out.hidden_states]
    if params.source == "projector":
        return model.multi_modal_projector(output)  # type: ignore[no-any-return]
    return output if layers is None else [*(state[0] for state in layers), output][params.layer]
