"""The faults: each is a function that does one to running servers, checks what must hold, and says what it saw.

Raises AssertionError, or a SamplingError, where a promise is broken.
"""

import asyncio
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from bgan.clients import AsyncSamplingClient, RetryPolicy, SamplingClient
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.cli import BGAN
from tests.kit.servers import RestartingServer, ServerProcess, server

from .access import Access, Guard
from .bad_files import BAD_NAMES, bad_files, drop
from .load import CALL_SECONDS
from .machine import ON_SMALL_DISK, Clock, run_on_small_disk
from .metrics import scrape
from .reference import SEED, Reference
from .web import HttpClient, address_of, stranger

Request = sampling_pb2.SampleBinaryImagesRequest
Code = grpc.StatusCode
ONCE = RetryPolicy(attempts=1)
_SOON_SECONDS = 120
_OTHERS_AT_MOST = 40  # streams of the load and the fuzzer that may have a place at any time
_STALLED = ("bgan_rejected_total", "stalled_reader")
_SHOWN_AT_MOST = 1_000  # characters of a reason
_ENDS_OF_CANCELLED = {None, Code.CANCELLED, Code.RESOURCE_EXHAUSTED}


@dataclass
class Site:
    """Servers under load, and what is known of them."""

    steady: ServerProcess
    """Lives to the end; what it holds is watched. Has a metrics port."""
    fragile: RestartingServer
    """Has two workers; it and they are killed and started again."""
    folder: Path
    """The models of the first server, which may be changed."""
    fixed: tuple[str, ...]
    """Models that stay as they are, of both servers."""
    versions: dict[str, bytes]
    """Contents of the model `changing`, by revision."""
    reference: Reference
    work: Path
    """A folder for other files."""
    rng: random.Random
    guard: Guard
    """Of both servers."""
    scale: float = 1.0
    """How much of everything is done: 1 for all."""

    def some(self, count: int) -> int:
        """So many, or a part of it."""
        return max(2, round(count * self.scale))

    def access(self, process: ServerProcess | RestartingServer) -> Access:
        """What the faults' own callers need."""
        return self.guard.access(process.target, "faults")

    def client(self, process: ServerProcess | RestartingServer, connections: int = 1, **options) -> SamplingClient:
        """A client for a server, the default one but for `options`."""
        access = self.access(process)
        options = {"timeout_seconds": CALL_SECONDS, **access.client_options(), **options}
        return SamplingClient([access.target] * connections, **options)

    def check(self, process: ServerProcess | RestartingServer, model: str | None = None) -> None:
        """The server gives the right bits."""
        with self.client(process) as client:
            self.read(client, 50, model=model or self.rng.choice(self.fixed))

    def read(self, client, count: int, **options) -> None:
        """Read a stream that begins somewhere, and check every image."""
        first_index = self.reference.draw(self.rng, count)
        options = {"model": self.rng.choice(self.fixed), "timeout_seconds": CALL_SECONDS, **options}
        self.reference.read(client, count=count, first_index=first_index, **options)


def _soon(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + _SOON_SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what}: not after {_SOON_SECONDS} s"
        time.sleep(0.05)


# Processes that end.


def a_worker_is_killed(site: Site) -> str:
    """kill -9 of a worker in mid-stream: the client goes on, and another worker takes its place."""
    replaced = site.fragile.output().count("is replaced")
    victim = site.rng.choice(_children(site.fragile.pid))
    with site.client(site.fragile, 3) as client:
        site.read(
            client,
            site.some(3000),
            include_probabilities=True,
            when_open=lambda: os.kill(victim, signal.SIGKILL),
        )
    _soon("a worker in its place", lambda: site.fragile.output().count("is replaced") > replaced)
    site.check(site.fragile)
    return "no image lost"


def the_server_is_killed(site: Site) -> str:
    """kill -9 of a server with all its workers in mid-stream, and a new start on its port."""
    return _restarted(site, signal.SIGKILL, -signal.SIGKILL)


def the_server_is_stopped(site: Site) -> str:
    """SIGTERM in mid-stream, exit code 0, and a new start: the client loses and repeats no image."""
    return _restarted(site, signal.SIGTERM, 0)


def _restarted(site, number, expected):
    codes = []

    def restart():
        workers = _children(site.fragile.pid)
        codes.append(site.fragile.stop(number))
        _soon("the end of the workers", lambda: not any(map(_is_alive, workers)))
        site.fragile.start()

    with site.client(site.fragile) as client:
        site.read(client, site.some(3000), include_probabilities=True, batch_size=40, when_open=restart)
    site.check(site.fragile)
    assert codes == [expected], f"the server ended with {codes}"
    return "no image lost"


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Callers that misbehave.


