"""Old names of options: the table, and how it is applied to the arguments of a command."""

from importlib import import_module

import pytest
import typer

from qwen2_audio.cli import renamed
from qwen2_audio.cli.renamed import RENAMED, with_new_names


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(renamed, "RENAMED", {"serve": {"--sequences": "--max-num-seqs", "--old": "--new"}})


@pytest.mark.parametrize(
    ("arguments", "expected", "notices"),
    [
        (["--sequences", "8"], ["--max-num-seqs", "8"], 1),
        (["--sequences=8", "--old"], ["--max-num-seqs=8", "--new"], 2),
        (["--new=--old=1", "--max-num-seqs", "8"], ["--new=--old=1", "--max-num-seqs", "8"], 0),
        (["--sequences-more", "sequences", "--seq"], ["--sequences-more", "sequences", "--seq"], 0),
        (["--old", "--", "--old", "--"], ["--new", "--", "--old", "--"], 1),
        ([], [], 0),
    ],
)
def test_old_names_become_new_ones(table, capsys, arguments, expected, notices):
    assert with_new_names("serve", arguments) == expected
    out, err = capsys.readouterr()
    assert (out, err.count("; the old name goes in 0.3.\n")) == ("", notices)


def test_the_notice_names_both(table, capsys):
    with_new_names("serve", ["--sequences", "8"])
    assert capsys.readouterr().err == "qwen2-audio: --sequences is now --max-num-seqs; the old name goes in 0.3.\n"


def test_other_commands_keep_their_arguments(table, capsys):
    assert with_new_names("ask", ["--sequences", "8"]) == ["--sequences", "8"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", list(RENAMED))
def test_new_names_are_options_and_old_ones_are_not(name):
    app = typer.Typer(add_completion=False)
    app.command()(import_module(f"qwen2_audio.cli.{name}").command)
    options = {option for param in typer.main.get_command(app).params for option in param.opts}
    assert set(RENAMED[name].values()) <= options
    assert options.isdisjoint(RENAMED[name])
