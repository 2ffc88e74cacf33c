"""POST /v1/decisions in OpenAI's shape, POST /v1/systemone in TypeSafe's and vLLM's: how likely each answer is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...api.decisions import Decision, PendingDecision, Question, shown
from ...errors import PromptError
from ...types import Message
from ..bodies import read_json
from ..convert import clip_params, conversation_of, parts_of
from ..errors import ApiError
from ..input_items import messages_of_input, part_of
from ..media import fetch_links, links_of
from ..models import ServedModel, served_model
from ..protocol import Body, CacheHints, json_type, parse_body
from ..settings import Settings
from ..state import RESERVATION, Reservation, State
from ..stream_reader import collect, run_while_connected, stream

Labels = Literal["letters", "words"]
MOST_OF_QUESTION = 16 << 10  # characters
MOST_OF_CHOICE = 4 << 10  # characters, with its description


class DecisionsRequest(Body, CacheHints):
    """OpenAI's fields, and `labels`."""

    input: str | list[Any]
    questions: Annotated[list[dict[str, Any]], Field(min_length=1)]
    labels: Labels = "letters"
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None


class SystemOneRequest(Body):
    """TypeSafe's fields, vLLM's `instructions` and media, and `labels`."""

    state: Any = None
    questions: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    audio: list[Any] = Field(default_factory=list)
    images: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    videos: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    labels: Labels = "letters"


class DecisionRoutes:
    """Answers questions whose answers are given."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def decisions(self, request: Request) -> Response:
        """POST /v1/decisions."""
        arrived = asyncio.get_running_loop().time()
        asked, messages, questions, clips = await read_json(request, self._state.settings, _openai)
        model = await served_model(self._state, asked.model)
        answers = await self._decide(request, model, messages, questions, arrived, asked.priority, clips)
        names = [question.get("name") for question in asked.questions]
        body = [_openai_answer(answer, name) for answer, name in zip(answers, names, strict=True)]
        cached = sum(answer.usage.cached_tokens for answer in answers)
        prompt = sum(answer.usage.prompt_tokens for answer in answers)
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": prompt - cached},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt,
        }
        return JSONResponse({"answers": body, "model": model.name, "usage": usage})

    async def systemone(self, request: Request) -> Response:
        """POST /v1/systemone."""
        arrived = asyncio.get_running_loop().time()
        asked, messages, questions = await read_json(request, self._state.settings, _systemone)
        model = await served_model(self._state, asked.model)
        clips = [f"audio[{number}]" for number in range(len(asked.audio))]
        answers = await self._decide(request, model, messages, questions, arrived, asked.priority, clips)
        body = {
            name: _systemone_answer(answer, asked.questions[name])
            for name, answer in zip(asked.questions, answers, strict=True)
        }
        prompt = sum(answer.usage.prompt_tokens for answer in answers)
        return JSONResponse(
            {"model": model.name, "answers": body, "usage": {"input_tokens": prompt, "output_tokens": 0}}
        )

    async def _decide(
        self,
        request: Request,
        model: ServedModel,
        messages: list[Message],
        questions: Sequence[Question],
        arrived: float,
        priority: int,
        clips: Sequence[str],
    ) -> list[Decision]:
        """The decisions. `clips`: the request's field of each clip, for errors."""
        state = self._state
        if links := links_of(messages):
            reservation: Reservation = request.scope[RESERVATION]
            await run_while_connected(request, fetch_links(links, state.settings, reservation.reserve))
        timeout = state.seconds_left(arrived)
        # In a thread: it writes and tokenizes each question.
        pending = await asyncio.to_thread(
            model.backend.submit_decisions, messages, questions, timeout=timeout, priority=priority
        )
        return await run_while_connected(request, self._collect_all(pending, clips))

    async def _collect_all(self, pending: Sequence[PendingDecision], clips: Sequence[str]) -> list[Decision]:
        decisions = []
        try:
            for one in pending:
                completions = []
                for handle in one.handles:
                    async with aclosing(stream(handle, self._state.settings, clips)) as chunks:
                        completions += await collect(chunks, 1)
                decisions.append(one.asked.decision(completions))
        finally:
            for one in pending:  # after an error
                one.cancel()
        return decisions


