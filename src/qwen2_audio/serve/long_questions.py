"""Questions about clips that are longer than a window."""

from __future__ import annotations

import asyncio

from ..audio.limits import Limits
from ..engine.request import RequestHandle
from ..errors import AudioError
from ..longform.questions.policy import Policy
from ..types import Message, SamplingParams
from .convert import clip_params, ending_of
from .errors import ApiError, as_api_error, shutting_down
from .models import ServedModel
from .protocol import ChatRequest


async def long_question(
    model: ServedModel, chat: ChatRequest, messages: list[Message], params: SamplingParams, policy: Policy
) -> RequestHandle | None:
    """Ask about a conversation with a long clip; None where no clip is long.

    Each request to the model has the settings' deadline, and a clip the settings' seconds. ApiError for a clip that
    cannot be read, for a conversation that is not answered in this way, and for fields that would not act on it.
    """
    from ..longform.questions.question import Options
    from ..longform.questions.submit import submit

    settings = model.state.settings
    if model.state.closing:
        raise shutting_down(settings.retry)
    limits = Limits(max_seconds=settings.clip_seconds, deadline=settings.clip_seconds)
    options = Options(settings.deadline, chat.priority, limits)
    try:
        _, handle = await asyncio.to_thread(submit, model.backend, messages, params, policy, options)
    except AudioError as error:
        raise as_api_error(error, settings.retry, clip_params(chat.messages)) from error
    if handle is not None and ending_of(chat) != "answer":
        handle.cancel()
        field = "continue_final_message" if chat.continue_final_message else "add_generation_prompt"
        message = f"{field} shapes one prompt, and a clip of more than 30 s is asked about in several; leave it out."
        raise ApiError(message, param=field, code="unsupported_value")
    return handle
