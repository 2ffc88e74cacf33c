"""What a release and its pipelines promise: versions, bounds, workflows. `make release-check` installs one for real."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import qwen2_audio

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OWN_TOOLS = {"dev", "oracles"}  # extras for people who work on the package; no promise to those who use it


def normal(name):
    return name.lower().replace("_", "-")


def requirements(*, own_tools):
    """The package's requirements, and its extras' but for those that name other extras."""
    extras = PROJECT["optional-dependencies"].items()
    lists = [PROJECT["dependencies"], *(needs for extra, needs in extras if own_tools or extra not in OWN_TOOLS)]
    found = [Requirement(need) for needs in lists for need in needs]
    return {normal(need.name): need.specifier for need in found if not need.extras}


def pins(name):
    text = (ROOT / name).read_text()
    return {normal(package): version for package, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}


def lower_bound(specifier):
    (bound,) = [part.version for part in specifier if part.operator == ">="]
    return Version(bound)


# Versions


def test_the_changelog_begins_with_the_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    version = re.escape(qwen2_audio.__version__)
    assert re.fullmatch(rf"Unreleased \({version}\)|{version} \(\d{{4}}-\d\d-\d\d\)", headings[0])
    dated = [re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", heading) for heading in headings[1:]]
    assert dated and all(dated), "every older version has its day"
    assert [match[2] for match in dated] == sorted((match[2] for match in dated), reverse=True)


def test_the_version_is_written_once():
    """pyproject.toml takes it from the package; what is installed is what the sources say."""
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT


def tagged(root, tag):
    script = Path(root) / "scripts" / "check_version.py"
    return subprocess.run([sys.executable, script, tag], capture_output=True, text=True, timeout=60, check=False)


def test_a_tag_is_published_only_where_all_agree(tmp_path):
    for name in ("scripts", "src/qwen2_audio"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "scripts" / "check_version.py").write_text((ROOT / "scripts" / "check_version.py").read_text())
    (tmp_path / "src" / "qwen2_audio" / "__init__.py").write_text('"""Words."""\n\n__version__ = "1.2.3"  # here\n')
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 1.2.3 (2030-01-31)\n\n## 1.2.2 (2029-01-31)\n")
    assert tagged(tmp_path, "v1.2.3").returncode == 0
    refused = tagged(tmp_path, "v1.2.4")
    assert refused.returncode == 1
    assert refused.stderr == "The tag is v1.2.4, and the package is 1.2.3; expected the tag v1.2.3.\n"
    for heading in ("Unreleased (1.2.3)", "1.2.2 (2029-01-31)", "1.2.3 (soon)"):
        changelog.write_text(f"# Changelog\n\n## {heading}\n")
        refused = tagged(tmp_path, "v1.2.3")
        assert refused.returncode == 1
        expected = "expected '1.2.3 (YYYY-MM-DD)', the day of the release."
        assert refused.stderr == f"CHANGELOG.md begins with {heading!r}; {expected}\n"


# Dependencies


def test_the_oldest_versions_are_the_lower_bounds():
    """constraints-oldest.txt, which `make test-oldest` installs, has exactly these; torch is said to be untested."""
    first_part, _, rest = (ROOT / "constraints-oldest.txt").read_text().partition("\n\n")
    oldest = dict(re.findall(r"^([\w-]+)==(\S+)$", first_part, re.M))
    wanted = {name: lower_bound(specifier) for name, specifier in requirements(own_tools=False).items()}
    del wanted["torch"]
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]
    assert {name: Version(version) for name, version in oldest.items()} == wanted
    assert "==" in rest, "what these need is pinned, too"


def test_the_newest_versions_are_within_the_bounds():
    newest = pins("constraints.txt")
    for name, specifier in requirements(own_tools=True).items():
        if name != "tensorboard":  # no test needs it
            assert name in newest, f"{name} is not in constraints.txt"
            assert specifier.contains(newest[name]), f"{name} {newest[name]} is outside {specifier}"


def test_the_clients_have_versions():
    """What `make test-clients` installs is the same tomorrow; the newest OpenAI client is that of constraints.txt."""
    script = (ROOT / "scripts" / "clients_check.py").read_text()
    libraries = re.findall(r'"([\w-]+)[\w\[\]-]*"', re.search(r"^LIBRARIES = \((.*?)\)$", script, re.M)[1])
    assert {"langchain-openai", "instructor", "pydantic-ai-slim", "openai-agents", "litellm"} <= set(libraries)
    assert {*libraries, "pytest"} <= set(pins("constraints-clients.txt"))
    assert Version(pins("constraints-oldest.txt")["openai"]).major == 1
    package = json.loads((ROOT / "tests" / "clients" / "node" / "package.json").read_text())
    lock = json.loads((ROOT / "tests" / "clients" / "node" / "package-lock.json").read_text())["packages"]
    assert lock[""]["dependencies"] == package["dependencies"]
    for name, version in package["dependencies"].items():
        assert lock[f"node_modules/{name}"]["version"] == version


def test_a_package_whose_inside_is_used_has_an_upper_bound():
    """Imports of modules with an underscore, or of what these packages do not document."""
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    private = set(re.findall(r"^\s*(?:from|import) (starlette|uvicorn|h11)[\w.]*(?:\._|\.protocols)", sources, re.M))
    assert private == {"uvicorn"}, "the list of these in pyproject.toml"
    uppers = [part.version for part in requirements(own_tools=False)["uvicorn"] if part.operator == "<"]
    newest = Version(pins("constraints.txt")["uvicorn"])
    assert uppers and Version(uppers[0]) <= Version(f"{newest.major}.{newest.minor + 1}")


def test_the_package_is_typed():
    assert (ROOT / "src" / "qwen2_audio" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


# Pipelines


class Strict(yaml.SafeLoader):
    """Where a key stands twice, PyYAML takes the last one without a word, and GitHub refuses the file."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key stands twice among {keys}"
        return super().construct_mapping(node, deep)


