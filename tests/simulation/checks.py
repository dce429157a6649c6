"""200 schedules of faults hold, a seed replays its trace, and the simulation sees a product that is broken."""

import asyncio
import errno
import signal
import time
from itertools import islice
from pathlib import Path

import pytest

from bgan.clients._stream.shards import Shards
from bgan.serving.rpc.admission import Admission
from bgan.serving.security.auth import Quota
from bgan.serving.security.tokens import Token
from bgan.serving.security.watched_files import WatchedFiles
from bgan.serving.server.supervisor import _Pool

from .disk import ROOT, Disk
from .scenario import simulate
from .schedule import KINDS, draw
from .world import World, collected

SEEDS = 200
_AT_ONCE = 20


def _take_one_too_few(take):
    def broken(self):
        before, shard = self._cut_index, take(self)
        self._cut_index += before != self._cut_index < self._request.end_index  # one image is in no shard
        return shard

    return broken


async def _take_a_slot_that_is_not_free(admission, caller):
    admission._slot_count += 1


@pytest.mark.parametrize("first", range(0, SEEDS, _AT_ONCE))
def test_every_schedule_holds(first):
    found = [str(outcome) for seed in range(first, first + _AT_ONCE) if (outcome := simulate(seed)).breaches]
    assert not found, "\n".join(found)


def test_a_seed_gives_the_same_trace_again():
    digests = [simulate(seed).digest for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("kinds", "owner", "name", "broken", "expected"),
    [
        (KINDS, Quota, "take", lambda *_: None, "beyond the quota"),
        ({"revoke", "revoke torn"}, WatchedFiles, "poll", lambda _: False, "to a revoked token"),
        (KINDS, Token, "has_expired", lambda _: False, "to an expired token"),
        (KINDS, Shards, "take", _take_one_too_few(Shards.take), "images from"),
        ({"unread streams"}, Admission, "_wait", _take_a_slot_that_is_not_free, "runs 5 calls"),
        ({"kill"}, _Pool, "_keep_alive", lambda *_: asyncio.sleep(1e6), "processes listen, not"),
    ],
)
def test_a_broken_product_is_found(monkeypatch, kinds, owner, name, broken, expected):
    monkeypatch.setattr(owner, name, broken)
    seeds = (seed for seed in range(1000) if any(fault.kind in kinds for fault in draw(seed).faults))
    assert any(expected in breach for seed in islice(seeds, 20) for breach in simulate(seed).breaches)


def test_time_passes_at_once_and_in_order():
    world, seen = World(1), []

    async def main():
        asyncio.get_running_loop().call_later(7200, seen.append, "later")
        await asyncio.sleep(3600)
        seen.append(time.monotonic())
        await asyncio.sleep(3600)

    with collected():
        world.run(main)
    assert seen == [pytest.approx(4600), "later"]


def test_a_stopped_process_runs_nothing_until_it_continues():
    world, seen = World(1), []

    async def count():
        while True:
            seen.append(world.now)
            await asyncio.sleep(1)

    async def main():
        process = world.process("it", count)
        await asyncio.sleep(10)
        process.send_signal(signal.SIGSTOP)
        stopped = len(seen)
        await asyncio.sleep(100)
        assert len(seen) == stopped
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert len(seen) == stopped + 1
        process.send_signal(signal.SIGKILL)
        await asyncio.sleep(10)
        assert len(seen) == stopped + 1
        assert process.returncode == -signal.SIGKILL

    with collected():
        world.run(main)


def test_the_disk_fails_as_it_is_told():
    disk = Disk(lambda: 5 * 10**9)
    path = Path(ROOT, "host", "folder", "file")
    disk.write(path, b"whole")
    disk.room["host"] = 3
    with disk.mounted():
        assert (path.read_bytes(), path.stat().st_mtime, list(path.parent.iterdir())) == (b"whole", 5, [path])
        with pytest.raises(OSError, match="No space left"):
            disk.write(path, b"torn", in_place=True)
        assert path.read_text() == "tor"
        disk.fails = lambda _: errno.EIO
        with pytest.raises(OSError, match="Input/output error"):
            path.stat()
    assert not Path(ROOT).exists()