def _openai(fields: Any, settings: Settings) -> tuple[DecisionsRequest, list[Message], list[Question], list[str]]:
    """The request, the conversation, the questions about it, and the field of each clip. ApiError for a field that is
    wrong."""
    asked = parse_body(DecisionsRequest, fields)
    questions = [
        _openai_question(question, f"questions[{number}]", asked.labels)
        for number, question in enumerate(asked.questions)
    ]
    items, places = messages_of_input(asked.input)
    messages = conversation_of(items, settings, "input", places)
    return asked, messages, questions, clip_params(items, places)


def _systemone(fields: Any, settings: Settings) -> tuple[SystemOneRequest, list[Message], list[Question]]:
    """As `_openai`."""
    asked = parse_body(SystemOneRequest, fields)
    questions = [
        _systemone_question(question, f"questions.{name}", asked.labels) for name, question in asked.questions.items()
    ]
    return asked, _state_messages(asked, settings), questions


def _state_messages(asked: SystemOneRequest, settings: Settings) -> list[Message]:
    """The conversation that System One's fields make: instructions, clips, state."""
    clips = [{"type": "audio", "audio": clip} if isinstance(clip, str) else clip for clip in asked.audio]
    parts = parts_of(clips, settings, "audio")
    if asked.state not in (None, "", [], {}):
        parts.append({"type": "text", "text": _content(asked.state)})
    if not parts:
        raise ApiError("The request has neither state nor audio; there is nothing to decide about.", param="state")
    user: Message = {"role": "user", "content": parts}
    return [user] if asked.instructions is None else [{"role": "system", "content": asked.instructions}, user]


def _openai_question(source: dict[str, Any], field: str, labels: Labels) -> Question:
    kind = source.get("type")
    own = {"predicate": (), "choice": ("choices",), "score": ("levels",)}
    if not isinstance(kind, str) or kind not in own:
        raise ApiError(f"{field}.type is {kind!r}; expected predicate, choice or score.", param=f"{field}.type")
    _check_keys(source, ("type", "name", "instructions", *own[kind]), field)
    if not isinstance(name := source.get("name"), str | None):
        raise ApiError(f"{field}.name is {json_type(name)}; expected a string.", param=f"{field}.name")
    text = _instructions(source.get("instructions"), f"{field}.instructions")
    if kind == "predicate":
        return _question(text, ((True, ""), (False, "")), "predicate", labels, field)
    key, entry = ("choices", "value") if kind == "choice" else ("levels", "label")
    options = []
    for number, option in enumerate(_list(source.get(key), f"{field}.{key}")):
        where = f"{field}.{key}[{number}]"
        if not isinstance(option, dict):
            raise ApiError(f"{where} is {json_type(option)}; expected an object with {entry}.", param=where)
        _check_keys(option, (entry, "description"), where)
        description = option.get("description")
        options.append((option.get(entry), "" if description is None else description))
    return _question(text, tuple(options), "choice" if kind == "choice" else "score", labels, field)


def _systemone_question(source: dict[str, Any], field: str, labels: Labels) -> Question:
    kind, criteria = source.get("type"), source.get("criteria")
    if kind not in ("noul", "choice", "score"):
        raise ApiError(f"{field}.type is {kind!r}; expected noul, choice or score.", param=f"{field}.type")
    _check_keys(source, ("type", "instructions", "criteria"), field)
    text = _instructions(source.get("instructions"), f"{field}.instructions")
    where = f"{field}.criteria"
    if kind == "score":
        levels = tuple((_content(level), "") for level in _list(criteria, where))
        return _question(text, levels, "score", labels, field)
    if criteria is not None and not isinstance(criteria, dict):
        raise ApiError(f"{where} is {json_type(criteria)}; expected an object.", param=where)
    if kind == "noul":
        known = criteria or {}
        _check_keys(known, ("true", "false"), where)
        options = tuple((value, _content(known.get(name))) for value, name in ((True, "true"), (False, "false")))
        return _question(text, options, "predicate", labels, field)
    return _question(
        text, tuple((name, _content(said)) for name, said in (criteria or {}).items()), "choice", labels, field
    )


