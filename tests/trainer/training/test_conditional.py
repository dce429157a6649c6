"""Training with classes and with augmentation: what is learned, what is resumed, what is exported and measured."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
from google.protobuf import json_format

from bgan.serving.models import model_check
from bgan.serving.models.engine import load_engine
from bgan.trainer.common.errors import DataError
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.evaluation.evaluate import evaluate_samples
from bgan.trainer.evaluation.generator import TrainedGenerator, open_generator
from bgan.trainer.evaluation.metrics.table import MetricInputs, Need
from bgan.trainer.evaluation.reference import make_reference
from bgan.trainer.export.exporter import export_run
from bgan.trainer.export.model_file import OnnxModel
from bgan.trainer.reports.diagnosis.diagnose import DiagnosisOptions, diagnose
from bgan.trainer.reports.exploration.explore import ExplorationOptions, explore
from bgan.trainer.reports.exploration.pictures import draw_pictures
from bgan.trainer.training.checkpoint import checkpoint_files, load_checkpoint, trained_generator
from bgan.trainer.training.trainer import Trainer
from bgan.v1 import model_pb2
from tests.kit.models import make_run

CPU = torch.device("cpu")
SHAPE = (1, 8, 12)
CLASSES = ("top", "bottom", "left")


def _halves(count=300):
    """Images of three classes, on in one half, with a tenth of the pixels flipped."""
    random = torch.Generator().manual_seed(4)
    labels = torch.arange(count) % 3
    images = torch.zeros(count, *SHAPE, dtype=torch.uint8)
    images[labels == 0, :, :4] = 1
    images[labels == 1, :, 4:] = 1
    images[labels == 2, :, :, :6] = 1
    images ^= (torch.rand(images.shape, generator=random) < 0.1).to(torch.uint8)
    return BinaryDataset("halves", images, labels, CLASSES)


def _config(**settings):
    usual = {"objective": "relativistic", "batch_size": 32, "latent_size": 8, "epochs": 40, "learning_rate": 1e-3}
    return TrainingConfig.resolve(**{**usual, "conditional": True, **settings})


@pytest.mark.usefixtures("training")
def test_images_of_a_class_are_learned():
    torch.manual_seed(0)
    trainer = Trainer(_config(), _halves(), CPU)
    for _ in range(250):
        trainer.train_step()
    grid = trainer.sample_grid()[:, 0]
    scores = torch.stack([grid[:, :4].mean((1, 2)), grid[:, 4:].mean((1, 2)), grid[:, :, :6].mean((1, 2))], dim=1)
    right = (scores.argmax(1) == torch.arange(64) % 3).float().mean()
    assert right > 0.85


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "wgan-gp", "augment": "translate:2+hflip+vflip", "fresh_batches": False},
        {"conditional": False, "augment": "translate"},
        {"network": "cnn", "neuron": "sbn", "estimator": "reinmax", "augment": "translate"},
        {"objective": "gan", "neuron": "sbn", "estimator": "reinforce-loo", "augment": "hflip"},
    ],
)
def test_a_resumed_training_is_an_unbroken_one(settings):
    unbroken, first, second = (Trainer(_config(**settings), _halves(), CPU) for _ in range(3))
    losses = [unbroken.train_step() for _ in range(5)]
    assert [first.train_step() for _ in range(2)] == losses[:2]
    second.load_state_dict(first.state_dict(), first.step)
    assert [second.train_step() for _ in range(3)] == losses[2:]
    assert torch.equal(second.sample_grid(), unbroken.sample_grid())


def test_augmentation_is_of_real_and_generated_images_in_both_steps_and_changes_nothing_else():
    plain, augmented = (Trainer(_config(augment=text), _halves(), CPU) for text in ("none", "translate:3"))
    judged = {}
    for name, trainer in (("plain", plain), ("augmented", augmented)):
        seen = judged[name] = []
        trainer.discriminators[0].register_forward_hook(
            lambda module, inputs, logits, seen=seen: seen.append(inputs[0])
        )
        own = trainer.discriminators[0]
        both = own.logits_and_input_gradient
        own.logits_and_input_gradient = lambda images, labels, both=both, seen=seen: (
            seen.append(images),
            both(images, labels),
        )[1]
        trainer.train_step()
    for before, after in zip(judged["plain"][:1], judged["augmented"][:1], strict=True):
        assert before.shape == after.shape
        for half in (slice(0, 32), slice(32, 64)):  # real ones, then generated ones
            moved = (before[half] != after[half]).any(dim=(1, 2, 3)).float().mean()
            assert 0.5 < moved < 1
            assert set(after[half].unique().tolist()) <= {0, 1}
    assert (
        len(judged["augmented"]) == len(judged["plain"]) == 3
    )  # the critic's step; the generator's: real, generated
    assert torch.equal(judged["augmented"][1], judged["augmented"][0][:32])
    assert set(judged["augmented"][2].unique().tolist()) <= {0, 1}


def test_classes_need_labels_that_say_something():
    images = torch.zeros(40, *SHAPE, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"unlabelled has no labels to condition on; .* --labels-key"):
        Trainer(_config(), BinaryDataset("unlabelled", images, None), CPU)
    with pytest.raises(DataError, match="all images of alike are of one class, face; train without --conditional"):
        Trainer(_config(), BinaryDataset("alike", images, torch.zeros(40, dtype=torch.int64), ("face",)), CPU)
    with pytest.raises(DataError, match=r"ids has 40 classes for 40 images, too few of each .* --labels-key"):
        Trainer(_config(), BinaryDataset("ids", images, torch.arange(40)), CPU)


def test_names_of_classes_fit_into_a_manifest_that_is_served():
    def trainer(length):
        classes = tuple(f"{number}é" * length for number in range(5))
        dataset = BinaryDataset("long", torch.zeros(40, *SHAPE, dtype=torch.uint8), torch.arange(40) % 5, classes)
        return Trainer(_config(), dataset, CPU)

    with pytest.raises(DataError, match="names of the 5 classes of long take 60,330 bytes, and a model file"):
        trainer(1720)
    run = model_pb2.TrainingRun(name="é" * 255)
    classes = {"classes": trainer(1710).classes, "class_counts": [2**32 - 1] * 5}
    manifest = model_pb2.Model(name="x" * 128, training_run=run, **classes)
    assert len(json_format.MessageToJson(manifest)) < model_check._MAX_MANIFEST_BYTES


@pytest.fixture(scope="module", params=[("mlp", "dbn"), ("doubling-cnn", "sbn")], ids=str)
def run(request, tmp_path_factory):
    network, neuron = request.param
    data = _halves()
    return make_run(
        tmp_path_factory.mktemp("runs") / f"halves-{neuron}",
        shape=SHAPE,
        images=data.images,
        classes=CLASSES,
        conditional=True,
        network=network,
        neuron=neuron,
        objective="relativistic",
        batch_size=32,
        latent_size=8,
    )


@pytest.mark.parametrize("graph", ["fast", "plain"])
@pytest.mark.usefixtures("exporting")
def test_the_file_takes_labels_and_does_what_the_generator_does(run, tmp_path, graph):
    result = export_run(run, tmp_path, graph=graph)
    file = OnnxModel(result.path)
    assert list(file.manifest.classes) == list(CLASSES)
    checkpoint = load_checkpoint(checkpoint_files(run.checkpoints)[0])
    assert checkpoint.meta.classes == CLASSES
    generator = trained_generator(run.config(), checkpoint)
    session = onnxruntime.InferenceSession(result.path)
    types = {each.name: (each.type, each.shape[1:]) for each in session.get_inputs()}
    assert types["labels"] == ("tensor(int64)", [])
    latents, labels = torch.randn(70, 8), torch.arange(70) % 3
    with torch.no_grad():
        expected = torch.sigmoid(checkpoint.meta.slope * generator(latents, labels)).numpy()
    np.testing.assert_allclose(file.probabilities(latents.numpy(), labels.numpy()), expected, atol=1e-5)
    swapped = file.probabilities(latents.numpy(), labels.flip(0).numpy())
    assert np.abs(swapped - expected).max() > 1e-3


@pytest.mark.usefixtures("exporting")
def test_classes_are_drawn_in_the_shares_of_the_training_images(tmp_path):
    """By whatever makes the images: the run, its model file, and the stream."""
    labels = [0] * 27 + [1] * 3 + [2] * 10
    run = make_run(tmp_path / "shares", shape=SHAPE, classes=CLASSES, labels=labels, conditional=True)
    path = export_run(run, tmp_path).path
    stream = load_engine(path).sample(1, 0, 3000)
    generators = TrainedGenerator.from_run(run), TrainedGenerator.from_model(path)
    for found in (*(each.sample(3000).labels for each in generators), stream.labels):
        assert np.bincount(found, minlength=3) / 3000 == pytest.approx([0.675, 0.075, 0.25], abs=0.04)


def test_classes_of_a_checkpoint_without_counts_are_drawn_alike(run):
    generator = TrainedGenerator.from_run(run)
    older = dataclasses.replace(generator, class_counts=())
    assert np.bincount(older.sample(3000).labels) / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.usefixtures("training")  # of the classifier
def test_samples_know_their_classes_and_the_share_that_is_right_is_measured(run, tmp_path):
    data = _halves()
    reference = make_reference(data, data.first(120), cache=tmp_path)
    assert reference.classifier_accuracy > 0.95
    samples = TrainedGenerator.from_run(run).sample(90)
    assert np.bincount(samples.labels, minlength=3).min() > 10
    evaluation = evaluate_samples(samples, reference)
    predicted = reference.classifier.describe(samples.images)[1].argmax(axis=1)
    assert evaluation.metrics["label_accuracy"] == pytest.approx((predicted == samples.labels).mean())
    assert evaluation.floor["label_accuracy"] == reference.classifier_accuracy
    assert evaluation.left_out == []
    of_clusters = dataclasses.replace(samples, classes=("cluster 0", "cluster 1", "cluster 2"))
    more = {"compared": 90, "seed": 0, "report": print}
    missing = [MetricInputs(each, data.numpy(), reference, **more).missing for each in (samples, of_clusters)]
    others = {Need.STACKED_DIGITS}
    assert missing == [others, others | {Need.REQUESTED_CLASSES}]


@pytest.mark.usefixtures("training")  # of the classifier
def test_few_real_images_leave_out_what_compares_two_sets_and_say_so(run, tmp_path):
    data = _halves()
    reference = make_reference(data, data.first(20), cache=tmp_path)
    evaluation = evaluate_samples(TrainedGenerator.from_run(run).sample(90), reference)
    assert {"inception_score", "class_entropy", "nearest_distance", "on_fraction"} <= evaluation.metrics.keys()
    assert not {
        "frechet_distance",
        "kernel_distance",
        "precision",
        "two_sample_accuracy",
        "pattern_divergence",
    } & (evaluation.metrics.keys() | evaluation.floor.keys())
    (line,) = evaluation.left_out
    assert line.endswith("they compare sets of 64 images or more, and there are 20 test and 300 training images")


def test_explored_images_are_of_classes_in_turns(run):
    generator = open_generator(str(run.folder), run.folder.parent, print)
    exploration = explore(generator, ExplorationOptions(images=4, steps=3, draws=2), None, lambda text: None)
    latents = np.random.default_rng(1).standard_normal((3, 8), np.float32)
    assert generator.probabilities(latents, np.arange(3)).shape == (3, *SHAPE)
    pictures = draw_pictures(exploration)
    assert "All images of a row are of the class of its first." in pictures[2].caption


def test_estimators_are_diagnosed_at_images_of_classes(tmp_path, monkeypatch):
    folder = tmp_path / "halves"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        from PIL import Image

        images = _halves(90).images[number::3].numpy()
        for index, image in enumerate(images):
            Image.fromarray(image[0] * 255).save(folder / name / f"{index}.png")
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "cache"))
    run = make_run(
        tmp_path / "run",
        shape=SHAPE,
        images=_halves(90).images,
        classes=CLASSES,
        conditional=True,
        neuron="sbn",
        objective="relativistic",
        batch_size=8,
        latent_size=8,
        dataset="halves",
        data=str(folder),
    )
    diagnosis = diagnose(run, DiagnosisOptions(images=2, draws=20, backgrounds=10), estimators=["reinmax"])
    assert [each.estimator for each in diagnosis.estimators] == ["sigmoid-adjusted", "reinmax"]
    assert diagnosis.gradient_norm > 0
