"""The HTTP port as the server's other port has it: who is let in, for how much, over TLS, and to the end."""

import json
import re
import signal
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest

from bgan.serving.models.engine import load_engine
from bgan.serving.security.tokens import make_token
from tests.conftest import FOLDER
from tests.kit.certificates import Authority, write
from tests.kit.servers import server
from tests.kit.waiting import eventually

IMAGES = "/v1/models/sbn/images?seed=1&format=bits"
ENDLESS = "/v1/models/sbn/images?seed=1&format=npy&count=1000000000"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    made = {
        "all": {},
        "mlp": {"models": ["mlp-*"]},
        "few": {"images_per_minute": 600},
        "old": {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
    }
    default = {"models": ["*"], "images_per_minute": None, "expires": None}
    return path, {name: make_token(path, name, **{**default, **given}) for name, given in made.items()}


@pytest.fixture(scope="module")
def guarded(models, tokens):
    with (
        server(
            models, "--tokens", tokens[0], "--http-port", 0, "--http-origins", "https://A.example:443"
        ) as process,
        httpx.Client(base_url=process.http, timeout=60) as client,
    ):
        yield client


def _bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("kind", ["none", "unknown", "old", "basic", "in the address"])
def test_without_a_good_token_nothing_is_answered(guarded, tokens, kind):
    says = {"none": "wants a token", "old": "has expired", "basic": "is not `Bearer TOKEN`"}
    headers = {
        "unknown": _bearer("bgan_x_00"),
        "old": _bearer(tokens[1]["old"]),
        "basic": {"authorization": "Basic x"},
    }
    query = f"?token={tokens[1]['all']}&access_token={tokens[1]['all']}" if kind == "in the address" else ""
    addresses = [
        "/v1/models",
        "/v1/models/mlp-dbn",
        "/v1/models/mlp-dbn/images",
        "/metrics",
        "/v2",
        "/v2/models/mlp-dbn",
    ]
    for address in (*addresses, "/v1/revisions/0/images", "/v2/models/mlp-dbn/ready"):
        response = guarded.get(address + query, headers=headers.get(kind, {}))
        assert response.status_code == 401, address
        assert response.headers["www-authenticate"] == "Bearer"
        assert says.get(kind, "wants a token" if query else "is unknown") in response.json()["detail"]
    assert guarded.post("/v2/models/mlp-dbn/infer", content=b"{", headers=headers.get(kind, {})).status_code == 401
    assert [guarded.get(f"/{name}").status_code for name in ("healthz", "readyz", "v2/health/live")] == [200] * 3


def test_a_token_covers_its_models_alone(guarded, tokens):
    headers = _bearer(tokens[1]["mlp"])
    listed = guarded.get("/v1/models", headers=headers).json()["models"]
    assert [each["model"]["name"] for each in listed] == ["mlp-dbn", "mlp-sbn"]
    for address in ("/v1/models/cnn-sbn/images", "/v1/models/nope/images", "/v1/models/cnn-sbn"):
        assert guarded.get(address, headers=headers).status_code == 403
    revision = load_engine(FOLDER / "models" / "cnn-sbn.onnx").revision
    address = f"/v1/revisions/{revision}/images?seed=1"
    hidden, unknown = (
        guarded.get(each, headers=headers) for each in (address, address.replace(revision, "0" * 32))
    )
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["detail"].replace(revision, "0" * 32) == unknown.json()["detail"]
    assert guarded.get(address, headers=_bearer(tokens[1]["all"])).headers["cache-control"].startswith("private,")
    assert guarded.get("/metrics", headers=headers).status_code == 403
    assert "bgan_images_total" in guarded.get("/metrics", headers=_bearer(tokens[1]["all"])).text


def test_images_of_a_minute_that_are_spent_are_waited_for(guarded, tokens):
    address = "/v1/models/mlp-dbn/images?count=700&format=bits"
    assert guarded.get(address, headers=_bearer(tokens[1]["few"])).status_code == 200
    spent = guarded.get(address, headers=_bearer(tokens[1]["few"]))
    assert spent.status_code == 429
    assert 1 <= int(spent.headers["retry-after"]) <= 60
    assert "good for 600 images a minute" in spent.json()["detail"]


def test_pages_of_named_servers_may_read_the_answers_and_no_others(guarded, tokens, http):
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
        asked = guarded.get("/v1/models", headers={**_bearer(tokens[1]["all"]), "origin": origin})
        assert asked.headers.get("access-control-allow-origin") == allowed
        before = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, inference-header-content-length",
        }
        preflight = guarded.options("/v2/models/mlp-dbn/infer", headers=before)
        assert preflight.is_success == (allowed is not None)
        assert preflight.headers.get("access-control-allow-origin") == allowed
    closed = http.get("/v1/models", headers={"origin": "https://a.example"})
    assert not [name for name in closed.headers if name.startswith("access-control")]


