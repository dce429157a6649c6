"""`bgan gallery`: a folder that has all that the page needs, or one line that says why not."""

import hashlib
import json

import pytest

from bgan.serving.generate.gallery import REFERENCE_IMAGES
from bgan.serving.models.engine import load_engine
from tests.conftest import ROOT
from tests.kit.cli import bgan, error_line

COMPUTING = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture
def runtime(tmp_path):
    """Files in the place of onnxruntime-web's, and one that is not needed."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in (*COMPUTING, "ort.all.js", "LICENSE.txt"):
        (folder / name).write_text(name)
    return folder


def test_the_folder_has_the_page_the_models_and_what_computes(models, runtime, tmp_path, processes):
    site = tmp_path / "site"
    result = bgan("gallery", "mlp-dbn", "cnn-sbn", "--models", models, "--runtime", runtime, "-o", site)
    assert result.returncode == 0, result.stderr
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert result.stdout == f"{site}\n"
    assert result.stderr == f"mlp-dbn, cnn-sbn; {size / 1e6:.1f} MB\n"
    for path in (ROOT / "clients" / "browser").glob("*.*"):
        if path.name != "index.html":
            assert (site / path.name).read_bytes() == path.read_bytes()
    assert '<meta name="bgan-source" content="folder">' in (site / "index.html").read_text()
    assert {path.name for path in (site / "onnxruntime-web").iterdir()} == {*COMPUTING, "LICENSE.txt"}
    found = json.loads((site / "models.json").read_text())["models"]
    assert [each["model"]["name"] for each in found] == ["mlp-dbn", "cnn-sbn"]
    for each in found:
        source = models / f"{each['model']['name']}.onnx"
        assert (site / "models" / f"{each['revision']}.onnx").read_bytes() == source.read_bytes()
        bits = (site / "models" / f"{each['revision']}.bits").read_bytes()
        assert bits == load_engine(source).sample(0, 0, REFERENCE_IMAGES).packed_images
    digest = hashlib.sha256((site / "models.json").read_bytes()).digest()
    again = ("gallery", "cnn-sbn", "--models", models, "--runtime", runtime, "-o", site)
    assert "site exists; --overwrite replaces it" in error_line(bgan(*again))
    assert hashlib.sha256((site / "models.json").read_bytes()).digest() == digest
    assert bgan(*again, "--overwrite").returncode == 0
    assert len(json.loads((site / "models.json").read_text())["models"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dist", "site"]


def test_models_of_a_store(models, runtime, tmp_path, processes):
    pytest.importorskip("fsspec", reason="the extra s3 is not installed")
    site, cache = tmp_path / "site", {"BGAN_CACHE_DIR": str(tmp_path / "cache")}
    options = ("--models", f"file://{models}", "--runtime", runtime, "-o", site)
    assert bgan("gallery", "mlp-dbn", *options, env=cache).returncode == 0
    (each,) = json.loads((site / "models.json").read_text())["models"]
    assert (site / "models" / f"{each['revision']}.onnx").read_bytes() == (models / "mlp-dbn.onnx").read_bytes()
    line = error_line(bgan("gallery", "none", *options, "--overwrite", env=cache))
    assert line == f"bgan: file://{models} has no model 'none'; there are cnn-sbn, mlp-dbn, mlp-sbn"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "there is no model 'nope'"),
        (["mlp-dbn", "--runtime", "/nowhere"], "/nowhere has no ort.wasm.min.mjs: `make browser` fetches it"),
        (["mlp-dbn", "-o", "none/site"], "--output: the folder none does not exist"),
        (["mlp-dbn", "-o", "dist", "--overwrite"], "dist holds other things than a gallery; name another folder"),
        (["mlp-dbn", "-o", "dist/LICENSE.txt"], "--output dist/LICENSE.txt is no folder; name one"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(models, runtime, tmp_path, arguments, says):
    command = ["gallery", "--models", models, "--runtime", runtime, "-o", "site", *arguments]
    assert says in error_line(bgan(*command, cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["dist"]
    assert bgan("gallery", "mlp-dbn", cwd=tmp_path).returncode == 2
