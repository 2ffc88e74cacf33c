"""Every error this package raises on purpose. A message says what was found, what was expected, what to do."""

from collections.abc import Collection, Iterable


class Qwen2AudioError(Exception):
    """Base of all errors raised on purpose by qwen2_audio."""


class ConfigError(Qwen2AudioError, ValueError):
    """A configuration or an option that cannot work."""


class AudioError(Qwen2AudioError, ValueError):
    """A clip that cannot be read, or that the model cannot take.

    Attributes: `clip`, its number in the conversation, from 1, where that is known; `sentence`, the message without
    what only callers from Python can do about it.
    """

    def __init__(self, message: str = "", *, in_python: str = "", clip: int | None = None) -> None:
        """`in_python` follows `message` and ends the sentence, as in "cut it" and " or raise max_bytes."."""
        super().__init__(message + in_python)
        self.clip = clip
        self.sentence = f"{message.rstrip('.')}." if in_python else message


class LongClipError(AudioError):
    """A clip that lasts longer than is heard at once, and is not cut."""


class PromptError(Qwen2AudioError, ValueError):
    """Text, messages and clips that do not match."""


class AnswerError(Qwen2AudioError, ValueError):
    """An answer that is not what it was held to: it did not come to its end, say."""


class ContextLengthError(Qwen2AudioError, ValueError):
    """Prompt and answer exceed the model's context."""


class WeightsError(Qwen2AudioError, RuntimeError):
    """A checkpoint that is missing, unreachable, incomplete or of the wrong shape."""


class UnknownAdapterError(ConfigError):
    """An adapter that a request names, and that is none of those that may be used."""


class NoCheckpointError(WeightsError, OSError):
    """A checkpoint that is not there; an OSError too, as people expect of from_pretrained."""


class DatasetError(Qwen2AudioError, ValueError):
    """A corpus, or a row of one, that cannot be read; the message names the file, and the line where it is one's."""


class TrainingError(Qwen2AudioError, RuntimeError):
    """A training run that cannot go on."""


class EvaluationError(Qwen2AudioError, RuntimeError):
    """A test of a checkpoint that cannot go on."""


class JobError(Qwen2AudioError, RuntimeError):
    """A job over a corpus that cannot go on; its rows so far are kept."""


class NumericsError(Qwen2AudioError, RuntimeError):
    """A computation whose result is NaN or infinite."""


class CapacityError(Qwen2AudioError, RuntimeError):
    """A request that needs more memory than this machine has."""


class BusyError(CapacityError):
    """A request that cannot be taken now and can be later: memory or a queue is full."""


class ShutdownError(BusyError):
    """A request to an engine that is shutting down: it takes none any more."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of `known`, else an empty string."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def refuse_unknown(
    names: Iterable[str],
    known: Collection[str],
    error: type[Qwen2AudioError],
    before: str,
    after: str = ".",
    *,
    near: Iterable[str] = (),
) -> None:
    """Raise `error` for the first of `names` that is none of `known`.

    The message is `before`, the name in quotes, `after`, and the nearest of `known` or `near`, which may be meant.
    """
    for name in names:
        if name not in known:
            raise error(f"{before} {name!r}{after}{did_you_mean(str(name), [*known, *near])}")
