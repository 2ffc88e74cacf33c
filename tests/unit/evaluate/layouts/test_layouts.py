"""Every benchmark in every layout gives the same rows, whatever its files look like."""

from collections import Counter
from pathlib import Path

import pytest

from kit.corpora import FORMS, ROWS
from kit.corpora_questions import CHOICES
from kit.corpora_texts import EMOTIONS, TEXTS, VOCAL_SOUNDS
from kit.damaged_clips import CASES, clip_bytes
from qwen2_audio.evaluate.layouts.find import LAYOUTS, find
from qwen2_audio.evaluate.registry.tasks import TASKS, find_task

GOOD = {clip_bytes(i, healthy=True): i for i in range(ROWS)}  # a clip -> the number of its row in the form
BY_FAMILY = {
    "librispeech": TEXTS["EN"], "aishell2": TEXTS["zh"], "meld": EMOTIONS, "vocalsound": VOCAL_SOUNDS,
    "asr": TEXTS["en"], "fleurs": TEXTS["zh"],
}  # fmt: skip
GROUPED = ("librispeech-dev-clean", "aishell2-mic", "meld", "vocalsound", "mmau-mini", "mmar", "mmsu", "airbench-chat")


def built(form, tmp_path, healthy=True):
    if form.needs_pyarrow:
        pytest.importorskip("pyarrow")
    return form.build(tmp_path / "data", healthy)


def encoded(example):
    source = example.sound.source
    return Path(source).read_bytes() if isinstance(source, str) else source.read()


def expected_reference(form, i):
    """What row i's reference must be; None: the form says nothing of it."""
    family, *rest = form.task.split("-")
    if family == "cv15":
        return TEXTS[rest[0]][i]
    if family == "covost2":
        return TEXTS[rest[1]][i]
    if family == "openaudiobench" or form.task in ("mmau-mini", "mmsu"):
        return CHOICES[i % 4]
    if family == "voicebench":
        return "AB"[i % 2]
    return BY_FAMILY[family][i] if family in BY_FAMILY else None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_gives_its_rows(form, tmp_path):
    task = find_task(form.task)
    found = find(task, built(form, tmp_path))
    examples = list(found.examples)
    assert found.layout == form.layout
    assert Counter(example.source for example in examples) == dict.fromkeys(form.sources, ROWS)
    assert len({example.id for example in examples}) == len(examples)
    assert {example.task for example in examples} == {form.task}
    rows = [GOOD[encoded(example)] for example in examples]  # every clip is one of this form
    assert sorted(rows) == sorted([*range(ROWS)] * len(form.sources))
    for example, i in zip(examples, rows, strict=True):
        reference = expected_reference(form, i)
        if reference is not None:
            assert example.reference.rstrip("。") == reference
        if task.prompt is not None:
            assert example.prompt and "<|AUDIO|>" not in example.prompt
        else:
            assert example.prompt is None
        assert example.where


@pytest.mark.parametrize("form", [form for form in FORMS if form.layout != "manifest"], ids=lambda form: form.name)
def test_damaged_clips_change_no_row(form, tmp_path):
    """A missing or broken clip is found out later: the rows, their ids and references are those of a healthy copy."""
    task = find_task(form.task)

    def rows(healthy):
        data = form.build(tmp_path / "data", healthy)
        return [(e.id, e.source, e.reference, e.prompt, e.choices) for e in find(task, data).examples]

    if form.needs_pyarrow:
        pytest.importorskip("pyarrow")
    damaged = rows(healthy=False)
    for path in (tmp_path / "data").rglob("*.arrow"):
        path.unlink()
    for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert damaged == rows(healthy=True)


def test_the_first_rows_of_a_form_have_every_kind_of_clip():
    assert set(CASES) == {"good", "missing", "corrupt", "silent", "long", "stereo", "film"} and len(CASES) == ROWS


def test_every_layout_and_every_task_is_in_a_form():
    layouts = {name for task in TASKS.values() for name in task.layouts}
    assert layouts == set(LAYOUTS)
    assert set(TASKS) - {form.task for form in FORMS} <= {"nano", "voicebench-mmsu"}
    assert {form.layout for form in FORMS} == layouts - {"voicebench"}  # it is the layout "parquet" by another name


@pytest.mark.parametrize("form", [form for form in FORMS if form.task in GROUPED], ids=lambda form: form.name)
def test_rows_that_vary_together_are_grouped(form, tmp_path):
    groups = Counter(example.group for example in find(find_task(form.task), built(form, tmp_path)).examples)
    assert "" not in groups
    if form.task in ("librispeech-dev-clean", "aishell2-mic"):
        assert list(groups.values()) == [4, 4]
    if form.task == "meld":
        assert set(groups.values()) == {2} and len(groups) == 8
