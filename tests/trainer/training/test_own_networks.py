"""Networks, objectives and data sets given from Python: what is found before a training, and what holds."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bgan.trainer as bgan
from bgan.serving.errors import ModelFileError
from bgan.serving.models.engine import load_engine
from bgan.serving.models.model_check import OPERATORS
from bgan.trainer.exporting.served_operators import SERVED_OPERATORS
from bgan.trainer.networks.own import OwnDiscriminator
from bgan.trainer.networks.trial import try_discriminator
from bgan.trainer.training.checkpoint import load_newest_checkpoint
from tests.kit.own_networks import AttentiveCritic, AttentiveGenerator, bars, tiny_config

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def dataset():
    return bars()


class Generator(nn.Module):
    """One layer, and what becomes of its logits."""

    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.layer, self.change = nn.Linear(6, 64), change

    def forward(self, latents):
        return self.change(self.layer(latents).view(-1, *SHAPE))


class Critic(nn.Module):
    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.layer, self.change = nn.Linear(64, 1), change

    def forward(self, images):
        return self.change(self.layer(images.flatten(1)))


def _scaled(image_shape, **sizes):
    raise KeyError("no such size")


WRONG_GENERATORS = {
    "flat": (Generator(lambda x: x.flatten(1)), r"gives float32 \[4, 64\]; logits are float32 \[4, 1, 8, 8\]"),
    "tuple": (Generator(lambda x: (x, x)), "gives type tuple, not a tensor of logits"),
    "double": (Generator(lambda x: x.double()), r"gives float64 \[4, 1, 8, 8\]; logits are float32"),
    "mixing": (
        Generator(lambda x: x - x.mean(0)),
        "mixes rows in eval mode: the logits of a latent depend on",
    ),
    "one size": (Generator(lambda x: x.reshape(4, *SHAPE)), r"fails for latents \[1, 6\] \(RuntimeError: shape"),
    "torch's noise": (
        Generator(lambda x: x + torch.randn(x.shape)),
        "it draws noise of its own; all noise",
    ),
    "own noise": (
        Generator(lambda x: x + torch.from_numpy(np.random.default_rng().normal(size=1).astype("f4"))),
        "gives other logits for the same latents in eval mode: it draws noise of its own",
    ),
    "other latents": (
        nn.Linear(7, 64),
        r"the generator own:Linear fails for latents \[4, 6\] \(RuntimeError: ",
    ),
    "no module": (lambda **sizes: 3, "the network own:lambda gives type int, not a torch.nn.Module"),
    "broken": (
        _scaled,
        r"the network own:_scaled cannot be built \(KeyError: 'no such size'\); give a module, or",
    ),
    "text": ("cnn", "generator: type str is no network; give a torch.nn.Module"),
}


@pytest.mark.parametrize("name", WRONG_GENERATORS)
def test_a_generator_that_cannot_be_trained_is_named_before_there_is_a_run(dataset, tmp_path, name):
    generator, message = WRONG_GENERATORS[name]
    with pytest.raises(bgan.ConfigError, match=message) as raised:
        bgan.train(tiny_config(), dataset, generator=generator, folder=tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


WRONG_CRITICS = {
    "of classes": (Critic(lambda x: x.expand(-1, 3)), {}, r"gives float32 \[4, 3\]; logits are float32 \[4\]"),
    "one logit": (Critic(lambda x: x.mean()), {}, r"gives float32 \[\]; logits are float32 \[4\]"),
    "detached": (Critic(lambda x: x.detach()), {}, r"own:Critic fails for images \[4, 1, 8, 8\] \(RuntimeError: "),
    "mixing": (
        Critic(lambda x: x - x.mean()),
        {"neuron": "sbn", "estimator": "disarm", "objective": "gan"},
        "the estimator disarm needs a loss of each image by itself, and the discriminator own:Critic mixes the",
    ),
}


@pytest.mark.parametrize("name", WRONG_CRITICS)
def test_a_critic_that_cannot_be_trained_is_named(dataset, tmp_path, name):
    critic, settings, message = WRONG_CRITICS[name]
    with pytest.raises(bgan.ConfigError, match=message):
        bgan.train(tiny_config(**settings), dataset, discriminators=critic, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_critic_without_a_second_derivative_is_named(dataset, tmp_path):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * gradient

    class Critic(nn.Sequential):
        def forward(self, images):
            return self[2](Once.apply(self[1](self[0](images))))

    critic = Critic(nn.Flatten(), nn.Linear(64, 2), nn.Linear(2, 1))
    with pytest.raises(bgan.ConfigError, match=r"own:Critic has no second derivative.*--objective wgan or gan"):
        bgan.train(tiny_config(), dataset, discriminators=critic, folder=tmp_path / "run")
    bgan.train(tiny_config(objective="gan"), dataset, discriminators=critic, folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("critic", "mixes"),
    [(AttentiveCritic(), False), (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 1)), True)],
)
def test_whether_rows_are_mixed_is_found_out(critic, mixes):
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    wrapped = OwnDiscriminator(critic, "critic", 0)
    try_discriminator(wrapped, SHAPE, needs_gradient=True)
    assert wrapped.mixes_rows is mixes
    assert all(torch.equal(before[name], value) for name, value in critic.state_dict().items())


@pytest.mark.parametrize("objective", ["wgan-gp", "relativistic", "wgan"])
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_gradient_in_closed_form_is_that_of_a_second_backward_pass(dataset, tmp_path, objective, is_closed):
    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-1, 1, 64))

        def forward(self, images):
            return images.flatten(1).square() @ self.weight

    class Closed(Quadratic):
        calls = 0

        def input_gradient(self, images):
            Closed.calls += 1
            return 2 * images * self.weight.view(SHAPE)

    found = []
    for critic in (Quadratic(), Closed())[: 1 + is_closed]:
        run = bgan.train(
            tiny_config(objective=objective),
            dataset,
            discriminators=[critic, "mlp"][:1],
            folder=tmp_path / type(critic).__name__,
        )
        found.append(run.sample(8).probabilities)
    assert (Closed.calls > 0) is (is_closed and objective != "wgan")
    np.testing.assert_allclose(found[0], found[-1], atol=1e-6)


def test_what_is_frozen_stays_frozen_and_several_judge_side_by_side(dataset, tmp_path):
    critic, other = AttentiveCritic(), Critic()
    critic.first.requires_grad_(False)
    other.layer.bias.requires_grad_(False)
    critics = {"discriminators": [critic, other]}
    run = bgan.train(tiny_config(objective="relativistic", epochs=2), dataset, **critics, folder=tmp_path / "run")
    assert run.config().networks.discriminator == "own:AttentiveCritic+own:Critic"
    state = load_newest_checkpoint(run.checkpoints, print).tensors
    name = "parametrizations.weight.original"
    assert torch.equal(
        state[f"discriminator.0.module.first.{name}"], critic.first.parametrizations.weight.original
    )
    assert not torch.equal(state["discriminator.1.module.layer.weight"], other.layer.weight)
    assert torch.equal(state["discriminator.1.module.layer.bias"], other.layer.bias)
    bgan.train(tiny_config(objective="relativistic", epochs=3), dataset, **critics, folder=tmp_path / "run")
    with pytest.raises(bgan.RunError, match=r"discriminator own:AttentiveCritic\+own:Critic -> own:"):
        bgan.train(tiny_config(objective="relativistic"), dataset, discriminators=critic, folder=tmp_path / "run")


def test_an_objective_of_ones_own(dataset, tmp_path):
    hinge = bgan.Objective(
        name="hinge",
        discriminator_loss=lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        generator_loss=lambda fake: -fake,
    )
    run = bgan.train(tiny_config(objective="gan"), dataset, objective=hinge, folder=tmp_path / "run")
    assert run.config().objective.objective == "own:hinge"
    with pytest.raises(bgan.RunError, match=r"own:hinge: give them again, Run\.open\(path, objective=\.\.\.\)"):
        bgan.Run.open(run.folder)
    bgan.Run.open(run.folder, objective=hinge).sample(3)
    with pytest.raises(bgan.ConfigError, match="objective is of type str; give an Objective"):
        bgan.Run.open(run.folder, objective="hinge")


@pytest.mark.usefixtures("training")  # for seconds
def test_a_builder_draws_its_weights_by_the_seed(dataset, tmp_path):
    def build(*, latent_size, image_shape, class_count):
        assert (latent_size, tuple(image_shape), class_count) == (6, SHAPE, 0)
        return AttentiveGenerator(latent_size)

    samples = [
        bgan.train(tiny_config(seed=seed), dataset, generator=build, folder=tmp_path / name)
        .sample(4)
        .probabilities
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()


def test_a_run_of_arrays_knows_its_images_by_their_digest(dataset, tmp_path):
    run = bgan.train(tiny_config(), dataset, folder=tmp_path / "run")
    config = run.config()
    assert (config.data.dataset, config.data.digest) == ("bars", dataset.content_digest())
    again = bars()
    bgan.train(tiny_config(epochs=2), again, folder=tmp_path / "run")
    other = bars(seed=1)
    with pytest.raises(bgan.RunError, match="was trained on other images"):
        bgan.train(tiny_config(epochs=2), other, folder=tmp_path / "run")
    with pytest.raises(bgan.DataError, match="the images of bars were given from Python; give them again"):
        bgan.train(config)


def test_a_run_of_a_set_by_name_is_that_of_the_command(tmp_path):
    config = tiny_config(dataset="mnist", batch_size=512)
    digits = bgan.load_dataset("digits")
    run = bgan.train(config, digits, folder=tmp_path / "run")  # 3 steps
    assert (run.config().data.dataset, run.config().data.digest) == ("digits", None)
    part = bgan.train(config, digits.first(600), folder=tmp_path / "part")
    assert part.config().data.digest == digits.first(600).content_digest()
    with pytest.raises(bgan.DataError, match="given from Python"):
        bgan.open_dataset(part.config().data)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((9, 4, 4)),), {}, "every value is 0"),
        (
            (np.eye(16).reshape(-1, 4, 4), np.arange(9)),
            {},
            "they are of shape 9, not one for each",
        ),
        ((np.eye(16).reshape(-1, 4, 4),), {"name": "mnist"}, "data set's name is 'mnist'"),
        ((np.eye(16).reshape(-1, 4, 4),), {"name": "a b"}, "data set's name is 'a b'"),
        ((np.array(["a", "b"]),), {}, "pixels are numbers"),
        ((np.eye(16).reshape(-1, 4, 4),), {"threshold": 3.0}, "threshold needs --binarize threshold"),
    ],
)
def test_arrays_that_are_no_data_set(arguments, options, message):
    with pytest.raises(bgan.UserError, match=message):
        bgan.BinaryDataset.from_arrays(*arguments, **options)


def test_arrays_become_binary_as_files_do():
    grey = np.random.default_rng(0).integers(0, 256, (20, 3, 4), np.uint8)
    read = bgan.BinaryDataset.from_arrays(
        torch.from_numpy(grey), ["b", "a"] * 10, binarize="threshold", threshold=99
    )
    np.testing.assert_array_equal(read.numpy()[:, 0], grey > 99)
    assert (read.classes, read.labels[:3].tolist()) == (("a", "b"), [1, 0, 1])
    drawn = bgan.BinaryDataset.from_arrays(grey, binarize="dynamic")
    assert drawn.image_shape == (1, 3, 4)


def test_it_trains_in_a_thread_without_signals(dataset, tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(bgan.train(tiny_config(), dataset, folder=tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert runs[0].sample(2).images.shape == (2, *SHAPE)


def test_labels_for_a_run_without_classes_are_named(dataset, tmp_path):
    run = bgan.train(tiny_config(), dataset, folder=tmp_path / "plain")
    with pytest.raises(bgan.ConfigError, match="plain is not class-conditional; leave out labels"):
        run.sample(2, labels=[0])
    conditional = bgan.train(tiny_config(conditional=True), dataset, folder=tmp_path / "classes")
    with pytest.raises(bgan.ConfigError, match="classes has no class 'seven'; its classes are 0, 1, 2"):
        conditional.sample(2, labels=[0, "seven"])


@pytest.mark.usefixtures("exporting")
def test_what_cannot_be_exported_is_said_in_a_line_and_the_run_is_kept(dataset, tmp_path, capfd):
    generator = Generator(lambda x: x * (2 if x.sum().item() > 0 else 3) ** 0)
    warned = []
    run = bgan.train(tiny_config(), dataset, generator=generator, folder=tmp_path / "run", warn=warned.append)
    (line,) = warned
    assert line.startswith(
        "the generator own:Generator trains, but cannot be exported (GuardOnDataDependentSymNode"
    )
    with pytest.raises(bgan.ExportError, match="the generator own:Generator cannot be written as ONNX") as raised:
        bgan.export(run, tmp_path / "models")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    assert not list(tmp_path.glob("**/*.onnx"))
    with pytest.raises(bgan.ExportError, match="integer files are made of the layers of bgan's generators"):
        bgan.export(run, tmp_path / "models", arithmetic="integer")
    assert run.sample(3).images.shape == (3, *SHAPE)
    assert capfd.readouterr() == ("", "")


class Recurrent(nn.Module):
    """Draws its image row by row."""

    def __init__(self):
        super().__init__()
        self.rows = nn.GRU(8, SHAPE[2], batch_first=True)

    def forward(self, latents):
        return self.rows(latents[:, None].expand(-1, SHAPE[1], -1))[0][:, None]


@pytest.mark.usefixtures("exporting")
def test_what_the_server_does_not_run_is_named_at_export(dataset, tmp_path):
    run = bgan.train(tiny_config(latent_size=8), dataset, generator=Recurrent(), folder=tmp_path / "run")
    warned = []
    path = bgan.export(run, tmp_path / "models", warn=warned.append).path
    (line,) = warned
    assert line.startswith(
        f"`bgan serve` and `bgan generate` will refuse {path.name}, which has the operators GRU"
    )
    with pytest.raises(ModelFileError, match="uses the operator 'GRU'"):
        load_engine(path)
    assert SERVED_OPERATORS == OPERATORS


def test_a_data_set_is_measured_against_every_seventh_of_its_images(dataset, tmp_path):
    run = bgan.train(tiny_config(), dataset, folder=tmp_path / "run")
    evaluation = bgan.evaluate(run, dataset, count=64, device="cpu", labelled=False)
    assert (evaluation.compared, evaluation.dataset) == (96 // 7, "bars")
    given = bgan.evaluate(
        run, dataset.first(40), training=dataset, count=64, device="cpu", labelled=False, metrics=["exact_copies"]
    )
    assert (given.compared, set(given.metrics), set(given.floor)) == (40, {"exact_copies"}, {"exact_copies"})
    with pytest.raises(bgan.ConfigError, match="there is no metric 'fid'; there are frechet_distance, "):
        bgan.evaluate(run, dataset, device="cpu", metrics=["fid"])
