"""What a benchmark command writes, and what of it is refused before the work begins."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from qwen2_audio.bench.output import check_outputs
from qwen2_audio.bench.report import Report, Row, cell, table
from qwen2_audio.errors import ConfigError

MACHINE = {"ours": "1", "peer": None, "checkpoint": "c", "dtype": "fp32", "cpu": "x", "threads": 2, "torch": "2"}


@pytest.mark.parametrize("option", ["json", "png"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path, tmp_path / "file" / "b.json"):
        paths = {"json": None, "png": None, option: path}
        with pytest.raises(ConfigError) as error:
            check_outputs(**paths)
        assert str(error.value) == (
            f"Cannot write {path}: expected the name of a file, in a folder that can be written to."
        )


def test_the_folder_of_a_file_to_write_is_made(tmp_path: Path) -> None:
    check_outputs(tmp_path / "new" / "b.json", None)
    assert (tmp_path / "new").is_dir()


def test_a_picture_needs_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^--png needs matplotlib; install 'qwen2-audio\[plot\]'"):
        check_outputs(None, tmp_path / "x.png")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((2.0, "s", (1.8, 2.4)), "2 s ±15%"),
        ((0.0251, "s", None), "25.1 ms"),
        ((4.71, "tokens/s", (4.71, 4.71)), "4.71 tokens/s ±0%"),
        ((None, "GB", None), ""),
    ],
)
def test_cells(arguments: tuple, text: str) -> None:
    assert cell(*arguments) == text


@pytest.mark.parametrize(
    ("row", "missed"),
    [
        (Row("w4a8.decode", 44.9, "Gw/s", limit=45.0), True),
        (Row("w4a8.decode", 45.0, "Gw/s", limit=45.0), False),
        (Row("ttft", 8.1, "s", limit=8.0), True),
        (Row("ttft", 7.9, "s", limit=8.0), False),
        (Row("peak", 6.6, "GB", limit=6.5), True),
        (Row("error", 0.0081, "rel. L2", limit=0.008), True),
        (Row("over", 1.2, "x", limit=1.25), False),
        (Row("ttft", 1.0, "s", 1.5, 1.5, ratio_limit=2.0), True),
        (Row("ttft", 1.0, "s", 3.0, 3.0, ratio_limit=2.0), False),
        (Row("ttft", None, "s", limit=8.0), False),
    ],
)
def test_what_falls_short_is_marked(row: Row, missed: bool) -> None:
    from rich.console import Console

    assert row.missed is missed
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(table(Report(MACHINE, [row])))
    assert (" !" in console.export_text().partition("Medians")[0]) is missed
