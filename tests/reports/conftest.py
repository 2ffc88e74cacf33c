"""The fixtures of the unit tests, and a training run's."""

from tests.unit.conftest import clip, tiny_chat, tiny_checkpoint, wav_file
from tests.unit.train.conftest import make, rows

__all__ = ["clip", "make", "rows", "tiny_chat", "tiny_checkpoint", "wav_file"]
