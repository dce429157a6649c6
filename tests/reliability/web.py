"""The HTTP port under the soak: a reader whose every image is checked, and strangers who misbehave on it."""

import io
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass

import httpx
import numpy as np

from .load import CALL_SECONDS

_FORMATS = ("npz", "bits", "npy", "json")
_SECONDS = 20
_HEAD = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
_POST = b"POST /v2/models/mlp-dbn/infer HTTP/1.1\r\nhost: x\r\n"


@dataclass
class _Batch:
    """What the reference is held against: the images of one answer."""

    model: str
    revision: str
    seed: int
    first_index: int
    packed_images: np.ndarray
    labels: np.ndarray | None
    probabilities: None = None

    def __len__(self):
        return len(self.packed_images)

    @property
    def next_index(self):
        return self.first_index + len(self)


class HttpClient:
    """Reads images over HTTP behind the interface of `SamplingClient`, each time in another format."""

    def __init__(self, targets, *, address, ca, token, timeout_seconds, credentials=None):
        headers = {"authorization": f"Bearer {token}"}
        context = ssl.create_default_context(cafile=ca)
        self._http = httpx.Client(base_url=address, headers=headers, verify=context, timeout=timeout_seconds)
        self._count = 0
        self._classes = {}

    def sample_binary_images(self, *, image_count, first_index, seed, model, labels=(), **_):
        """One batch of all images; in two parts, by `Range`, where the format has parts."""
        self._count += 1
        form = _FORMATS[self._count % len(_FORMATS)]
        fields = {"seed": seed, "first_index": first_index, "count": image_count, "format": form}
        fields["label"] = [self._names(model)[label] for label in labels]
        yield self._read(f"/v1/models/{model}/images", fields, form)

    def _names(self, model):
        """The classes of a model."""
        if model not in self._classes:
            found = self._http.get(f"/v1/models/{model}").raise_for_status().json()
            self._classes[model] = found["model"]["model"].get("classes", [])
        return self._classes[model]

    def _read(self, path, fields, form):
        answer = self._http.get(path, params=fields, headers={"range": "bytes=0-99"})
        answer.raise_for_status()
        content, headers = answer.content, answer.headers
        if answer.status_code == 206:
            rest = {"range": "bytes=100-", "if-range": headers["etag"]}
            more = self._http.get(path, params=fields, headers=rest)
            if int(headers["content-range"].rpartition("/")[2]) > 100:
                more.raise_for_status()
                content = content + more.content if more.status_code == 206 else more.content
                headers = more.headers
        shape = tuple(map(int, headers["bgan-image-shape"].split(",")))
        packed, labels = _packed(content, form, shape)
        first_index = int(headers["bgan-first-index"])
        seed, model, revision = int(headers["bgan-seed"]), headers["bgan-model"], headers["bgan-revision"]
        return _Batch(model, revision, seed, first_index, packed, labels)

    def fail(self, model):
        """Ask for a model that there is not."""
        assert self._http.get(f"/v1/models/{model}/images").status_code == 404

    def leave(self, model):
        """Ask for many images, and go after the first."""
        with self._http.stream("GET", f"/v1/models/{model}/images?count=20000&format=npy") as answer:
            assert next(answer.iter_raw())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._http.close()


def address_of(process) -> str:
    """Where a server with a certificate for localhost answers HTTP."""
    return process.http.replace("127.0.0.1", "localhost")


def _packed(content, form, shape):
    """The packed images of an answer, and their labels where it has them."""
    if form == "bits":
        return np.frombuffer(content, np.uint8).reshape(-1, -(-int(np.prod(shape)) // 8)), None
    if form == "npz":
        with np.load(io.BytesIO(content)) as arrays:
            return arrays["packed_images"], arrays.get("labels")
    if form == "npy":
        images, labels = np.load(io.BytesIO(content)), None
    else:
        found = httpx.Response(200, content=content).json()["images"]
        images = np.array([each["pixels"] for each in found], np.uint8)
        labels = np.array([each["label"] for each in found]) if "label" in found[0] else None
    return np.packbits(images.reshape(len(images), -1), axis=1), labels


def stranger(number: int, address: str, ca) -> str:
    """Do what one of the strangers does, until it is over; returns which it was."""
    kind = _KINDS[number % len(_KINDS)]
    host, port = address.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=ca)
    with (
        suppress(OSError),
        socket.create_connection((host, int(port)), CALL_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        kind(connection)
    return kind.__name__.strip("_")


def _silent(connection):
    _until_closed(connection)


def _slow_head(connection):
    for sign in _HEAD[:-1]:
        connection.send(bytes([sign]))
        time.sleep(_SECONDS / len(_HEAD))
    _until_closed(connection)


def _endless_body(connection):
    connection.sendall(_POST + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"100\r\n" + b" " * 256 + b"\r\n")
        time.sleep(0.01)


def _wrong_length(connection):
    connection.sendall(_POST + b"content-length: 1000\r\n\r\n{}")
    _until_closed(connection)


def _trick(connection):
    connection.sendall(
        _HEAD + b"\r\n" + _HEAD + b"range: bytes=9-1\r\n\r\n" + b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"
    )
    connection.unwrap()


def _until_closed(connection):
    while connection.recv(4096):
        pass


_KINDS = (_silent, _slow_head, _endless_body, _wrong_length, _trick)
