"""A simulated world: what the product asks of the operating system and of gRPC, it asks here."""

import asyncio
import gc
import hashlib
import importlib
import logging
import os
import random
import secrets
import sys
import time
import uuid
import warnings
from contextlib import ExitStack, contextmanager
from functools import cache, reduce
from pathlib import Path
from unittest.mock import patch

import grpc

from bgan.clients import AsyncSamplingClient
from bgan.serving.config.settings import ServerSettings
from bgan.serving.errors import ModelFileError
from bgan.serving.models import engine
from bgan.serving.server import worker
from tests.fixtures.write import FOLDER

from .disk import Disk
from .loop import PROCESS, Loop
from .network import MainTasks, Network
from .processes import Descriptors, Environment, Machine, Process, StandardOutput, Stop, Threads

_EPOCH = 1_700_000_000.0  # what the clock on the wall says when that of the loop is 0
_TAIL = 400


class World:
    """Everything that one simulation has. `verbose`: print the trace as it grows."""

    def __init__(self, seed, *, verbose=False):
        self.rng = random.Random(seed)
        self.loop = Loop(random.Random(self.rng.random()))
        self.machine = Machine(self.loop, self.note)
        self.machine.main_of = _main_of_worker
        self.network = self.machine.network = Network(self.loop, self.note)
        self.disk = Disk(lambda: round(1e9 * self.wall_time()))
        self.tail = []
        """The last lines of the trace."""
        self.breaches = []
        """What was found to be wrong."""
        self._is_over = False
        self._digest = hashlib.sha256()
        self._verbose = verbose

    @property
    def now(self):
        return self.loop.now

    def wall_time(self):
        return _EPOCH + self.loop.now

    @property
    def digest(self):
        """Of the whole trace."""
        return self._digest.hexdigest()[:16]

    def note(self, *event):
        """Add a line to the trace."""
        if self._is_over:
            return
        line = f"{self.loop.now:10.5f} {' '.join(map(str, event))}"
        self._digest.update(line.encode())
        self._keep(line)

    def show(self, *event):
        """Add a line that does not count for the digest."""
        self._keep(f"{self.loop.now:10.5f} {' '.join(map(str, event))}")

    def _keep(self, line):
        self.tail.append(line)
        del self.tail[:-_TAIL]
        if self._verbose:
            sys.__stdout__.write(f"{line}\n")

    def blame(self, *event):
        """Something is wrong."""
        if self._is_over:
            return
        self.note("BREACH:", *event)
        self.breaches.append(" ".join(map(str, event)))

    def process(self, name, main):
        """Start a process on a machine of its own."""
        return Process(self.machine, name, main).start()

    def run(self, main):
        """Run a coroutine function to its end, in this world, with the processes that it starts."""
        with self._in_force():
            try:
                self.loop.run_until_complete(main())
            finally:
                self._end()

    def client(self, *ports, **options):
        """An AsyncSamplingClient of these hosts."""
        network = self.network

        class Client(AsyncSamplingClient):
            _grpc = network

        return Client([f"127.0.0.1:{port}" for port in ports], **options)

    @contextmanager
    def _in_force(self):
        state = random.getstate()
        random.seed(self.rng.random())
        output = StandardOutput()
        with ExitStack() as stack:
            for target, names in self._replacements(output):
                stack.enter_context(patch.multiple(target, **names))
            stack.enter_context(self.disk.mounted())
            stack.enter_context(self._logs())
            try:
                yield
            finally:
                random.setstate(state)

    def _replacements(self, output):
        bits = random.Random(self.rng.random())
        clock = self.loop.time
        yield time, {"monotonic": clock, "perf_counter": clock, "time": self.wall_time}
        yield os, {"environ": Environment(), "kill": self.machine.kill}
        yield sys, {"stdout": output, "stdin": None}
        yield secrets, {"randbits": bits.getrandbits}
        yield uuid, {"uuid4": lambda: uuid.UUID(int=bits.getrandbits(128))}
        yield asyncio, {"create_subprocess_exec": self.machine.start_child, "all_tasks": self.machine.all_tasks}
        yield grpc.aio, {"server": self.network.server}
        yield worker.signal, {"signal": lambda number, handler: None}
        for module, name, value in _parts():
            yield module, {name: value}

    @contextmanager
    def _logs(self):
        handler = _Trace(self)
        logger = logging.getLogger("bgan")
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO if self._verbose else logging.WARNING)
        quiet = logging.getLogger("asyncio")
        quiet_before, quiet.disabled = quiet.disabled, True
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before
            logger.setLevel(before[0])
            quiet.disabled = quiet_before

    def _end(self):
        """Nothing more happens; what is left behind goes with `collected`."""
        self._is_over = True
        for process in self.machine.processes.values():
            process.forget()
        self.loop.close()


@contextmanager
def collected():
    """Around simulations: what they leave is thrown away at the end and in silence, as the dead leave it."""
    was_collecting = gc.isenabled()
    gc.disable()  # destructors would run at random
    gc.freeze()  # only what is new will be looked through
    hook = sys.unraisablehook
    try:
        yield
    finally:
        sys.unraisablehook = lambda _: None
        logging.disable()
        try:
            with warnings.catch_warnings(action="ignore"):
                gc.collect()
        finally:
            logging.disable(logging.NOTSET)
            sys.unraisablehook = hook
            gc.unfreeze()
            if was_collecting:
                gc.enable()


