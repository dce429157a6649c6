"""bgan bulk on a Ray cluster of three nodes: every image once, whichever of them are lost on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bgan.serving.config.stores import open_store
from bgan.serving.errors import GenerationError
from bgan.serving.generate.cluster import _check_address
from bgan.serving.models.engine import load_engine
from tests.fixtures.write import FOLDER
from tests.kit.cli import BGAN, bgan_process, error_line
from tests.kit.ray_cluster import ray_cluster
from tests.kit.s3 import s3_server
from tests.kit.waiting import eventually

DBN = FOLDER / "models/mlp-dbn.onnx"
COUNT, SHARD = 200_000, 2000
REQUEST = ["bulk", DBN, "--count", COUNT, "--seed", 1, "--shard-images", SHARD, "--format", "bits"]


def test_a_port_that_is_none_of_ray():
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bgan.serving.generate.cluster._ANSWER_SECONDS", 0.3)
        address = "127.0.0.1:{1}".format(*listener.getsockname())
        with pytest.raises(GenerationError) as found:
            _check_address(address)
    assert str(found.value) == (
        f"--ray {address} does not answer (what listens there is no Ray cluster); start a cluster with "
        "`ray start --head`, or name another"
    )


@pytest.fixture(scope="module")
def cluster():
    """A cluster of three nodes with a core each, and the S3 server that they know."""
    with s3_server("bulk") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with ray_cluster(3) as found:
            yield found


def _start(cluster, output):
    command = [BGAN, *REQUEST, "--output", output, "--ray", cluster.address]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _whole(output):
    return open_store(str(output)).names("records")


def _packed(output):
    store = open_store(str(output))
    shards = json.loads(store.read("manifest.json"))["shards"]
    assert [shard["shard"] for shard in shards] == list(range(COUNT // SHARD))
    return b"".join(store.read(shard["file"]) for shard in shards)


@pytest.mark.long
@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_driver(cluster, tmp_path, number):
    """Its tasks end with it, and the same command resumes."""
    output = tmp_path / "out"
    with _start(cluster, output) as process:
        eventually(lambda: len(_whole(output)) >= 3)
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    assert ("the same command resumes" in said) == (number == signal.SIGTERM)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("records/*")}
    assert 3 <= len(kept) < COUNT // SHARD
    result = bgan_process(*REQUEST, "--output", output, "--ray", cluster.address)
    assert result.returncode == 0, result.stderr
    assert "shards are whole, seed 1" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert _packed(output) == load_engine(DBN).sample(1, 0, COUNT).packed_images


@pytest.mark.long
@pytest.mark.usefixtures("processes")
def test_what_fails_on_a_node_is_one_line(cluster, tmp_path):
    script = """if True:
        import sys
        from dataclasses import replace
        from bgan.serving.errors import ServingError
        from bgan.serving.generate.cluster import ray_cluster
        from tests.serving.generate.test_bulk import DBN, _job

        job = _job(DBN, sys.argv[2])
        plan = replace(job.plan, spec=replace(job.plan.spec, revision="0" * 32))
        try:
            with ray_cluster(replace(job, plan=plan), sys.argv[1]) as make:
                list(make([0]))
        except ServingError as error:
            print(error)
    """
    command = [sys.executable, "-c", script, cluster.address, tmp_path]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert "computes the revision" in result.stdout, result.stderr
    assert f"not the plan's {'0' * 32}: a float model needs machines of one kind" in result.stdout


@pytest.mark.long
@pytest.mark.usefixtures("processes")
def test_a_lost_node(cluster):
    """Last, since the node stays lost: what it was at is made by the others, into a bucket."""
    output = "s3://bulk/lost-node"
    with _start(cluster, output) as process:
        eventually(lambda: len(_whole(output)) >= 3)
        os.kill(cluster.raylets[1], signal.SIGKILL)
        assert len(_whole(output)) < COUNT // SHARD
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert said == f"{output}\n"
    assert _packed(output) == load_engine(DBN).sample(1, 0, COUNT).packed_images


@pytest.mark.long
@pytest.mark.usefixtures("processes")
def test_a_cluster_is_named_that_is_gone(cluster, tmp_path):
    host, port = cluster.address.rsplit(":", 1)
    line = error_line(bgan_process(*REQUEST, "-o", tmp_path / "x", "--ray", f"{host}:{int(port) + 1}"))
    assert "does not answer" in line
    assert not Path(tmp_path / "x/records").exists()
