"""How long commands take before they do anything."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.kit.cli import BGAN
from tests.kit.models import make_model
from tests.kit.servers import free_port

from .measure import Figure, in_turns

_EMPTY_APP = """
import typer

app = typer.Typer()


@app.command()
def nothing() -> None:
    pass


app()
"""


def measure():
    """`bgan --help` against an empty Typer app, and `bgan serve` until it is healthy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "empty.py").write_text(_EMPTY_APP)
        ours, empty = in_turns(
            lambda: _quietly([BGAN, "--help"]),
            lambda: _quietly([sys.executable, path / "empty.py", "--help"]),
            rounds=11,
        )
        make_model(path, "mlp")
        serving = statistics.median(_seconds_to_serving(path) for _ in range(5))
    return [
        Figure("bgan --help", 1e3 * ours, "ms"),
        Figure("an empty Typer app's --help", 1e3 * empty, "ms"),
        Figure("bgan --help / empty app", ours / empty, "ratio", "at most 1.5"),
        Figure("bgan serve to SERVING", serving, "s", "under 2"),
    ]


def _quietly(command):
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True)


def _seconds_to_serving(models):
    port = free_port()
    start = time.perf_counter()
    command = [str(BGAN), "serve", "--models", str(models), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        options = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(f"localhost:{port}", options=options) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60
            )
            for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return time.perf_counter() - start
        raise RuntimeError("the server never became healthy")
    finally:
        process.kill()
        process.wait()
