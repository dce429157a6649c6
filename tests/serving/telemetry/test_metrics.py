"""What a real scrape of a real server says after real calls."""

import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client import generate_latest

from bgan.clients import SamplingClient
from bgan.serving.telemetry.prometheus import registry_of_folder
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.cli import bgan_process
from tests.kit.servers import server
from tests.kit.waiting import eventually
from tests.reliability.metrics import scrape

Request = sampling_pb2.SampleBinaryImagesRequest
REASONS = {
    "deadline_passed",
    "internal",
    "invalid_request",
    "model_not_found",
    "not_allowed",
    "not_ready",
    "overloaded",
    "quota_spent",
    "request_late",
    "revision_not_served",
    "stalled_reader",
    "stopping",
    "unauthenticated",
}


def _eventually(process, name, value):
    end = time.monotonic() + 60
    while (found := scrape(process).get(name)) != value:
        assert time.monotonic() < end, f"{name} is {found}"
        time.sleep(0.05)


def _stub(channel):
    return sampling_pb2_grpc.SamplingServiceStub(channel)


def _sample(process, **fields):
    """A call on a connection of its own, which any of the workers may get."""
    with grpc.insecure_channel(process.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return len(list(_stub(channel).SampleBinaryImages(Request(**fields), timeout=60)))


def _infer(process, rows):
    with SamplingClient(process.target) as client:
        latents = np.zeros((rows, client.get_model("mlp-dbn").latent_size), np.float32)
    tensor = triton.InferInput("latents", list(latents.shape), "FP32")
    tensor.set_data_from_numpy(latents)
    with triton.InferenceServerClient(process.target) as client:
        client.infer("mlp-dbn", [tensor])


def test_images_batches_inferences_and_errors_are_counted(models):
    with server(models, "--metrics-port", 0) as process:
        before = scrape(process)
        assert before["bgan_images_total", "mlp-dbn"] == 0
        assert {labels[0] for name, *labels in before if name == "bgan_rejected_total"} == REASONS
        assert before["bgan_workers",] == before["bgan_ready_workers",] == 1
        messages = _sample(process, model="mlp-dbn", image_count=1000, batch_size=300)
        _sample(process, model="mlp-dbn", image_count=3)
        _infer(process, 5)
        for model in ("none", "neither"):
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                _sample(process, model=model, image_count=1)
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            _sample(process, image_count=0)
        after = scrape(process)
    assert after["bgan_images_total", "mlp-dbn"] == 1000 + 3 + 5
    assert after["bgan_batches_total", "mlp-dbn"] == messages + 1 + 1
    assert after["bgan_inference_seconds_count", "mlp-dbn"] == messages + 1 + 1
    assert after["bgan_inference_seconds_sum", "mlp-dbn"] > 0
    assert after["bgan_images_total", "mlp-sbn"] == after["bgan_inference_seconds_count", "mlp-sbn"] == 0
    rejected = {labels[0]: value for (name, *labels), value in after.items() if name == "bgan_rejected_total"}
    assert rejected == {**dict.fromkeys(REASONS, 0), "model_not_found": 2, "invalid_request": 1}
    assert not [name for name, *_ in after if name.endswith("_created")]


def test_streams_and_waiting_calls_are_seen_while_they_last(small_models):
    options = ("--metrics-port", 0, "--max-streams", 1, "--max-queued-calls", 1)
    with server(small_models, *options) as process, grpc.insecure_channel(process.target) as channel:
        running = _stub(channel).SampleBinaryImages(Request(image_count=10**9))
        next(running)
        assert scrape(process)["bgan_streams",] == 1
        waiting = _stub(channel).SampleBinaryImages(Request(image_count=1))
        _eventually(process, ("bgan_queued_calls",), 1)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            _sample(process, image_count=1)
        running.cancel()
        assert len(list(waiting)) == 1
        _eventually(process, ("bgan_streams",), 0)
        seen = scrape(process)
    assert seen["bgan_queued_calls",] == 0
    assert seen["bgan_queue_seconds_count",] == 1
    assert seen["bgan_queue_seconds_sum",] > 0
    assert seen["bgan_rejected_total", "overloaded"] == 1


def test_versions_and_broken_files_are_seen(small_models, other_models, tmp_path):
    shutil.copy(small_models / "sbn.onnx", tmp_path)
    with server(tmp_path, "--metrics-port", 0, "--model-poll-seconds", 0.05) as process:
        with SamplingClient(process.target) as client:
            first = client.get_model().revision
        assert scrape(process)["bgan_model_info", "sbn", first, "0"] == 1
        shutil.copy(other_models / "sbn.onnx", tmp_path)
        _eventually(process, ("bgan_model_info", "sbn", first, "0"), 0)
        with SamplingClient(process.target) as client:
            second = client.get_model().revision
        assert scrape(process)["bgan_model_info", "sbn", second, "0"] == 1
        (tmp_path / "sbn.onnx").write_bytes(b"broken")
        _eventually(process, ("bgan_model_failures",), 1)
        assert scrape(process)["bgan_model_info", "sbn", second, "0"] == 1


def test_a_lame_duck_is_seen_as_not_ready(small_models):
    with server(small_models, "--metrics-port", 0, "--lame-duck-seconds", 120) as process:
        _eventually(process, ("bgan_ready_workers",), 1)
        process.process.send_signal(signal.SIGTERM)
        _eventually(process, ("bgan_ready_workers",), 0)
        assert scrape(process)["bgan_workers",] == 1


def test_one_scrape_sees_all_workers_and_what_dead_ones_have_counted(small_models):
    with server(small_models, "--metrics-port", 0, "--workers", 2) as process:
        for _ in range(12):
            _sample(process, image_count=5)
        assert scrape(process)["bgan_images_total", "sbn"] == 60
        _eventually(process, ("bgan_ready_workers",), 2)
        assert scrape(process)["bgan_workers",] == 2
        pid = process.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with grpc.insecure_channel(process.target) as channel:
            stream = _stub(channel).SampleBinaryImages(Request(image_count=10**9))
            next(stream)
            assert scrape(process)["bgan_streams",] == 1
            eventually(lambda: scrape(process)["bgan_images_total", "sbn"] > 60)
            for worker in workers:
                os.kill(int(worker), signal.SIGKILL)
            _eventually(process, ("bgan_streams",), 0)
            with pytest.raises(grpc.RpcError):
                list(stream)
        counted = scrape(process)["bgan_images_total", "sbn"]
        assert counted > 60
        end = time.monotonic() + 60
        while process.output().count("is replaced") < 2:
            assert time.monotonic() < end, process.output()
            time.sleep(0.05)
        _sample(process, image_count=7)
        after = scrape(process)
        assert after["bgan_images_total", "sbn"] == counted + 7
        assert [value for (name, *_), value in after.items() if name == "bgan_model_info"] == [1]
        assert after["bgan_workers",] == 2
        assert process.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_metrics_port_that_is_taken_is_one_line(small_models, workers):
    with server(small_models, "--metrics-port", 0) as process:
        taken = re.search(r"metrics on http://\S+:(\d+)/", process.output())[1]
        options = ("--port", 0, "--workers", workers, "--metrics-port", taken)
        result = bgan_process("serve", "--models", small_models, *options)
    assert result.returncode == 1
    assert f"bgan: cannot listen on 127.0.0.1:{taken} for metrics" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_folder_of_another_programs_metrics_is_left_alone(small_models, tmp_path, name):
    """As gunicorn's; it need not even be there."""
    folder = tmp_path if name.isupper() else tmp_path / "nowhere"
    with server(small_models, "--metrics-port", 0, env={name: str(folder)}) as process:
        assert scrape(process)["bgan_workers",] == 1
    assert list(tmp_path.iterdir()) == []


def test_workers_without_a_folder_for_temporary_files_are_one_line(small_models):
    def write_no_file():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    options = ("--port", 0, "--workers", 2, "--metrics-port", 0)
    result = bgan_process("serve", "--models", small_models, *options, preexec_fn=write_no_file)
    assert result.returncode == 1
    assert "bgan: the metrics of several workers need a folder for temporary files" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_of_metrics_that_a_worker_has_just_made_hinders_no_scrape(tmp_path):
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "gauge_livesum_1.db").symlink_to("gone")
    assert generate_latest(registry_of_folder(tmp_path)) == b""
