"""qwen2-audio verify: the table, JSON, exit status."""

import json
import shutil

import qwen2_audio as qa
from qwen2_audio.evaluate.verify import run


def test_the_table_of_a_checkpoint(cli):
    status, out, err = cli("verify", "nano", "--only", "checkpoint", "--device", "cpu")
    assert status == 0
    assert out.startswith("checkpoint ")
    assert "front end: a ramp" in out and "10 of 10 checks in bounds; 4 not possible here" in out
    assert "paste all of the table" in err


def test_json_and_status_3_for_what_is_out_of_bounds(cli, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(qa.nano_path(), folder, ignore=shutil.ignore_patterns("clips"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "audio_token_index": 1541}))
    status, out, err = cli("verify", folder, "--only", "checkpoint", "--json")
    assert status == 3
    found = json.loads(out)
    assert not found["passed"]
    bad = [row for row in found["rows"] if row["state"] == "OUT OF BOUNDS"]
    assert [row["check"] for row in bad] == ["tokenizer: ids of the control tokens"]
    assert {"figure", "bound", "unit", "subject", "part", "note"} <= bad[0].keys()
    assert "OUT OF BOUNDS: tokenizer" in err
    assert found["about"]["checkpoint"] == str(folder)


def test_mistakes_are_one_sentence(cli):
    assert cli("verify", "--only", "machin") == (
        2, "", "qwen2-audio: --only has 'machin'; expected checkpoint, machine, reference. Did you mean 'machine'?\n"
    )  # fmt: skip
    status, out, err = cli("verify", "nowhere/at-all", "--only", "checkpoint")
    assert (status, out) == (2, "") and "nowhere" in err


def test_all_parts_are_run_unless_some_are_named(cli, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "rows", lambda where, device, parts, progress: asked.append(list(parts)) or [])
    assert cli("verify")[0] == 0
    assert cli("verify", "--only", "machine,reference")[0] == 0
    assert asked == [["checkpoint", "machine", "reference"], ["machine", "reference"]]
