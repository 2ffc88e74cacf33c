"""From spoken commands to calls: each sentence has its call, the trainer reads the rows, and the whole, very small."""

from __future__ import annotations

import json

import numpy as np
import pytest
from recipes.tools import __main__ as recipe
from recipes.tools import evaluation, rows
from recipes.tools.commands import COMMANDS, answer_of, call_of

from qwen2_audio.engine.structured.tool_calls import ToolCallParser, call_words
from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.evaluate.nano.world import commands as spoken
from qwen2_audio.evaluate.nano.world.utterance import Utterance, split_of
from qwen2_audio.train.formats import read_row
from qwen2_audio.types import Completion, Usage

NAMES = [command.tool.name for command in COMMANDS.values()]


@pytest.fixture
def voices(monkeypatch):
    """Stand-ins for the synthesisers: what is said, and a fifth of a second of noise."""
    said = []

    def render_speech(split, index, group, draw, *, about=""):
        rng = np.random.default_rng(index)
        said.append((split, group, draw(rng)))
        return rng.uniform(-0.1, 0.1, 3200).astype(np.float32), Clip(SPEECH, 0.2, -20.0)

    monkeypatch.setattr(rows, "render_speech", render_speech)
    monkeypatch.setattr(evaluation, "render_speech", render_speech)
    monkeypatch.setattr(recipe, "check_engines", lambda: None)
    monkeypatch.setattr(rows, "TURNS", 2)
    return said


@pytest.mark.parametrize("make", spoken.COMMANDS, ids=[make.__name__ for make in spoken.COMMANDS])
def test_each_command_has_its_call(make):
    jsonschema = pytest.importorskip("jsonschema")
    rng = np.random.default_rng(0)
    for _ in range(200):
        command = make(rng)
        name, arguments = call_of(command)
        tool = COMMANDS[command.family].tool
        assert name == tool.name and list(arguments) == list(tool.parameters["properties"])
        jsonschema.validate(arguments, tool.parameters)
        _, (head, body) = ToolCallParser(NAMES).push(answer_of(command))
        assert (head.name, json.loads(body.arguments)) == (name, arguments)


def test_calls_say_what_was_said():
    timer = Utterance("Please set a timer for thirty five minutes.", "timer", "")
    assert call_of(timer) == ("set_timer", {"count": 35, "unit": "minute"})
    moved = Utterance("Please close the gate in the living room.", "move", "")
    assert call_of(moved)[1] == {"action": "close", "thing": "gate", "room": "living room"}
    with pytest.raises(ValueError, match="no command of the family 'timer'"):
        call_of(Utterance("Stop the timer.", "timer", ""))


def test_rows_are_the_trainers_and_go_on_after_a_kill(tmp_path, voices):
    path = rows.write_rows(6, tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(split == "train" and group == "seen" for split, group, _ in voices)
    commands = [said for _, _, said in voices if said.family in COMMANDS]
    assert commands and all(split_of(said.text) == "train" for said in commands)
    for line in lines:
        read_row(line, tmp_path)
        system, *turns = line["messages"]
        assert system["content"].count('"type": "function"') == rows.OFFERED
        for turn in turns:
            if turn["role"] == "assistant" and turn["content"].startswith("<tool_call>"):
                _, (head, *_) = ToolCallParser(NAMES).push(turn["content"])
                assert f'"name": "{head.name}"' in system["content"], "the tool is offered"
    spoken_once = len(voices)
    path.unlink()
    assert rows.write_rows(6, tmp_path).read_text().splitlines() == [json.dumps(line) for line in lines]
    assert len(voices) == spoken_once, "clips that are there are kept"


def test_right_parsed_and_neither(voices):
    (item,) = evaluation.spoken("variant", 1)
    assert split_of(item.said.text) == "test" and COMMANDS[item.said.family].tool.name == item.call[0]
    right, cut = answer_of(item.said), answer_of(item.said)[:-20]
    name, arguments = item.call
    wrong = call_words(name, json.dumps({**arguments, "more": 1}))

    class Model:
        def __init__(self, text):
            self.text = text

        def batch(self, conversations, params):
            assert all(param.trigger == "<tool_call>" for param in params)
            return [Completion(self.text, "stop", Usage(1, 0, 1)) for _ in conversations]

    def counts(text, items):
        row = evaluation.score(Model(text), "x", items, "auto")
        return row.parsed, row.right

    assert counts(right, [item]) == (1, 1)
    assert counts(wrong, [item]) == (1, 0) and counts(cut, [item]) == (0, 0) and counts("Okay.", [item]) == (0, 0)
    (question,) = evaluation.spoken("seen", 1, asks=True)
    assert question.call is None and counts("It is Paris.", [question]) == (0, 1)


def test_the_whole_at_tiny_scale(tmp_path, voices, monkeypatch, capsys):
    pytest.importorskip("llguidance")
    monkeypatch.setattr(evaluation, "LONGEST", 8)
    arguments = ["--work", str(tmp_path), "--rows", "2", "--count", "1", "--bar"]
    assert recipe.main(arguments) == 3, "two rows teach nothing"
    printed = capsys.readouterr().out
    assert printed.count("| commands, ") == 6 and "| questions that ask for no call, auto |" in printed
    assert (tmp_path / "adapter" / "final" / "adapter_model.safetensors").is_file()
    assert recipe.main([*arguments[:-1], "eval"]) == 0
