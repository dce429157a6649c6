"""The main task of each listener of grpc.aio, and what it drops too early when it ends.

Nothing public shows that task, nor its end. For the next call of each method a task waits, whose frame holds the
memory that gRPC is to fill. When the main task ends, these are cancelled and their frames freed before gRPC is
done with them, which may crash the process.
"""

import asyncio
import types
from collections import defaultdict
from collections.abc import Coroutine, Generator
from typing import Any

MAIN = "AioServer._server_main_loop"
"""The name of the coroutine that takes a listener's calls."""
_REQUESTS = frozenset({"AioServer._request_call", "AioServer._request_registered_call"})
_CALL = "_schedule_rpc_coro"
_Request = Coroutine[Any, Any, Any]


class MainTasks:
    """A task factory that knows the last main task, and holds what a main task holds no longer when it has ended.

    That are the frames of its requests, and the tasks of its calls.
    """

    def __init__(self) -> None:
        self.last: asyncio.Task[Any] | None = None
        """The main task of the listener that was started last."""
        self._calls: set[asyncio.Task[Any]] = set()
        self._dropped: defaultdict[asyncio.Task[Any] | None, list[_Request]] = defaultdict(list)

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, as `asyncio.AbstractEventLoop.set_task_factory` has it."""
        name = getattr(coroutine, "__qualname__", "")
        if name in _REQUESTS:
            coroutine = _keep(coroutine, self._dropped[asyncio.current_task()])
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if name == MAIN:
            self.last = task
        elif name == _CALL:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return task

    def take_dropped(self, main_task: asyncio.Task[Any]) -> list[_Request]:
        """What a main task dropped; to be held until gRPC has shut its listener down."""
        return self._dropped.pop(main_task, [])


async def _keep(request: _Request, dropped: list[_Request]) -> Any:
    return await _drive(request, dropped)


@types.coroutine
def _drive(request: _Request, dropped: list[_Request]) -> Generator[Any, Any, Any]:
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
