"""The asyncio client behind the blocking one's interface, so that one test serves both."""

import asyncio

import grpc
import pytest

from bgan.clients import AsyncSamplingClient

# Some reset connections stand with gRPC 1.73 and 1.78 until a ping is not answered; with 1.80 to 1.85 none did.
notices_resets = pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 80),
    reason="gRPC before 1.80 notices some reset connections after 20 s, which is too slow for many",
)


class Blocking:
    """An AsyncSamplingClient whose methods block."""

    def __init__(self, target, **options):
        self._client = AsyncSamplingClient(target, **options)
        self._loop = asyncio.new_event_loop()

    def sample_binary_images(self, **options):
        async def start():
            return self._client.sample_binary_images(**options)

        batches = self._loop.run_until_complete(start())
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(batches))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(batches.aclose())

    def __getattr__(self, name):
        return lambda *args, **options: self._loop.run_until_complete(
            getattr(self._client, name)(*args, **options)
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
