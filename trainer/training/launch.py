"""Several processes of this machine that train together: torchrun's agent, started from within a command."""

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..common.errors import UserError
from .distributed import World


def launch(processes: int, shards: int) -> None:
    """Run this command in so many processes, until all have ended.

    Raises ConfigError where they cannot share the shards, and SystemExit as they end: the first has said why.
    """
    World(size=processes).own_shards(shards)
    logging.disable()  # its reports of processes that ended, each of several lines
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="bgan",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "bgan", *sys.argv[1:])
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0 and rank == 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(f"the first process was ended by {name}; the same command resumes the run") from error
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from error
