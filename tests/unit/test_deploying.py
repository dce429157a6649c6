"""The image, the systemd unit and the manifests: checkers take them, and they agree with the server."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from bgan.serving.server import SERVICES
from tests.conftest import ROOT
from tests.support import BGAN, bgan

FOLDER = ROOT / "serving" / "deploy"
CONTAINERFILE = FOLDER / "Containerfile"
UNIT = FOLDER / "bgan.service"
KUBERNETES = ("1.27", "1.37")  # gRPC probes are stable since the first; the second has the newest schemas
RESOURCES = ("deployment", "service", "disruption-budget", "autoscaler")
SECONDS_BEYOND_GRACE = 6  # a supervisor's, and one to end


def manifest(name):
    return yaml.safe_load((FOLDER / "kubernetes" / f"{name}.yaml").read_text())


def settings(variables):
    """What a server makes of these variables."""
    result = bgan("serve", "--print-config", env=variables)
    assert result.returncode == 0, result.stderr
    return tomllib.loads(result.stdout)


def image():
    """The instructions of the last stage; each comes once there."""
    lines = CONTAINERFILE.read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    last = max(place for place, (name, _) in enumerate(instructions) if name == "FROM")
    return dict(instructions[last:])


def image_variables():
    return dict(pair.split("=", 1) for pair in shlex.split(image()["ENV"]) if pair.startswith("BGAN_"))


def unit(key):
    """The values of a key of the unit."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.M)


def hadolint(path):
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", path]
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
    assert carried == folders | files | set(project["project"]["license-files"])


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
    found = settings(dict(pair.split("=", 1) for pair in unit("Environment") if pair.startswith("BGAN_")))
    (seconds,) = unit("TimeoutStopSec")
    assert int(seconds) > found["lame_duck_seconds"] + found["grace_seconds"] + SECONDS_BEYOND_GRACE


@pytest.mark.parametrize("release", KUBERNETES)
@pytest.mark.parametrize("name", RESOURCES)
def test_kubernetes_takes_the_manifests(name, release):
    resource = manifest(name)
    kubernetes_validate.validate(resource, release, strict=True)
    for spoiled in ({"spec": {**resource["spec"], "unheard": 1}}, {"metadata": {"name": 1}}):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**resource, **spoiled}, release, strict=True)


def test_the_manifests_are_of_one_whole():
    deployment, service, budget, autoscaler = map(manifest, RESOURCES)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert service["spec"]["clusterIP"] == "None"
    assert autoscaler["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }


def test_the_kustomization_has_all_of_them_and_this_version():
    found = manifest("kustomization")
    assert sorted(found["resources"]) == sorted(f"{name}.yaml" for name in RESOURCES)
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    (image,) = found["images"]
    assert container["image"] == f"{image['name']}:{image['newTag']}"
    assert image["newTag"] == version("bgan")


def test_the_pods_settings_are_the_servers():
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert not pod["enableServiceLinks"]
    variables = {one["name"]: one.get("value", "2") for one in container["env"]}  # "2": what limits.cpu gives
    found = settings({**image_variables(), **variables})
    stopping = found["lame_duck_seconds"] + found["grace_seconds"] + SECONDS_BEYOND_GRACE
    assert pod["terminationGracePeriodSeconds"] > stopping
    assert str(pod["securityContext"]["runAsUser"]) == image()["USER"].split(":")[0]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [found["models"]]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["grpc"] == found["port"] == int(image()["EXPOSE"])
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]["grpc"]
        assert probe["port"] == found["port"]
        assert probe.get("service", "") in ("", *SERVICES)