class _Trace(logging.Handler):
    """Log records become lines of the trace."""

    def __init__(self, world):
        super().__init__()
        self._world = world

    def emit(self, record):
        if self._world._is_over:
            return
        process = PROCESS.get(None)
        if record.levelno >= logging.WARNING:
            self._world.note("log", process and process.name, record.levelname, record.getMessage())
        else:
            self._world.show("log", process and process.name, record.levelname, record.getMessage())
        if record.exc_info and record.levelno >= logging.ERROR:
            self._world.blame("an error is not handled:", process and process.name, repr(record.exc_info[1]))


def _main_of_worker(command):
    """What `worker.main` runs, for the command line of a worker."""
    arguments = list(command[command.index("bgan.serving.server.worker") :])

    def main():
        mains = []
        run = patch.object(worker, "run", lambda main, **options: mains.append(main))
        with patch.object(sys, "argv", arguments), run:
            worker.main()
        return mains[0]

    return main


@contextmanager
def _reserved_port(host, port):
    yield port


@cache
def _loaded(content):
    """What loading gives, without the disk: a model's session and manifest, or the error."""
    path = next((each for each in FOLDER.rglob("*.onnx") if each.read_bytes() == content), None)
    if path is None:
        return None
    loaded = engine.load_engine(path)
    loaded.seconds_per_image = 0.001  # it is measured otherwise
    return loaded


def open_engine(content, *, threads=1, name=None, version=0, provider=None):
    """As the engine's, but a content is loaded and probed once for all simulations."""
    loaded = _loaded(content)
    if loaded is None:
        raise ModelFileError("is no ONNX model")
    manifest = type(loaded.manifest).FromString(loaded.manifest.SerializeToString())
    manifest.name = name or manifest.name
    opened = engine.Engine(loaded._session, manifest, file_sha256=loaded.file_sha256, version=version)
    opened.tile_rows, opened.seconds_per_image = loaded.tile_rows, loaded.seconds_per_image
    return opened


def load_engine(path, *, threads=1, name=None, version=0, max_bytes=0, provider=None):
    """As the engine's, from the simulated disk."""
    content = engine.read_model_file(path, max_bytes)
    try:
        return open_engine(content, name=name, version=version)
    except ModelFileError as error:
        raise ModelFileError(f"{path} {error.message}") from error


class Checker:
    """What `models.checker` finds out in other processes is found at once."""

    def __init__(self, max_bytes):
        self.is_closed = self.is_polite = False
        self._max_bytes = max_bytes

    def take(self, file):
        process = PROCESS.get()
        from bgan.serving.models.checker import Check

        if process.machine.refusal(process) is not None:
            return Check(error=ModelFileError(f"{file.path} cannot be checked now", may_pass=True))
        try:
            found = load_engine(file.path, name=file.model, version=file.version, max_bytes=self._max_bytes)
        except ModelFileError as error:
            return Check(error=error)
        return Check(found.file_sha256, found.tile_rows, found.seconds_per_image)

    def has(self, file):
        return False

    def wait(self, seconds):
        pass

    def keep_only(self, files):
        pass

    def close(self):
        self.is_closed = True


def _find_connections(connections, now):
    """As `Connections._find` of `server.connections`, for the simulated ones of this process."""
    from bgan.serving.server.connections import Connection

    process = PROCESS.get()
    known, found = connections._known, process.machine.network.accepted_by(process)
    connections._known = {
        peer: known.get(peer) or Connection(number, peer, "127.0.0.1", now) for number, peer in enumerate(found)
    }
    return list(connections._known.values())


def _shut(connection):
    process = PROCESS.get()
    found = process.machine.network.accepted_by(process).get(connection.peer)
    if found is not None:
        found.lose((grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    return found is not None


# What parts of the product ask of other processes, threads and ports.
_PARTS = (
    ("server.ports", "reserved_port", _reserved_port),
    ("models.repository", "Checker", Checker),
    ("models.checked", "open_engine", open_engine),
    ("server.server", "Stop", Stop),
    ("server.supervisor", "Stop", Stop),
    ("server.worker", "Stop", Stop),
    ("server.worker", "os", Descriptors()),
    ("server.listeners", "MainTasks", MainTasks),
    ("rpc.pool", "ThreadPoolExecutor", Threads),
    ("server.connections", "raise_file_limit", lambda: 1024),
    ("server.connections", "_shut", _shut),
    ("server.connections", "Connections._find", _find_connections),
)


@cache
def _parts():
    """Of each: its owner, a module or a class, its name, and what takes its place.

    Raises AttributeError for a name that is not there: what it stood for would reach the real system.
    """
    found = []
    for path, name, value in _PARTS:
        *classes, last = name.split(".")
        owner = reduce(getattr, classes, importlib.import_module(f"bgan.serving.{path}"))
        getattr(owner, last)
        found.append((owner, last, value))
    return found


@cache
def _settings(**values):
    return ServerSettings(**values)


def settings(port, folder, **values):
    """The settings of a host whose files lie in `folder`."""
    where = {"port": port, "models": Path(folder) / "models", "tokens": Path(folder) / "tokens.toml"}
    return _settings(**values).model_copy(update=where)
