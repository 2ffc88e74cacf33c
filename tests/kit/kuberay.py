"""What KubeRay 1.7 takes, as far as our manifests use it: JSON schemas by kind, written down from its documentation.

The operator's own schemas are 2.4 MB. deploy/ was validated against those of version 1.7.0 as well, by hand; a copy of
them in the folder that $KUBERAY_CRDS names is used by the tests in place of these.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

TEXT, NUMBER, TRUTH, TABLE = ({"type": name} for name in ("string", "integer", "boolean", "object"))
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def _of(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


_HEAD = _of(("template",), rayStartParams=TEXTS, template=TABLE, serviceType=TEXT)
_WORKERS = _of(
    ("groupName", "template"), groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT,
    numOfHosts=COUNT, idleTimeoutSeconds=COUNT, rayStartParams=TEXTS, template=TABLE,
)  # fmt: skip
_CLUSTER = _of(
    ("headGroupSpec",), rayVersion=TEXT, enableInTreeAutoscaling=TRUTH,
    autoscalerOptions=_of(idleTimeoutSeconds=COUNT), authOptions=_of(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=_HEAD, workerGroupSpecs={"type": "array", "items": _WORKERS},
)  # fmt: skip
_SPECS = {
    "RayService": _of(
        ("rayClusterConfig",), serveConfigV2=TEXT, rayClusterConfig=_CLUSTER, excludeHeadPodFromServeSvc=TRUTH,
        rayClusterDeletionDelaySeconds=COUNT,
        upgradeStrategy=_of(type={"enum": ["None", "NewCluster", "NewClusterWithIncrementalUpgrade"]}),
    ),
    "RayJob": _of(
        entrypoint=TEXT, rayClusterSpec=_CLUSTER, backoffLimit=COUNT, activeDeadlineSeconds=COUNT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
        shutdownAfterJobFinishes=TRUTH, ttlSecondsAfterFinished=COUNT,
    ),
}  # fmt: skip


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind of `ray.io/v1`."""
    folder = os.environ.get("KUBERAY_CRDS")
    if folder is None:
        return _of(
            ("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": "ray.io/v1"}, kind={"const": kind},
            metadata=TABLE, spec=_SPECS[kind],
        )  # fmt: skip
    definition = yaml.safe_load((Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = (item for item in definition["spec"]["versions"] if item["name"] == "v1")
    return _closed(version["schema"]["openAPIV3Schema"])


def _closed(schema: Any) -> Any:
    """Kubernetes drops what a schema does not know; here it is an error."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if isinstance(closed.get("properties"), dict) and "type" in schema and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed
