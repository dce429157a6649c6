"""Many readers over HTTP beside streams of gRPC: nothing is lost, all are served alike, and memory stays."""

import socket
import threading

import httpx
import pytest

from bgan.clients import SamplingClient
from bgan.serving.models.engine import load_engine
from tests.kit.servers import server

READERS, STREAMS = 64, 8
COUNT = 6_000


class _Reader(threading.Thread):
    """Reads images of a seed of its own, bits over HTTP or a stream of gRPC."""

    def __init__(self, process, seed, barrier):
        super().__init__()
        self._process, self._barrier = process, barrier
        self.seed = seed
        self.data = bytearray()
        self.error = None

    def run(self):
        try:
            for chunk in self._stream() if self.is_stream else self._answer():
                self.data += chunk
        except Exception as error:
            self.error = error

    @property
    def is_stream(self):
        return self.seed % (READERS // STREAMS + 1) == 0

    def _stream(self):
        with SamplingClient(self._process.target) as client:
            client.list_models()  # it is connected
            self._barrier.wait()
            for batch in client.sample_binary_images(image_count=COUNT, seed=self.seed):
                yield batch.packed_images.tobytes()

    def _answer(self):
        with httpx.Client(base_url=self._process.http, timeout=600) as client:
            client.get("/healthz")
            self._barrier.wait()
            address = f"/v1/models/sbn/images?seed={self.seed}&count={COUNT}&format=bits"
            with client.stream("GET", address) as answer:
                assert answer.status_code == 200
                yield from answer.iter_raw()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_64_readers_lose_nothing_and_are_served_alike_beside_streams(small_models):
    engine = load_engine(next(small_models.glob("*.onnx")))
    options = "--http-port", 0, "--max-streams-per-caller", READERS + STREAMS
    with server(small_models, *options) as process:
        httpx.get(f"{process.http}/v1/models/sbn/images?count=20000&format=bits", timeout=600)
        before = process.resident_mib()
        barrier = threading.Barrier(READERS + STREAMS)
        readers = [_Reader(process, seed, barrier) for seed in range(READERS + STREAMS)]
        for reader in readers:
            reader.start()
        done = threading.Event()
        least = []

        def watch():
            while not done.wait(0.02):
                if max(len(reader.data) for reader in readers) == COUNT * engine.packed_bytes:
                    least.append(min(len(reader.data) for reader in readers))
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        for reader in readers:
            reader.join()
        done.set()
        watching.join()
        after = process.resident_mib()
        for reader in readers:
            assert reader.error is None
            assert bytes(reader.data) == engine.sample(reader.seed, 0, COUNT).packed_images
        assert least[0] > COUNT * engine.packed_bytes / 3  # when the first had all, the last had a third
        assert after - before < 100


@pytest.mark.long
def test_a_thousand_connections_that_do_nothing_keep_nobody_out(small_models):
    with server(small_models, "--http-port", 0) as process:
        host, port = process.http.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), 60) for _ in range(1_000)]
        for number, each in enumerate(idle):
            each.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n"[: number % 30])
        answer = httpx.get(f"{process.http}/v1/models/sbn/images?count=64", timeout=60)
        assert answer.status_code == 200
        with SamplingClient(process.target) as client:
            assert sum(map(len, client.sample_binary_images(image_count=64))) == 64
        for each in idle:
            each.close()
