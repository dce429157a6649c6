"""Hosts that can be listened on, and why others cannot; ports are reserved for real."""

import socket

import pytest

from bgan.serving.config.addresses import in_brackets, own_address
from bgan.serving.errors import StartError
from bgan.serving.server.ports import reserved_port
from tests.kit.cli import bgan_process, error_line
from tests.kit.servers import free_port, server


def _has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_ipv6_has_brackets_before_a_port_and_names_have_none():
    assert [in_brackets(host) for host in ("::1", "[::1]", "[::1", "127.0.0.1", "localhost")] == [
        *("[::1]", "[::1]", "[::1]", "127.0.0.1", "localhost")
    ]
    assert own_address("::", 5) == own_address("[::]", 5) == own_address("0.0.0.0", 5) == "localhost:5"
    assert own_address("::1", 5) == "[::1]:5"


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nosuch.invalid", "'nosuch.invalid' is no known host"),
        ("unix:/run/bgan.sock", "'unix:/run/bgan.sock' is no known host"),
        ("http://localhost", "'http://localhost' is no known host"),
        ("", "'' is no known host"),
        ("x" * 64 + ".org", "is no known host"),
        ("*", "* is no address of this machine; --host 0.0.0.0 or [::] means all it has"),
        ("192.0.2.1", "192.0.2.1 is no address of this machine; --host 0.0.0.0 or [::] means all it has"),
    ],
)
def test_a_host_that_cannot_be_is_not_a_port_that_is_taken(host, says):
    with pytest.raises(StartError, match="cannot listen on ") as caught, reserved_port(host, 0):
        pass
    assert says in str(caught.value)
    assert "another server" not in str(caught.value)


def test_a_port_that_is_taken_is_told_from_a_host(small_models):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        with (
            pytest.raises(StartError, match=f"127.0.0.1:{port}; is another server there"),
            reserved_port("127.0.0.1", port),
        ):
            pass
        with pytest.raises(StartError, match="Choose another --port, or 0"), reserved_port("localhost", port):
            pass


@pytest.mark.parametrize("host", ["192.0.2.1", "nosuch.invalid"])
def test_the_host_of_metrics_has_its_own_option_in_the_message(small_models, host):
    line = error_line(
        bgan_process("serve", "--models", small_models, "--port", 0, "--metrics-port", 0, "--metrics-host", host)
    )
    assert line.startswith(
        f"bgan: cannot listen on {host}:0 for metrics: {host!r} is" if "no" in host else "bgan: "
    )
    assert "--metrics-host" in line


def test_the_port_of_http_has_its_own_option_in_the_message(small_models):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = error_line(bgan_process("serve", "--models", small_models, "--port", 0, "--http-port", port))
    assert line == (
        f"bgan: cannot listen on 127.0.0.1:{port} for HTTP; is another server there? "
        "Choose another --http-port, or 0 for a free one"
    )


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_served_with_and_without_brackets(small_models, host):
    with server(small_models, "--host", host) as process:
        assert f"serving on [{host}]:" in process.output()
        health = bgan_process("health", env={"BGAN_HOST": host, "BGAN_PORT": str(process.port)})
    assert health.stdout == f"{own_address(host, process.port)}: SERVING\n"
