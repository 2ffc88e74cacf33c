"""Every benchmark in every layout gives the same rows, whatever its files look like."""

from collections import Counter
from pathlib import Path

import pytest

from kit.corpora import FORMS, ROWS
from qwen2_audio.evaluate.layouts.find import LAYOUTS, find, find_examples
from qwen2_audio.evaluate.registry.tasks import TASKS, find_task

NOT_BY_SOURCE = ("mmau", "mmar", "mmsu")  # their parts are told by columns, and the forms name but one


def built(form, tmp_path, healthy=True):
    if form.needs_pyarrow:
        pytest.importorskip("pyarrow")
    return form.build(tmp_path / "data", healthy)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_gives_its_rows(form, tmp_path):
    task = find_task(form.task)
    found = find(task, built(form, tmp_path))
    assert LAYOUTS[form.layout] is LAYOUTS[found.layout] or found.layout == form.layout
    examples = list(found.examples)
    assert len({example.id for example in examples}) == len(examples)
    assert {example.task for example in examples} == {form.task}
    if form.task.split("-")[0] in NOT_BY_SOURCE:
        assert len(examples) == ROWS
    else:
        assert Counter(example.source for example in examples) == dict.fromkeys(form.sources, ROWS)
    if task.prompt is not None:
        assert all(example.prompt for example in examples)
    for example in examples:
        source = example.sound.source
        data = Path(source).read_bytes() if isinstance(source, str) else source.read()
        assert len(data) > 1000, example.sound.name


def test_every_layout_and_every_task_is_in_a_form():
    layouts = {name for task in TASKS.values() for name in task.layouts}
    assert layouts == set(LAYOUTS)
    assert set(TASKS) - {form.task for form in FORMS} <= {"nano", "voicebench-mmsu"}
    assert {form.layout for form in FORMS} == layouts - {"voicebench"}  # it is the layout "parquet" by another name
    assert find_examples
