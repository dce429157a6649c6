"""Errors name TLS where TLS is the trouble, and at once."""

import pytest

from bgan.clients import SamplingClient, ServerUnavailableError, tls_credentials
from tests.kit.certificates import Authority, write
from tests.kit.cli import bgan, error_line
from tests.kit.clients import Blocking
from tests.kit.servers import free_port, server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, authority = tmp_path_factory.mktemp("tls"), Authority()
    for name in ("server", "client"):
        certificate, key = authority.issue("localhost" if name == "server" else name)
        write(folder / f"{name}.pem", certificate)
        write(folder / f"{name}.key", key)
    write(folder / "ca.pem", authority.pem)
    write(folder / "other.pem", Authority("another one").pem)
    return folder


@pytest.fixture(scope="module")
def options(files):
    return ("--tls-certificate", files / "server.pem", "--tls-key", files / "server.key")


@pytest.fixture(scope="module")
def secure(small_models, options):
    with server(small_models, *options) as process:
        yield process


@pytest.fixture(scope="module")
def mutual(small_models, options, files):
    with server(small_models, *options, "--tls-client-ca", files / "ca.pem") as process:
        yield process


def problem(make_client, target, **options):
    """What a call says; with the default policy, it would go on for the ten seconds of the timeout."""
    with make_client(target, timeout_seconds=3600, **options) as client:
        with pytest.raises(ServerUnavailableError) as caught:
            client.list_models()
        with pytest.raises(ServerUnavailableError) as of_stream:
            list(client.sample_binary_images(image_count=1))
    assert str(caught.value).partition("TLS: ")[2] == str(of_stream.value).partition("TLS: ")[2]
    return str(caught.value).partition("TLS: ")[2]


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking], ids=["blocking", "asyncio"])
def test_what_does_not_fit_is_named(make_client, secure, mutual, running, files):
    trusting = tls_credentials(ca=files / "ca.pem")
    address = f"127.0.0.1:{secure.port}"
    assert "takes TLS alone" in problem(make_client, secure.target)
    assert "takes TLS alone" in problem(make_client, mutual.target)
    assert "speaks no TLS" in problem(make_client, running.target, credentials=trusting)
    assert "for another name" in problem(make_client, address, credentials=trusting)
    other = tls_credentials(ca=files / "other.pem")
    assert "no authority trusted here" in problem(make_client, address, credentials=other, server_name="localhost")
    assert "asks for a client's certificate" in problem(make_client, mutual.target, credentials=trusting)
    own = tls_credentials(ca=files / "ca.pem", certificate=files / "client.pem", key=files / "client.key")
    with make_client(mutual.target, credentials=own) as client:
        assert len(client.list_models()) == 1


def test_the_commands_name_it_too(secure, files):
    assert "TLS: the server takes TLS alone" in error_line(bgan("models", "--server", secure.target))
    result = bgan("models", "--server", secure.target, "--tls-ca", files / "ca.pem")
    assert result.returncode == 0, result.stderr
    assert "TLS: the server takes TLS alone" in error_line(bgan("health", "--server", secure.target))


def test_a_client_with_tls_is_told_of_a_plain_port(running):
    for command in ("models", "health"):
        result = bgan(command, "--server", running.target, "--tls", "--timeout", 1)
        assert "TLS: the server speaks no TLS; leave" in error_line(result)


def test_a_clients_certificate_comes_by_variables(mutual, files, tmp_path):
    own = {"BGAN_CLIENT_CERTIFICATE": str(files / "client.pem"), "BGAN_CLIENT_KEY": str(files / "client.key")}
    environment = {**own, "BGAN_TLS_CA": str(files / "ca.pem"), "BGAN_SERVER": mutual.target, "BGAN_TIMEOUT": "20"}
    for command in (
        ["models"],
        ["health", "--server", mutual.target],
        ["sample", "-n", 4, "-o", tmp_path / "x.npz"],
    ):
        result = bgan(*command, env=environment)
        assert result.returncode == 0, result.stderr
    assert bgan("models", env={**environment, "BGAN_CLIENT_KEY": ""}).returncode == 2


def test_a_server_that_is_not_there_is_no_matter_of_tls(files):
    for options in ({}, {"credentials": tls_credentials(ca=files / "ca.pem")}):
        with (
            SamplingClient(f"127.0.0.1:{free_port()}", timeout_seconds=0.1, **options) as client,
            pytest.raises(ServerUnavailableError) as caught,
        ):
            client.list_models()
        assert "TLS" not in str(caught.value)
