"""--device of the commands that measure a trained generator."""

import sys

import pytest
import torch

from bgan.trainer.cli.app import main
from bgan.trainer.common.errors import ConfigError, DeviceError
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.networks.discriminators import build_discriminator
from bgan.trainer.reports.diagnosis.flips import discriminator_flip_differences
from bgan.trainer.training.distributed import World
from bgan.trainer.training.trainer import resolve_device
from tests.kit.models import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", shape=(1, 4, 4), neuron="sbn", steps=1)


@pytest.mark.parametrize("command", ["evaluate", "explore", "card", "diagnose-gradients"])
def test_a_device_that_is_not_there_is_one_line(command, run, models, tmp_path, monkeypatch, capsys):
    source = str(models / "mlp-dbn.onnx") if command == "card" else str(run.folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bgan", command, source, "--device", "cuda:7"])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert [line for line in lines if line.startswith("bgan: ")] == lines
    assert lines[0].startswith("bgan: device 'cuda:7' cannot be used (")
    assert lines[0].endswith("; use one of cpu, or auto")


def test_a_generator_computes_where_it_is_told(run):
    """On torch's device of tensors without data, nothing is computed, so there is nothing to bring back."""
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        TrainedGenerator.from_run(run, device=torch.device("meta")).sample(4)
    there, here = (
        TrainedGenerator.from_run(run, **given).sample(4) for given in ({"device": torch.device("cpu")}, {})
    )
    assert there.images.tobytes() == here.images.tobytes()


@pytest.mark.parametrize("network", ["mlp", "strided-cnn"])
def test_flips_are_computed_where_the_images_are(network):
    """Of tensors without data on one device with those of another, torch raises."""
    discriminator = build_discriminator(network, ImageShape(1, 8, 8)).to("meta")
    images = torch.zeros(2, 1, 8, 8, device="meta")
    assert discriminator_flip_differences(discriminator, lambda logits: -logits, images).device.type == "meta"


def test_convolutions_on_a_gpu_are_in_float32_and_not_timed():
    resolve_device("cpu")
    own = torch.backends.cudnn
    assert (own.allow_tf32, own.deterministic, own.benchmark) == (False, True, False)
    assert not torch.backends.cuda.matmul.allow_tf32


def test_processes_do_not_share_a_gpu_that_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    world = World(rank=1, size=2, local_rank=1)
    says = "device is 'cuda:1', which 2 processes would share; use cuda: each process then has its own"
    with pytest.raises(ConfigError, match=says):
        resolve_device("cuda:1", world)
    assert resolve_device("cpu", world).type == "cpu"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # the other process is on another machine
    with pytest.raises(DeviceError, match="device 'cuda:1' cannot be used"):
        resolve_device("cuda:1", world)
