"""Every command exits with 2 for what no command line may have, and with 1 for what is not there or fails."""

import inspect
import typing
from importlib import import_module
from importlib.metadata import entry_points

import pytest
import typer

from bgan.trainer.config.training import SETTINGS
from tests.kit.cli import bgan
from tests.kit.servers import free_port

# What a command needs beside the option that is tried.
NEEDED = {
    "sample": ("--output", "x.npz"),
    "generate": ("mlp-dbn", "--output", "x.npz"),
    "bulk": ("mlp-dbn", "--output", "out", "--count", "8"),
    "gallery": ("mlp-dbn", "--output", "site"),
    "card": ("none.onnx",),
    "token create": ("alice", "--tokens", "tokens.toml"),
    "token list": ("--tokens", "tokens.toml"),
    "token revoke": ("alice", "--tokens", "tokens.toml"),
}


def _functions():
    """Every command's function."""
    for entry_point in entry_points(group="bgan.commands"):
        for name, (_, _, path) in entry_point.load().items():
            module, _, attribute = path.partition(":")
            found = getattr(import_module(module), attribute)
            if isinstance(found, typer.Typer):
                for each in found.registered_commands:
                    yield f"{name} {each.name or each.callback.__name__}", each.callback
            else:
                yield name, found


def _values(annotation):
    """The types that an option's values have."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is typing.Literal or not typing.get_args(annotation):
        return {annotation}
    return set().union(*map(_values, typing.get_args(annotation)))


def _is_number_or_choice(name, parameter):
    types = _values(parameter.annotation)
    is_choice = any(typing.get_origin(each) is typing.Literal for each in types)
    return is_choice or {int, float} & types or (name in SETTINGS and SETTINGS[name].choices)


def _options():
    for command, function in _functions():
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            option = next(
                (each for each in _metadata(parameter) if isinstance(each, typer.models.OptionInfo)), None
            )
            if option is not None and _is_number_or_choice(name, parameter):
                declared = (option.default, *(option.param_decls or ()))  # within Annotated the default is one too
                spelled = [each.partition("/")[0] for each in declared if str(each).startswith("--")]
                yield command, next(iter(spelled), f"--{name.replace('_', '-')}")


def _metadata(parameter):
    return typing.get_args(parameter.annotation)[1:]


def test_every_command_is_walked():
    commands = {command for command, _ in _functions()}
    assert len(commands) == 21, sorted(commands)
    assert len(set(_options())) > 100


@pytest.mark.long
def test_a_value_of_another_kind_is_a_usage_error(tmp_path):
    wrong = {}
    after_the_run = {("diagnose-gradients", option) for option in ("--of", "--estimator", "--neuron")}
    for command, option in sorted(set(_options()) - after_the_run):
        result = bgan(*command.split(), *NEEDED.get(command, ()), option, "nix", cwd=tmp_path)
        if (
            result.returncode != 2
            or result.stdout
            or "Traceback" in result.stderr
            or option[2:] not in result.stderr
        ):
            wrong[command, option] = (result.returncode, result.stdout, result.stderr)
    assert wrong == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "nix",
        "models --nix",
        "presets nix",
        "sample",
        "sample -o x.gif",
        "sample -o x.npz --count 0",
        "sample -o x.npz --seed -1",
        "sample -o x.npz --first-index -1",
        "sample -o x.png --count 10001",
        "sample -o x.npz --timeout 0",
        "sample -o x.npz --server nix",
        "sample -o x.npz --servers a:1,,b:1",
        "sample -o x.npz --tls-certificate a.pem",
        "models --server http://a:1",
        "models --timeout nan",
        "health --server nix",
        "health --timeout nan",
        "health --tls-key a.pem",
        "top nix",
        "top --interval 0",
        "generate mlp-dbn -o x.gif",
        "generate mlp-dbn -o x.npz --count 0",
        "generate mlp-dbn -o x.npz --seed -1",
        "generate mlp-dbn -o x.npz --first-index -1",
        "generate mlp-dbn -o x.png --count 10001",
        "generate mlp-dbn -o x.npz --label nix",
        "bulk mlp-dbn -o out --count 0",
        "bulk mlp-dbn -o out --count 8 --shard-images 0",
        "bulk mlp-dbn -o out --count 8 --workers 2 --ray auto",
        "bulk mlp-dbn -o out --count 8 --label nix",
        "token",
        "token create a_b --tokens t",
        "token create a --tokens t --days 0",
        "token create a --tokens t --model a --models b",
        "serve --log-format xml --print-config",
        "serve --port 70000 --print-config",
        "serve --http-origins * --print-config",
        "train --epochs 0 --print-config",
        "train --preset nix --print-config",
        "train --dataset nix --print-config",
        "train --data x.npz --dataset digits --print-config",
        "train --neuron real --estimator reinmax --print-config",
        "data",
        "data x.npz --size 28",
        "evaluate --count 1",
        "evaluate --invert",
        "diagnose-gradients --draws 1",
        "explore --images 1",
        "reproduce --experiment V",
        "reproduce --preset modern",
    ],
)
def test_usage_errors(tmp_path, line):
    result = bgan(*line.split(), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stdout == "" or line == "token"  # whose help is shown
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "sample -o no/x.npz",
        "sample -o x.npz --token-file no",
        "sample -o x.npz --tls-ca no.pem",
        "models --tls-ca no.pem",
        "models --token-file no",
        "health --server localhost:1 --tls-ca no.pem",
        "health --server localhost:1 --token-file no",
        "health --config no.toml",
        "top --config no.toml",
        "generate no -o x.npz",
        "generate mlp-dbn -o no/x.npz",
        "bulk no -o out --count 8",
        "gallery no --output site",
        "serve --config no.toml",
        "token list --tokens no.toml",
        "token revoke alice --tokens no.toml",
        "train --config no.toml",
        "train --data no.npz --dry-run",
        "train --data . --test-data no.npz",
        "data no.npz",
        "export no",
        "evaluate no.npz",
        "evaluate no",
        "card no.onnx",
        "diagnose-gradients no",
        "explore no.onnx",
        "reproduce --published-samples no.npz",
    ],
)
def test_what_is_not_there_is_a_failure(tmp_path, line):
    result = bgan(*line.split(), cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (said,) = [each for each in result.stderr.splitlines() if each.startswith("bgan: ")]
    assert "no" in said
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("command", ["sample -o x.npz", "models", "health", "models --tls", "health --tls"])
def test_a_server_that_is_away_is_a_failure_that_says_what_to_do(tmp_path, command):
    target = f"localhost:{free_port()}"
    result = bgan(*command.split(), "--server", target, "--timeout", "0.3", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    advice = "nothing listens there; start a server with `bgan serve`, or name another address with --server"
    assert advice in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_are_away_are_a_failure(tmp_path):
    result = bgan("top", f"localhost:{free_port()}", "--once", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "--metrics-port" in result.stderr


def test_the_old_spelling_of_a_license_is_accepted_and_hidden(tmp_path):
    for spelling in ("--license", "--licence"):
        result = bgan("card", "none.onnx", spelling, "MIT", cwd=tmp_path)
        assert (result.returncode, "there is no file none.onnx" in result.stderr) == (1, True)
    shown = bgan("card", "--help").stdout
    assert "--license" in shown
    assert "--licence" not in shown