def a_storm_of_cancels(site: Site) -> str:
    """1,000 calls cancelled at random moments: while they wait, compute, write, or after their end."""
    count, channels = site.some(1000), [site.access(site.steady).channel() for _ in range(4)]
    seeds = [site.rng.getrandbits(32) for _ in range(count)]
    with ThreadPoolExecutor(24) as pool:
        ends = Counter(pool.map(lambda seed: _cancelled(site, channels, random.Random(seed)), seeds))
    for channel in channels:
        channel.close()
    assert ends.keys() <= _ENDS_OF_CANCELLED, f"cancelled calls ended with {ends}"
    _soon("the places of cancelled calls are free", lambda: scrape(site.steady)["bgan_streams",] < _OTHERS_AT_MOST)
    site.check(site.steady)
    return f"{count} cancels, {count - ends[None]} of them before the end"


def _cancelled(site, channels, rng):
    """A call, cancelled; the code it ended with, None if its end came first."""
    alone = rng.random() < 0.05  # leaves with its connection
    access = site.access(site.steady)
    channel = access.channel() if alone else rng.choice(channels)
    request = Request(
        model=rng.choice(site.fixed),
        image_count=rng.choice((1, 16, 1000, 20_000)),
        seed=SEED,
        batch_size=rng.choice((0, 1, 50)),
        include_probabilities=rng.random() < 0.3,
    )
    call = sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(
        request, timeout=CALL_SECONDS, metadata=access.metadata
    )
    timer = threading.Timer(rng.choice((0, 0.001, 0.01, 0.1)) * rng.random(), call.cancel)
    timer.start()
    try:
        for place, _ in enumerate(call):
            if place == 5:
                call.cancel()
    except grpc.RpcError:
        return call.code()
    finally:
        timer.join()
        if alone:
            channel.close()
    return None


def many_streams_at_once(site: Site) -> str:
    """500 streams that are all open at the same time, each read to its end and checked."""
    count = site.some(500)
    at_work = asyncio.run(_streams(site, count))
    return f"{count} open at once, {at_work:.0f} at work in the server"


async def _streams(site, count):
    """The streams that the server was at when all of them had begun and none had been read to its end.

    That may be fewer, for one may lie in buffers as a whole, or more, since there is other load.
    """
    waiting, all_open, at_work = 0, asyncio.Event(), 0

    async def stream(client, model, first_index):
        nonlocal waiting
        next_index = first_index
        request = {"image_count": 400, "batch_size": 20, "include_probabilities": True, "model": model}
        async for batch in client.sample_binary_images(first_index=first_index, seed=SEED, **request):
            assert batch.first_index == next_index
            site.reference.check(batch)
            if next_index == first_index:
                waiting += 1
                await asyncio.wait_for(all_open.wait(), _SOON_SECONDS)
            next_index = batch.next_index
        assert next_index == first_index + 400

    async def look():
        nonlocal at_work
        while waiting < count:
            await asyncio.sleep(0.05)
        at_work = scrape(site.steady)["bgan_streams",]
        all_open.set()

    access = site.access(site.steady)
    options = {"timeout_seconds": 300, **access.client_options()}
    clients = [AsyncSamplingClient(access.target, **options) for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        for number in range(count):
            first_index = site.reference.draw(site.rng, 400)
            tasks.create_task(stream(clients[number % 5], site.rng.choice(site.fixed), first_index))
    for client in clients:
        await client.close()
    return at_work


def readers_stand_still(site: Site) -> str:
    """Streams that nobody reads are ended with UNAVAILABLE and their next index, while others go on."""
    count = site.some(20)
    channels = [site.access(site.steady).channel() for _ in range(count)]
    request = Request(
        model=site.fixed[0], image_count=20_000, seed=SEED, batch_size=200, include_probabilities=True
    )
    metadata = site.access(site.steady).metadata
    stubs = [sampling_pb2_grpc.SamplingServiceStub(each) for each in channels]
    calls = [stub.SampleBinaryImages(request, metadata=metadata) for stub in stubs]
    received = [next(call).image_count for call in calls]
    ended = scrape(site.steady)[_STALLED]
    with site.client(site.steady) as client:

        def are_ended():
            site.read(client, 100)
            return scrape(site.steady)[_STALLED] >= ended + count

        _soon("the end of stalled streams", are_ended)
    ends = Counter(map(_end_of, calls, received))
    for channel in channels:
        channel.close()
    assert set(ends) == {(Code.UNAVAILABLE, True)}, f"stalled streams ended with {ends}"
    return f"{count} ended, none lost an image"


def strangers_over_http(site: Site) -> str:
    """Slow heads, endless bodies, wrong lengths and silence over HTTP: others are answered as ever."""
    address, access = address_of(site.steady), site.access(site.steady)
    count = site.some(300)
    with ThreadPoolExecutor(count) as pool:
        strangers = [pool.submit(stranger, number, address, access.ca) for number in range(count)]
        options = {"address": address, "ca": access.ca, "token": access.token, "timeout_seconds": CALL_SECONDS}
        with HttpClient((), **options) as client:
            for _ in range(8):
                site.read(client, 50)
            site.check(site.steady)
            _soon("the end of strangers", lambda: all(each.done() for each in strangers))
        ends = Counter(each.result() for each in strangers)
    return ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(ends.items()))


