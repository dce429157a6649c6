"""Servers under load and faults for as long as wanted; a report in Markdown, and exit code 1 if a promise broke.

    python -m tests.reliability --minutes 10 --seed 1 --output report.md

Faults are drawn by the seed, all of them once in each round. What was found to be wrong is printed at once.
"""

import argparse
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc

from bgan.clients import SamplingError
from tests.conftest import ROOT
from tests.fixtures.write import CLASSES, write_model
from tests.kit.clients import Blocking
from tests.kit.servers import restarting_server, server

from .access import Guard
from .control import run_control, watched
from .deeds import CANCELLED_BYTES, DEEDS, FUZZED_BYTES, added_by
from .faults import FAULTS, Site
from .fuzzing import Tally
from .leaks import WANTED_POWER, Bounds, Sample, growths, power, take_sample, write_samples
from .load import Load
from .machine import NotHereError
from .reference import Reference
from .report import Report
from .rest import Rest
from .web import HttpClient, address_of

_REFERENCE_IMAGES = 40_000
_FAULT_SECONDS = 400
_CLOSING_SECONDS = 600
_FAULTS_A_REST = 2
_WARM_UP = 0.3  # of the time
_LOAD_SECONDS = 2  # between two samples under load
_ENOUGH_MINUTES = 60  # for the leak gate to have its power
_SHIPPED = ROOT / "serving" / "shipped"
_FIXED = ("mlp-dbn", "mlp-sbn")
_OTHERS = {  # by name: images that are known, and what the file is written with
    "cnn-dbn": (2_000, None),
    "cnn-sbn": (2_000, None),
    "classes-dbn": (8_000, {"seed": 6, "shape": (3, 5, 9), "latent_size": 10, "classes": CLASSES}),
    "classes-sbn": (8_000, {"seed": 7, "shape": (3, 5, 9), "classes": CLASSES, "stochastic": True}),
    "tiled": (8_000, {"seed": 9, "tiled": True}),
}
_GOOD_FOR = ("mlp-*", "cnn-*", "classes-*", "tiled", "changing", "no-*")
_HIDDEN = "hidden"  # a model that the fuzzer's token is not good for
_SERVED = (*_FIXED, *_OTHERS)
_FEW_IMAGES_PER_MINUTE = 30_000
_LARGEST_MESSAGE = 1_000
_SHOWN_AT_MOST = 20  # of many that are wrong
# Small limits, so that requests of the fuzzer which are good by chance cost little.
_STEADY = (
    *("--metrics-port", 0, "--http-port", 0, "--max-streams", 700, "--max-streams-per-caller", 700),
    *("--max-image-count", 50_000, "--max-connections-per-address", 1000),  # strangers and load have one address
    *("--max-batch-size", 1000, "--model-poll-seconds", 0.2, "--model-keep-seconds", 1),
    *("--stalled-write-seconds", 10, "--grace-seconds", 5, "--default-model", _FIXED[0]),
)
_FRAGILE = ("--workers", 2, "--grace-seconds", 0.5, "--default-model", _FIXED[0])
_WORST_LINES = ("Traceback", "ERROR a call failed", "Unexpected [")


