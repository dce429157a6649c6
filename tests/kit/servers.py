"""Server processes, and servers that are killed and restarted. Everything is real."""

import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kit.cli import BGAN

_START_SECONDS = 150
# The `bgan` of another environment, where clients are tested in one that cannot serve: tests/environments.
_BGAN = os.environ.get("BGAN_TEST_SERVER", BGAN)


class ServerProcess:
    """A `bgan serve` of its own, on a free port; of the models that it picks itself where `models` is None.

    `program`: a command that takes its place.
    """

    def __init__(self, models, *options, port=0, env=None, cwd=None, program=(_BGAN, "serve")):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - as long as the server
        named = () if models is None else ("--models", str(models))
        self.process = subprocess.Popen(
            [*map(str, program), *named, "--port", str(port), *map(str, options)],
            stderr=self.log,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        self.target = f"localhost:{self.port}"

    def _wait_for_port(self):
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            found = re.search(r"serving on .*:(\d+)", self.output())
            if found:
                return int(found[1])
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.output()}")

    @property
    def http(self):
        """Where it answers HTTP."""
        return re.search(r"HTTP on (\S+)", self.output())[1]

    def output(self):
        return Path(self.log.name).read_text(errors="replace")  # gRPC logs raw addresses

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self.log.close()
        return code

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@contextmanager
def server(models, *options, **arguments):
    process = ServerProcess(models, *options, **arguments)
    try:
        yield process
    except BaseException as error:
        if (code := process.process.poll()) is not None and not process.log.closed:
            error.add_note(f"its server had ended with {code}:\n{process.output()}")
        raise
    finally:
        process.stop(signal.SIGKILL)


def free_port():
    """A port that nothing listens on, below those that a system gives to whoever asks for any.

    So nobody takes it before those who are to listen on it do, or between two of them.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 16_000)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("", port))
            return port


class RestartingServer:
    """A `bgan serve` that can be stopped and started again on its port."""

    def __init__(self, models, *options):
        self._models, self._options, self._past = models, options, ""
        self._process = ServerProcess(models, *options, port=free_port())
        self.port, self.target = self._process.port, self._process.target

    @property
    def pid(self):
        return self._process.process.pid

    def output(self):
        """What all of its processes have logged."""
        return self._past + ("" if self._process.log.closed else self._process.output())

    def stop(self, number=signal.SIGKILL):
        self._process.process.send_signal(number)
        self._process.process.wait(30)
        self._past = self.output()
        return self._process.stop()

    def start(self, models=None):
        self._models = models or self._models
        self._process = ServerProcess(self._models, *self._options, port=self.port)


@contextmanager
def restarting_server(models, *options):
    server = RestartingServer(models, *options)
    try:
        yield server
    finally:
        if server._process.process.poll() is None:
            server.stop()
