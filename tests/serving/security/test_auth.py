"""Tokens: who is let in, to which models, for how many images; real servers, and a file that changes meanwhile."""

import shutil
import stat

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import InferenceServerException

from bgan.clients import (
    AsyncSamplingClient,
    PermissionDeniedError,
    RetryPolicy,
    SamplingClient,
    ServerOverloadedError,
    UnauthenticatedError,
    tls_credentials,
)
from bgan.serving.config.settings import ServerSettings
from bgan.serving.errors import NotReadyError, QuotaSpentError
from bgan.serving.errors import UnauthenticatedError as UnauthenticatedHere
from bgan.serving.security.auth import QUOTA_FOLDER_VARIABLE, Quota, build_authenticator, caller
from bgan.serving.security.tokens import make_token
from tests.kit.certificates import Authority, write
from tests.kit.cli import bgan, bgan_process
from tests.kit.servers import server
from tests.kit.waiting import eventually

ONCE = RetryPolicy(attempts=1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A file of tokens, and what was handed out."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return path, {
        "all": _make(path, "all"),
        "sbn": _make(path, "sbn", models=["*-sbn"]),
        "few": _make(path, "few", images_per_minute=600),
        "old": _make(path, "old", expires="past"),
    }


@pytest.fixture(scope="module")
def guarded(models, tokens):
    with server(models, "--tokens", tokens[0], "--default-model", "mlp-dbn") as process:
        yield process


def _make(path, name, **arguments):
    from datetime import UTC, datetime

    arguments = {"models": ["*"], "images_per_minute": None, "expires": None, **arguments}
    if arguments["expires"] == "past":
        arguments["expires"] = datetime(2020, 1, 1, tzinfo=UTC)
    return make_token(path, name, **arguments)


def _sample(process, token, *, model="mlp-dbn", count=3, **arguments):
    with SamplingClient(process.target, token=token, retry=ONCE, **arguments) as client:
        return sum(map(len, client.sample_binary_images(image_count=count, seed=1, model=model)))


def _infer(process, token, model="mlp-dbn", rows=2):
    tensor = triton.InferInput("latents", [rows, 128], "FP32")
    tensor.set_data_from_numpy(np.zeros((rows, 128), np.float32))
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with triton.InferenceServerClient(process.target) as client:
        return client.infer(model, [tensor], headers=headers).as_numpy("images")


def _is_let_in(process, token):
    try:
        return _sample(process, token) == 3
    except UnauthenticatedError:
        return False


