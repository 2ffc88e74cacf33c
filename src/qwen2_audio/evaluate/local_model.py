"""A checkpoint on this machine, asked through the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..api.chat import AudioChat
from ..checkpoint.fingerprint import weights_fingerprint
from ..checkpoint.hub import resolve
from ..checkpoint.weights import PATTERNS
from ..errors import NumericsError
from ..inputs import prompt as prompts
from ..inputs.collate import to_tensors
from ..inputs.prompt import Prompt
from ..longform.questions.submit import submit
from ..types import Message
from .question import Answer, Form, Question, form_of
from .registry.warnings import CheckpointFacts
from .task import Task


class LocalModel:
    """See `question.Model`. `chat` is the loaded checkpoint; `options` are those it was loaded with."""

    def __init__(self, chat: AudioChat, options: Mapping[str, Any]) -> None:
        """`options`: adapter and quantize, as `load` takes them."""
        self.chat = chat
        self.name = Path(chat.name).name if Path(chat.name).is_dir() else chat.name
        self.settings = {
            "dtype": str(chat.dtype).removeprefix("torch."),
            **{name: str(value) for name, value in options.items() if value is not None and name == "quantize"},
        }
        adapter = options.get("adapter")
        folders = [resolve(chat.name, PATTERNS, local_files_only=True), *([Path(adapter)] if adapter else [])]
        self.fingerprint = weights_fingerprint(folders, self.settings)
        self.in_flight = 2 * chat.settings.max_num_seqs  # so that the engine always finds the next one prepared
        self.dropped: tuple[str, ...] = ()
        # Of a model that several processes share, a plain pass of this one would wait for the others for ever.
        self.scores_answers = not torch.distributed.is_initialized()
        self._service = chat.service()

    def form(self, task: Task) -> Form:
        return form_of(task, is_base=self._service.is_base)

    def facts(self, task: Task) -> CheckpointFacts:
        penalty = task.decoding.repetition_penalty
        foreign = prompts.custom_template(self.chat.processor) is not None
        return CheckpointFacts(
            "base" if self._service.is_base else "instruct",
            self._service.defaults["repetition_penalty"] if penalty is None else penalty,
            "foreign" if foreign else "official",
        )

    def submit(self, question: Question) -> Callable[[], Answer]:
        messages: Sequence[Message] = question.messages()
        handle = None
        if question.long != "refuse":
            messages, handle = submit(self._service, messages, question.params, question.long)
        if handle is None:
            handle = self._service.submit(messages, question.params, raw=question.form == "base")

        def wait() -> Answer:
            try:
                (completion,) = handle.completions()
            finally:
                handle.cancel()  # after an interrupt; without effect on a finished one
            return Answer(completion.text, completion.usage.completion_tokens, completion.finish_reason)

        return wait

    def logprob(self, question: Question, answer: str) -> float:
        """The mean log-probability (natural) of the tokens of `answer`, given the question: teacher-forced, computed
        by the plain forward pass. Raises PromptError or AudioError as a question does."""
        prompt = self._service.prompt(question.messages(), raw=question.form == "base")
        tokenizer = self.chat.processor.tokenizer
        ids, _ = tokenizer.encode_plain(answer)
        if not ids:
            ids = [min(self.chat.model.generation_config.eos_ids)]
        whole = Prompt([*prompt.ids, *ids], prompt.clips, prompt.frames, prompt.heard)
        model = self.chat.model
        inputs = {name: tensor.to(model.device) for name, tensor in to_tensors([whole], 0).items()}
        with torch.inference_mode():
            logits = model(**inputs).logits[0, len(prompt.ids) - 1 : -1].float()
        chosen = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids, device=logits.device)]
        value = float(chosen.mean())
        if value != value:
            raise NumericsError(f"The log-probability of {answer[:40]!r} is NaN; the weights or a kernel are damaged.")
        return value

    def close(self) -> None:
        """The engine ends with the chat that it was made of."""
