import json
import math

from qwen2_audio.evaluate.verify.table import Check, NotHere, Report

CHECK = Check("machine", "attention: sdpa", 1e-4)


def failing(error):
    def measure():
        raise error

    return measure


def test_a_figure_is_in_bounds_up_to_its_bound():
    for figure, state in ((0.0, "ok"), (1e-4, "ok"), (1.1e-4, "OUT OF BOUNDS"), (math.nan, "OUT OF BOUNDS")):
        assert CHECK.row("nano", lambda figure=figure: figure).state == state


def test_what_is_not_possible_and_what_fails_are_rows_too():
    row = CHECK.row("nano", failing(NotHere("on a GPU only")))
    assert (row.state, row.note, row.figure) == ("not here", "on a GPU only", None)
    row = CHECK.row("nano", failing(RuntimeError("out of\n  memory")))
    assert (row.state, row.note) == ("OUT OF BOUNDS", "RuntimeError: out of memory")
    assert json.loads(json.dumps(row.to_dict(), allow_nan=False))["figure"] == "inf"


def test_the_text_has_the_bound_beside_each_figure():
    rows = [
        CHECK.row("nano", lambda: (3e-7, "a note")),
        CHECK.row("nano", lambda: 1.0),
        Check("reference", "ids", 0, "differ").row("nano", failing(NotHere("not installed"))),
    ]
    report = Report({"device": "cpu"}, rows)
    assert not report.passed
    assert (
        report.text()
        == """\
device  cpu

  check            of    figure   bound                  state
machine
  attention: sdpa  nano   3e-07  0.0001  of the largest  ok
      a note
  attention: sdpa  nano       1  0.0001  of the largest  OUT OF BOUNDS

reference
  ids              nano               0  differ          not here
      not installed

1 of 2 checks in bounds; 1 not possible here; 1 OUT OF BOUNDS"""
    )
    assert [row["state"] for row in report.to_dict()["rows"]] == ["ok", "OUT OF BOUNDS", "not here"]
    assert Report({}, rows[:1]).passed
