"""`bgan evaluate` and what it is made of, on the bundled digits."""

import json
from pathlib import Path

import numpy as np
import pytest

from bgan.trainer.common.errors import DataError, SamplesError
from bgan.trainer.data.catalog import load_dataset
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.evaluation.classifier import accuracy, cached_classifier, train_classifier
from bgan.trainer.evaluation.evaluate import evaluate_samples, measure_floor
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.evaluation.metrics.table import METRICS, TO_TRAINING_IMAGES
from bgan.trainer.evaluation.metrics.two_sample import two_sample_accuracy
from bgan.trainer.evaluation.reference import make_reference
from bgan.trainer.evaluation.samples import Samples
from tests.kit.cli import bgan, bgan_process
from tests.kit.models import make_model, make_run

PREACTIVATIONS = {name for name, metric in METRICS.items() if metric.group == "preactivations"}
NEED_CLASSES_ASKED_FOR = {"label_accuracy"}  # which models of no classes have not
NEED_CLASSES_ASKED_FOR |= {"modes_found", "mode_divergence"}  # of Stacked MNIST
NEED_LABELS = {
    name for name, metric in METRICS.items() if metric.group in {"quality", "classes"}
} - {"two_sample_accuracy"}  # fmt: skip


@pytest.fixture(scope="module")
def cache(cache_environment):
    return Path(cache_environment["BGAN_CACHE_DIR"])


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits"), load_dataset("digits", split="test")


@pytest.fixture(scope="module")
def reference(digits, cache, training):
    return make_reference(*digits, cache=cache)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    images = load_dataset("digits").images[:200]
    return make_run(tmp_path_factory.mktemp("runs") / "small", images=images, neuron="sbn")


def test_the_classifier_knows_the_digits(reference):
    assert reference.classifier_accuracy > 0.9


