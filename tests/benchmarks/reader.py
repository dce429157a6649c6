"""A client that reads one stream as fast as it comes, in a process of its own.

    python -m tests.benchmarks.reader localhost:50051 --model mnist --seconds 3 --pid SERVER_PID

Prints {} when it has warmed up, and then one line of JSON: images a second, images a message, CPU seconds of a
million images here and at the server.
"""

import argparse
import json
import os
import time

from bgan.clients import SamplingClient

from .processes import cpu_seconds

_ENDLESS = 1_000_000_000


def main() -> None:
    """Read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--model", default="")
    parser.add_argument("--batch-size", type=int, help="images a message; by default the server's choice")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up-seconds", type=float, default=0.5)
    parser.add_argument("--pid", type=int, required=True, help="the server's process, to tell what it costs")
    print(json.dumps(_read(parser.parse_args())))


def _read(options):
    with SamplingClient(options.target) as client:
        batches = client.sample_binary_images(
            image_count=_ENDLESS, seed=1, model=options.model, batch_size=options.batch_size, timeout_seconds=None
        )
        _count(batches, options.warm_up_seconds)
        print("{}", flush=True)
        pids = (os.getpid(), options.pid)
        start, before = time.perf_counter(), [cpu_seconds(pid) for pid in pids]
        images, messages = _count(batches, options.seconds)
        elapsed, after = time.perf_counter() - start, [cpu_seconds(pid) for pid in pids]
        batches.close()
    spent = [1e6 * (late - early) / images for early, late in zip(before, after, strict=True)]
    return {
        "images_per_second": images / elapsed,
        "images_per_message": images / messages,
        "client_cpu_seconds_per_million": spent[0],
        "server_cpu_seconds_per_million": spent[1],
    }


def _count(batches, seconds):
    """Read for that long; returns images and messages."""
    end = time.perf_counter() + seconds
    images = 0
    for messages, batch in enumerate(batches, 1):
        batch.packed_images.max()  # touches every byte
        images += len(batch)
        if time.perf_counter() > end:
            return images, messages
    raise RuntimeError("the stream ended")


if __name__ == "__main__":
    main()
