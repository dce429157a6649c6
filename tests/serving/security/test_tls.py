"""TLS and mutual TLS, with real certificates, real servers and files that are replaced while they serve."""

import re
import ssl
import subprocess
import types

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.clients import AsyncSamplingClient, RetryPolicy, SamplingClient, ServerUnavailableError, tls_credentials
from bgan.serving.config.settings import ServerSettings
from bgan.serving.errors import StartError, UnauthenticatedError
from bgan.serving.security.client_certificates import ClientCertificates
from bgan.serving.security.tls import certificates_of
from bgan.serving.security.tokens import make_token
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.certificates import Authority, write
from tests.kit.cli import bgan, bgan_process
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually

ONCE = RetryPolicy(attempts=1)


class Files:
    """An authority, a certificate of it for localhost, and the options of a server that has it."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority()
        self.ca = write(folder / "ca.pem", self.authority.pem)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.renew()

    def renew(self, *names, authority=None, **arguments):
        certificate, key = (authority or self.authority).issue(*(names or ("localhost",)), **arguments)
        write(self.certificate, certificate)
        write(self.key, key)

    def client(self, name="client", **arguments):
        certificate, key = self.authority.issue(name, **arguments)
        return {
            "certificate": write(self.folder / f"{name}.pem", certificate),
            "key": write(self.folder / f"{name}.key", key),
        }

    @property
    def options(self):
        return "--tls-certificate", self.certificate, "--tls-key", self.key

    @property
    def mutual_options(self):
        return *self.options, "--tls-client-ca", self.ca


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Files that no test changes."""
    return Files(tmp_path_factory.mktemp("still"))


@pytest.fixture(scope="module")
def secure(small_models, still):
    """A server that has them."""
    with server(small_models, *still.options) as process:
        yield process


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def _images(target, **arguments):
    """A few images by a client of its own, so by a connection of its own."""
    with SamplingClient(target, retry=ONCE, **arguments) as client:
        return np.concatenate([batch.images for batch in client.sample_binary_images(image_count=3, seed=1)])


def _shown(process):
    """The serial number of the certificate that the server shows now."""
    content = ssl.get_server_certificate(("localhost", process.port), timeout=30)
    return x509.load_pem_x509_certificate(content.encode()).serial_number


async def test_both_services_and_both_clients_speak_tls_and_plaintext_is_refused(secure, still):
    credentials = tls_credentials(ca=still.ca)
    assert _images(secure.target, credentials=credentials).shape == (3, 1, 28, 28)
    async with AsyncSamplingClient(secure.target, credentials=credentials) as client:
        assert [info.name for info in await client.list_models()] == ["sbn"]
    with triton.InferenceServerClient(secure.target, creds=credentials) as client:
        assert client.is_server_ready()
    with pytest.raises(ServerUnavailableError):
        _images(secure.target)


def test_clients_refuse_other_authorities_and_other_names(secure, still):
    address = f"127.0.0.1:{secure.port}"  # of a name that has two, gRPC may say why the other one failed
    wrong = write(still.folder / "other.pem", Authority("another one").pem)
    with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        _images(address, credentials=tls_credentials(ca=wrong), server_name="localhost")
    credentials = tls_credentials(ca=still.ca)
    with pytest.raises(ServerUnavailableError, match=r"not match|Hostname|verification"):
        _images(address, credentials=credentials)
    assert _images(address, credentials=credentials, server_name="localhost").any()


