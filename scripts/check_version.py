"""Whether a tag may be published: package, changelog and tag name one version.

python scripts/check_version.py v0.2.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def package_version(root: Path = ROOT) -> str:
    """`__version__` of the package, read without importing it."""
    text = (root / "src" / "qwen2_audio" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+?)"', text, re.M)
    assert match is not None
    return match[1]


def problem(tag: str, root: Path = ROOT) -> str | None:
    """Why `tag` may not be published, in one sentence; None where it may."""
    version = package_version(root)
    if tag != f"v{version}":
        return f"The tag is {tag}, and the package is {version}; expected the tag v{version}."
    heading = re.search(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    if heading is None or not re.fullmatch(re.escape(version) + r" \(\d{4}-\d\d-\d\d\)", heading[1]):
        found = "nothing" if heading is None else repr(heading[1])
        return f"CHANGELOG.md begins with {found}; expected '{version} (YYYY-MM-DD)', the day of the release."
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python scripts/check_version.py TAG")
    sys.exit(problem(sys.argv[1]))
