"""A folder of models that changes while it is served: real files, and for the most part a real server."""

import logging
import os
import shutil
import threading
import time
from itertools import cycle

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgan.clients import ModelNotFoundError, RetryPolicy, RevisionChangedError, SamplingClient
from bgan.serving.config.limits import MAX_MODEL_BYTES
from bgan.serving.errors import ModelNotFoundError as NotFound
from bgan.serving.errors import RevisionNotServedError, StartError
from bgan.serving.models.checker import Checker
from bgan.serving.models.engine import load_engine
from bgan.serving.models.repository import Repository
from tests.kit.cli import bgan
from tests.kit.clients import Blocking
from tests.kit.proxies import breaking_proxy, byte_counts, digest_of
from tests.kit.servers import server
from tests.kit.waiting import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FAST = ("--model-poll-seconds", 0.05)
PATIENT = RetryPolicy(attempts=200, initial_backoff_seconds=0.02, max_backoff_seconds=0.1)


@pytest.fixture(scope="module")
def contents(small_models, other_models, models):
    """What model files hold: two of one name, and one of another."""
    paths = {"a": small_models / "sbn.onnx", "b": other_models / "sbn.onnx", "dbn": models / "mlp-dbn.onnx"}
    return {name: path.read_bytes() for name, path in paths.items()}


@pytest.fixture(scope="module")
def revisions(contents, tmp_path_factory):
    found = {}
    for name, content in contents.items():
        path = tmp_path_factory.mktemp("one") / "x.onnx"
        path.write_bytes(content)
        found[name] = load_engine(path).revision
    return found


_checker = Checker(MAX_MODEL_BYTES)  # of all, so that there is one process


@pytest.fixture(scope="module", autouse=True)
def _ends_checks(processes):
    yield
    _checker.close()


def _repository(folder, **options):
    return Repository(folder, checker=_checker, **options)


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time.time_ns(), time.time_ns()))  # clocks of files may be coarse


def _served(registry):
    return [(engine.manifest.name, engine.version, engine.revision) for engine in registry.engines]


def _settle(repository):
    """What is served after the two looks that a change takes."""
    found = [registry for registry in (repository.poll(), repository.poll()) if registry is not None]
    return found[-1] if found else repository._registry


# The folder, looked at by hand.


def test_both_layouts_are_found_and_the_rest_is_passed_over(tmp_path, contents, revisions):
    _write(tmp_path / "flat.onnx", contents["dbn"])
    _write(tmp_path / "digits" / "2.onnx", contents["a"])
    _write(tmp_path / "digits" / "10" / "model.onnx", contents["b"])
    for other in ("digits/0.onnx", "digits/01.onnx", "digits/latest.onnx", ".hidden.onnx", ".digits/3.onnx"):
        _write(tmp_path / other, b"never read")
    for other in ("digits/readme.md", "digits/11/weights.bin", "text.txt", "sub folder/1.onnx", "a/b/1.onnx"):
        _write(tmp_path / other, b"never read")
    registry = _repository(tmp_path, versions=5).load()
    assert _served(registry) == [
        ("digits", 10, revisions["b"]),
        ("digits", 2, revisions["a"]),
        ("mlp-dbn", 0, revisions["dbn"]),
    ]
    assert registry.failures == ()
    assert registry.default_engine.version == 10
    assert registry.find("digits", version=2).revision == revisions["a"]
    assert registry.find("digits", revision=revisions["a"]).version == 2
    assert registry.find("", version=2).revision == revisions["a"]
    with pytest.raises(NotFound, match="'digits' has no version 3; there is 10, 2"):
        registry.find("digits", version=3)
    with pytest.raises(NotFound, match="'mlp-dbn' has no version 3; there is one without a number"):
        registry.find("mlp-dbn", version=3)
    with pytest.raises(RevisionNotServedError) as caught:
        registry.find("digits", revision=revisions["dbn"])
    assert caught.value.metadata["revision"] == revisions["b"]


