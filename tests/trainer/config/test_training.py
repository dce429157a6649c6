import pytest

from bgan.trainer.common.errors import ConfigError
from bgan.trainer.config.command import default_name, training_command
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig, differences


@pytest.mark.parametrize(
    ("objective", "discriminator_steps", "optimizer"),
    [("wgan-gp", 5, "adam"), ("wgan", 5, "rmsprop"), ("gan", 1, "adam"), ("relativistic", 1, "adam")],
)
def test_what_follows_from_the_objective(objective, discriminator_steps, optimizer):
    config = TrainingConfig.resolve(objective=objective)
    assert (config.objective.discriminator_steps, config.optimization.optimizer) == (
        discriminator_steps,
        optimizer,
    )


def test_the_papers_settings_are_the_defaults():
    config = TrainingConfig.resolve()
    assert config.to_dict() == {
        "preset": None,
        "neuron": "dbn",
        "training_neuron": "dbn",
        "network": "mlp",
        "discriminator": "mlp",
        "objective": "wgan-gp",
        "estimator": "sigmoid-adjusted",
        "estimator_samples": None,
        "estimator_temperature": None,
        "dataset": "auto",
        "data_dir": None,
        "data": None,
        "data_digest": None,
        "validation_images": 0,
        "validation_data": None,
        "test_data": None,
        "image_options": ImageOptions().to_dict(),
        "latent_size": 128,
        "width": 1.0,
        **dict.fromkeys(
            (
                *("gates", "gate_rate", "gate_by", "gate_neuron", "gate_estimator", "gate_penalty"),
                *("gate_variance", "hidden_neuron", "hidden_estimator"),
            )
        ),
        "epochs": 20,
        "batch_size": 64,
        "shards": 1,
        "learning_rate": 1e-4,
        "discriminator_learning_rate": 1e-4,
        "learning_rate_decay": "none",
        "optimizer": "adam",
        "adam_beta1": 0.5,
        "adam_beta2": 0.9,
        "optimizer_form": "torch",
        "generator_norm": "batch",
        "discriminator_norm": "none",
        "initialization": "he",
        "output_bias": "zero",
        "ema_decay": 0.0,
        "discriminator_steps": 5,
        "discriminator_bursts": False,
        "fresh_batches": True,
        "training_split": "train",
        "penalty_weight": 10.0,
        "clip_value": 0.01,
        "clusters": None,
        "refine": None,
        "conditional": False,
        "augment": "none",
        "slope_rate": 1.1,
        "slope_cap": None,
        "seed": 0,
        "device": "auto",
        "capture": False,
        "evaluate_every": None,
    }


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("neuron", "xbn", "choose one of dbn, sbn, real"),
        ("training_neuron", "xbn", "training-neuron is 'xbn'; choose one of dbn, sbn, real"),
        ("network", "rnn", "choose one of mlp, cnn, doubling-cnn"),
        ("objective", "lsgan", "choose one of wgan-gp, wgan, gan, relativistic"),
        ("dataset", "cifar", "choose one of auto, mnist, digits"),
        ("estimator", "x", "choose one of sigmoid-adjusted, identity"),
        ("optimizer", "sgd", "choose one of adam, rmsprop"),
        ("optimizer_form", "jax", "optimizer-form is 'jax'; choose one of torch, tensorflow"),
        ("generator_norm", "none", "choose one of batch, affine"),
        ("discriminator_norm", "layer", "choose one of none, batch, affine"),
        ("initialization", "zeros", "choose one of he, truncated-normal"),
        ("training_split", "test", "choose one of train, all"),
        ("epochs", 0, "epochs is 0; it must be at least 1"),
        ("batch_size", 1, "batch-size is 1; it must be at least 2"),
        ("epochs", "ten", "epochs is 'ten'; it must be a whole number"),
        ("invert", True, "unknown settings invert"),
        ("learning_rate", -1e-4, "learning-rate is -0.0001; it must be above 0"),
        ("learning_rate", float("nan"), "learning-rate is nan"),
        ("slope_rate", 0, "slope-rate is 0; it must be above 0"),
        ("slope_cap", 0.5, "slope-cap is 0.5; it must be at least 1"),
        ("penalty_weight", -1, "penalty-weight is -1"),
        ("discriminator", "rnn", "choose one of mlp, cnn, wide-mlp, strided-cnn"),
        ("discriminator", "mlp+", "discriminator is ''; choose one of mlp"),
        ("discriminator_learning_rate", 0, "discriminator-learning-rate is 0; it must be above 0"),
        ("learning_rate_decay", "step", "learning-rate-decay is 'step'; choose one of none, linear, cosine"),
        ("output_bias", "one", "output-bias is 'one'; choose one of zero, mean"),
        ("ema_decay", 1, "ema-decay is 1; it must be at least 0 and below 1"),
        ("adam_beta1", -0.5, "adam-beta1 is -0.5"),
        ("adam_beta2", float("nan"), "adam-beta2 is nan"),
        ("discriminator_steps", 0, "discriminator-steps is 0"),
        ("latent_size", -3, "latent-size is -3"),
        ("clusters", 1, "clusters is 1; it must be at least 2 and at most 1024"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**63, "seed is 9223372036854775808"),
    ],
)
def test_wrong_settings_are_named_with_the_remedy(setting, value, says):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.resolve(**{setting: value})
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_setting_without_a_range_is_finite(value):
    with pytest.raises(ConfigError, match=f"threshold is {value}; it must be finite"):
        ImageOptions(binarize="threshold", threshold=value)


