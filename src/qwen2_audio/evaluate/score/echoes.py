"""Sentences that a chat model puts around a transcript: "The original content of this audio is: '...'"."""

from __future__ import annotations

import re

SPOKEN = r"(?:audio|speech|voice|recording|sound|clip|transcript|transcription|speaker|person|man|woman)"
PREFIX = re.compile(
    rf"^\s*(?:(?:sure|certainly|okay|of course)[,.!]\s+)?(?:here is |here's )?(?:the|this|that)\s+(?:\w+\s+){{0,2}}"
    rf"(?:content\s+of\s+(?:the|this|that)\s+(?:\w+\s+)?{SPOKEN}|{SPOKEN})"
    rf"(?:\s+\w+){{0,3}}?\s*(?:is|says|said|reads)?\s*[:：]\s*"
    rf"|^\s*the original content of this {SPOKEN} is\s*:?\s*"
    r"|^\s*(?:这段|这个|该|此)?(?:音频|语音|录音|声音|话)的?(?:原始|原|转写|文字)?(?:内容|文本|文字)?(?:是|为|说的是)?\s*[:：]\s*",
    re.IGNORECASE,
)
QUOTES = {"'": "'", '"': '"', "“": "”", "‘": "’", "「": "」", "『": "』"}


def without_echo(text: str) -> str:
    """`text` without such a sentence and the quotes behind it; as it is where there is none."""
    match = PREFIX.match(text)
    if match is None:
        return text
    rest = text[match.end() :].strip()
    if rest[:1] in QUOTES and (end := rest.rfind(QUOTES[rest[0]])) > 0 and len(rest) - end <= 2:  # a full stop behind
        return rest[1:end]
    return rest


def has_echo(text: str) -> bool:
    return PREFIX.match(text) is not None
