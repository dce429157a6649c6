"""Simulations of many seeds, or one again with its trace.

python -m tests.simulation --count 10000 --jobs 2
python -m tests.simulation --seed 17 --verbose
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from .scenario import simulate


def main():
    options = _options()
    if options.seed is not None:
        outcome = simulate(options.seed, verbose=options.verbose)
        print(f"{outcome}\ndigest {outcome.digest}, {len(outcome.breaches)} breaches")
        return int(bool(outcome.breaches))
    started, failed = time.monotonic(), []
    seeds = range(options.first, options.first + options.count)
    with ProcessPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(simulate, seeds, chunksize=20):
            if outcome.breaches:
                failed.append(outcome.schedule.seed)
                print(outcome, flush=True)
    print(f"{len(seeds)} schedules in {time.monotonic() - started:.0f} s, failed: {failed or 'none'}")
    return int(bool(failed))


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
