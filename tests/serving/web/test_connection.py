"""What is allowed on a connection of HTTP, with a real socket in this process and times that are short."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from bgan.serving.config.settings import ServerSettings
from bgan.serving.server.ports import bound_socket
from bgan.serving.web import connection
from bgan.serving.web.listener import WebListener
from tests.kit.servers import server
from tests.kit.waiting import eventually

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
ANSWER = b"ok"


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": ANSWER})


@asynccontextmanager
async def _listening(app=_app, *, most=100, **options):
    listener = WebListener(app, ServerSettings(http_port=0, **options), None, max_connections=most)
    port = await listener.start(bound_socket("127.0.0.1", 0))
    try:
        yield port
    finally:
        await listener.stop(0)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        REQUEST[:-2] + b"a: b\r\n",
        REQUEST + b"GET / HT",
        REQUEST * 2 + REQUEST[:-2],
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_a_request_that_does_not_arrive_in_time_ends_its_connection(monkeypatch, sent):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    async with _listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(30):
            answer = b""
            with suppress(ConnectionResetError):
                while more := await reader.read(1000):
                    answer += more
        whole = sent.count(REQUEST) if sent.startswith(b"GET") else 1  # an unfinished body is not waited for
        assert answer.count(ANSWER) == (whole if sent else 0)
        writer.close()


async def test_a_body_that_nobody_reads_does_not_keep_a_connection(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    async with _listening() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(30):
                while True:
                    writer.write(b"3\r\nabc\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


async def test_an_answer_that_nobody_takes_does_not_keep_a_connection():
    """Also one of no call, such as that of CORS, which has no other limit."""
    ended = asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(2**25), "more_body": True})
        await scope["state"]["connection"].flow.drain()
        ended.set_result(scope["state"]["connection"].cycle.disconnected)

    async with _listening(app, stalled_write_seconds=0.05) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(REQUEST)
        async with asyncio.timeout(30):
            assert await ended is True
        writer.close()


async def test_a_connection_that_waits_between_requests_is_kept(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    async with _listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):
                assert await silent.read() == b""  # its time is over, and the other's would be too
        writer.write(REQUEST)
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200")
        for each in (writer, other):
            each.close()


async def test_the_end_waits_for_none_who_stand_still():
    """Readers who take nothing, requests that do not arrive, and silence."""
    writing = []

    async def app(scope, receive, send):
        if scope["method"] == "POST":
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        writing.append(scope)
        await send({"type": "http.response.body", "body": bytes(2**25), "more_body": True})
        await scope["state"]["connection"].flow.drain()

    post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    async with _listening(app) as port, asyncio.timeout(30):
        pairs = [await asyncio.open_connection("127.0.0.1", port, limit=1000) for _ in range(4)]
        for (_, writer), sent in zip(pairs, (REQUEST, post, post[:30], b""), strict=True):
            writer.write(sent)
        while len(writing) < 2:
            await asyncio.sleep(0)
    # It has ended, and with it all connections.
    async with asyncio.timeout(30):
        for reader, writer in pairs:
            with suppress(ConnectionResetError):
                while await reader.read(2**20):
                    pass
            writer.close()


async def test_more_connections_than_may_be_are_closed_at_once():
    async with _listening(most=2) as port:
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        for reader, other in pairs:
            other.write(REQUEST)
            assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200")
        for other in (writer, *(each for _, each in pairs)):
            other.close()


def test_idle_connections_of_both_ports_make_room_together(small_models):
    options = "--http-port", 0, "--max-connections", 16, "--max-connection-age-seconds", 0.001
    with server(small_models, *options) as process:
        host, port = process.http.removeprefix("http://").split(":")
        addresses = (host, int(port)), (host, process.port)
        idle = [socket.create_connection(addresses[number % 2], 30) for number in range(60)]

        def are_few():
            return sum(_is_open(each) for each in idle) <= 16

        eventually(are_few)
        answer = httpx.get(process.http + "/v1/models/sbn/images?seed=1")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"  # it is older than a connection may be
        assert "connections beyond the bounds" in process.output()
        for each in idle:
            each.close()


def _is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(65536) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_body_that_does_not_arrive_is_not_waited_for(small_models):
    with server(small_models, "--http-port", 0, "--stalled-write-seconds", 1) as process:
        host, port = process.http.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            head = b"POST /v2/models/sbn/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
            connection.sendall(head)
            answer = connection.recv(65536)
            while b"}" not in answer:
                answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"the request did not arrive whole within 1 s" in answer
