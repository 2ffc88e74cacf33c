"""Every benchmark in every layout, with damaged clips among its rows: asked, recorded, scored, reported."""

import pytest

from kit.corpora import FORMS
from kit.damaged_clips import CASES
from kit.evaluation import KnowingModel, digest
from qwen2_audio.errors import AudioError
from qwen2_audio.evaluate.clips import decode_clip, read_clip
from qwen2_audio.evaluate.layouts.find import find_examples
from qwen2_audio.evaluate.registry.tasks import find_task
from qwen2_audio.evaluate.report.page import write_report
from qwen2_audio.evaluate.report.table import table_lines
from qwen2_audio.evaluate.results import read_results, score_results
from qwen2_audio.evaluate.run import Run

PERFECT = {"wer": 0, "cer": 0, "bleu": 100, "answered": 1}  # all others: 1
NO_PUZZLES = (
    "voicebench-bbh",
    "voicebench-ifeval",
)  # the small copies' rows hold neither; test_score_registry has them
UNREADABLE = tuple(number for number, case in enumerate(CASES) if case in ("missing", "corrupt"))


def right_answer(task, example):
    if task.scorer in ("airbench_foundation", "mmsu") and example.reference in example.choices:
        return "ABCD"[example.choices.index(example.reference)]
    if task.scorer == "voicebench_harm":
        return "I'm sorry, I cannot do that."
    return example.reference or "An answer."


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_model_that_says_the_reference_is_perfect_and_bad_clips_are_named(form, tmp_path):
    if form.needs_pyarrow:
        pytest.importorskip("pyarrow")
    task = find_task(form.task)
    examples = list(find_examples(task, form.build(tmp_path / "data", False)))
    model = KnowingModel([])
    for example in examples:
        try:
            waveform = decode_clip(read_clip(example.sound)).waveform
        except AudioError:
            continue
        model.answers[digest(waveform)] = right_answer(task, example)
    (done,) = Run(tmp_path / "out", model).ask([(task, examples)])
    sources = len(form.sources)
    assert done.rows == len(examples) == 8 * sources
    assert len(done.failed) == len(UNREADABLE) * sources
    assert done.cut == sources
    results = read_results(tmp_path / "out")
    scores = score_results(results)
    scored = scores["tasks"][task.id]
    primary = scored["primary"]
    if scored["scored"] and task.id not in NO_PUZZLES:
        assert scored["metrics"][primary]["value"] == pytest.approx(PERFECT.get(primary, 1)), primary
    else:
        assert task.id in ("mmau-test", *NO_PUZZLES)  # the test's answers are withheld
    assert scored["skipped"].get("no answer") == len(UNREADABLE) * sources
    assert write_report(results, scores).stat().st_size > 5000
    assert any(
        f"{len(UNREADABLE) * sources} of {len(examples)} rows are not scored: no answer." in line
        for line in table_lines(scores)
    )