def test_a_cache_keeps_no_answer_for_pages_of_servers_it_is_not_for(guarded, tokens, http):
    headers = _bearer(tokens[1]["all"])
    for origin in ({}, {"origin": "https://a.example"}, {"origin": "https://b.example"}):
        assert guarded.get("/v1/models", headers={**headers, **origin}).headers["vary"] == "Origin"
    negotiated = guarded.head("/v1/models/mlp-dbn/images?seed=1", headers=headers)
    assert negotiated.headers["vary"] == "Accept, Origin"
    assert "vary" not in http.get("/v1/models").headers


def test_a_call_has_its_callers_request_id(web, http):
    given = http.get("/v1/models/mlp-dbn/images?count=x", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    line = r"WARNING images INVALID_ARGUMENT in .* s, request mine-1 from ipv4:127.0.0.1:\d+: count: is 'x'"
    eventually(lambda: re.search(line, web.output()))
    made = [http.get("/v1/models", headers={"x-request-id": bad}).headers["x-request-id"] for bad in ("", "a b")]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


def test_what_is_not_there_is_said_in_the_same_words(http):
    missing = http.get("/v1/nothing%0Ahere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json()["detail"] == "there is nothing at /v1/nothing\\nhere; /openapi.json says what there is"
    refused = http.delete("/v1/models")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}
    for address, fields in (("/v1/models", "page_size, page_token"), ("/v1/models/mlp-dbn", "none")):
        problem = {"field": "name", "detail": f"is no field of this address; it has {fields}"}
        assert http.get(f"{address}?name=x").json()["errors"] == [problem]
    for name in ("range", "accept", "body", "content-encoding"):  # of headers they would have other statuses
        assert http.get(f"/v1/models/mlp-dbn/images?{name}=x").status_code == 400
    assert http.get("/v1/models/").status_code == 404  # no redirect, which would trust the host that was named


def _talk(process, data, *, read=65536):
    """What the server answers to bytes, until it closes or `read` bytes have come."""
    host, port = process.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(data)
        answer = b""
        while len(answer) < read and (more := connection.recv(65536)):
            answer += more
        return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without a host
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n folded: y\r\nx\x00y: z\r\n\r\n",
        b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 4000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(web, request_bytes):
    answer = _talk(web, request_bytes)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")), answer
    assert b"connection: close" in answer.lower()
    assert b'"detail": "Invalid HTTP request received. Send HTTP/1.1' in answer


def test_requests_follow_each_other_on_a_connection(web):
    one = b"GET /v1/models/mlp-dbn/images?seed=1&count=2&format=bits HTTP/1.1\r\nhost: x\r\n\r\n"
    last = one.replace(b"host: x", b"host: x\r\nconnection: close")
    answer = _talk(web, one * 20 + last, read=10**9)
    bits = load_engine(FOLDER / "models" / "mlp-dbn.onnx").sample(1, 0, 2).packed_images
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert answer.count(b"\r\n\r\n" + bits) == 21
    assert answer.endswith(bits)


def test_nothing_is_read_after_a_request_with_two_lengths(web):
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    lengths = b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(smuggled))
    answer = _talk(web, b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + lengths + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()


def test_a_call_ends_with_its_connection(web):
    before = web.output()
    host, port = web.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(b"GET /v1/models/mlp-dbn/images?count=1000000&seed=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(10).startswith(b"HTTP/1.1 2")
        with httpx.Client(base_url=web.http) as client:
            assert _gauge(client, "bgan_streams") == 1
            sent = _gauge(client, r'bgan_images_total\{model="mlp-dbn"\}')
    with httpx.Client(base_url=web.http) as client:
        eventually(lambda: _gauge(client, "bgan_streams") == 0)
        assert _gauge(client, r'bgan_images_total\{model="mlp-dbn"\}') < sent + 500_000  # of a million
    assert "ERROR" not in web.output().removeprefix(before)


def _gauge(client, name):
    return float(re.search(rf"^{name} (\S+)", client.get("/metrics").text, re.M)[1])


def test_a_reader_who_takes_nothing_is_not_written_ahead_for_and_is_ended(small_models):
    with server(small_models, "--http-port", 0, "--stalled-write-seconds", 1, "--log-calls", "all") as process:
        host, port = process.http.removeprefix("http://").split(":")
        with socket.socket() as connection, httpx.Client(base_url=process.http) as client:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(f"GET {ENDLESS} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            eventually(lambda: "images UNAVAILABLE in " in process.output())
            assert "what was sent was not read for too long; resume from first_index" in process.output()
            sent = float(
                re.search(r'^bgan_images_total\{model="sbn"\} (\S+)', client.get("/metrics").text, re.M)[1]
            )
            assert sent < 10**6  # of a billion
            assert _gauge(client, "bgan_streams") == 0


def test_an_answer_that_nobody_takes_ends_its_call_and_its_connection(small_models):
    latent_size = load_engine(next(small_models.glob("*.onnx"))).manifest.latent_size
    rows = 900
    uniforms = {"name": "uniforms", "datatype": "FP32", "shape": [rows, 1, 28, 28]}
    latents = {"name": "latents", "datatype": "FP32", "shape": [rows, latent_size]}
    sizes = {"latents": 4 * rows * latent_size, "uniforms": 4 * rows * 784}
    inputs = [{**each, "parameters": {"binary_data_size": sizes[each["name"]]}} for each in (latents, uniforms)]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = header + bytes(sum(sizes.values()))
    head = (
        f"POST /v2/models/sbn/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        f"inference-header-content-length: {len(header)}\r\n\r\n"
    )
    with server(small_models, "--http-port", 0, "--stalled-write-seconds", 1, "--log-calls", "all") as process:
        host, port = process.http.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(head.encode() + body)
            eventually(lambda: " infer " in process.output())
            assert " infer UNAVAILABLE in " in process.output()
            received = 0
            with suppress(ConnectionResetError):
                while more := len(connection.recv(65536)):
                    received += more
            assert received < 5 * 784 * rows  # it ended in the middle


def test_streams_are_cut_at_an_image_and_the_rest_can_be_had(small_models):
    whole = load_engine(next(small_models.glob("*.onnx")))
    with server(small_models, "--http-port", 0, "--grace-seconds", 6) as process:
        with httpx.Client(base_url=process.http, timeout=60) as client, client.stream("GET", ENDLESS) as answer:
            assert answer.headers["content-length"] == str(128 + 10**9 * int(np.prod(whole.image_shape)))
            parts, received = answer.iter_raw(), b""
            while len(received) < 10_000:
                received += next(parts)
            process.process.send_signal(signal.SIGTERM)
            eventually(lambda: "ending the remaining streams" in process.output())  # 3 s are left to read on
            with pytest.raises(httpx.RemoteProtocolError):  # it ends before its length
                for part in parts:
                    received += part
        assert process.process.wait(30) == 0
    pixels = np.frombuffer(received[128:], np.uint8)
    count, rest = divmod(len(pixels), int(np.prod(whole.image_shape)))
    assert rest == 0
    packed = np.packbits(pixels.reshape(count, -1)[-1000:], axis=1).tobytes()
    assert packed == whole.sample(1, count - 1000, 1000).packed_images


def test_a_server_that_stops_is_not_ready_and_answers_until_its_time_is_over(small_models):
    options = "--http-port", 0, "--lame-duck-seconds", 300, "--grace-seconds", 0
    with server(small_models, *options) as process, httpx.Client(base_url=process.http) as client:
        assert client.get("/readyz").text == "ok\n"
        process.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/healthz").status_code == 200
        assert client.get(IMAGES).status_code == 200


def test_workers_share_the_port_and_count_together(small_models):
    with server(small_models, "--http-port", 0, "--workers", 2) as process:
        for _ in range(8):
            with httpx.Client(base_url=process.http) as client:
                assert len(client.get(f"{IMAGES}&count=5").content) == 98 * 5
        with httpx.Client(base_url=process.http) as client:
            text = client.get("/metrics").text
        assert 'bgan_images_total{model="sbn"} 40.0' in text
        assert "bgan_workers 2.0" in text


def _tls(folder, authority=None, name="localhost"):
    authority = authority or Authority()
    certificate, key = authority.issue(name)
    write(folder / "ca.pem", authority.pem)
    write(folder / "server.pem", certificate)
    write(folder / "server.key", key)
    return authority, ("--tls-certificate", folder / "server.pem", "--tls-key", folder / "server.key")


def _context(folder, client=None):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if client:
        context.load_cert_chain(*client)
    return context


def test_tls_is_that_of_grpc_and_follows_its_files(small_models, tmp_path):
    _, options = _tls(tmp_path)
    with server(small_models, "--http-port", 0, *options) as process:
        address = process.http.replace("127.0.0.1", "localhost")
        assert address.startswith("https://")
        first = _context(tmp_path)
        assert httpx.get(address + IMAGES, verify=first).status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(address.replace("https", "http") + IMAGES)
        _tls(tmp_path)  # another authority's

        def is_renewed():
            try:
                return httpx.get(address + IMAGES, verify=_context(tmp_path)).status_code == 200
            except httpx.ConnectError:
                return False

        eventually(is_renewed)
        assert "ERROR" not in process.output()  # strangers' slips are no events
        with pytest.raises(httpx.ConnectError):
            httpx.get(address + IMAGES, verify=first)


def test_mutual_tls_lets_in_whom_an_authority_certified_until_it_is_removed(small_models, tmp_path):
    authority, options = _tls(tmp_path)
    between = authority.intermediate("between")
    clients = {}
    for name, issuer in (("direct", authority), ("indirect", between), ("stranger", Authority())):
        certificate, key = issuer.issue(name)
        chain = certificate + (between.pem if issuer is between else b"")
        clients[name] = write(tmp_path / f"{name}.pem", chain), write(tmp_path / f"{name}.key", key)
    trusted = write(tmp_path / "clients.pem", authority.pem)
    with server(small_models, "--http-port", 0, *options, "--tls-client-ca", trusted) as process:
        address = process.http.replace("127.0.0.1", "localhost") + IMAGES
        for name in ("direct", "indirect"):
            found = httpx.get(address, verify=_context(tmp_path, clients[name]))
            assert found.status_code == 200
        kept = address.replace("models/sbn", f"revisions/{found.headers['bgan-revision']}")
        kept = httpx.get(kept, verify=_context(tmp_path, clients["direct"]))
        assert kept.headers["cache-control"].startswith("private,")  # a cache cannot tell who is certified
        for name in ("stranger", None):
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
                httpx.get(address, verify=_context(tmp_path, clients.get(name)))
        with httpx.Client(verify=_context(tmp_path, clients["direct"])) as client:
            assert client.get(address).status_code == 200
            other = Authority()
            write(trusted, other.pem)
            eventually(lambda: client.get(address).status_code == 401)  # on an open connection, too
            assert "its authority was removed" in client.get(address).json()["detail"]
        certificate, key = other.issue("other")
        pair = write(tmp_path / "other.pem", certificate), write(tmp_path / "other.key", key)
        assert httpx.get(address, verify=_context(tmp_path, pair)).status_code == 200


def test_fifty_callers_at_once_get_what_one_gets(web, http):
    address = "/v1/models/mlp-dbn/images?seed=1&count=64"
    expected = http.get(address).content
    host, port = web.http.removeprefix("http://").split(":")
    found, barrier = [], threading.Barrier(50)

    def call():
        connection = HTTPConnection(host, int(port), timeout=60)
        barrier.wait()
        connection.request("GET", address)
        found.append(connection.getresponse().read() == expected)
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 50
