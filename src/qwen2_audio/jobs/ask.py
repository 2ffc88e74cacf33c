"""The operation `ask`: a question about each clip, with the row's values in it; its answer may be held to a schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..datasets.row import Sound
from ..errors import AnswerError, ConfigError
from ..inputs.clip import AudioClip
from ..inputs.messages import system, user
from ..types import Completion, Message, SamplingParams
from .config import JobConfig
from .operations import Pending, usage_of, values_of
from .reading import clip_of, sound_of
from .runner import JobRow
from .speech import AT_ONCE, LongSounds
from .template import fill

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..engine.request import RequestHandle


_SHOWN = 60  # characters of an answer in an error


class Ask:
    """See `operations.Operation`. Clips go to the engine as they are read; where `long` says what becomes of those over
    30 s, each row has a thread, which asks its parts."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        self._chat, self._service, self._config = chat, chat.service(), config
        check_system(chat, config)
        self._is_held = config.json_schema is not None
        if self._is_held:
            self._service.compile(SamplingParams(json_schema=config.json_schema))
        self._sounds = LongSounds()
        self._threads = None if config.long == "refuse" else ThreadPoolExecutor(min(AT_ONCE, config.in_flight))

    def read(self, item: JobRow) -> Any:
        if self._threads is not None:
            return sound_of(item.row)
        return clip_of(item.row)

    def submit(self, item: JobRow, read: Any) -> Pending:
        params = self._config.sampling.params(item.number, self._config.json_schema)
        if self._threads is not None:
            return self._threads.submit(self._ask_long, item, read, params)
        clip: AudioClip = read
        handle = self._service.submit(self._messages(item, clip.waveform), params, raw=self._service.is_base)
        return Asked(handle, clip.heard.notes, self._is_held)

    def _messages(self, item: JobRow, audio: Any) -> list[Message]:
        return behind_system(self._config, user(fill(self._config.ask, values_of(item.row)), audio=audio))

    def _ask_long(self, item: JobRow, sound: Sound, params: SamplingParams) -> Mapping[str, Any]:
        with self._sounds.opened(sound) as source:
            messages = self._messages(item, source)
            completion = completed(lambda: self._chat.chat(messages, params, long=self._config.long), self._is_held)
        return columns_of(completion, [note for clip in completion.heard for note in clip.notes], self._is_held)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


class Asked:
    """See `operations.Pending`."""

    def __init__(self, handle: RequestHandle, notes: tuple[str, ...], is_held: bool) -> None:
        self._handle, self._notes, self._is_held = handle, notes, is_held

    def done(self) -> bool:
        return self._handle.done

    def result(self) -> Mapping[str, Any]:
        return columns_of(completed(self._completion, self._is_held), list(self._notes), self._is_held)

    def _completion(self) -> Completion:
        (completion,) = self._handle.completions()
        return completion


def check_system(chat: AudioChat, config: JobConfig) -> None:
    """Raises ConfigError for a system prompt that the checkpoint does not take."""
    if config.system and chat.service().is_base:
        raise ConfigError(f"{chat.name} is a base checkpoint, which takes no system prompt; leave 'system' out.")


def behind_system(config: JobConfig, message: Message) -> list[Message]:
    """A conversation of the job's system prompt, where it has one, and `message`."""
    return [system(config.system), message] if config.system else [message]


def completed(ask: Callable[[], Completion], is_held: bool) -> Completion:
    """What `ask` returns. A grammar that was compiled, and becomes too complex on an answer's way, is that row's."""
    try:
        return ask()
    except ConfigError as error:
        if not is_held:
            raise
        raise AnswerError(str(error)) from error


def columns_of(completion: Completion, notes: list[str], is_held: bool) -> Mapping[str, Any]:
    """The columns of an answer. Raises AnswerError for one that is held to a schema, and is not whole."""
    return {**_columns(completion, notes), **_parsed(completion)} if is_held else _columns(completion, notes)


def _parsed(completion: Completion) -> Mapping[str, Any]:
    begun = f"{completion.text[:_SHOWN]!r}{' ...' if len(completion.text) > _SHOWN else ''}"
    if completion.finish_reason != "stop":
        raise AnswerError(
            f"The answer ended ({completion.finish_reason}) after {completion.usage.completion_tokens} tokens, before "
            f"its JSON was whole: {begun}; raise sampling.max_tokens, or give strings and lists of the schema a limit."
        )
    try:
        return {"parsed": json.loads(completion.text)}
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"The answer is no JSON ({error}): {begun}.") from error


def _columns(completion: Completion, notes: list[str]) -> Mapping[str, Any]:
    return {
        "text": completion.text,
        "heard": round(sum(clip.seconds for clip in completion.heard), 6),
        "finish_reason": completion.finish_reason,
        "usage": usage_of(completion.usage),
        "notes": notes,
    }
