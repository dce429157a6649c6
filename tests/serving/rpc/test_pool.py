"""Threads that compute: one step of each caller in turn. Events say who may go on; nothing is timed."""

import asyncio
import threading
from contextlib import contextmanager

import pytest

from bgan.serving.rpc.pool import FairPool, in_one_step


@contextmanager
def _held_pool():
    """A pool of one thread that computes nothing before it is let go, and what lets it go."""
    pool, go_on = FairPool(1), threading.Event()

    def hold():
        go_on.wait(60)

    try:
        yield pool, hold, go_on
    finally:
        go_on.set()
        pool.shutdown()


def _steps(done, name, count):
    for number in range(count):
        done.append(f"{name} {number}")
        yield
    return name


def test_a_hundred_streams_of_one_caller_leave_another_every_second_step():
    async def compute():
        done = []
        with _held_pool() as (pool, hold, go_on):
            holding = pool.run(("greedy", "1"), in_one_step(hold))
            greedy = [pool.run(("greedy", "1"), _steps(done, f"greedy{each}", 10)) for each in range(100)]
            modest = pool.run(("modest", "2"), _steps(done, "modest", 4))
            go_on.set()
            assert await modest == "modest"
            await holding
            last_of_modest = done.index("modest 3")
            assert await asyncio.gather(*greedy) == [f"greedy{each}" for each in range(100)]
        return done, last_of_modest

    done, last_of_modest = asyncio.run(compute())
    assert last_of_modest <= 8  # four steps of his own, and as many of the hundred streams together
    greedy = [step for step in done if step.startswith("greedy")]
    assert greedy == [
        f"greedy{each} {step}" for each in range(100) for step in range(10)
    ]  # a caller's are in order


def test_another_connection_of_the_same_caller_has_its_turns_too():
    async def compute():
        done = []
        with _held_pool() as (pool, hold, go_on):
            pool.run(("one", "1"), in_one_step(hold))
            streams = [pool.run(("one", "1"), _steps(done, "stream", 10)) for _ in range(10)]
            await_other = pool.run(("one", "2"), _steps(done, "other", 1))
            go_on.set()
            await asyncio.gather(await_other, *streams)
        return done

    assert asyncio.run(compute()).index("other 0") <= 2


def test_what_is_cancelled_ends_after_its_step():
    async def compute():
        done = []
        with _held_pool() as (pool, hold, go_on):
            pool.run(("a",), in_one_step(hold))
            cancelled = pool.run(("a",), _steps(done, "cancelled", 1000))
            kept = pool.run(("a",), _steps(done, "kept", 2))
            cancelled.cancel()
            await asyncio.sleep(0)
            go_on.set()
            assert await kept == "kept"
        return done

    assert asyncio.run(compute()) == ["kept 0", "kept 1"]


def test_an_error_is_that_of_its_caller_alone():
    async def compute():
        with _held_pool() as (pool, _, _):
            with pytest.raises(ZeroDivisionError):
                await pool.run(("a",), in_one_step(lambda: 1 / 0))
            return await pool.run(("b",), in_one_step(lambda: 1))

    assert asyncio.run(compute()) == 1
