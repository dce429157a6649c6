"""Several worker processes on one port."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.clients import RetryPolicy, SamplingClient
from bgan.serving.config.settings import ServerSettings
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.cli import BGAN
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually

Request = sampling_pb2.SampleBinaryImagesRequest
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def workers(models):
    with server(models, "--workers", 2, "--default-model", "mlp-dbn", "--grace-seconds", 2) as process:
        yield process


def _children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _channel(target):
    """A connection of its own: the kernel gives it to one of the workers."""
    return grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


def _bits(target, **fields):
    with _channel(target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        return b"".join(part.packed_images for part in stub.SampleBinaryImages(Request(**fields), timeout=60))


def _health(target):
    with _channel(target) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30).status


def _sockets(port, state):
    """How many sockets of a port are in a state; gRPC's are IPv6 ones, for IPv4 addresses too."""
    sockets = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()]
    return sum(fields[1].endswith(f":{port:04X}") and fields[3] == state for fields in sockets)


def _listening(process):
    """How many workers listen, each with its four sockets."""
    return _sockets(process.port, "0A") / 4


def test_all_workers_listen_and_give_the_same_bits(workers, models):
    assert len(_children(workers.process)) == 2
    assert _listening(workers) == 2
    expected = load_engine(models / "mlp-dbn.onnx").sample(5, 0, 50).packed_images
    assert {_bits(workers.target, seed=5, image_count=50) for _ in range(12)} == {expected}
    assert {_health(workers.target) for _ in range(12)} == {SERVING}


def test_an_address_given_several_times_is_several_connections(workers, models):
    with SamplingClient([workers.target] * 6) as client:
        batches = client.sample_binary_images(image_count=30_000, seed=4)
        bits = b"".join(batch.packed_images.tobytes() for batch in batches)
        assert _sockets(workers.port, "01") == 6
    assert bits == load_engine(models / "mlp-dbn.onnx").sample(4, 0, 30_000).packed_images


def test_a_dead_worker_is_replaced_and_the_others_serve_on(workers):
    expected = _bits(workers.target, seed=1, image_count=3)
    before = _children(workers.process)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: _listening(workers) == 1)
    assert _bits(workers.target, seed=1, image_count=3) == expected
    assert _health(workers.target) == SERVING
    eventually(lambda: _listening(workers) == 2)
    assert before[0] not in _children(workers.process)
    assert {_bits(workers.target, seed=1, image_count=3) for _ in range(12)} == {expected}
    assert {_health(workers.target) for _ in range(12)} == {SERVING}


@pytest.fixture
def spins(tmp_path):
    """Variables with which SIGUSR1 makes a process compute for ever in its main thread."""
    code = "import signal, sys\n\ndef spin(*_):\n    while True: pass\n\nsignal.signal(signal.SIGUSR1, spin)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("number", [signal.SIGSTOP, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)])
def test_a_worker_that_stands_still_or_spins_is_replaced(small_models, spins, number):
    with server(small_models, "--workers", 2, "--metrics-port", 0, env=spins) as process:
        before = _children(process.process)
        assert _gauges(process) == [2, 2]
        if number == signal.SIGSTOP:  # for a moment: it is not counted meanwhile
            os.kill(before[0], signal.SIGSTOP)
            eventually(lambda: _gauges(process) == [1, 1])
            os.kill(before[0], signal.SIGCONT)
            eventually(lambda: _gauges(process) == [2, 2])
            assert _children(process.process) == before
        os.kill(before[0], number)
        eventually(lambda: "did not answer for 5 s and was ended" in process.output())
        eventually(lambda: _gauges(process) == [2, 2])
        assert before[0] not in _children(process.process)
        assert before[1] in _children(process.process)
        assert {_health(process.target) for _ in range(12)} == {SERVING}
        assert process.stop() == 0


