"""Conversations as the model was trained to read them: template, audio slots and loss mask in one walk.

A conversation is a list of `{"role": str, "content": str | list[part]}`. A part is a clip if it has the key `audio` or
`audio_url`, or the type "audio", or stands in a message of type "audio"; otherwise it is its `text`.
The built-in template is the reference's default one (transformers 5.23); a first turn of a user who sends a clip and
"What is it?" becomes, with \\n for line ends:

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n
    <|im_start|>user\\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\\nWhat is it?<|im_end|>\\n
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PromptError
from ..types import Message

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
DEFAULT_SYSTEM = "You are a helpful assistant."
SOURCE_KEYS = ("audio", "audio_url", "url", "path")  # where a clip's sound may lie, first found wins

# The walk below, in Jinja, for other programs that read our checkpoints. A test proves that they agree.
BUILTIN_TEMPLATE = """\
{%- set clips = namespace(n=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{{ '<|im_start|>' ~ message['role'] ~ '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if 'audio' in part or 'audio_url' in part or message['type'] == 'audio' or part['type'] == 'audio' -%}
{%- set clips.n = clips.n + 1 -%}
{{ 'Audio ' ~ clips.n ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\\n' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


@dataclass(frozen=True)
class AudioSlot:
    """The place of one clip in a conversation."""

    number: int  # 1, 2, 3... over the whole conversation
    source: Any  # path, URL, bytes, samples...; None where the part names no sound
    where: str  # "message 2, part 1"


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation."""

    text: str
    control: bool = False  # one control token; anything else is plain text, whatever it spells
    trained: bool = False  # what an assistant says, and its <|im_end|>: the loss is taken here
    slot: AudioSlot | None = None  # on the <|AUDIO|> of a clip


def walk(
    messages: Sequence[Message], *, add_generation_prompt: bool = False, continue_final_message: bool = False
) -> Iterator[Piece]:
    """The pieces of a conversation in the built-in template; their texts joined are the prompt.

    continue_final_message leaves the last message open after its text. Raises PromptError for messages that are
    malformed or would render nothing.
    """
    _check_conversation(messages, add_generation_prompt and continue_final_message)
    clips = 0
    for index, message in enumerate(messages):
        role = _role_of(message, index)
        if index == 0 and role != "system":
            yield from _turn("system", [Piece(DEFAULT_SYSTEM)])
        content = list(_content_pieces(message, index, clips, trained=role == "assistant"))
        clips += sum(piece.slot is not None for piece in content)
        if continue_final_message and index == len(messages) - 1:
            _check_ends_in_text(message)
            yield from [*_head(role), *content]
        else:
            yield from _turn(role, content)
    if add_generation_prompt:
        yield from _head("assistant")


def _head(role: str) -> Iterator[Piece]:
    yield Piece(IM_START, control=True)
    yield Piece(role)
    yield Piece("\n")


def _turn(role: str, content: Sequence[Piece]) -> Iterator[Piece]:
    yield from _head(role)
    yield from content
    yield Piece(IM_END, control=True, trained=role == "assistant")
    yield Piece("\n")


def _check_ends_in_text(message: Message) -> None:
    content = message["content"]
    if not content and not isinstance(content, str):
        raise PromptError("The final message has no text to continue; give it some, or use add_generation_prompt.")
    if not isinstance(content, str) and _is_clip(message, content[-1]):
        raise PromptError("The final message ends in a clip, not in text to continue; put its text last.")


def _content_pieces(message: Message, index: int, clips: int, *, trained: bool) -> Iterator[Piece]:
    content = message["content"]
    if isinstance(content, str):
        yield Piece(content, trained=trained)
        return
    for part_index, part in enumerate(content):
        where = f"message {index + 1}, part {part_index + 1}"
        if not isinstance(part, dict):
            raise PromptError(f"In {where}: found a {type(part).__name__}, expected a dict with 'text' or 'audio'.")
        if _is_clip(message, part):
            clips += 1
            yield from _clip_pieces(AudioSlot(clips, _source_of(part), where))
        elif "text" in part:
            yield Piece(_text_of(part, where), trained=trained)
        else:
            raise PromptError(
                f"In {where}: found the keys {sorted(map(str, part))}, of which nothing would reach the model; "
                "expected 'text', or 'audio' or 'audio_url' for a clip."
            )


def _is_clip(message: Message, part: dict[str, Any]) -> bool:
    return "audio" in part or "audio_url" in part or "audio" in (message.get("type"), part.get("type"))


def _clip_pieces(slot: AudioSlot) -> Iterator[Piece]:
    yield Piece(f"Audio {slot.number}: ")
    yield Piece(AUDIO_BOS, control=True)
    yield Piece(AUDIO, control=True, slot=slot)
    yield Piece(AUDIO_EOS, control=True)
    yield Piece("\n")


def _source_of(part: dict[str, Any]) -> Any:
    for key in SOURCE_KEYS:
        source = part.get(key)
        if key == "audio_url" and isinstance(source, dict):
            source = source.get("url")
        if source is not None:
            return source
    return None


def _text_of(part: dict[str, Any], where: str) -> str:
    text = part["text"]
    if not isinstance(text, str):
        raise PromptError(f"In {where}: 'text' is a {type(text).__name__}; expected a string.")
    return text


def _check_conversation(messages: Any, both_endings: bool) -> None:
    if both_endings:
        raise PromptError(
            "add_generation_prompt and continue_final_message exclude each other: "
            "the first begins an answer, the second goes on with one; pass one of them."
        )
    if isinstance(messages, dict) or not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise PromptError(f"The conversation is a {type(messages).__name__}; expected a list of messages.")
    if not messages:
        raise PromptError("The conversation is empty; expected at least one message.")


def _role_of(message: Any, index: int) -> str:
    where = f"Message {index + 1}"
    if not isinstance(message, dict):
        raise PromptError(f"{where} is a {type(message).__name__}; expected a dict with 'role' and 'content'.")
    for key in ("role", "content"):
        if key not in message:
            raise PromptError(f"{where} has no {key!r}, found {sorted(map(str, message))}; every message needs one.")
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise PromptError(f"{where} has a {type(role).__name__} as its role; expected a string such as 'user'.")
    if not isinstance(content, (str, list, tuple)):
        raise PromptError(f"{where} has a {type(content).__name__} as its content; expected a string or a list.")
    return role


def render(
    messages: Sequence[Message],
    *,
    template: str | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
) -> str:
    """The prompt of one conversation, in the built-in template or in `template` (Jinja). Raises PromptError."""
    if template is not None and template != BUILTIN_TEMPLATE:
        return render_template(
            template,
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
    pieces = walk(messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message)
    return "".join(piece.text for piece in pieces)


def render_template(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
) -> str:
    """The prompt of one conversation in the Jinja source `template`, run in a sandbox. Raises PromptError."""
    from .jinja_sandbox import render_jinja

    # The walk refuses what would be dropped in silence, whatever the template.
    pieces = list(
        walk(messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message)
    )
    if not continue_final_message:
        return render_jinja(template, messages, add_generation_prompt=add_generation_prompt)
    mark = _mark_absent_from(pieces)
    rendered = render_jinja(template, [*messages[:-1], _marked(messages[-1], mark)], add_generation_prompt=False)
    start = rendered.rfind(mark.rstrip())
    if start < 0:
        raise PromptError("The chat template leaves out the end of the final message, so it cannot be continued.")
    # A template that trims its messages has trimmed the mark's own blank: then it trims the text's blanks too.
    return rendered[:start] if rendered.startswith(mark, start) else rendered[:start].rstrip()


def _mark_absent_from(pieces: Iterable[Piece]) -> str:
    text = "".join(piece.text for piece in pieces)
    mark = "CONTINUE_HERE"
    while mark in text:
        mark += "_"
    return mark + " "


def _marked(message: Message, mark: str) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + mark}
    return {**message, "content": [*content[:-1], {**content[-1], "text": content[-1]["text"] + mark}]}


def conversations(conversation: Any) -> tuple[list[Any], bool]:
    """The conversations in `conversation` (one, or a list of them), and whether it was a list of them."""
    batched = isinstance(conversation, (list, tuple)) and bool(conversation)
    batched = batched and all(isinstance(item, (list, tuple)) for item in conversation)
    return (list(conversation), True) if batched else ([conversation], False)


def render_all(conversation: Any, **options: Any) -> tuple[list[str], bool]:
    """`render` for one conversation or for several; the flag tells which it was."""
    several, batched = conversations(conversation)
    return [render(messages, **options) for messages in several], batched


def audio_sources(messages: Sequence[Message]) -> list[Any]:
    """The sound of each audio slot, in order. Raises PromptError where a slot names none."""
    slots = [piece.slot for piece in walk(messages) if piece.slot is not None]
    for slot in slots:
        if slot.source is None:
            raise PromptError(f"In {slot.where}: the clip names no sound; give it one under any of {SOURCE_KEYS}.")
    return [slot.source for slot in slots]


def encode_pieces(
    pieces: Iterable[Piece], tokenizer: Tokenizer, audio_tokens: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Ids of a walk with `audio_tokens[i]` positions for clip i, and for each id whether the loss is taken there.

    Only the template's own control tokens become control tokens: what users type stays text. Without such text the
    ids are those of the rendered prompt: plain pieces between two control tokens are encoded as one string, because
    BPE joins across their seams ("\\n" + "\\nHi" is one token and a word).
    """
    pieces = list(pieces)
    counts = _slot_counts(pieces, audio_tokens)
    ids: list[int] = []
    trained: list[bool] = []
    run: list[Piece] = []
    for piece in pieces:
        if not piece.control:
            run.append(piece)
            continue
        _encode_run(run, tokenizer, ids, trained)
        run = []
        times = 1 if piece.slot is None else next(counts)
        ids += [_control_id(tokenizer, piece.text)] * times
        trained += [piece.trained] * times
    _encode_run(run, tokenizer, ids, trained)
    return ids, trained


def _slot_counts(pieces: Sequence[Piece], audio_tokens: Sequence[int]) -> Iterator[int]:
    slots = sum(piece.slot is not None for piece in pieces)
    if slots != len(audio_tokens):
        raise PromptError(
            f"The conversation has {slots} clip(s) and {len(audio_tokens)} length(s) were given; expected one for each."
        )
    if min(audio_tokens, default=1) < 1:
        raise PromptError(f"A clip has {min(audio_tokens)} audio tokens and would not be heard; expected at least 1.")
    return iter(audio_tokens)


def _control_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or tokenizer.convert_ids_to_tokens(token_id) != token:
        raise PromptError(
            f"The tokenizer has no {token}, so it cannot encode this template; load a Qwen2-Audio tokenizer, "
            "with its tokenizer_config.json."
        )
    return int(token_id)


def _encode_run(run: Sequence[Piece], tokenizer: Tokenizer, ids: list[int], trained: list[bool]) -> None:
    new_ids, starts = tokenizer.encode_plain("".join(piece.text for piece in run))
    ends: list[int] = []  # where each piece ends in the joined text
    for piece in run:
        ends.append((ends[-1] if ends else 0) + len(piece.text))
    ids += new_ids
    trained += [run[bisect_right(ends, start)].trained for start in starts]
