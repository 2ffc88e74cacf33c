"""Renamed options: for one version the old name still works, with a notice on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# command -> old option -> new option. Delete these entries in the version below.
RENAMED = {"serve": {"--draft-tokens": "--num-speculative-tokens"}}
REMOVED_IN = "0.3"


def with_new_names(command: str, arguments: Sequence[str]) -> list[str]:
    """`arguments` of `command` with old option names replaced by new ones; prints one line for each that was.

    Every argument before "--" that is spelled like an old option counts as one, even where another option's value is
    expected.
    """
    new_names = RENAMED.get(command, {})
    end_of_options = arguments.index("--") if "--" in arguments else len(arguments)
    replaced = []
    for argument in arguments[:end_of_options]:
        option, equals, value = argument.partition("=")
        if option in new_names:
            notice = f"qwen2-audio: {option} is now {new_names[option]}; the old name goes in {REMOVED_IN}."
            print(notice, file=sys.stderr)
            argument = new_names[option] + equals + value
        replaced.append(argument)
    return [*replaced, *arguments[end_of_options:]]
