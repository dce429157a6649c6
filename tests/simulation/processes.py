"""Processes of a simulated machine: their pipes, signals, environments and ends."""

import asyncio
import itertools
import math
import signal
import subprocess
import traceback
from collections.abc import MutableMapping
from contextvars import copy_context

from .loop import PROCESS

_PIPE_SECONDS = (0.00005, 0.0005)
_START_SECONDS = (0.2, 0.8)


class Pipe:
    """What one process writes, its reader gets a moment later, in its own process."""

    def __init__(self, machine):
        self._machine = machine
        self._reader = None  # the process, and what takes data and the end
        self._backlog = []
        self._is_ended = False
        self._last = 0.0

    def connect(self, on_data, on_end):
        self._reader = copy_context(), on_data, on_end
        for data in self._backlog:
            self._pass_on(data)
        self._backlog.clear()

    def write(self, data):
        if self._is_ended:
            return
        if self._reader is None:
            self._backlog.append(data)
        else:
            self._pass_on(data)

    def end(self):
        """The end of the file; b"" stands for it in the backlog."""
        self.write(b"")
        self._is_ended = True

    def _pass_on(self, data):
        context, on_data, on_end = self._reader
        loop = self._machine.loop
        self._last = max(math.nextafter(self._last, math.inf), loop.now + loop.rng.uniform(*_PIPE_SECONDS))
        loop.call_at(self._last, *((on_data, data) if data else (on_end,)), context=context)


class _Writer:
    """The writing end of a pipe as asyncio.StreamWriter has it."""

    def __init__(self, pipe):
        self.pipe = pipe
        self._is_closing = False

    def write(self, data):
        self.pipe.write(bytes(data))

    def close(self):
        self._is_closing = True
        self.pipe.end()

    def is_closing(self):
        return self._is_closing

    async def drain(self):
        await asyncio.sleep(0)

    async def wait_closed(self):
        await asyncio.sleep(0)


class Process:
    """A process; `main` makes its main coroutine, whose return value is its exit code."""

    def __init__(self, machine, name, main, *, environment=None):
        self.machine = machine
        self.name = name
        self.pid = next(machine.pids)
        self.environment = dict(environment or {})
        self.stdin, self.stdout = Pipe(machine), Pipe(machine)
        self.handlers = {}
        self.tasks = []
        self.returncode = None
        self.failure = None
        """What its main coroutine failed with that was no exit."""
        self.is_stopped = False
        self.on_end = []
        """Called when it ends, as its kernel would do."""
        self._held = []
        self._main = main
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        machine.processes[self.pid] = self

    def start(self):
        loop = self.machine.loop
        loop.call_later(loop.rng.uniform(*_START_SECONDS), self._begin, context=self.context)
        return self

    def call(self, function, *arguments):
        """Call a function in this process, in turn."""
        self.machine.loop.call_soon(function, *arguments, context=self.context)

    def may_run(self, handle):
        if self.is_stopped or self.returncode is not None:
            self._held.append(handle)  # those of a dead process are kept, so that no destructor runs
            return False
        return True

    def send_signal(self, number):
        if self.returncode is not None:
            return
        self.machine.note("signal", self.name, signal.Signals(number).name)
        if number == signal.SIGSTOP:
            self.is_stopped = True
        elif number == signal.SIGCONT:
            self.is_stopped = False
            held, self._held = self._held, []
            self.machine.loop.put_back(held)
        elif number == signal.SIGKILL or number not in self.handlers:
            self.end(-number)
        else:
            callback, arguments = self.handlers[number]
            self.call(callback, *arguments)

    def end(self, code):
        """It is no more: its pipes end, and who waits for it hears of it."""
        if self.returncode is None:
            self.machine.note("exit", self.name, code)
            self.is_stopped = False
            self.returncode = code
            self.stdout.end()
            for callback in self.on_end:
                callback()

    def forget(self):
        """Throw away what it left."""
        for task in self.tasks:
            task._log_destroy_pending = False
        self.tasks.clear()
        self._held.clear()

    def _begin(self):
        self._running = self.machine.loop.create_task(self._run())

    async def _run(self):
        code = 1
        try:
            code = await self._main() or 0
        except Exception as error:
            self.machine.note("error", self.name, type(error).__name__, error)
            if not hasattr(error, "exit_code"):
                self.failure = error
                self.machine.note("failure", self.name, *traceback.format_exception(error)[-3:])
        self.end(code)


