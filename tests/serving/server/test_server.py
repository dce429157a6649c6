"""The parts of a server: its life is theirs."""

import os
import signal
from pathlib import Path

import pytest

from tests.kit.servers import server
from tests.kit.waiting import eventually

# SIGUSR1 ends the part of a server that follows the models, as an error that nobody has thought of would.
_LOSING = """
import signal

def lose(*_):
    import asyncio
    for task in asyncio.all_tasks(asyncio.get_running_loop()):
        if task.get_coro().__qualname__ == "_live":
            task.cancel()

signal.signal(signal.SIGUSR1, lose)
"""


@pytest.fixture
def losing(tmp_path):
    """Variables of processes that can lose a part."""
    (tmp_path / "sitecustomize.py").write_text(_LOSING)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_server_that_loses_a_part_ends_with_an_error(small_models, losing):
    with server(small_models, "--lame-duck-seconds", 300, env=losing) as process:
        process.process.send_signal(signal.SIGUSR1)
        assert process.process.wait(60) == 1
        assert process.output().splitlines()[-1].startswith("bgan: a part of the server ended")


def test_a_worker_that_loses_a_part_is_replaced(small_models, losing):
    with server(small_models, "--workers", 2, env=losing) as process:
        children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGUSR1)
        eventually(lambda: "worker 0 ended with 1" in process.output())
        eventually(lambda: "worker 0 is replaced" in process.output())
        assert process.stop() == 0
