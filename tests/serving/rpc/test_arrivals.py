"""Requests that do not arrive: what they hold, for how long, and who waits for them."""

import asyncio

import pytest

from bgan.clients import SamplingClient
from bgan.serving.errors import RequestLateError
from bgan.serving.rpc import arrivals as module
from bgan.serving.rpc.arrivals import MAX_ARRIVING, Arrivals
from tests.kit.cli import bgan
from tests.kit.http2 import Http2Connection, message
from tests.kit.servers import server
from tests.kit.waiting import eventually

SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
_UNREAD_BYTES = 64 * 1024
_BODY = message(bytes(4_000_000))[:-1]


def _begin(connection, count):
    """Calls whose requests lack their last byte; returns how many bytes of them were taken."""
    sent = 0
    for stream in range(1, 2 * count, 2):
        connection.call(stream, SAMPLE)
        sent += connection.send(stream, _BODY, seconds=0.1)
    return sent


def test_unfinished_requests_are_bounded_in_bytes_and_time(small_models):
    """What one caller can hold of requests: SECURITY.md names the figure."""
    with server(small_models, "--stalled-write-seconds", 3) as process, Http2Connection(process.port) as stranger:
        before = process.resident_mib()
        calls = 2 * MAX_ARRIVING
        _begin(stranger, calls)
        assert process.resident_mib() - before < 1.6 * MAX_ARRIVING * 4
        with SamplingClient(process.target) as client:  # another connection of the same address waits for none
            assert len(next(client.sample_binary_images(image_count=1))) == 1
        eventually(lambda: len(stranger.ended) == calls)
        assert not stranger.is_closed
        assert "RESOURCE_EXHAUSTED" in process.output()


def test_a_stranger_is_refused_before_his_request_arrives(small_models, tmp_path):
    assert bgan("token", "create", "alice", "--tokens", tmp_path / "tokens.toml").returncode == 0
    with (
        server(small_models, "--tokens", tmp_path / "tokens.toml") as process,
        Http2Connection(process.port) as stranger,
    ):
        assert _begin(stranger, 3) <= 3 * _UNREAD_BYTES
        eventually(lambda: stranger.ended == {1, 3, 5})
        assert process.output().count("UNAUTHENTICATED") == 3


class _Unfinished:
    """A call whose request never comes."""

    def __init__(self):
        self.began = asyncio.Event()

    async def read(self):
        self.began.set()
        await asyncio.Event().wait()


class _Whole:
    async def read(self):
        return b"whole"


def test_who_holds_all_slots_gives_one_up_to_another_connection(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_IF_OTHERS_WAIT", 0.0)

    async def receive():
        arrivals, unfinished = Arrivals(3600), [_Unfinished() for _ in range(MAX_ARRIVING)]
        holding = [asyncio.create_task(arrivals.receive(call, "a")) for call in unfinished]
        await asyncio.gather(*[call.began.wait() for call in unfinished])
        assert await arrivals.receive(_Whole(), "b") == b"whole"
        with pytest.raises(RequestLateError):
            await holding.pop(0)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        assert arrivals._free == MAX_ARRIVING

    asyncio.run(receive())


def test_connections_have_turns_for_slots(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_IF_OTHERS_WAIT", 3600.0)

    async def receive():
        arrivals, unfinished = Arrivals(3600), [_Unfinished() for _ in range(MAX_ARRIVING)]
        holding = [asyncio.create_task(arrivals.receive(call, "a")) for call in unfinished]
        await asyncio.gather(*[call.began.wait() for call in unfinished])
        order = []

        async def wait(connection):
            await arrivals.receive(_Whole(), connection)
            order.append(connection)

        waiting = [asyncio.create_task(wait(connection)) for connection in "aaaab"]
        await asyncio.sleep(0)
        holding[0].cancel()
        await asyncio.gather(*waiting)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        return order

    assert asyncio.run(receive()) == ["a", "b", "a", "a", "a"]
