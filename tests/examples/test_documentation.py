"""Every command and program in README.md and docs/ runs as it is written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "recipes" / "nano" / "README.md"]
# What continuous integration runs by itself, or what takes hours or a person at the microphone.
NOT_HERE = ("make ", ".venv/bin/python -m pytest", "python -m recipes.nano", "qwen2-audio bench", "qwen2-audio chat")


def blocks(language):
    for page in PAGES:
        for number, match in enumerate(re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M), 1):
            yield pytest.param(match[1], id=f"{page.parent.name}/{page.stem}-{number}")


def run(command, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def here(tmp_path):
    """A folder to leave files in, from which examples/ can be reached as in the documentation."""
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize("program", list(blocks("python")))
def test_programs(program, here):
    run([sys.executable, "-c", program], here)


@pytest.mark.parametrize("script", list(blocks("sh")))
def test_commands(script, here):
    lines = [line for line in script.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    wanted = [line for line in lines if not line.startswith(NOT_HERE)]
    if not wanted:
        pytest.skip("run by continuous integration itself, or by a person")
    for line in wanted:
        command = shlex.split(line, comments=True)
        assert command[0] == "qwen2-audio", f"what is {command[0]}? Add it here or to NOT_HERE."
        run([sys.executable, "-m", "qwen2_audio", *[a.replace("/tmp", str(here)) for a in command[1:]]], here)
