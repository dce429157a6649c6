"""Shards as tasks of a Ray cluster, which runs them again where a node or a process is lost.

Nodes need bgan and access to the store; the model comes with the tasks. Ray is imported here alone.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import islice
from typing import Any

from ..errors import GenerationError, ServingError, UsageError
from .processes import TICK_SECONDS, Made
from .shards import ShardJob, make_shard

_TASKS_AHEAD = 2  # for each CPU: one that runs, and one that waits
_ANSWER_SECONDS = 10.0
LOCAL, AUTO = "local", "auto"


@contextmanager
def ray_cluster(job: ShardJob, address: str) -> Iterator[Callable[[Iterable[int]], Made]]:
    """A function that has shards made by a cluster, until left. It raises what `make_shard` raises.

    address: HOST:PORT of its head, ray://HOST:PORT, "auto": that of the cluster this machine is in, or "local": a
        cluster of this machine alone, until left. Raises GenerationError where none answers.
    """
    ray = _connect(address)
    with redirect_stdout(sys.stderr), ExitStack() as stack:  # Ray prints which nodes were lost
        stack.callback(ray.shutdown)
        task = ray.remote(max_retries=-1)(make_shard)  # whose node is lost is run again, however often
        shared = ray.put(job)

        def make(shards: Iterable[int]) -> Made:
            waiting, running = iter(shards), list[Any]()
            while True:
                most = _TASKS_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                running += [task.remote(shared, shard) for shard in islice(waiting, max(0, most - len(running)))]
                if not running:
                    return
                done, running = ray.wait(running, timeout=TICK_SECONDS)
                for reference in done:
                    yield _record(ray, reference)
                yield None

        yield make


def _record(ray: Any, reference: Any) -> dict[str, Any]:
    try:
        record: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ServingError | MemoryError):
            raise error.cause from None
        lines = str(error.cause or error).strip().splitlines() or ["it did not say why"]
        raise GenerationError(f"a task failed on the Ray cluster: {lines[-1]}") from error
    except ray.exceptions.RayError as error:
        raise GenerationError(f"the Ray cluster failed: {str(error).strip().splitlines()[0]}") from error
    return record


def _connect(address: str) -> Any:
    """Ray's module, connected. Raises GenerationError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before it is imported: it would report home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do one day
    if address not in (LOCAL, AUTO):
        _check_address(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # of many kinds: no connection, another version of Ray or Python, no memory
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if address == AUTO and isinstance(error, ConnectionError):
            reason = "no Ray cluster runs here; start one with `ray start --head`, or name its address"
        raise GenerationError(f"--ray {address}: {reason}") from error
    return ray


def _check_address(address: str) -> None:
    """Raise GenerationError where no Ray answers: Ray itself would try for minutes, and say so in many lines."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--ray {address} is no address; use HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        if os.environ.get("RAY_USE_TLS") != "1":
            _wait_for_grpc(f"{host}:{port}")
    except (OSError, OverflowError, UnicodeError) as error:
        raise GenerationError(
            f"--ray {address} does not answer ({error}); start a cluster with `ray start --head`, or name another"
        ) from error


def _wait_for_grpc(target: str) -> None:
    """Raise TimeoutError where what listens is no gRPC server, as the heads of Ray clusters are."""
    import grpc

    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(_ANSWER_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise TimeoutError("what listens there is no Ray cluster") from error
