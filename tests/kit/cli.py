"""The command line: in this process, or where a test needs that, in one of its own."""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bgan.trainer.cli.app import main

BGAN = Path(sys.executable).with_name("bgan")
_PLAIN = {"COLUMNS": "200", "NO_COLOR": "1"}


def bgan(*arguments, cwd=".", env=None):
    """Run the command line in this process: what it returned and wrote, as of a process."""
    command = ["bgan", *map(str, arguments)]
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, chdir(cwd), redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", command)
        for name, value in {**_PLAIN, **(env or {})}.items():
            patch.setenv(name, value)
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
    return CompletedProcess(command, code, *(file.buffer.getvalue().decode() for file in (output, errors)))


def bgan_process(*arguments, cwd=None, env=None, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [str(BGAN), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **_PLAIN, **(env or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **options,
    )


def error_line(result, code=1):
    """The one line that a command that failed says, without a traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("bgan: ")]
    return line