def _end_of(call, next_index):
    """The code of a stream, and whether it says rightly which image comes next."""
    with suppress(grpc.RpcError):
        for response in call:
            assert response.first_index == next_index
            next_index += response.image_count
    return call.code(), dict(call.trailing_metadata()).get("bgan-next-index") == str(next_index)


# Files.


def models_are_replaced(site: Site) -> str:
    """A served model is overwritten again and again under calls; each answer is whole and of one revision."""
    count, used = site.some(8), set()
    with _callers(site, "changing", used), site.client(site.steady) as client:
        for number in range(count):
            revision = list(site.versions)[(number + 1) % len(site.versions)]
            (site.folder / "changing" / "1.onnx").write_bytes(site.versions[revision][:9_000])  # half a copy
            time.sleep(site.rng.random() * 0.3)
            (site.folder / "changing" / "1.onnx").write_bytes(site.versions[revision])
            _soon("the new model", lambda revision=revision: client.get_model("changing").revision == revision)
    assert used <= set(site.versions)
    return f"{count} times"


@contextmanager
def _callers(site, model, used):
    """Three callers of a model, whose calls must all succeed at the first try."""
    done, wrong = threading.Event(), []
    rngs = [random.Random(site.rng.getrandbits(32)) for _ in range(3)]

    def call(rng):
        with site.client(site.steady, retry=ONCE) as client:
            while not done.is_set():
                count = rng.choice((1, 5, 700))
                first_index, revisions = site.reference.draw(rng, count), set()
                for batch in client.sample_binary_images(
                    image_count=count, first_index=first_index, seed=SEED, model=model
                ):
                    site.reference.check(batch)
                    revisions.add(batch.revision)
                assert len(revisions) == 1, "two revisions in one stream"
                used.update(revisions)

    def checked(rng):
        try:
            call(rng)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=checked, args=(rng,)) for rng in rngs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, f"a call failed while models were replaced: {wrong[0]}"


def bad_model_files(site: Site) -> str:
    """Files that are cut off, damaged or hostile come in: each is refused with a reason, nothing else changes."""
    files = list(bad_files(next(iter(site.versions.values())), site.rng))
    names = [*[f"bad-{number}".encode() for number in range(len(files) - len(BAD_NAMES))], *BAD_NAMES]
    with site.client(site.steady) as client:
        served = _served(client)
        paths = [drop(site.folder, name, content) for name, (_, content) in zip(names, files, strict=True)]
        try:
            seen = len(served) + len(paths)
            _soon("refusals", lambda: len(client.list_models().failures) + len(_served(client)) >= seen)
            failures, now = client.list_models().failures, _served(client)
        finally:
            for path in paths:
                path.unlink()
        refused = {failure.model for failure in failures}
        taken = [kind for name, (kind, _) in zip(names, files, strict=True) if name.decode("latin") not in refused]
        assert now == served, f"other models are served: {now}; perhaps {', '.join(taken)}"
        shown = [text for failure in failures for text in (failure.model, failure.reason)]
        assert max(map(len, shown)) < _SHOWN_AT_MOST, f"a refusal has {max(map(len, shown))} characters"
        assert all(text.isprintable() for text in shown), f"not printable: {shown!r}"
        site.check(site.steady)
        _soon("the end of the refusals", lambda: not client.list_models().failures)
    assert not re.search(r"^\S+ \S+ INFO forged", site.steady.output(), re.MULTILINE), (
        "a line of the log is forged"
    )
    return f"{len(paths)} files refused"


def _served(client):
    return [(model.name, model.version, model.revision) for model in client.list_models()]


