"""A server whose models are in a store: real processes, a real store, and the time when it is away."""

import asyncio
import logging
import signal
import threading
from contextlib import ExitStack

import pytest

from bgan.clients import SamplingClient
from bgan.serving.config.settings import ServerSettings
from bgan.serving.errors import StoreError
from bgan.serving.server import store_follower
from bgan.serving.server.store_follower import StoreFollower
from tests.kit.cli import bgan_process, error_line
from tests.kit.proxies import digest_of
from tests.kit.servers import server
from tests.kit.stores import BUCKET, bucket, s3_environment, s3_server
from tests.kit.waiting import eventually

fsspec = pytest.importorskip("fsspec", reason="the extra s3 is not installed")


@pytest.fixture
def files():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def _settings(tmp_path, **options):
    return ServerSettings(
        models="memory://models", model_cache=tmp_path / "cache", model_poll_seconds=0, **options
    )


def test_a_server_waits_for_its_first_models(files, tmp_path):
    files.pipe_file("/models/a.onnx", b"a")
    follower = StoreFollower(_settings(tmp_path))
    asyncio.run(follower.start())
    assert (follower.folder / "a.onnx").read_bytes() == b"a"


def test_a_server_without_any_models_does_not_start(files, tmp_path):
    with pytest.raises(StoreError, match=r"^memory://models: "):
        asyncio.run(StoreFollower(_settings(tmp_path)).start())


def test_a_server_starts_with_the_models_of_before(files, tmp_path, caplog):
    files.pipe_file("/models/a.onnx", b"a")
    asyncio.run(StoreFollower(_settings(tmp_path)).start())
    files.store.clear()
    follower = StoreFollower(_settings(tmp_path))
    asyncio.run(follower.start())
    assert (follower.folder / "a.onnx").read_bytes() == b"a"
    assert any("its models stay as they are" in record.getMessage() for record in caplog.records)


def test_a_slow_store_keeps_no_server_from_starting(files, tmp_path, caplog, monkeypatch):
    files.pipe_file("/models/a.onnx", b"a")
    asyncio.run(StoreFollower(_settings(tmp_path)).start())
    files.pipe_file("/models/a.onnx", b"A")
    answers, find = threading.Event(), type(files).find

    def find_late(self, *given, **named):
        answers.wait()
        return find(self, *given, **named)

    monkeypatch.setattr(type(files), "find", find_late)
    monkeypatch.setattr(store_follower, "_PATIENCE_SECONDS", 0.01)
    follower = StoreFollower(_settings(tmp_path))
    asyncio.run(follower.start())
    assert "memory://models does not answer; the models fetched before are served" in caplog.text
    assert (follower.folder / "a.onnx").read_bytes() == b"a"
    answers.set()
    eventually(lambda: (follower.folder / "a.onnx").read_bytes() == b"A")


def test_a_store_that_is_away_is_told_once(files, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    files.pipe_file("/models/a.onnx", b"a")
    follower = StoreFollower(_settings(tmp_path))
    follower._sync()
    files.store.clear()
    for _ in range(3):
        follower._sync()
    files.pipe_file("/models/a.onnx", b"a")
    for _ in range(2):
        follower._sync()
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "its models stay as they are" in text]) == 1
    assert told.count("memory://models answers again") == 1


def test_a_bucket_is_served_while_it_changes_and_while_it_is_away(small_models, other_models, tmp_path):
    options = ("--model-poll-seconds", 0.1, "--model-cache", tmp_path / "cache")
    url = f"s3://{BUCKET}/models"
    first, second = ((folder / "sbn.onnx").read_bytes() for folder in (small_models, other_models))
    with ExitStack() as store:
        port = store.enter_context(s3_server("nanio", tmp_path))
        client, environment = bucket(port), s3_environment(port)
        client.put_object(Bucket=BUCKET, Key="models/digits/1.onnx", Body=first)
        with server(url, *options, env=environment) as process, SamplingClient(process.target) as caller:
            assert [model.version for model in caller.list_models().models] == [1]
            client.put_object(Bucket=BUCKET, Key="models/digits/2.onnx", Body=second)
            eventually(lambda: [model.version for model in caller.list_models().models] == [2, 1])
            digest = digest_of(caller.sample_binary_images(image_count=8, seed=1))
            store.close()
            eventually(lambda: "its models stay as they are" in process.output())
            assert digest_of(caller.sample_binary_images(image_count=8, seed=1)) == digest
            assert process.stop(signal.SIGTERM) == 0
    with server(url, *options, env=environment) as process, SamplingClient(process.target) as caller:
        assert digest_of(caller.sample_binary_images(image_count=8, seed=1)) == digest
        assert "its models stay as they are" in process.output()
    line = error_line(bgan_process("serve", "--models", f"{url}2", "--port", 0, env=environment, cwd=tmp_path))
    assert line.startswith(f"bgan: {url}2: Could not connect to the endpoint")
    assert "is it running, and is the endpoint right?" in line


@pytest.mark.long
def test_workers_share_what_one_process_fetches(small_models, other_models, tmp_path):
    url = f"s3://{BUCKET}/models"
    with s3_server("moto", tmp_path) as port:
        client, first, second = bucket(port), small_models / "sbn.onnx", other_models / "sbn.onnx"
        client.put_object(Bucket=BUCKET, Key="models/digits.onnx", Body=first.read_bytes())
        options = ("--workers", 2, "--model-poll-seconds", 0.1, "--model-cache", tmp_path / "cache")
        with server(url, *options, env=s3_environment(port)) as process, SamplingClient(process.target) as caller:
            (before,) = caller.list_models().models
            client.put_object(Bucket=BUCKET, Key="models/digits.onnx", Body=second.read_bytes())
            eventually(lambda: process.output().count("loaded") == 4)
            assert process.output().count("fetched") == 2
            (after,) = caller.list_models().models
            assert before.revision != after.revision
            assert process.stop(signal.SIGTERM) == 0
