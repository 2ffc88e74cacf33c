"""Every error this package raises on purpose. A message says what was found, what was expected, what to do."""


class Qwen2AudioError(Exception):
    """Base of all errors raised on purpose by qwen2_audio."""


class ConfigError(Qwen2AudioError, ValueError):
    """A configuration or an option that cannot work."""


class AudioError(Qwen2AudioError, ValueError):
    """A sound that cannot be read, or that cannot be heard as asked."""


class PromptError(Qwen2AudioError, ValueError):
    """Text, messages and clips that do not fit together."""


class ContextLengthError(Qwen2AudioError, ValueError):
    """Prompt plus answer would not fit the model's context."""


class WeightsError(Qwen2AudioError, RuntimeError):
    """A checkpoint that is missing, unreachable, incomplete or of the wrong shape."""


class TrainingError(Qwen2AudioError, RuntimeError):
    """A training run that cannot go on."""


class NumericsError(Qwen2AudioError, RuntimeError):
    """A computation whose result is no number."""


class CapacityError(Qwen2AudioError, RuntimeError):
    """A request that this machine has no room for."""


class BusyError(CapacityError):
    """Room that is missing now and will be there again."""


def did_you_mean(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """`" Did you mean 'x'?"` for the nearest of `known`, else an empty string."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
