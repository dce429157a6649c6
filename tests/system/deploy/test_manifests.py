"""The image, the systemd unit and the manifests: checkers take them, and they agree with the server's settings."""

import json
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version

import kubernetes_validate
import pytest
import yaml

from bgan.v1 import sampling_pb2
from tests.conftest import ROOT
from tests.kit.cli import BGAN, bgan
from tests.system.deploy.files import (
    CONTAINERFILE,
    KUBERNETES,
    RELEASES,
    RESOURCES,
    UNIT,
    container,
    image,
    image_variables,
    manifest,
    misspelt,
    pod,
    pod_variables,
    probes,
    rendered,
    seconds_to_stop,
    settings,
    unit,
)

# By name: the Open Inference Protocol's protos and tritonclient's do not bear each other in one process.
SERVICES = (
    sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name,
    "inference.GRPCInferenceService",
)

MISSPELT = {
    "deployment": "spec.template.spec.containers.0.readinessProbe.periodSecond",
    "service": "spec.ports.0.targetport",
    "disruption-budget": "spec.maxUnavailble",
    "autoscaler": "spec.metrics.0.pods.metric.names",
}


def hadolint(path):
    command = [BGAN.with_name("hadolint"), "--no-color", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say(tmp_path):
    result = hadolint(CONTAINERFILE)
    assert (result.returncode, result.stdout) == (0, "")
    spoiled = tmp_path / "Containerfile"
    spoiled.write_text(re.sub(r"FROM (\w+):\S+", r"FROM \1:latest", CONTAINERFILE.read_text()))
    assert hadolint(spoiled).returncode != 0


def test_the_image_runs_commands_that_there_are():
    probe = re.search(r"CMD (.*)", image()["HEALTHCHECK"])[1]
    serve = json.loads(image()["ENTRYPOINT"]) + json.loads(image()["CMD"])
    assert serve == ["bgan", "serve"]
    for command in (serve, json.loads(probe)):
        assert bgan(*command[1:], "--help").returncode == 0
    assert settings(image_variables())["host"] == "0.0.0.0"


def test_the_image_is_not_root():
    user, group = image()["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_is_built_from_what_the_package_is_made_of():
    carried = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {folder.split("/")[0] for folder in project["tool"]["setuptools"]["package-dir"].values()}
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    licenses = {path for path in project["project"]["license-files"] if path.split("/")[0] not in folders}
    assert carried == folders | files | licenses


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path):
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/opt/bgan/bin/bgan", str(BGAN)))
    for question in (["verify"], ["security", "--offline=true", "--threshold=20"]):  # 2.0 of 10, the worst
        command = ["systemd-analyze", *question, str(installed)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert UNIT.name not in result.stderr


def test_systemd_waits_longer_than_the_server_takes_to_stop():
    variables = dict(pair.split("=", 1) for pair in unit("Environment"))
    (seconds,) = unit("TimeoutStopSec")
    assert int(seconds) > seconds_to_stop(settings(variables))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_takes_the_manifests_and_no_misspelt_field(name, release):
    resource = manifest(name)
    kubernetes_validate.validate(resource, release, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError, match=MISSPELT[name].split(".")[-1]):
        kubernetes_validate.validate(misspelt(resource, MISSPELT[name]), release, strict=True)


def test_the_manifests_are_of_one_whole():
    deployment, service, budget, autoscaler = map(manifest, RESOURCES)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert service["spec"]["clusterIP"] == "None"
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= {
        port["name"] for port in container()["ports"]
    }
    assert autoscaler["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert sorted(manifest("kustomization")["resources"]) == sorted(f"{name}.yaml" for name in RESOURCES)
    assert container()["image"] == f"bgan:{version('bgan')}"


def test_the_kustomization_of_the_documentation_gives_manifests_that_kubernetes_takes(tmp_path):
    text = (ROOT / "docs" / "deploying.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?kind: Kustomization\n.*?)```", text, re.S)
    (tmp_path / "base").symlink_to(KUBERNETES)
    (tmp_path / "own").mkdir()
    own = example.replace("bgan/serving/deploy/kubernetes", "../base")
    (tmp_path / "own" / "kustomization.yaml").write_text(own)
    resources = rendered(tmp_path / "own")
    assert len(resources) == len(RESOURCES)
    for resource in resources.values():
        kubernetes_validate.validate(resource, RELEASES[-1], strict=True)
    (server,) = resources["Deployment"]["spec"]["template"]["spec"]["containers"]
    models = next(one["value"] for one in server["env"] if one["name"] == "BGAN_MODELS")
    assert models in [mount["mountPath"] for mount in server["volumeMounts"]]
    assert len(server["env"]) == len(container()["env"]) + 1  # the rest is as it was


def test_models_of_a_store_are_kept_where_a_pod_may_write(tmp_path):
    (tmp_path / "base").symlink_to(KUBERNETES)
    own = {"resources": ["base"], "components": ["base/models-store"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(own))
    deployment = rendered(tmp_path)["Deployment"]
    kubernetes_validate.validate(deployment, RELEASES[-1], strict=True)
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    found = settings(pod_variables(server))
    (name,) = [one["name"] for one in server["volumeMounts"] if one["mountPath"] == found["model_cache"]]
    (volume,) = [one["emptyDir"] for one in pod["volumes"] if one["name"] == name]
    assert volume == {"sizeLimit": "2Gi"}
    assert found["model_cache_bytes"] + found["max_model_bytes"] < 2 * 2**30
    assert server["envFrom"] == [{"secretRef": {"name": "bgan-store"}}]


def test_a_pod_listens_where_it_is_asked_and_has_time_to_stop():
    found = settings(pod_variables())
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": found["port"], "metrics": found["metrics_port"]}
    assert found["port"] == int(image()["EXPOSE"])
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(found["metrics_port"])
    assert found["host"] == found["metrics_host"] == "0.0.0.0"
    for probe in probes().values():
        assert probe["port"] == found["port"]
        assert probe.get("service", "") in ("", *SERVICES)
    assert pod()["terminationGracePeriodSeconds"] > seconds_to_stop(found)
    assert found["lame_duck_seconds"] > 0
    assert not pod()["enableServiceLinks"]


def test_a_pod_may_do_nothing_that_it_need_not():
    assert pod()["securityContext"]["runAsNonRoot"]
    assert str(pod()["securityContext"]["runAsUser"]) == image()["USER"].split(":")[0]
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {*container()["resources"]["requests"], *container()["resources"]["limits"]} == {"cpu", "memory"}
