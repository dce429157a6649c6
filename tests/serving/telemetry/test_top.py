"""`bgan top`: what it shows of a real server, and what it says where there is none."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from prometheus_client.samples import Sample

from bgan.clients import SamplingClient
from bgan.serving.telemetry.scrape import Scrape, ScrapeDelta
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import ROOT
from tests.kit.cli import BGAN, bgan
from tests.kit.servers import free_port, server

Request = sampling_pb2.SampleBinaryImagesRequest
READ = ("--stalled-write-seconds", 3600)  # one of the streams is never read


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server of a model in two versions, a broken file, and two places."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "digits").mkdir()
    for version in (3, 12):
        shutil.copy(ROOT / "serving" / "shipped" / "mlp-dbn.onnx", folder / "digits" / f"{version}.onnx")
    (folder / "broken.onnx").write_bytes(b"broken")
    with server(folder, "--metrics-port", 0, "--max-streams", 2, "--max-queued-calls", 0, *READ) as process:
        process.metrics = re.search(r"metrics on http://(\S+)/metrics", process.output())[1]
        yield process


@contextlib.contextmanager
def _two_streams_and_a_refused_call(process):
    with grpc.insecure_channel(process.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        streams = [stub.SampleBinaryImages(Request(image_count=10**9, seed=1)) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            list(stub.SampleBinaryImages(Request(image_count=1)))
        stop = threading.Event()
        reading = threading.Thread(target=lambda: [next(streams[0]) for _ in iter(stop.is_set, True)])
        reading.start()
        try:
            yield
        finally:
            stop.set()
            reading.join()


def test_one_look_shows_what_goes_on(watched):
    with SamplingClient(watched.target) as client:
        revision = client.get_model().revision
    with _two_streams_and_a_refused_call(watched):
        result = bgan("top", watched.metrics, "--once", "--interval", 2)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    text = result.stdout
    assert "\x1b" not in text
    assert re.search(r"images/s [1-9][\d,.]* ", text)
    assert re.search(r"streams 2   waiting 0   workers ready 1 of 1", text)
    first, second = re.findall(r"^.* [0-9a-f]{8} .*$|^ +3 .*$", text, re.M)
    cells = first.split()
    assert cells[:4] == ["digits", "12", revision[:8], "yes"]
    assert float(cells[4].replace(",", "")) > float(cells[5].replace(",", "")) > 0
    assert re.search(r"\d ms|\d s", first)
    assert second.split() == ["3", revision[:8]]
    assert "1 model file cannot be served; `bgan models` and the log say why" in text
    assert re.search(r"^overloaded +\S+ +1 *$", text, re.M)
    assert "no call left the queue" in text


def test_on_a_terminal_it_looks_again_and_again_until_ctrl_c(watched):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [BGAN, "top", watched.metrics, "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    try:
        seen = _read_until(leader, lambda text: text.count("bgan top") >= 4 and "▁▁" in text)
        process.send_signal(signal.SIGINT)
        seen += _read_to_the_end(leader)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert seen.startswith("\x1b[?1049h")  # the other screen,
    assert "\x1b[?1049l" in seen.rpartition("bgan top")[2]  # and back
    assert "Traceback" not in seen


def _read_until(terminal, is_enough):
    text, end = "", time.monotonic() + 120
    while not is_enough(text):
        assert time.monotonic() < end, text
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def _read_to_the_end(terminal):
    text = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody has the other side open any more
        while part := os.read(terminal, 65536):
            text += part
    return text.decode(errors="replace")


def test_it_waits_for_a_server_that_goes_away_and_comes_back(tmp_path):
    shutil.copy(ROOT / "serving" / "shipped" / "mlp-dbn.onnx", tmp_path)
    port = free_port()
    options = ("--metrics-port", port)
    with server(tmp_path, *options) as process:
        command = [BGAN, "top", f"127.0.0.1:{port}", "--interval", "0.2"]
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            _lines_until(watching, "workers ready 1 of 1")
            process.stop(signal.SIGKILL)
            _lines_until(watching, "does not answer")
            with server(tmp_path, *options):
                _lines_until(watching, "workers ready 1 of 1")
                watching.send_signal(signal.SIGINT)
                assert "Traceback" not in watching.communicate(timeout=60)[0]
            assert watching.returncode == 0
        finally:
            watching.kill()
            watching.communicate()


def _lines_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended before it showed {text!r}")


def _fails_with(*options, env=None, code=1):
    result = bgan("top", "--once", *options, env=env)
    assert result.returncode == code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:99999", "ftp://localhost/x", "http://"])
def test_an_address_that_is_none_is_one_line(address):
    expected = f"bgan: {address!r} is not the address of a metrics port; name one as localhost:9090"
    assert _fails_with(address, code=2) == expected


def test_where_nothing_listens_it_says_so():
    port = free_port()
    assert _fails_with(f"127.0.0.1:{port}") == (
        f"bgan: http://127.0.0.1:{port}/metrics does not answer (Connection refused); "
        "does the server run with --metrics-port?"
    )


def test_the_grpc_port_and_other_servers_are_told_from_a_metrics_port(watched):
    assert _fails_with(watched.target) == (
        f"bgan: http://{watched.target}/metrics does not answer in HTTP; is it the port of the service itself?"
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>\xff</html>" if self.path == "/page" else b"up 1\n")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        for url in (address, f"http://{address}/page"):
            assert _fails_with(url).endswith("shows no metrics of bgan; is it the port of another server?")
        other.shutdown()


def test_what_a_port_shows_commands_no_terminal():
    evil = "\x1b[2J[/nothing][red]"
    text = (
        f'bgan_model_info{{model="{evil}",version="1",revision="{evil}"}} 1\n'
        f'bgan_rejected_total{{reason="{evil}"}} 5\nbgan_workers 1\n'
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        result = bgan("top", f"127.0.0.1:{other.server_port}", "--once", "--interval", 0.1)
        other.shutdown()
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert result.stdout.count(r"\x1b[2J[/nothing][red]") == 2


def test_it_finds_the_server_of_its_machine_by_the_settings(watched):
    env = {"BGAN_METRICS_PORT": watched.metrics.rpartition(":")[2], "BGAN_METRICS_HOST": "0.0.0.0"}
    assert bgan("top", "--once", env=env).returncode == 0
    assert _fails_with() == "bgan: no metrics port is set here; name its address, as in bgan top localhost:9090"


def _histogram(counts, taken):
    buckets = [Sample("seconds_bucket", {"le": edge}, count) for edge, count in counts.items()]
    return Scrape({"seconds_bucket": buckets}, taken)


def test_quantiles_are_those_of_what_came_between_two_looks():
    before = _histogram({"0.1": 100, "0.2": 100, "+Inf": 100}, taken=0)
    now = _histogram({"0.1": 110, "0.2": 130, "+Inf": 140}, taken=10)
    change = ScrapeDelta(before, now)
    assert change.quantile(0.25, "seconds") == pytest.approx(0.1)
    assert change.quantile(0.5, "seconds") == pytest.approx(0.15)
    assert change.quantile(0.99, "seconds") == pytest.approx(0.2)
    assert ScrapeDelta(now, now).quantile(0.5, "seconds") is None


def test_a_counter_that_fell_began_anew():
    before, now = (
        Scrape({"images": [Sample("images", {}, value)]}, taken) for value, taken in ((900, 0), (30, 10))
    )
    assert ScrapeDelta(before, now).rate("images") == 3
