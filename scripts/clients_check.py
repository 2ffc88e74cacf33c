"""Whether the clients that people have get from `qwen2-audio serve` what they expect.

    python scripts/clients_check.py [openai-newest] [openai-oldest] [libraries] [node]

`make test-clients` does all.

openai-newest, openai-oldest: OpenAI's client as constraints.txt and constraints-oldest.txt have it.
libraries: LangChain, instructor, pydantic-ai, openai-agents and litellm, as constraints-clients.txt has them.
node:      OpenAI's client for JavaScript and Vercel's AI SDK, as tests/clients/node/package-lock.json has them.
Each gets a fresh environment without this package, and runs its files of tests/clients against one server with nano,
which this environment starts. What cannot be installed for want of a network, of node or of npm is skipped, with the
reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from installation import ROOT, CheckError, Installation, expect, say, serving

TESTS = ROOT / "tests" / "clients"
CLIPS = ROOT / "src" / "qwen2_audio" / "nano" / "clips"
LIBRARIES = ("openai", "langchain-openai", "instructor", "pydantic-ai-slim[openai]", "openai-agents", "litellm")
# What pip and npm say where the lists of versions are wrong, which no network would mend.
OUR_FAULT = ("ResolutionImpossible", "conflicting dependencies", "EUSAGE", "ERESOLVE", "EINTEGRITY")


class SkipError(Exception):
    """These clients cannot be had here; the message is the reason."""


def install(installing: Callable[[], object], probe: Callable[[], object]) -> None:
    """SkipError where that fails, unless the lists of versions are at fault.

    `probe` raises CheckError where there is no network: of a package that cannot be had, pip says that it conflicts.
    """
    try:
        installing()
    except CheckError as error:
        if any(mark in str(error) for mark in OUR_FAULT):
            try:
                probe()
            except CheckError as offline:
                raise SkipError(str(offline).strip().splitlines()[-1][:300]) from offline
            raise
        raise SkipError(str(error).strip().splitlines()[-1][:300]) from error


def python_clients(folder: Path, url: str, constraints: str, packages: tuple[str, ...], files: str) -> None:
    """`packages` and pytest in an environment of their own, and those of TESTS that `files` names."""
    installation = Installation(folder)
    installation.environment |= given(url)
    wanted = ("--retries", "1", "--no-compile", "-c", str(ROOT / constraints), *packages, "pytest")
    one = ("--retries", "1", "--no-deps", "--no-cache-dir", "--dest", folder, "iniconfig")  # small, and pytest needs it
    install(lambda: installation.pip("install", *wanted), lambda: installation.pip("download", *one))
    versions = installation.versions()
    expect("torch" not in versions and "qwen2-audio" not in versions, "The clients' environment has the package, too.")
    names = [package.partition("[")[0] for package in packages]
    say("installed: " + ", ".join(f"{name} {versions[name]}" for name in names))
    tests = installation.work / "clients"
    shutil.copytree(TESTS, tests)
    chosen = sorted(path.name for path in tests.glob(files))
    expect(bool(chosen), f"There is no {files} in {TESTS}.")
    options = ("-q", "--tb=short", "-p", "no:cacheprovider", "--disable-warnings")
    say(installation.run("python", "-m", "pytest", *options, *chosen, folder=tests).strip().splitlines()[-1])


def node_clients(folder: Path, url: str) -> None:
    """The packages of TESTS / "node", and its tests."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SkipError("there is no node, or no npm")
    tests = folder / "node"
    shutil.copytree(TESTS / "node", tests)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tests, env={**os.environ, **given(url)}, text=True, check=False, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        expect(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}")
        return done.stdout

    major = int(run(node, "--version").lstrip("v").partition(".")[0])
    if major < 20:
        raise SkipError(f"node is {major}, and these need 20")
    install(lambda: run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"), lambda: None)
    files = sorted(path.name for path in tests.glob("with_*.mjs"))
    printed = run(node, "--test", "--test-reporter=tap", *files)
    expect("\n# skipped 0\n" in printed and "\n# pass 0\n" not in printed, f"Not all tests ran:\n{printed[-3000:]}")
    say(", ".join(line[2:] for line in printed.splitlines() if line.startswith(("# pass", "# fail"))))


def given(url: str) -> dict[str, str]:
    """What tests are told by the environment; no proxy knows this machine's ports."""
    return {"CLIENTS_URL": url, "CLIENTS_CLIPS": str(CLIPS), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def newest(folder: Path, url: str) -> None:
    python_clients(folder, url, "constraints.txt", ("openai",), "with_openai.py")


def oldest(folder: Path, url: str) -> None:
    python_clients(folder, url, "constraints-oldest.txt", ("openai",), "with_openai.py")


def libraries(folder: Path, url: str) -> None:
    python_clients(folder, url, "constraints-clients.txt", LIBRARIES, "with_*.py")


CHECKS = {"openai-newest": newest, "openai-oldest": oldest, "libraries": libraries, "node": node_clients}


def main(wanted: list[str]) -> None:
    unknown = sorted(set(wanted) - set(CHECKS))
    if unknown:
        sys.exit(f"There are no clients {unknown[0]!r}; expected {', '.join(CHECKS)}.")
    skipped = []
    with tempfile.TemporaryDirectory(prefix="clients-check-") as name:
        folder, environment = Path(name), {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        try:
            with serving([sys.executable, "-m", "qwen2_audio"], folder, environment) as url:
                for check in wanted or list(CHECKS):
                    say(f"--- {check}")
                    (folder / check).mkdir()
                    try:
                        CHECKS[check](folder / check, url)
                    except SkipError as reason:
                        skipped.append(check)
                        say(f"SKIPPED, as it cannot be installed here: {reason}")
        except CheckError as error:
            sys.exit(f"clients check failed: {error}")
    say(f"the clients are served{', but skipped: ' + ', '.join(skipped) if skipped else ''}")


if __name__ == "__main__":
    main(sys.argv[1:])
