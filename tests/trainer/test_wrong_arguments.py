"""What is given to the Python interface and cannot be: one line that names it, before there is a run."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import bgan.trainer as bgan
from tests.kit.own_networks import digits_like

IMAGES, LABELS = digits_like()


@pytest.fixture(scope="module")
def dataset():
    return bgan.BinaryDataset.from_arrays(IMAGES, LABELS, name="bars")


def _config(**settings):
    return bgan.TrainingConfig.resolve(**{"batch_size": 32, "latent_size": 6, "epochs": 1, **settings})


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return bgan.train(_config(), dataset, folder=tmp_path_factory.mktemp("runs") / "run")


class Watcher(bgan.Callback):
    pass


ARGUMENTS = [
    ({"config": np.zeros(3)}, "config is of type ndarray; give a TrainingConfig, as configure()"),
    ({"dataset": IMAGES}, "dataset is of type ndarray; give a BinaryDataset"),
    ({"console": True}, "console is of type bool"),
    ({"callbacks": Watcher()}, "callbacks is of type Watcher; give a list"),
    ({"callbacks": [Watcher]}, "callbacks holds the class Watcher; give an object of it"),
    ({"callbacks": [print]}, "one of callbacks is of type builtin_function_or_method"),
    ({"discriminators": [None]}, "discriminators: type NoneType is no network"),
]


@pytest.mark.parametrize(("given", "message"), ARGUMENTS, ids=lambda each: next(iter(each)))
def test_a_training_names_what_is_of_the_wrong_type(dataset, tmp_path, given, message):
    arguments = {"config": _config(), "dataset": dataset, "folder": tmp_path / "run", **given}
    with pytest.raises(bgan.ConfigError, match=message):
        bgan.train(**arguments)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_a_file_is_named(dataset, run, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(bgan.RunError, match="file is not the folder of a run, but a file"):
        bgan.train(_config(), dataset, folder=file)
    with pytest.raises(bgan.ExportError, match=r"file is a file; name a folder of models"):
        bgan.export(run, file)
    assert file.read_text() == "mine"


CALLS = {
    "count": (lambda run, data: run.sample(0), "count is 0; it must be a whole number, at least 1"),
    "fraction": (lambda run, data: run.sample(2.5), "count is 2.5; it must be a whole number"),
    "seed": (lambda run, data: run.sample(2, seed="x"), "seed is 'x'; it must be a whole number"),
    "export": (lambda run, data: bgan.export("run"), "run is of type str; give a Run"),
    "option": (lambda run, data: bgan.export(run, nope=1), "there is no option 'nope'; there are name, "),
    "source": (lambda run, data: bgan.evaluate([IMAGES], data), "source is of type list; give a Run, a path"),
    "real": (lambda run, data: bgan.evaluate(run, IMAGES), "dataset is of type ndarray"),
    "training": (lambda run, data: bgan.evaluate(run, data, training=IMAGES), "training is of type ndarray"),
    "metrics": (lambda run, data: bgan.evaluate(IMAGES, data, metrics="size"), "there is no metric 'size'"),
    "diagnosed": (lambda run, data: bgan.diagnose_gradients("run"), "run is of type str; give a Run"),
    "draws": (lambda run, data: bgan.diagnose_gradients(run, dataset=data, draws=0), "draws is 0; it must be"),
    "estimators": (
        lambda run, data: bgan.diagnose_gradients(run, dataset=data, estimators="arm"),
        "estimator is 'arm'",
    ),
    "diagnosis": (
        lambda run, data: bgan.diagnose_gradients(run, nope=1),
        "there is no option 'nope'; there are im",
    ),
    "explored": (lambda run, data: bgan.explore(3), "source is of type int; give a Run"),
    "images": (lambda run, data: bgan.explore(run, nearest=False, images=501), "images is 501; it must be"),
    "split": (lambda run, data: bgan.load_dataset("digits", split="best"), "split is 'best'; choose one of train"),
    "network": (lambda run, data: _config(network=nn.Linear(2, 2)), "network is Linear"),
    "whole": (lambda run, data: _config(dataset=data), "dataset is BinaryDataset"),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_function_names_what_it_cannot_use_in_a_line(dataset, run, name):
    call, message = CALLS[name]
    with pytest.raises(bgan.ConfigError) as raised:
        call(run, dataset)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_run_opens_by_the_text_of_its_path_and_one_label_is_one(run, dataset, tmp_path):
    assert len(bgan.Run(str(run.folder)).sample(2).images) == 2
    named = dataclasses.replace(dataset, classes=("10", "11", "12"))
    conditional = bgan.train(_config(conditional=True), named, folder=tmp_path / "run")
    assert conditional.sample(2, labels="12").labels.tolist() == [2, 2]


ARRAYS = {
    "ragged": ([[1], [1, 2]], {}, bgan.DataError, "bars: images are no array of numbers"),
    "bfloat16": (torch.zeros(4, 8, 8, dtype=torch.bfloat16), {}, bgan.DataError, "bars: images are no array"),
    "option": (IMAGES, {"nope": 1}, bgan.ConfigError, "there is no option 'nope' of images"),
    "name": (IMAGES, {"name": 3}, bgan.ConfigError, "the data set's name is 3"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_cannot_be_read_are_named(name):
    images, options, error, message = ARRAYS[name]
    with pytest.raises(error, match=message):
        bgan.BinaryDataset.from_arrays(images, **{"name": "bars", **options})


def test_images_that_carry_a_gradient_are_read():
    images = torch.from_numpy(IMAGES).float().requires_grad_()
    np.testing.assert_array_equal(bgan.BinaryDataset.from_arrays(images).numpy()[:, 0], IMAGES)


def test_a_run_of_arrays_is_explored_with_its_images(dataset, run, tmp_path):
    with pytest.raises(
        bgan.DataError, match="the images of bars were given from Python; give them again as dataset="
    ):
        bgan.explore(run, tmp_path / "none")
    found = bgan.explore(run, tmp_path / "pictures", dataset=dataset, images=2, steps=3, draws=1)
    assert {picture.stem for picture in found.pictures} >= {"nearest"}
    small = bgan.BinaryDataset.from_arrays(IMAGES[:, :4], name="small")
    with pytest.raises(bgan.DataError, match="run makes images of 1x8x8, but those of small are 1x4x8"):
        bgan.explore(run, dataset=small)


def test_an_estimator_refuses_one_loss_for_all_rows():
    logits = torch.zeros(3, 4, requires_grad=True)
    with pytest.raises(bgan.ConfigError, match=r"losses gives \[\] for 3 rows of bits; it must give .* \[3\]"):
        bgan.gradient_estimator("disarm", units=4)(logits, lambda bits: bits.sum())
