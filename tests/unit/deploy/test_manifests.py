"""deploy/: files for Docker, Compose, Kubernetes and Slurm, held to their schemas and to this package's own options."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from kit.kuberay import schema_of
from qwen2_audio.cli.main import run
from qwen2_audio.serve.ray_plan import plan_of

DEPLOY = Path(__file__).parents[3] / "deploy"
PROJECT = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
KUBERNETES = "1.31"
MANIFESTS = ("rayservice.yaml", "rayjob.yaml")


def options_of(capsys, *command: str) -> set[str]:
    """The long options of one of our commands."""
    assert run([*command, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))


# Docker


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of deploy/Dockerfile, with continued lines put together."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_the_dockerfile_is_made_of_what_docker_knows():
    known = {
        "FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"
    }  # fmt: skip
    stages: list[str] = []
    for name, rest in instructions():
        assert name in known, f"{name} {rest}"
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            assert base in stages or re.fullmatch(r"[a-z-]+:[\w.-]+", base), "an image with its version"
            stages.append(stage)
        elif name == "RUN":
            mounts = re.findall(r"--mount=type=bind,from=(\w+)\S* ", rest)
            assert set(mounts) <= set(stages)
            script = re.sub(r"^(--mount=\S+ )+", "", rest)
            checked = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
        elif name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(rest)), "no shell: signals reach the server"
        elif name == "HEALTHCHECK":
            json.loads(rest.partition("CMD ")[2])
    assert stages == ["wheel", "base", "cpu", "cuda"]


def test_the_image_installs_extras_that_there_are_and_does_not_run_as_root():
    (extras,) = [rest.removeprefix("EXTRAS=") for name, rest in instructions() if rest.startswith("EXTRAS=")]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    by_stage: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            stage = by_stage.setdefault(rest.rpartition(" ")[2], [])
        stage.append((name, rest))
    for target in ("cpu", "cuda"):
        assert ("USER", "1000") in by_stage[target]
        installs = [rest for name, rest in by_stage[target] if name == "RUN"]
        assert len(installs) == 1 and "-c /wheels/constraints.txt" in installs[0]
        assert by_stage[target][-2:] == [("ENTRYPOINT", '["qwen2-audio"]'), ("CMD", '["serve", "--host", "0.0.0.0"]')]


def test_what_docker_copies_is_there():
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    assert all((DEPLOY.parent / name).exists() for name in taken)
    assert {"pyproject.toml", "hatch_build.py", "constraints.txt", "src", "csrc"} <= set(taken)


# Compose


def compose(environment: dict[str, str]) -> dict:
    """compose.yaml with its variables filled in, as `docker compose config` does it. KeyError without one it needs."""

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match[1], match[2], match[3]
        value = environment.get(name, "")
        if value or kind == ":-":
            return value or rest
        raise KeyError(name)

    text = (DEPLOY / "compose.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", fill, text))


ENVIRONMENT = {"SERVER_NAME": "audio.example.org", "QWEN2_AUDIO_API_KEY": "key"}


def test_compose_follows_the_specification():
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    project = compose(ENVIRONMENT)
    validator.validate(project)
    for breaks in ({"port": []}, {"ports": 443}, {"restart": 3}):
        broken = copy.deepcopy(project)
        broken["services"]["proxy"].update(breaks)
        assert list(validator.iter_errors(broken)), "the schema refuses nothing"


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_compose_asks_for_the_name_and_the_key(name):
    with pytest.raises(KeyError, match=name):
        compose({key: value for key, value in ENVIRONMENT.items() if key != name})


def test_compose_fits_the_image_and_the_server(capsys):
    project = compose({**ENVIRONMENT, "MODEL": "/models/mine"})
    stages = [rest.rpartition(" ")[2] for name, rest in instructions() if name == "FROM"]
    for name in ("cpu", "cuda"):
        service = project["services"][name]
        assert service["profiles"] == [name] and service["build"]["target"] in stages
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["command"][0] == "serve"
        assert {word for word in service["command"] if word.startswith("--")} <= options_of(capsys, "serve")
        assert service["environment"]["QWEN2_AUDIO_MODEL"] == "/models/mine"
    mounts = [mount.split(":")[0] for mount in project["services"]["proxy"]["volumes"]]
    assert all((DEPLOY / mount).exists() for mount in mounts)


# Kubernetes


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pods(name: str) -> list[dict]:
    """The pod templates of a manifest, as pods."""
    found = []
    for document in documents(name):
        cluster = document.get("spec", {}).get("rayClusterConfig") or document.get("spec", {}).get("rayClusterSpec")
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]] if cluster else []:
            metadata = {"name": group.get("groupName", "head")}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": group["template"]["spec"]})
    return found


@pytest.mark.parametrize("name", MANIFESTS)
def test_core_objects_are_kubernetes_own(name):
    core = [document for document in documents(name) if document["apiVersion"] == "v1"]
    assert core and len(pods(name)) == 2
    for document in core + pods(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    broken = copy.deepcopy(pods(name)[0])
    broken["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_ray_objects_are_kuberays(name):
    ray = [document for document in documents(name) if document["apiVersion"] == "ray.io/v1"]
    assert len(ray) == 1
    validator = jsonschema.Draft202012Validator(schema_of(ray[0]["kind"]))
    validator.validate(ray[0])
    for key, value in (("rayClusterSpek", {}), ("suspend", "yes")):
        assert list(validator.iter_errors({**ray[0], "spec": {**ray[0]["spec"], key: value}}))


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_have_limits_a_cache_of_models_and_shared_memory(name):
    pinned = re.search(r"^ray==(\S+)$", (DEPLOY.parent / "constraints.txt").read_text(), re.M)[1]
    assert f'rayVersion: "{pinned}"' in (DEPLOY / name).read_text()
    claims = {item["metadata"]["name"] for item in documents(name) if item["kind"] == "PersistentVolumeClaim"}
    for pod in pods(name):
        (container,) = pod["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert resources["requests"].get("nvidia.com/gpu") == resources["limits"].get("nvidia.com/gpu")
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        by_path = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert by_path["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        (home,) = [item["value"] for item in container["env"] if item["name"] == "HF_HOME"]
        (cache,) = [volume for path, volume in by_path.items() if home == path or home.startswith(f"{path}/")]
        assert cache["persistentVolumeClaim"]["claimName"] in claims


def test_the_service_is_an_application_that_we_can_build():
    (service,) = [document for document in documents("rayservice.yaml") if document["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert application["import_path"] == "qwen2_audio.serve.ray_app:build"
    plan = plan_of(application["args"])
    (workers,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert plan.most <= workers["maxReplicas"] and plan.gpus == float(
        container["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert plan.cpus <= float(container["resources"]["requests"]["cpu"])
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > plan.settings.deadline
    port = config["http_options"]["port"]
    assert port in [item["containerPort"] for item in container["ports"]]


def test_the_jobs_command_and_file_are_ours(capsys):
    files = {document["kind"]: document for document in documents("rayjob.yaml")}
    words = shlex.split(files["RayJob"]["spec"]["entrypoint"])
    assert words[:3] == ["qwen2-audio", "job", "run"]
    assert {word for word in words if word.startswith("--")} <= options_of(capsys, "job", "run")
    from qwen2_audio.jobs.config import JobConfig

    (name, text), *more = files["ConfigMap"]["data"].items()
    config = JobConfig.of(tomllib.loads(text))
    assert not more and words[3] == f"/job/{name}"
    (workers,) = files["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert config.workers == workers["maxReplicas"]
