"""The tools of a home that listens, and the call that each of nano's spoken commands asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen2_audio.engine.structured.tool_calls import Tool, call_words
from qwen2_audio.evaluate.nano.world.numbers import words
from qwen2_audio.evaluate.nano.world.utterance import Utterance

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
_NUMBERS = {words(number): number for number in range(100)}


@dataclass(frozen=True)
class Command:
    """A family of spoken commands: the tool it calls, and how its sentences are read."""

    tool: Tool
    sentence: re.Pattern[str]  # a group for each argument
    read: Callable[[dict[str, str]], dict[str, Any]] = dict  # the groups as arguments


def _tool(name: str, description: str, **parameters: dict[str, Any]) -> Tool:
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return Tool(name, description, schema)


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _with_number(key: str) -> Callable[[dict[str, str]], dict[str, Any]]:
    return lambda found: {**found, key: _NUMBERS[found[key].lower()]}


def _sentence(expression: str) -> re.Pattern[str]:
    return re.compile(expression + r"\.", re.IGNORECASE)


COMMANDS = {
    "switch": Command(
        _tool("switch", "Turns a device on or off.", state=_one_of("on", "off"), device=TEXT, room=TEXT),
        _sentence(r"(?:turn|switch) (?P<state>on|off) the (?P<device>.+) in the (?P<room>.+)"),
    ),
    "move": Command(
        _tool("move", "Opens or closes something.", action=_one_of("open", "close"), thing=TEXT, room=TEXT),
        _sentence(r"(?:please )?(?P<action>open|close) the (?P<thing>.+) in the (?P<room>.+)"),
        lambda found: {**found, "action": found["action"].lower()},
    ),
    "timer": Command(
        _tool("set_timer", "Sets a timer.", count=NUMBER, unit=_one_of("second", "minute", "hour")),
        _sentence(r"(?:please )?(?:set|start) a timer for (?P<count>.+) (?P<unit>second|minute|hour)s?"),
        _with_number("count"),
    ),
    "wake": Command(
        _tool("wake", "Wakes the speaker.", hour=NUMBER, day=TEXT),
        _sentence(r"wake me at (?P<hour>.+) o'clock on (?P<day>.+)"),
        _with_number("hour"),
    ),
    "volume": Command(
        _tool("set_volume", "Sets how loud a device is.", device=TEXT, level=NUMBER),
        _sentence(r"set the volume of the (?P<device>.+) to (?P<level>.+)"),
        _with_number("level"),
    ),
    "play": Command(
        _tool("play", "Plays music.", kind=TEXT, room=TEXT),
        _sentence(r"(?:please )?play (?P<kind>.+) music in the (?P<room>.+)"),
    ),
    "remind": Command(
        _tool("remind", "Reminds the speaker to call somebody.", person=TEXT, day=TEXT),
        _sentence(r"remind me to call (?P<person>.+) on (?P<day>.+)"),
    ),
    "shopping": Command(
        _tool("add_to_list", "Adds food to the list.", items={"type": "array", "items": TEXT}),
        _sentence(r"add (?P<one>.+) and (?P<two>.+) to the list"),
        lambda found: {"items": list(found.values())},
    ),
    "message": Command(
        _tool("tell", "Tells somebody how the speaker is.", person=TEXT, state=TEXT),
        _sentence(r"tell (?P<person>.+) that i am (?P<state>.+)"),
    ),
    "order": Command(
        _tool("order", "Orders something for somebody.", thing=TEXT, person=TEXT, hour=NUMBER),
        _sentence(r"order an? (?P<thing>.+) for (?P<person>.+) at (?P<hour>.+) o'clock"),
        _with_number("hour"),
    ),
}


def call_of(command: Utterance) -> tuple[str, dict[str, Any]]:
    """The name of the tool and the arguments that a command asks for. Raises ValueError for another sentence."""
    found = COMMANDS[command.family].sentence.fullmatch(command.text)
    if found is None:
        raise ValueError(f"{command.text!r} is no command of the family {command.family!r}.")
    known = COMMANDS[command.family]
    return known.tool.name, known.read(found.groupdict())


def answer_of(command: Utterance) -> str:
    """The call in the words of an answer."""
    name, arguments = call_of(command)
    return call_words(name, json.dumps(arguments))
