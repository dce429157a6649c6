"""Every file of clients/examples, and the snippets of docs/sampling.md, run against a real server."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from bgan.clients import SamplingClient, load_images
from tests.conftest import ROOT
from tests.fixtures.write import CLASSES
from tests.kit.files import write_batches

FOLDER = ROOT / "clients" / "examples"
TESTED = {"streaming", "resuming", "sharding", "asynchronous", "pytorch"}


@pytest.fixture
def run(classes_server, tmp_path):
    def run(name, *arguments, code=0):
        """What the example prints; on stderr where it fails."""
        target = classes_server.target
        result = subprocess.run(
            [sys.executable, "-W", "error", FOLDER / f"{name}.py", *map(str, arguments)],
            env={**os.environ, "BGAN_SERVER": f"{target} {target}" if name == "sharding" else target},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stderr
        return result.stderr if code else result.stdout

    return run


@pytest.fixture
def client(classes_server):
    with SamplingClient(classes_server.target) as client:
        yield client


def test_each_example_is_run_here_and_listed():
    assert {path.stem for path in FOLDER.glob("*.py")} == TESTED
    readme = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"\[(\w+)\.py\]\(\1\.py\)", readme)) == TESTED
    for name in TESTED:
        assert f"python {name}.py" in (FOLDER / f"{name}.py").read_text()


def test_streaming(run, client):
    whole = client.sample(2000, seed=3)
    first, *classes = run("streaming", 2000, 3).splitlines()
    assert first == f"2000 images of sbn: {whole.images.mean():.4f} of their pixels are on"
    counts = np.bincount(whole.labels, minlength=5)
    assert classes == [f"class {name}: {count}" for name, count in zip(CLASSES, counts, strict=True)]


def test_resuming(run, client, tmp_path):
    path = tmp_path / "digits.bits"
    assert run("resuming", path.name, 700) == "digits.bits: 700 images, of which 0 were there\n"
    whole = path.read_bytes()
    os.truncate(path, 250 * 17 + 5)  # as if it had been killed within an image
    assert run("resuming", path.name, 700) == "digits.bits: 700 images, of which 250 were there\n"
    assert path.read_bytes() == whole
    assert run("resuming", path.name, 700) == ""
    read = load_images(path)
    expected = client.sample(700, seed=read.seed)
    np.testing.assert_array_equal(read.packed_images, expected.packed_images)
    assert (read.revision, read.model) == (expected.revision, "sbn")
    about = tmp_path / "digits.bits.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "revision": "0" * 32}))
    os.truncate(path, 0)
    assert "begin a stream of the new model" in run("resuming", path.name, 700, code=1)


def test_sharding(run, client, tmp_path):
    assert "x.npy: ImageBatch(1001 images of 3x5x9" in run("sharding", "x.npy", 1001, 2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), client.sample(1001, seed=1).images)


def test_asyncio(run, client):
    batches = [client.sample(200, seed=seed) for seed in range(4)]
    lines = [f"seed {batch.seed}: {batch.images[:8].mean():.4f} on" for batch in batches]
    firsts = ", ".join(str(batch.labels.tolist().index(4)) for batch in batches)
    assert run("asynchronous", 4).splitlines() == [*lines, f"class owl comes first at {firsts}"]


@pytest.mark.long  # each process loads torch; the next test runs the same without workers
def test_pytorch(run):
    pytest.importorskip("torch")
    first, last = run("pytorch", 3).splitlines()
    assert first.startswith("step 0, images from 0: loss ")
    assert last.startswith("accuracy 0.")


def test_pytorch_resumes_bit_for_bit(classes_server, tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("pytorch_example", FOLDER / "pytorch.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "SERVER", classes_server.target)
    monkeypatch.setattr(example, "WORKERS", 0)  # each would load torch anew
    example.main(50, tmp_path / "a.pt")
    example.main(53, tmp_path / "a.pt")
    printed = capsys.readouterr().out
    example.main(53, tmp_path / "b.pt")
    assert "step 50, images from 3200: loss " in printed
    resumed, unbroken = (torch.load(tmp_path / name)["network"] for name in ("a.pt", "b.pt"))
    for name, weights in unbroken.items():
        assert torch.equal(weights, resumed[name])


def test_the_pages_snippets_run(classes_server, client, tmp_path, monkeypatch, capsys):
    sampling, loading = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sampling.md").read_text(), re.DOTALL)
    named = {}
    exec(sampling.replace("localhost:50051", classes_server.target).replace("mlp-sbn", "sbn"), named)
    assert named["batch"] == client.sample(64, seed=1)
    assert named["threes"].labels.tolist() == [CLASSES.index("3")] * 64
    assert named["part"].next_index == 10_000
    assert f"sbn {CLASSES}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    write_batches([named["threes"]], tmp_path / "digits.npz", image_count=64, classes=lambda: CLASSES)
    read = {}
    exec(loading, read)
    assert read["batch"] == dataclasses.replace(named["threes"], probabilities=None)
