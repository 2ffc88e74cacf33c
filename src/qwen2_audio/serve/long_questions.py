"""Questions about clips that are longer than a window."""

from __future__ import annotations

import asyncio

from ..audio.limits import Limits
from ..engine.request import RequestHandle
from ..errors import AudioError
from ..longform.questions.policy import Policy
from ..types import Message, SamplingParams
from .convert import clip_params
from .errors import as_api_error, shutting_down
from .state import State


async def long_question(
    state: State, messages: list[Message], params: SamplingParams, policy: Policy, priority: int
) -> RequestHandle | None:
    """Ask about a conversation with a long clip; None where no clip is long.

    Each request to the model has the settings' deadline, and a clip the settings' seconds. ApiError for a clip that
    cannot be read, and for a conversation that is not answered in this way.
    """
    from ..longform.questions.question import Options
    from ..longform.questions.submit import submit

    settings = state.settings
    if state.closing:
        raise shutting_down(settings.retry)
    limits = Limits(max_seconds=settings.clip_seconds, deadline=settings.clip_seconds)
    options = Options(settings.deadline, priority, limits)
    try:
        _, handle = await asyncio.to_thread(submit, state.backend, messages, params, policy, options)
    except AudioError as error:
        raise as_api_error(error, settings.retry, clip_params(messages)) from error
    return handle
