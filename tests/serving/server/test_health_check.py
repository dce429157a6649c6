"""How service managers learn of the server's state: bgan health, and the socket of systemd."""

import json
import signal
import socket
import tempfile
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.kit.cli import bgan
from tests.kit.servers import free_port, server

SERVING = health_pb2.HealthCheckResponse.SERVING


def health(*arguments, **options):
    result = bgan("health", *arguments, **options)
    assert "Traceback" not in result.stderr
    return result


def test_a_server_and_its_models_are_serving(running):
    assert health("--server", running.target).stdout == f"{running.target}: SERVING\n"
    assert health("--server", running.target, "--model", "cnn-sbn").returncode == 0
    assert health("--server", running.target, "--timeout-seconds", "inf").returncode == 0
    result = health("--server", running.target, "--model", "none")
    assert (result.returncode, result.stdout) == (1, "")
    assert "model 'none' is not known" in result.stderr


def test_the_server_here_is_asked_as_its_settings_say(running, tmp_path):
    variables = {"BGAN_PORT": str(running.port), "BGAN_HOST": "0.0.0.0", "http_proxy": "http://127.0.0.1:9"}
    assert health(env=variables).stdout == f"localhost:{running.port}: SERVING\n"
    file = tmp_path / "server.toml"
    file.write_text(f"port = {running.port}\n")
    assert health("--config", file).stdout == f"127.0.0.1:{running.port}: SERVING\n"


def test_nobody_there():
    result = health("--server", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert "no answer about the server: UNAVAILABLE" in result.stderr


def test_a_name_that_no_model_can_have():
    result = bgan("health", "--server", "localhost:1", "--model", "x\udcff")
    assert result.returncode == 1
    assert r"model 'x\udcff' cannot be there" in result.stderr


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:99999", "http://a:1", "::1:50051", ":1", "a b:1", "unix:"]
)
def test_what_is_no_address_is_refused_before_the_first_try(address):
    assert f"'{address}' is no address of a server; use host:port" in health("--server", address).stderr


def test_a_token_goes_in_plaintext_to_this_machine_alone(running):
    token = {"BGAN_TOKEN": "bgan_alice_secret"}
    for address in (running.target, f"127.0.0.1:{running.port}"):
        assert health("--server", address, env=token).returncode == 0
    result = health("--server", "bgan.invalid:1", env=token)
    assert "the token would go to bgan.invalid:1 in plaintext" in result.stderr
    assert "secret" not in result.stderr
    assert "no answer" in health("--server", "bgan.invalid:1", "--plaintext-token", env=token).stderr


def test_no_answer_in_time():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        result = health("--server", f"127.0.0.1:{deaf.getsockname()[1]}", "--timeout-seconds", "0.2")
    assert result.returncode == 1
    assert "DEADLINE_EXCEEDED" in result.stderr


@pytest.fixture(params=["file", "abstract"])
def manager(request):
    """A socket such as systemd's, and its address for NOTIFY_SOCKET."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(Path(folder) / "notify")
        listener.bind(path if request.param == "file" else f"\0{path}")
        listener.settimeout(60)
        yield listener, path if request.param == "file" else f"@{path}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_manager_hears_of_the_start_and_of_the_stop(small_models, manager, workers):
    listener, address = manager
    options = ("--workers", workers, "--lame-duck-seconds", 300 if workers == 1 else 0)
    with server(small_models, *options, env={"NOTIFY_SOCKET": address}) as process:
        assert listener.recv(100) == b"READY=1"
        with grpc.insecure_channel(process.target) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest(), timeout=60).status == SERVING
        process.process.send_signal(signal.SIGTERM)
        assert listener.recv(100) == b"STOPPING=1"
        if workers == 1:
            with grpc.insecure_channel(process.target) as channel:  # a lame duck, once its watchers know
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                while next(watch).status == SERVING:
                    pass
                watch.cancel()
            result = health("--server", process.target)
            assert (result.returncode, result.stdout) == (1, "")
            assert "the server is NOT_SERVING" in result.stderr
        else:
            assert process.process.wait(60) == 0


def test_a_manager_that_is_gone_does_not_keep_the_server_from_serving(small_models, tmp_path):
    with server(small_models, env={"NOTIFY_SOCKET": str(tmp_path / "none")}) as process:
        assert health("--server", process.target).returncode == 0
        assert "the service manager cannot be told READY=1" in process.output()
        assert process.stop() == 0


def test_health_as_json(running):
    answer = json.loads(health("--server", running.target, "--json").stdout)
    assert answer == {"server": running.target, "model": None, "status": "SERVING", "reason": None}
    for options, status in (
        (("--server", running.target, "--model", "none"), "SERVICE_UNKNOWN"),
        (("--server", f"localhost:{free_port()}"), "UNREACHABLE"),
    ):
        result = health(*options, "--json")
        answer = json.loads(result.stdout)
        assert (result.returncode, answer["status"]) == (1, status)
        assert answer["reason"] in result.stderr