@pytest.mark.usefixtures("training")  # of the classifier
def test_the_cached_classifier_is_used_and_a_damaged_one_is_made_anew(tmp_path):
    images = (np.random.default_rng(0).random((128, 1, 8, 8)) < 0.5).astype(np.uint8)
    labels = (images[:, 0, 0, 0]).astype(np.int64)
    said = []

    def digest():
        said.clear()
        return cached_classifier(images, labels, cache=tmp_path, report=said.append)[1]

    first = digest()
    assert any("once for this data set" in text for text in said)
    assert digest() == first
    assert said == []
    (weights,) = tmp_path.glob("*.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert digest() == first
    assert any("damaged" in text for text in said)
    assert cached_classifier(images, 1 - labels, cache=tmp_path)[1] != first
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_bgan_comes_with_the_classifiers_and_floors_of_digits_and_mnist(dataset, tmp_path, request):
    folder = str(request.getfixturevalue("mnist_dir")) if dataset == "mnist" else None
    said = []
    splits = (load_dataset(dataset, data_dir=folder, split=split) for split in ("train", "test"))
    reference = make_reference(*splits, cache=tmp_path, report=said.append)
    assert reference.classifier_accuracy > {"digits": 0.9, "mnist": 0.98}[dataset]
    floor = measure_floor(reference, 10_000, report=said.append)
    assert set(floor.values) == set(METRICS) - PREACTIVATIONS - NEED_CLASSES_ASKED_FOR
    assert set(floor.errors) == set(floor.values) - {"missing_classes"}
    # Training images are nearer to one another than test images are to them.
    assert all(floor.values[key] < floor.values[key.removeprefix("training_")] for key in TO_TRAINING_IMAGES)
    assert said == []
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("training")  # of the classifier
def test_training_a_classifier_says_how_long_it_will_take(tmp_path, monkeypatch):
    seconds = iter(range(0, 2000, 4))
    monkeypatch.setattr("bgan.trainer.common.console.time.monotonic", lambda: next(seconds))
    images = (np.random.default_rng(1).random((128, 1, 8, 8)) < 0.5).astype(np.uint8)
    said, steps = [], []
    cached_classifier(images, images[:, 0, 0, 0].astype(np.int64), cache=tmp_path, report=said.append)
    assert said[1] == "training the classifier: 4 of 40, 0:02:24 left"
    assert len(said) == 1 + 40 // 3
    cached_classifier(
        images, images[:, 0, 0, 1].astype(np.int64), cache=tmp_path, progress=lambda *done: steps.append(done)
    )
    assert steps == [(step, 40) for step in range(1, 41)]


@pytest.mark.usefixtures("training")  # of the judges
def test_two_samples_of_one_distribution_cannot_be_told_apart_and_others_can():
    random = np.random.default_rng(1)
    first, second = ((random.random((300, 1, 12, 12)) < 0.3).astype(np.uint8) for _ in range(2))
    alike = two_sample_accuracy(first, second)
    # Every image is judged once, so chance alone has an error of 0.5 / sqrt(600) = 0.02, and the judges theirs.
    assert abs(alike.value - 0.5) < 3 * alike.error
    assert 0.02 < alike.error < 0.06
    denser = (random.random((400, 1, 12, 12)) < 0.5).astype(np.uint8)
    told = two_sample_accuracy(first, denser)  # of 300 of them
    assert told.value > 0.95
    assert told.error < 0.02
    assert two_sample_accuracy(first, denser) == told


@pytest.mark.usefixtures("training")  # of the judges
def test_a_judge_is_asked_of_images_that_it_has_not_seen():
    # Images of random bits can be learned by heart, and that helps with no other.
    random = np.random.default_rng(2)
    first, second = ((random.random((150, 1, 16, 16)) < 0.5).astype(np.uint8) for _ in range(2))
    alike = two_sample_accuracy(first, second, seed=1)
    assert abs(alike.value - 0.5) < 3 * alike.error
    # The same images in both sets are told by no one, however long they are studied.
    same = two_sample_accuracy(first, first, seed=1)
    assert abs(same.value - 0.5) < 3 * same.error


def test_training_a_classifier_leaves_the_global_random_numbers_alone():
    import torch

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    images = np.zeros((130, 1, 8, 8), np.uint8)
    images[::2] = 1
    labels = images[:, 0, 0, 0].astype(np.int64)
    classifier = train_classifier(images, labels, classes=2)
    assert torch.equal(torch.rand(1), expected)
    assert accuracy(classifier, images, labels) == 1


def test_real_images_measure_as_the_floor_does_and_noise_far_from_it(digits, reference):
    train, test = (split.images.numpy() for split in digits)
    real = evaluate_samples(Samples("train", train[:257]), reference)
    noise = (np.random.default_rng(2).random((257, 1, 28, 28)) < test.mean()).astype(np.uint8)
    bad = evaluate_samples(Samples("noise", noise), reference)
    assert real.count == real.compared == 257
    assert set(real.metrics) == set(real.floor) == set(METRICS) - PREACTIVATIONS - NEED_CLASSES_ASKED_FOR
    assert real.metrics["exact_copies"] == 1
    assert real.metrics["nearest_distance"] == 0
    for name in ("frechet_distance", "kernel_distance", "pattern_divergence", "isolated_pixels"):
        assert bad.metrics[name] > 3 * max(real.metrics[name], real.floor[name]), name
    assert bad.metrics["coverage"] < 0.1
    assert real.floor["coverage"] > 0.8
    # Each figure has an error, but the count of classes.
    assert set(real.errors) == set(real.metrics) - {"missing_classes"}
    assert set(real.floor_errors) == set(real.errors)
    assert real.errors["exact_copies"] == 0 < real.errors["frechet_distance"]
    assert real.floor["training_frechet_distance"] < real.floor["frechet_distance"] - 50
    assert bad.metrics["training_frechet_distance"] > 3 * real.floor["training_frechet_distance"]
    assert bad.metrics["two_sample_accuracy"] > 0.95
    assert sum(bad.class_histogram) == pytest.approx(1)


def test_one_class_alone_is_a_collapse(digits, reference):
    train = digits[0]
    ones = train.images[train.labels == 1].numpy()
    metrics = evaluate_samples(Samples("ones", ones), reference).metrics
    assert metrics["missing_classes"] >= 7
    assert metrics["class_entropy"] < 1
    assert metrics["coverage"] < 0.3


@pytest.mark.usefixtures("training")  # of the classifier
def test_without_labels_the_other_metrics_remain(digits, cache, run):
    train, test = digits
    unlabelled = make_reference(train, test, labelled=False, cache=cache)
    evaluation = evaluate_samples(TrainedGenerator.from_run(run).sample(100), unlabelled)
    assert set(evaluation.metrics) == set(METRICS) - NEED_LABELS
    assert evaluation.class_histogram is None


def test_a_data_set_without_labels_is_measured_without_them_unless_they_are_asked_for(digits, cache):
    train, test = (BinaryDataset("masks", split.images, None) for split in digits)
    assert make_reference(train, test, cache=cache).classifier is None
    with pytest.raises(DataError, match="masks has no labels; measure without them: --no-labels"):
        make_reference(train, test, labelled=True, cache=cache)


def test_too_few_samples_and_another_shape(reference):
    with pytest.raises(SamplesError, match="holds 63 images; the metrics need at least 64"):
        evaluate_samples(Samples("few", np.zeros((63, 1, 28, 28), np.uint8)), reference)
    with pytest.raises(SamplesError, match="those of digits"):
        evaluate_samples(Samples("small", np.zeros((80, 1, 8, 8), np.uint8)), reference)


def test_same_seed_same_figures(reference, run):
    first, second = (evaluate_samples(TrainedGenerator.from_run(run).sample(100), reference) for _ in range(2))
    assert first == second
    assert np.isclose(sum(first.preactivation_histogram), 1)


@pytest.mark.usefixtures("exporting")
def test_samples_of_a_run_are_those_of_its_model(tmp_path, run):
    generator = TrainedGenerator.from_run(run)
    samples = generator.sample(1000, seed=3)
    assert samples.images.shape == samples.probabilities.shape == (1000, 1, 28, 28)
    # Bernoulli: the mean of the images is that of the probabilities, within five standard errors.
    error = np.sqrt((samples.probabilities * (1 - samples.probabilities)).mean() / samples.images.size)
    assert abs(samples.images.mean() - samples.probabilities.mean()) < 5 * error
    hard = generator.sample(70, seed=3, binarization="threshold")
    np.testing.assert_array_equal(hard.images, hard.probabilities > 0.5)
    file = TrainedGenerator.from_model(make_model(tmp_path, "m", neuron="sbn"))
    model = file.sample(1000, seed=3)
    assert (model.source, file.dataset_spec.dataset) == ("m", "digits")
    assert abs(model.images.mean() - model.probabilities.mean()) < 5 * error


@pytest.mark.usefixtures("training")  # of the classifier
def test_any_shape_and_channels_can_be_measured(tmp_path):
    import torch

    images = (torch.rand(200, 3, 9, 14, generator=torch.Generator().manual_seed(1)) < 0.2).to(torch.uint8)
    dataset = BinaryDataset("bits", images, torch.arange(200) % 2)
    reference = make_reference(dataset, dataset, cache=tmp_path)
    evaluation = evaluate_samples(Samples("same", images.numpy()), reference)
    assert evaluation.metrics["pattern_divergence"] == 0
    assert evaluation.metrics["frechet_distance"] == pytest.approx(0, abs=1e-6)
    # There are no other training images than those that are compared.
    assert "training_frechet_distance" in evaluation.metrics.keys() - evaluation.floor.keys()


def test_the_command(tmp_path, cache, reference, run):
    np.savez_compressed(tmp_path / "real.npz", images=np.packbits(reference.test.reshape(257, -1), axis=1))
    result = bgan_process(
        "evaluate",
        run.folder,
        tmp_path / "real.npz",
        "--count",
        150,
        "--dataset",
        "digits",
        "--json",
        tmp_path / "a.json",
        env={"BGAN_CACHE_DIR": str(cache)},
    )
    assert result.returncode == 0, result.stderr
    for name, metric in METRICS.items():
        assert (metric.title in result.stdout) == (name not in NEED_CLASSES_ASKED_FOR)
    assert "floor: real test images against real training images; to training images: other" in result.stdout
    assert "±: the standard error over draws of samples" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "between real.npz and the floor" in line]
    assert "unique images, share" in line
    assert "Frechet distance;" not in line
    assert "is right on" in result.stdout
    assert "small: artifacts" in result.stderr
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert (first["source"], second["source"], first["count"]) == ("small", "real.npz", 150)
    assert set(first["metrics"]) == set(METRICS) - NEED_CLASSES_ASKED_FOR
    assert set(first["errors"]) <= set(first["metrics"])
    value, error = (second[name]["isolated_pixels"] for name in ("metrics", "errors"))
    assert f"{value:.3f} ± {error:.3f}" in result.stdout
    assert PREACTIVATIONS.isdisjoint(second["metrics"])
    assert len(first["preactivation_histogram"]) == 256


