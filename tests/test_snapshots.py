"""Every --help, each preset's settings, the public names and the weights: they change only on purpose.

`make snapshots` renews them; read the difference before you commit it.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

import bgan.clients
from bgan.trainer.cli.app import main
from bgan.v1 import model_pb2, sampling_pb2

COMMANDS = (
    *("train", "data", "export", "presets", "evaluate", "card", "diagnose-gradients", "explore", "reproduce"),
    *("serve", "health", "top", "token", "generate", "bulk", "gallery", "sample", "models", "doctor"),
    *("token create", "token list", "token revoke"),
)
PRESETS = ("modern", "paper", "published")
PLAIN = "--no-conditional"  # what the preset modern is where there are no labels
SMALL = ("--dataset", "digits", "--batch-size", "512", "--epochs", "1", "--device", "cpu")
# Each is trained for 3 to 6 iterations; together they take every branch of a training step.
CONFIGURATIONS = {
    "modern cnn dbn": (PLAIN,),
    "modern cnn sbn": (PLAIN, "--neuron", "sbn", "--epochs", "2"),
    "modern mlp dbn": (PLAIN, "--network", "mlp"),
    "modern mlp sbn, of classes": ("--network", "mlp", "--neuron", "sbn", "--conditional"),
    "modern cnn, augmented": ("--augment", "translate:2+hflip", "--conditional"),
    "paper mlp dbn": ("--preset", "paper", "--epochs", "2"),
    "paper cnn sbn": ("--preset", "paper", "--network", "cnn", "--neuron", "sbn"),
    "paper real": ("--preset", "paper", "--neuron", "real"),
    "published gan": (
        "--preset",
        "published",
        "--objective",
        "gan",
        "--discriminator-steps",
        "2",
        "--no-discriminator-bursts",
    ),
    "published wgan": ("--preset", "published", "--objective", "wgan", "--no-discriminator-bursts"),
    "published cnn": ("--preset", "published", "--network", "cnn", "--no-discriminator-bursts"),
    "wgan": ("--objective", "wgan", "--ema-decay", "0.9"),
    "gan, batch norm": ("--objective", "gan", "--discriminator-norm", "batch", "--learning-rate-decay", "linear"),
    **{
        f"gan, sbn, {estimator}": ("--objective", "gan", "--neuron", "sbn", "--estimator", estimator)
        for estimator in (
            *("identity", "st-gumbel", "concrete", "reinforce", "reinforce-per-unit", "reinforce-loo", "muprop"),
            *("disarm", "rebar", "relax", "bgan", "maligan"),
        )
    },
}


def _run(monkeypatch, capsys, *arguments):
    """What the command prints, in this process."""
    monkeypatch.setattr(sys, "argv", ["bgan", *arguments])
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            pytest.fail(capsys.readouterr().err)
    return capsys.readouterr().out


def _machine():
    """On what the weights come out the same to the last bit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(monkeypatch, capsys, snapshot, command):
    text = _run(monkeypatch, capsys, *command.split(), "--help")
    assert "\n".join(line.rstrip() for line in text.splitlines()) == snapshot


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_of_a_preset(monkeypatch, capsys, snapshot, preset):
    settings = {}
    for neuron in ("dbn", "sbn", "real"):
        for network in ((), ("--network", "mlp"), ("--network", "cnn"), ("--network", "doubling-cnn")):
            options = ("--preset", preset, "--neuron", neuron, *network, "--dataset", "digits", "--dry-run")
            printed = _run(monkeypatch, capsys, "train", *options)
            settings[" ".join((neuron, *network[1:]))] = json.loads(printed)
    assert settings == snapshot


def test_public_names(snapshot):
    messages = {
        f"{name}.{field.name}": field.number
        for file in (model_pb2, sampling_pb2)
        for name, message in file.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    assert {"clients": bgan.clients.__all__, "fields": messages} == snapshot


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_weights_after_a_few_steps(monkeypatch, capsys, tmp_path, snapshot, request, name):
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("this system does not say which processor it has")
    machine = _machine()
    recorded = Path(__file__).with_name("weights.json")
    digests = json.loads(recorded.read_text()) if recorded.exists() else {}
    if machine not in digests and not request.config.getoption("update_snapshots"):
        pytest.skip(f"no weights were recorded on {machine}; record some before a change: make snapshots")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _run(
            monkeypatch,
            capsys,
            "train",
            *SMALL,
            *CONFIGURATIONS[name],
            "--runs-dir",
            str(tmp_path),
            "--name",
            "run",
        )
    finally:
        torch.set_num_threads(threads)
    newest = max((tmp_path / "run" / "checkpoints").glob("*.json"))
    digest = json.loads(newest.read_text())["sha256"]
    if request.config.getoption("update_snapshots"):
        digests.setdefault(machine, {})[name] = digest
        recorded.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    assert digest == digests[machine][name]