def test_only_the_highest_versions_that_can_be_served_are_loaded(tmp_path, contents):
    for version in (1, 2, 3, 4):
        _write(tmp_path / "m" / f"{version}.onnx", contents["a"] if version < 4 else b"broken")
    repository = _repository(tmp_path, versions=2)
    registry = repository.load()
    assert [engine.version for engine in registry.engines] == [3, 2]
    assert [(failure.model, failure.reason.split(" is no")[0]) for failure in registry.failures] == [
        ("m", "m/4.onnx")
    ]
    _write(tmp_path / "m" / "4.onnx", contents["b"])
    registry = _settle(repository)
    assert [engine.version for engine in registry.engines] == [4, 3]
    assert registry.failures == ()
    (tmp_path / "m" / "4.onnx").unlink()
    assert [engine.version for engine in _settle(repository).engines] == [3, 2]


def test_a_file_is_read_when_it_stays_as_it_is(tmp_path, contents, revisions):
    path = tmp_path / "m.onnx"
    _write(path, contents["a"])
    repository = _repository(tmp_path)
    repository.load()
    assert repository.poll() is None
    for share in (0.3, 0.6, 1):  # a copy that is still at it at every look
        _write(path, contents["b"][: int(share * len(contents["b"]))])
        assert repository.poll() is None
    registry = repository.poll()
    assert _served(registry) == [("sbn", 0, revisions["b"])]
    assert registry.failures == ()
    assert repository.poll() is None


def test_a_copy_that_stands_still_replaces_nothing(tmp_path, contents, revisions):
    path = tmp_path / "m.onnx"
    _write(path, contents["a"])
    repository = _repository(tmp_path)
    repository.load()
    _write(path, contents["b"][:-500])
    registry = _settle(repository)
    assert _served(registry) == [("sbn", 0, revisions["a"])]
    assert [failure.model for failure in registry.failures] == ["sbn"]
    assert registry.failures[0].reason.startswith("m.onnx ")
    with path.open("ab") as file:
        file.write(contents["b"][-500:])
    registry = _settle(repository)
    assert _served(registry) == [("sbn", 0, revisions["b"])]
    assert registry.failures == ()


