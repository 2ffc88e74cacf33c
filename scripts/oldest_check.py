"""Whether the lower bounds of pyproject.toml are true, and whether the package works without extras.

    python scripts/oldest_check.py     (`make test-oldest`)

One fresh environment with the versions of constraints-oldest.txt: first without extras, then with all of them and with
pytest. The checkout is installed in place, with the native kernels that it has: nothing is compiled. Two minutes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from installation import (
    ROOT,
    CheckError,
    Installation,
    check_demo,
    check_modules,
    check_serve_is_refused,
    expect,
    say,
)

CONSTRAINTS = ROOT / "constraints-oldest.txt"
EXTRAS = "server,plot,mic,eval,eval-yue,parquet,s3,tensorboard,ray"
NO_WHEEL = "langdetect"  # pure Python, published as sources alone
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "httpx", "httpx2")
# What meets other packages: files of sound, weights and text, the hub, templates, pictures, the server, commands.
TESTS = (
    "tests/unit/audio", "tests/unit/text", "tests/unit/inputs", "tests/unit/checkpoint", "tests/unit/api",
    "tests/unit/serve", "tests/unit/cli/test_cli_main.py", "tests/unit/cli/test_ask.py", "tests/unit/cli/test_info.py",
    "tests/unit/package/test_public_names.py", "tests/unit/evaluate/test_score_fixtures.py",
    "tests/unit/evaluate/test_score_registry.py",
)  # fmt: skip
# The oldest typer says "Missing argument 'AUDIO...'" where the newest says 'audio'.
NOT_THESE = ("--deselect=tests/unit/cli/test_cli_main.py::test_a_mistake_is_one_sentence_and_status_2",)


def check_versions(installation: Installation, *, complete: bool) -> None:
    """What is installed is what the list says; `complete`: and all of its first part, pyproject's own, is there."""
    first_part = CONSTRAINTS.read_text().partition("\n\n")[0]
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)$", first_part, re.M))
    found = {name: version.partition("+")[0] for name, version in installation.versions().items()}
    for name, version in wanted.items():
        expect(found.get(name, version) == version, f"{name} is {found.get(name)}, and the oldest is {version}.")
        expect(not complete or name in found, f"{name} is not installed, though an extra should bring it.")
    say(f"{len(wanted.keys() & found.keys())} packages at their lower bounds (torch {found['torch']} is not)")


def check_events(installation: Installation) -> None:
    """TensorBoard's events, which the tests only pretend to write."""
    program = "from torch.utils.tensorboard import SummaryWriter\nwith SummaryWriter('events') as writer:\n"
    installation.run("python", "-c", f"{program}    writer.add_scalar('loss', 1.0, 1)\n")
    expect(any((installation.work / "events").iterdir()), "TensorBoard wrote no events.")
    say("TensorBoard writes events")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="oldest-check-") as folder:
        installation = Installation(Path(folder))
        installation.environment |= {"CXX": "none"}  # what was built is used; this job is no place to build it again
        try:
            installation.pip("install", "--only-binary", ":all:", "-c", CONSTRAINTS, "-e", ROOT)
            check_versions(installation, complete=False)
            check_modules(installation)
            check_demo(installation)
            check_serve_is_refused(installation)
            wheels = ("--only-binary", ":all:", "--no-binary", NO_WHEEL)
            installation.pip("install", *wheels, "-c", CONSTRAINTS, "-e", f"{ROOT}[{EXTRAS}]", *TOOLS)
            installation.pip("check")
            check_versions(installation, complete=True)
            check_events(installation)
            # Warnings that are errors elsewhere are none here: old packages warn of each other.
            printed = installation.run("python", "-m", "pytest", "-W", "default", *NOT_THESE, *TESTS, folder=ROOT)
        except CheckError as error:
            sys.exit(f"oldest dependencies: {error}")
    say(printed.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
