"""What serving/deploy says, for the tests to hold against the server and against the checkers of the platforms."""

import re
import shlex

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "serving" / "deploy"
CONTAINERFILE = FOLDER / "Containerfile"
UNIT = FOLDER / "bgan.service"
KUBERNETES = FOLDER / "kubernetes"
RESOURCES = ("deployment", "service", "disruption-budget", "autoscaler")


def manifest(name):
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())


def pod():
    return manifest("deployment")["spec"]["template"]["spec"]


def container():
    (only,) = pod()["containers"]
    return only


def probes():
    """What the kubelet asks, by the kind of probe."""
    return {kind: container()[kind]["grpc"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}


def pod_variables():
    """The variables of the server in a pod: those of its image and its own."""
    own = {one["name"]: one.get("value", container()["resources"]["limits"]["cpu"]) for one in container()["env"]}
    return {**image_variables(), **own}


def image():
    """The instructions of the last stage of the image; each comes once there."""
    lines = CONTAINERFILE.read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    last = max(place for place, (name, _) in enumerate(instructions) if name == "FROM")
    return dict(instructions[last:])


def image_variables():
    return dict(pair.split("=", 1) for pair in shlex.split(image()["ENV"]) if pair.startswith("BGAN_"))


def unit(key):
    """The values of a key of the systemd unit."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.M)
