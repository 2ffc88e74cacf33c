"""Breaks the code on purpose, one small change at a time, and counts how often the nearest tests notice.

    python tests/mutants.py [--sample N] [--others N] [--seed N] [--only TEXT] [--jobs N]     (`make mutants`)

The changes are those of cosmic-ray's operators (comparisons, arithmetic, conditions, numbers, loops, exceptions,
decorators), and one more: a statement is left out. What cosmic-ray does around them does not fit: it changes the
checkout itself, starts a new interpreter for each change, and has no sample. Here a copy of the package is changed, and
the tests run in a process that is forked with torch in it (kit/warm.py), so that 300 changes take a quarter of an hour.

A change is drawn place by place, and then one of those that are possible there; the same seed draws the same. Left out
are annotations, options of decorators, and `is` for `==`, which is the same for small numbers. Ends with status 3 where
fewer than 85 % of the changes in CORE are noticed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmic_ray.ast import Visitor, ast_nodes, get_ast
from cosmic_ray.operators.provider import OperatorProvider

from kit import warm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "qwen2_audio"
BAR = 0.85  # of the changes in CORE
# Modules, and the tests that are nearest to each.
CORE = {
    "engine/scheduler.py": ("unit/engine/test_scheduler.py",),
    "engine/block_manager.py": ("unit/engine/test_block_manager.py", "unit/engine/test_scheduler.py"),
    "train/masks.py": ("unit/train/test_masks.py",),
    "train/loss.py": ("unit/train/test_loss.py",),
}
OTHERS = {
    "engine/encoder_cache.py": ("unit/engine/test_encoder_cache.py",),
    "engine/engine.py": ("unit/engine/test_engine_weights.py", "unit/engine/test_engine_draft.py"),
    "engine/metrics.py": ("unit/engine/test_engine_metrics.py",),
    "engine/output_processor.py": ("unit/engine/test_output_processor.py", "unit/engine/test_engine_weights.py"),
    "engine/request.py": ("unit/engine/test_request.py",),
    "engine/sampler.py": ("unit/engine/test_engine_weights.py", "equivalence/test_engine_equivalence.py"),
    "engine/settings.py": ("unit/engine/test_settings.py",),
    "engine/thread.py": ("unit/engine/test_engine_thread.py",),
    "engine/executor/forward_batch.py": ("unit/engine/test_engine_graphs.py",),
    "engine/executor/model_runner.py": ("unit/engine/test_engine_weights.py", "unit/engine/test_engine_draft.py"),
    "engine/speculative/decoder.py": ("unit/engine/test_speculative.py",),
    "engine/speculative/draft_model.py": ("unit/engine/test_engine_draft.py",),
    "engine/speculative/forced_tokens.py": ("unit/engine/test_speculative.py",),
    "engine/speculative/prompt_lookup.py": ("unit/engine/test_speculative.py",),
    "engine/speculative/proposer.py": ("unit/engine/test_speculative.py",),
    "engine/structured/constrained_sampler.py": (
        "unit/engine/test_grammar.py",
        "equivalence/test_structured_equivalence.py",
    ),
    "engine/structured/grammar.py": ("unit/engine/test_grammar.py", "unit/engine/test_schema_answers.py"),
    "engine/structured/tool_calls.py": ("unit/engine/test_tool_calls.py", "unit/serve/test_tools_of_requests.py"),
    "engine/structured/triggered.py": ("unit/engine/test_triggered.py",),
    "inputs/clip.py": ("unit/inputs",),
    "inputs/collate.py": ("unit/inputs", "unit/train/test_data.py"),
    "inputs/feature_extractor.py": ("unit/inputs",),
    "inputs/log_mel_torch.py": ("unit/inputs",),
    "inputs/messages.py": ("unit/inputs",),
    "inputs/processor.py": ("unit/inputs",),
    "inputs/prompt.py": ("unit/inputs", "unit/api/test_audio_chat.py"),
}
# `x is 3` is `x == 3`; the others need to be told which names there are.
LEFT_OUT = ("_Is", "_IsNot", "VariableReplacer", "VariableInserter")


@dataclass(frozen=True)
class Mutant:
    """One change of a module: what `operator` does for the `occurrence`-th time."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int

    def source(self, original: str) -> str:
        if self.operator == "LeaveOut":
            return leave_out(original, self.line, self.column)
        changed = _Change(OperatorProvider()[self.operator](), self.occurrence)
        return changed.walk(get_ast(original)).get_code()


class _Change(Visitor):
    """Applies an operator once. (cosmic-ray's own one needs all of cosmic-ray.)"""

    def __init__(self, operator, occurrence: int) -> None:
        self._operator, self._left = operator, occurrence

    def visit(self, node):
        for index, _ in enumerate(self._operator.mutation_positions(node)):
            if self._left == 0:
                node = self._operator.mutate(node, index)
            self._left -= 1
        return node


