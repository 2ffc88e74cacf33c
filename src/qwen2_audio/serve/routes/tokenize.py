"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...types import Ending, Message
from ..bodies import read_json
from ..convert import clip_params, conversation_of
from ..errors import ApiError, as_api_error
from ..media import fetch_links, links_of
from ..models import served_model
from ..protocol import Body, parse_body
from ..settings import Settings
from ..state import RESERVATION, Reservation, State
from ..stream_reader import run_while_connected


class TokenizeRequest(Body):
    """A `prompt`, text as it stands; or `messages`, a conversation with its clips."""

    prompt: str | None = None
    messages: list[Any] | None = None
    add_special_tokens: bool = True  # of a prompt: <|im_start|> and its like in it are control tokens
    add_generation_prompt: bool = True  # of messages, and the next one
    continue_final_message: bool = False
    return_token_strs: bool = False


class DetokenizeRequest(Body):
    tokens: Annotated[list[int], Field(max_length=1 << 20)]


class TokenizeRoutes:
    """Text to ids and back."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        backend, settings = self._state.backend, self._state.settings
        asked, messages = await read_json(request, settings, _to_tokenize)
        await served_model(self._state, asked.model)  # an adapter has its base's tokens
        if (asked.prompt is None) == (asked.messages is None):
            what = "nothing" if asked.prompt is None else "prompt and messages"
            raise ApiError(f"The request has {what}; expected prompt, or messages.", param="prompt")
        for name in ("add_generation_prompt", "continue_final_message"):
            if asked.prompt is not None and getattr(asked, name) != TokenizeRequest.model_fields[name].default:
                raise ApiError(f"{name} is about messages, and the request has a prompt; leave it out.", param=name)
        if asked.prompt is None:
            ids = await self._ids_of_messages(request, asked, messages)
        else:
            ids = await asyncio.to_thread(backend.encode, asked.prompt, add_special_tokens=asked.add_special_tokens)
        texts = await asyncio.to_thread(backend.token_texts, ids) if asked.return_token_strs else None
        return JSONResponse({"count": len(ids), "max_model_len": backend.context, "tokens": ids, "token_strs": texts})

    async def _ids_of_messages(self, request: Request, asked: TokenizeRequest, messages: list[Message]) -> list[int]:
        both = asked.add_generation_prompt and "add_generation_prompt" in asked.model_fields_set
        if asked.continue_final_message and both:
            message = "continue_final_message and add_generation_prompt exclude each other; give one of them."
            raise ApiError(message, param="continue_final_message")
        settings = self._state.settings
        if links := links_of(messages):
            reservation: Reservation = request.scope[RESERVATION]
            await run_while_connected(request, fetch_links(links, settings, reservation.reserve))
        open_end: Ending = "answer" if asked.add_generation_prompt else "closed"
        ending: Ending = "continued" if asked.continue_final_message else open_end
        try:
            prompt = await asyncio.to_thread(self._state.backend.prompt, messages, ending=ending)
        except Exception as error:
            raise as_api_error(error, settings.retry, clip_params(asked.messages or ())) from error
        return prompt.ids

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        asked = await read_json(request, self._state.settings, _to_detokenize)
        await served_model(self._state, asked.model)  # an adapter has its base's tokens
        return JSONResponse({"prompt": await asyncio.to_thread(self._state.backend.decode, asked.tokens)})


def _to_tokenize(fields: Any, settings: Settings) -> tuple[TokenizeRequest, list[Message]]:
    """The request, and its messages if it has some."""
    asked = parse_body(TokenizeRequest, fields)
    return asked, [] if asked.messages is None else conversation_of(asked.messages, settings)


def _to_detokenize(fields: Any, settings: Settings) -> DetokenizeRequest:
    return parse_body(DetokenizeRequest, fields)
