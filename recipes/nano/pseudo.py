"""The language model's first lessons, in parallel to the encoder's: conversations about clips that nobody has made.

Where a clip would be, it reads what an encoder might tell: letters as CTC would find them, slurred, some wrong, with a
colour for the sex, the kind of sound and what is behind (`tables.py`). It learns to read such states, and every fact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from qwen2_audio.distributed.process_group import Processes
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train.masks import encode_base, encode_chat
from qwen2_audio.train.precision import fast_bfloat16

from .conversations import Conversation
from .imagine import imagined
from .loop import Stage
from .tables import Tables
from .writer import Writer

LANGUAGE = Stage("language", steps=1300, batch=32, lr=1.2e-3, warmup=100, decay_from=0.65)
SHARES = {"read": 0.45, "questions": 0.2, "chat": 0.14, "after": 0.02, "both": 0.02, "base": 0.05, "text": 0.12}
POOL = 16  # batches drawn together and sorted by length


@dataclass(frozen=True)
class Lesson:
    ids: list[int]
    trained: list[bool]
    states: list[np.ndarray]


def encoded(conversation: Conversation, tokens: list[int], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids with the audio positions in place, and the loss mask, as the trainer makes them."""
    if conversation.base is not None:
        return encode_base(*conversation.base, tokens[0], tokenizer)
    learned = [i for i, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    return encode_chat(conversation.messages, tokens, tokenizer, learned)


class Lessons:
    """Batches of imagined conversations: inputs [B, T, H], labels [B, T]. They depend on seed and step alone; of
    several processes each has its share of every batch."""

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        tokenizer: Tokenizer,
        seed: int,
        here: Processes | None = None,
    ) -> None:
        self.model, self.tokenizer, self.seed, self.here = model, tokenizer, seed, here or Processes()
        self.tables = Tables.drawn(model.config.audio_config.d_model)
        self._pool: tuple[int, list[list[Lesson]]] = (-1, [])

    def __call__(self, step: int) -> list[Lesson]:
        number = step // POOL
        if self._pool[0] != number:
            rng = np.random.default_rng((self.seed, 5, number))
            clips = [imagined(rng) for _ in range(POOL * LANGUAGE.batch)]
            writer = Writer(clips, SHARES)
            lessons = sorted((self._lesson(writer, i, rng) for i in range(len(clips))), key=lambda one: len(one.ids))
            batches = [lessons[at : at + LANGUAGE.batch] for at in range(0, len(lessons), LANGUAGE.batch)]
            self._pool = (number, [batches[i] for i in rng.permutation(len(batches))])
        return self._pool[1][step % POOL][self.here.rank :: self.here.size]

    def _lesson(self, writer: Writer, clip: int, rng: np.random.Generator) -> Lesson:
        conversation = writer.write(clip, rng)
        states = [self.tables.states(writer.clips[i], rng) for i in conversation.clips]
        ids, trained = encoded(conversation, [len(one) for one in states], self.tokenizer)
        return Lesson(ids, trained, states)

    def loss(self, step: int) -> torch.Tensor:
        """The mean over the trained tokens of this process's lessons, weighted so that the mean over all processes is
        that of the whole batch."""
        lessons, model = self(step), self.model
        longest = max(len(lesson.ids) for lesson in lessons)
        ids = torch.full((len(lessons), longest), self.tokenizer.pad_token_id or 0)
        trained = torch.zeros(len(lessons), longest, dtype=torch.bool)
        for row, lesson in enumerate(lessons):
            ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
            trained[row, : len(lesson.ids)] = torch.tensor(lesson.trained)
        states = [one for lesson in lessons for one in lesson.states]
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            inputs = model.get_input_embeddings()(ids)
            if states:
                audio = model.multi_modal_projector(torch.from_numpy(np.concatenate(states))).to(inputs.dtype)
                heard = (ids == model.config.audio_token_index)[..., None]
                inputs = inputs.masked_scatter(heard, audio)
            # Causal, and padded on the right: no valid position sees the padding, so no mask is needed.
            hidden = model.language_model(inputs_embeds=inputs, logits_to_keep=1).last_hidden_state
            head = model.language_model.lm_head
            assert head is not None
            logits = head(hidden[:, :-1][trained[:, 1:]])
        mine = F.cross_entropy(logits.float(), ids[trained], reduction="sum")
        return mine * self.here.size / self.here.total({"tokens": float(trained.sum())})["tokens"]