def test_old_versions_of_tls_are_refused(secure):
    for version, is_taken in (("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
        command = ["openssl", "s_client", f"-{version}", "-connect", secure.target, "-alpn", "h2"]
        result = subprocess.run(command, input=b"", capture_output=True, check=False)
        found = re.search(rb"Cipher is (\S+)", result.stdout)
        assert found, result
        assert (found[1] != b"(NONE)") == is_taken, (version, result)


def test_new_certificates_are_shown_without_a_restart_and_those_that_are_no_good_are_not(small_models, files):
    with server(small_models, *files.options) as process:
        credentials = tls_credentials(ca=files.ca)
        with SamplingClient(process.target, retry=ONCE, credentials=credentials) as client:
            stream = client.sample_binary_images(image_count=40_000, seed=1, batch_size=200, timeout_seconds=None)
            next(stream)
            before = _shown(process)
            files.renew()
            eventually(lambda: _shown(process) != before)
            assert sum(map(len, stream)) == 39_800
        # Every one of the process's listeners has it.
        assert len({_shown(process) for _ in range(20)}) == 1
        before = _shown(process)
        for spoil, says in (
            (lambda: write(files.certificate, b"nonsense"), "server.pem holds no PEM certificate"),
            (lambda: files.renew(curve=ec.SECP256K1), "server.key is of a kind that gRPC does not accept"),
            (lambda: write(files.key, files.authority.issue("x")[1]), "server.key is not the key of"),
            (files.key.unlink, "server.key cannot be read (No such file or directory)"),
        ):
            spoil()
            eventually(lambda says=says: f"{says}" in process.output())
            assert process.output().splitlines()[-1].endswith("stay in force")
            assert _shown(process) == before
        assert _images(process.target, credentials=credentials).any()
        files.renew("localhost", days=-1)
        eventually(lambda: _shown(process) != before)
        eventually(lambda: "expired on" in process.output())  # it is shown before it is logged
        with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            # By its address: of a name that has two, gRPC may say why the other one failed.
            _images(f"127.0.0.1:{process.port}", credentials=credentials, server_name="localhost")


def test_mutual_tls_lets_in_only_clients_of_its_authorities_as_they_are_now(small_models, files):
    with server(small_models, *files.mutual_options) as process:

        def is_let_in(**client):
            try:
                return _images(process.target, credentials=tls_credentials(ca=servers, **client)).any()
            except ServerUnavailableError:
                return False

        servers = write(files.folder / "servers.pem", files.authority.pem)
        client = files.client()
        assert is_let_in(**client)
        assert not is_let_in()
        _check_commands(process, files, servers, client)
        files.authority = Authority("the next one")
        other = files.client("other")
        assert not is_let_in(**other)
        write(files.ca, files.authority.pem)
        eventually(lambda: is_let_in(**other))
        eventually(lambda: not is_let_in(**client))


def _session(files, client, cache):
    """Options and credentials of a client that resumes its sessions."""
    credentials = tls_credentials(ca=files.ca, **client)
    options = [("grpc.ssl_session_cache", cache), ("grpc.use_local_subchannel_pool", 1)]
    return credentials, options


@pytest.mark.parametrize("tokens", [False, True], ids=["plain", "tokens"])
def test_a_removed_client_certificate_ends_open_and_resumed_sessions(small_models, files, tokens):
    """Streams that run, calls on open connections, and new connections that resume a session, open methods too."""
    cache = cygrpc.SSLSessionCacheLRU(10)
    credentials, options = _session(files, files.client(), cache)
    both = files.authority.pem + Authority("the next one").pem
    write(files.ca, both)
    more, metadata = (), None
    if tokens:
        path = files.folder / "tokens.toml"
        token = make_token(path, "alice", models=["*"], images_per_minute=None, expires=None)
        more, metadata = ("--tokens", path), (("authorization", f"Bearer {token}"),)

    def call(channel):
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        return stub.ListModels(sampling_pb2.ListModelsRequest(), metadata=metadata, timeout=30)

    with (
        server(small_models, *files.mutual_options, *more) as process,
        grpc.secure_channel(process.target, credentials, options=options) as channel,
    ):
        assert call(channel).models
        request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**9, batch_size=10)
        stream = sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(request, metadata=metadata)
        next(stream)
        write(files.ca, both.removeprefix(files.authority.pem))
        for failing in (lambda: [None for _ in stream], lambda: call(channel)):
            with pytest.raises(grpc.RpcError) as caught:
                failing()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.details() == "the client certificate has expired, or its authority was removed"
        with pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def _context(*certificates):
    """As much of a call's context as tells its certificate, here one that it resumed its session with."""
    values = {"x509_pem_cert": [certificates[0]], "x509_pem_cert_chain": [b"".join(certificates[1:])]}
    return types.SimpleNamespace(auth_context=lambda: values)


def test_client_certificates_are_good_while_they_lead_to_an_authority(tmp_path):
    root, other = Authority("root"), Authority("other")
    between = root.intermediate("between")
    admitted = [root]

    def authorities():
        return known[tuple(admitted)]

    known = {(one,): tuple(x509.load_pem_x509_certificates(one.pem)) for one in (root, other, between)}
    clients = ClientCertificates(authorities)

    def is_good(*certificates):
        try:
            return clients.check(clients.of(_context(*certificates))) is None
        except UnauthenticatedError:
            return False

    direct, deep, old = root.issue("a")[0], between.issue("b")[0], root.issue("c", days=-1)[0]
    stray, own = other.issue("d")[0], Authority("own")
    assert is_good(direct)
    assert is_good(deep, between.pem)
    assert is_good(deep, other.pem, between.pem, root.pem)
    assert not is_good(deep)
    assert not is_good(old)
    assert not is_good(stray, other.pem)
    assert not is_good(own.pem)
    admitted[:] = [between]
    assert is_good(deep)
    assert not is_good(direct)
    admitted[:] = [other]
    assert not is_good(deep, between.pem)
    assert is_good(stray)


def test_an_expired_client_certificate_resumes_no_session(small_models, files):
    """gRPC does not look at it again then: its code, not a failed handshake, shows that each call is checked."""
    cache = cygrpc.SSLSessionCacheLRU(10)
    with server(small_models, *files.mutual_options) as process:
        credentials, options = _session(files, files.client(days=4 / 86400), cache)

        def code():
            with grpc.secure_channel(process.target, credentials, options=options) as channel:
                stub = sampling_pb2_grpc.SamplingServiceStub(channel)
                try:
                    stub.ListModels(sampling_pb2.ListModelsRequest(), timeout=30)
                except grpc.RpcError as error:
                    return error.code()
            return None

        assert code() is None
        eventually(lambda: code() is grpc.StatusCode.UNAUTHENTICATED)


def _check_commands(process, files, ca, client):
    at = ("--server", process.target)
    shown = ("--tls-certificate", client["certificate"], "--tls-key", client["key"])
    listed = bgan("models", *at, *shown, env={"BGAN_TLS_CA": str(ca)})
    assert "sbn" in listed.stdout, listed.stderr
    sampled = bgan("sample", *at, *shown, "--tls-ca", ca, "-n", 5, "-o", files.folder / "x.npz")
    assert sampled.returncode == 0, sampled.stderr
    assert "SERVING" in bgan("health", *at, *shown, "--tls-ca", ca).stdout
    here = (
        "health",
        "--server",
        f"127.0.0.1:{process.port}",
    )  # of two addresses gRPC may say why the other failed
    assert "of no authority trusted here; name one by --tls-ca" in bgan(*here, "--tls").stderr
    half = bgan("models", *at, "--tls-certificate", client["certificate"])
    assert half.returncode == 2
    assert "go together" in half.stderr


def test_every_worker_follows_the_files_and_the_server_here_is_asked_whatever_it_shows(small_models, files):
    files.renew("bgan.example.org")
    port = free_port()
    here = {"BGAN_PORT": str(port), "BGAN_TLS_CERTIFICATE": str(files.certificate)}
    with server(small_models, *files.options, "--workers", 2, port=port) as process:
        assert bgan("health", env=here).stdout.strip() == f"127.0.0.1:{port}: SERVING"
        before = _shown(process)
        files.renew("bgan.example.org")
        eventually(lambda: before not in {_shown(process) for _ in range(20)})
        credentials = tls_credentials(ca=files.ca)
        assert _images(process.target, credentials=credentials, server_name="bgan.example.org").any()
        write(files.certificate, b"nonsense")
        assert bgan("health", env=here).returncode == 0
    result = bgan("health", env=here)
    assert result.returncode == 1
    assert "shows no certificate" in result.stderr


def test_files_that_are_no_good_at_the_start_are_one_line(small_models, files):
    def error(**settings):
        with pytest.raises(StartError) as caught:
            certificates_of(ServerSettings(**settings))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    good = {"tls_certificate": files.certificate, "tls_key": files.key}
    encrypted = write(files.folder / "encrypted.key", files.authority.issue("localhost", password=b"x")[1])
    missing = files.folder / "missing.pem"
    assert "tls_key is not; name both" in error(tls_certificate=files.certificate)
    assert "tls_certificate is not; name both" in error(tls_key=files.key)
    assert "tls_client_ca needs TLS" in error(tls_client_ca=files.ca)
    assert "ca.pem holds no PEM private key" in error(**good | {"tls_key": files.ca})
    assert "server.key holds no PEM certificate" in error(**good | {"tls_certificate": files.key})
    assert "server.key holds no PEM certificate" in error(**good, tls_client_ca=files.key)
    assert "encrypted.key is encrypted" in error(**good | {"tls_key": encrypted})
    assert "is not the key of" in error(**good | {"tls_certificate": files.ca})
    assert "missing.pem cannot be read (No such file" in error(**good, tls_client_ca=missing)
    files.renew(curve=ec.SECP256K1)
    for workers in (1, 2):
        result = bgan_process("serve", "--models", small_models, "--port", 0, "--workers", workers, *files.options)
        assert result.returncode == 1
        assert "server.key is of a kind that gRPC does not accept" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["ca", "certificate", "key"])
def test_files_that_are_no_good_for_a_client_are_refused(files, kind):
    given = {"certificate": files.certificate, "key": files.key}
    with pytest.raises(ValueError, match="nonsense holds no PEM"):
        tls_credentials(**given | {kind: write(files.folder / "nonsense", b"x")})
    with pytest.raises(FileNotFoundError):
        tls_credentials(**given | {kind: files.folder / "missing"})
    with pytest.raises(ValueError, match="name both"):
        tls_credentials(certificate=files.certificate)
