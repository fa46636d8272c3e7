"""Ray's launcher, KubeRay and the command line accept `deploy/` and `cluster.yaml`, and these agree with each other."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.commands import ROOT, accepted

LAUNCHER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
KUBERAY = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "deploy" / "kuberay").glob("*.yaml")}
SCHEMAS = json.loads(Path(__file__).with_name("kubernetes.json").read_text())


def test_the_launcher_accepts_the_cluster() -> None:
    validate_config(prepare_config(copy.deepcopy(LAUNCHER)))
    nodes = LAUNCHER["available_node_types"]
    assert nodes["head"]["resources"] == {"CPU": 0}
    assert {name for name, node in nodes.items() if node.get("min_workers") == 0} == {"cpu-worker", "gpu-worker"}


def test_the_launcher_refuses_an_unknown_key() -> None:
    config = copy.deepcopy(LAUNCHER)
    config["available_node_types"]["head"]["wheels"] = 4
    with pytest.raises(Exception, match="wheels"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", KUBERAY)
def test_kubernetes_accepts_the_manifest(name: str) -> None:
    _validate(KUBERAY[name])


@pytest.mark.parametrize(
    ("name", "path", "value", "complaint"),
    [
        ("cluster", "workerGroupSpecs.0.maxReplica", 8, "'maxReplica' was unexpected"),
        ("cluster", "headGroupSpec.rayStartParams.num-cpus", 0, "is not of type 'string'"),
        ("cluster", "headGroupSpec.template.spec.containers.0.resources.limits.memory", "64 GB", "does not match"),
        ("job", "entryPoint", "python", "'entryPoint' was unexpected"),
        ("scheduled", "jobTemplate.clusterSelector", "infrec", "is not of type 'object'"),
        ("cronjob", "jobTemplate.spec.template.spec.restartPolicies", "Never", "was unexpected"),
    ],
)
def test_a_mistake_in_a_manifest_is_found(name: str, path: str, value: Any, complaint: str) -> None:
    manifest = copy.deepcopy(KUBERAY[name])
    *way, last = path.split(".")
    place = manifest["spec"]
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        _validate(manifest)


def test_jobs_go_to_the_cluster_that_there_is() -> None:
    name = KUBERAY["cluster"]["metadata"]["name"]
    for job in (KUBERAY["job"]["spec"], KUBERAY["scheduled"]["spec"]["jobTemplate"]):
        assert job["clusterSelector"] == {"ray.io/cluster": name}
        # KubeRay refuses these together with a clusterSelector
        assert not job.keys() & {"rayClusterSpec", "backoffLimit", "suspend", "ttlSecondsAfterFinished"}
    (address,) = (entry["value"] for entry in _cronjob_container()["env"])
    assert address == f"http://{name}-head-svc:8265"


def test_every_command_is_one_that_infrec_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://as-in-the-pod-of-the-cronjob")
    (script,) = _cronjob_container()["args"]
    entrypoints = [KUBERAY["job"]["spec"]["entrypoint"], KUBERAY["scheduled"]["spec"]["jobTemplate"]["entrypoint"]]
    commands = [*entrypoints, *script.replace("\\\n", "").strip().splitlines()]
    jobs = [accepted(shlex.split(command.replace("$(date +%F)", "2026-01-31"))) for command in commands]
    assert jobs == ["fit", "resummarize", "submit"]


def test_one_version_of_everything() -> None:
    """The same Ray in the pins, the image and the cluster; the same infrec in the project and in every image's tag."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM rayproject/ray:(\S+)$", dockerfile, re.MULTILINE)
    assert base == f"{pins['ray']}-py{project['project']['requires-python'].removeprefix('>=').replace('.', '')}"
    assert KUBERAY["cluster"]["spec"]["rayVersion"] == pins["ray"]
    files = [ROOT / "cluster.yaml", ROOT / "deploy" / "Dockerfile", *(ROOT / "deploy" / "kuberay").glob("*.yaml")]
    tags = {tag for file in files for tag in re.findall(r"REGISTRY/infrec:([\w.-]+)", file.read_text())}
    assert tags == {project["project"]["version"], f"{project['project']['version']}-gpu"}
    assert "gpu" in project["project"]["optional-dependencies"]


def test_the_image_holds_what_is_installed_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {"infrec", *(link.name for link in (ROOT / "infrec").iterdir() if link.is_symlink())}
    taken = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert taken == packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"]}


def _validate(manifest: dict[str, Any]) -> None:
    """The manifest's spec against that of its kind."""
    assert manifest["apiVersion"] == ("batch/v1" if manifest["kind"] == "CronJob" else "ray.io/v1")
    jsonschema.validate(manifest["spec"], {"$ref": f"#/$defs/{manifest['kind']}", "$defs": SCHEMAS["$defs"]})


def _cronjob_container() -> dict[str, Any]:
    (container,) = KUBERAY["cronjob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container
