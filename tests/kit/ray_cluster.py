"""A Ray cluster of several nodes on this machine. Its own processes alone are ended, unlike by `ray stop`."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

_HOST = """if True:
    import os, shutil, sys, tempfile
    # Not in /tmp/ray, where the address of the last cluster that was started is "auto" for all.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-")}
    from ray.cluster_utils import Cluster
    options = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    nodes = [cluster.head_node, *(cluster.add_node(**options) for _ in range(int(sys.argv[1]) - 1))]
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print("cluster", cluster.address, *pids, flush=True)
    sys.stdin.read()
    cluster.shutdown()
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
"""


@dataclass(frozen=True)
class RayCluster:
    """A cluster that runs."""

    address: str
    raylets: list[int]
    """The process of each node, the head's first."""


@contextmanager
def ray_cluster(nodes):
    """A cluster of so many nodes with a core each, in the environment of this process; skips without Ray."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'bgan[ray]'")
    command = [sys.executable, "-P", "-c", _HOST, str(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        try:
            line = next(line for line in host.stdout if line.startswith("cluster "))
            _, address, *pids = line.split()
            yield RayCluster(address, list(map(int, pids)))
        finally:
            host.stdin.close()
            host.stdout.read()
            host.wait()
