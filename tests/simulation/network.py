"""The part of grpc.aio that bgan uses, over a network of which delay, loss, partitions and windows are simulated.

Messages are bytes when they cross. A message is one callback in its receiver's process, so a stopped process
receives nothing, and a dead one's peers hear of it as from a kernel.
"""

import asyncio
import math
from collections import deque
from contextvars import copy_context

import grpc
from grpc import StatusCode

from .loop import PROCESS

WINDOW_BYTES = 3_000  # a few batches of the small images here
_CONNECT_SECONDS = 5.0
_CLOSED = StatusCode.UNAVAILABLE, "Socket closed"


class Network:
    """Who listens where, and how messages travel. Hosts are the ports of 127.0.0.1."""

    def __init__(self, loop, note):
        self.loop = loop
        self.note = note
        self.listening = {}
        """The servers by their ports."""
        self.connections = []
        self.slowness = {}
        """By port, the longest delay of a message in seconds, where it is not the usual one."""
        self.cut = set()
        """(port, direction), where nothing passes: "in" is to the server, "out" from it."""
        self.on_write = lambda context, data: None
        """Called when a server sends a message."""
        self.on_failure = lambda method, error: None
        """Called when a handler raises what grpc.aio answers with UNKNOWN."""

    def server(self, *arguments, options=(), **others):
        """grpc.aio.server."""
        return Server(self, dict(options or ()))

    def insecure_channel(self, target, options=()):
        """grpc.aio.insecure_channel."""
        return Channel(self, target, dict(options or ()))

    def delay(self, port):
        return self.loop.rng.uniform(0.0001, self.slowness.get(port, 0.003))

    def heal(self, port, direction):
        self.cut.discard((port, direction))
        for connection in self.connections:
            for link in (connection.to_server, connection.to_client):
                link.flush()

    def reset(self, port):
        """Every connection to a host is lost."""
        for connection in [each for each in self.connections if each.port == port]:
            connection.lose((StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"))

    def accepted_by(self, process):
        """The open connections of a process."""
        accepted = [each for each in self.connections if each.is_accepted_by(process)]
        return {each.peer: each for each in accepted}

    def listeners(self, port):
        return [each for each in self.listening.get(port, ()) if each.process.returncode is None]


class _Link:
    """One direction of a connection: messages arrive in their order."""

    def __init__(self, network, port, direction):
        self._network = network
        self._where = (port, direction)
        self._held = []
        self._last = 0.0
        self.context = None
        """Of the receiving process."""

    def send(self, function, *arguments):
        if self._where in self._network.cut:
            self._held.append((function, arguments))
            return
        self._last = max(
            math.nextafter(self._last, math.inf), self._network.loop.now + self._network.delay(self._where[0])
        )
        self._network.loop.call_at(self._last, function, *arguments, context=self.context)

    def flush(self):
        if self._where not in self._network.cut:
            held, self._held = self._held, []
            for function, arguments in held:
                self.send(function, *arguments)


class Connection:
    """A connection between a channel and a server."""

    def __init__(self, network, port, options, server):
        self.network, self.port = network, port
        self.to_server, self.to_client = _Link(network, port, "in"), _Link(network, port, "out")
        self.client, self.client_context = PROCESS.get(None), copy_context()
        self.to_client.context = self.client_context
        self.server = server
        self.is_usable = True
        """Whether the client's side may begin calls on it."""
        self.calls = set()  # of the client's side, and of the server's
        self.handlers = {}
        number = sum(1 for each in network.connections if each.port == port)
        self.peer = f"ipv4:127.0.0.1:{40_000 + number}"
        self._is_accepted = False
        self._is_open = {"client": True, "server": True}
        self._ready = network.loop.create_future()
        self._keepalive = options.get("grpc.keepalive_time_ms", 2**31) / 1000
        self._patience = options.get("grpc.http2.ping_timeout_ms", 60_000) / 1000
        self._ping = None
        network.connections.append(self)

    async def open(self):
        """Shake hands. Raises AioRpcError."""
        self.to_server.context = copy_context()  # until a server is found it is the kernel's
        self.to_server.send(self._arrive)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self._lose_at_client((StatusCode.UNAVAILABLE, "failed to connect to all addresses; timed out"))
        if not self.is_usable:
            raise self.error
        if self.client is not None:
            self.client.on_end.append(lambda: self.to_server.send(self._lose_at_server))

    def _arrive(self):
        servers = self.network.listeners(self.port)
        if not servers:
            self.to_client.send(self._lose_at_client, (StatusCode.UNAVAILABLE, "Connection refused"))
            return
        self.server = self.server or self.network.loop.rng.choice(servers)
        self.to_server.context = self.server.context
        self.server.process.call(self._accept)
        self.server.process.on_end.append(lambda: self.to_client.send(self._lose_at_client, _CLOSED))

    def _accept(self):
        if self.server.is_stopping:
            self.to_client.send(self._lose_at_client, _CLOSED)
        else:
            self._is_accepted = True
            self.server.connections.add(self)
            keepalive = self.server.options.get("grpc.keepalive_time_ms", 2**31) / 1000
            self.network.loop.call_later(keepalive, self._ping_client, keepalive)
            self.to_client.send(self._be_ready)

    def _be_ready(self):
        if not self._ready.done():
            self._ready.set_result(None)

    def lose(self, status):
        """Both sides' kernels say that it is gone."""
        self.network.loop.call_soon(self._lose_at_client, status, context=self.client_context)
        if self._is_accepted:
            self.server.process.call(self._lose_at_server)

    def is_accepted_by(self, process):
        return self._is_accepted and self._is_open["server"] and self.server.process is process

    def go_away(self):
        """The server's side takes no more calls on it."""
        self.to_client.send(self._note_going)

    def close_at_server(self):
        self._lose_at_server()
        self.to_client.send(self._lose_at_client, _CLOSED)

    def close_at_client(self):
        self._lose_at_client((StatusCode.CANCELLED, "Channel closed!"))
        self.to_server.send(self._lose_at_server)

    def watch(self):
        """Ping the server as long as there are calls, once there is one."""
        if self._ping is None and self.calls:
            self._ping = self.network.loop.call_later(self._keepalive, self._ping_server)

    def _note_going(self):
        self.is_usable = False

    def _lose_at_client(self, status):
        if not self._is_open["client"]:
            return
        self._is_open["client"] = self.is_usable = False
        self.error = grpc.aio.AioRpcError(status[0], details=status[1])
        self._be_ready()
        for call in sorted(self.calls, key=lambda call: call.number):
            call.finish(status, ())

    def _lose_at_server(self):
        if not self._is_open["server"]:
            return
        self._is_open["server"] = False
        if self._is_accepted:
            self.server.connections.discard(self)
        for handler in list(self.handlers.values()):
            handler.cancel()

    def _ping_server(self):
        self._ping = None
        if self.calls and self._is_open["client"]:
            timer = self.network.loop.call_later(self._patience, self._lose_at_client, _timed_out())
            self.to_server.send(self.to_client.send, timer.cancel)
            self.watch()

    def _ping_client(self, keepalive):
        if self._is_open["server"]:
            patience = self.server.options.get("grpc.http2.ping_timeout_ms", 60_000) / 1000
            timer = self.network.loop.call_later(patience, self._lose_at_server)
            self.to_client.send(self.to_server.send, timer.cancel)
            self.network.loop.call_later(keepalive, self._ping_client, keepalive)


def _timed_out():
    return StatusCode.UNAVAILABLE, "ping timeout"


class Channel:
    """grpc.aio.Channel."""

    def __init__(self, network, target, options, *, server=None):
        """`server`: the one to connect to, of those that listen; None: any."""
        self.network, self.options, self.server = network, options, server
        self.port = int(target.rpartition(":")[2])
        self._connection = None
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._calls = 0

    def unary_unary(self, path, request_serializer=None, response_deserializer=None, **options):
        return lambda request, **given: self._call(path, request_serializer, response_deserializer, request, given)

    unary_stream = unary_unary

    def _call(self, path, serialize, deserialize, request, given):
        if self._is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        self._calls += 1
        data = request if serialize is None or request is None else serialize(request)
        return ClientCall(self, path, data, deserialize or bytes, self._calls, **given)

    async def connect(self):
        """A connection that takes calls. Raises AioRpcError."""
        async with self._connecting:
            if self._connection is None or not self._connection.is_usable:
                self._connection = Connection(self.network, self.port, self.options, self.server)
                await self._connection.open()
        return self._connection

    async def close(self, grace=None):
        self._is_closed = True
        if self._connection is not None:
            self._connection.close_at_client()


class ClientCall:
    """A call, as grpc.aio's clients have it: an awaitable, or an asynchronous iterator."""

    def __init__(
        self, channel, path, data, deserialize, number, *, timeout=None, metadata=None, window=WINDOW_BYTES
    ):
        self.number = number
        self.window = window
        self._channel, self._path, self._data, self._deserialize = channel, path, data, deserialize
        self._metadata = tuple(metadata or ())
        self._messages = deque()
        self._status = None
        self._changed = None  # a future, while somebody waits
        self._connection = None
        loop = channel.network.loop
        self._deadline = None if timeout is None else loop.now + timeout
        self._timer = None
        if timeout is not None:
            self._timer = loop.call_at(max(self._deadline, loop.now), self._pass_deadline)
        self._begun = loop.create_task(self._begin())

    def cancel(self):
        if self._status is not None:
            return False
        self._end_early((StatusCode.CANCELLED, "Locally cancelled by application!"))
        return True

    def done(self):
        return self._status is not None

    async def code(self):
        while self._status is None:
            await self._wait()
        return self._status[0]

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self._messages:
            if self._status is not None:
                if self._status[0] == StatusCode.OK:
                    raise StopAsyncIteration
                self._raise()
            await self._wait()
        data = self._messages.popleft()
        if self._connection is not None:
            self._connection.to_server.send(self._acknowledge, len(data))
        return self._deserialize(data)

    def __await__(self):
        return self._answer().__await__()

    async def _answer(self):
        answers = [answer async for answer in self]
        return answers[0]

    def receive(self, data):
        """A message arrived."""
        if self._status is None:
            self._messages.append(data)
            self._wake()

    def finish(self, status, trailing):
        """The call ended as its status says; what was received can still be read, unless the connection broke."""
        if self._status is None:
            self._status = (*status, trailing)
            if self._connection is not None:
                self._connection.calls.discard(self)
            if status[0] != StatusCode.OK and self._channel.network.loop.rng.random() < 0.5:
                self._messages.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._wake()

    async def _begin(self):
        try:
            connection = await self._channel.connect()
        except grpc.aio.AioRpcError as error:
            self.finish((error.code(), error.details()), ())
            return
        if self._status is not None:
            return
        self._connection = connection
        connection.calls.add(self)
        connection.watch()
        left = None if self._deadline is None else self._deadline - self._channel.network.loop.now
        connection.to_server.send(
            connection.server.take, connection, self, self._path, self._data, self._metadata, left
        )

    def _acknowledge(self, size):
        if (context := self._connection.handlers.get(self)) is not None:
            context.acknowledge(size)

    def _pass_deadline(self):
        if self._status is None:
            self._end_early((StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _end_early(self, status):
        connection = self._connection
        self.finish(status, ())
        self._messages.clear()
        if connection is not None:
            connection.to_server.send(self._cancel_handler)

    def _cancel_handler(self):
        if (context := self._connection.handlers.get(self)) is not None:
            context.cancel()

    def _raise(self):
        code, text, trailing = self._status
        if code == StatusCode.CANCELLED and "Locally" in text:
            raise asyncio.CancelledError
        raise grpc.aio.AioRpcError(code, None, trailing, details=text)

    async def _wait(self):
        self._changed = self._channel.network.loop.create_future()
        try:
            await self._changed
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _wake(self):
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


class AioServer:
    """The task that takes a server's calls has the name that it has in grpc.aio."""

    def __init__(self, end):
        self._end = end

    async def _server_main_loop(self):
        await self._end


class MainTasks:
    """As `serving.server.main_tasks`, which knows the tasks of the real grpc.aio."""

    async def start_door(self, server, calls):
        await server.start()
        return server.accepting

    start_desk = start_door

    def take_dropped(self, main_task):
        return None


class Server:
    """grpc.aio.Server."""

    def __init__(self, network, options):
        self.network, self.options = network, options
        self.process, self.context = PROCESS.get(), copy_context()
        self.connections = set()
        self.is_stopping = False
        self.contexts = {}  # of the calls that run, in their order
        self._ports = []
        self._handlers = {}
        self.accepting = None
        self._failure = network.loop.create_future()

    def add_registered_method_handlers(self, service, handlers):
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def add_generic_rpc_handlers(self, handlers):
        for each in handlers:
            self._handlers |= each._method_handlers

    def add_insecure_port(self, address):
        self._ports.append(int(address.rpartition(":")[2]))
        return self._ports[-1]

    async def start(self):
        self.accepting = self.network.loop.create_task(AioServer(self._failure)._server_main_loop())
        self.accepting.add_done_callback(lambda _: self._close_ports())
        await asyncio.sleep(0)
        for port in self._ports:
            self.network.listening.setdefault(port, []).append(self)

    def fail(self):
        """Take no more calls, because of an error."""
        if not self._failure.done():
            self._failure.set_exception(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))

    async def stop(self, grace):
        """Take no more calls, and cancel those that run after the grace."""
        self.is_stopping = True
        self._close_ports()
        if self.accepting is not None:
            self.accepting.cancel()
        for connection in self._connections():
            connection.go_away()
        tasks = [context.task for context in self.contexts]
        if tasks and grace:
            await asyncio.wait(tasks, timeout=grace)
        for context in list(self.contexts):
            context.cancel()
        await asyncio.sleep(0)
        for connection in self._connections():
            connection.close_at_server()

    def take(self, connection, call, path, data, metadata, seconds):
        """A call arrived."""
        if self.is_stopping or self not in self.network.listening.get(connection.port, ()):
            status = StatusCode.UNAVAILABLE, "the server is shutting down"
        elif path not in self._handlers:
            status = StatusCode.UNIMPLEMENTED, "Method not found!"
        else:
            Context(self, connection, call, self._handlers[path], path, metadata, seconds).begin(data)
            return
        connection.to_client.send(call.finish, status, ())

    def _close_ports(self):
        for port in self._ports:
            if self in self.network.listening.get(port, ()):
                self.network.listening[port].remove(self)

    def _connections(self):
        return sorted(self.connections, key=lambda connection: connection.peer)


class Context:
    """grpc.aio.ServicerContext."""

    def __init__(self, server, connection, call, handler, path, metadata, seconds):
        self.server, self.path, self.metadata = server, path, metadata
        self._connection, self._call, self._handler = connection, call, handler
        self._deadline = None if seconds is None else server.network.loop.now + seconds
        self._trailing = ()
        self._status = None
        self._unread = 0
        self._room = None  # a future, while a write waits
        self._data, self._has_read = None, False
        self._timer = None
        self.is_ending = False  # its method has returned its last message

    def begin(self, data):
        loop = self.server.network.loop
        self._connection.handlers[self._call] = self
        self.server.contexts[self] = None
        if self._deadline is not None:
            self._timer = loop.call_at(max(self._deadline, loop.now), self.cancel)
        self._data = data
        self.task = loop.create_task(self._run())

    def cancel(self):
        """The call is no more: its handler is cancelled."""
        if self._status is None:
            self._status = StatusCode.CANCELLED
            self.task.cancel()

    def acknowledge(self, size):
        self._unread -= size
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def peer(self):
        return self._connection.peer

    def invocation_metadata(self):
        return self.metadata

    def time_remaining(self):
        return None if self._deadline is None else max(0.0, self._deadline - self.server.network.loop.now)

    async def send_initial_metadata(self, metadata):
        pass

    def set_trailing_metadata(self, trailing):
        self._trailing = tuple(trailing)

    def code(self):
        return self._status

    def cancelled(self):
        return self._status == StatusCode.CANCELLED

    def done(self):
        return self._status is not None

    async def write(self, data):
        if self._status is not None:
            raise asyncio.CancelledError
        self.server.network.on_write(self, data)
        self._unread += len(data)
        self._connection.to_client.send(self._call.receive, data)
        while self._unread > self._call.window:
            self._room = self.server.network.loop.create_future()
            await self._room
        await asyncio.sleep(0)

    async def abort(self, code, details="", trailing_metadata=()):
        if self._status is None:
            self._finish(code, details, (*self._trailing, *trailing_metadata))
        raise grpc.aio.AbortError("Locally aborted.")

    async def read(self):
        """The next message of the caller, or grpc.aio.EOF; one that is None never arrives."""
        if self._has_read:
            return grpc.aio.EOF
        self._has_read = True
        if self._data is None:
            await self.server.network.loop.create_future()
        parse = self._handler.request_deserializer
        return self._data if parse is None else parse(self._data)

    async def _requests(self):
        while (request := await self.read()) is not grpc.aio.EOF:
            yield request

    async def _run(self):
        handler = self._handler
        kinds = (
            "stream" if handler.request_streaming else "unary",
            "stream" if handler.response_streaming else "unary",
        )
        method = getattr(handler, "_".join(kinds))
        try:
            answer = await method(self._requests() if handler.request_streaming else await self.read(), self)
            if not handler.response_streaming and self._status is None:
                self.is_ending = True
                await self.write(answer)
            if self._status is None:
                self._finish(StatusCode.OK, "", self._trailing)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            self._finish(StatusCode.CANCELLED, "CANCELLED", ())
        except Exception as error:
            self.server.network.on_failure(self.path, error)
            self._finish(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}", ())
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.server.contexts.pop(self, None)
            self._connection.handlers.pop(self._call, None)

    def _finish(self, code, text, trailing):
        self._status = code
        self._connection.to_client.send(self._call.finish, (code, text), trailing)
