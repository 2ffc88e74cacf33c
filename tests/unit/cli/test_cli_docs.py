"""docs/cli.md says what the parser takes, no more and no less."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import typer

from qwen2_audio.cli import exit_codes
from qwen2_audio.cli.chat_input import COMMANDS as CHAT_COMMANDS
from qwen2_audio.cli.eval import COMMANDS as EVAL_COMMANDS
from qwen2_audio.cli.job import COMMANDS as JOB_COMMANDS
from qwen2_audio.cli.main import COMMANDS

GROUPS = {"eval": EVAL_COMMANDS, "job": JOB_COMMANDS}
PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def sections():
    parts = re.split(r"^## (\w+)$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section_in_the_order_of_help():
    assert list(sections()) == list(COMMANDS)


def options_of(module):
    app = typer.Typer(add_completion=False)
    app.command()(import_module(f"qwen2_audio.cli.{module}").command)
    params = typer.main.get_command(app).params
    return {option for param in params for option in (*param.opts, *param.secondary_opts) if option.startswith("--")}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_option_is_documented_and_every_documented_option_is_there(name):
    modules = [f"{name}_{of}" for of in GROUPS[name]] if name in GROUPS else [name]
    taken = set().union(*map(options_of, modules))
    text = re.sub(r"qwen2-audio \w+ --help|--dtype auto|--tasks nano --count N", "", sections()[name])
    documented = set(re.findall(r"--[a-z][a-z-]*", text))
    assert documented - {"--help"} == taken - {"--help"}


def test_every_line_of_chat_is_documented():
    assert set(re.findall(r"^\| `(/\w+)", sections()["chat"], flags=re.M)) == set(CHAT_COMMANDS)


def test_the_table_of_exit_statuses_is_the_code_s():
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    documented = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), flags=re.M)
    assert list(map(int, documented)) == sorted(codes) == [0, 1, 2, 3, 130]


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_command_of_a_group_is_documented(group):
    assert set(re.findall(rf"^- `{group} (\w+)", sections()[group], flags=re.M)) == set(GROUPS[group])
