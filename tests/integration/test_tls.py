"""TLS and mutual TLS, with real certificates, real servers and files that are replaced while they serve."""

import re
import ssl
import subprocess
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509

from bgan.clients import (
    AsyncSamplingClient,
    RetryPolicy,
    SamplingClient,
    ServerUnavailableError,
    tls_credentials,
)
from tests.certificates import Authority, write
from tests.support import bgan, free_port, server

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

    def client(self, name="a client"):
        certificate, key = self.authority.issue(name)
        return {
            "certificate": write(self.folder / "client.pem", certificate),
            "key": write(self.folder / "client.key", key),
        }

    @property
    def options(self):
        return "--tls-certificate", self.certificate, "--tls-key", self.key

    @property
    def mutual_options(self):
        return *self.options, "--tls-client-ca", self.ca


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


def _eventually(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_both_services_and_both_clients_speak_tls_and_plaintext_is_refused(small_models, files):
    with server(small_models, *files.options) as process:
        credentials = tls_credentials(ca=files.ca)
        images = _images(process.target, credentials=credentials)
        assert images.shape == (3, 1, 28, 28)
        channel = triton.InferenceServerClient(process.target, creds=credentials)
        with channel as client:
            assert client.is_server_ready()
        with pytest.raises(ServerUnavailableError):
            _images(process.target)


async def test_the_asyncio_client_speaks_tls_too(small_models, files):
    with server(small_models, *files.options) as process:
        async with AsyncSamplingClient(process.target, credentials=tls_credentials(ca=files.ca)) as client:
            assert [info.name for info in await client.list_models()] == ["sbn"]


def test_a_client_refuses_other_authorities_other_names_and_certificates_that_have_ended(small_models, files):
    other = Authority("another one")
    with server(small_models, *files.options) as process:
        wrong = write(files.folder / "other.pem", other.pem)
        with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            _images(process.target, credentials=tls_credentials(ca=wrong))
        credentials = tls_credentials(ca=files.ca)
        with pytest.raises(ServerUnavailableError, match=r"not match|Hostname|verification"):
            _images(f"127.0.0.1:{process.port}", credentials=credentials)
        assert _images(f"127.0.0.1:{process.port}", credentials=credentials, server_name="localhost").any()
        assert "is good until" in process.output()
        before = _shown(process)
        files.renew("localhost", days=-1)
        _eventually(lambda: _shown(process) != before)
        assert "has ended on" in process.output()
        with pytest.raises(ServerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            _images(process.target, credentials=credentials)


def test_mutual_tls_lets_in_only_clients_of_its_authorities(small_models, files):
    with server(small_models, *files.mutual_options) as process:
        assert _images(process.target, credentials=tls_credentials(ca=files.ca, **files.client())).any()
        with pytest.raises(ServerUnavailableError):
            _images(process.target, credentials=tls_credentials(ca=files.ca))
        certificate, key = Authority("another one").issue("a stranger")
        stranger = {
            "certificate": write(files.folder / "stranger.pem", certificate),
            "key": write(files.folder / "stranger.key", key),
        }
        with pytest.raises(ServerUnavailableError):
            _images(process.target, credentials=tls_credentials(ca=files.ca, **stranger))


def test_new_certificates_are_shown_without_a_restart_and_streams_go_on(small_models, files):
    with server(small_models, *files.options) as process:
        credentials = tls_credentials(ca=files.ca)
        with SamplingClient(process.target, retry=ONCE, credentials=credentials) as client:
            stream = client.sample_binary_images(image_count=100_000, seed=1, batch_size=10)
            next(stream)
            before = _shown(process)
            files.renew()
            _eventually(lambda: _shown(process) != before)
            assert sum(map(len, stream)) == 99_990
        assert _images(process.target, credentials=credentials).any()
        # Every one of the process's listeners has it.
        assert len({_shown(process) for _ in range(20)}) == 1


def test_new_client_authorities_count_for_new_connections(small_models, files):
    with server(small_models, *files.mutual_options) as process:
        before = files.client()
        old_credentials = tls_credentials(ca=files.ca, **before)
        server_authority = write(files.folder / "servers.pem", files.authority.pem)
        files.authority = Authority("the next one")
        write(files.ca, files.authority.pem)
        new_credentials = tls_credentials(ca=server_authority, **files.client())

        def is_let_in(credentials):
            try:
                return _images(process.target, credentials=credentials).any()
            except ServerUnavailableError:
                return False

        _eventually(lambda: is_let_in(new_credentials))
        _eventually(lambda: not is_let_in(old_credentials))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda files: write(files.certificate, b"nonsense"), "server.pem holds no PEM certificate"),
        (lambda files: write(files.key, files.authority.issue("x")[1]), "server.key is not the key of"),
        (lambda files: files.key.unlink(), "server.key cannot be read (No such file or directory)"),
    ],
)
def test_files_that_are_no_good_keep_the_certificate_and_are_logged(small_models, files, spoil, says):
    with server(small_models, *files.options) as process:
        before = _shown(process)
        spoil(files)
        _eventually(lambda: says in process.output())
        assert "stay in force" in process.output()
        assert _shown(process) == before
        assert _images(process.target, credentials=tls_credentials(ca=files.ca)).any()
        files.renew()
        _eventually(lambda: _shown(process) != before)


