"""A run's schedule is made of the rows that can be read, and what is left out is said before the first step."""

import json

import pytest

from qwen2_audio.errors import PromptError
from qwen2_audio.train import dpo, sft
from qwen2_audio.train.metrics import read


def add_missing_clips(rows, count):
    """`count` more rows whose clips are missing."""
    lines = []
    for i in range(count):
        content = [{"type": "audio", "audio": f"missing-{i}.wav"}, {"type": "text", "text": "?"}]
        talk = [{"role": "user", "content": content}, {"role": "assistant", "content": "a dog"}]
        lines.append(json.dumps({"messages": talk, "rejected_response": "a cat"}))
    rows.write_text(rows.read_text() + "\n".join(lines) + "\n")


@pytest.mark.parametrize("training", [sft, dpo])
def test_an_epoch_has_the_rows_that_can_be_read(make, rows, tmp_path, training, capsys):
    add_missing_clips(rows, 42)
    training.run(make(epochs=2, data={"batch_size": 1}))
    lines = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert len(lines) == 2 * 6
    said = capsys.readouterr().err
    assert "training on 6 of 48 rows (42 cannot be used and are left out); 1 of them have no clip" in said
    report = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert len(report) == 42
    assert all("No such file" in json.loads(line)["reason"] for line in report)


def test_rows_without_a_rejected_answer_are_no_part_of_an_epoch_of_dpo(make, rows, tmp_path):
    whole = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in whole) + rows.read_text())
    dpo.run(make(epochs=1, data={"batch_size": 1}))
    assert len([line for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line]) == 6


def test_damage_behind_a_whole_header_inflates_no_run(make, rows, tmp_path, wav_file, capsys):
    lines = []
    for i in range(40):
        clip = wav_file(f"damaged-{i}.wav", 0.5)
        clip.write_bytes(clip.read_bytes()[:9_000])  # the header still promises 16,000 bytes
        talk = [
            {"role": "user", "content": [{"type": "audio", "audio": str(clip)}]},
            {"role": "assistant", "content": "a"},
        ]
        lines.append(json.dumps({"messages": talk}))
    rows.write_text(rows.read_text() + "\n".join(lines) + "\n")
    sft.run(make(epochs=1, data={"batch_size": 1}))
    steps = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert len(steps) <= 2 * 6 + 1  # of 46
    said = capsys.readouterr().err
    assert "of 46: so many rows could not be read" in said
    assert (tmp_path / "run" / "final").is_dir()


def test_a_step_that_is_longer_than_an_epoch_says_so(make, capsys):
    sft.run(make(epochs=1, accumulate=12))
    assert "a step takes accumulate = 12 micro-batches, and an epoch has 3" in capsys.readouterr().err


def test_data_without_a_usable_row_ends_before_the_first_step(make, rows, tmp_path):
    rows.write_text("")
    add_missing_clips(rows, 3)
    with pytest.raises(
        PromptError, match=r"No row of .*rows\.jsonl could be used\. 3 row\(s\) left out, the first: .*No such"
    ):
        sft.run(make(epochs=1))
