"""A stream as a data set of torch: workers and ranks together read each image once."""

import json
import subprocess
import sys
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from bgan.clients import InvalidRequestError, RevisionChangedError, SamplingClient, SamplingError  # noqa: E402
from bgan.clients.torch import StreamDataset  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.kit.liars import lying_server, responses  # noqa: E402
from tests.kit.stream_ranks import BLOCK, COUNT, FIRST, RANKS, SEED  # noqa: E402

ALL = range(FIRST, FIRST + COUNT)
BLOCKS = [list(ALL[start : start + BLOCK]) for start in range(0, COUNT, BLOCK)]
CASES = ("0 workers", "1 workers", "2 workers", "batches of 20")


@pytest.fixture(scope="module")
def ranks(classes_server):
    command = [sys.executable, "-m", "tests.kit.stream_ranks", classes_server.target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def expected(classes_server):
    with SamplingClient(classes_server.target) as client:
        return client.sample(COUNT, seed=SEED, first_index=FIRST)


@pytest.mark.parametrize("case", CASES)
def test_ranks_and_workers_together_read_each_image_once(ranks, expected, case):
    indices = sorted(
        index for rank in range(RANKS) for batch in ranks[str(rank)][case]["batches"] for index in batch
    )
    assert indices == list(ALL)
    images = {index: row for rank in range(RANKS) for index, row in ranks[str(rank)][case]["images"].items()}
    for row, index in enumerate(ALL):
        assert images[str(index)] == [expected.images[row].flatten().tolist(), int(expected.labels[row])]


@pytest.mark.parametrize("case", ["0 workers", "1 workers", "2 workers"])
def test_batches_are_the_blocks_of_the_stream_for_any_number_of_workers(ranks, case):
    for rank in range(RANKS):
        assert ranks[str(rank)][case]["batches"] == BLOCKS[rank::RANKS]


def test_the_length_is_the_ranks_own(ranks):
    lengths = [ranks[str(rank)]["length"] for rank in range(RANKS)]
    assert lengths == [sum(map(len, BLOCKS[rank::RANKS])) for rank in range(RANKS)]
    assert sum(lengths) == COUNT


def test_workers_that_are_spawned_know_the_ranks(ranks):
    for rank in range(RANKS):
        assert ranks[str(rank)]["spawned"] == [index for block in BLOCKS[rank::RANKS] for index in block]


def test_ranks_can_be_left_out(ranks):
    assert ranks["0"]["one rank"]["batches"] == ranks["1"]["one rank"]["batches"] == BLOCKS


@pytest.mark.parametrize("steps", [0, 4, 9])  # of 10: at the last one worker has finished
def test_a_stateful_loader_resumes_each_worker(ranks, steps):
    resumed = ranks["resumed"][str(steps)]
    assert resumed["before"] == BLOCKS[:steps]
    assert resumed["after"] == resumed["rest"] == BLOCKS[steps:]


@pytest.fixture
def make(classes_server):
    options = {"image_count": 50, "seed": SEED, "block_size": 20}
    return lambda **more: StreamDataset(classes_server.target, **{**options, **more})


def _indices(rows):
    return [row["index"] for row in rows]


def test_a_row_is_an_image_of_the_stream(make, classes_server):
    rows = list(make(first_index=7, labels="owl", include_probabilities=True))
    with SamplingClient(classes_server.target) as client:
        batch = client.sample(50, seed=SEED, first_index=7, labels="owl", include_probabilities=True)
    assert [set(row) for row in rows] == [{"image", "index", "label", "probabilities"}] * 50
    assert (torch.stack([row["image"] for row in rows]).numpy() == batch.images).all()
    assert (torch.stack([row["probabilities"] for row in rows]).numpy() == batch.probabilities).all()
    assert {row["label"] for row in rows} == {4}
    assert rows[0]["image"].dtype == torch.uint8
    assert set(next(iter(make(model="plain")))) == {"image", "index"}


@pytest.mark.parametrize("taken", [0, 1, 19, 20, 33, 50])
def test_a_data_set_resumes_in_its_own_process(make, taken):
    dataset, again = make(), make()
    rows = iter(dataset)
    assert _indices(next(rows) for _ in range(taken)) == list(range(taken))
    again.load_state_dict(dataset.state_dict())
    assert _indices(again) == list(range(taken, 50))
    assert _indices(again) == list(range(50))  # another epoch


def test_a_finished_share_stays_finished(make):
    dataset, again = make(), make()
    assert len(list(dataset)) == len(dataset) == 50
    again.load_state_dict(dataset.state_dict())
    assert list(again) == []


def test_a_state_keeps_to_its_revision(make):
    dataset, again = make(), make()
    next(iter(dataset))
    again.load_state_dict({**dataset.state_dict(), "revision": "0" * 64})
    with pytest.raises(RevisionChangedError) as caught:
        list(again)
    assert caught.value.next_index == 1


def test_an_iteration_keeps_to_the_revision_of_its_first_image():
    revisions = iter("abc")

    def tell(request, context):
        revision = next(revisions)
        for response in responses(request):
            response.revision = revision
            yield response

    with lying_server() as liar:
        liar.tell = tell
        rows = iter(StreamDataset(liar.target, image_count=20, seed=1, block_size=8))
        assert _indices(next(rows) for _ in range(8)) == list(range(8))
        with pytest.raises(RevisionChangedError) as caught:
            next(rows)
    assert (caught.value.next_index, caught.value.expected_revision) == (8, "a")


def test_a_state_of_something_else(make):
    dataset = make()
    rows = iter(dataset)
    next(rows)
    state = dataset.state_dict()
    for other in ({"seed": 6}, {"first_index": 1}, {"image_count": 51}, {"block_size": 21}):
        with pytest.raises(ValueError, match="the state is of another seed, first_index"):
            make(**other).load_state_dict(state)
    shared = make(rank=1, world_size=2)
    shared.load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of share 0 of 1, and this is 1 of 2; use as many workers"):
        next(iter(shared))


def test_a_stream_without_end(make):
    rows = iter(make(image_count=None, first_index=2**40, rank=1, world_size=2))
    assert _indices(next(rows) for _ in range(25)) == [
        *range(2**40 + 20, 2**40 + 40),
        *range(2**40 + 60, 2**40 + 65),
    ]
    with pytest.raises(TypeError, match="without an image_count has no length"):
        len(make(image_count=None))


def test_a_client_of_ones_own(classes_server):
    target = partial(SamplingClient, classes_server.target, token="secret", timeout_seconds=20)
    dataset = StreamDataset(target, image_count=5, seed=1)
    assert _indices(dataset) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": None}, "seed is None; name one, so that all processes read the same stream"),
        ({"seed": 1.5}, "seed is 1.5; use a whole number"),
        ({"image_count": 0}, "image_count is 0; use at least 1"),
        ({"first_index": -1}, "first_index is -1; use at least 0"),
        ({"first_index": 2**63 - 1}, r"first_index \+ image_count is out of range"),
        ({"block_size": 0}, "block_size is 0; use at least 1"),
        ({"labels": 1.5}, "labels has 1.5"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2 is none"),
        ({"rank": 0}, "rank 0 of world_size None is none; give both, or neither"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_at_once(make, options, says):
    with pytest.raises((InvalidRequestError, ValueError), match=says):
        make(**options)


def test_labels_of_an_unconditional_model_fail_with_one_line(make):
    for labels in ("cat", [0, 1]):
        with pytest.raises(SamplingError, match="the model 'plain' is not class-conditional; leave labels out"):
            next(iter(make(model="plain", labels=labels)))


def test_it_shows_what_it_is_and_no_token():
    shown = repr(StreamDataset("a:1", image_count=60, seed=1, first_index=5, model="digits"))
    assert shown == "StreamDataset('a:1', seed=1, image_count=60, first_index=5, model='digits')"
    made = partial(SamplingClient, "a:1", token="topsecret")
    assert repr(StreamDataset(made, seed=1)) == "StreamDataset(a function, seed=1, endless, first_index=0)"


_KEPT = """
import sys
from bgan.clients.torch import StreamDataset
rows = iter(StreamDataset(sys.argv[1], image_count=100, seed=1, block_size=16))
print(next(rows)["index"])
"""


def test_a_stream_that_is_kept_to_the_last_line_ends_without_a_word(classes_server):
    command = [sys.executable, "-c", _KEPT, classes_server.target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
