"""One simulation of a schedule: hosts, callers and faults, and what must hold whatever happens."""

import asyncio
import random
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2

from bgan.clients import RevisionChangedError, SamplingError, UnauthenticatedError
from bgan.clients._messages import decode_batch
from bgan.v1 import sampling_pb2

from .disk import ROOT
from .faults import FAULTS
from .hosts import GRACE_SECONDS, IMAGES_PER_MINUTE, MAX_STREAMS, Host, secret
from .loop import PROCESS
from .network import Channel
from .reference import is_right, revision_of
from .schedule import Schedule, draw
from .users import caller
from .world import World, collected

START_SECONDS = 3.0
ALIVE_SECONDS = {False: 15.0, True: 45.0}
"""How soon after its last fault a host answers everywhere, by whether it has a supervisor: that one waits between
the starts of a worker that ends at once."""
REVOKED_SECONDS = 3.0
"""How soon a token that was taken out of the file is refused."""
STOP_SECONDS = GRACE_SECONDS + 1.0
STREAM_SECONDS = 35.0
_RIPPLE = 12.0  # after a disturbance: retries, restarts, a stalled stream that holds a slot
_DELAYS_REVOKING = {"errors", "hang", "pause server", "pause supervisor"}
_DEPLOYS = {"deploy", "deploy torn", "replace"}
_SAMPLE = "/bgan.v1.SamplingService/SampleBinaryImages"
_CHECK = "/grpc.health.v1.Health/Check"
_NEVER = {"INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED"}
_SHOWN = 5  # of the things that are wrong in one simulation
_QUOTA_FOLDER = "BGAN_QUOTA_FOLDER"


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation."""

    schedule: Schedule
    breaches: list[str]
    """What was wrong."""
    digest: str
    """Of all that happened."""

    def __str__(self):
        again = f"  again: python -m tests.simulation --seed {self.schedule.seed} --verbose"
        return "\n".join([str(self.schedule), *(f"  {breach}" for breach in self.breaches[:_SHOWN]), again])


def simulate(seed, *, verbose=False):
    """The outcome of a seed."""
    with collected():
        return Scenario(seed, verbose=verbose).run()


class Bucket:
    """The images that a quota allows, counted a second time."""

    def __init__(self, now):
        self.left, self.counted = float(IMAGES_PER_MINUTE), now

    def take(self, count, now):
        """Whether anything was left."""
        self.left = min(IMAGES_PER_MINUTE, self.left + (now - self.counted) * IMAGES_PER_MINUTE / 60)
        self.counted, had = now, self.left
        self.left -= count
        return had > -1e-6


class Scenario:
    """A world with hosts and callers, and a schedule."""

    def __init__(self, seed, *, verbose=False):
        self.schedule = schedule = draw(seed)
        self.world = World(schedule.seed, verbose=verbose)
        self.refused, self.failing, self.hanging = {}, {}, {}
        self.users = []
        self.is_ending = False
        self._paused = {}  # by caller, when its process stood still
        self._disturbed = {port: [] for port in schedule.workers}  # (begin, end, what)
        self._buckets = {}
        self._running = {}
        self._operators, self._managers = [], []
        world = self.world
        world.disk.fails = self._error_of
        world.machine.refusal = lambda process: self.refused.get(int(process.name.partition(".")[0]))
        world.loop.job_is_held = self._held_until
        world.network.on_write = self._on_write
        world.network.on_failure = lambda path, error: world.blame(f"{path} fails with {error!r}")
        world.loop.set_exception_handler(self._on_loop_error)
        self.hosts = {port: Host(world, port, workers) for port, workers in schedule.workers.items()}

    def run(self):
        """All of it."""
        self.world.run(self._main)
        return Outcome(self.schedule, self.world.breaches, self.world.digest)

    def spawn(self, coroutine):
        """Run beside the schedule, as the operator, whom the end waits for."""
        self._operators.append(self.world.loop.create_task(coroutine))

    def disturb(self, host, end, what):
        """Something that callers may notice has gone on until now, or will until `end`."""
        self._disturbed[host.port].append((self.world.now, end, what))

    def paused_seconds(self, name, started, ended):
        """How long a caller's process stood still meanwhile."""
        return sum(max(0.0, min(ended, end) - max(started, begin)) for begin, end in self._paused.get(name, ()))

    def excuse(self, error, name, ports, started, ended):
        """Why a stream may have failed, or None."""
        disturbances = [each for port in ports for each in self._disturbed[port]]
        near = next(
            (what for begin, end, what in disturbances if begin <= ended and started <= end + _RIPPLE), None
        )
        if error.code.name in _NEVER:
            return None
        if isinstance(error, UnauthenticatedError):
            return self._excuse_of_token(name, ports)
        if isinstance(error, RevisionChangedError):
            return near if any(what in _DEPLOYS and begin <= ended for begin, _, what in disturbances) else None
        if name == "bob" and error.code.name in {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}:
            return "its quota"
        return "it stood still" if self.paused_seconds(name, started - _RIPPLE, ended) else near

    def _excuse_of_token(self, name, ports):
        hosts = [self.hosts[port] for port in ports]
        if name == "carol" and any(host.revoked_at is not None for host in hosts):
            return "it was revoked"
        has_expired = any(self.world.wall_time() >= host.expiry.timestamp() for host in hosts)
        return "it expired" if name == "dave" and has_expired else None

    async def _main(self):
        for host in self.hosts.values():
            self._managers.append(asyncio.create_task(host.keep_up()))
        await asyncio.sleep(START_SECONDS)
        self._start_users()
        await asyncio.gather(*[self._do(fault) for fault in self.schedule.faults])
        await asyncio.gather(*self._operators)
        await asyncio.gather(*[self._wait_until_alive(host) for host in self.hosts.values()])
        self._look_for_dead_tasks()
        await asyncio.gather(*[self._stop(host) for host in self.hosts.values()])
        await self._end_users()

    def _start_users(self):
        everywhere = tuple(self.hosts)
        for name, ports, pause, count in (
            ("alice", everywhere, 3.0, None),
            ("alice alone", everywhere[:1], 4.0, None),
            ("bob", everywhere[-1:], 1.0, 120),
            ("carol", everywhere[:1], 2.0, 20),
            ("dave", everywhere[-1:], 3.0, 10),
        ):
            rng = random.Random(self.world.rng.random())
            main = caller(self, name, ports, rng, pause_seconds=pause, count=count)
            self.users.append(self.world.process(name, main))

    async def _do(self, fault):
        host = self.hosts[fault.port]
        await asyncio.sleep(fault.at - START_SECONDS)
        self.world.note("begin", fault.kind, fault.port)
        self.disturb(host, self.world.now + fault.seconds, fault.kind)
        before = [process for process in self.users if process.is_stopped]
        async with FAULTS[fault.kind](self, host, fault):
            for process in self.users:
                if process.is_stopped and process not in before:
                    now = self.world.now
                    self._paused.setdefault(process.name, []).append((now, now + fault.seconds))
            await asyncio.sleep(fault.seconds)
        self.world.note("end", fault.kind, fault.port)

    async def _wait_until_alive(self, host):
        """Every listener of every worker answers as it should, within the bound."""
        end = self.world.now + ALIVE_SECONDS[host.workers > 0]
        while problem := await self._problem_of(host):
            if self.world.now > end:
                self.world.blame(f"{host.port} is not alive again: {problem}")
                return
            await asyncio.sleep(0.5)
        self.world.note("alive", host.port)

    async def _problem_of(self, host):
        wanted, processes = max(1, host.workers), host.serving_processes()
        if len(processes) != wanted:
            return f"{len(processes)} processes listen, not {wanted}"
        for server in self.world.network.listeners(host.port):
            if problem := await self._ask(host, server):
                return f"{server.process.name}: {problem}"
        return None

    async def _ask(self, host, server):
        """What is wrong with what one listener answers."""
        channel = Channel(self.world.network, f"127.0.0.1:{host.port}", {}, server=server)
        options = {"timeout": 2.0, "metadata": (("authorization", f"Bearer {secret('probe')}"),)}
        try:
            data = await channel.unary_unary(_CHECK)(b"", **options)
            if health_pb2.HealthCheckResponse.FromString(data).status != health_pb2.HealthCheckResponse.SERVING:
                return "its health is not SERVING"
            request = sampling_pb2.SampleBinaryImagesRequest(image_count=3, seed=1, first_index=5)
            data = await channel.unary_unary(_SAMPLE)(request.SerializeToString(), **options)
            batch = decode_batch(
                sampling_pb2.SampleBinaryImagesResponse.FromString(data), expected_index=5, target="it"
            )
        except (grpc.RpcError, SamplingError) as error:
            return f"{type(error).__name__}: {error.code().name if isinstance(error, grpc.RpcError) else error}"
        finally:
            await channel.close()
        if batch.revision != revision_of(host.highest):
            return f"it serves revision {batch.revision}"
        return None if is_right(batch) else "its images are wrong"

    def _look_for_dead_tasks(self):
        """Nothing dies unwatched."""
        for process in self.world.machine.processes.values():
            for task in process.tasks if process.returncode is None else ():
                died = task.done() and not task.cancelled() and task._log_traceback
                if died and task.get_coro().__name__ != "_server_main_loop":
                    self.world.blame(f"a task of {process.name} died: {task.get_coro()}: {task.exception()!r}")

    async def _stop(self, host):
        self.disturb(host, float("inf"), "the end")
        self.is_ending = True
        seconds = await host.stop()
        if seconds is None or seconds > STOP_SECONDS:
            self.world.blame(f"{host.port} took {seconds} s to stop")
        elif host.process.returncode != 0:
            self.world.blame(f"{host.port} ended with {host.process.returncode} after SIGTERM")

    async def _end_users(self):
        """Every stream ends within its time, though no server is left."""
        end = self.world.now + STREAM_SECONDS
        while any(process.returncode is None for process in self.users) and self.world.now < end:
            await asyncio.sleep(0.5)
        for process in self.users:
            if process.returncode != 0:
                self.world.blame(f"{process.name} ended with {process.returncode}: {process.failure!r}")

    def _error_of(self, path):
        port = int(path[len(ROOT) + 1 :].partition("/")[0])
        if port not in self.failing or PROCESS.get(None) is None:
            return 0
        number, rng, probability = self.failing[port]
        return number if rng.random() < probability else 0

    def _held_until(self, process, executor):
        if process is None or "inference" in getattr(executor, "_thread_name_prefix", ""):
            return 0.0
        return self.hanging.get(self._port_of(process), 0.0)

    @staticmethod
    def _port_of(process):
        root = process.name.partition(".")[0]
        return int(root) if root.isdigit() else None

    def _on_write(self, context, data):
        """A server sends images: may it?"""
        if not context.path.endswith("/SampleBinaryImages"):
            return
        message = sampling_pb2.SampleBinaryImagesResponse.FromString(data)
        process, now = context.server.process, self.world.now
        name = dict(context.metadata)["authorization"].split("_")[1]
        host = self.hosts[self._port_of(process)]
        if name == "bob":
            where = process.environment.get(_QUOTA_FOLDER, process.pid)
            if not self._buckets.setdefault(where, Bucket(now)).take(message.image_count, now):
                self.world.blame(f"{process.name} sends {message.image_count} images beyond the quota")
        if name == "carol" and now > self._revoked_for_good(host):
            self.world.blame(f"{process.name} sends images to a revoked token")
        if name == "dave" and self.world.wall_time() > host.expiry.timestamp():
            self.world.blame(f"{process.name} sends images to an expired token")
        running = self._running.setdefault(process, set())
        # A small last message waits for its reader without a slot; all of them are small here.
        (running.discard if context.is_ending else running.add)(context)
        if len(running) > MAX_STREAMS:
            running -= {each for each in running if each.done()}
            if len(running) > MAX_STREAMS:
                self.world.blame(f"{process.name} runs {len(running)} calls")

    def _revoked_for_good(self, host):
        """From when on nothing may be sent to the token that was revoked."""
        if host.revoked_at is None:
            return float("inf")
        end = host.revoked_at + REVOKED_SECONDS
        for begin, until, what in sorted(self._disturbed[host.port]):
            if what in _DELAYS_REVOKING and begin <= end:
                end = max(end, until + REVOKED_SECONDS)
        return end

    def _on_loop_error(self, loop, context):
        error = context.get("exception")
        self.world.blame(f"{context['message']}: {error!r}")
