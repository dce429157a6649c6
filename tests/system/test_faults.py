"""Each fault of `make soak` once and on a small scale, and the gate that finds leaks."""

import dataclasses
import random

import pytest

from tests.fixtures.write import write_model
from tests.kit.servers import restarting_server, server
from tests.reliability.access import Guard
from tests.reliability.control import growths_of_calls, watched
from tests.reliability.deeds import CALLS as SMALL_CALLS
from tests.reliability.deeds import added_by
from tests.reliability.faults import FAULTS, Site
from tests.reliability.leaks import WANTED_POWER, Bounds, Sample, growths, power
from tests.reliability.machine import NotHereError
from tests.reliability.reference import Reference
from tests.reliability.rest import Rest

CALLS = 1_000


@pytest.fixture(scope="module")
def site(small_models, other_models, tmp_path_factory):
    folder, work = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("work")
    write_model(folder, "dbn")
    reference, versions = Reference(work, 8_000), {}
    reference.add(folder / "dbn.onnx")
    for models in (small_models, other_models):
        path = models / "sbn.onnx"
        versions[reference.add(path)] = path.read_bytes()
    (folder / "changing").mkdir()
    (folder / "changing" / "1.onnx").write_bytes(next(iter(versions.values())))
    guard = Guard.make(work, faults={})
    options = (*guard.options, "--metrics-port", 0, "--model-poll-seconds", 0.05, "--model-keep-seconds", 1)
    options += ("--http-port", 0)
    limits = ("--stalled-write-seconds", 2, "--max-streams", 300, "--max-streams-per-caller", 300)
    with (
        server(folder, *options, *limits) as steady,
        restarting_server(folder, *guard.options, "--workers", 2, "--grace-seconds", 0.5) as fragile,
    ):
        yield Site(
            steady, fragile, folder, ("dbn",), versions, reference, work, random.Random(6), guard, scale=0.1
        )


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_promises_hold_under(site, fault):
    try:
        fault(site)
    except NotHereError as why:
        pytest.skip(str(why))
    assert site.steady.process.poll() is None
    assert "Traceback" not in site.steady.output() + site.fragile.output()


@pytest.mark.parametrize(("kind", "figure"), [("memory", "allocated_mib"), ("files", "files")])
def test_a_server_that_leaks_is_found_out(small_models, kind, figure):
    found = {growth.name: growth for growth in growths_of_calls(small_models, kind, CALLS)}
    assert found[figure].is_leak, str(found[figure])


def test_the_server_does_not_leak(small_models):
    assert [str(growth) for growth in growths_of_calls(small_models, calls=CALLS) if growth.is_leak] == []


@pytest.mark.parametrize(("kind", "is_leak"), [("memory", True), ("none", False)])
def test_a_leak_is_found_by_the_deed_that_leaks(small_models, site, kind, is_leak):
    options = (*site.guard.options, "--metrics-port", 0)
    with server(small_models, *options, **watched(kind)) as leaking:
        place = dataclasses.replace(site, steady=leaking, folder=small_models)
        (added,) = added_by([SMALL_CALLS], place, Rest(leaking))
    assert added.is_leak == is_leak, str(added)


def _samples(allocated_mib):
    return [Sample(float(second), value, 200, 10, 4) for second, value in enumerate(allocated_mib)]


def test_peaks_are_no_leak_and_a_slope_is():
    rng = random.Random(1)
    noise = [rng.random() for _ in range(300)]
    peaks = [500 if second % 10 == 0 else 100 + noise[second] for second in range(300)]
    slope = [100 + noise[second] + second / 10 for second in range(300)]
    flat, rising = (growths(_samples(values), Bounds(allocated_mib=16))[0] for values in (peaks, slope))
    assert not flat.is_leak, str(flat)
    assert rising.is_leak
    assert rising.rise == pytest.approx(30, abs=2)
    assert rising.limits[0] < 30 < rising.limits[1]
    known = growths(_samples(slope), Bounds(allocated_mib=16), known_mib=20)[0]
    assert not known.is_leak, str(known)
    assert known.rise == pytest.approx(10, abs=2)
    with pytest.raises(ValueError, match="say nothing"):
        growths(_samples([1, 2]), Bounds())


def test_what_is_in_flight_does_not_hide_a_leak():
    """Most samples are of a moment with work: by medians the line would rise by its chances."""
    rng = random.Random(1)
    busy = [rng.random() * 60 if rng.random() < 0.7 else 0 for _ in range(900)]
    kept = [100 + rng.random() + second / 90 for second in range(900)]
    samples = _samples([held + flying for held, flying in zip(kept, busy, strict=True)])
    growth, able = growths(samples, Bounds())[0], power(samples, Bounds())
    assert growth.is_leak, str(growth)
    assert growth.rise == pytest.approx(10, abs=1)
    assert able.found >= WANTED_POWER, str(able)
    assert able.false <= 0.05


def test_the_power_of_the_gate_is_that_of_its_noise():
    rng = random.Random(1)
    quiet, loud = ([200 + rng.gauss(0, sigma) for _ in range(30)] for sigma in (2, 40))
    able, unable = (power(_samples(values), Bounds()) for values in (quiet, loud))
    assert able.found >= WANTED_POWER
    assert able.false <= 0.05
    assert able.smallest_mib <= 10
    assert unable.found < WANTED_POWER
    assert unable.smallest_mib > 10
