"""The main task of each server of grpc.aio: how it gets its calls, when it ends, and what it then drops too early.

A main task ends at the first call whose path is no UTF-8, and nothing public shows that. So the calls that are
found by their path are handed to another server, a desk, which has no port: if its main task ends, no connection
does. And for the next call of each method a task waits, whose frame holds the memory that gRPC is to fill: when a
main task ends, these are cancelled, and their frames freed before gRPC is done with them, which may be a crash.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import grpc

Request = Coroutine[Any, Any, Any]
"""Waits for the next call, and returns it."""
_Wait = Callable[[Request, list[Request]], Request]
MAIN = "AioServer._server_main_loop"
"""The name of a main task's coroutine."""
_CALL = "_schedule_rpc_coro"
_BY_PATH, _BY_METHOD = "AioServer._request_call", "AioServer._request_registered_call"


class MainTasks:
    """A task factory, as `asyncio.AbstractEventLoop.set_task_factory` has it, that knows grpc.aio's tasks by name.

    It holds the tasks of calls while they run, as a main task does until it ends.
    """

    def __init__(self) -> None:
        self._starting: _Wait | None = None
        self._started: asyncio.Task[Any] | None = None
        self._waits: dict[asyncio.Task[Any] | None, tuple[_Wait, list[Request]]] = {}
        self._calls: set[asyncio.Task[Any]] = set()

    async def start_door(self, server: grpc.aio.Server, calls: asyncio.Queue[Any]) -> asyncio.Task[Any]:
        """Start a server with a port, whose calls by path go to a queue; returns its main task."""
        request_again = server._server._request_call  # type: ignore[attr-defined]

        async def divert(request: Request, dropped: list[Request]) -> None:
            while True:
                await calls.put(await _keep(request, dropped))
                request = request_again()

        return await self._start(server, divert)

    async def start_desk(self, server: grpc.aio.Server, calls: asyncio.Queue[Any]) -> asyncio.Task[Any]:
        """Start a server without a port, which answers the calls of a queue; returns its main task."""

        async def take(request: Request, _: list[Request]) -> Any:
            request.close()
            return await calls.get()

        return await self._start(server, take)

    def take_dropped(self, main_task: asyncio.Task[Any]) -> object:
        """What a main task that ended dropped; to be held until gRPC has shut its server down."""
        return self._waits.pop(main_task)

    async def _start(self, server: grpc.aio.Server, wait: _Wait) -> asyncio.Task[Any]:
        self._starting, self._started = wait, None
        # Cancelled half-way, grpc.aio's own task would answer a future that is gone, and fail.
        await asyncio.shield(server.start())
        if self._started is None:
            raise RuntimeError("this version of grpcio has other tasks than those that are known")
        return self._started

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task."""
        name = getattr(coroutine, "__qualname__", "")
        if name in (_BY_METHOD, _BY_PATH) and (main := asyncio.current_task()) in self._waits:
            wait, dropped = self._waits[main]
            coroutine = wait(coroutine, dropped) if name == _BY_PATH else _keep(coroutine, dropped)
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if name == MAIN and self._starting is not None:
            self._started, self._waits[task] = task, (self._starting, [])
        elif name == _CALL:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return task


async def _keep(request: Request, dropped: list[Request]) -> Any:
    return await _drive(request, dropped)


@types.coroutine
def _drive(request: Request, dropped: list[Request]) -> Generator[Any, Any, Any]:
    """Await a request, but let no error into its frame."""
    waits_for = request.send(None)
    try:
        yield waits_for
    except BaseException:
        dropped.append(request)
        raise
    try:
        request.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("grpc.aio waits for more than a call")
