"""What holds for every command: interrupts, surroundings, and errors in one line."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bgan.trainer.cli import app
from tests.kit.cli import bgan, bgan_process, error_line

_INTERRUPTED_IMPORT = """if True:
    import signal, sys
    class Interrupting:
        def find_spec(name, *rest):
            if name == {module!r}:
                signal.raise_signal(signal.SIGINT)
    sys.meta_path.insert(0, Interrupting)
    sys.argv = ["bgan", *{command!r}]
    from bgan.trainer.cli.app import main
    main()
"""


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("typer", ["--help"]),
        ("bgan.clients.cli", ["models"]),
        ("numpy", ["sample", "-o", "a.npz"]),
        ("bgan.serving.cli.commands", ["serve"]),
        ("onnxruntime", ["generate", "mlp-dbn", "-o", "a.npz"]),
        ("numpy", ["data", "a.npy"]),
    ],
)
def test_ctrl_c_while_modules_load_ends_the_command_without_a_word(tmp_path, module, command):
    code = _INTERRUPTED_IMPORT.format(module=module, command=command)
    run = [sys.executable, "-c", code]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_first_of_several_processes_loads_is_said_once(tmp_path):
    code = _INTERRUPTED_IMPORT.format(module="torch", command=["train", "--dataset", "digits"])
    for rank, line in (
        ("0", "bgan: SIGINT: stopped; the same command starts or resumes the run\n"),
        ("1", ""),
    ):
        launched = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        environment = {**os.environ, **launched}
        run = [sys.executable, "-c", code]
        result = subprocess.run(
            run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (result.returncode, result.stdout, result.stderr) == (130, "", line)


def test_a_file_that_may_not_be_read_is_no_usage_error(tmp_path, monkeypatch):
    """A command opens its files itself, and then fails with 1; root, as who tests run, may read all."""
    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    for command in (("token", "list", "--tokens", "a"), ("models", "--tls-ca", "a"), ("train", "--config", "a")):
        result = bgan(*command, "--dry-run" if command[0] == "train" else "--json", cwd=tmp_path)
        assert result.returncode != 2, (command, result.stderr)
        assert "not readable" not in result.stderr


@pytest.mark.parametrize("width", ["0", "", "wide", "-3", "1", "007"])
def test_a_width_of_nothing_is_none(width):
    for name in ("COLUMNS", "TERMINAL_WIDTH", "LINES"):
        assert "wgan-gp" in bgan("presets", env={name: width}).stdout
        assert "No such option" in bgan("data", "--nix", env={name: width}).stderr


@pytest.mark.parametrize("command", [["presets"], ["train", "--help"]])
def test_a_terminal_without_these_characters_shows_others(command):
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    result = bgan_process(*command, env=environment)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert result.stdout.isascii()


def test_closed_streams_take_no_file_and_end_no_command(tmp_path):
    for command in (["generate", "mlp-dbn", "-n", "3", "-o", "a.npz"], ["presets"]):
        result = bgan_process(*command, cwd=tmp_path, preexec_fn=lambda: os.closerange(0, 3))
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    with np.load(tmp_path / "a.npz") as file:
        assert len(file["packed_images"]) == 3


def test_words_of_the_command_line_command_no_terminal(tmp_path):
    evil = "a\x1b[31m\nb.npz"
    for command in (
        [evil],
        ["data", "x", evil],
        ["data", f"--{evil}"],
        ["sample", "-o", f"{tmp_path}/x/{evil[:-4]}"],
    ):
        result = bgan(*command)
        assert result.returncode == 2
        assert "\x1b" not in result.stderr
        assert "\\x1b[31m" in result.stderr


def _failing(error):
    def build_app():
        def fail():
            raise error

        return fail

    return build_app


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError(), 1, "there is not enough memory (none is left); ask for less at a time"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory\nmore"),
            1,
            "not enough memory ([enforce]",
        ),
        (RuntimeError("first\n" + "page\n" * 50), 70, "internal error: RuntimeError: first; BGAN_DEBUG=1"),
        (RuntimeError("x" * 5000), 70, f"RuntimeError: {'x' * 500}; BGAN_DEBUG"),
        (OSError(13, "Permission denied", "a\x1b[31m\nb"), 1, r"a\x1b[31m\nb: Permission denied"),
        (OSError(13, "Permission denied", os.fsdecode(b"caf\xe9")), 1, r"caf\udce9: Permission denied"),
    ],
)
def test_an_error_is_one_line_that_can_be_printed(monkeypatch, error, code, says):
    monkeypatch.setattr("bgan.trainer.cli.host.build_app", _failing(error))
    result = bgan()
    assert says in error_line(result, code)
    assert len(result.stderr.splitlines()) == 1


def test_an_interrupt_elsewhere_is_an_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("bgan.trainer.cli.host.build_app", _failing(KeyboardInterrupt()))
    with pytest.raises(SystemExit, match="130"):
        app.main()
    assert capsys.readouterr() == ("", "")
