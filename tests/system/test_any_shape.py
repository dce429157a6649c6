"""Coloured images of 24 rows and 40 columns, of two classes, through every command and a real server."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from bgan.clients import SamplingClient
from tests.kit.cli import bgan
from tests.kit.servers import server

SHAPE = (3, 24, 40)
COUNT = 120  # of each class


def _write_images(folder):
    """Boxes in two channels, upright ones and lying ones."""
    random = np.random.default_rng(3)
    for name, (height, width) in {"tall": (16, 6), "wide": (6, 18)}.items():
        (folder / name).mkdir(parents=True)
        for index in range(COUNT):
            image = np.zeros((24, 40, 3), np.uint8)
            top, left = random.integers(0, 24 - height), random.integers(0, 40 - width)
            image[top : top + height, left : left + width, random.permutation(3)[:2]] = 255
            Image.fromarray(image).save(folder / name / f"{index:03}.png")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, cache_environment, training):
    """A folder with images, a trained run and its model; and what to call commands in it with."""
    folder = tmp_path_factory.mktemp("any-shape")
    _write_images(folder / "boxes")

    def command(*arguments):
        result = bgan(*arguments, cwd=folder, env=cache_environment)
        assert result.returncode == 0, result.stderr
        return result

    options = ("--data", "boxes", "--channels", "rgb", "--conditional", "--augment", "translate+hflip")
    sizes = ("--neuron", "sbn", "--epochs", 2, "--batch-size", 16, "--latent-size", 16, "--name", "boxes")
    planned = command("train", *options, *sizes, "--dry-run")
    trained = command("train", *options, *sizes)
    (line,) = {line for line in planned.stderr.splitlines() if "parameters" in line}
    assert re.fullmatch(
        r"images 3x24x40 of 2 classes: generator doubling-cnn, [\d,]+ parameters; "
        r"discriminator mlp\+strided-cnn, [\d,]+",
        line,
    )
    assert line in trained.stderr
    command("export", "boxes")
    return folder, command


def test_pictures_of_training_show_colours(workshop):
    folder, _ = workshop
    first, *_, last = sorted((folder / "runs" / "boxes" / "samples").iterdir())
    with Image.open(last) as picture:
        assert picture.size == (8 * 42 + 2, 8 * 26 + 2)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10_000)}
    assert len(colours) > 3
    assert first.name == "step_00000000.png"


def test_a_server_and_files_give_the_same_images_of_a_class(workshop):
    folder, command = workshop
    options = ("-n", 30, "--seed", 5, "--label", "wide")
    command("generate", "boxes", *options, "-o", "generated.npz")
    with server(folder / "models") as process:
        address = ("--server", process.target)
        for name in ("sampled.npz", "sampled.npy", "sampled.png"):
            command("sample", *options, *address, "-o", name)
        with SamplingClient(process.target) as client:
            assert client.get_model().classes == ("tall", "wide")
            (batch,) = client.sample_binary_images(image_count=30, seed=5, labels=[1], include_probabilities=True)
            drawn = list(client.sample_binary_images(image_count=40, seed=5))
        assert "classes" in command("models", *address).stdout
    assert batch.images.shape == batch.probabilities.shape == (30, *SHAPE)
    for name in ("generated.npz", "sampled.npz"):
        with np.load(folder / name) as file:
            np.testing.assert_array_equal(file["packed_images"], batch.packed_images)
            assert file["image_shape"].tolist() == list(SHAPE)
            assert file["labels"].tolist() == [1] * 30
    np.testing.assert_array_equal(np.load(folder / "sampled.npy"), batch.images)
    with Image.open(folder / "sampled.png") as picture:
        assert picture.size == (6 * 42 + 2, 5 * 26 + 2)
    assert {label for part in drawn for label in part.labels.tolist()} == {0, 1}


def test_it_is_measured_explored_and_described(workshop):
    folder, command = workshop
    printed = command("evaluate", "boxes", "--count", 64, "--json", "figures.json")
    (figures,) = json.loads((folder / "figures.json").read_text())
    assert {"class_entropy", "label_accuracy", "nearest_distance"} <= figures["metrics"].keys()
    assert "frechet_distance" not in figures["metrics"]
    assert figures["left_out"][0].split(": ")[1] in " ".join(printed.stdout.split())

    command("explore", "boxes", "--images", 4, "--steps", 3, "--draws", 2)
    pictures = sorted(path.name for path in (folder / "runs" / "boxes" / "exploration").glob("*.png"))
    assert pictures == ["interpolation.png", "nearest.png", "neurons.png", "preactivations.png"]

    command("card", "models/boxes.onnx", "--count", 64)
    card = (folder / "models" / "boxes.md").read_text()
    assert "`labels`, int64 [batch], of the classes tall, wide (from 0)" in card
    assert "both [batch, 3, 24, 40]" in card
    (training,) = re.findall(r"^    bgan (train .*)$", card, re.M)
    assert "--conditional --augment translate+hflip" in training
    assert "--data boxes --channels rgb" in training
    assert str(folder) not in card
