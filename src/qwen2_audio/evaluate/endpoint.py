"""A model behind any server that speaks OpenAI's chat completions, asked the same questions as a local checkpoint."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import ConfigError, EvaluationError, Qwen2AudioError
from .clips import wav_bytes
from .question import Answer, Form, Question
from .registry.warnings import CheckpointFacts
from .task import Task

RETRIES = 5  # of a question, by the client, with a pause that doubles from half a second on
TIMEOUT = 600.0  # seconds for one answer
IN_FLIGHT = 16  # questions at a time
MOST_FAILURES = 20  # answers in a row that may fail before the run stops
EXTRA = ("top_k", "min_p", "min_tokens", "repetition_penalty")  # not OpenAI's own; vLLM, SGLang and ours take them
KEY_VARIABLE = "QWEN2_AUDIO_API_KEY"


class EndpointError(Qwen2AudioError):
    """A question that a server refused, or could not answer."""


class EndpointDownError(EvaluationError):
    """A server that does not answer any question."""


class Endpoint:
    """See `question.Model`. Clips go as WAV files of 16 bits at 16 kHz, whatever they were."""

    def __init__(
        self, url: str, model: str | None = None, api_key: str | None = None, *, retries: int = RETRIES,
        in_flight: int = IN_FLIGHT,
    ) -> None:  # fmt: skip
        """`model`: its name at the server; None: the first that it lists. Raises ConfigError without the openai client
        and for a URL that is none, EndpointDownError where nobody answers."""
        self._openai = _load_openai()
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--base-url is {url!r}; expected http://HOST:PORT or https://HOST, with or without /v1.")
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        key = api_key or os.environ.get(KEY_VARIABLE) or "none"
        self._client = self._openai.OpenAI(base_url=self.url, api_key=key, max_retries=retries, timeout=TIMEOUT)
        self.name = model or self._first_model()
        self.fingerprint = f"endpoint:{self.name}"
        self.settings: dict[str, Any] = {}
        self.in_flight = in_flight
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="qwen2-audio-ask")
        self._lock = threading.Lock()
        self._failures = 0  # since the last answer
        self.dropped: tuple[str, ...] = ()  # options that the server does not take

    def form(self, task: Task) -> Form:
        return "chat"  # chat completions have no other

    def facts(self, task: Task) -> CheckpointFacts:
        return CheckpointFacts()  # of its weights nothing is known

    def submit(self, question: Question) -> Callable[[], Answer]:
        return self._pool.submit(self.ask, question).result

    def ask(self, question: Question) -> Answer:
        """Raises EndpointError for this question, and EndpointDownError or ConfigError where no other would do."""
        openai = self._openai
        try:
            completion = self._create(question)
        except (openai.APIConnectionError, openai.APITimeoutError) as error:
            raise self.down(error) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ConfigError(f"{self.url} refuses {self.name}: {_reason(error)}") from error
        except openai.OpenAIError as error:
            with self._lock:
                self._failures += 1
                down = self._failures > MOST_FAILURES
            if down:
                raise self.down(error) from error
            raise EndpointError(f"{self.url} answered with an error: {_reason(error)}") from error
        self._failures = 0
        if not completion.choices:
            raise EndpointError(f"{self.url} answered without a choice.")
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or ""
        return Answer(text, usage.completion_tokens if usage else 0, choice.finish_reason or "stop")

    def _create(self, question: Question) -> Any:
        request = _request(question)
        while True:
            extra = {name: request[name] for name in EXTRA if name in request and name not in self.dropped}
            extra |= request.get("extra_body", {})
            plain = {
                name: value for name, value in request.items() if name not in (*EXTRA, "extra_body", *self.dropped)
            }
            try:
                return self._client.chat.completions.create(model=self.name, extra_body=extra, **plain)
            except self._openai.BadRequestError as error:
                refused = [name for name in (*EXTRA, "seed") if name in {**extra, **plain} and name in str(error)]
                if not refused:
                    raise
                with self._lock:
                    self.dropped = tuple(sorted({*self.dropped, *refused}))

    def down(self, error: Exception) -> EndpointDownError:
        return EndpointDownError(
            f"{self.url} does not answer: {_reason(error)} What was answered is kept; run the same command again once "
            "the server is up."
        )

    def _first_model(self) -> str:
        try:
            models = self._client.models.list().data
        except self._openai.OpenAIError as error:
            message = f"{self.url} does not answer: {_reason(error)} Start the server, or name it with its port."
            raise EndpointDownError(message) from error
        if not models:
            raise ConfigError(f"{self.url} lists no model; name one with --model.")
        return str(models[0].id)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _load_openai() -> Any:
    """The openai client. Raises ConfigError where it is not installed."""
    try:
        import openai
    except ImportError as error:
        raise ConfigError("Asking a server needs the openai client: pip install 'qwen2-audio[eval]'.") from error
    return openai


def _request(question: Question) -> dict[str, Any]:
    """A chat completion's body, without the model's name."""
    content: Any = question.prompt or ""
    if question.waveform is not None:
        data = base64.b64encode(wav_bytes(question.waveform)).decode()
        content = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
        content += [{"type": "text", "text": question.prompt}] if question.prompt else []
    messages = [{"role": "system", "content": question.system}] if question.system is not None else []
    params = question.params
    options: dict[str, Any] = {
        "max_tokens": params.max_tokens, "temperature": params.temperature, "top_p": params.top_p, "seed": params.seed,
        "stop": list(params.stop) or None, "top_k": params.top_k, "min_p": params.min_p,
        "min_tokens": params.min_tokens, "repetition_penalty": params.repetition_penalty,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    if question.long != "refuse":
        given["extra_body"] = {"long": question.long}  # a server that does not take it refuses the row
    return {"messages": [*messages, {"role": "user", "content": content}], **given}


def _reason(error: Exception) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    cause = error.__cause__
    text = str(message or (f"{error} {cause}" if cause is not None and str(cause) not in str(error) else error))
    return f"{' '.join(text.split())[:300].rstrip('.')}."