def test_no_beginning_of_a_file_is_a_model(tmp_path, contents):
    """So that a file that is cut off never replaces a good one; the manifest comes last."""
    path = tmp_path / "m.onnx"
    content = contents["dbn"]
    _write(tmp_path / "good.onnx", contents["a"])
    repository = _repository(tmp_path)
    repository.load()
    for length in (1, 1000, len(content) // 2, *range(len(content) - 1200, len(content), 97), len(content) - 1):
        _write(path, content[:length])
        registry = _settle(repository)
        assert [engine.manifest.name for engine in registry.engines] == ["sbn"], length
        assert len(registry.failures) == 1


def test_a_model_that_is_gone_is_kept_for_those_who_have_its_revision(tmp_path, contents, revisions, caplog):
    caplog.set_level(logging.INFO)
    _write(tmp_path / "m.onnx", contents["a"])
    _write(tmp_path / "dbn.onnx", contents["dbn"])
    repository = _repository(tmp_path, keep_seconds=0.5)
    repository.load()
    (tmp_path / "m.onnx").unlink()
    assert repository.poll() is None  # it may be back in a moment
    registry = repository.poll()
    assert registry.names == ("mlp-dbn",)
    in_use = registry.find("sbn", revision=revisions["a"])
    eventually(lambda: (registry := repository.poll()) is not None and registry.kept_engines() == registry.engines)
    del registry
    assert "freed sbn" not in caplog.text
    del in_use  # its last stream ends
    assert f"freed sbn, revision {revisions['a']}" in caplog.text


def test_calls_put_off_when_a_kept_version_goes(tmp_path, contents, revisions):
    _write(tmp_path / "m.onnx", contents["a"])
    repository = _repository(tmp_path, keep_seconds=60)
    repository.load()
    _write(tmp_path / "m.onnx", contents["b"])
    registry = _settle(repository)
    (retired,) = registry._retired
    before = retired.until
    registry.find("sbn", revision=revisions["b"])
    assert retired.until == before
    registry.find("sbn", revision=revisions["a"])
    assert retired.until > before


def test_a_file_that_is_gone_for_a_moment_is_not_missed(tmp_path, contents, revisions):
    _write(tmp_path / "m.onnx", contents["a"])
    repository = _repository(tmp_path)
    repository.load()
    (tmp_path / "m.onnx").unlink()
    assert repository.poll() is None
    _write(tmp_path / "m.onnx", contents["b"])
    assert _served(_settle(repository)) == [("sbn", 0, revisions["b"])]


def test_a_folder_that_cannot_be_listed_changes_nothing(tmp_path, contents, caplog):
    folder = tmp_path / "models"
    _write(folder / "m.onnx", contents["a"])
    repository = _repository(folder)
    repository.load()
    folder.rename(tmp_path / "away")
    assert [repository.poll() for _ in range(3)] == [None] * 3
    assert "cannot be listed" in caplog.text
    (tmp_path / "away").rename(folder)
    assert [repository.poll() for _ in range(3)] == [None] * 3


def test_the_same_content_again_is_the_same_engine(tmp_path, contents):
    _write(tmp_path / "m.onnx", contents["a"])
    repository = _repository(tmp_path)
    (engine,) = repository.load().engines
    _write(tmp_path / "m.onnx", contents["a"])
    assert _settle(repository).engines == [engine]


def test_another_content_of_the_same_size_and_time_is_loaded(tmp_path, contents):
    """As `cp -p` writes it from files whose time is fixed."""
    path = tmp_path / "m.onnx"
    other = contents["a"].replace(b'"0.1.0"', b'"0.1.1"')
    assert other != contents["a"]
    repository, revisions = _repository(tmp_path), []
    for content, look in ((contents["a"], repository.load), (other, lambda: _settle(repository))):
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        revisions += [engine.revision for engine in look().engines]
    assert len(set(revisions)) == 2


def test_of_two_files_of_one_name_the_served_one_goes_on(tmp_path, contents, revisions):
    _write(tmp_path / "x.onnx", contents["b"])
    repository = _repository(tmp_path)
    repository.load()
    _write(tmp_path / "a.onnx", contents["a"])
    registry = _settle(repository)
    assert _served(registry) == [("sbn", 0, revisions["b"])]
    assert "both hold a model named 'sbn'" in registry.failures[0].reason
    (tmp_path / "x.onnx").unlink()
    registry = _settle(repository)
    assert _served(registry) == [("sbn", 0, revisions["a"])]
    assert registry.failures == ()


def test_folders_that_cannot_be_served(tmp_path, contents):
    with pytest.raises(StartError, match="is not a folder"):
        _repository(tmp_path / "missing").load()
    with pytest.raises(StartError, match=r"has no \.onnx file"):
        _repository(tmp_path).load()
    _write(tmp_path / "x.onnx", b"broken")
    with pytest.raises(StartError, match=r"x\.onnx is no ONNX model"):
        _repository(tmp_path).load()
    _write(tmp_path / "y.onnx", contents["a"])
    assert [engine.manifest.name for engine in _repository(tmp_path).load().engines] == ["sbn"]
    with pytest.raises(StartError, match="the default model 'x' is not there; there are sbn"):
        _repository(tmp_path, default_model="x").load()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["m.onnx", "m/1.onnx", "m/2.onnx", "m/2/model.onnx", "n/7.onnx"]),
                st.sampled_from(["a", "b", "dbn", None]),
            ),
            st.just("look"),
        ),
        max_size=10,
    )
)
def test_whatever_happens_the_folder_is_what_is_served_in_the_end(tmp_path_factory, contents, steps):
    folder = tmp_path_factory.mktemp("models")
    _write(folder / "always.onnx", contents["dbn"])
    repository = _repository(folder, versions=2)
    repository.load()
    for step in steps:
        if step == "look":
            repository.poll()
        elif step[1] is None:
            (folder / step[0]).unlink(missing_ok=True)
        else:
            _write(folder / step[0], contents[step[1]])
    found, fresh = _settle(repository), _repository(folder, versions=2).load()
    clashing = {failure.model for failure in fresh.failures}
    assert {failure.model for failure in found.failures} == clashing
    assert [each for each in _served(found) if each[0] not in clashing] == [
        each for each in _served(fresh) if each[0] not in clashing
    ]


