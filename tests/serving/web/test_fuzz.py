"""Requests that nobody thought of: each is answered, none with a fault of the server, which goes on."""

import json
import socket
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BIG = 2**65
WORDS = [
    "v1",
    "v2",
    "models",
    "revisions",
    "images",
    "mlp-dbn",
    "sbn",
    "versions",
    "infer",
    "ready",
    "health",
    "live",
    "..",
    "%2f",
    "%00",
    "%ff",
    "*",
]
NAMES = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
PATHS = st.lists(NAMES, max_size=6).map("/".join)
FIELDS = st.sampled_from(["seed", "first_index", "count", "version", "label", "format", "x", ""])
ODD = ["png", "npz", "npy", "bits", "json", "cat", "", "1e3", "0x1", "\uff19", "1_0", " 1", "+1"]
VALUES = st.one_of(st.integers(-BIG, BIG).map(str), st.sampled_from(ODD), st.text(max_size=12))
QUERIES = st.lists(st.tuples(FIELDS, VALUES), max_size=5).map(lambda pairs: "&".join(f"{k}={v}" for k, v in pairs))
HEADER_NAMES = [
    "accept",
    "range",
    "if-range",
    "if-none-match",
    "authorization",
    "x-request-id",
    "content-encoding",
    "content-length",
    "inference-header-content-length",
    "transfer-encoding",
    "expect",
    "connection",
    "origin",
    "upgrade",
]
HEADER_VALUES = st.one_of(
    st.sampled_from(
        [
            "bytes=0-5",
            "bytes=-1",
            "bytes=5-",
            "*",
            "*/*;q=x",
            "chunked",
            "100-continue",
            "close",
            "websocket",
            "upgrade",
        ]
    ),
    st.integers(-5, BIG).map(str),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)
HEADERS = st.lists(st.tuples(st.sampled_from(HEADER_NAMES), HEADER_VALUES), max_size=4)
KEYS = [
    "inputs",
    "outputs",
    "name",
    "shape",
    "datatype",
    "data",
    "parameters",
    "id",
    "binary_data",
    "binary_data_size",
    "binary_data_output",
]
VERBS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-BIG, BIG), st.floats(), st.text(max_size=6)),
    lambda each: st.one_of(st.lists(each, max_size=4), st.dictionaries(st.sampled_from(KEYS), each, max_size=5)),
    max_leaves=20,
)
BODIES = st.one_of(st.just(b""), st.binary(max_size=40), JSON.map(lambda each: json.dumps(each).encode()))
KNOWN = {200, 206, 304, 400, 404, 405, 406, 413, 415, 416, 429, 501}


def _ask(address, data):
    """The status that a server answers bytes with; None: it waits for more of them, or closed the connection."""
    with socket.create_connection(address, 1) as connection, suppress(TimeoutError, ConnectionResetError):
        answer = b""
        connection.sendall(data)
        while b"\r\n" not in answer and (more := connection.recv(4096)):
            answer += more
    return int(answer.split()[1]) if answer else None


@pytest.fixture(scope="module")
def address(web):
    host, port = web.http.removeprefix("http://").split(":")
    return host, int(port)


@given(verb=VERBS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_request_is_answered_and_none_is_the_servers_fault(web, address, verb, path, query, headers, body):
    lines = [f"{verb} /{path}?{query} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers)]
    if not {"content-length", "transfer-encoding"} & {name for name, _ in headers}:
        lines.append(f"content-length: {len(body)}")
    data = "\r\n".join(lines).encode(errors="replace") + b"\r\n\r\n" + body
    assert _ask(address, data) in KNOWN | {None}


@given(field=st.sampled_from(["seed", "first_index", "version", "label", "format", "x"]), value=VALUES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_field_is_answered(http, field, value):
    assert http.get("/v1/models/sbn/images", params={field: value, "format": "bits"}).status_code in (
        200,
        400,
        404,
    )


@given(content=JSON)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_of_an_inference_is_answered(http, content):
    response = http.post("/v2/models/mlp-dbn/infer", content=json.dumps(content).encode())
    assert response.status_code == 400
    assert response.json()["errors"]


def test_the_server_had_no_fault(web, http):
    assert http.get("/readyz").status_code == 200
    assert "Traceback" not in web.output()
    assert " ERROR " not in web.output()
