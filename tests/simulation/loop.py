"""An event loop whose time is simulated, and which runs the callbacks of several processes."""

import asyncio
import heapq
from contextvars import ContextVar, copy_context

PROCESS = ContextVar("process")
"""The simulated process whose code runs."""
_START = 1_000.0
_THREADS = 32
_CANCELLED = 64
_JOB_SECONDS = (0.0002, 0.004)


class StandstillError(Exception):
    """Nothing is left that could ever happen."""


class Loop(asyncio.BaseEventLoop):
    """Runs callbacks in their order; with none to run it is at once the time of the next timer.

    Callbacks of a stopped process wait until it continues, those of a dead one are never run.
    """

    def __init__(self, rng):
        super().__init__()
        self.now = _START
        self.rng = rng
        self.job_is_held = lambda process, executor: 0.0
        """Until when a job of an executor has to wait for what it uses."""
        self._busy = {}  # by executor: when each of its threads is free
        self.set_task_factory(_make_task)

    def time(self):
        return self.now

    def _run_once(self):
        scheduled, ready = self._scheduled, self._ready
        if self._timer_cancelled_count > _CANCELLED and 2 * self._timer_cancelled_count > len(scheduled):
            scheduled[:] = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise StandstillError("no callback and no timer is left")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is None or process.may_run(handle):
                handle._run()

    def set_task_factory(self, factory):
        if PROCESS.get(None) is None:
            super().set_task_factory(factory)

    def set_exception_handler(self, handler):
        if PROCESS.get(None) is None:  # a process would set that of all
            super().set_exception_handler(handler)

    def _check_closed(self):
        pass  # what destructors still ask for comes to nothing

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def put_back(self, handles):
        """Callbacks that waited."""
        self._ready.extend(handles)

    def run_in_executor(self, executor, func, *args):
        """A job runs in one go, at the end of the time that it takes."""
        future = self.create_future()
        threads = self._busy.setdefault(executor, [0.0] * getattr(executor, "_max_workers", _THREADS))
        first = min(range(len(threads)), key=threads.__getitem__)
        threads[first] = max(threads[first], self.now) + self.rng.uniform(*_JOB_SECONDS)
        self.call_at(threads[first], self._run_job, future, executor, func, args)
        return future

    def _run_job(self, future, executor, func, args):
        if future.cancelled():
            return
        held_until = self.job_is_held(PROCESS.get(), executor)
        if held_until > self.now:
            self.call_at(held_until, self._run_job, future, executor, func, args)
            return
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)

    def add_signal_handler(self, sig, callback, *args):
        PROCESS.get().handlers[sig] = (callback, args)

    def remove_signal_handler(self, sig):
        return PROCESS.get().handlers.pop(sig, None) is not None

    async def connect_read_pipe(self, protocol_factory, pipe):
        protocol = protocol_factory()
        transport = asyncio.ReadTransport()
        protocol.connection_made(transport)
        PROCESS.get().stdin.connect(protocol.data_received, lambda: _end(protocol))
        return transport, protocol


def _end(protocol):
    protocol.eof_received()
    protocol.connection_lost(None)


def _make_task(loop, coroutine, *, context=None, **options):
    task = asyncio.Task(coroutine, loop=loop, context=context, **options)
    process = (copy_context() if context is None else context).get(PROCESS)
    if process is not None:
        process.tasks.append(task)
    return task
