"""Notes to one answer: in a prompt where they fit, else in levels. No prompt exceeds the budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from ...engine.request import RequestHandle
from ...errors import ContextLengthError
from ...types import Message, Part, SamplingParams
from ..transcribe import MAX_PENDING
from . import wording
from .asker import Asker, Reader
from .parts import part_params
from .recordings import Conversation, text_part

BUDGET = 6000  # tokens of notes, or of a transcript, in a prompt
_FEWEST = 256  # tokens, below which notes say too little to combine them
_GROUP_TOKENS = 256  # of an answer about some of the notes
_FRAME, _OF_MESSAGE = 160, 16  # tokens for the template and the sentences around the notes, and for each message's turn


def budget_of(model: Reader, conversation: Conversation, params: SamplingParams) -> int:
    """Tokens of notes that a prompt of this conversation has room for.

    Raises ContextLengthError where hardly any would fit.
    """
    answer = params.max_tokens or min(int(model.defaults["max_tokens"]), model.context // 4)
    said = sum(model.count_tokens(text) for text in _texts(conversation.messages))
    heard = sum(clip.heard.tokens + _OF_MESSAGE for clip in conversation.clips.values())
    room = model.context - answer - said - heard - _FRAME - _OF_MESSAGE * len(conversation.messages)
    if room < _FEWEST:
        raise ContextLengthError(
            f"The conversation and an answer of {answer} tokens leave {max(0, room)} of the context's "
            f"{model.context} tokens for what is said about the recording, and {_FEWEST} are needed; shorten the "
            "conversation, or ask for fewer tokens with max_tokens."
        )
    return min(BUDGET, room)


def reduced(
    asker: Asker, conversation: Conversation, notes: Sequence[Part], params: SamplingParams, length: float
) -> Iterator[Part]:
    """Answers about groups of notes, level by level, until the notes of the last level fit into a prompt."""
    budget = budget_of(asker.model, conversation, params)
    group_params = part_params(params, min(_GROUP_TOKENS, budget // 4))
    while len(groups := grouped(asker.model, notes, budget)) > 1:
        if len(groups) == len(notes):
            raise ContextLengthError(
                f"{len(notes)} notes on the recording do not fit into {budget} tokens, not even two by two; take "
                "another checkpoint, or ask about parts of the recording."
            )
        level = max(note.level for note in notes) + 1
        waiting, last = deque[tuple[Sequence[Part], RequestHandle]](), list[Part]()
        asked = ((group, asker.ask(messages_with(conversation, group, length), group_params)) for group in groups)
        for _ in groups:
            while len(waiting) < MAX_PENDING and (item := next(asked, None)) is not None:
                waiting.append(item)
            group, handle = waiting.popleft()
            answer = asker.answer(handle)
            part = Part(group[0].start, group[-1].end, answer.text.strip(), level=level)
            last.append(part)
            yield part
        notes = last


def grouped(model: Reader, notes: Sequence[Part], budget: int) -> list[list[Part]]:
    """Notes in order, in as few groups as have at most `budget` tokens each.

    Raises ContextLengthError for a note that has more.
    """
    groups, room = list[list[Part]](), 0
    for note in notes:
        tokens = model.count_tokens(wording.note_line(note))
        if tokens > budget:
            raise ContextLengthError(
                f"What is said of {wording.clock(note.start)} to {wording.clock(note.end)} has {tokens} tokens, and "
                f"{budget} are left in a prompt; shorten the conversation."
            )
        if tokens > room or not groups:
            groups.append([])
            room = budget
        groups[-1].append(note)
        room -= tokens
    return groups


def messages_with(conversation: Conversation, notes: Sequence[Part], length: float) -> list[Message]:
    """The conversation with notes in the place of its recording, which lasts `length` seconds."""
    text = wording.NOTES_HEAD.format(length=wording.clock(length)) + wording.note_lines(notes)
    number = conversation.recordings[0].number
    return conversation.replaced({number: [text_part(text + "\n")]}, wording.NOTES_TAIL)


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if isinstance(message["content"], str):
            yield message["content"]
            continue
        for part in message["content"]:
            yield part.get("text", "")
