"""Cantonese in traditional signs to simplified ones, by zhconv, which is GPL and an extra of its own."""

from __future__ import annotations

from ...errors import ConfigError


def to_simplified(text: str) -> str:
    """As zhconv's table zh-cn has it, words included (軟體 becomes 软件). Raises ConfigError without zhconv."""
    try:
        from zhconv.zhconv import convert
    except ImportError as error:
        raise ConfigError(
            "Cantonese is scored in simplified signs by zhconv, which has another licence (GPL-2+) and is not "
            "installed with the rest: pip install 'qwen2-audio[eval-yue]'."
        ) from error
    return str(convert(text, "zh-cn"))