def test_clusters_are_classes():
    config = TrainingConfig.resolve(clusters=40)
    assert config.networks.conditional
    assert default_name(config) == "auto-mlp-dbn-wgan-gp-clusters-40-seed0"
    assert default_name(config.replace(clusters=None)) == "auto-mlp-dbn-wgan-gp-conditional-seed0"
    assert TrainingConfig.resolve(clusters=40, conditional=True) == config
    assert training_command(config, "mine") == "bgan train --preset paper --clusters 40 --name mine"
    with pytest.raises(ConfigError, match="clusters is 40, but conditional is off; add --conditional, or"):
        TrainingConfig.resolve(clusters=40, conditional=False)


@pytest.mark.parametrize("conditional", [True, False])
def test_runs_from_before_there_were_clusters_have_their_labels(conditional):
    written = TrainingConfig.resolve(conditional=conditional).to_dict()
    del written["clusters"]
    config = TrainingConfig.from_dict(written)
    assert (config.networks.conditional, config.networks.clusters) == (conditional, None)
    assert differences(config, TrainingConfig.resolve(conditional=conditional)) == {}


def test_settings_survive_json():
    config = TrainingConfig.resolve(neuron="sbn", slope_cap=3.0)
    assert TrainingConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown settings colour"):
        TrainingConfig.from_dict({**config.to_dict(), "colour": 1})


def test_differences_leave_out_what_computes_the_same():
    old = TrainingConfig.resolve(epochs=5, device="cpu")
    assert differences(old, TrainingConfig.resolve(epochs=9, device="auto", data_dir="elsewhere")) == {}
    assert differences(old, TrainingConfig.resolve(seed=3)) == {"seed": (0, 3)}


def test_more_epochs_are_another_run_where_the_learning_rate_decays():
    old, new = (TrainingConfig.resolve(epochs=epochs, learning_rate_decay="linear") for epochs in (5, 9))
    assert differences(old, new) == {"epochs": (5, 9)}


def test_settings_of_an_older_version_are_read():
    added = {
        "training_neuron",
        "discriminator",
        "discriminator_learning_rate",
        "learning_rate_decay",
        "adam_beta1",
        "adam_beta2",
        "output_bias",
        "ema_decay",
    }
    for config in (
        TrainingConfig.resolve(),
        TrainingConfig.resolve(network="cnn", objective="wgan", learning_rate=3e-4),
    ):
        older = {name: value for name, value in config.to_dict().items() if name not in added}
        assert TrainingConfig.from_dict(older) == config


@pytest.mark.parametrize(("network", "discriminator"), [("mlp", "mlp"), ("cnn", "cnn"), ("doubling-cnn", "mlp")])
def test_the_discriminator_follows_the_generator(network, discriminator):
    assert TrainingConfig.resolve(network=network).networks.discriminator == discriminator


def test_runs_are_named_by_what_people_tell_them_apart_by():
    assert (
        default_name(TrainingConfig.resolve(dataset="mnist", neuron="sbn", seed=4))
        == "mnist-mlp-sbn-wgan-gp-seed4"
    )
    config = TrainingConfig.resolve(dataset="mnist", neuron="sbn", estimator="reinmax")
    assert default_name(config) == "mnist-mlp-sbn-wgan-gp-reinmax-seed0"
    config = TrainingConfig.resolve(
        dataset="mnist", network="doubling-cnn", discriminator="strided-cnn", objective="relativistic"
    )
    assert default_name(config) == "mnist-doubling-cnn-strided-cnn-dbn-relativistic-seed0"
    modern = {**preset_values("modern", neuron="sbn"), "neuron": "sbn", "dataset": "mnist"}
    assert default_name(TrainingConfig.resolve(**modern)) == "modern-mnist-doubling-cnn-sbn-relativistic-seed0"
    config = TrainingConfig.resolve(
        **{**modern, "network": "mlp", "discriminator": "mlp+cnn", "estimator": "identity"}
    )
    assert default_name(config) == "modern-mnist-mlp-mlp-cnn-sbn-relativistic-identity-seed0"
