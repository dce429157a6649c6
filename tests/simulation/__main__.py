"""Simulations of many seeds, or one again with its trace.

python -m tests.simulation --count 10000 --jobs 2
python -m tests.simulation --seed 17 --verbose
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from .scenario import Scenario, report


def main():
    options = _options()
    if options.seed is not None:
        world = Scenario(options.seed, verbose=options.verbose).run()
        print(report(options.seed, world.breaches) or f"seed {options.seed} holds")
        print(f"digest {world.digest}")
        return int(bool(world.breaches))
    started, failed = time.monotonic(), []
    seeds = range(options.first, options.first + options.count)
    with ProcessPoolExecutor(options.jobs) as pool:
        for seed, breaches in zip(seeds, pool.map(breaches_of, seeds, chunksize=20), strict=True):
            if breaches:
                failed.append(seed)
                print(report(seed, breaches), flush=True)
    print(f"{len(seeds)} schedules in {time.monotonic() - started:.0f} s, failed: {failed or 'none'}")
    return int(bool(failed))


def breaches_of(seed):
    """What is wrong in a simulation, in words."""
    return Scenario(seed).run().breaches


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--verbose", action="store_true", help="print the trace")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