def a_full_disk(site: Site) -> str:
    """Files that end on a full disk: one line each, nothing half made under their names."""
    count, disk = 30_000, site.work / "small disk"
    disk.mkdir(exist_ok=True)
    of_all = ("--count", count, "--seed", SEED)
    made = run_on_small_disk(disk, "1m", [BGAN, "generate", _file(site, site.fixed[0]), *of_all, "-o", "a.npz"])
    _fails_in_one_line("bgan generate", made)
    assert made.stdout.split("left: ")[1].split() == ["a.npz.partial", "a.npz.partial.json"], made.stdout
    remote = ("--server", site.steady.target, "--model", site.fixed[0])
    access = site.access(site.steady)
    command = [BGAN, "sample", *remote, "--tls-ca", access.ca, *of_all, "-o", "b.npy"]
    sampled = run_on_small_disk(disk, "1m", command, env={"BGAN_TOKEN": access.token})
    _fails_in_one_line("bgan sample", sampled)
    assert sampled.stdout.split("left: ")[1].split() == ["b.npy.partial", "b.npy.partial.json"], sampled.stdout
    site.check(site.steady)
    return "two commands, one line each"


def _file(site, model):
    return site.folder / f"{model}.onnx"


def a_full_disk_for_metrics(site: Site) -> str:
    """The disk of the workers' metrics is full: all goes on, and a dead worker comes back when there is room."""
    disk = site.work / "metrics disk"
    disk.mkdir(exist_ok=True)
    run_on_small_disk(disk, "1m", ["true"])
    options = {"program": (*ON_SMALL_DISK, disk, BGAN, "serve"), "env": {"TMPDIR": str(disk)}}
    with server(site.folder, *site.guard.options, "--workers", 2, "--metrics-port", 0, **options) as process:
        pid = process.process.pid
        filling = Path(f"/proc/{pid}/root{disk}/filling")
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        site.check(process, site.fixed[0])
        assert scrape(process)["bgan_images_total", site.fixed[0]] > 0, "no image was counted"
        os.kill(site.rng.choice(_children(pid)), signal.SIGKILL)
        _soon("notice", lambda: "another starts" in process.output())
        time.sleep(2)
        site.check(process)
        filling.unlink()
        _soon("a worker in its place", lambda: "is replaced" in process.output())
        site.check(process)
        scrape(process)
        process.process.terminate()
        assert process.process.wait(60) == 0
        assert "Traceback" not in process.output(), process.output()
    return "served on"


def _fails_in_one_line(command, done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("bgan: ")]
    assert done.returncode == 1, f"{command} ended with {done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr, f"{command}: {done.stderr}"
    assert len(lines) == 1, f"{command}: {done.stderr}"
    assert "No space left on device" in lines[0], f"{command}: {lines[0]}"


# Clocks.

_JUMPS = ("+1h", "-1h", "+10y", "-20y", "+0", "-3s", "+1d", "+3s")


def the_clock_jumps(site: Site) -> str:
    """The wall clock of a server with two workers, and of a client, jumps by seconds to decades under calls."""
    clock, output = Clock(site.work / "clock"), site.work / "sampled.npz"
    options = ("--workers", 2, "--metrics-port", 0, "--grace-seconds", 2)
    with server(site.folder, *options, env=clock.variables) as process:
        with _jumping(clock, site) as jumped, SamplingClient([process.target] * 2, retry=ONCE) as client:
            while len(jumped) < site.some(3 * len(_JUMPS)):
                site.read(client, 500, include_probabilities=True)
                site.read(client, 3)
            command = [BGAN, "sample", "--server", process.target, "--model", site.fixed[0], "-n", 5_000]
            subprocess.run(
                [*map(str, command), "--seed", str(SEED), "-o", str(output)],
                env={**os.environ, **clock.variables},
                check=True,
                capture_output=True,
                timeout=CALL_SECONDS,
            )
        site.reference.check_file(output)
        clock.jump("+10y")
        scrape(process)
        process.process.terminate()
        assert process.process.wait(60) == 0, "the server did not stop in order"
        last = process.output().splitlines()[-1]
        assert int(last[:4]) >= time.gmtime().tm_year + 9, f"the clock did not jump: {last}"
        assert "Traceback" not in process.output(), process.output()
    return f"{len(jumped)} jumps"


@contextmanager
def _jumping(clock, site):
    """Jumps that are made as long as the context lasts."""
    done, jumped = threading.Event(), []
    rng = random.Random(site.rng.getrandbits(32))

    def jump():
        while not done.wait(0.2):
            jumped.append(rng.choice(_JUMPS))
            clock.jump(jumped[-1])

    thread = threading.Thread(target=jump)
    thread.start()
    try:
        yield jumped
    finally:
        done.set()
        thread.join()


FAULTS = (
    a_worker_is_killed,
    the_server_is_killed,
    the_server_is_stopped,
    a_storm_of_cancels,
    many_streams_at_once,
    readers_stand_still,
    strangers_over_http,
    models_are_replaced,
    bad_model_files,
    a_full_disk,
    a_full_disk_for_metrics,
    the_clock_jumps,
)