def _gauges(process):
    """How many workers run, and how many are ready, as the metrics say."""
    port = re.search(r"metrics on http://\S+:(\d+)/", process.output())[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return [float(re.search(rf"^{name} (\S+)$", text, re.M)[1]) for name in ("bgan_workers", "bgan_ready_workers")]


def test_workers_need_no_folder_for_temporary_files_without_metrics(small_models, tmp_path):
    with server(small_models, "--workers", 2, env={"TMPDIR": str(tmp_path)}) as process:
        assert _health(process.target) == SERVING
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_supervisor_left_is_removed_at_the_next_start(small_models, tmp_path):
    (tmp_path / "tokens.toml").touch()
    options = ("--workers", 2, "--metrics-port", 0, "--tokens", tmp_path / "tokens.toml")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with server(small_models, *options, env={"TMPDIR": str(temporary)}) as process:
        left = {path for path in _folders(process) if path.parent != temporary} | set(temporary.iterdir())
        assert len(left) == 2
        process.process.kill()
        process.process.wait()
    assert all(path.is_dir() for path in left)
    with server(small_models, *options, env={"TMPDIR": str(temporary)}) as process:
        assert not any(path.exists() for path in left)
        assert all(path.is_dir() for path in _folders(process))
        ours = _folders(process)
        assert process.stop() == 0
    assert not any(path.exists() for path in ours)


def _folders(process):
    """The folders that a worker was told of."""
    variables = Path(f"/proc/{_children(process.process)[0]}/environ").read_text().split("\0")
    names = ("BGAN_QUOTA_FOLDER=", "PROMETHEUS_MULTIPROC_DIR=")
    return {Path(variable.partition("=")[2]) for variable in variables if variable.startswith(names)}


@pytest.mark.long
def test_workers_with_any_number_of_models_start_follow_and_are_replaced(small_models, tmp_path):
    """Their names take more than the 64 KiB that asyncio reads as one line."""
    file, names = small_models / "sbn.onnx", [f"{number:03}-".ljust(128, "x") for number in range(520)]
    for name in names[:-1]:
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name / "1.onnx")
    with server(tmp_path, "--workers", 2, "--model-poll-seconds", 0.2) as process:
        (tmp_path / names[-1]).mkdir()
        shutil.copy(file, tmp_path / names[-1] / "1.onnx")
        eventually(lambda: process.output().count(f"loaded {names[-1]}") == 2)
        os.kill(_children(process.process)[0], signal.SIGKILL)
        eventually(lambda: "worker 0 is replaced" in process.output())
        with SamplingClient(process.target) as client:
            assert len(client.list_models()) == len(names)
        assert process.stop() == 0


