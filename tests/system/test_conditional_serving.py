"""Models of classes, and images neither square nor of one channel, through a real server and into files."""

import asyncio
import json

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from bgan.clients import AsyncSamplingClient, InvalidRequestError, SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.fixtures.write import CLASSES, FOLDER
from tests.kit.cli import bgan
from tests.kit.servers import server

SHAPE = (3, 5, 9)  # 135 pixels: 17 bytes, the last one with a padding bit
COUNT = 300


@pytest.fixture(scope="module")
def folder():
    return FOLDER / "classes"


@pytest.fixture(scope="module")
def running(folder):
    with server(folder, "--default-model", "sbn") as process:
        yield process


@pytest.fixture
def client(running):
    with SamplingClient(running.target) as client:
        yield client


def _sample(client, count=COUNT, **options):
    batches = list(client.sample_binary_images(image_count=count, seed=3, **options))
    return np.concatenate([batch.images for batch in batches]), np.concatenate([batch.labels for batch in batches])


@pytest.mark.parametrize("model", ["sbn", "dbn"])
def test_classes_are_drawn_alike_and_belong_to_the_stream(client, model):
    images, labels = _sample(client, model=model)
    assert images.shape == (COUNT, *SHAPE)
    assert np.bincount(labels, minlength=5).min() > COUNT / 5 / 2
    for first, count, batch_size in ((0, 3, 1), (17, 100, 9), (299, 1, None)):
        part, part_labels = _sample(client, count, model=model, first_index=first, batch_size=batch_size)
        np.testing.assert_array_equal(part, images[first : first + count])
        np.testing.assert_array_equal(part_labels, labels[first : first + count])


def test_an_image_of_the_class_that_is_drawn_is_the_one_that_is_named(client):
    images, labels = _sample(client)
    named, again = _sample(client, labels=labels.tolist())
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(named, images)


def test_named_classes_take_turns_by_index(client):
    whole, labels = _sample(client, labels=[4, 1, 1])
    np.testing.assert_array_equal(labels, np.resize([4, 1, 1], COUNT))
    part, part_labels = _sample(client, 50, labels=[4, 1, 1], first_index=100, batch_size=7)
    np.testing.assert_array_equal(part, whole[100:150])
    np.testing.assert_array_equal(part_labels, labels[100:150])
    one, _ = _sample(client, labels=[1])
    np.testing.assert_array_equal(one[1::3], whole[1::3])
    assert (one[0::3] != whole[0::3]).any()


def test_small_calls_of_other_classes_share_runs_and_get_their_own(running, client):
    alone = {label: _sample(client, 4, labels=[label])[0] for label in range(5)}

    async def all_at_once():
        async with AsyncSamplingClient(running.target) as clients:

            async def sample(label):
                stream = clients.sample_binary_images(image_count=4, seed=3, labels=[label])
                return label, [batch async for batch in stream]

            return await asyncio.gather(*[sample(i % 5) for i in range(40)])

    for label, (batch,) in asyncio.run(all_at_once()):
        assert batch.labels.tolist() == [label] * 4
        np.testing.assert_array_equal(batch.images, alone[label])


