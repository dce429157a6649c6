"""The Go and TypeScript examples, with stubs generated from the .proto files, against a real server.

Go and its packages are Debian's, TypeScript's are npm's; where they cannot be had, the tests skip.
"""

import json
import os
import shutil
import subprocess

import pytest

from bgan.clients import SamplingClient
from tests.conftest import ROOT
from tests.system.test_node_client import UNREACHABLE

pytestmark = pytest.mark.long
PROTOS, BUF = ROOT / "proto", ROOT / ".tools" / "node_modules" / ".bin" / "buf"
GO_PACKAGES = "/usr/share/gocode"
GO_PROTOBUF = "golang-github-golang-protobuf-1-5-dev"  # Debian's gRPC asks for 1.3, whose stubs know no `optional`
COUNT = 300


def _need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")


def _run(command, folder, **environment):
    environment = {**os.environ, **environment}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """The example's program."""
    _need("go", "protoc-gen-go", "protoc-gen-go-grpc", "apt-get", "dpkg", BUF)
    if not os.path.isdir(f"{GO_PACKAGES}/src/google.golang.org/grpc"):
        pytest.skip("golang-google-grpc-dev is not installed")
    folder = tmp_path_factory.mktemp("go")
    fetched = subprocess.run(["apt-get", "download", "-qq", GO_PROTOBUF], cwd=folder, check=False)
    if fetched.returncode:
        pytest.skip(f"{GO_PROTOBUF} cannot be had from Debian's packages")
    _run(["dpkg", "-x", *folder.glob("*.deb"), folder / "protobuf"], folder)
    plugins = [{"local": name, "out": "path/src"} for name in ("protoc-gen-go", "protoc-gen-go-grpc")]
    (folder / "buf.gen.json").write_text(json.dumps({"version": "v2", "plugins": plugins}))
    _run([BUF, "generate", PROTOS, "--path", PROTOS / "bgan" / "v1", "--template", "buf.gen.json"], folder)
    source = shutil.copytree(ROOT / "clients" / "go", folder / "path" / "src" / "sample")
    path = f"{folder}/path:{folder}/protobuf{GO_PACKAGES}:{GO_PACKAGES}"
    environment = {"GOPATH": path, "GO111MODULE": "off", "GOCACHE": f"{folder}/cache", "GOFLAGS": ""}
    _run(["go", "vet", "."], source, **environment)
    _run(["go", "build", "-o", folder / "program", "."], source, **environment)
    return [folder / "program"], ""


@pytest.fixture(scope="module")
def typescript(tmp_path_factory):
    """The example, as it is built by its own package.json beside the protos."""
    _need("node", "npm")
    root = tmp_path_factory.mktemp("typescript")
    folder = shutil.copytree(ROOT / "clients" / "typescript", root / "clients" / "typescript")
    shutil.copytree(PROTOS, root / "proto")
    command = ["npm", "install", "--no-audit", "--no-fund"]
    install = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if found := UNREACHABLE.search(install.stderr):
        pytest.skip(f"the npm registry cannot be reached ({found[0]})")
    assert install.returncode == 0, install.stderr
    _run(["npm", "run", "build"], folder)
    return ["node", folder / "build" / "sample.js"], "http://"


@pytest.mark.parametrize("language", ["go", "typescript"])
def test_stubs_of_other_languages_have_the_same_images(language, running, request):
    command, scheme = request.getfixturevalue(language)
    found = json.loads(_run([*command, f"{scheme}{running.target}", str(COUNT)], ROOT))
    with SamplingClient(running.target) as client:
        names = [info.name for info in client.list_models().models]
        batches = client.sample_binary_images(image_count=COUNT, seed=1, model=names[0])
        images = b"".join(batch.packed_images.tobytes() for batch in batches)
    assert found["names"] == names  # page by page
    assert found["images"] == images.hex()
    assert found["error"] == "bgan/MODEL_NOT_FOUND"
