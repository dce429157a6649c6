"""`make portability`, with runtimes that are here without being fetched."""

import hashlib
import re
import tomllib

import numpy as np
import pytest

from bgan.serving.models.engine import load_engine
from tests.conftest import ROOT
from tests.fixtures.write import FOLDER
from tests.portability import __main__ as portability
from tests.portability.runtimes import PYTHON, VERSIONS, Runtime

MODELS = FOLDER / "classes"  # with latents, labels and uniforms
COUNT = 150


@pytest.fixture
def installed(tmp_path):
    return Runtime(title="onnxruntime, as installed", command=PYTHON, folder=tmp_path)


def test_each_runtime_is_compared_with_the_stream(installed, tmp_path, capsys, monkeypatch, processes):
    monkeypatch.setitem(portability.PARTS, "installed", lambda tools: [installed])
    folders = ("--models", str(MODELS), "--tools", str(tmp_path))
    portability.main(["installed", "numpy", *folders, "--count", str(COUNT)])
    text = capsys.readouterr().out
    digest = hashlib.sha256(load_engine(MODELS / "sbn.onnx").sample(0, 0, COUNT).packed_images).hexdigest()
    assert f"| sbn | floats | `{digest}` |" in text
    assert "| onnxruntime, as installed | 150 | 0 | 0 | 0 |" in text
    assert re.search(r"\n\| numpy: onnx .* \| 150 \| 0 \| 0 \| 0 \|", text)


def test_images_with_other_bits_are_counted(installed, tmp_path, processes):
    path = MODELS / "dbn.onnx"
    engine = load_engine(path)
    bits = np.frombuffer(engine.sample(0, 0, COUNT).packed_images, np.uint8).reshape(COUNT, -1).copy()
    bits[[3, 130], 0] ^= np.array([0b1, 0b110], np.uint8)
    assert portability.difference(installed, path, engine, bits.tobytes(), COUNT) == "2 (3)"
    (tmp_path / "none.onnx").write_bytes(b"no model")
    assert portability.difference(installed, tmp_path / "none.onnx", engine, bits.tobytes(), COUNT) == "fails"


def test_the_versions_go_from_the_oldest_allowed_to_the_tested_one():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert VERSIONS[0].startswith(
        next(re.findall(r"onnxruntime>=(.*)", each)[0] for each in extras["serve"] if "onnxruntime" in each)
    )
    assert f"\nonnxruntime=={VERSIONS[-1]}\n" in (ROOT / "constraints.txt").read_text()
