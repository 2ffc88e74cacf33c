"""AudioChat: a loaded checkpoint that answers conversations, whole, streamed or many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from ..engine.answer import Answer, usage_of
from ..engine.request import Prompt
from ..engine.settings import Limit, generate_options, limit, stop_strings
from ..errors import PromptError
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..processor import Qwen2AudioProcessor
from ..text.chat import IM_END
from ..types import Chunk, Completion, Message, SamplingParams
from . import prompt as prompts
from .answer import Answers, completion_of
from .reuse import Reuse

BATCH_ROWS = 8  # conversations that `batch` computes at a time


class AudioChat:
    """Conversations in, answers out. Made by `load()`.

    Attributes: `model`, `processor`, `name` (folder or hub name), `about` (one line: what this checkpoint is good for),
    `notes` (what was chosen for this machine, and why). Several threads may ask. No answer depends on what was asked
    before; but what a clip and a prompt's beginning cost to compute is kept for the next call (`reuse`, None if off).
    """

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        processor: Qwen2AudioProcessor,
        *,
        name: str = "",
        about: str = "",
        notes: Sequence[str] = (),
        reuse: bool = True,
    ) -> None:
        self.model = model
        self.processor = processor
        self.name = name
        self.about = about
        self.notes = tuple(notes)
        self.reuse = Reuse(model) if reuse else None
        self._template = prompts.own_template(processor)
        tokenizer = processor.tokenizer
        ends = [token for token in tokenizer.all_special_tokens if token in (IM_END, tokenizer.eos_token)]
        self._turn_ends = frozenset(tokenizer.convert_tokens_to_ids(ends))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Completion:
        """The answer to a conversation.

        messages: `user()`, `system()`, `assistant()`, or dicts `{"role", "content"}` with text or a list of parts
        `{"type": "text", "text"}`, `{"type": "audio", "audio": source}`. params: without them the checkpoint's
        generation_config holds, with at most 256 new tokens if it names no number.

        Raises PromptError, AudioError (a clip that cannot be heard as a whole), ContextLengthError, ConfigError.
        """
        params = params or SamplingParams()
        prompt = prompts.build(messages, self.processor, self._template)
        (answer,) = self._answer([prompt], params, self._limit(prompt, params))
        return answer

    def stream(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Iterator[Chunk]:
        """As `chat`, in pieces: their texts joined are its text, and the last one carries the rest.

        The conversation is read and its clips are heard before this returns; the model begins at the first `next()`.
        Closing the iterator, or leaving the loop over it, ends generation after the token under way.
        """
        params = params or SamplingParams()
        prompt = prompts.build(messages, self.processor, self._template)
        return self._chunks(prompt, params, self._limit(prompt, params))

    def batch(
        self, conversations: Sequence[Sequence[Message]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """The answers to several conversations, computed together; greedy ones are as from `chat`.

        A seed covers the batch as a whole: drawn answers depend on their place in it. Raises as `chat` does.
        """
        params = params or SamplingParams()
        if any(isinstance(conversation, dict) for conversation in conversations):
            raise PromptError(
                "batch() got one conversation; expected a list of conversations. Use chat() for one, or batch([...])."
            )
        built = [prompts.build(messages, self.processor, self._template) for messages in conversations]
        # Rows of one limit together: how much room one row has must not shorten another's answer.
        groups: dict[Limit, list[int]] = {}
        for index, prompt in enumerate(built):
            groups.setdefault(self._limit(prompt, params), []).append(index)
        answers: dict[int, Completion] = {}
        for of_group, members in groups.items():
            for start in range(0, len(members), BATCH_ROWS):
                rows = members[start : start + BATCH_ROWS]
                answers |= zip(rows, self._answer([built[i] for i in rows], params, of_group), strict=True)
        return [answers[index] for index in range(len(built))]

    def _answer(self, batch: Sequence[Prompt], params: SamplingParams, most: Limit) -> list[Completion]:
        answers = Answers([self._new_answer(params) for _ in batch])
        self._generate(batch, params, most, answers)
        answers.end(most)
        return [completion_of(prompt, answer) for prompt, answer in zip(batch, answers.rows, strict=True)]

    def _chunks(self, prompt: Prompt, params: SamplingParams, most: Limit) -> Iterator[Chunk]:
        """Generate in a thread, and hand on what arrives."""
        queue: SimpleQueue[str | BaseException | None] = SimpleQueue()
        answer = self._new_answer(params)
        answers = Answers([answer], on_text=queue.put)

        def run() -> None:
            try:
                self._generate([prompt], params, most, answers)
                answers.end(most)
                queue.put(None)
            except BaseException as error:  # whatever it is, it belongs to the reader
                queue.put(error)

        thread = Thread(target=run, name="qwen2-audio-stream", daemon=True)
        thread.start()
        try:
            while (piece := queue.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield Chunk(piece)
        finally:
            answers.cancel()
            thread.join()
        yield Chunk("", answer.finish_reason, usage_of(prompt, answer), prompt.heard)

    def _generate(self, batch: Sequence[Prompt], params: SamplingParams, most: Limit, answers: Answers) -> None:
        reuse = self.reuse if len(batch) == 1 and self.model.generation_config.use_cache is not False else None
        if reuse is None:
            self._search(prompts.to_tensors(batch, self._pad_id), params, most, answers)
            return
        begun = reuse.begin(batch[0], most.tokens)
        answers.rows[0].cached = begun.cached
        inputs = {"input_ids": torch.tensor([batch[0].ids]), "reading": begun.reading}
        reuse.keep(begun, self._search(inputs, params, most, answers)[0].tolist())

    def _search(self, inputs: dict[str, Any], params: SamplingParams, most: Limit, answers: Answers) -> torch.Tensor:
        """`generate`, told what the answers need: ids [B, T + new]."""
        return self.model.generate(  # type: ignore[no-any-return]
            **{name: value.to(self.device) if hasattr(value, "to") else value for name, value in inputs.items()},
            **generate_options(params),
            max_new_tokens=most.tokens,
            eos_token_id=sorted(self._eos_ids),
            pad_token_id=self._pad_id,
            stop_strings=None,  # the answers look after them
            prompt_lookup_num_tokens=None,
            stopping_criteria=[answers],
            seed=params.seed,
        )

    def _new_answer(self, params: SamplingParams) -> Answer:
        return Answer(self.processor.tokenizer, self._eos_ids, stop_strings(params, self.model.generation_config))

    def _limit(self, prompt: Prompt, params: SamplingParams) -> Limit:
        context = self.model.config.text_config.max_position_embeddings
        return limit(prompt, params, self.model.generation_config, context)

    @property
    def _eos_ids(self) -> frozenset[int]:
        """What the checkpoint ends texts with, and the end of a turn: behind it another turn would begin."""
        return self._turn_ends | frozenset(self.model.generation_config.eos_ids)

    @property
    def _pad_id(self) -> int:
        pad = self.processor.tokenizer.pad_token_id
        return min(self._eos_ids, default=0) if pad is None else pad
