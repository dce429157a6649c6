"""The tiers of tests: each test's marks come from what it uses, and a test that outgrows its tier fails.

`process`: its code, or that of a fixture or a helper that it uses, names the module `subprocess`, or it uses the
fixture `processes`. `training`: it uses the fixture `training`, as what trains or draws for seconds does.
`exporting`: it uses the fixture `exporting`. All else is fast: it may neither start a process, nor train for more
than 50 steps, nor export by torch, which takes seconds and is allowed in all other tiers. `long` alone is set by
hand.
"""

import functools
import inspect
import subprocess
import sys
import types

import pytest

STEPS_AT_MOST = 50
_LONG_SECONDS_AT_MOST = 900  # on a slow machine that other tests share, one took 194
_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})


class _Running:
    """The test that runs in this process, and what it may do."""

    may_start_processes = True
    may_train = True
    may_export = True
    steps = 0


@pytest.fixture(scope="session")
def processes():
    """Lets a test start processes where its code does not show that it does."""


@pytest.fixture(scope="session")
def training():
    """Lets a test train for more than 50 steps; what trains or draws for seconds uses it, too."""


@pytest.fixture(scope="session")
def exporting():
    """Lets a test export by torch."""


def pytest_configure(config):
    config.addinivalue_line("markers", "process: starts processes or uses a server; never set by hand")
    config.addinivalue_line("markers", "training: trains for more than 50 steps or for seconds; never set by hand")
    config.addinivalue_line("markers", "exporting: exports a generator by torch; never set by hand")
    sys.addaudithook(_refuse_processes)


def pytest_collection_modifyitems(items):
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs
        used = [item.function, *(definition.func for several in definitions.values() for definition in several)]
        if "processes" in item.fixturenames or any(starts_processes(function) for function in used):
            item.add_marker("process")
        for name in ("training", "exporting"):
            if name in item.fixturenames:
                item.add_marker(name)
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_LONG_SECONDS_AT_MOST))
    # The files of long tests come first, so that none is begun when the others end.
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _Running.may_start_processes = item.get_closest_marker("process") is not None
    if (trainer := sys.modules.get("bgan.trainer.training.trainer")) is not None:
        _count_steps(trainer.Trainer, "advance")
    if (classifier := sys.modules.get("bgan.trainer.evaluation.classifier")) is not None:
        _count_steps(classifier.Classifier, "forward")  # also called to describe images, but not in training mode
    if "torch" in sys.modules:
        _watch_exports()
    _Running.may_train, _Running.steps = item.get_closest_marker("training") is not None, 0
    _Running.may_export = any(map(item.get_closest_marker, ("exporting", "process", "training", "long")))
    try:
        return (yield)
    finally:
        _Running.may_start_processes = _Running.may_train = _Running.may_export = True


def _refuse_processes(event, arguments):
    if event in _STARTS and not _Running.may_start_processes:
        pytest.fail(f"this test starts a process ({event} {arguments[:1]}): let it use the fixture `processes`")


@functools.cache
def _count_steps(kind, name):
    step = getattr(kind, name)

    @functools.wraps(step)
    def counted(self, *arguments, **options):
        _Running.steps += getattr(self, "training", True)
        if _Running.steps > STEPS_AT_MOST and not _Running.may_train:
            pytest.fail(f"this test trains for more than {STEPS_AT_MOST} steps: let it use the fixture `training`")
        return step(self, *arguments, **options)

    setattr(kind, name, counted)


@functools.cache
def _watch_exports():
    import torch

    export = torch.onnx.export

    @functools.wraps(export)
    def watched(*arguments, **options):
        if not _Running.may_export:
            pytest.fail("this test exports by torch: let it use the fixture `exporting`")
        return export(*arguments, **options)

    torch.onnx.export = watched


@functools.cache
def starts_processes(function):
    """Whether a function, or anything of the tests that it names, names the module `subprocess`."""
    seen, left = set(), [function]
    while left:
        found = left.pop()
        if found is subprocess:
            return True
        if id(found) in seen or not (getattr(found, "__module__", None) or "").startswith("tests."):
            continue
        seen.add(id(found))
        if inspect.isclass(found):
            left += [member for kind in found.__mro__ for member in vars(kind).values() if callable(member)]
        elif isinstance(inner := inspect.unwrap(found), types.FunctionType):
            left += [inner.__globals__.get(name) for name in _names_of(inner.__code__)]
    return False


@functools.cache
def _names_of(code):
    """The global names that code uses, those of functions inside it included; and its attributes' names."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return frozenset(code.co_names).union(*map(_names_of, inner))
