"""onnxruntime alone, in a process of its own: session.run in a loop on feeds that are ready.

    python -m tests.benchmarks.bare MODEL.onnx --batch-size 2560 --seconds 3

Prints one line of JSON: images a second, the time of a run in milliseconds, CPU seconds of a million images.
"""

import argparse
import json
import os
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from .processes import cpu_seconds

_SPAWN = get_context("spawn")
_WARM_UP_SECONDS = 0.3
_barrier = None  # of the workers and the main thread, set in each worker


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of one session; 0: onnxruntime's default")
    parser.add_argument("--workers", type=int, default=1, help="sessions at once, each with its own loop")
    parser.add_argument("--processes", action="store_true", help="workers are processes, not threads")
    print(json.dumps(_measure(parser.parse_args())))


def _measure(options):
    workers, arguments = options.workers, (options.model, options.batch_size, options.threads, options.seconds)
    barrier = (_SPAWN if options.processes else threading).Barrier(workers + 1)
    pool = ProcessPoolExecutor if options.processes else ThreadPoolExecutor
    context = {"mp_context": _SPAWN} if options.processes else {}
    with pool(workers, initializer=_share, initargs=(barrier,), **context) as executor:
        loops = [executor.submit(_loop, *arguments) for _ in range(workers)]
        barrier.wait()
        before = cpu_seconds(os.getpid())
        time.sleep(options.seconds)
        spent = cpu_seconds(os.getpid()) - before
        seconds = [loop.result() for loop in loops]
    rate = sum(options.batch_size * len(each) / sum(each) for each in seconds)
    return {
        "images_per_second": rate,
        "p50_ms": 1e3 * statistics.median(each for loop in seconds for each in loop),
        "cpu_seconds_per_million": 1e6 * spent / (rate * options.seconds),
    }


def _share(barrier):
    global _barrier  # noqa: PLW0603 - the one way to hand a barrier to the processes of a pool
    _barrier = barrier


def _loop(model, batch_size, threads, seconds):
    """Seconds of each run, once all workers are warm."""
    session = _session(model, threads)
    feeds = _feeds(session, batch_size)
    _runs(session, feeds, _WARM_UP_SECONDS)
    _barrier.wait()
    return _runs(session, feeds, seconds)


def _runs(session, feeds, seconds):
    now, times = time.perf_counter(), []
    end = now + seconds
    while now < end:
        session.run(["images"], feeds)
        before, now = now, time.perf_counter()
        times.append(now - before)
    return times


def _session(model, threads):
    if not threads:
        return onnxruntime.InferenceSession(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options)


def _feeds(session, batch_size):
    random = np.random.default_rng(1)
    return {
        each.name: (random.standard_normal if each.name == "latents" else random.random)(
            (batch_size, *each.shape[1:]), dtype=np.float32
        )
        for each in session.get_inputs()
    }


if __name__ == "__main__":
    main()
