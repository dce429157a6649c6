"""The notebooks of the documentation, run from the first cell to the last as a reader would."""

import os

import numpy as np
import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="the extra docs is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra docs is not installed")
pytest.importorskip("ipykernel", reason="the extra docs is not installed")
TUTORIALS = ROOT / "docs" / "tutorials"


def _run(name, folder):
    """What its cells put out, but for stderr."""
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "make notebooks"
    resources = {"metadata": {"path": folder}}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "BGAN_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"})
    return [[output for output in cell.outputs if output.get("name") != "stderr"] for cell in cells]


def _text(outputs):
    return "".join(output.get("text") or output.data.get("text/plain", "") for output in outputs)


def test_first_steps(tmp_path, processes):
    outputs = _run("first-steps.ipynb", tmp_path)
    assert sum("image/png" in output.get("data", {}) for several in outputs for output in several) == 2
    assert "True" in [_text(several) for several in outputs]
    assert _text(outputs[-1]) == "0"  # of the server


@pytest.mark.long
@pytest.mark.timeout(900)  # over a minute of a core
def test_own_network(tmp_path, processes):
    outputs = _run("own-network.ipynb", tmp_path)
    assert sum("image/png" in output.get("data", {}) for several in outputs for output in several) == 1
    with np.load(tmp_path / "own.npz") as file:
        assert len(file["packed_images"]) == 1000
