"""The faults of a schedule: each is an asynchronous context that lasts as long as it."""

import asyncio
import errno
import os
import random
import signal
from contextlib import asynccontextmanager, suppress

from bgan.v1.sampling_pb2 import SampleBinaryImagesRequest

from .disk import ERRORS
from .hosts import secret, token_file
from .reference import NEW

_SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
_WATCH = "/grpc.health.v1.Health/Watch"


@asynccontextmanager
async def _reset(scenario, host, fault):
    scenario.world.network.reset(host.port)
    yield


def _cutting(*directions):
    @asynccontextmanager
    async def cut(scenario, host, fault):
        network = scenario.world.network
        network.cut |= {(host.port, direction) for direction in directions}
        yield
        for direction in directions:
            network.heal(host.port, direction)

    return cut


@asynccontextmanager
async def _slow(scenario, host, fault):
    scenario.world.network.slowness[host.port] = 2 * fault.draw
    yield
    scenario.world.network.slowness.pop(host.port, None)


@asynccontextmanager
async def _kill(scenario, host, fault):
    host.some_server(fault.draw).send_signal(signal.SIGKILL)
    yield


@asynccontextmanager
async def _terminate(scenario, host, fault):
    host.process.send_signal(signal.SIGTERM)
    yield


def _pausing(choose):
    @asynccontextmanager
    async def pause(scenario, host, fault):
        process = choose(scenario, host, fault.draw)
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)

    return pause


@asynccontextmanager
async def _no_processes(scenario, host, fault):
    """Nothing can be started, and a worker dies."""
    number = errno.EAGAIN if fault.draw < 0.5 else errno.ENOMEM
    scenario.refused[host.port] = OSError(number, os.strerror(number))
    if host.workers:
        host.some_server(fault.draw).send_signal(signal.SIGKILL)
    yield
    scenario.refused.pop(host.port, None)


@asynccontextmanager
async def _no_listener(scenario, host, fault):
    """What takes the calls of one listener ends, as a header that is no UTF-8 does to grpc.aio."""
    if found := scenario.world.network.listeners(host.port):
        found[int(fault.draw * len(found))].fail()
    yield


@asynccontextmanager
async def _errors(scenario, host, fault):
    number = ERRORS[int(fault.draw * len(ERRORS))]
    scenario.failing[host.port] = number, random.Random(fault.draw), 0.3 if fault.draw % 0.1 < 0.05 else 1.0
    yield
    scenario.failing.pop(host.port, None)


@asynccontextmanager
async def _hang(scenario, host, fault):
    scenario.hanging[host.port] = scenario.world.now + fault.seconds
    yield


@asynccontextmanager
async def _full_disk(scenario, host, fault):
    """What is written meanwhile is cut, or not written at all."""
    scenario.world.disk.room[str(host.port)] = int(fault.draw * len(NEW))
    yield
    scenario.world.disk.room.pop(str(host.port), None)


async def _write(scenario, path, content, *, torn_seconds=None):
    """As somebody does who tries until it is there; torn: in place, in two parts."""
    parts = [content] if torn_seconds is None else [content[: len(content) // 2], content]
    for part in parts:
        while True:
            try:
                scenario.world.disk.write(path, part, in_place=torn_seconds is not None)
                break
            except OSError:
                await asyncio.sleep(1.0)
        if part is not content:
            await asyncio.sleep(torn_seconds)


def _deploying(*, torn, name):
    @asynccontextmanager
    async def deploy(scenario, host, fault):
        for each in scenario.hosts.values():
            path = each.model.replace("1.onnx", name)
            scenario.spawn(_deploy(scenario, each, path, fault, 0.4 * fault.seconds if torn else None))
        yield

    return deploy


async def _deploy(scenario, host, path, fault, torn_seconds):
    await asyncio.sleep(0 if host.port == fault.port else fault.draw)
    await _write(scenario, path, NEW, torn_seconds=torn_seconds)
    host.highest = NEW
    for each in scenario.hosts.values():
        scenario.disturb(each, scenario.world.now, fault.kind)


def _revoking(*, torn):
    @asynccontextmanager
    async def revoke(scenario, host, fault):
        for each in scenario.hosts.values():
            scenario.spawn(_revoke(scenario, each, 0.4 if torn else None))
        yield

    return revoke


async def _revoke(scenario, host, torn_seconds):
    content = token_file(host.expiry, without=("carol",))
    await _write(scenario, host.tokens, content, torn_seconds=torn_seconds)
    scenario.world.note("revoked at", host.port)
    host.revoked_at = host.revoked_at or scenario.world.now


def _hostile(attack):
    @asynccontextmanager
    async def attacking(scenario, host, fault):
        async def main():
            channel = scenario.world.network.insecure_channel(f"127.0.0.1:{host.port}")
            rng = random.Random(fault.draw)
            while True:
                with suppress(Exception, asyncio.CancelledError):
                    await attack(channel, rng)
                await asyncio.sleep(1.0)

        process = scenario.world.process("mallory", main)
        yield
        if fault.draw < 0.5:  # the others stay until the end
            process.send_signal(signal.SIGKILL)

    return attacking


def _open(channel, path, data, **options):
    metadata = (("authorization", f"Bearer {secret('mallory')}"),)
    return channel.unary_stream(path)(data, metadata=metadata, **options)


def _request(count):
    return SampleBinaryImagesRequest(image_count=count, seed=1).SerializeToString()


async def _unread_streams(channel, rng):
    calls = [_open(channel, _SAMPLE, _request(100_000), window=rng.choice((0, 3_000))) for _ in range(5)]
    await asyncio.gather(*[call.code() for call in calls])


async def _unread_watch(channel, rng):
    calls = [_open(channel, _WATCH, b"", window=0) for _ in range(3)]
    await asyncio.gather(*[call.code() for call in calls])


async def _no_request(channel, rng):
    """Headers without the message that they announce."""
    calls = [_open(channel, _SAMPLE, None) for _ in range(12)]
    await asyncio.gather(*[call.code() for call in calls])


async def _garbage(channel, rng):
    calls = [_open(channel, rng.choice((_SAMPLE, _WATCH, "/no.Such/Method")), rng.randbytes(20)) for _ in range(3)]
    await asyncio.gather(*[call.code() for call in calls])


async def _storm(channel, rng):
    for _ in range(10):
        call = _open(channel, _SAMPLE, _request(100))
        await asyncio.sleep(rng.choice((0.0, 0.001, 0.01)))
        call.cancel()


FAULTS = {
    "reset": _reset,
    "cut": _cutting("in", "out"),
    "cut in": _cutting("in"),
    "cut out": _cutting("out"),
    "slow": _slow,
    "kill": _kill,
    "terminate": _terminate,
    "pause server": _pausing(lambda scenario, host, draw: host.some_server(draw)),
    "pause supervisor": _pausing(lambda scenario, host, draw: host.process),
    "pause client": _pausing(lambda scenario, host, draw: scenario.users[int(draw * len(scenario.users))]),
    "no listener": _no_listener,
    "no processes": _no_processes,
    "errors": _errors,
    "hang": _hang,
    "full disk": _full_disk,
    "deploy": _deploying(torn=False, name="2.onnx"),
    "deploy torn": _deploying(torn=True, name="2.onnx"),
    "replace": _deploying(torn=False, name="1.onnx"),
    "revoke": _revoking(torn=False),
    "revoke torn": _revoking(torn=True),
    "unread streams": _hostile(_unread_streams),
    "unread watch": _hostile(_unread_watch),
    "no request": _hostile(_no_request),
    "garbage": _hostile(_garbage),
    "storm": _hostile(_storm),
}