def parsed(path):
    return yaml.load(path.read_text(), Strict)


def steps():
    """(workflow's name, step) of every job."""
    for path in WORKFLOWS:
        for job in parsed(path)["jobs"].values():
            for step in job.get("steps", ()):
                yield path.stem, step


def commands():
    """(where, command) of every line that a workflow or .ci/run runs, and of CONTRIBUTING.md's blocks."""
    for name, step in steps():
        for line in step.get("run", "").splitlines():
            yield name, line.strip()
    for line in (ROOT / ".ci" / "run").read_text().splitlines():
        yield ".ci/run", line.strip()
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M):
        for line in block.splitlines():
            yield "CONTRIBUTING.md", line.partition("#")[0].strip()


def test_make_targets_and_scripts_that_are_called_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = {}
    for where, command in commands():
        if command.startswith("make "):
            names = [word for word in command.split()[1:] if not word.startswith("-")]
            assert set(names) <= targets, f"{where}: {command}"
            called.setdefault(where, set()).update(names)
        for script in re.findall(r"(?:python|bash) ([\w./-]+\.(?:py|sh))", command):
            assert (ROOT / script).is_file(), f"{where}: {command}"
            called.setdefault(where, set()).add(script)
    gate = called[".ci/run"]
    assert gate >= {"lint", "test", "test-oldest", "test-clients", "release-check"}
    assert called["tests"] == gate, "a pull request runs what .ci/run does"
    assert called["CONTRIBUTING.md"] >= gate, "and so can everybody"
    assert called["publish"] == {"scripts/check_version.py"}


def test_workflows_run_every_python_that_the_package_names():
    named = {match[1] for c in PROJECT["classifiers"] if (match := re.fullmatch(r".*Python :: (3\.\d+)", c))}
    jobs = parsed(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert set(jobs["tests"]["strategy"]["matrix"]["python"]) == named
    assert min(named, key=Version) == PROJECT["requires-python"].removeprefix(">=")


def test_publishing_has_no_password_and_only_tags_start_it():
    workflow = parsed(ROOT / ".github" / "workflows" / "publish.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key "on" as a truth
    job = workflow["jobs"]["publish"]
    assert job["permissions"] == {"id-token": "write"}
    assert "secrets" not in (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    for called in workflow["jobs"].values():
        if "uses" in called:
            assert (ROOT / called["uses"]).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_no_more(path):
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job or "uses" in job for job in workflow["jobs"].values())


def test_hooks_before_a_commit_are_the_linters_of_make_lint():
    repos = parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    words = [hook["entry"].split()[:2] for repo in repos for hook in repo["hooks"]]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert words == [[".venv/bin/ruff", "check"], [".venv/bin/ruff", "format"]]
    assert all(f"$(BIN)/ruff {command} " in lint for _, command in words)


def test_issue_forms_ask_for_what_is_needed():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[bf]*.yml"):
        form = parsed(path)
        assert form["name"] and form["description"]
        assert any(field.get("validations", {}).get("required") for field in form["body"])
