"""onnxruntime alone, in a process of its own: session.run in a loop on feeds that are ready.

    python -m tests.benchmarks.bare MODEL.onnx --batch-size 668 --seconds 3

Prints one line of JSON: images a second, the time of a run in milliseconds, CPU seconds of a million images.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from .processes import cpu_seconds

_START_SECONDS = 1.5  # what a worker has to load the model and warm up


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
    start = time.monotonic() + _START_SECONDS
    end = start + options.seconds
    with _executor(options) as executor:
        loops = [
            executor.submit(_loop, options.model, options.batch_size, options.threads, start, end)
            for _ in range(options.workers)
        ]
        time.sleep(start - time.monotonic())
        before = cpu_seconds(os.getpid())
        time.sleep(end - time.monotonic())
        spent = cpu_seconds(os.getpid()) - before
        seconds = [each for loop in loops for each in loop.result()]
    images = len(seconds) * options.batch_size
    return {
        "images_per_second": images / options.seconds,
        "p50_ms": 1e3 * statistics.median(seconds),
        "cpu_seconds_per_million": 1e6 * spent / images,
    }


def _executor(options):
    if options.processes:
        return ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"))
    return ThreadPoolExecutor(options.workers)


def _loop(model, batch_size, threads, start, end):
    """Seconds of each run that ends between `start` and `end`."""
    session = _session(model, threads)
    feeds = _feeds(session, batch_size)
    now = 0.0
    while now < start:
        session.run(["images"], feeds)
        now = time.monotonic()
    if now - start > 1:
        raise RuntimeError("the machine is too busy: the model was not loaded in time")
    seconds = []
    while True:
        session.run(["images"], feeds)
        before, now = now, time.monotonic()
        if now > end:
            return seconds
        seconds.append(now - before)


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
