"""The operation `ask`: a question about each clip, with the row's values in it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..datasets.row import Sound
from ..datasets.sounds import load_sound
from ..errors import ConfigError
from ..inputs.clip import LIMITS, AudioClip, clip_from_waveform
from ..inputs.messages import system, user
from ..types import Completion, Message, SamplingParams
from .config import JobConfig
from .operations import Pending, values_of
from .reading import sound_of
from .runner import JobRow
from .speech import AT_ONCE, LongSounds
from .template import fill

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..engine.request import RequestHandle


class Ask:
    """See `operations.Operation`. Clips go to the engine as they are read; where `long` says what becomes of those over
    30 s, each row has a thread, which asks its parts."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        self._chat, self._service, self._config = chat, chat.service(), config
        if config.system and self._service.is_base:
            raise ConfigError(f"{chat.name} is a base checkpoint, which takes no system prompt; leave 'system' out.")
        self._sounds = LongSounds()
        self._threads = None if config.long == "refuse" else ThreadPoolExecutor(min(AT_ONCE, config.in_flight))

    def read(self, item: JobRow) -> Any:
        if self._threads is not None:
            return sound_of(item.row)
        loaded = load_sound(sound := sound_of(item.row), limits=LIMITS)
        return clip_from_waveform(loaded.waveform, sound.name, loaded.notes)

    def submit(self, item: JobRow, read: Any) -> Pending:
        params = self._config.sampling.params(item.number)
        if self._threads is not None:
            return self._threads.submit(self._ask_long, item, read, params)
        clip: AudioClip = read
        handle = self._service.submit(self._messages(item, clip.waveform), params, raw=self._service.is_base)
        return Asked(handle, clip.heard.notes)

    def _messages(self, item: JobRow, audio: Any) -> list[Message]:
        question = user(fill(self._config.ask, values_of(item.row)), audio=audio)
        return [system(self._config.system), question] if self._config.system else [question]

    def _ask_long(self, item: JobRow, sound: Sound, params: SamplingParams) -> Mapping[str, Any]:
        with self._sounds.opened(sound) as source:
            completion = self._chat.chat(self._messages(item, source), params, long=self._config.long)
        return columns_of(completion, [note for clip in completion.heard for note in clip.notes])

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


class Asked:
    """See `operations.Pending`."""

    def __init__(self, handle: RequestHandle, notes: tuple[str, ...]) -> None:
        self._handle, self._notes = handle, notes

    def done(self) -> bool:
        return self._handle.done

    def result(self) -> Mapping[str, Any]:
        (completion,) = self._handle.completions()
        return columns_of(completion, list(self._notes))


def columns_of(completion: Completion, notes: list[str]) -> Mapping[str, Any]:
    """The columns of an answer."""
    usage = completion.usage
    return {
        "text": completion.text,
        "heard": round(sum(clip.seconds for clip in completion.heard), 6),
        "finish_reason": completion.finish_reason,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "audio_tokens": usage.audio_tokens,
            "completion_tokens": usage.completion_tokens,
        },
        "notes": notes,
    }
