"""Trainings as tasks of a Ray cluster, whose nodes share the folder of the runs. Ray is imported here alone."""

import ctypes
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import ConfigError, RunError

_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.2
_LOCAL, _AUTO = "local", "auto"
_COMMAND = (
    "from bgan.trainer.reports.reproduction.cluster import end_with_parent; end_with_parent();"
    "from bgan.trainer.cli.app import main; main()"
)
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A cluster that this process is connected to."""

    ray: Any
    at_once: int
    """How many trainings run at once."""
    threads: int
    """The CPUs of each."""

    def start(self, command: list[str], log: Path, folder: Path) -> "RayTraining":
        """Have a node run a command of this Python, with its standard error in `log`; both see `folder`."""
        marker = folder / f".{os.urandom(8).hex()}.seen"
        marker.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        marker.touch()
        environment = {name: value for name, value in os.environ.items() if name.startswith("BGAN_")}
        environment |= {"OMP_NUM_THREADS": str(self.threads), "NO_COLOR": "1"}
        task = self.ray.remote(num_cpus=self.threads, max_retries=-1)(run_on_node)
        task = task.remote(command, str(log.absolute()), str(marker.absolute()), str(Path.cwd()), environment)
        return RayTraining(self.ray, task, log, marker)


class RayTraining:
    """A command that a node runs, or will run; polled and ended as a process is."""

    def __init__(self, ray: Any, task: Any, log: Path, marker: Path) -> None:
        self._ray, self._task, self._log, self._marker = ray, task, log, marker

    def poll(self) -> int | None:
        """Its exit code; None: it has not ended."""
        done, _ = self._ray.wait([self._task], timeout=0)
        return self.wait() if done else None

    def terminate(self) -> None:
        """Ask it to save and end."""
        self._ray.cancel(self._task)

    def wait(self) -> int:
        """Its exit code, when it has ended; why it could not be run is in its log."""
        try:
            code: int = self._ray.get(self._task)
        except self._ray.exceptions.TaskCancelledError:
            code = -signal.SIGTERM
        except self._ray.exceptions.RayError as error:
            lines = str(getattr(error, "cause", None) or error).strip().splitlines()
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{lines[-1] if lines else type(error).__name__}\n")
            code = 1
        self._marker.unlink(missing_ok=True)
        return code


@contextmanager
def ray_cluster(address: str, at_once: int | None) -> Iterator[RayCluster]:
    """A cluster, until left; it runs so many trainings at once, None: one for each of its CPUs.

    address: HOST:PORT of its head, ray://HOST:PORT, "auto": that of the cluster this machine is in, or "local": a
        cluster of this machine alone, until left. Raises RunError where none answers.
    """
    ray = _connect(address)
    with redirect_stdout(sys.stderr), ExitStack() as stack:  # Ray prints which nodes were lost
        stack.callback(ray.shutdown)
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        count = at_once or cpus
        yield RayCluster(ray, count, max(1, cpus // count))


def run_on_node(command: list[str], log: str, marker: str, folder: str, environment: dict[str, str]) -> int:
    """The exit code of a command of this Python, run on the node where this is called, in `folder`.

    It is asked to save and end where this call is cancelled, or its process dies. Raises RunError where the node
    does not see the caller's files.
    """
    if not Path(marker).exists() or not Path(folder).is_dir():
        seen = Path(marker).parent if Path(folder).is_dir() else folder
        raise RunError(f"{platform.node()} does not see {seen}; trainings on Ray need folders that nodes share")
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, *command],
            stdout=subprocess.DEVNULL,
            stderr=file,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        while (code := process.poll()) is None:
            time.sleep(_POLL_SECONDS)  # Ray cancels by a KeyboardInterrupt, which no system call ends for
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        return process.wait()
    return code


def end_with_parent() -> None:
    """Have this process asked to save and end when the one that started it dies."""
    with suppress(AttributeError, OSError):  # Linux alone has it
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _connect(address: str) -> Any:
    """Ray's module, connected. Raises RunError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before it is imported: it would report home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do one day
    if address not in (_LOCAL, _AUTO):
        _check_address(address)
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # of many kinds: no connection, another version of Ray or Python, no memory
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if address == _AUTO and isinstance(error, ConnectionError):
            reason = "no Ray cluster runs here; start one with `ray start --head`, or name its address"
        raise RunError(f"--ray {address}: {reason}") from error
    return ray


def _check_address(address: str) -> None:
    """Raise RunError where no Ray answers: Ray itself would try for minutes, and say so in many lines.

    Raises ConfigError for what is no address.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--ray {address} is no address; use HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        if os.environ.get("RAY_USE_TLS") != "1":
            _wait_for_grpc(f"{host}:{port}")
    except (OSError, OverflowError, UnicodeError) as error:
        raise RunError(
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
