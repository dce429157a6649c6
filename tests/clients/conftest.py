"""What the tests of the clients share."""

import pytest

from bgan.clients import SamplingClient
from tests.kit.clients import Blocking


@pytest.fixture(params=[SamplingClient, Blocking], ids=["blocking", "asyncio"])
def make_client(request):
    return request.param
