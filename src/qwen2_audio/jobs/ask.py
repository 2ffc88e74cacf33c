"""The operation `ask`: a question about each clip, with the row's values in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..datasets.sounds import load_sound
from ..errors import ConfigError
from ..inputs.clip import LIMITS, AudioClip, clip_from_waveform
from ..inputs.messages import system, user
from .config import JobConfig
from .operations import values_of
from .reading import sound_of
from .runner import JobRow
from .template import fill

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..engine.request import RequestHandle


class Ask:
    """See `operations.Operation`."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        self._service, self._config = chat.service(), config
        if config.system and self._service.is_base:
            raise ConfigError(f"{chat.name} is a base checkpoint, which takes no system prompt; leave 'system' out.")

    def read(self, item: JobRow) -> AudioClip:
        loaded = load_sound(sound := sound_of(item.row), limits=LIMITS)
        return clip_from_waveform(loaded.waveform, sound.name, loaded.notes)

    def submit(self, item: JobRow, read: AudioClip) -> Asked:
        question = user(fill(self._config.ask, values_of(item.row)), audio=read.waveform)
        messages = [system(self._config.system), question] if self._config.system else [question]
        params = self._config.sampling.params(item.number)
        handle = self._service.submit(messages, params, raw=self._service.is_base)
        return Asked(handle, read.heard.notes)

    def close(self) -> None: ...


class Asked:
    """See `operations.Pending`."""

    def __init__(self, handle: RequestHandle, notes: tuple[str, ...]) -> None:
        self._handle, self._notes = handle, notes

    def done(self) -> bool:
        return self._handle.done

    def result(self) -> Mapping[str, Any]:
        (completion,) = self._handle.completions()
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
            "notes": list(self._notes),
        }