def _question(text: str, options: tuple[Any, ...], kind: Any, labels: Labels, field: str) -> Question:
    for value, description in options:
        if not isinstance(value, (str, bool)) or not isinstance(description, str):
            wrong = value if not isinstance(value, (str, bool)) else description
            raise ApiError(f"{field} has the option {wrong!r:.60}; expected texts.", param=field)
        if (length := len(shown(value)) + len(description)) > MOST_OF_CHOICE:
            raise ApiError(
                f"{field} has a choice of {length} characters; expected {MOST_OF_CHOICE} at most.", param=field
            )
    if len(text) > MOST_OF_QUESTION:
        raise ApiError(f"{field} has {len(text)} characters; expected {MOST_OF_QUESTION} at most.", param=field)
    try:
        return Question(text, options, kind, labels)
    except PromptError as error:
        raise ApiError(str(error), param=field) from error


def _instructions(value: Any, field: str) -> str:
    if isinstance(value, list):
        parts = [part_of(part, f"{field}[{number}]") for number, part in enumerate(value)]
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
            raise ApiError(f"{field} has a part that is no text; expected input_text or input_json.", param=field)
        return "\n".join(part["text"] for part in parts)
    if not isinstance(value, str):
        raise ApiError(f"{field} is {json_type(value)}; expected a string.", param=field)
    return value


def _content(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise ApiError(f"{field} is {json_type(value)}; expected a list.", param=field)
    return value


def _check_keys(source: dict[str, Any], known: Sequence[str], field: str) -> None:
    for key in source:
        if key not in known:
            message = f"{field}.{key} is not a field that this server honours; expected {', '.join(known)}."
            raise ApiError(message, param=f"{field}.{key}", code="unknown_parameter")


def _diagnostics(answer: Decision) -> dict[str, Any]:
    return {"diagnostics": {"label_mass": answer.label_mass, "argmax_is_label": answer.argmax_is_label}}


def _openai_answer(answer: Decision, name: str | None) -> dict[str, Any]:
    question, pairs = answer.question, list(zip(answer.question.options, answer.probabilities, strict=True))
    common = {"type": question.kind, "name": name, **_diagnostics(answer)}
    if question.kind == "predicate":
        return {**common, "probability": answer.probability}
    if question.kind == "choice":
        probabilities = [{"value": value, "probability": p} for (value, _), p in pairs]
        return {**common, "choice": answer.choice, "probabilities": probabilities, "confidence": answer.confidence}
    levels = [{"label": shown(value), "value": level, "probability": p} for level, ((value, _), p) in enumerate(pairs)]
    return {**common, "score": answer.score, "probabilities": levels, "confidence": answer.confidence}


def _systemone_answer(answer: Decision, source: dict[str, Any]) -> dict[str, Any]:
    kind, pairs = source["type"], list(zip(answer.question.options, answer.probabilities, strict=True))
    if kind == "noul":
        return {"type": kind, "noul": answer.probability, **_diagnostics(answer)}
    common = {"type": kind, "confidence": answer.confidence, **_diagnostics(answer)}
    if kind == "choice":
        return {**common, "choice": answer.choice, "probabilities": {shown(value): p for (value, _), p in pairs}}
    return {
        **common,
        "score": answer.score,
        "probabilities": {str(level): p for level, p in enumerate(answer.probabilities)},
        "legend": {str(level): shown(value) for level, ((value, _), _) in enumerate(pairs)},
    }
