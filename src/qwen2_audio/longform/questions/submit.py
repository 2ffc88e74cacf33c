"""Where a question about a conversation with a long clip begins: which clips are long, and whether it can be answered.

parts:       windows -> an answer each -> notes -> in levels while they exceed the budget -> the answer
native:      windows -> one prompt -> the answer
transcript:  windows -> text, kept by content -> one prompt, or ten-minute blocks as parts -> the answer
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ...engine.request import RequestHandle
from ...errors import AudioError, PromptError
from ...types import Message, SamplingParams
from .asker import Reader
from .policy import Policy, parse_policy
from .question import Options, Question
from .recordings import Conversation, read_conversation


def submit(
    model: Reader,
    messages: Sequence[Message],
    params: SamplingParams,
    long: str | Policy,
    options: Options | None = None,
) -> tuple[Sequence[Message], RequestHandle | None]:
    """Look at the conversation's clips, and ask if one of them is long.

    Returns the conversation, in which links and pipes are bytes, and the handle; or None instead of a handle where no
    clip is long, so that the model can be asked as usual. The handle's chunks are parts as they are answered, then
    deltas of the answer.

    Raises ConfigError for another value of `long`, AudioError for a clip that cannot be read, and PromptError or
    AudioError for a conversation that is not answered in this way, naming the clip.
    """
    policy = parse_policy(long) if isinstance(long, str) else long
    options = options or Options()
    if policy.kind == "refuse":
        return messages, None
    conversation = read_conversation(messages, options.limits)
    if conversation is None or not conversation.recordings:
        return (messages if conversation is None else conversation.messages), None
    try:
        check(conversation, policy)
    except BaseException:
        conversation.close()
        raise
    question = Question(model, conversation, params, policy, options)
    threading.Thread(target=question.run, name="qwen2-audio-long", daemon=True).start()
    return conversation.messages, question.handle


def check(conversation: Conversation, policy: Policy) -> None:
    """Raises AudioError or PromptError, naming the clip, for a conversation that `policy` does not answer."""
    first, *others = conversation.recordings
    last, index = conversation.messages[-1]["content"], len(conversation.messages) - 1
    places = {(recording.message, recording.part) for recording in conversation.recordings}
    if not isinstance(last, str) and all((index, number) in places for number in range(len(last))):
        raise PromptError(
            f"{first.called} lasts longer than is heard at once, and comes without a question; ask one in the same "
            "message, such as 'What is said?'."
        )
    if policy.kind != "parts":
        return
    if others:
        raise AudioError(
            f"{first.called} and {others[0].called} both last longer than is heard at once, and long='parts' hears one "
            "such clip; ask about each by itself, or with long='transcript'.",
            clip=others[0].number,
        )
    if first.message != index:
        raise AudioError(
            f"{first.called} lasts longer than is heard at once and stands in message {first.message + 1}, and "
            "long='parts' hears such a clip of the last message; give it there again, or ask with long='transcript'.",
            clip=first.number,
        )
