"""Every command and program in README.md and docs/ runs as it is written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import qwen2_audio as qa
from kit import warm
from kit.clip_files import wav_bytes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "recipes" / "nano" / "README.md"]
# What continuous integration runs by itself, takes minutes or hours, waits for a person, or needs a GPU, the official
# weights, or a program that is not ours.
NOT_HERE = re.compile(
    r"^(make |\.venv/bin/python|python -m (recipes|benchmarks)|qwen2-audio bench|qwen2-audio chat|ffmpeg "
    r"|qwen2-audio eval (judge|.*--base-url|.*runs/server)|qwen2-audio verify(?! nano))"
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


def fill(folder):
    """Put the clips and files that the documentation names into an empty folder."""
    (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    for name in ("dog.flac", "dog.wav", "first.wav", "second.wav", "talk.mp3", "cat.wav"):
        (folder / name).write_bytes((qa.nano_path() / "clips" / "dog.wav").read_bytes())
    (folder / "meeting.mp3").write_bytes(wav_bytes(35.0))
    training, jobs = ((ROOT / "docs" / name).read_text() for name in ("training.md", "jobs.md"))
    for name, config in re.findall(r"^```toml\n# (\w+\.toml)\n(.*?)^```", training + jobs, re.S | re.M):
        (folder / name).write_text(config)
    structured = (ROOT / "docs" / "structured.md").read_text()
    (folder / "sound.json").write_text(re.findall(r"^```json\n(.*?)^```", structured, re.S | re.M)[0])
    example, pair = re.findall(r'^{"messages".*$', training, re.M)
    for name, row in (("train", example), ("eval", example), ("pairs", pair)):
        (folder / f"{name}.jsonl").write_text(row + "\n")


@pytest.fixture(scope="module")
def environment(hub_cache):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HOME": str(hub_cache), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """One folder for all commands, and the lines that have succeeded in it."""
    folder = tmp_path_factory.mktemp("documentation")
    fill(folder)
    return folder, set()


@pytest.mark.parametrize("program", list(blocks("python")))
def test_programs(program, tmp_path, environment):
    fill(tmp_path)
    done = warm.run(["-c", program], folder=tmp_path, environment=environment)
    assert done.returncode == 0, f"{program}\n{done.stderr[-3000:]}"


def run(words, line, folder, environment):
    if words[0] == "qwen2-audio":
        return [warm.run(["-m", "qwen2_audio", *words[1:]], folder=folder, environment=environment)]
    if words[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "qwen2_audio"] and words[5] == "train":
        return warm.run_together(words[3:], folder=folder, environment=environment)
    shell = ["bash", "-e", "-o", "pipefail", "-c", line]
    return [subprocess.run(shell, capture_output=True, text=True, env=environment, cwd=folder, timeout=240)]


@pytest.mark.parametrize("script", list(commands()))
def test_commands(script, workshop, environment):
    """Line by line. Pages repeat each other: what one page has done is there for the next, and not done again."""
    folder, succeeded = workshop
    for line in script.splitlines():
        words = shlex.split(line, comments=True)
        if tuple(words) in succeeded:
            continue
        for done in run(words, line, folder, environment):
            assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
        succeeded.add(tuple(words))


def test_commands_are_found():
    lines = [line for param in commands() for line in param.values[0].splitlines()]
    assert len(lines) >= 14
    assert any("train sft" in line for line in lines)
    assert any("ask" in line for line in lines)
    assert any("| qwen2-audio chat" in line for line in lines)
