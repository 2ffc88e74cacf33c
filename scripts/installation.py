"""A fresh virtual environment and what a user does in it; release_check.py, oldest_check.py and
clients_check.py put these together.

Nothing here imports the package: it is run as its users run it, from an empty folder, so that a file which is missing
from the wheel is missed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "clang++")
SERVER = {"starlette", "uvicorn", "pydantic", "pydantic_core", "python_multipart", "prometheus_client", "h11"}
# Modules that may miss these packages where no extra is installed; every other module has to import.
NEEDS_EXTRAS = {"qwen2_audio.serve.": SERVER}
STARTED = time.monotonic()


class CheckError(Exception):
    """Something does not work as it should; the message is what a user would meet."""


def say(sentence: str) -> None:
    """A line on stdout with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {sentence}", flush=True)


def expect(condition: bool, sentence: str) -> None:
    """Raise CheckError with `sentence` unless `condition` holds."""
    if not condition:
        raise CheckError(sentence)


class Installation:
    """A virtual environment in `folder`, with an empty folder to work in. Without `compiler`, programs find none."""

    def __init__(self, folder: Path, *, compiler: bool = True) -> None:
        self.binaries = folder / "environment" / "bin"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        path = str(self.binaries) + (os.pathsep + os.environ["PATH"] if compiler else "")
        own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "QWEN2_AUDIO_MODEL", *(() if compiler else ("CC", "CXX")))
        self.environment = {name: value for name, value in os.environ.items() if name not in own}
        self.environment |= {"PATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "venv", self.binaries.parent], check=True)
        if not compiler:
            found = [name for name in COMPILERS if shutil.which(name, path=path)]
            expect(not found, f"There is a compiler on the PATH that should have none: {found}.")

    def pip(self, *arguments: str | Path) -> str:
        """Run pip with `arguments`; its output."""
        return self.run("python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def run(self, program: str, *arguments: str | Path, status: int = 0, folder: Path | None = None) -> str:
        """Run a program of this environment, in the empty folder or in `folder`; its stdout and stderr.

        Raises CheckError where it ends with another status than `status`, or does not end within 15 minutes.
        """
        words = f"{program} {' '.join(map(str, arguments))[:200]}"
        try:
            done = subprocess.run(
                [self.binaries / program, *arguments],
                cwd=folder or self.work, env=self.environment, text=True, check=False, timeout=900,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CheckError(f"{words} did not end within 15 minutes.") from error
        sentence = f"{words} ended with {done.returncode}, expected {status}"
        expect(done.returncode == status, f"{sentence}:\n{done.stdout[-4000:]}")
        return done.stdout

    def versions(self) -> dict[str, str]:
        """What is installed, names in lower case with hyphens."""
        program = (
            "import json\nfrom importlib.metadata import distributions\n"
            "print(json.dumps({each.name.lower().replace('_', '-'): each.version for each in distributions()}))"
        )
        versions: dict[str, str] = json.loads(self.run("python", "-c", program).splitlines()[-1])
        return versions


def check_demo(installation: Installation) -> None:
    """`qwen2-audio demo` answers, and knows the dog."""
    printed = installation.run("qwen2-audio", "demo")
    expect("dog barking" in printed.replace("\n", " "), f"The demo did not hear the dog bark:\n{printed[-3000:]}")
    say("demo: all of its clips are answered, and the dog is heard")


def check_five_lines(installation: Installation) -> None:
    """The program under "Five lines" in README.md."""
    match = re.search(r"^## Five lines\n+```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    expect(match is not None, "README.md has no program under 'Five lines'.")
    assert match is not None
    printed = installation.run("python", "-c", match[1])
    expect("dog" in printed.lower(), f"The README's five lines did not hear the dog: {printed[-2000:]}")
    say(f"README's five lines: {printed.strip().splitlines()[-1]}")


def check_modules(installation: Installation) -> None:
    """Every module imports without extras, but for those in NEEDS_EXTRAS."""
    program = (
        "import importlib, json, pkgutil, qwen2_audio\nmissing, count = {}, 0\n"
        "for module in pkgutil.walk_packages(qwen2_audio.__path__, 'qwen2_audio.'):\n"
        "    if not module.name.endswith('.__main__'):\n"
        "        count += 1\n"
        "        try:\n            importlib.import_module(module.name)\n"
        "        except ModuleNotFoundError as error:\n            missing[module.name] = error.name.split('.')[0]\n"
        "print(json.dumps([count, missing]))"
    )
    count, missing = json.loads(installation.run("python", "-c", program).splitlines()[-1])
    for module, package in missing.items():
        allowed = any(module.startswith(prefix) and package in names for prefix, names in NEEDS_EXTRAS.items())
        expect(allowed, f"{module} needs {package}, which is installed with an extra only.")
    say(f"{count - len(missing)} modules import without extras; {len(missing)} say which package they miss")


def check_serve_is_refused(installation: Installation) -> None:
    """Without the server extra, `serve` ends at once with one sentence that says what to install."""
    printed = installation.run("qwen2-audio", "serve", "--port", "0", status=2)
    expect(printed.count("\n") == 1 and "pip install 'qwen2-audio[server]'" in printed, f"serve said:\n{printed}")
    say(f"serve without its extra: {printed.strip()}")


def check_serve(installation: Installation) -> None:
    """`qwen2-audio serve` answers a question about a clip, sends its page, and ends when it is told to."""
    with serving([installation.binaries / "qwen2-audio"], installation.work, installation.environment) as url:
        page = _fetch(f"{url}/")
        expect(b"<html" in page and b"qwen2-audio" in page.lower(), "The server's page is not there.")
        for script in re.findall(rb'(?:src|href)="(/?static/[^"]+)"', page):
            expect(len(_fetch(f"{url}/{script.decode().lstrip('/')}")) > 0, f"The page's file {script!r} is empty.")
        clip = installation.run("python", "-c", "import qwen2_audio as qa; print(qa.nano_path() / 'clips' / 'dog.wav')")
        sound = base64.b64encode(Path(clip.strip()).read_bytes()).decode()
        content = [
            {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
            {"type": "text", "text": "What is that sound?"},
        ]
        body = {"model": "nano", "messages": [{"role": "user", "content": content}], "temperature": 0}
        answer = json.loads(_fetch(f"{url}/v1/chat/completions", body))["choices"][0]["message"]["content"]
        expect("dog" in answer.lower(), f"The server did not hear the dog: {answer!r}")
    say(f"serve: the page is there, and a request was answered: {answer}")


@contextmanager
def serving(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A server on a free port; its URL. SIGTERM ends it, within a minute and without a traceback.

    `command`: what `serve` is a word of; it runs in `folder`, where its lines are kept.
    """
    log = folder / "server.log"  # no pipe: a full one, which nobody reads, would stop the server
    with (
        log.open("wb") as lines,
        subprocess.Popen(
            [*command, "serve", "--port", "0"], cwd=folder, env=environment, stdout=lines, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            while not (match := re.search(r"Serving \S+ at (http://\S+)\s", log.read_text())):
                expect(server.poll() is None, f"The server did not start:\n{log.read_text()}")
                time.sleep(0.1)
            url = match[1]
            _wait_for(f"{url}/health")
            yield url
        finally:
            server.terminate()
            server.wait(timeout=60)
    expect("Traceback" not in log.read_text(), f"The server's log has a traceback:\n{log.read_text()[-3000:]}")


def _wait_for(url: str, seconds: float = 30) -> None:
    """Ask until there is an answer: the server names its address a moment before it takes connections."""
    end = time.monotonic() + seconds
    while True:
        try:
            _fetch(url)
            return
        except CheckError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _fetch(url: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine's ports
    try:
        with opener.open(request, timeout=120) as response:
            content: bytes = response.read()
    except OSError as error:  # an HTTP status of 400 and above is one, too
        raise CheckError(f"{url} does not answer: {error}.") from error
    return content


def check_types(installation: Installation, cache: Path) -> None:
    """mypy reads the installed package's types: a program that is right passes, two that are wrong do not."""
    right = 'import qwen2_audio as qa\nanswer = qa.load().chat([qa.user("What is it?", audio="dog.wav")])\n{}\n'
    programs: Sequence[tuple[str, str | None]] = (
        ("text: str = answer.text", None),
        ("number: int = answer.text", "Incompatible types in assignment"),
        ("qa.lode()", 'Module has no attribute "lode"'),
    )
    for last_line, mistake in programs:
        (installation.work / "program.py").write_text(right.format(last_line))
        python = ("--python-executable", installation.binaries / "python")
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", *python, "--cache-dir", cache, "program.py"],
            cwd=installation.work, env=installation.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        as_it_should = done.returncode == 0 if mistake is None else mistake in done.stdout
        expect(as_it_should, f"mypy on {last_line!r} said:\n{done.stdout}{done.stderr}")
    say("mypy --strict: a user's program passes, and two mistakes in it are found")
