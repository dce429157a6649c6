"""The asyncio client behind the blocking one's interface, so that one test serves both."""

import asyncio

from bgan.clients import AsyncSamplingClient


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
