"""A stream as a data set of Hugging Face."""

from itertools import chain

import numpy as np
import pytest

datasets = pytest.importorskip("datasets")

from datasets.distributed import split_dataset_by_node  # noqa: E402

from bgan.clients import InvalidRequestError, ModelNotFoundError, SamplingClient  # noqa: E402
from bgan.clients.datasets import stream_dataset  # noqa: E402
from tests.fixtures.write import CLASSES  # noqa: E402


@pytest.fixture
def make(classes_server):
    options = {"image_count": 50, "seed": 5, "first_index": 7, "shard_count": 4}
    return lambda **more: stream_dataset(classes_server.target, **{**options, **more})


@pytest.fixture
def expected(classes_server):
    with SamplingClient(classes_server.target) as client:
        return client.sample(50, seed=5, first_index=7, include_probabilities=True)


def _indices(dataset):
    return [row["index"] for row in dataset]


def test_rows_are_images_of_the_stream(make, expected):
    dataset = make(include_probabilities=True)
    assert dataset.features["image"] == datasets.Array3D((3, 5, 9), "uint8")
    assert dataset.features["label"].names == list(CLASSES)
    assert dataset.num_shards == 4
    rows = list(dataset.with_format("numpy"))
    np.testing.assert_array_equal(np.stack([row["image"] for row in rows]), expected.images)
    np.testing.assert_array_equal(np.stack([row["probabilities"] for row in rows]), expected.probabilities)
    assert [row["label"] for row in rows] == expected.labels.tolist()
    assert [row["index"] for row in rows] == list(range(7, 57))
    assert set(make(model="plain").features) == {"image", "index"}


def test_nodes_read_each_image_once(make):
    for nodes in (2, 3):  # 4 shards go into 2 nodes, not into 3
        parts = [_indices(split_dataset_by_node(make(), rank=node, world_size=nodes)) for node in range(nodes)]
        assert sorted(chain(*parts)) == list(range(7, 57))


def test_a_data_set_resumes_and_shuffles(make):
    dataset, again = make(), make()
    rows = iter(dataset)
    assert [next(rows)["index"] for _ in range(20)] == list(range(7, 27))
    again.load_state_dict(dataset.state_dict())
    assert _indices(again) == list(range(27, 57))
    shuffled = _indices(make().shuffle(seed=1, buffer_size=10))
    assert shuffled != sorted(shuffled) == list(range(7, 57))


def test_classes_by_name(make):
    assert {row["label"] for row in make(labels=["owl", 0])} == {4, 0}


def test_what_cannot_be_meant_is_refused_at_once(make):
    with pytest.raises(InvalidRequestError, match="seed is None"):
        make(seed=None)
    with pytest.raises(ValueError, match="image_count is 0 and shard_count 4; use at least 1"):
        make(image_count=0)
    with pytest.raises(ModelNotFoundError):
        make(model="none")
    with pytest.raises(InvalidRequestError, match="the model 'plain' is not class-conditional; leave labels out"):
        make(model="plain", labels="cat")