class ChildProcess:
    """A process as its parent has it from asyncio."""

    def __init__(self, process):
        machine = process.machine
        self.pid = process.pid
        self.returncode = None
        self.stdin = _Writer(process.stdin)
        self.stdout = asyncio.StreamReader(loop=machine.loop)
        process.stdout.connect(self.stdout.feed_data, self.stdout.feed_eof)
        self._process = process
        self._ended = asyncio.Event()
        parent = PROCESS.get()
        process.on_end.append(lambda: parent.call(self._note_end))
        parent.on_end.append(process.stdin.end)

    def _note_end(self):
        self.returncode = self._process.returncode
        self._ended.set()

    async def wait(self):
        await self._ended.wait()
        return self.returncode

    def send_signal(self, number):
        self._process.send_signal(number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Machine:
    """All processes of a simulation, by their ids, and what the operating system does for them."""

    def __init__(self, loop, note):
        self.loop = loop
        self.note = note
        self.processes = {}
        self.pids = itertools.count(10_000_000)  # above what Linux gives
        self.main_of = None
        """The main coroutine function of a command line."""
        self.refusal = lambda process: None
        """An OSError, if no process may be started now."""

    async def start_child(self, *command, stdin=None, stdout=None, stderr=None, env=None, **options):
        """asyncio.create_subprocess_exec."""
        if stdin != subprocess.PIPE or stdout != subprocess.PIPE or options:
            raise NotImplementedError(f"{command}: only pipes are simulated, not {options}")
        parent = PROCESS.get()
        await asyncio.sleep(0.001)
        if (error := self.refusal(parent)) is not None:
            raise error
        number = sum(each.name.startswith(f"{parent.name}.") for each in self.processes.values())
        environment = parent.environment if env is None else env
        child = Process(self, f"{parent.name}.{number}", self.main_of(command), environment=environment)
        self.note("start", child.name)
        return ChildProcess(child.start())

    def kill(self, pid, number):
        """os.kill."""
        if pid not in self.processes:
            raise ProcessLookupError(pid)
        self.processes[pid].send_signal(number)

    @staticmethod
    def all_tasks(loop=None):
        """asyncio.all_tasks: those of the process that asks."""
        return {task for task in PROCESS.get().tasks if not task.done()}


class Environment(MutableMapping):
    """os.environ: that of the process that asks."""

    def _own(self):
        process = PROCESS.get(None)
        return {} if process is None else process.environment

    def __getitem__(self, name):
        return self._own()[name]

    def __setitem__(self, name, value):
        self._own()[name] = value

    def __delitem__(self, name):
        del self._own()[name]

    def __iter__(self):
        return iter(self._own())

    def __len__(self):
        return len(self._own())


class StandardOutput:
    """sys.stdout: that of the process that writes."""

    def write(self, text):
        PROCESS.get().stdout.write(text.encode())
        return len(text)

    def flush(self):
        pass


class Descriptors:
    """The functions of `os` by which a worker takes its standard output and writes to it."""

    @staticmethod
    def dup(descriptor):
        return descriptor

    @staticmethod
    def dup2(descriptor, other):
        pass

    @staticmethod
    def set_blocking(descriptor, is_blocking):
        pass

    @staticmethod
    def write(descriptor, data):
        PROCESS.get().stdout.write(data)
        return len(data)


class Threads:
    """A concurrent.futures.ThreadPoolExecutor whose threads are those of the simulated process."""

    def __init__(self, max_workers, thread_name_prefix=""):
        self._max_workers, self._thread_name_prefix = max_workers, thread_name_prefix

    def submit(self, function, *arguments):
        return PROCESS.get().machine.loop.run_in_executor(self, function, *arguments)

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


class Stop:
    """As `serving.server.stop`, which ends real processes with real timers."""

    _SECONDS_TO_LOG = 0.15

    def __init__(self, *signals, seconds):
        self._process, self._seconds, self._signals = PROCESS.get(), seconds, signals
        self._stop = asyncio.Event()
        self._timer = None

    def __enter__(self):
        self._process.handlers |= dict.fromkeys(self._signals, (self.begin, ()))
        return self

    def __exit__(self, kind, *error):
        for number in self._signals:
            self._process.handlers.pop(number, None)
        if kind is not None and self._timer is not None:
            self._timer.cancel()

    def is_set(self):
        return self._stop.is_set()

    async def wait(self):
        await self._stop.wait()

    def begin(self):
        if self._timer is None:
            self._stop.set()
            seconds = self._seconds + self._SECONDS_TO_LOG
            self._timer = self._process.machine.loop.call_later(seconds, self._end)

    def _end(self):
        self._process.machine.note("ended by force", self._process.name)
        self._process.end(1)
