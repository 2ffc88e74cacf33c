"""`qwen2-audio embed`: clips and texts as vectors, to a file or as lines of JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..errors import ConfigError
from ..types import PoolingParams
from . import terminal
from .sound_files import sounds_of
from .terminal import note

FORMATS = (".npy", ".npz", ".jsonl")


def command(
    sounds: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="Clips: files, folders, URLs, or - for stdin.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to embed, behind the clips; repeatable.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=".npy, .npz or .jsonl; without it, lines of JSON.", show_default=False),
    ] = None,
    source: Annotated[str, typer.Option(help="language_model, encoder or projector.")] = "language_model",
    layer: Annotated[int, typer.Option(help="Of the source's hidden states; -1 is its output.")] = -1,
    pooling: Annotated[
        str | None, typer.Option(help="last, mean or none; default last of the language model, else mean.")
    ] = None,
    no_normalize: Annotated[
        bool, typer.Option("--no-normalize", help="Leave vectors at the length they have.")
    ] = False,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
) -> int:
    params = PoolingParams(source, layer, pooling, not no_normalize)  # type: ignore[arg-type]  # it checks them
    if output is not None and output.suffix not in FORMATS:
        raise ConfigError(f"--output is {output}; expected a name that ends in {', '.join(FORMATS)}.")
    if output is not None and output.suffix == ".npy" and params.pooled_by == "none":
        raise ConfigError("With --pooling none clips have arrays of different lengths; write .npz or .jsonl.")
    if not sounds and not text:
        raise ConfigError("There is nothing to embed; name clips, or give a --text.")
    if not terminal.is_first():
        terminal.load_model(model, device, dtype, adapter, quantize)  # exits when the first process ends
    found = sounds_of(sounds) if sounds else []
    names = [sound.name for sound in found] + list(text or ())
    inputs: list[Any] = [sys.stdin.buffer.read() if sound.name == "stdin" else sound.source for sound in found]
    inputs += [{"role": "user", "content": words} for words in text or ()]
    chat = terminal.load_model(model, device, dtype, adapter, quantize)
    from ..api.embedding import embed_each

    failed: dict[int, str] = {}

    def refuse(number: int, error: Exception) -> None:
        if isinstance(error, ConfigError):  # of what no input could be embedded with
            raise error
        failed[number] = sentence = getattr(error, "sentence", "") or str(error)
        note(f"{names[number - 1]}: {sentence}")

    service = chat.service()
    vectors = embed_each(lambda one: service.submit_embedding(one, params), inputs, on_error=refuse)
    with terminal.counting("Embedding", len(inputs)) as advance:
        _write(_advancing(vectors, advance), names, failed, output)
    if failed:
        note(f"{len(failed)} of {len(inputs)} could not be embedded, and are named above.")
    return 1 if failed else 0


def _advancing(vectors: Iterator[Any], advance: Any) -> Iterator[Any]:
    for vector in vectors:
        yield vector
        advance()


def _write(vectors: Iterator[Any], names: list[str], failed: dict[int, str], output: Path | None) -> None:
    """Lines as they come, or a file, whole or not at all. A row of .npy that failed is NaN."""
    if output is None:
        for number, (name, vector) in enumerate(zip(names, vectors, strict=True), 1):
            print(_line(name, vector, failed.get(number)), flush=True)
        return
    rows = list(vectors)
    if len(failed) == len(rows):
        return
    if output.suffix == ".jsonl":
        lines = [
            _line(name, row, failed.get(number)) for number, (name, row) in enumerate(zip(names, rows, strict=True), 1)
        ]
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")  # names that are no UTF-8
    else:
        buffer = io.BytesIO()
        if output.suffix == ".npz":
            np.savez(buffer, **{f"{number:06}": row for number, row in enumerate(rows) if row is not None})
        else:
            width = next(row.shape[-1] for row in rows if row is not None)
            np.save(buffer, np.stack([np.full(width, np.nan, np.float32) if row is None else row for row in rows]))
        data = buffer.getvalue()
    new = output.with_name(f"{output.name}.new")
    try:
        new.write_bytes(data)
        new.replace(output)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error


def _line(name: str, vector: np.ndarray | None, error: str | None) -> str:
    result = {"error": error} if vector is None else {"embedding": vector.tolist()}
    return json.dumps({"source": name, **result}, ensure_ascii=False)
