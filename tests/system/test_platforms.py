"""What Windows lacks is taken away from a process: there the clients, `generate`, `train` and `export` still work.

Only the names go: how Windows moves, locks and opens files is not simulated.
"""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

# The libraries come first: they know which system it is.
_WINDOWS = """
import sys, os, signal, asyncio, subprocess, multiprocessing.reduction
{libraries}
for name in ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog", "uvloop"):
    sys.modules[name] = None
for name in "SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD setitimer alarm pthread_sigmask".split():
    delattr(signal, name)
for name in ("fork geteuid getuid sched_getaffinity killpg fchmod fchown set_blocking sysconf getloadavg "
             "O_NONBLOCK O_DIRECTORY O_NOFOLLOW").split():
    delattr(os, name)
import socket
del socket.SO_REUSEPORT, socket.AF_UNIX
from bgan.trainer.cli.app import main
for line in {commands!r}:
    sys.argv = ["bgan", *line]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def _on_windows(folder, *commands, libraries="import numpy, grpc, onnxruntime, rich"):
    lines = [list(map(str, command)) for command in commands]
    code = _WINDOWS.format(libraries=libraries, commands=lines)
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_without_what_windows_lacks_images_are_generated_and_sampled(tmp_path, running, models):
    (tmp_path / "x.npy").touch()
    result = _on_windows(
        tmp_path,
        ("generate", models / "mlp-dbn.onnx", "--count", 300, "--seed", 1, "--output", "x.npy", "--overwrite"),
        ("sample", "--server", running.target, "--count", 300, "--seed", 1, "--output", "y.npz"),
        ("models", "--server", running.target),
    )
    assert result.returncode == 0, result.stderr
    generated, sampled = np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npz")
    assert generated.shape[0] == 300
    (packed,) = (sampled[name] for name in sampled if sampled[name].ndim == 2)
    assert np.array_equal(np.packbits(generated.reshape(300, -1), axis=1), packed)
    assert not list(tmp_path.glob("*.partial*"))


def test_without_what_windows_lacks_the_server_says_so_in_one_line(tmp_path, models):
    result = _on_windows(tmp_path, ("serve", "--models", models, "--port", 0))
    assert result.returncode == 1
    assert result.stderr.startswith(
        "bgan: bgan serve needs the signals and file locks of Linux or macOS; on Windows "
    )
    assert result.stderr.count("\n") == 1


@pytest.mark.long
def test_without_what_windows_lacks_a_generator_is_trained_and_exported(tmp_path):
    training = (
        "train",
        "--dataset",
        "digits",
        "--epochs",
        1,
        "--network",
        "mlp",
        "--name",
        "a",
        "--batch-size",
        200,
    )
    result = _on_windows(
        tmp_path,
        training,
        training,  # which is finished
        ("export", "a"),
        ("generate", "a", "--count", 9, "--seed", 1, "--output", "a.npz"),
        libraries="import torch, onnx, onnxscript, onnxruntime, rich, torch.utils.data, scipy.linalg",
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "models" / "a.onnx").is_file()
    assert np.load(tmp_path / "a.npz")
    assert str(ROOT) not in result.stderr
