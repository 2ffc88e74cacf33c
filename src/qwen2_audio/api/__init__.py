"""The short API: `load()` gives an AudioChat, which answers conversations with sound in them.

`loading` finds and loads a checkpoint, `placement` picks its device and dtype, `messages` makes conversations,
`hearing` reads their clips, `prompt` turns both into ids and features, `settings` settles how an answer is drawn,
`answer` gathers it, `chat` does the whole.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chat import AudioChat as AudioChat
    from .loading import load as load
    from .loading import nano_path as nano_path
    from .messages import assistant as assistant
    from .messages import system as system
    from .messages import user as user

_WHERE = {
    "AudioChat": "chat",
    "load": "loading",
    "nano_path": "loading",
    "user": "messages",
    "system": "messages",
    "assistant": "messages",
}
__all__ = ["AudioChat", "assistant", "load", "nano_path", "system", "user"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
