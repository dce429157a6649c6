"""Model files and a running server, made once."""

import pytest

from tests.support import make_model, server


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder of three models: an MLP with DBN, one with SBN, and a CNN of another shape."""
    folder = tmp_path_factory.mktemp("models")
    make_model(folder, "cnn-sbn", network="cnn", neuron="sbn", shape=(2, 9, 13), latent_size=10)
    make_model(folder, "mlp-dbn")
    make_model(folder, "mlp-sbn", neuron="sbn", slope_rate=2.0, steps=11)
    return folder


@pytest.fixture(scope="session")
def running(models):
    """A server of those models, in its own process."""
    with server(models, "--default-model", "mlp-dbn", "--max-image-count", "100000") as process:
        yield process


@pytest.fixture(scope="session")
def small_models(tmp_path_factory):
    """A folder of one model."""
    folder = tmp_path_factory.mktemp("small")
    make_model(folder, "sbn", neuron="sbn")
    return folder


@pytest.fixture(scope="session")
def other_models(tmp_path_factory):
    """A folder of a model of the same name with other weights."""
    folder = tmp_path_factory.mktemp("other")
    make_model(folder, "sbn", neuron="sbn", steps=4)
    return folder
