"""The content of the data belongs to a run: with other data it does not go on."""

import json

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.train import sft


def edit(rows):
    rows.write_text(rows.read_text().replace("a door", "a bird"))


@pytest.mark.parametrize(
    "change",
    [
        edit,
        lambda rows: rows.write_text("{broken\n" + rows.read_text()),
        lambda rows: rows.write_text(rows.read_text().partition("\n")[0]),
    ],
    ids=["edited", "more rows", "fewer rows"],
)
def test_a_finished_run_does_not_go_on_with_edited_data(make, rows, change):
    sft.run(make(steps=3))
    change(rows)
    with pytest.raises(ConfigError, match=r"holds a run on other data: .*rows\.jsonl was changed since"):
        sft.run(make(steps=3))


def test_a_run_of_an_earlier_version_goes_on(make, tmp_path):
    sft.run(make(steps=3))
    progress = tmp_path / "run" / "checkpoints" / "step-00000003" / "progress.json"
    saved = json.loads(progress.read_text())
    del saved["run"]["data_digest"]
    progress.write_text(json.dumps(saved))
    sft.run(make(steps=3))
