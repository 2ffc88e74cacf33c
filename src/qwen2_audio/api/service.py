"""Service: a loaded checkpoint behind an engine, for AudioChat and the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.engine import Engine, EngineSettings
from ..engine.metrics import Stats
from ..engine.request import RequestHandle
from ..engine.settings import DEFAULT_MAX_TOKENS
from ..engine.thread import EngineThread
from ..inputs import prompt as prompts
from ..inputs.log_mel_torch import LogMels
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import Prompt
from ..longform.settings import TranscriptionSettings
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..text.chat_template import IM_END
from ..types import Message, SamplingParams

if TYPE_CHECKING:
    from .chat import AudioChat


class Service:
    """Answers conversations from any number of threads.

    Attributes: `name`, `about`, `context` (positions of prompt and answer), `defaults` (the fields of SamplingParams
    that the checkpoint's generation_config sets), `transcription` (how it transcribes).
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
        transcription: TranscriptionSettings | None = None,
    ) -> None:
        """`draft`: a smaller model with the same tokenizer, for speculative decoding. Raises ConfigError if its token
        ids differ."""
        self.name, self.about = name, about
        self.transcription = transcription or TranscriptionSettings()
        self.context = int(model.config.text_config.max_position_embeddings)
        self._processor, self._template = processor, prompts.custom_template(processor)
        self._log_mels = LogMels(model.device) if model.device.type == "cuda" else None
        self._engine = Engine(model, processor.tokenizer, settings, draft)
        self._generation_config = model.generation_config
        self._thread = EngineThread(self._engine)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The sampling parameters of a request that sets none."""
        config = self._generation_config
        temperature = 1.0 if config.temperature is None else config.temperature
        return {
            "max_tokens": config.max_new_tokens or DEFAULT_MAX_TOKENS,
            "temperature": temperature if config.do_sample else 0.0,
            "top_p": 1.0 if config.top_p is None else config.top_p,
            "top_k": 50 if config.top_k is None else config.top_k,
            "repetition_penalty": 1.0 if config.repetition_penalty is None else config.repetition_penalty,
        }

    @property
    def is_base(self) -> bool:
        """Whether no answer ends at <|im_end|>: the checkpoint continues prompts, and does not take turns."""
        ends = self._generation_config.eos_ids
        return self._processor.tokenizer.convert_tokens_to_ids(IM_END) not in ends

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
        raw: bool = False,
    ) -> RequestHandle:
        """Submit a conversation to the engine and return at once. Its clips are read on other threads.

        Args:
            timeout: seconds until the request ends with finish_reason "deadline"; None: no limit.
            priority: requests with a lower number are scheduled first.
            raw: the one message is a clip and the prompt of a base checkpoint; no chat template frames it.

        Raises:
            PromptError: malformed messages.
            BusyError: too many requests are waiting.

        Later errors (AudioError, ContextLengthError, ConfigError, CapacityError) are the `error` of the last chunks.
        """
        sources = self._check(messages, raw)
        return self._thread.submit(
            lambda: self.prompt(messages, raw=raw),
            params or SamplingParams(),
            timeout=timeout,
            priority=priority,
            quick=not sources,
        )

    def _check(self, messages: Sequence[Message], raw: bool) -> list[Any]:
        template = None if raw else prompts.template_for(messages, self._processor, self._template)
        return prompts.check_conversation(messages, template)

    def submit_prompt(self, prompt: Prompt, params: SamplingParams) -> RequestHandle:
        """Submit a conversation whose prompt was built already, by `prompt`."""
        return self._thread.submit(lambda: prompt, params, quick=True)

    def prompt(self, messages: Sequence[Message], *, raw: bool = False) -> Prompt:
        """Build a conversation's prompt, or a base checkpoint's, and load its clips. Raises PromptError, AudioError."""
        if raw:
            return prompts.build_base_prompt(messages, self._processor, self._log_mels)
        return prompts.build_prompt(messages, self._processor, self._template, self._log_mels)

    def check(self, prompt: Prompt, params: SamplingParams) -> None:
        """Raises ContextLengthError, CapacityError or ConfigError if the engine would refuse this request."""
        self._engine.check_request(prompt, params)

    def stats(self) -> Stats:
        """The engine's counters."""
        return self._thread.stats()

    def close(self, grace: float = 0.0) -> None:
        """Stop taking requests, let running ones continue for `grace` seconds, and stop the engine."""
        self._thread.close(grace)


def service_of(chat: AudioChat, name: str) -> Service:
    """An engine of its own for a loaded checkpoint, with all that `load` was told. `name`: the model's in the API."""
    return Service(
        chat.model,
        chat.processor,
        chat.settings,
        name=name,
        about=chat.about,
        draft=chat.draft,
        transcription=chat.transcription,
    )