class _Retries(logging.Handler):
    """Counts the tries of clients that go on, which they log as warnings."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record):
        self.count += "trying again from image" in record.msg


def main() -> int:
    options = _options()
    report, retries = Report(options.seed), _Retries()
    logging.getLogger("bgan.clients").addHandler(retries)
    with tempfile.TemporaryDirectory(prefix="bgan-soak-") as folder, ExitStack() as stack:
        soak = Soak(Path(folder), options, report, stack)
        soak.run()
    report.retries = retries.count
    text = "\n".join(report.lines()) + "\n"
    if options.output:
        options.output.write_text(text)
    print(f"\n{text}")
    return int(bool(report.breaches))


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long faults are done")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="draws all")
    parser.add_argument("--inputs", type=int, default=100_000, help="of the fuzzer, spread over the time")
    parser.add_argument("--coverage-share", type=float, default=0.1, help="of the time, for atheris, before")
    parser.add_argument("--scale", type=float, default=1, help="how much of each fault is done, 1 for all of it")
    parser.add_argument("--output", type=Path, help="a file for the report")
    parser.add_argument("--samples", type=Path, help="files for what the server held, PATH.at-rest.csv and so on")
    return parser.parse_args()


class Soak:
    """One run: servers, load, fuzzer, faults, gates."""

    def __init__(self, folder: Path, options: argparse.Namespace, report: Report, stack: ExitStack) -> None:
        self._folder, self._options, self._report, self._stack = folder, options, report, stack
        self._started = time.monotonic()
        self._samples: dict[str, list[Sample]] = {"at rest": [], "under load": []}
        self._is_warm = threading.Event()
        self._may_sample = threading.Lock()
        self._fuzzer_rests = folder / "the fuzzer rests"

    def run(self) -> None:
        """All of it; what is wrong is in the report."""
        site = self._make_site()
        self._rest = Rest(site.steady)
        corpus = self._guided_by_coverage(site.folder)
        started = time.monotonic()
        fuzzer = self._start_fuzzer(site, corpus)
        with ThreadPoolExecutor(2) as pool:
            tallies = pool.submit(self._read_fuzzer, fuzzer)
            with Load(site.reference, _SERVED, self._options.seed) as load, self._sampling(pool, site):
                self._add_callers(load, site)
                self._do_faults(site, load, started + 60 * self._options.minutes)
            tallies.result()
        self._report.minutes = (time.monotonic() - started) / 60
        self._report.streams, self._report.images = load.streams, load.images
        self._blame("the load", *load.wrong[:_SHOWN_AT_MOST])
        self._check_quota(load.images["streams of a token with a quota"])
        self._blame("the fuzzer", *self._report.tally.breaches[:_SHOWN_AT_MOST])
        self._close(site)
        self._control(site.folder)

    def _make_site(self) -> Site:
        """Models, what their images must be, and the servers."""
        self._say("what the images must be")
        models, fixed, work = (self._folder / name for name in ("models", "fixed", "work"))
        for folder in (models / "changing", fixed, work):
            folder.mkdir(parents=True)
        reference, versions = Reference(work, _REFERENCE_IMAGES), {}
        for name in _FIXED:
            for folder in (models, fixed):
                shutil.copy(_SHIPPED / f"{name}.onnx", folder)
            versions[reference.add(models / f"{name}.onnx")] = (models / f"{name}.onnx").read_bytes()
        (models / "changing" / "1.onnx").write_bytes(next(iter(versions.values())))
        for name, (count, options) in _OTHERS.items():
            if options is None:
                shutil.copy(_SHIPPED / f"{name}.onnx", models)
            else:
                write_model(models, name, **options)
            shutil.copy(models / f"{name}.onnx", fixed)
            reference.add(models / f"{name}.onnx", count)
        write_model(models, _HIDDEN)
        guard = Guard.make(
            *(work,),
            load={},
            faults={},
            few={"images_per_minute": _FEW_IMAGES_PER_MINUTE},
            fuzzer={"models": _GOOD_FOR},
        )
        self._say("servers")
        return Site(
            steady=self._stack.enter_context(server(models, *guard.options, *_STEADY, **watched())),
            fragile=self._stack.enter_context(restarting_server(fixed, *guard.options, *_FRAGILE)),
            guard=guard,
            folder=models,
            fixed=_FIXED,
            versions=versions,
            reference=reference,
            work=work,
            rng=random.Random(self._options.seed),
            scale=self._options.scale,
        )

    def _add_callers(self, load, site):
        steady, fragile = (site.guard.access(each.target, "load") for each in (site.steady, site.fragile))
        few = site.guard.access(site.steady.target, "few")
        load.add("small calls to the steady server", [steady], 16)
        load.add("streams from the steady server", [steady], 3_000, make=Blocking)
        load.add("streams from the server that dies", [fragile], 3_000)
        load.add("streams split over both", [steady, fragile], 3_000)
        over_http = partial(HttpClient, address=address_of(site.steady), ca=steady.ca)
        load.add("answers over HTTP", [steady], 3_000, make=over_http)
        load.add("streams of a token with a quota", [few], 3_000)

    def _do_faults(self, site, load, end):
        """Rounds of all faults; the first ones are the warm-up of what the server holds."""
        rounds = 0
        while time.monotonic() < end or rounds < 1:
            for number, fault in enumerate(site.rng.sample(FAULTS, len(FAULTS))):
                if time.monotonic() < end or rounds < 1:
                    self._do(fault, site)
                    if self._is_warm.is_set() and number % _FAULTS_A_REST == 0:
                        self._look_at_rest(load)
            rounds += 1
            if time.monotonic() > end - (1 - _WARM_UP) * 60 * self._options.minutes:
                self._is_warm.set()

    def _look_at_rest(self, load):
        """What the server holds with no call to answer, if it comes to rest."""
        with self._may_sample, load.resting():
            self._fuzzer_rests.touch()
            try:
                sample = self._rest.sample()
            finally:
                self._fuzzer_rests.unlink()
        if sample is None:
            self._report.not_at_rest += 1
        else:
            self._samples["at rest"].append(sample)

    @contextmanager
    def _sampling(self, pool, site):
        """Within its context the server is looked at under load too, once it is warm."""
        done = threading.Event()

        def sample():
            while not done.wait(_LOAD_SECONDS):
                if self._is_warm.is_set() and site.steady.process.poll() is None:
                    with self._may_sample:
                        self._samples["under load"].append(take_sample(site.steady.process.pid))

        sampling = pool.submit(sample)
        try:
            yield
        finally:
            done.set()
        sampling.result()

    def _do(self, fault, site):
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(fault, site)
            try:
                given = doing.result(_FAULT_SECONDS)
            except NotHereError as why:
                given = f"not run: {why}"
                self._report.not_here[fault.__name__] = str(why)
            except TimeoutError:
                given = "hangs"
                self._blame(fault.__name__, f"hangs for {_FAULT_SECONDS} s")
                raise
            except Exception as error:
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                given, line = "BROKEN", traceback.extract_tb(error.__traceback__)[-1].lineno
                self._blame(fault.__name__, f"{type(error).__name__} in line {line}: {error}")
            else:
                self._report.faults.setdefault(fault.__name__, []).append(given)
        self._say(f"{fault.__name__.replace('_', ' ')}: {given} ({time.monotonic() - started:.1f} s)")
        if site.steady.process.poll() is not None:
            raise SystemExit(f"the steady server ended with {site.steady.process.returncode}")

    def _guided_by_coverage(self, models):
        """The corpus that atheris found, by a server in its own process."""
        seconds = round(60 * self._options.minutes * self._options.coverage_share)
        corpus = self._folder / "corpus"
        corpus.mkdir()
        if not seconds:
            return corpus
        self._say(f"fuzzing guided by coverage, {seconds} s")
        command = ("--models", models, "--corpus", corpus, "--seconds", seconds, "--seed", self._options.seed)
        done = _python("coverage_fuzzing", *command).communicate()[0]
        self._note_coverage(done, corpus)
        return corpus

    def _note_coverage(self, output, corpus):
        counted = re.search(r"Done (\d+) runs", output)
        covered = re.findall(r"cov: (\d+)", output)
        if counted is None:
            self._blame("fuzzing guided by coverage", output[-2_000:])
        else:
            kept = len(list(corpus.iterdir()))
            self._report.coverage = (
                f"{int(counted[1]):,} inputs, {covered[-1]} edges of bgan.serving reached, {kept} inputs kept"
            )
            self._say(self._report.coverage)

    def _start_fuzzer(self, site, corpus):
        seconds = 0.9 * 60 * self._options.minutes
        options = ("--count", self._options.inputs, "--seed", self._options.seed, "--seconds", seconds)
        access = site.guard.access(site.steady.target, "fuzzer")
        known = ("--ca", access.ca, "--good-for", *_GOOD_FOR, "--moving", "changing", "--rest", self._fuzzer_rests)
        return _python(
            "fuzzing", access.target, *known, *options, "--corpus", corpus, env={"BGAN_TOKEN": access.token}
        )

    def _read_fuzzer(self, process):
        for line in process.stdout:
            try:
                part = json.loads(line)
            except ValueError:
                self._blame("the fuzzer", line)
                continue
            tally = Tally(part["count"], Counter(part["ends"]), part["breaches"])
            self._report.tally.add(tally)
            for breach in tally.breaches[:3]:
                self._say(f"BROKEN: {breach}")
        if process.wait():
            self._blame("the fuzzer", f"ended with {process.returncode}")

    def _close(self, site):
        """The server still gives the right bits, has leaked nothing, logged no trace, and stops in order."""
        for model in _FIXED:
            try:
                site.check(site.steady, model)
            except (SamplingError, AssertionError) as error:
                self._blame("the steady server at the end", str(error))
        self._report.known_mib = self._known_mib(site)
        for where, samples in self._samples.items():
            if self._options.samples:
                write_samples(self._options.samples.with_suffix(f".{where.replace(' ', '-')}.csv"), samples)
            self._gate(where, samples)
        self._gate_of_deeds(site)
        for name, process in (("steady", site.steady), ("restarted", site.fragile)):
            output = process.output()
            lines = [line for line in output.splitlines() if any(worst in line for worst in _WORST_LINES)]
            self._blame(f"the log of the {name} server", *lines[:5])
        site.steady.process.terminate()
        code = site.steady.process.wait(60)
        if code:
            self._blame("the end of the steady server", f"it ended with {code}")

    def _gate(self, where, samples):
        """Whether the server leaked, and whether the gate would have seen it."""
        try:
            seconds = 60 * self._report.minutes
            found = self._report.growths[where] = growths(samples, Bounds(), seconds, self._report.known_mib)
            able = self._report.powers[where] = power(samples, Bounds(), seconds)
        except ValueError as error:
            self._blame(f"the leak gate {where}", str(error))
            return
        self._say(f"the leak gate {where}: {able}")
        self._blame(f"leak {where}", *[str(growth) for growth in found if growth.is_leak])
        if able.found < WANTED_POWER and self._report.minutes >= _ENOUGH_MINUTES:
            self._blame(f"the leak gate {where}", f"is too weak: {able}")

    def _known_mib(self, site):
        """What gRPC itself kept of the calls of the fuzzer and of the storms, over the whole run."""
        cancels = site.some(1_000) * len(self._report.faults.get("a_storm_of_cancels", ()))
        fuzzed = self._report.tally.codes().total()
        return (cancels * CANCELLED_BYTES + fuzzed * FUZZED_BYTES) / 1024**2

    def _gate_of_deeds(self, site):
        """Whether the server keeps something of what is done to it."""
        self._say("the leak gate by deeds")
        try:
            for added in added_by(DEEDS, site, self._rest):
                self._report.deeds.append(added)
                self._say(added)
                if added.is_leak:
                    self._blame("leak by deeds", str(added))
        except (SamplingError, AssertionError, OSError, grpc.RpcError) as error:  # TimeoutError is an OSError
            self._blame("the leak gate by deeds", f"{type(error).__name__}: {error}")

    def _check_quota(self, images):
        """A token got no more than its quota, the first minute's at once, and a message."""
        most = _FEW_IMAGES_PER_MINUTE * (self._report.minutes + 1) + _LARGEST_MESSAGE
        if not 0 < images <= most:
            self._blame("the quota", f"{images} images; {most:.0f} are allowed")

    def _control(self, models):
        self._say("the control of the leak gate")
        self._report.controls = run_control(models)
        for name, growth, is_right in self._report.controls:
            if not is_right:
                self._blame("the control of the leak gate", f"{name}: {growth}")

    def _blame(self, what, *texts):
        for text in texts:
            self._report.breaches.append(f"{what}: {text}")
            self._say(f"BROKEN: {what}: {text}")

    def _say(self, text):
        passed = int(time.monotonic() - self._started)
        print(f"{datetime.now(UTC):%H:%M:%S} {passed // 60:3d}:{passed % 60:02d} {text}", flush=True)


def _python(module, *arguments, env=None):
    """A module of this folder as a process whose output is read."""
    command = [sys.executable, "-m", f"tests.reliability.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main())
