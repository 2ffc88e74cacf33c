"""A command that is a group of commands, each in a file of its own, imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from ..errors import did_you_mean
from .exit_codes import MISTAKE
from .main import run_function

HELP = ("--help", "-h", "help")


def run_group(name: str, commands: Mapping[str, str], about: str, arguments: Sequence[str]) -> int:
    """Run `qwen2-audio NAME ARGUMENTS` and return its exit status. `commands`: each with a line on what it does;
    `about`: what the group's help says above and below them, divided by a line "---"."""
    program = f"qwen2-audio {name}"
    if not arguments or arguments[0] in HELP:
        print(help_of(program, commands, about))
        return 0
    command, *rest = arguments
    if command not in commands:
        near = did_you_mean(command, list(commands))
        print(f"qwen2-audio: there is no {name} {command!r}.{near} See {program} --help.", file=sys.stderr)
        return MISTAKE
    module = import_module(f".{name}_{command}", __package__)
    text = f"{commands[command][0].upper()}{commands[command][1:]}."
    return run_function(module.command, rest, f"{program} {command}", text)


def help_of(program: str, commands: Mapping[str, str], about: str) -> str:
    """The text of `--help`."""
    width = max(map(len, commands)) + 2
    lines = "\n".join(f"  {name:<{width}}{text}" for name, text in commands.items())
    above, _, below = about.partition("\n---\n")
    return (
        f"Usage: {program} COMMAND [ARGUMENTS]\n\n{above}\n\nCommands:\n{lines}\n\n"
        f"Options:\n  --help  print this; after a command, its own options\n\n{below}"
    )
