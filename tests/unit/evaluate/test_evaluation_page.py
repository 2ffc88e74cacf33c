"""docs/evaluation.md: its table is the registry's."""

import re
from pathlib import Path

from qwen2_audio.evaluate.registry.tasks import GROUPS, TASKS
from qwen2_audio.evaluate.report.figures import scaled

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
WIDER = {"wer": 0.2, "cer": 0.2, "bleu": 0.5, "accuracy": 1.0, "score": 0.2}  # as the page says


def rows():
    found = re.findall(r"^\| `([\w-]+)`(?:, (\w+))? \| (\w+) \| ([\d,]+) \| (.+) \|$", PAGE, re.M)
    for task, part, metric, count, rest in found:
        yield task, part, metric, int(count.replace(",", "")), [cell.strip() for cell in f" {rest} ".split(" | ")]


def test_the_papers_table_is_the_registry_s():
    assert list(dict.fromkeys(task for task, *_ in rows())) == list(GROUPS["paper"])
    for task, part, metric, count, cells in rows():
        assert count == sum(number for _, number in TASKS[task].sources), task
        by = {
            golden.by: scaled(golden.metric, golden.value)
            for golden in TASKS[task].goldens
            if golden.source == part and golden.metric.removesuffix("_strict") == metric
        }
        given = dict(zip(("paper", "model card", "Vast"), cells, strict=False))
        assert {name: float(value) for name, value in given.items() if value} == {
            name: round(value, 2) for name, value in by.items()
        }, task
        known = [value for name, value in by.items() if name != "paper"]
        low, high = map(float, cells[3].split(" to "))
        wider = WIDER[metric]
        assert abs(low - min(known) + wider) < 0.006 and abs(high - max(known) - wider) < 0.006, task


def test_it_says_what_was_not_run():
    assert "**Not run here**" in PAGE