def test_several_servers_make_one_stream_of_classes(running, client):
    expected, labels = _sample(client, labels=[0, 3])
    with SamplingClient([running.target, running.target]) as several:
        images, found = _sample(several, labels=[0, 3])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": [0, 5]}, "labels: has 5; the classes of 'sbn' are 0 to 4, cat, dog, 3, mouse, owl"),
        ({"labels": [-1]}, "labels: has -1; the classes of 'sbn' are 0 to 4"),
        ({"labels": [0] * 65_537}, "labels: has 65537 entries; send at most 65536"),
        (
            {"model": "plain", "labels": [0]},
            "labels: the model 'plain' is not class-conditional; leave labels out",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(client, options, says):
    with pytest.raises(InvalidRequestError, match=says.replace("(", r"\(")) as caught:
        _sample(client, 4, **options)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_model_without_classes_is_as_ever(running, client, folder):
    (batch,) = client.sample_binary_images(image_count=20, seed=3, model="plain")
    assert batch.labels is None
    engine = load_engine(folder / "plain.onnx")
    assert batch.packed_images.tobytes() == engine.sample(3, 0, 20).packed_images
    info = {each.name: each.classes for each in client.list_models()}
    assert info == {"sbn": CLASSES, "dbn": CLASSES, "plain": ()}
    with grpc.insecure_channel(running.target) as channel:
        stub = sampling_pb2_grpc.SamplingServiceStub(channel)
        request = sampling_pb2.SampleBinaryImagesRequest(model="plain", image_count=3)
        assert all(not response.labels for response in stub.SampleBinaryImages(request))


def test_a_model_that_runs_in_tiles_has_the_same_classes(folder):
    whole = load_engine(folder / "sbn.onnx")
    expected = whole.sample(3, 30, 100)
    tiled = load_engine(folder / "sbn.onnx")
    tiled.tile_rows = 64
    found = tiled.sample(3, 30, 100)
    assert found.labels == expected.labels
    assert tiled.sample(3, 30, 100, labels=(2, 0)).labels == (2, 0) * 50
    assert tiled.sample(3, 61, 10).labels == expected.labels[31:41]


def test_the_open_inference_protocol_takes_labels(running, folder):
    engine = load_engine(folder / "sbn.onnx")
    latents, uniforms, labels, *_ = engine.noise.draw(3, 0, 20)
    arrays = {"latents": latents, "uniforms": uniforms.reshape(20, *SHAPE), "labels": labels}

    def infer(client, **others):
        tensors = []
        for name, array in {**arrays, **others}.items():
            tensor = triton.InferInput(name, array.shape, "INT64" if array.dtype == np.int64 else "FP32")
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return client.infer("sbn", tensors).as_numpy("images")

    with triton.InferenceServerClient(running.target) as client:
        inputs = {each.name: (each.datatype, list(each.shape)) for each in client.get_model_metadata("sbn").inputs}
        assert inputs["labels"] == ("INT64", [-1])
        packed = np.packbits(infer(client).reshape(20, -1), axis=1).tobytes()
        assert packed == engine.sample(3, 0, 20).packed_images
        with pytest.raises(InferenceServerException, match=r"labels: has 5 as value 1; the classes .* are 0 to 4"):
            infer(client, labels=np.array([0, 5] * 10))
        with pytest.raises(InferenceServerException, match="labels: has the datatype 'FP32'; send INT64"):
            infer(client, labels=labels.astype(np.float32))


def test_files_of_classes_are_the_same_from_a_server_and_without_one(running, folder, tmp_path):
    options = ("--count", 50, "--seed", 3, "--first-index", 7, "--label", "owl", "--label", "3", "--label", "cat")
    sampled = bgan("sample", *options, "--server", running.target, "-o", tmp_path / "sampled.npz")
    assert sampled.returncode == 0, sampled.stderr
    generated = bgan("generate", folder / "sbn.onnx", *options, "-o", tmp_path / "generated.npz")
    assert generated.returncode == 0, generated.stderr
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("sampled", "generated"))
    assert sorted(one.files) == sorted(two.files)
    for name in one.files:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    # "3" is the name of class 2; image 7 is the first, and 7 mod 3 is 1.
    assert one["labels"].tolist() == np.resize([2, 0, 4], 50).tolist()
    assert one["packed_images"].shape == (50, 17)

    drawn = bgan("generate", folder / "sbn.onnx", "-n", 50, "--seed", 3, "-o", tmp_path / "drawn.npz")
    assert drawn.returncode == 0, drawn.stderr
    with SamplingClient(running.target) as client:
        images, labels = _sample(client, 50)
    np.testing.assert_array_equal(np.load(tmp_path / "drawn.npz")["labels"], labels)
    assert one["classes"].tolist() == ["cat", "dog", "3", "mouse", "owl"]
    bits = bgan("generate", folder / "sbn.onnx", *options, "-o", tmp_path / "a.bits")
    assert bits.returncode == 0, bits.stderr
    described = json.loads((tmp_path / "a.bits.json").read_text())
    assert described["labels"] == [4, 2, 0]
    assert described["classes"] == ["cat", "dog", "3", "mouse", "owl"]

    assert (
        bgan("sample", "-n", 6, "--seed", 3, "--server", running.target, "-o", tmp_path / "a.npy").returncode == 0
    )
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), images[:6])
    assert (
        bgan("sample", "-n", 6, "--seed", 3, "--server", running.target, "-o", tmp_path / "a.png").returncode == 0
    )
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 7 + 2, 3 * 11 + 2, 3)  # two rows of three, and a gap of two pixels
    np.testing.assert_array_equal(pixels[2:7, 13:22], images[1].transpose(1, 2, 0) * 255)


@pytest.mark.parametrize(
    ("model", "label", "says"),
    [
        ("sbn", "fox", "there are cat, dog, 3, mouse, owl"),
        ("sbn", "0", "there are cat, dog, 3, mouse, owl"),  # a number is a name here, and none of them is 0
        ("plain", "0", "plain is not class-conditional; leave it out"),
    ],
)
def test_the_command_line_refuses_labels_that_cannot_be(running, folder, tmp_path, model, label, says):
    sampled = bgan(
        "sample", "--model", model, "--label", label, "--server", running.target, "-o", tmp_path / "a.npz"
    )
    assert sampled.returncode == 2
    assert says in " ".join(sampled.stderr.replace("│", " ").split())
    generated = bgan("generate", model, "--models", folder, "--label", label, "-o", tmp_path / "a.npz")
    assert generated.returncode == 2
    assert len(generated.stderr.splitlines()) == 1
    assert (
        "not class-conditional" if model == "plain" else "the classes of sbn are cat, dog, 3, mouse, owl"
    ) in generated.stderr
    assert list(tmp_path.iterdir()) == []
