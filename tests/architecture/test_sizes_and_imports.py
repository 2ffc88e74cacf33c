"""The rules of ARCHITECTURE.md that a machine can check."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import qwen2_audio

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("src", "recipes", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
ATTRIBUTES, COLLABORATORS = 12, 8
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
    "transcribe",  # one keyword for each option of the command
}


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def code_lines(function):
    """Lines of a function's body; its signature and its docstring do not count."""
    docstring = ast.get_docstring(function, clean=False) or ""
    signature = function.body[0].lineno - function.lineno
    return function.end_lineno - function.lineno + 1 - docstring.count("\n") - signature


def parameters(function):
    decorated = {ast.unparse(d).split("(")[0] for d in function.decorator_list}
    if function.name in FIXED_SIGNATURES or any(d.endswith(".command") for d in decorated):
        return 0
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return len([a for a in arguments if a.arg not in ("self", "cls")])


def attributes(class_node):
    """Names a class keeps: annotated in its body, or assigned to `self` in one of its methods."""
    fields = {n.target.id for n in class_node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    for node in ast.walk(class_node):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if stored and isinstance(node.value, ast.Name) and node.value.id == "self":
            fields.add(node.attr)
    return fields


def collaborators(class_node, tree):
    """Classes of this project that a class names; errors and the words of types.py, which all share, do not count."""
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or re.match("qwen2_audio|recipes|benchmarks", node.module)):
            imported |= {alias.asname or alias.name: (node.module or "").split(".")[-1] for alias in node.names}
    names = {n.id for n in ast.walk(class_node) if isinstance(n, ast.Name)}
    is_class = re.compile("[A-Z].*[a-z]")  # constants have no small letter
    return {n for n in names if is_class.match(n) and imported.get(n, "errors") not in ("errors", "types")}


def test_files_functions_and_signatures_stay_small():
    too_large = []
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        if text.count("\n") > FILE_LINES:
            too_large.append(f"{name} has {text.count(chr(10))} lines; split it by idea")
        for node in functions(ast.parse(text)):
            where = f"{name}:{node.lineno} {node.name}"
            if code_lines(node) > FUNCTION_LINES:
                too_large.append(f"{where} has {code_lines(node)} lines")
            if parameters(node) > PARAMETERS:
                too_large.append(f"{where} takes {parameters(node)} parameters; make them a dataclass")
    assert len(SOURCES) > 200
    assert not too_large, "\n".join(too_large)


def test_large_classes_have_a_reason_in_the_architecture():
    """A class above the ceilings has a line in ARCHITECTURE.md that says why, and no line outlives its class."""
    large = {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                kept, known = len(attributes(node)), len(collaborators(node, tree))
                if kept > ATTRIBUTES or known > COLLABORATORS:
                    name = f"{path.relative_to(ROOT).as_posix().removeprefix('src/qwen2_audio/')} {node.name}"
                    large[name] = f"{name}: {kept} attributes, {known} collaborators"
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    reasons = {f"{path} {name}" for name, path in re.findall(r"^- `(\w+)` in `([\w/]+\.py)`: \w+", text, flags=re.M)}
    without = [large[name] for name in sorted(large.keys() - reasons)]
    assert not without, "no reason in ARCHITECTURE.md for\n" + "\n".join(without)
    assert reasons - large.keys() == set(), "a reason in ARCHITECTURE.md, but small or gone"


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
