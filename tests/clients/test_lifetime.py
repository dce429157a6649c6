"""Clients before, between and after event loops, in threads, when closed, and in other processes."""

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import threading

import grpc
import pytest

from bgan.clients import AsyncSamplingClient, SamplingClient, SamplingError
from tests.conftest import ROOT
from tests.kit.clients import Blocking


@pytest.mark.parametrize("server_count", [1, 2])
def test_an_asyncio_client_may_be_made_before_a_loop_and_used_by_one_after_the_other(running, server_count):
    client = AsyncSamplingClient([running.target] * server_count)

    async def use(batches):
        return len(await client.list_models()), sum([len(batch) async for batch in batches])

    for _ in range(2):
        assert asyncio.run(use(client.sample_binary_images(image_count=600, seed=1))) == (3, 600)
    asyncio.run(client.close())


async def test_an_asyncio_client_in_two_loops_at_once_says_what_to_do(running):
    async with AsyncSamplingClient(running.target) as client:
        await client.list_models()

        def use(method):
            with pytest.raises(RuntimeError, match=r"AsyncSamplingClient is used by another event loop; make one"):
                asyncio.run(method())

        for method in (client.list_models, client.get_model, client.close):
            await asyncio.to_thread(use, method)
        assert len(await client.list_models()) == 3


def test_a_blocking_client_serves_many_threads_from_its_first_call_on(running):
    found = []
    with SamplingClient([running.target] * 2) as client:
        threads = [
            threading.Thread(
                target=lambda: found.append(sum(map(len, client.sample_binary_images(image_count=50))))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [50] * 8


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("was_used", [True, False])
def test_a_closed_client_says_so(running, make_client, was_used):
    with make_client(running.target) as client:
        if was_used:
            client.list_models()
        client.close()
        client.close()
        for call in (
            client.list_models,
            client.get_model,
            lambda: next(client.sample_binary_images(image_count=1, first_index=7)),
        ):
            with pytest.raises(SamplingError, match="the client was closed") as caught:
                call()
            assert caught.value.code == grpc.StatusCode.CANCELLED
        assert caught.value.next_index == 7


@pytest.mark.parametrize("kind", [SamplingClient, AsyncSamplingClient])
@pytest.mark.parametrize("again", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_cannot_be_sent_elsewhere(kind, again):
    with pytest.raises(TypeError, match=f"a {kind.__name__} holds connections and cannot be pickled"):
        again(kind("localhost:1"))


_FORKS = """
import asyncio, os, sys
from bgan.clients import AsyncSamplingClient, SamplingClient

class Blocking(AsyncSamplingClient):
    def list_models(self):
        return asyncio.run(super().list_models())

kind = {"blocking": SamplingClient, "asyncio": Blocking}[sys.argv[1]]
unused, client = kind(sys.argv[2]), kind(sys.argv[2])
if (child := os.fork()) == 0:
    os._exit(len(unused.list_models()))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
client.list_models()
if (child := os.fork()) == 0:
    try:
        SamplingClient(sys.argv[2]).get_model("none")
    except Exception as error:
        print("forked" in str(error) and "there is no model" in str(error), file=sys.stderr)
    os._exit(0)
os.waitpid(child, 0)
if (child := os.fork()) == 0:
    for each in (client, kind(sys.argv[2])):
        try:
            print(len(each.list_models()), flush=True)
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
assert len(client.list_models()) == 3
"""


@pytest.mark.parametrize(
    ("kind", "support", "says"),
    [
        ("blocking", "1", "3"),
        ("blocking", "0", "start processes by spawn"),
        ("asyncio", "1", "start processes by spawn"),
    ],
)
def test_a_forked_process_can_use_it_or_is_told(running, kind, support, says):
    command = [sys.executable, "-c", _FORKS, kind, running.target]
    env = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": support}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert [says in line for line in result.stdout.splitlines()] == [True, True], result.stdout
    assert "False" in result.stderr.splitlines()  # what a server says is not for the fork
