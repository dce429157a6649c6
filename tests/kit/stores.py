"""Real stores of the S3 protocol, and a proxy before one that does to its answers what stores do at times."""

import http.client
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.kit.servers import free_port
from tests.kit.waiting import eventually

KEY, SECRET = "a-user", "a-secret-of-40-characters-0123456789abcdef"
BUCKET = "bucket"


def s3_environment(port):
    """What tells s3fs, as all tools of S3, where the store is and who asks; each request is tried once."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(kind, folder):
    """The port of a store with an empty bucket: "moto", which admits all, or "nanio", which checks signatures."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip(kind, reason=f"{kind} is not installed; it is of the extra dev")
    port = free_port()
    commands = {
        "moto": ("moto.server", "-H", "127.0.0.1", "-p", str(port)),
        "nanio": ("nanio", "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)),
    }
    environment = {**os.environ, "NANIO_ACCESS_KEY": KEY, "NANIO_SECRET_KEY": SECRET}
    with open(folder / f"{kind}.log", "wb") as log:
        command = [sys.executable, "-m", *commands[kind]]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        eventually(lambda: _answers(port) or process.poll() is not None)
        assert process.poll() is None, (folder / f"{kind}.log").read_text()
        bucket(port).create_bucket(Bucket=BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


def bucket(port):
    """A client of the store, of another library than the one that is tested."""
    import boto3

    names = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **names)


def _answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return bool(connection.getresponse().status)
    except OSError:
        return False
    finally:
        connection.close()


@dataclass
class Answer:
    """What a store answers; `cut`: how many bytes of its body are sent before the connection is closed."""

    method: str
    path: str
    status: int
    headers: list
    body: bytes
    cut: int | None = None


@dataclass
class FaultyProxy:
    """Passes requests on to a port; `tamper` is called with each `Answer` on its way back, and may change it."""

    server_port: int
    tamper: object = None
    requests: list = field(default_factory=list)
    """The method and path of each."""

    def __enter__(self):
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self):
                proxy.requests.append((self.command, self.path))
                answer = proxy._ask(self)
                if proxy.tamper is not None:
                    proxy.tamper(answer)
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut])
                self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - names of http.server

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _ask(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=30)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP]
        if "content-length" not in {name.lower() for name, _ in kept}:
            kept.append(("Content-Length", str(len(content))))
        return Answer(request.command, request.path, response.status, [*kept, ("Connection", "close")], content)


_HOP = {"connection", "transfer-encoding", "keep-alive"}
