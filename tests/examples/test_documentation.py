"""Every command and program in README.md and docs/ runs as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qwen2_audio as qa

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "recipes" / "nano" / "README.md"]
# What continuous integration runs by itself, takes hours, waits for a person, or needs a program that is not ours.
NOT_HERE = re.compile(
    r"^(make |\.venv/bin/python|python -m (recipes|benchmarks)|qwen2-audio bench|qwen2-audio chat|ffmpeg )"
)


def blocks(language):
    for page in PAGES:
        for number, match in enumerate(re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M), 1):
            yield pytest.param(match[1], id=f"{page.parent.name}/{page.stem}-{number}")


def commands():
    """Scripts: ```sh blocks, and indented blocks that call the command; a synopsis has [brackets]."""
    for page in PAGES:
        text = page.read_text()
        indented = re.findall(r"((?:^    (?:qwen2-audio|printf|ffmpeg) .*\n)+)", text, re.M)
        for block in [*re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M), *indented]:
            lines = [line.strip() for line in block.splitlines() if line.strip()]
            lines = [line for line in lines if not NOT_HERE.match(line) and not re.search(r"\[-|\[\w", line)]
            lines = [line.replace("--nproc-per-node 8", "--nproc-per-node 2") for line in lines]  # there are two cores
            if lines and not lines[0].startswith("qwen2-audio merge"):  # training.md has it after a training
                yield pytest.param("\n".join(lines), id=f"{page.stem}: {lines[0][:50]}")


@pytest.fixture
def here(tmp_path):
    """A folder to leave files in, with the clips that the documentation names."""
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    for name in ("dog.flac", "first.wav", "second.wav", "talk.mp3", "cat.wav"):
        (tmp_path / name).write_bytes((qa.nano_path() / "clips" / "dog.wav").read_bytes())
    (tmp_path / "dog.wav").write_bytes((tmp_path / "dog.flac").read_bytes())
    training = (ROOT / "docs" / "training.md").read_text()
    for name, config in re.findall(r"^```toml\n# (\w+\.toml)\n(.*?)^```", training, re.S | re.M):
        (tmp_path / name).write_text(config)
    example, pair = re.findall(r'^{"messages".*$', training, re.M)
    for name, row in (("train", example), ("eval", example), ("pairs", pair)):
        (tmp_path / f"{name}.jsonl").write_text(row + "\n")
    return tmp_path


def run(command, folder, hub_cache):
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(hub_cache),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("program", list(blocks("python")))
def test_programs(program, here, hub_cache):
    run([sys.executable, "-c", program], here, hub_cache)


@pytest.mark.parametrize("script", list(commands()))
def test_commands(script, here, hub_cache):
    run(["bash", "-e", "-o", "pipefail", "-c", script], here, hub_cache)


def test_commands_are_found():
    lines = [line for param in commands() for line in param.values[0].splitlines()]
    assert len(lines) >= 14
    assert any("train sft" in line for line in lines)
    assert any("ask" in line for line in lines)
    assert any("| qwen2-audio chat" in line for line in lines)
