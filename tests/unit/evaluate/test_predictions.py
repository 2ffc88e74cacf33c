"""predictions.jsonl: what a kill, a full disk, a second writer and a damaged line do to it."""

import resource
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from qwen2_audio.datasets.line_log import replace_file
from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.predictions import (
    PredictionLog,
    from_line,
    prediction_key,
    read_predictions,
    to_line,
)  # fmt: skip


def answer(number, text="yes", **more):
    return Prediction(f"key{number}", "asr", f"row{number}", "small", "a.wav", text, "yes", **more)


def test_a_line_and_back():
    columns = {"kind": "狗", "n": 3, "level": 0.5, "none": None, "tags": ["a"]}
    given = answer(1, "é 狗\n", choices=("a", "b"), group="g", columns=columns)
    assert from_line(to_line(given)) == given
    assert "狗" in to_line(given).decode()


def test_what_json_has_no_word_for_becomes_text():
    given = answer(1, columns={"rate": np.int64(3), "bytes": b"1234", "path": "a\udcff.wav"})
    assert from_line(to_line(given)).columns == {"rate": 3, "bytes": "4 bytes", "path": "a\udcff.wav"}


def test_a_key_changes_with_everything_that_decides_an_answer():
    same = {"audio": "a1", "prompt": "p", "decoding": {"temperature": 0}, "model": "m"}
    keys = {prediction_key("asr", "1", **same)}
    for change in ({"audio": "a2"}, {"prompt": None}, {"decoding": {}}, {"model": "n"}):
        keys.add(prediction_key("asr", "1", **{**same, **change}))
    keys |= {prediction_key("asr", "2", **same), prediction_key("qa", "1", **same)}
    assert len(keys) == 7
    assert prediction_key("asr", "1", **same) in keys


def test_the_last_line_of_a_row_counts(tmp_path):
    with PredictionLog(tmp_path / "p") as log:
        for given in (answer(1, "", error="gone"), answer(2), answer(1, "there")):
            log.add(given)
    assert [found.text for found in read_predictions(tmp_path / "p")] == ["there", "yes"]


@pytest.mark.parametrize("torn", [b'{"key": "key3", "te', b"\xe7\x8b", b"\x00" * 40])
def test_a_torn_last_line_is_taken_off(tmp_path, torn):
    path = tmp_path / "p"
    with PredictionLog(path) as log:
        log.add(answer(1))
    path.write_bytes(path.read_bytes() + torn)
    assert len(read_predictions(path)) == 1
    with PredictionLog(path) as log:
        log.add(answer(2))
    assert path.read_bytes() == to_line(answer(1)) + to_line(answer(2))


@pytest.mark.parametrize("line", [b"}{", b"[]", b'{"key": "k"}', b"\xff\xfe"])
def test_any_other_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "p"
    path.write_bytes(to_line(answer(1)) + line + b"\n" + to_line(answer(2)))
    for read in (read_predictions, PredictionLog):
        with pytest.raises(EvaluationError, match=r"p, line 2, is no prediction .*; take the line out"):
            read(path)


def test_a_second_writer_is_refused(tmp_path):
    with PredictionLog(tmp_path / "p"), pytest.raises(EvaluationError, match="Another run is writing into"):
        PredictionLog(tmp_path / "p")
    PredictionLog(tmp_path / "p").close()


def test_sorting_gives_the_order_of_the_data(tmp_path):
    path = tmp_path / "p"
    with PredictionLog(path) as log:
        for number in (3, 1, 9, 2, 1):
            log.add(answer(number, f"text {number}"))
        log.sort({("asr", f"row{number}"): number for number in range(5)})
    assert [found.id for found in read_predictions(path)] == ["row1", "row2", "row3", "row9"]
    assert path.read_bytes().count(b"\n") == 4


FULL = """
    import sys
    from pathlib import Path
    from qwen2_audio.errors import EvaluationError
    from qwen2_audio.evaluate.example import Prediction
    from qwen2_audio.evaluate.predictions import PredictionLog
    with PredictionLog(Path(sys.argv[1])) as log:
        try:
            for number in range(1000):
                log.add(Prediction("k", "asr", str(number), "s", "a.wav", "x" * 50, None))
        except EvaluationError as error:
            print(len(log.latest), error)
"""


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    """The limit of a file's size stands for the end of the disk: a line fits in part."""
    path = tmp_path / "p"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), path], capture_output=True, text=True, timeout=120, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )  # fmt: skip
    count, _, sentence = done.stdout.partition(" ")
    assert int(count) == len(read_predictions(path)) > 5
    assert path.read_bytes().endswith(b"}\n")
    expected = f"{path} cannot be written: File too large; the {count} lines before are kept. Make room, and run "
    assert sentence.startswith(expected)


def test_a_file_that_is_replaced_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    replace_file(path, b"old", "")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(EvaluationError, match="No space left on device; all is kept"):
        replace_file(path, b"new", "all is kept")
    assert path.read_bytes() == b"old" and [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]
