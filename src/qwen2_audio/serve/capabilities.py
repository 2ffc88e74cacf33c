"""What a checkpoint can do, for the page: words and sample clips from capabilities.json in the checkpoint's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ..audio.formats import format_of
from ..checkpoint.json_file import read_json
from ..checkpoint.locate import nano_path
from ..errors import ConfigError, WeightsError
from .errors import ApiError

FILE = "capabilities.json"


class Ability(BaseModel):
    """One thing that a checkpoint can do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    text: str


class Sample(BaseModel):
    """A clip to try the checkpoint with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    question: str = ""  # empty: the question is spoken in the clip
    clip: str  # a file below the checkpoint's folder


class _Words(BaseModel):
    """The content of capabilities.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str
    abilities: tuple[Ability, ...] = ()
    limits: str = ""
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What a checkpoint can do, in words, and the files of its sample clips."""

    words: _Words
    files: tuple[Path, ...] = ()  # one for each sample

    def to_dict(self) -> dict[str, Any]:
        """As /v1/models has it: a sample has the path that serves it, relative to the server's root, as its `url`."""
        samples = [
            {"title": sample.title, "question": sample.question, "url": f"samples/{number}"}
            for number, sample in enumerate(self.words.samples)
        ]
        return {**self.words.model_dump(mode="json"), "samples": samples}

    async def sample(self, request: Request) -> Response:
        """GET /samples/{number}: the bytes of a sample clip."""
        number = request.path_params["number"]
        if number >= len(self.files):
            message = f"There is no sample {number}; this checkpoint has {len(self.files)}."
            raise ApiError(message, status=404, code="not_found")
        return FileResponse(
            self.files[number],
            media_type="application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"},
        )


def read_capabilities(folder: Path) -> Capabilities | None:
    """What `folder`'s capabilities.json says; None where it has none.

    Raises ConfigError for a file that cannot be read, for an unknown key, and for a sample that is no sound file below
    the folder: a checkpoint that somebody else made must not name other files of this machine.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        words = _Words.model_validate(read_json(path, ConfigError))
    except ValidationError as errors:
        error = errors.errors(include_url=False)[0]
        field = ".".join(str(key) for key in error["loc"])
        raise ConfigError(f"{path}: {field}: {error['msg']}. docs/serving.md shows what this file may say.") from None
    return Capabilities(words, tuple(_sound_file(folder, sample.clip) for sample in words.samples))


def general_capabilities(*, is_base: bool) -> Capabilities:
    """Words for a checkpoint that brings none of its own: what its kind is made for, with nano's clips to try it."""
    if is_base:
        return Capabilities(_BASE)
    try:
        nano = read_capabilities(nano_path())
    except WeightsError:  # not installed
        nano = None
    if nano is None:
        return Capabilities(_INSTRUCT)
    return Capabilities(_INSTRUCT.model_copy(update={"samples": nano.words.samples}), nano.files)


def _sound_file(folder: Path, name: str) -> Path:
    """The file `name` of the checkpoint. Links are followed, as the hub's cache is made of them; its bytes decide."""
    parts = PurePosixPath(name)
    path = folder / name
    if parts.is_absolute() or ".." in parts.parts or not path.is_file():
        raise ConfigError(f"{folder / FILE} names the sample {name!r}; expected a file below {folder}.")
    with path.open("rb") as file:
        known = format_of(file.read(4096))
    if known is None or not known.is_sound:
        raise ConfigError(f"{folder / FILE} names the sample {name!r}, which is no sound file; expected a clip.")
    return path


_SUMMARY = "A Qwen2-Audio checkpoint{kind}. It takes speech, sounds and music as they are, and writes words."
_DEPENDS = "How well it does each of these, and in which languages, depends on its training; this server knows no more."
_TRANSCRIBES = Ability(title="Writes down speech", text="Transcribe, below each clip, gives its words.")
_INSTRUCT = _Words(
    summary=_SUMMARY.format(kind=""),
    abilities=(
        Ability(title="Talks", text="Ask aloud, and it answers; nothing has to be typed."),
        Ability(title="Listens", text="Give it clips and ask about them: what is said, who speaks, what sounds."),
        _TRANSCRIBES,
    ),
    limits=_DEPENDS,
)
_BASE = _Words(
    summary=_SUMMARY.format(kind=" without chat training"),
    abilities=(
        _TRANSCRIBES,
        Ability(title="Continues", text="It was not tuned to take turns: a question may be continued, not answered."),
    ),
    limits=_DEPENDS,
)