def test_files_that_are_no_good_at_the_start_are_one_line(small_models, files):
    def line(*options):
        result = bgan("serve", "--models", small_models, "--port", 0, *options)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        return result.stderr.splitlines()[-1]

    encrypted = write(files.folder / "encrypted.key", files.authority.issue("localhost", password=b"x")[1])
    assert "tls_key is not; name both" in line("--tls-certificate", files.certificate)
    assert "tls_certificate is not; name both" in line("--tls-key", files.key)
    assert "tls_client_ca needs TLS" in line("--tls-client-ca", files.ca)
    assert "ca.pem holds no PEM private key" in line("--tls-certificate", files.certificate, "--tls-key", files.ca)
    assert "is encrypted" in line("--tls-certificate", files.certificate, "--tls-key", encrypted)
    assert "is not the key of" in line("--tls-certificate", files.ca, "--tls-key", files.key)
    missing = files.folder / "missing.pem"
    assert "missing.pem cannot be read" in line(*files.options, "--tls-client-ca", missing)
    assert "missing.pem cannot be read" in line(
        "--tls-certificate", missing, "--tls-key", files.key, "--workers", 2
    )


def test_every_worker_follows_the_files(small_models, files):
    with server(small_models, *files.options, "--workers", 2) as process:
        credentials = tls_credentials(ca=files.ca)
        assert _images(process.target, credentials=credentials).any()
        before = _shown(process)
        files.renew()
        _eventually(lambda: before not in {_shown(process) for _ in range(20)})
        assert _images(process.target, credentials=credentials).any()


def test_the_commands_speak_tls(small_models, files):
    client = files.client()
    shown = ("--tls-certificate", client["certificate"], "--tls-key", client["key"])
    with server(small_models, *files.mutual_options) as process:
        at = ("--server", process.target)
        trusted = ("--tls-ca", files.ca, *shown)
        listed = bgan("models", *at, *trusted)
        assert "sbn" in listed.stdout, listed.stderr
        output = files.folder / "x.npz"
        sampled = bgan("sample", *at, *shown, "-n", 5, "-o", output, env={"BGAN_TLS_CA": str(files.ca)})
        assert sampled.returncode == 0, sampled.stderr
        assert "SERVING" in bgan("health", *at, *trusted).stdout
        assert bgan("health", *at).returncode == 1
        half = bgan("models", *at, "--tls-certificate", client["certificate"])
        assert half.returncode == 2
        assert "go together" in half.stderr
        none = bgan("models", *at, "--tls-ca", client["key"])
        assert "holds no PEM certificate" in none.stderr


def test_the_health_of_the_server_here_is_asked_for_whatever_certificate_it_shows(small_models, files):
    files.renew("bgan.example.org")
    port = free_port()
    of_server = {"BGAN_PORT": str(port), "BGAN_TLS_CERTIFICATE": str(files.certificate)}
    with server(small_models, *files.options, port=port):
        result = bgan("health", env=of_server)
        assert result.returncode == 0, result.stderr
        write(files.certificate, b"nonsense")
        assert bgan("health", env=of_server).returncode == 0
    result = bgan("health", env=of_server)
    assert result.returncode == 1
    assert "shows no certificate" in result.stderr


def test_old_versions_of_tls_are_refused(small_models, files):
    with server(small_models, *files.options) as process:
        for version, is_taken in (("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
            command = ["openssl", "s_client", f"-{version}", "-connect", process.target, "-alpn", "h2"]
            result = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
            found = re.search(r"Cipher is (\S+)", result.stdout)
            assert (found is not None and found[1] != "(NONE)") == is_taken, (version, result.stdout)


def test_a_server_with_tls_still_answers_reflection_and_health(small_models, files):
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with (
        server(small_models, *files.options) as process,
        grpc.secure_channel(process.target, tls_credentials(ca=files.ca)) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]))
        assert "bgan.v1.SamplingService" in {each.name for each in answer.list_services_response.service}
