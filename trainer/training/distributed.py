"""Training by several processes, on one machine or many: who they are, and what they tell each other.

torchrun starts them and names each in its environment. What decides weights is added up in one binary tree whose
leaves are the shards of a batch, so that weights do not depend on how many processes share these.
"""

import atexit
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..common.errors import ConfigError, PeerLostError, UserError

Value = TypeVar("Value")
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class World:
    """All processes of one training, from where one of them stands. Alone it exchanges nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its rank among those of its machine, which is the number of its GPU."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def own_shards(self, count: int) -> range:
        """The shards of this process, of so many. Raises ConfigError where the processes cannot share them."""
        if count % self.size or self.size.bit_count() > 1:
            fitting = ", ".join(str(2**power) for power in range(count.bit_length()))
            raise ConfigError(
                f"shards is {count}, which {self.size} processes cannot share; start as many as one of {fitting}, "
                "or choose other --shards, which decide the weights"
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def sum(self, vector: Tensor) -> Tensor:
        """The sum of the vectors of all processes, bit for bit the same in each: ((0 + 1) + (2 + 3)) + ...

        Each exchanges with the one whose rank differs in one bit, then the next. Raises PeerLostError.
        """
        distance = 1
        while distance < self.size:
            partner, other = self.rank ^ distance, torch.empty_like(vector)
            with _peers():
                both = [dist.P2POp(dist.isend, vector, partner), dist.P2POp(dist.irecv, other, partner)]
                for work in dist.batch_isend_irecv(both):
                    work.wait()
            vector, distance = vector + other, 2 * distance
        return vector

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Raises PeerLostError."""
        if self.size == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.uint8)
        with _peers():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def gather(self, value: Value) -> list[Value]:
        """The value of each process, by rank. Raises PeerLostError."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """The value that the first process has. Raises PeerLostError."""
        if self.size == 1:
            return value
        values = [value]
        with _peers():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def together(self, work: Callable[[], Value]) -> Value:
        """What the work gives here, once all processes have done theirs; the first error of any raises in all."""
        if self.size == 1:
            return work()
        value, error = None, None
        try:
            value = work()
        except UserError as raised:
            error = raised
        errors = self.gather(error)
        for rank, found in enumerate(errors):
            if found is not None:
                raise found if rank == 0 else _of_rank(rank, found)
        return value  # type: ignore[return-value]

    def in_turn(self, work: Callable[[], Value]) -> Value:
        """As `together`, but the first process of each machine has done its work before the others of it begin."""
        own = self.together(lambda: work() if self.local_rank == 0 else None)
        return self.together(lambda: work() if own is None else own)


ALONE = World()


def _of_rank(rank: int, error: UserError) -> UserError:
    named = UserError(f"process {rank}: {error}")
    named.exit_code = error.exit_code
    return named


@contextmanager
def _peers() -> Iterator[None]:
    """Tell the loss of another process from other errors."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            "another process of this training has ended; the same command resumes the run"
        ) from error


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun, or another launcher with its environment, started together, connected.

    An error for the user is the same in all of them, or another has ended: only the first process raises it, the
    others end with its exit code.
    """
    world = _connected()
    try:
        yield world
        atexit.register(_leave, 0)
    except UserError as error:
        if world.is_first:
            raise
        atexit.register(_leave, error.exit_code)
        raise SystemExit(error.exit_code) from error
    finally:
        dist.destroy_process_group()


def _leave(code: int) -> None:
    """End this process without the interpreter's own end.

    A thread of gloo that still wants the interpreter then would abort the process, which has done its work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _connected() -> World:
    """Connect with the others. Raises UserError where they cannot be reached."""
    try:
        store, rank, size = next(rendezvous("env://"))
        own = PrefixStore(_meeting(store, rank, size), store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=own, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        where = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the other processes of this training cannot be reached at {where} ({reason})") from error
    return World(rank, size, int(os.environ.get("LOCAL_RANK", "0")))


def _meeting(store: Any, rank: int, size: int) -> str:
    """A name that the processes that were started together agree on.

    torchrun gives those that it starts again the same store, where the addresses of those that have ended still
    stand. So each says hello under a name of its own, and has an answer from the first, before it is counted.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"hello/{rank}", own)
        name: str = store.get(f"answer/{own}").decode()
        store.set(f"here/{name}/{rank}", "")
        return name
    awaited = set(range(1, size))
    while awaited:
        for other in tuple(awaited):
            if store.check([f"here/{own}/{other}"]):
                awaited.remove(other)
            elif store.check([f"hello/{other}"]):
                store.set(f"answer/{store.get(f'hello/{other}').decode()}", own)
        time.sleep(_POLL_SECONDS)
    return own
