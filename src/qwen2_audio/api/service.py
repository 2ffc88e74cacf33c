"""Service: a loaded checkpoint behind an engine, for AudioChat and the server."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..engine.adapters import LoadedAdapter
from ..engine.engine import Engine, EngineSettings
from ..engine.metrics import Stats
from ..engine.prompt_outputs import num_numbers
from ..engine.request import RequestHandle
from ..engine.settings import DEFAULT_MAX_TOKENS
from ..engine.thread import EngineThread
from ..errors import BusyError, ConfigError, PromptError
from ..inputs import prompt as prompts
from ..inputs.log_mel_torch import LogMels
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import Prompt
from ..longform.settings import TranscriptionSettings
from ..longform.word_times import Aligner
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..text.chat_template import IM_END
from ..types import Ending, Message, PoolingParams, SamplingParams
from .decisions import PendingDecision, Question, ask_all
from .embedding import input_of, prompt_of

if TYPE_CHECKING:
    from .chat import AudioChat


class Service:
    """Answers conversations from any number of threads.

    Attributes: `name`, `about`, `context` (positions of prompt and answer), `defaults` (the fields of SamplingParams
    that the checkpoint's generation_config sets), `transcription` (how it transcribes), `aligner` (finds times of words
    where the checkpoint has a head for that, as its `ensure_available` says).
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
        path = self.transcription.aligner
        self.aligner = Aligner(model.audio_tower, None if path is None else Path(path), name)
        self.context = int(model.config.text_config.max_position_embeddings)
        self._processor, self._template = processor, prompts.custom_template(processor)
        self._log_mels = LogMels(model.device) if model.device.type == "cuda" else None
        self._engine = Engine(model, processor.tokenizer, settings, draft)
        self._config, self._generation_config = model.config, model.generation_config
        self._thread = EngineThread(self._engine)
        self._adapter: LoadedAdapter | None = None
        self._views: dict[LoadedAdapter, Service] = {}  # those that `with_adapter` made

    def adapters(self) -> list[str]:
        """Names of the adapters that requests may have, in order. Raises ConfigError for a folder that has gone."""
        return self._engine.adapters.names()

    def with_adapter(self, name: str) -> Service:
        """This service, with an adapter added to whatever is computed for its requests; it is read at first use.

        Raises UnknownAdapterError, WeightsError for files that are damaged or do not fit, and BusyError where requests
        use as many others as may be in memory.
        """
        adapters = self._engine.adapters
        adapter = adapters.load(name)
        view = self._views.get(adapter)
        if view is None:
            view = copy.copy(self)
            view._adapter = adapter
        # One for each adapter in memory: what is kept for a service, such as transcripts, is found again.
        self._views[adapter] = view
        for other in [other for other in list(self._views) if not adapters.holds(other)]:
            self._views.pop(other, None)
        return view

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

    def count_tokens(self, text: str) -> int:
        """Positions that a text takes in a prompt."""
        return len(self._processor.tokenizer.encode_plain(text)[0])

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        raw: bool = False,
        ending: Ending = "answer",
    ) -> RequestHandle:
        """Submit a conversation to the engine and return at once. Its clips are read on other threads.

        Args:
            timeout: seconds until the request ends with finish_reason "deadline"; None: no limit.
            priority: requests with a lower number are scheduled first.
            raw: the one message is a clip and the prompt of a base checkpoint; no chat template frames it.
            ending: "continued": the answer goes on with the text of the last message.

        Raises:
            PromptError: malformed messages.
            BusyError: too many requests are waiting.

        Later errors (AudioError, ContextLengthError, ConfigError, CapacityError) are the `error` of the last chunks.
        """
        sources, params = self._check(messages, raw), params or SamplingParams()

        def prepare() -> Prompt:
            if params.constraint is not None:
                self._engine.compile(params)
            return self.prompt(messages, raw=raw, ending=ending)

        return self._thread.submit(
            prepare,
            params,
            timeout=timeout,
            priority=priority,
            quick=not sources,
            adapter=self._adapter,
        )

    def _check(self, messages: Sequence[Message], raw: bool) -> list[Any]:
        template = None if raw else prompts.template_for(messages, self._processor, self._template)
        return prompts.check_conversation(messages, template)

    def submit_prompt(self, prompt: Prompt, params: SamplingParams) -> RequestHandle:
        """Submit a conversation whose prompt was built already, by `prompt`."""
        return self._thread.submit(lambda: prompt, params, quick=True, adapter=self._adapter)

    def submit_embedding(
        self,
        source: Any,
        params: PoolingParams,
        *,
        timeout: float | None = None,
        priority: int = 0,
        check_size: Callable[[int], None] | None = None,
    ) -> RequestHandle:
        """Submit an EmbeddingInput, or what `input_of` makes one of; its last Chunk has the embedding. `check_size` is
        told on another thread, before anything is computed, how many numbers it will have.

        Raises BusyError; later errors are those of `submit`, and what `check_size` raises.
        """

        def prepare() -> Prompt:
            prompt = prompt_of(input_of(source), self._processor, self._template, self._log_mels)
            if check_size is not None:
                check_size(num_numbers(self._config, prompt, params))
            return prompt

        return self._thread.submit(prepare, params, timeout=timeout, priority=priority, adapter=self._adapter)

    def submit_decisions(
        self,
        messages: Sequence[Message],
        questions: Sequence[Question],
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[PendingDecision]:
        """Submit questions about one conversation, whose clips are read once. Raises as `submit`."""
        tokenizer, built, lock = self._processor.tokenizer, list[Prompt](), Lock()
        asked = ask_all(messages, questions, lambda text: tokenizer.encode_plain(text)[0], self._engine.eos_ids)
        for item in asked:
            self._check(item.messages, raw=False)

        def prompt(messages: Sequence[Message], answer: str) -> Prompt:
            with lock:
                if not built:
                    built.append(self.prompt(messages))
            new = prompts.reword_prompt(built[0], messages, self._processor, self._template)
            return new.with_ids([*new.ids, *tokenizer.encode_plain(answer)[0]]) if answer else new

        submit = partial(self._thread.submit, timeout=timeout, priority=priority, adapter=self._adapter)
        pending: list[PendingDecision] = []
        try:
            for item in asked:
                pending.append(PendingDecision(item, []))
                for answer, params in item.requests:
                    pending[-1].handles.append(submit(partial(prompt, item.messages, answer), params))
        except BusyError:
            for one in pending:
                one.cancel()
            raise
        return pending

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; U+FFFD where it is a part of a character. Raises PromptError for other ids."""
        tokenizer = self._processor.tokenizer
        if wrong := [token for token in ids if not 0 <= token < len(tokenizer)]:
            raise PromptError(f"There is no token {wrong[0]}; expected ids from 0 to {len(tokenizer) - 1}.")
        return [tokenizer.token_bytes(token).decode("utf-8", "replace") for token in ids]

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text as it stands; with `add_special_tokens`, a control token in it is one, as in a prompt."""
        tokenizer = self._processor.tokenizer
        return list(tokenizer(text)["input_ids"]) if add_special_tokens else tokenizer.encode_plain(text)[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included. Raises PromptError as `token_texts`."""
        self.token_texts(ids)
        return str(self._processor.tokenizer.decode(list(ids)))

    def prompt(self, messages: Sequence[Message], *, raw: bool = False, ending: Ending = "answer") -> Prompt:
        """Build a conversation's prompt, or a base checkpoint's, and load its clips. Raises PromptError, AudioError."""
        if raw:
            return prompts.build_base_prompt(messages, self._processor, self._log_mels)
        return prompts.build_prompt(messages, self._processor, self._template, self._log_mels, ending=ending)

    def check(self, prompt: Prompt, params: SamplingParams | PoolingParams) -> None:
        """Raises ContextLengthError, CapacityError or ConfigError if the engine would refuse this request."""
        self._engine.check_request(prompt, params)

    def compile(self, params: SamplingParams) -> None:
        """Have ready what the answers of `params` are held to. Raises ConfigError where it cannot be honoured."""
        self._engine.compile(params)

    def set_up_grammars(self) -> None:
        """Have ready what the first answer with a schema or a grammar would wait for, about a second.

        Does nothing for a checkpoint without a token that ends an answer: requests for schemas are told so.
        """
        with suppress(ConfigError):
            self._engine.set_up_grammars()

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
