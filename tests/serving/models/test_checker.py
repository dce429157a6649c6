"""Files that are checked in other processes: slow ones, hungry ones, and failures of the moment. All is real."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bgan.serving.config.limits import MAX_MODEL_BYTES
from bgan.serving.errors import ModelFileError
from bgan.serving.generate.generate import open_model
from bgan.serving.models.checked import open_checked
from bgan.serving.models.checker import Checker
from bgan.serving.models.engine import load_engine
from bgan.serving.models.model_files import scan, snapshot
from bgan.serving.models.repository import Repository
from tests.kit.limits import no_files_left
from tests.kit.servers import server
from tests.kit.waiting import eventually, unreadable
from tests.serving.models.test_model_check import make

pytestmark = [
    pytest.mark.usefixtures("processes"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and leases are Linux's"),
]


@pytest.fixture
def checker():
    checker = Checker(MAX_MODEL_BYTES)
    yield checker
    checker.close()


def _write(path, model=None):
    path.write_bytes((make(manifest={"name": path.stem}) if model is None else model).SerializeToString())
    return snapshot(path)


def _check(checker, file):
    while (found := checker.take(file)) is None:
        checker.wait(60)
    return found


def _grows(size, nodes=(), last="grown"):
    """A small file that makes a square of numbers of the latents."""
    first = [
        helper.make_node("ReduceSum", ["latents"], ["sum"], keepdims=0),
        helper.make_node("Expand", ["sum", "square"], ["m0"]),
    ]
    end = [
        helper.make_node("ReduceMean", [nodes[-1].output[0] if nodes else "m0"], ["mean"], keepdims=0),
        helper.make_node("Add", ["wide", "mean"], ["grown"]),
    ]
    square = numpy_helper.from_array(np.array([size, size]), "square")
    return make(nodes=[*first, *nodes, *end], initializers=[square], last=last)


def _slow():
    """A file of a few kilobytes whose inference takes minutes."""
    return _grows(2048, [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(60)])


def test_what_is_found_is_what_this_process_would_find(checker, models, tmp_path):
    for path in models.glob("*.onnx"):
        found, engine = _check(checker, snapshot(path)), load_engine(path)
        assert (found.file_sha256, found.tile_rows, found.error) == (engine.file_sha256, engine.tile_rows, None)
        assert found.seconds_per_image > 0
    broken = tmp_path / "x.onnx"
    broken.write_bytes(b"broken")
    with pytest.raises(ModelFileError) as here:
        load_engine(broken)
    error = _check(checker, snapshot(broken)).error
    assert (error.message, error.detail, error.may_pass) == (here.value.message, here.value.detail, False)


def test_a_file_that_takes_too_long_is_given_up(checker, tmp_path):
    checker.cpu_seconds = 1
    found = _check(checker, _write(tmp_path / "slow.onnx", _slow()))
    assert "slow.onnx takes more than 1 s of a core to check" in found.error.message
    assert found.error.may_pass
    assert found.pause_seconds > 1
    assert _check(checker, _write(tmp_path / "good.onnx")).error is None


def test_a_file_that_takes_too_much_memory_is_given_up(checker, tmp_path):
    checker.memory_bytes = 2**30
    found = _check(checker, _write(tmp_path / "large.onnx", _grows(20_000)))
    assert "large.onnx needs more memory to run than the 1 GiB that it may take" in found.error.message
    assert found.error.may_pass
    constant = _constant_of(20_000)  # onnxruntime would compute it when it opens the file
    assert "memory" in _check(checker, _write(tmp_path / "folded.onnx", constant)).error.message


def _constant_of(size):
    nodes = [
        helper.make_node("ConstantOfShape", ["square"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["wide", "zero"], ["w"]),
    ]
    square = numpy_helper.from_array(np.array([size, size]), "square")
    return make(nodes=nodes, initializers=[square], last="w")


def test_a_process_that_ends_is_no_fact_of_the_file(checker, tmp_path):
    path = tmp_path / "x.onnx"
    file = _write(path)
    with unreadable(path):
        assert checker.take(file) is None
        (process,) = checker._processes
        os.kill(process.process.pid, signal.SIGKILL)
        found = _check(checker, file)
    assert "the process that tried it ended with -9" in found.error.message
    assert found.error.may_pass
    assert _check(checker, file).error is None


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(tmp_path):
    """Neither at the start nor later; and the end does not wait for it."""
    first = tmp_path / "a.onnx"
    _write(first)
    _write(tmp_path / "b.onnx")
    checker = Checker(MAX_MODEL_BYTES)
    checker.slow_seconds = 0.1
    repository = Repository(tmp_path, checker=checker)
    repository._patience_seconds = 1
    with unreadable(first):
        registry = repository.load()
        assert registry.names == ("b",)
        assert [failure.reason for failure in registry.failures] == ["a.onnx is still being checked"]
        _write(tmp_path / "c.onnx")
        eventually(lambda: (found := repository.poll()) is not None and found.names == ("b", "c"))
    eventually(lambda: (found := repository.poll()) is not None and found.names == ("a", "b", "c"))
    processes = [each.process for each in checker._processes]
    repository.close()
    assert [process.wait(10) for process in processes] == [-9] * len(processes)


def test_what_cannot_be_started_or_opened_for_a_moment_is_tried_at_every_look(tmp_path):
    _write(tmp_path / "a.onnx")
    checker = Checker(MAX_MODEL_BYTES)
    repository = Repository(tmp_path, checker=checker)
    repository.load()
    checker.close()  # so that the next one must be started
    checker = repository._checker = Checker(MAX_MODEL_BYTES)
    file = _write(tmp_path / "b.onnx")
    assert repository.poll() is None
    with no_files_left():
        assert [failure.model for failure in repository.poll().failures] == ["b"]
        assert repository.poll() is None  # as before
    assert repository.poll().names == ("a", "b")
    repository._patience_seconds = 0
    file = _write(tmp_path / "c.onnx")
    assert repository.poll() is None
    (process,) = checker._processes
    process.process.send_signal(signal.SIGSTOP)  # it is not done before it is asked
    assert repository.poll().names == ("a", "b")
    process.process.send_signal(signal.SIGCONT)
    eventually(lambda: checker.wait(0) or checker.has(file))  # it was checked; now it cannot be opened
    with no_files_left():
        assert "c.onnx cannot be read (Too many open files)" in repository.poll().failures[0].reason
    eventually(lambda: (found := repository.poll()) is not None and found.names == ("a", "b", "c"))
    repository.close()


def test_what_cannot_be_looked_at_is_taken_to_be_as_it_was(tmp_path, monkeypatch):
    """A folder without permissions, seen by someone who is not root."""
    (tmp_path / "m").mkdir()
    _write(tmp_path / "a.onnx")
    _write(tmp_path / "m" / "1.onnx")
    monkeypatch.chdir(tmp_path)
    before = scan(Path())
    assert {str(path) for path in before} == {"a.onnx", "m/1.onnx"}
    (tmp_path / "m").chmod(0)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert scan(Path(), before) == before
        assert {str(path) for path in scan(Path())} == {"a.onnx"}
    finally:
        os.seteuid(user)
        (tmp_path / "m").chmod(0o755)


def test_a_slow_model_keeps_neither_calls_nor_the_end_waiting(small_models, tmp_path):
    (tmp_path / "sbn.onnx").write_bytes((small_models / "sbn.onnx").read_bytes())
    slow = tmp_path / "slow.onnx"
    with server(tmp_path, "--model-poll-seconds", 0.1, "--grace-seconds", 1) as process:
        _write(slow)
        with unreadable(slow):
            eventually(lambda: "slow.onnx is still being checked" in process.output())
            (checking,) = _children(process.process.pid)
            _write(tmp_path / "good.onnx")
            eventually(lambda: "loaded good" in process.output())
            assert process.stop(signal.SIGTERM) == 0
        eventually(lambda: not os.path.exists(f"/proc/{checking}"))


def _children(pid):
    files = Path(f"/proc/{pid}/task").glob("*/children")  # of each thread
    return [int(child) for file in files for child in file.read_text().split()]


def test_what_counts_of_a_file_that_was_checked_is_its_content(checker, tmp_path):
    """A hard link and `chmod` change its times, and what it holds stays as it was checked."""
    path = tmp_path / "x.onnx"
    file = _write(path)
    found = _check(checker, file)
    (tmp_path / "link").hardlink_to(path)
    path.chmod(0o600)
    assert snapshot(path) != file
    assert open_checked(file, found, MAX_MODEL_BYTES).file_sha256 == found.file_sha256
    _write(path, make(manifest={"name": "y"}))
    with pytest.raises(ModelFileError, match="changed while it was read"):
        open_checked(file, found, MAX_MODEL_BYTES)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="is no regular file"):
        open_checked(file, found, MAX_MODEL_BYTES)


def test_generating_checks_alike(tmp_path):
    _write(tmp_path / "good.onnx")
    assert open_model("good", tmp_path).manifest.name == "good"
    nodes = [helper.make_node("RandomNormalLike", ["wide"], ["w"], dtype=TensorProto.FLOAT)]
    _write(tmp_path / "random.onnx", make(nodes=nodes, last="w"))
    with pytest.raises(ModelFileError, match=r"random\.onnx uses the operator 'RandomNormalLike'"):
        open_model("random", tmp_path)
