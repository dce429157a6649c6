"""A proxy that breaks connections, and what it takes to see that a stream survives them. All of it is real."""

import asyncio
import hashlib
import random
import socket
import struct
import threading
from contextlib import contextmanager, suppress

_FRAME_HEADER_BYTES = 9
_RST_STREAM, _DATA = 3, 0


class BreakingProxy:
    """Forwards connections to `port`, and resets each after as many bytes as `limits` says next.

    With `error_code`, it ends one stream with an HTTP/2 RST_STREAM of that code instead, after as many
    data frames, and leaves the connection as it is. The server sees it come from `source`.
    """

    def __init__(self, port, limits, *, error_code=None, source="127.0.0.1"):
        self.connections = 0
        self.bytes_passed = 0
        self._server_port = port
        self._limits = iter(limits)
        self._error_code = error_code
        self._source = source
        self._loop = asyncio.new_event_loop()
        self._writers = set()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,))
        self._thread.start()
        listening.wait()

    def close(self):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, listening):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(listening))
        self._loop.close()

    async def _serve(self, listening):
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        listening.set()
        await self._stopped.wait()
        # Only then may it close: a closed server drops, unclosed, what it accepted in the same turn of the loop.
        for listener in server.sockets:
            self._loop.remove_reader(listener)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.01)
        server.close()
        await asyncio.sleep(0)  # aborted transports close in the next turn of the loop

    async def _forward(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._pass_both_ways(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.remove(writer)

    async def _pass_both_ways(self, reader, writer):
        # To close at once, and drop what is pending, is what makes the kernel send RST.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        server_reader, server_writer = await asyncio.open_connection(
            "127.0.0.1", self._server_port, local_addr=(self._source, 0)
        )
        self._writers.add(server_writer)
        requests = asyncio.create_task(_pass(reader, server_writer))
        try:
            if self._error_code is None:
                self.bytes_passed += await _pass(server_reader, writer, next(self._limits))
            else:
                await self._pass_frames(server_reader, writer)
        finally:
            writer.transport.abort()
            server_writer.transport.abort()
            await requests
            self._writers.remove(server_writer)

    async def _pass_frames(self, reader, writer):
        frames_left = next(self._limits)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                header = await reader.readexactly(_FRAME_HEADER_BYTES)
                writer.write(header + await reader.readexactly(int.from_bytes(header[:3])))
                frames_left -= header[3] == _DATA
                if frames_left == 0:
                    frames_left = -1
                    reset = struct.pack(">I", 4)[1:] + bytes([_RST_STREAM, 0]) + header[5:]
                    writer.write(reset + struct.pack(">I", self._error_code))
                await writer.drain()


@contextmanager
def breaking_proxy(port, limits, **options):
    proxy = BreakingProxy(port, limits, **options)
    try:
        yield proxy
    finally:
        proxy.close()


def byte_counts(seed, most):
    """Random limits for a proxy, forever."""
    generator = random.Random(seed)
    while True:
        yield generator.randrange(most)


class Digest:
    """Of a stream: its images, and that they come in order."""

    def __init__(self, first_index=0):
        self.next_index = first_index
        self._sha = hashlib.sha256()

    def add(self, batch):
        assert batch.first_index == self.next_index
        self.next_index = batch.next_index
        self._sha.update(batch.packed_images)

    def hex(self):
        return self._sha.hexdigest()


def digest_of(batches, first_index=0):
    digest = Digest(first_index)
    for batch in batches:
        digest.add(batch)
    return digest.hex()


def resumed(caplog):
    """The warnings of tries after the first."""
    return [record for record in caplog.records if "trying again from image" in record.getMessage()]


async def _pass(reader, writer, limit=None):
    passed = 0
    with suppress(OSError):  # one side is gone, which is what this proxy is for
        while passed != limit and (data := await reader.read(4096)):
            data = data if limit is None else data[: limit - passed]
            passed += len(data)
            writer.write(data)
            await writer.drain()
    return passed
