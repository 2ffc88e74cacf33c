"""docs/datasets.md names what is read, no more and no less."""

import re
from pathlib import Path

from qwen2_audio.datasets import columns, paths

PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"


def named(heading):
    text = PAGE.read_text(encoding="utf-8")
    (item,) = re.findall(rf"^- {re.escape(heading)}[^:]*:(.*?)(?=^- |\n\n)", text, re.M | re.S)
    return tuple(re.findall(r"`(\w+)`", item.split(";")[0]))


def test_the_columns_are_those_that_are_looked_for_in_their_order():
    assert named("the clip") == columns.SOUND
    assert named("its text") == columns.TEXT
    assert named("the question") == columns.QUESTION
    assert named("its answer") == columns.ANSWER
    assert named("the row's name") == columns.ID
    assert named("who speaks") == columns.SPEAKER


def test_the_folders_are_those_that_clips_are_looked_for_in():
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(r"in their\nfolders (.*?);", text)[1].replace("`", "").split(", ") == [
        folder for folder in paths._FOLDERS if folder
    ]
