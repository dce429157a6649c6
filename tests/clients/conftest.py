"""What the tests of the clients share."""

import pytest

from bgan.clients import SamplingClient
from tests.fixtures.write import FOLDER
from tests.kit.clients import Blocking
from tests.kit.servers import server


@pytest.fixture(scope="session")
def classes_server():
    """A server of class-conditional models, "sbn" and "dbn", and of one that is not, "plain"."""
    with server(FOLDER / "classes", "--default-model", "sbn") as process:
        yield process


@pytest.fixture(params=[SamplingClient, Blocking], ids=["blocking", "asyncio"])
def make_client(request):
    return request.param