@pytest.mark.long
def test_streams_and_calls_survive_the_random_deaths_of_workers(workers, models):
    """Contract 3 under mixed traffic: every image once, in order, and the bits of an engine alone."""
    count, deaths, done = 60_000, 5, threading.Event()
    rng = random.Random(3)
    expected = load_engine(models / "mlp-dbn.onnx").sample(9, 0, count).packed_images
    patient = RetryPolicy(initial_backoff_seconds=0.02, max_backoff_seconds=0.2)  # until the timeout
    wrong, killed = [], []

    def call_again_and_again(seed):
        alone = load_engine(models / "mlp-sbn.onnx")
        while not done.is_set():
            first_index, image_count = rng.randrange(10**9), rng.randint(1, 16)
            with SamplingClient(workers.target, retry=patient, timeout_seconds=300) as client:
                batches = client.sample_binary_images(
                    model="mlp-sbn", seed=seed, first_index=first_index, image_count=image_count
                )
                bits = b"".join(batch.packed_images.tobytes() for batch in batches)
            if bits != alone.sample(seed, first_index, image_count).packed_images:
                wrong.append((seed, first_index, image_count))

    callers = [threading.Thread(target=call_again_and_again, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    received, next_death = b"", count // (deaths + 1)
    with SamplingClient(workers.target, retry=patient, timeout_seconds=300) as client:
        for batch in client.sample_binary_images(image_count=count, seed=9, batch_size=50):
            assert batch.first_index == len(received) // 98
            received += batch.packed_images.tobytes()
            # A worker that is dying is still a child: to kill it again would be no death more.
            if batch.next_index >= next_death and (alive := set(_children(workers.process)) - set(killed)):
                killed.append(rng.choice(sorted(alive)))
                os.kill(killed[-1], signal.SIGKILL)
                next_death += count // (deaths + 1)
    done.set()
    for caller in callers:
        caller.join()
    assert received == expected
    assert wrong == []
    assert len(killed) >= deaths
    eventually(lambda: workers.output().count("ended with -9") == len(killed) and _listening(workers) == 2)


def test_all_workers_follow_the_folder(tmp_path, models):
    (tmp_path / "mlp-dbn.onnx").write_bytes((models / "mlp-dbn.onnx").read_bytes())
    with server(tmp_path, "--workers", 2, "--model-poll-seconds", 0.1) as process:
        (tmp_path / "mlp-sbn.onnx").write_bytes((models / "mlp-sbn.onnx").read_bytes())
        eventually(lambda: process.output().count("loaded mlp-sbn") == 2)
        expected = load_engine(models / "mlp-sbn.onnx").sample(5, 0, 50).packed_images
        assert {_bits(process.target, model="mlp-sbn", seed=5, image_count=50) for _ in range(12)} == {expected}
        os.kill(_children(process.process)[0], signal.SIGKILL)
        eventually(lambda: "worker 0 is replaced" in process.output())
        assert {_bits(process.target, model="mlp-sbn", seed=5, image_count=50) for _ in range(12)} == {expected}


def test_a_worker_that_cannot_have_the_models_of_the_others_does_not_replace(tmp_path, models):
    """The others hold a model whose file is broken by now; once it is mended the worker is replaced."""
    for name in ("mlp-dbn.onnx", "mlp-sbn.onnx"):
        (tmp_path / name).write_bytes((models / name).read_bytes())
    with server(tmp_path, "--workers", 2, "--model-poll-seconds", 0.1) as process:
        (tmp_path / "mlp-sbn.onnx").write_bytes(b"broken")
        eventually(lambda: process.output().count("mlp-sbn stays as it was") == 2)
        os.kill(_children(process.process)[0], signal.SIGKILL)
        eventually(lambda: "cannot be replaced: it loads other models" in process.output())
        assert _listening(process) == 1
        assert _health(process.target) == SERVING
        assert len(_bits(process.target, model="mlp-sbn", seed=1, image_count=3)) == 3 * 98
        (tmp_path / "mlp-sbn.onnx").write_bytes((models / "mlp-sbn.onnx").read_bytes())
        eventually(lambda: _listening(process) == 2)


def test_one_signal_stops_all_at_an_image_boundary(workers):
    children = _children(workers.process)
    channels = [_channel(workers.target) for _ in range(4)]
    endless = Request(seed=1, image_count=10**9, batch_size=8)
    calls = [sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(endless) for channel in channels]
    ends = []

    def read(call):
        count = next(call).image_count
        try:
            for response in call:
                count += response.image_count
        except grpc.RpcError as error:
            ends.append((count, error.code(), dict(error.trailing_metadata()).get("bgan-next-index")))

    threads = [threading.Thread(target=read, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert workers.stop() == 0
    for thread in threads:
        thread.join()
    assert [(code, index) for _, code, index in ends] == [
        (grpc.StatusCode.UNAVAILABLE, str(count)) for count, _, _ in ends
    ]
    assert len(ends) == 4
    assert not any(_alive(pid) for pid in children)
    for channel in channels:
        channel.close()


def test_a_workers_log_ends_without_waiting_for_its_own_standard_output(tmp_path):
    code = """
        import os, threading
        from bgan.serving.server import worker
        from bgan.serving.telemetry import log_writer

        def end(code, exit=os._exit):
            print([each.name for each in threading.enumerate() if each.name == "stderr"], flush=True)
            exit(code)

        log_writer._SECONDS_TO_STOP, os._exit = 5, end
        worker.main()
    """
    settings = ServerSettings(models=tmp_path / "none", port=free_port())
    arguments = [sys.executable, "-c", textwrap.dedent(code), "0", settings.as_argument()]
    ended = subprocess.run(arguments, check=True, capture_output=True, text=True, input="")
    assert ended.stdout.endswith("}\n[]\n"), ended.stderr


def test_no_worker_outlives_its_supervisor(workers):
    children = _children(workers.process)
    workers.process.kill()
    eventually(lambda: not any(_alive(pid) for pid in children))


def test_workers_that_cannot_start_are_one_line(tmp_path, workers, models):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    for folder, port, says in (
        (tmp_path, 0, "broken.onnx is no ONNX model"),
        (models, workers.port, f"cannot listen on 127.0.0.1:{workers.port}"),
    ):
        result = subprocess.run(
            [BGAN, "serve", "--models", str(folder), "--workers", "2", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = [line for line in result.stderr.splitlines() if " INFO " not in line]
        assert result.returncode == 1
        assert len(lines) == 1
        assert says in lines[0]
