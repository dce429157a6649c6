"""The checks of the simulation, in processes of their own.

tritonclient, which other tests load, and bgan.serving.server register the same protos: one process can have one.
"""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.timeout(900)  # three minutes of a core on a slow machine
@pytest.mark.parametrize("names", ["every_schedule", "not every_schedule"])
def test_the_checks_of_the_simulation_hold(names):
    options = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", names)
    command = [sys.executable, "-m", "pytest", *options, "tests/simulation/checks.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