# The folder of a running server.


@pytest.fixture
def folder(tmp_path, contents):
    _write(tmp_path / "m" / "1.onnx", contents["a"])
    return tmp_path


def test_streams_end_on_the_version_they_began_with_and_then_it_is_freed(folder, contents, revisions):
    options = (*FAST, "--model-keep-seconds", 0, "--model-versions", 1)
    with server(folder, *options) as process, SamplingClient(process.target) as client:
        batches = client.sample_binary_images(image_count=8_000, seed=1, include_probabilities=True)
        first = next(batches)
        assert (first.revision, client.get_model().version) == (revisions["a"], 1)
        for seed in range(3):  # some that are left before their end
            left = client.sample_binary_images(image_count=10**6, seed=seed)
            next(left)
            left.close()
        shutil.copyfile(_file(folder.parent, contents["b"]), folder / "m" / "2.onnx")
        eventually(lambda: client.get_model().version == 2)
        (new,) = client.sample_binary_images(image_count=5, seed=1)
        assert (new.revision, client.get_model().revision) == (revisions["b"], revisions["b"])
        with pytest.raises(ModelNotFoundError, match="'m' has no version 1; there is 2"):
            next(client.sample_binary_images(image_count=5, version=1))
        with pytest.raises(RevisionChangedError):  # the old version is kept by its streams alone
            next(client.sample_binary_images(image_count=5, revision=revisions["a"]))
        assert f"freed m version 1, revision {revisions['a']}" not in process.output()
        packed = b"".join(batch.packed_images.tobytes() for batch in [first, *batches])
        eventually(lambda: f"freed m version 1, revision {revisions['a']}" in process.output())
    assert packed == load_engine(folder / "m" / "1.onnx").sample(1, 0, 8_000).packed_images


def _file(folder, content):
    path = folder / "to copy.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])
def test_a_stream_that_breaks_goes_on_with_its_revision(make_client, folder, contents, revisions):
    """The connection breaks all the time, and in the middle another model takes over the file's name."""
    count = 3_000
    with (
        server(folder, *FAST) as process,
        breaking_proxy(process.port, byte_counts(1, 40_000)) as proxy,
        SamplingClient(process.target) as direct,
    ):
        whole = digest_of(direct.sample_binary_images(image_count=count, seed=3))

        def batches(client):
            for batch in client.sample_binary_images(image_count=count, seed=3, batch_size=10):
                yield batch
                if batch.first_index == 1_000:
                    _write(folder / "m" / "1.onnx", contents["b"])
                    eventually(lambda: direct.get_model().revision == revisions["b"])

        with make_client(proxy.target, retry=PATIENT) as client:
            assert digest_of(batches(client)) == whole
        assert proxy.connections > 2


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])
def test_a_revision_that_is_kept_no_more_is_refused(make_client, folder, contents, revisions):
    with server(folder, *FAST, "--model-keep-seconds", 0) as process, make_client(process.target) as client:
        _write(folder / "m" / "1.onnx", contents["b"])
        eventually(lambda: client.get_model().revision == revisions["b"])
        with pytest.raises(RevisionChangedError) as caught:
            next(client.sample_binary_images(image_count=9, first_index=7, revision=revisions["a"]))
        error = caught.value
        assert (error.expected_revision, error.revision, error.next_index) == (revisions["a"], revisions["b"], 7)
        assert error.code == grpc.StatusCode.FAILED_PRECONDITION


