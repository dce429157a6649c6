"""Trainings on a Ray cluster: what can be told without one; the rest is in tests/system/test_reproduce_on_ray."""

import re

import pytest

from bgan.trainer.common.errors import RunError
from bgan.trainer.reports.reproduction.cluster import run_on_node
from tests.kit.cli import bgan, error_line


def test_a_node_that_does_not_see_the_runs(tmp_path):
    log, marker = tmp_path / "log", tmp_path / "runs/.x.seen"
    with pytest.raises(RunError) as found:
        run_on_node(["train"], str(log), str(marker), str(tmp_path), {})
    text = rf"\S+ does not see {tmp_path}/runs; trainings on Ray need folders that nodes share"
    assert re.fullmatch(text, str(found.value))
    with pytest.raises(RunError, match=f"does not see {tmp_path}/nowhere;"):
        run_on_node(["train"], str(log), str(tmp_path), str(tmp_path / "nowhere"), {})
    assert not log.exists()


@pytest.mark.usefixtures("processes")
def test_what_a_node_runs_is_a_command_of_this_python(tmp_path):
    log, marker = tmp_path / "log", tmp_path / "seen"
    marker.touch()
    assert (
        run_on_node(["train", "--epochs", "none"], str(log), str(marker), str(tmp_path), {"COLUMNS": "200"}) == 2
    )
    assert "Usage: -c train" in log.read_text()


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("there", "--ray there is no address; use HOST:PORT, ray://HOST:PORT, auto or local"),
        (
            "127.0.0.1:1",
            "--ray 127.0.0.1:1 does not answer ([Errno 111] Connection refused); start a cluster with",
        ),
    ],
)
def test_a_cluster_that_is_not_there(tmp_path, address, line):
    result = bgan("reproduce", "--quick", "--output", tmp_path / "out", "--ray", address)
    assert error_line(result, 2 if address == "there" else 1).startswith(f"bgan: {line}")