def test_json_alone_on_stdout(cache, reference, run):
    result = bgan(
        "evaluate", run.folder, "--count", 64, "--no-labels", "--json", "-", env={"BGAN_CACHE_DIR": str(cache)}
    )
    assert json.loads(result.stdout)[0]["count"] == 64


@pytest.mark.usefixtures("reference")  # some are measured as far as the classifier
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.npz"], "there is no file none.npz"),
        (["nowhere", "--runs-dir", "none"], "there is no run 'nowhere'"),
        (["half.npy", "--dataset", "digits"], "binarize the samples first"),
        (["few.npy", "--dataset", "digits"], "the metrics need at least 64"),
        (["bad.onnx"], "is not a model that `bgan export` wrote"),
        (["few.npy", "--dataset", "cifar"], "dataset is 'cifar'; choose one of"),
        (["few.npy", "--dataset", "mnist", "--data-dir", "none"], "MNIST is not in none"),
    ],
)
def test_bad_input_is_one_line(tmp_path, cache, arguments, says):
    np.save(tmp_path / "half.npy", np.full((100, 28, 28), 0.5))
    np.save(tmp_path / "few.npy", np.zeros((10, 28, 28), bool))
    (tmp_path / "bad.onnx").write_bytes(b"no")
    result = bgan("evaluate", *arguments, cwd=tmp_path, env={"BGAN_CACHE_DIR": str(cache)})
    assert result.returncode == (2 if "choose one of" in says else 1)
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("bgan: ")]
    assert says in line