@pytest.mark.parametrize("kind", ["none", "unknown", "changed", "old"])
def test_without_a_good_token_neither_service_lets_anybody_in(guarded, tokens, kind):
    good = tokens[1]["all"]
    token = {"none": None, "unknown": "bgan_nobody_00", "changed": good[:-1] + "x", "old": tokens[1]["old"]}[kind]
    says = {"none": "wants a token", "old": "has expired"}.get(kind, "unknown or was revoked")
    with SamplingClient(guarded.target, token=token, retry=ONCE) as client:
        for call in (
            client.list_models,
            client.get_model,
            lambda: list(client.sample_binary_images(image_count=1)),
            lambda: list(client.sample_binary_images(image_count=0)),
        ):
            with pytest.raises(UnauthenticatedError, match=says):
                call()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with pytest.raises(InferenceServerException, match=says) as caught:
        _infer(guarded, token)
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    with triton.InferenceServerClient(guarded.target) as client:
        for call in (
            lambda: client.is_model_ready("mlp-dbn", headers=headers),
            lambda: client.get_model_metadata("mlp-dbn", headers=headers),
            lambda: client.get_server_metadata(headers=headers),
        ):
            with pytest.raises(InferenceServerException, match=says):
                call()


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {} x"])
def test_authorizations_that_are_no_bearer_token_are_refused(guarded, tokens, value):
    from bgan.v1 import sampling_pb2, sampling_pb2_grpc

    metadata = (("authorization", value.format(tokens[1]["all"])),)
    with grpc.insecure_channel(guarded.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListModels(sampling_pb2.ListModelsRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListModels(sampling_pb2.ListModelsRequest(), metadata=metadata * 2)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            stub.Nothing = channel.unary_unary("/bgan.v1.SamplingService/Nothing")
            stub.Nothing(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_good_token_opens_both_services_to_every_client(guarded, tokens):
    token = tokens[1]["all"]
    assert _sample(guarded, token) == 3
    assert _infer(guarded, token).shape == (2, 1, 28, 28)
    async with AsyncSamplingClient(guarded.target, token=token) as client:
        assert len(await client.list_models()) == 3
        assert sum([len(batch) async for batch in client.sample_binary_images(image_count=2000, seed=1)]) == 2000
    with SamplingClient([guarded.target] * 2, token=token) as client:
        assert sum(map(len, client.sample_binary_images(image_count=5000, seed=1))) == 5000


def test_a_token_shows_and_opens_its_models_alone(guarded, tokens):
    token = tokens[1]["sbn"]
    assert _sample(guarded, token, model="mlp-sbn") == 3
    with SamplingClient(guarded.target, token=token, retry=ONCE) as client:
        assert [info.name for info in client.list_models()] == ["cnn-sbn", "mlp-sbn"]
        # Whether there is a model of a name it does not learn.
        for name in ("mlp-dbn", "no-such"):
            with pytest.raises(PermissionDeniedError, match=f"not good for the model '{name}'"):
                client.get_model(name)
            with pytest.raises(PermissionDeniedError):
                list(client.sample_binary_images(image_count=1, model=name))
        with pytest.raises(PermissionDeniedError, match="not good for the default model"):
            list(client.sample_binary_images(image_count=1))
        with pytest.raises(Exception, match="there are cnn-sbn, mlp-sbn") as caught:
            client.get_model("no-sbn")
        assert "dbn" not in str(caught.value)
    with pytest.raises(InferenceServerException) as failure:
        _infer(guarded, token)
    assert failure.value.status() == "StatusCode.PERMISSION_DENIED"
    headers = {"authorization": f"Bearer {token}"}
    with triton.InferenceServerClient(guarded.target) as client:
        assert client.is_model_ready("mlp-sbn", headers=headers)
        for name in ("mlp-dbn", "no-such"):
            with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
                client.is_model_ready(name, headers=headers)
            with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
                client.get_model_metadata(name, headers=headers)


def test_a_token_is_good_for_so_many_images_a_minute(models, tmp_path):
    path = tmp_path / "tokens.toml"
    token, other = (_make(path, name, images_per_minute=60) for name in ("few", "other"))
    streaming = _make(path, "streaming", images_per_minute=60_000)
    with server(models, "--tokens", path) as process:
        assert _sample(process, token, count=40) == 40
        assert len(_infer(process, token, rows=400)) == 400  # the rest, and a debt
        with pytest.raises(ServerOverloadedError, match="good for 60 images a minute") as caught:
            _sample(process, token)
        assert caught.value.retry_after_seconds > 60
        assert caught.value.reason == "QUOTA_SPENT"
        with pytest.raises(InferenceServerException) as failure:
            _infer(process, token)
        assert failure.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        with SamplingClient(process.target, token=token) as client:
            assert client.list_models()  # costs nothing
        assert _sample(process, other) == 3
        with SamplingClient(process.target, token=streaming, retry=ONCE) as client:
            stream = client.sample_binary_images(
                image_count=1_000_000, seed=1, batch_size=500, timeout_seconds=None
            )
            with pytest.raises(ServerOverloadedError) as caught:
                for _ in stream:
                    pass
        index = caught.value.next_index
        assert index >= 60_000
        assert index % 500 == 0
        with SamplingClient(process.target, token=streaming, timeout_seconds=120) as client:  # waits, and goes on
            batches = list(client.sample_binary_images(image_count=500, seed=1, first_index=index))
        assert sum(map(len, batches)) == 500


def test_the_file_is_followed_while_it_is_served(models, tmp_path):
    path = tmp_path / "tokens.toml"
    path.touch()
    with server(models, "--tokens", path) as process:
        assert "nobody is admitted" in process.output()
        first = _make(path, "first")
        eventually(lambda: _is_let_in(process, first))
        only_first = path.read_bytes()
        second = _make(path, "second")
        eventually(lambda: _is_let_in(process, second))
        write(path, path.read_bytes() + b"and nonsense")
        eventually(lambda: "is not TOML" in process.output())
        assert _is_let_in(process, first)
        assert _is_let_in(process, second)
        path.unlink()
        eventually(lambda: "tokens.toml cannot be read" in process.output())
        assert _is_let_in(process, second)
        with SamplingClient(process.target, token=second, retry=ONCE) as client:
            stream = client.sample_binary_images(
                image_count=100_000_000, seed=1, batch_size=10, timeout_seconds=120
            )
            next(stream)
            write(path, only_first)  # second is revoked: its streams end too
            with pytest.raises(UnauthenticatedError, match="unknown or was revoked"):
                for _ in stream:
                    pass
        assert not _is_let_in(process, second)
        assert _is_let_in(process, first)
        assert first not in process.output()


def test_all_workers_grant_the_images_together_and_speak_tls(models, tmp_path):
    path = tmp_path / "tokens.toml"
    token, few = _make(path, "all"), _make(path, "few", images_per_minute=1)
    authority = Authority()
    certificate, key = authority.issue("localhost")
    credentials = tls_credentials(ca=write(tmp_path / "ca.pem", authority.pem))
    options = (
        *("--tls-certificate", write(tmp_path / "server.pem", certificate)),
        *("--tls-key", write(tmp_path / "server.key", key)),
    )
    with server(models, "--tokens", path, *options, "--workers", 2, "--host", "0.0.0.0") as process:
        assert _sample(process, few, count=100, credentials=credentials) == 100  # one message, and a debt
        for _ in range(10):  # connections, of which each worker gets some
            assert _sample(process, token, credentials=credentials) == 3
            with pytest.raises(ServerOverloadedError):
                _sample(process, few, credentials=credentials)
            with pytest.raises(UnauthenticatedError):
                _sample(process, None, credentials=credentials)
        assert "plaintext" not in process.output()


async def test_tokens_change_as_a_whole_even_where_quotas_cannot_be_counted(tmp_path, monkeypatch):
    """The folder that workers share their quotas in is gone, and for a while it cannot be made again."""
    path, folder = tmp_path / "tokens.toml", tmp_path / "gone" / "quotas"
    monkeypatch.setenv(QUOTA_FOLDER_VARIABLE, str(folder))
    mallory = _make(path, "mallory")
    authenticator = build_authenticator(ServerSettings(tokens=path))
    before = _admit(authenticator, mallory)
    path.unlink()
    new = _make(path, "new", images_per_minute=10)
    for _ in range(2):
        await authenticator.poll()
    with pytest.raises(UnauthenticatedHere, match="revoked"):
        before.take(1)
    with pytest.raises(UnauthenticatedHere, match="revoked"):
        _admit(authenticator, mallory)
    holder = _admit(authenticator, new)
    with pytest.raises(NotReadyError, match="cannot be counted now"):
        holder.take(1)
    folder.parent.mkdir()
    holder.take(11)
    with pytest.raises(QuotaSpentError):
        holder.take(1)
    other = build_authenticator(ServerSettings(tokens=path))  # as another worker has it
    with pytest.raises(QuotaSpentError):
        _admit(other, new).take(1)


def test_a_quota_whose_file_is_removed_is_counted_on(tmp_path):
    path = tmp_path / "quotas" / "a"
    first, second = Quota(600, path), Quota(600, path)
    first.take(600 + 60)
    shutil.rmtree(path.parent)
    with pytest.raises(QuotaSpentError):
        first.take(1)
    assert path.exists()
    for quota in (second, Quota(600, path)):
        with pytest.raises(QuotaSpentError):
            quota.take(1)
    path.parent.joinpath("a").unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")
    with pytest.raises(QuotaSpentError):  # by what it still has
        first.take(1)
    with pytest.raises(NotReadyError):
        Quota(600, path).take(1)


class _Context:
    """As much of a call's context as tells who calls."""

    def __init__(self, token):
        self._token = token

    def invocation_metadata(self):
        return (("authorization", f"Bearer {self._token}"),)


def _admit(authenticator, token):
    authenticator.enter(_Context(token))
    return caller()


@pytest.mark.parametrize(
    ("host", "is_warned"), [("127.0.0.1", False), ("[::1]", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_tokens_in_plaintext_are_warned_of_where_others_can_listen(tokens, caplog, host, is_warned):
    build_authenticator(ServerSettings(tokens=tokens[0], host=host))
    assert ("tokens cross the network in plaintext" in caplog.text) is is_warned


def _health(process, token=None, service=""):
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(process.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        watched = next(iter(stub.Watch(request, metadata=metadata, timeout=30)))
        assert stub.Check(request, metadata=metadata).status == watched.status
        return watched.status


def test_health_and_reflection_are_open(guarded):
    assert _health(guarded) == health_pb2.HealthCheckResponse.SERVING
    with triton.InferenceServerClient(guarded.target) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
    assert "bgan.v1.SamplingService" in _reflected(guarded)


def test_health_and_reflection_can_be_closed(models, tokens):
    serving = health_pb2.HealthCheckResponse.SERVING
    closed = ("--health", "token", "--no-reflection")
    token = tokens[1]["all"]
    with server(models, "--tokens", tokens[0], *closed) as process:
        for wrong in (None, "bgan_nobody_00"):
            with pytest.raises(grpc.RpcError) as caught:
                _health(process, wrong)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert _health(process, token) == serving
        with pytest.raises(grpc.RpcError) as caught, grpc.insecure_channel(process.target) as channel:
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="no such"),
                metadata=(("authorization", f"Bearer {token}"),),
            )
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with triton.InferenceServerClient(process.target) as client:
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.is_server_live()
            assert client.is_server_ready(headers={"authorization": f"Bearer {token}"})
        with pytest.raises(grpc.RpcError) as caught:
            _reflected(process)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "SERVING" in bgan("health", "--server", process.target, env={"BGAN_TOKEN": token}).stdout
        assert bgan("health", "--server", process.target).returncode == 1
        assert "internal" not in process.output().lower()


def _reflected(process):
    with grpc.insecure_channel(process.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]))
        return {each.name for each in answer.list_services_response.service}


def test_health_for_tokens_needs_tokens(small_models):
    result = bgan_process("serve", "--models", small_models, "--port", 0, "--health", "token")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("there are no tokens; name their file with --tokens")
    result = bgan("serve", "--health", "closed")
    assert "--health: health is 'closed'; use one of open, token" in result.stderr


def test_the_commands_make_and_carry_tokens(models, tmp_path):
    path = tmp_path / "tokens.toml"
    made = bgan_process(
        "token",
        "create",
        "alice",
        "--tokens",
        path,
        "--model",
        "mlp-*",
        "--model",
        "cnn-sbn",
        "--images-per-minute",
        50,
        "--days",
        2,
    )
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert token.startswith("bgan_alice_")
    assert token not in made.stderr + path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = bgan("token", "create", "alice", env={"BGAN_TOKENS": str(path)})
    assert again.returncode == 1
    assert "has a token alice" in again.stderr
    assert bgan("token", "create", "bob", "--tokens", tmp_path / "no" / "x.toml").returncode == 1
    kept = tmp_path / "token"
    kept.write_text(made.stdout)
    with server(models, "--tokens", path) as process:
        at = ("--server", process.target)
        listed = bgan("models", *at, "--token-file", kept)
        assert "mlp-sbn" in listed.stdout, listed.stderr
        output = tmp_path / "x.npz"
        sampled = bgan("sample", *at, "-n", 5, "--model", "mlp-dbn", "-o", output, env={"BGAN_TOKEN": token})
        assert sampled.returncode == 0, sampled.stderr
        refused = bgan("models", *at)
        assert refused.returncode == 1
        assert "--token-file or BGAN_TOKEN" in refused.stderr
        kept.write_text("not a token\n")
        assert "the token is empty or has invalid characters" in bgan("models", *at, "--token-file", kept).stderr
