"""A worker of a job that cannot be made: it refuses with a sentence, or its process ends."""

from __future__ import annotations

import os

from qwen2_audio.errors import ConfigError
from qwen2_audio.jobs.runner import Work


class RefusingWorker:
    """Options: `reason` to refuse with, or the exit `status`."""

    def __init__(self, work: Work, number: int) -> None:
        if "status" in work.options:
            os._exit(work.options["status"])
        raise ConfigError(work.options["reason"])
