"""Simulations of many seeds, or one again.

python -m tests.simulation --count 10000
python -m tests.simulation --seed 17 --verbose
"""

import argparse
import sys
import time

from .scenario import Scenario
from .schedule import draw


def main():
    options = _options()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.count)
    started, failed = time.process_time(), []
    for seed in seeds:
        world = Scenario(draw(seed), verbose=options.verbose).run()
        if world.breaches:
            failed.append(seed)
            print(f"{draw(seed)}\n  digest {world.digest}")
            for breach in world.breaches[: 3 if len(seeds) > 1 else None]:
                print(f"  {breach}")
    seconds = time.process_time() - started
    print(f"{len(seeds)} schedules, {len(failed)} failed {failed[:50]}, {seconds:.1f} s of processor time")
    if options.seed is not None:
        print(f"digest {world.digest}")
    return int(bool(failed))


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--verbose", action="store_true", help="print the trace")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
