"""Errors in OpenAI's form: one table maps this package's errors to HTTP statuses and codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import (
    AudioError,
    BusyError,
    CapacityError,
    ConfigError,
    ContextLengthError,
    LongClipError,
    PromptError,
    Qwen2AudioError,
    ShutdownError,
)

log = logging.getLogger(__name__)

# error -> HTTP status, code
TABLE: dict[type[Exception], tuple[int, str]] = {
    AudioError: (400, "invalid_audio"),
    PromptError: (400, "invalid_messages"),
    ContextLengthError: (400, "context_length_exceeded"),
    ConfigError: (400, "invalid_value"),
    BusyError: (429, "queue_full"),
    CapacityError: (400, "request_too_large"),  # it can never fit, so that a retry is no use
}
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """An error response. `param` names the request's field that is wrong."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str = "invalid_value",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The OpenAI error object."""
        kind = "server_error" if self.status >= 500 else TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class ClientGoneError(Exception):
    """The client has disconnected."""


def busy(message: str, retry: int, code: str = "overloaded") -> ApiError:
    """429: the client may retry after `retry` seconds."""
    return ApiError(message, status=429, code=code, headers={"Retry-After": str(retry)})


def shutting_down(retry: int) -> ApiError:
    """503: the client may retry after `retry` seconds, when another server may have started."""
    message = "The server is shutting down and did not finish this request; try again."
    return ApiError(message, status=503, code="shutting_down", headers={"Retry-After": str(retry)})


def too_slow(seconds: float, remedy: str = "ask for fewer tokens") -> ApiError:
    """503: the deadline has passed. A retry would take as long, so the header tells clients not to."""
    message = f"The answer was not finished within {seconds:g} s, the limit for a request; {remedy}."
    return ApiError(message, status=503, code="deadline_exceeded", headers={"x-should-retry": "false"})


def as_api_error(error: BaseException, retry: int = 2, clip_params: Sequence[str] = ()) -> ApiError:
    """`error` as the client sees it. The details of an unexpected error go to the log only.

    `clip_params`: the request's field of each clip, which is the `param` of an error about that clip.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ShutdownError):
        return shutting_down(retry)
    for kind, (status, code) in TABLE.items():
        if isinstance(error, kind):
            headers = {"Retry-After": str(retry)} if status == 429 else {}
            param, message = None, str(error)
            if isinstance(error, AudioError):
                message = error.sentence
                if isinstance(error, LongClipError):
                    message += ' In a chat completion, "long": "parts" hears it window by window.'
                param = clip_params[error.clip - 1] if error.clip and error.clip <= len(clip_params) else None
            return ApiError(message, status=status, code=code, headers=headers, param=param)
    log.error("A request failed", exc_info=error)
    is_ours = isinstance(error, Qwen2AudioError)
    message = str(error) if is_ours else "The server failed on this request; its log says why."
    return ApiError(message, status=500, code="internal_error")


def respond(error: ApiError) -> Response:
    """The error as a response."""
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (404, 405) in OpenAI's form."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    code, path = CODES.get(error.status_code, "invalid_request"), request.url.path
    message = {
        404: f"There is nothing at {path}. The API begins at /v1, such as /v1/chat/completions.",
        405: f"{path} does not answer {request.method}; expected {headers.get('Allow', 'another method')}.",
    }.get(error.status_code, error.detail)
    return respond(ApiError(message, status=error.status_code, code=code, headers=headers))
