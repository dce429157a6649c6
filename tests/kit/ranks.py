"""Commands that several processes run together, as of torchrun; forked, so that none imports torch again."""

import multiprocessing
import socket
from contextlib import closing

import torch

from tests.kit.cli import bgan

_FORK = multiprocessing.get_context("fork")


class Ranks:
    """So many processes that run commands of bgan together: `results()` gives what each returned and wrote."""

    def __init__(self, *commands, cwd="."):
        """The command of each rank; what begins with a dict has its items in the environment."""
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        self._results = _FORK.SimpleQueue()
        self.processes = [
            _FORK.Process(target=self._run, args=(rank, len(commands), port, command, cwd))
            for rank, command in enumerate(commands)
        ]
        for process in self.processes:
            process.start()

    def _run(self, rank, size, port, command, cwd):
        env, *arguments = command if isinstance(command[0], dict) else ({}, *command)
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, **env}
        torch.set_num_threads(places["OMP_NUM_THREADS"])  # as torch does where it is loaded
        result = bgan(*arguments, cwd=cwd, env={name: str(value) for name, value in places.items()})
        self._results.put((rank, result))

    def results(self, seconds=100):
        """What each process returned and wrote, by rank; None for one that was killed."""
        results = {}
        for process in self.processes:
            process.join(seconds)
            assert process.exitcode is not None, f"it still runs: {process}"
        while not self._results.empty():
            rank, result = self._results.get()
            results[rank] = result
        return [results.get(rank) for rank in range(len(self.processes))]


def run_ranks(count, *arguments, **options):
    """The same command in so many processes: what each returned and wrote."""
    return Ranks(*[arguments] * count, **options).results()
