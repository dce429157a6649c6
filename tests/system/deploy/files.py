"""What serving/deploy says, for the tests to hold against the server and against the checkers of the platforms."""

import copy
import re
import shlex
import subprocess
import tomllib

import typer
import yaml

from bgan.trainer.cli.host import build_app
from tests.conftest import ROOT
from tests.kit.cli import BGAN, bgan

FOLDER = ROOT / "serving" / "deploy"
COMPOSE = FOLDER / "compose.yaml"
CONTAINERFILE = FOLDER / "Containerfile"
UNIT = FOLDER / "bgan.service"
KUBERNETES = FOLDER / "kubernetes"
RESOURCES = ("deployment", "service", "disruption-budget", "autoscaler")
RELEASES = ("1.27", "1.37")  # gRPC probes are stable since the first; the second has the newest schemas
_SECONDS_BEYOND_GRACE = 6  # a supervisor's, and one to end


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


def pod_variables(server=None):
    """The variables of the server in a pod, or in that container: those of its image and its own."""
    server = server or container()
    own = {one["name"]: one.get("value", server["resources"]["limits"]["cpu"]) for one in server["env"]}
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


def settings(variables):
    """What a server makes of these variables."""
    result = bgan("serve", "--print-config", env=variables)
    assert result.returncode == 0, result.stderr
    return tomllib.loads(result.stdout)


def seconds_to_stop(found):
    return found["lame_duck_seconds"] + found["grace_seconds"] + _SECONDS_BEYOND_GRACE


def parsed(command, arguments):
    """The options of a command of bgan, which it takes as they are; it is not run."""
    app = typer.main.get_command(build_app())
    context = app.make_context("bgan", [command], resilient_parsing=True)
    return app.get_command(context, command).make_context(command, [*arguments]).params


def rendered(folder):
    """The resources that kubectl makes of a kustomization, by kind."""
    command = [BGAN.with_name("kubectl"), "kustomize", folder]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {resource["kind"]: resource for resource in yaml.safe_load_all(result.stdout)}


def misspelt(resource, place):
    """A copy in which the last key of the place is one that there is not."""
    spoiled = copy.deepcopy(resource)
    *path, field = place.split(".")
    at = spoiled
    for key in path:
        at = at[int(key) if key.isdigit() else key]
    at[field] = 1
    return spoiled