def leave_out(source: str, line: int, column: int) -> str:
    """Without the statement that begins there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and (node.lineno, node.col_offset) == (line, column):
            lines = source.splitlines(keepends=True)
            assert node.end_lineno is not None
            lines[line - 1 : node.end_lineno] = [f"{lines[line - 1][:column]}pass\n"]
            return "".join(lines)
    raise AssertionError((line, column))


def mutants_of(module: str) -> Iterator[Mutant]:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    tree, nodes = ast.parse(source), list(ast_nodes(get_ast(source)))
    hints = not_code(tree)
    for name in OperatorProvider():
        if name.endswith(LEFT_OUT):
            continue
        operator, occurrence = OperatorProvider()[name](), 0
        for node in nodes:
            for (line, column), _ in operator.mutation_positions(node):
                if not any(start <= (line, column) < end for start, end in hints):
                    yield Mutant(module, name, occurrence, line, column)
                occurrence += 1
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        keeps = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
        if isinstance(node, ast.stmt) and (
            is_call or keeps or isinstance(node, ast.AugAssign | ast.Delete | ast.Raise)
        ):
            yield Mutant(module, "LeaveOut", 0, node.lineno, node.col_offset)


def not_code(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations, imports for them and the options of decorators begin and end."""
    found: list[ast.expr | ast.stmt] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            found.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            found.append(node.annotation)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found.append(node)
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found += node.decorator_list  # whether a dataclass is frozen is no behaviour; its "@" lies before it
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in found]


def sample(modules: dict[str, tuple[str, ...]], count: int, seed: int) -> list[Mutant]:
    """`count` changes in different places, or one in each place where there are fewer."""
    places: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for module in modules:
        for mutant in mutants_of(module):
            places[mutant.module, mutant.line, mutant.column].append(mutant)
    draw = random.Random(seed)
    chosen = draw.sample(sorted(places), min(count, len(places)))
    return [draw.choice(places[place]) for place in chosen]


class Copies:
    """A copy of the package for each thread that runs tests."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._own, self._lock = folder, threading.local(), threading.Lock()
        self._count = 0

    def own(self) -> Path:
        """The folder to put on the path; its package is this thread's."""
        if not hasattr(self._own, "path"):
            with self._lock:
                self._count += 1
                self._own.path = self._folder / str(self._count)
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PACKAGE, self._own.path / "qwen2_audio", ignore=ignored)
        return self._own.path


def run(mutant: Mutant | None, tests: tuple[str, ...], copies: Copies, timeout: float) -> str:
    """The tests on a package with one change, or none: "survived", "killed" or "timeout"."""
    path = copies.own()
    file, original = None, ""
    if mutant is not None:
        file = path / "qwen2_audio" / mutant.module
        original = file.read_text(encoding="utf-8")
        file.write_text(mutant.source(original), encoding="utf-8")
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)  # as old, to the second
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = ["-m", "pytest", "-x", "--hypothesis-seed=0", *(str(ROOT / "tests" / test) for test in tests)]
    try:
        done = warm.run(arguments, folder=ROOT, environment=environment, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        if file is not None:
            file.write_text(original, encoding="utf-8")
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    if mutant is None and done.returncode != 0:
        sys.exit(f"Without any change these tests fail already:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return "survived" if done.returncode == 0 else "killed"


def difference(mutant: Mutant) -> str:
    before = (PACKAGE / mutant.module).read_text(encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), mutant.source(before).splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])


def examine(mutants: list[Mutant], tests: dict[str, tuple[str, ...]], jobs: int) -> dict[Mutant, str]:
    """What came of each, with a line for every one that survives."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(folder))
        limits = {}
        for nearest in {tests[mutant.module] for mutant in mutants}:
            started = time.monotonic()
            run(None, nearest, copies, 600)
            limits[nearest] = 30 + 5 * (time.monotonic() - started)

        def one(mutant: Mutant) -> str:
            nearest = tests[mutant.module]
            result = run(mutant, nearest, copies, limits[nearest])
            if result == "survived":
                print(f"\nsurvived {mutant.module}:{mutant.line} {mutant.operator}\n{difference(mutant)}", flush=True)
            else:
                print(".", end="", flush=True)
            return result

        return dict(zip(mutants, pool.map(one, mutants), strict=True))


def report(results: dict[Mutant, str]) -> float:
    """A table on standard output; the share that was noticed."""
    print(f"\n\n{'module':36} changes  noticed")
    counts: dict[str, list[str]] = defaultdict(list)
    for mutant, result in results.items():
        counts[mutant.module].append(result)
    for module, of_module in sorted(counts.items()):
        noticed = sum(result != "survived" for result in of_module)
        print(f"{module:36} {len(of_module):7} {noticed / len(of_module):8.0%}")
    noticed = sum(result != "survived" for result in results.values())
    late = sum(result == "timeout" for result in results.values())
    print(f"{'':36} {len(results):7} {noticed / len(results):8.1%}   ({late} by running too long)")
    return noticed / len(results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=200, help="changes in scheduler, block manager, masks and loss")
    parser.add_argument("--others", type=int, default=100, help="changes in the rest of engine/ and in inputs/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="of modules whose path has this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "mutants.json")
    given = parser.parse_args()
    tests = CORE | OTHERS
    shares, written = [], []
    for modules, count in ((CORE, given.sample), (OTHERS, given.others)):
        mutants = sample({m: t for m, t in modules.items() if given.only in m}, count, given.seed)
        results = examine(mutants, tests, given.jobs) if mutants else {}
        shares.append(report(results) if results else 1.0)
        written += [asdict(mutant) | {"result": result} for mutant, result in results.items()]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(written, indent=1))
    return 0 if shares[0] >= BAR else 3


if __name__ == "__main__":
    sys.exit(main())
