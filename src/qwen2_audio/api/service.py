"""A loaded checkpoint behind an engine: conversations in, handles out. What a server and a batch run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.engine import Engine, EngineSettings
from ..engine.metrics import Stats
from ..engine.request import RequestHandle
from ..engine.settings import DEFAULT_MAX_TOKENS
from ..engine.thread import EngineThread
from ..inputs import prompt as prompts
from ..inputs.log_mel_torch import LogMels
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import Prompt
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..text.chat_template import check_messages
from ..types import Message, SamplingParams


class Service:
    """Answers any number of conversations from any number of threads.

    Attributes: `name`, `about`, `context` (positions of prompt and answer), `defaults` (the checkpoint's
    generation_config, as far as SamplingParams can say it).
    """

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        processor: Qwen2AudioProcessor,
        settings: EngineSettings | None = None,
        *,
        name: str = "",
        about: str = "",
        draft: Qwen2AudioForConditionalGeneration | None = None,
    ) -> None:
        """`draft`: a smaller model with the same tokenizer, which guesses what `model` says. Raises ConfigError for
        one whose ids mean something else."""
        self.name, self.about = name, about
        self.context = int(model.config.text_config.max_position_embeddings)
        self._processor, self._template = processor, prompts.custom_template(processor)
        self._log_mels = LogMels(model.device) if model.device.type == "cuda" else None
        self._engine = Engine(model, processor.tokenizer, settings, draft)
        self._generation_config = model.generation_config
        self._thread = EngineThread(self._engine)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What holds where a request says nothing."""
        config = self._generation_config
        drawn = bool(config.do_sample)
        return {
            "max_tokens": config.max_new_tokens or DEFAULT_MAX_TOKENS,
            "temperature": (1.0 if config.temperature is None else config.temperature) if drawn else 0.0,
            "top_p": 1.0 if config.top_p is None else config.top_p,
            "top_k": 50 if config.top_k is None else config.top_k,
            "repetition_penalty": 1.0 if config.repetition_penalty is None else config.repetition_penalty,
        }

    @property
    def version(self) -> str:
        from .. import __version__

        return __version__

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> RequestHandle:
        """Ask for the answer to a conversation; returns at once. Its clips are read on other threads.

        Raises PromptError for messages that are none, BusyError where too many wait. What is found later
        (AudioError, ContextLengthError, ConfigError, CapacityError) is the `error` of the handle's terminal pieces.
        """
        sounds = check_messages(messages)
        return self._thread.submit(
            lambda: self.prompt(messages),
            params or SamplingParams(),
            timeout=timeout,
            priority=priority,
            quick=not sounds,
        )

    def submit_prompt(self, prompt: Prompt, params: SamplingParams) -> RequestHandle:
        """`submit` of a conversation that was read already."""
        return self._thread.submit(lambda: prompt, params, quick=True)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Read a conversation and listen to its clips. Raises PromptError, AudioError."""
        return prompts.build_prompt(messages, self._processor, self._template, self._log_mels)

    def check(self, prompt: Prompt, params: SamplingParams) -> None:
        """Raises ContextLengthError, CapacityError, ConfigError where the engine would not take this."""
        self._engine.check_request(prompt, params)

    def stats(self) -> Stats:
        """What has been counted so far."""
        return self._thread.stats()

    def close(self, grace: float = 0.0) -> None:
        """End: no new requests, `grace` seconds for those under way."""
        self._thread.close(grace)