def test_a_broken_file_shows_and_the_good_one_goes_on(folder, contents, revisions):
    with server(folder, *FAST) as process, SamplingClient(process.target) as client:
        _write(folder / "m" / "2.onnx", contents["b"][:5_000])
        _write(folder / "n.onnx", b"no model")
        eventually(lambda: len(client.list_models().failures) == 2)
        assert client.get_model().revision == revisions["a"]
        listed = bgan("models", "--server", process.target)
        assert "m cannot be served: m/2.onnx is no ONNX model" in listed.stderr
        assert "n cannot be served: n.onnx is no ONNX model" in listed.stderr
        assert str(folder) not in listed.stdout + listed.stderr
        assert process.output().count("ERROR m cannot be served: m/2.onnx") == 1
        assert "; m stays as it was" in process.output()
        with grpc.insecure_channel(process.target) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            names = {"": SERVING, "bgan.v1.SamplingService/m": SERVING, "bgan.v1.SamplingService/n": NOT_SERVING}
            for name, status in names.items():
                assert check(health_pb2.HealthCheckRequest(service=name)).status == status
        _write(folder / "m" / "2.onnx", contents["b"])
        eventually(lambda: client.get_model().revision == revisions["b"])
        assert [failure.model for failure in client.list_models().failures] == ["n"]
        assert [model.version for model in client.list_models()] == [2, 1]
        assert [model.is_default for model in client.list_models()] == [True, False]
        (old,) = client.sample_binary_images(image_count=3, model="m", version=1)
        assert old.revision == revisions["a"]


def test_models_come_and_go_and_their_health_says_so(folder, contents):
    with server(folder, *FAST) as process, grpc.insecure_channel(process.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="bgan.v1.SamplingService/mlp-dbn")
        statuses = health.Watch(request, timeout=60)
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        _write(folder / "new.onnx", contents["dbn"])
        assert next(statuses).status == SERVING
        with SamplingClient(process.target) as client:
            assert len(next(client.sample_binary_images(image_count=5, model="mlp-dbn"))) == 5
            (folder / "new.onnx").unlink()
            assert next(statuses).status == NOT_SERVING
            with pytest.raises(ModelNotFoundError, match="there is no model 'mlp-dbn'; there are m"):
                next(client.sample_binary_images(image_count=5, model="mlp-dbn"))
        statuses.cancel()


def test_replacing_under_load_costs_no_call_and_mixes_nothing(folder, contents, revisions, tmp_path_factory):
    """Plain copies over the served file, half of them broken; every answer is whole and of one revision."""
    engines = {}
    for name in ("a", "b"):
        path = tmp_path_factory.mktemp("engine") / "x.onnx"
        path.write_bytes(contents[name])
        engines[revisions[name]] = load_engine(path)
    done, wrong, seen = threading.Event(), [], set()

    def call(target, count):
        with SamplingClient(target, retry=RetryPolicy(attempts=1)) as client:
            while not done.is_set():
                packed, used = b"", set()
                for batch in client.sample_binary_images(image_count=count, seed=count):
                    packed += batch.packed_images.tobytes()
                    used.add(batch.revision)
                (revision,) = used
                seen.add(revision)
                if packed != engines[revision].sample(count, 0, count).packed_images:
                    wrong.append((count, revision))

    with server(folder, *FAST) as process, SamplingClient(process.target) as client:
        failures = []
        threads = [
            threading.Thread(target=lambda count=count: _note(failures, call, process.target, count))
            for count in (1, 5, 700)
        ]
        for thread in threads:
            thread.start()
        for name in [name for name, _ in zip(cycle("ba"), range(6), strict=False)]:
            _write(folder / "m" / "1.onnx", contents[name][:9_000])
            eventually(lambda: client.list_models().failures)
            shutil.copyfile(_file(folder.parent, contents[name]), folder / "m" / "1.onnx")
            eventually(lambda name=name: client.get_model().revision == revisions[name])
        done.set()
        for thread in threads:
            thread.join()
        assert "Traceback" not in process.output()
    assert (failures, wrong) == ([], [])
    assert seen == set(engines)


def _note(failures, call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        failures.append(error)


def test_a_file_whose_name_is_not_utf8_is_served_or_said_to_be_broken(tmp_path, contents):
    folder = os.fsencode(tmp_path)
    for name, content in ((b"good\xff", contents["a"]), (b"bad\xfe", b"broken")):
        with open(folder + b"/" + name + b".onnx", "wb") as file:
            file.write(content)
    registry = _repository(tmp_path).load()
    assert registry.names == ("sbn",)
    (failure,) = registry.failures
    assert (failure.model, failure.reason) == (r"bad\udcfe", r"bad\udcfe.onnx is no ONNX model")
