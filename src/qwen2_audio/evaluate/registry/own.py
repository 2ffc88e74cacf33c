"""A user's own data, and nano's examination."""

from __future__ import annotations

from ..task import Task

OWN: tuple[Task, ...] = (
    Task(
        "asr", "Transcription of your own clips", "base", ("manifest", "official_jsonl", "parquet"), (), "asr_en",
        "wer", where="Any manifest, folder or table with clips and texts; --lang says which language they are in.",
    ),
    Task(
        "qa", "Questions about your own clips", "any", ("manifest", "parquet"), (), "question", "qa",
        where="Any manifest or table with clip, question and answer, and choices where there are some.",
    ),
    Task(
        "nano", "The bundled model's own world", "any", (), (), None, "nano",
        deaf=None,  # it has silent clips of its own
        where="Rendered when it is run.",
    ),
)  # fmt: skip
