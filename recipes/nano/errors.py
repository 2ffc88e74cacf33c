from qwen2_audio.errors import Qwen2AudioError


class RecipeError(Qwen2AudioError, RuntimeError):
    """What the recipe cannot go on without, or after."""
