"""The rules of ARCHITECTURE.md that a machine can check."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qwen2_audio

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("src", "recipes", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
# Signatures fixed by the reference's own API, which users call by keyword.
FIXED_SIGNATURES = {
    "__call__",
    "apply_chat_template",
    "command",  # typer reads a command's options from its signature
    "embed_prompt",
    "forward",
    "from_pretrained",
    "generate",
    "load",
}


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES, f"{path.name} has {lines} lines; split it by idea"
    for node in functions(path):
        docstring = ast.get_docstring(node, clean=False) or ""
        signature = node.body[0].lineno - node.lineno
        length = node.end_lineno - node.lineno + 1 - docstring.count("\n") - signature
        assert length <= FUNCTION_LINES, f"{path.name}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_many_parameters_become_a_dataclass(path):
    for node in functions(path):
        decorated = {ast.unparse(d).split("(")[0] for d in node.decorator_list}
        if node.name in FIXED_SIGNATURES or any(d.endswith(".command") for d in decorated):
            continue
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([n for n in names if n not in ("self", "cls")])
        assert count <= PARAMETERS, f"{path.name}:{node.lineno} {node.name} takes {count} parameters"


def test_every_module_imports():
    for module in pkgutil.walk_packages(qwen2_audio.__path__, "qwen2_audio."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_importing_the_package_does_no_work():
    code = (
        "import sys, qwen2_audio; heavy = {'torch', 'numpy', 'av', 'tokenizers', 'transformers', 'jinja2', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_vague_names():
    for path in SOURCES:
        assert path.stem not in {"utils", "util", "helpers", "misc", "common"}, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert not re.search(r"(Manager|Helper|Util)s?$", node.name) or node.name == "BlockManager", (
                    f"{path.name}: {node.name}"
                )


def test_the_map_names_every_module():
    """In ARCHITECTURE.md each room's paragraph names its modules, and none that is gone."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text[text.index("## Rooms") : text.index("## A waveform")]
    package = ROOT / "src" / "qwen2_audio"
    found: dict[str, set[str]] = {}
    for base, folder in ((package, package), (ROOT, ROOT / "benchmarks")):
        for path in folder.rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                found.setdefault(str(path.parent.relative_to(base)), set()).add(path.stem)
    named = {".": set(re.findall(r"`(\w+)\.py`", section[: section.index("- `")]))}
    for room, words in re.findall(r"^- `([\w/]+)/`(.*(?:\n  .*)*)", section, flags=re.M):
        named[room] = {name for name in re.findall(r"`(\w+)`", words) if f"{room}/{name}/" not in section}
    assert named.keys() == found.keys()
    for room, modules in found.items():
        assert modules - named[room] == set(), f"{room}: not on the map"
        assert named[room] - modules == set(), f"{room}: on the map but gone"
