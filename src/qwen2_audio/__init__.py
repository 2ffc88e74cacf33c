"""Qwen2-Audio on PyTorch: hears speech, sound and music, answers in text.

    import qwen2_audio as qa
    chat = qa.load()                                                 # the bundled checkpoint; or a folder or hub name
    print(chat.chat([qa.user("What is that sound?", audio="dog.flac")]).text)

Every public name is resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import audio as audio
    from .api.chat import AudioChat as AudioChat
    from .api.loading import load as load
    from .checkpoint.config import Qwen2AudioConfig as Qwen2AudioConfig
    from .checkpoint.config import Qwen2AudioEncoderConfig as Qwen2AudioEncoderConfig
    from .checkpoint.config import Qwen2Config as Qwen2Config
    from .checkpoint.locate import nano_path as nano_path
    from .errors import AudioError as AudioError
    from .errors import CapacityError as CapacityError
    from .errors import ConfigError as ConfigError
    from .errors import ContextLengthError as ContextLengthError
    from .errors import PromptError as PromptError
    from .errors import Qwen2AudioError as Qwen2AudioError
    from .errors import WeightsError as WeightsError
    from .generate.config import GenerationConfig as GenerationConfig
    from .generate.streamers import TextIteratorStreamer as TextIteratorStreamer
    from .generate.streamers import TextStreamer as TextStreamer
    from .inputs.messages import assistant as assistant
    from .inputs.messages import system as system
    from .inputs.messages import user as user
    from .inputs.processor import AutoProcessor as AutoProcessor
    from .inputs.processor import Qwen2AudioProcessor as Qwen2AudioProcessor
    from .jobs.run import run_job as run_job
    from .pretrained import Qwen2AudioEncoder as Qwen2AudioEncoder
    from .pretrained import Qwen2AudioForConditionalGeneration as Qwen2AudioForConditionalGeneration
    from .pretrained import Qwen2AudioModel as Qwen2AudioModel
    from .types import Chunk as Chunk
    from .types import Completion as Completion
    from .types import Heard as Heard
    from .types import SamplingParams as SamplingParams
    from .types import Usage as Usage

__version__ = "0.2.0"  # the one place: the build reads it here

_WHERE = {
    "pretrained": ("Qwen2AudioEncoder", "Qwen2AudioModel", "Qwen2AudioForConditionalGeneration"),
    "inputs.processor": ("AutoProcessor", "Qwen2AudioProcessor"),
    "checkpoint.config": ("Qwen2AudioConfig", "Qwen2AudioEncoderConfig", "Qwen2Config"),
    "generate.config": ("GenerationConfig",),
    "generate.streamers": ("TextStreamer", "TextIteratorStreamer"),
    "checkpoint.locate": ("nano_path",),
    "api.loading": ("load",),
    "api.chat": ("AudioChat",),
    "jobs.run": ("run_job",),
    "inputs.messages": ("user", "system", "assistant"),
    "types": ("SamplingParams", "Completion", "Chunk", "Usage", "Heard"),
    "errors": (
        "Qwen2AudioError",
        "ConfigError",
        "AudioError",
        "PromptError",
        "ContextLengthError",
        "WeightsError",
        "CapacityError",
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [*_MODULE_OF, "__version__", "audio"]


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _MODULE_OF:
            return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        if name == "audio":
            return import_module(".audio", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
