"""bgan generate: the bits of the stream in files, whatever stops it."""

import fcntl
import functools
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bgan.clients import SamplingClient
from bgan.clients._files import make_grid
from bgan.serving.errors import GenerationError
from bgan.serving.generate.formats import GenerationSpec
from bgan.serving.generate.generate import GenerationRequest, computed_ahead, find_model, generate, open_model
from bgan.serving.generate.partial_file import open_partial
from bgan.serving.models.engine import load_engine
from tests.kit.cli import bgan, bgan_process, error_line

pytestmark = pytest.mark.usefixtures("processes")
NAMES = ("mlp-dbn", "mlp-sbn", "cnn-sbn")
SHAPES = {"mlp-dbn": (1, 28, 28), "mlp-sbn": (1, 28, 28), "cnn-sbn": (2, 9, 13)}
SUFFIXES = (".npz", ".npy", ".bits", ".bin")
COUNT = 50_000  # of the files that are stopped on the way


def _generate(models, output, *, model="mlp-dbn", said=None, **request):
    console = Console(file=io.StringIO() if said is None else said, width=200)
    return generate(_opened(model, models), GenerationRequest(output=output, **request), console)


@functools.cache
def _opened(model, models):
    return open_model(model, models)


def _images(path):
    """What a stranger reads from a file."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        with np.load(path) as file:
            shape = tuple(file["image_shape"])
            return np.unpackbits(file["packed_images"], axis=1, count=np.prod(shape)).reshape(-1, *shape)
    recipe = json.loads(path.with_name(f"{path.name}.json").read_text())["numpy"]
    return eval(recipe, {"np": np, "path": path})


def _fails_with_one_line(result, code=1):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("bgan: ")]
    return line


@pytest.mark.parametrize("name", NAMES)
def test_files_hold_the_bits_of_the_stream(running, models, tmp_path, name):
    with SamplingClient(running.target) as client:
        batches = list(client.sample_binary_images(image_count=2500, seed=7, first_index=50, model=name))
    streamed = np.concatenate([batch.images for batch in batches])
    for suffix in SUFFIXES:
        _generate(models, tmp_path / f"a{suffix}", model=name, count=2500, seed=7, first_index=50)
        images = _images(tmp_path / f"a{suffix}")
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, streamed)
    np.save(tmp_path / "numpy.npy", streamed)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        assert sorted(file) == sorted(
            ["description", "first_index", "image_shape", "model", "packed_images", "revision", "seed"]
        )
        origin = [file[key][()] for key in ("model", "revision", "seed", "first_index")]
    assert origin == [name, batches[0].revision, 7, 50]
    description = json.loads((tmp_path / "a.bits.json").read_text())
    assert [description[key] for key in ("model", "revision", "seed", "first_index")] == origin
    assert (description["image_count"], tuple(description["image_shape"])) == (2500, SHAPES[name])


def test_a_model_of_a_store(models, tmp_path):
    files = pytest.importorskip("fsspec", reason="the extra s3 is not installed").filesystem("memory")
    files.pipe_file("/models/mlp-dbn.onnx", (models / "mlp-dbn.onnx").read_bytes())
    options = ("mlp-dbn", "--count", 8, "--seed", 1, "--output")
    store = {"BGAN_MODELS": "memory://models", "BGAN_CACHE_DIR": str(tmp_path / "cache")}
    assert bgan("generate", *options, "of-store.bits", cwd=tmp_path, env=store).returncode == 0
    assert bgan("generate", *options, "of-folder.bits", "--models", models, cwd=tmp_path).returncode == 0
    assert (tmp_path / "of-store.bits").read_bytes() == (tmp_path / "of-folder.bits").read_bytes()
    files.pipe_file("/models/other.onnx", b"not fetched")
    line = error_line(
        bgan("generate", "mlp", *options[1:], "of-store.bits", "--overwrite", cwd=tmp_path, env=store)
    )
    assert line == "bgan: memory://models has no model 'mlp'; there are mlp-dbn, other"
    assert [path.name for path in (tmp_path / "cache").rglob("*.onnx")] == ["mlp-dbn.onnx"]
    (tmp_path / "file").touch()
    again = ("generate", *options, "of-store.bits", "--overwrite")
    line = error_line(bgan(*again, cwd=tmp_path, env={**store, "BGAN_CACHE_DIR": str(tmp_path / "file")}))
    assert "name another folder with BGAN_MODEL_CACHE, or" in line
    elsewhere = {**store, "BGAN_CACHE_DIR": str(tmp_path / "file"), "BGAN_MODEL_CACHE": str(tmp_path / "own")}
    assert bgan(*again, cwd=tmp_path, env=elsewhere).returncode == 0
    files.store.clear()
    named = (models / "mlp-dbn.onnx", *options[1:], "of-store.bits", "--overwrite")
    assert bgan("generate", *named, cwd=tmp_path, env=store).returncode == 0
    line = error_line(bgan("generate", *options, "of-store.bits", "--overwrite", cwd=tmp_path, env=store))
    assert line.startswith("bgan: memory://models: ")


def test_parts_lie_end_to_end(models, tmp_path):
    _generate(models, tmp_path / "whole.bits", count=3000, seed=3)
    first = 0
    for count in (1, 999, 2000):
        _generate(models, tmp_path / f"{first}.bits", count=count, seed=3, first_index=first)
        first += count
    parts = b"".join((tmp_path / f"{first}.bits").read_bytes() for first in (0, 1, 1000))
    assert parts == (tmp_path / "whole.bits").read_bytes()


def test_a_seed_is_drawn_said_and_kept(models, tmp_path):
    said = io.StringIO()
    origin = _generate(models, tmp_path / "a.npz", count=5, said=said)
    assert f"seed {origin.seed}, drawn" in said.getvalue()
    with np.load(tmp_path / "a.npz") as file:
        assert file["seed"] == origin.seed
    assert _generate(models, tmp_path / "b.npz", count=5).seed != origin.seed


def test_the_command_says_what_it_did(models, tmp_path):
    result = bgan("generate", "mlp-dbn", "--models", models, "-n", 9, "--seed", 4, "-o", "x.npy", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "x.npy\n"
    assert "9 images of mlp-dbn, seed 4, from index 0\n" in result.stderr
    assert "9 of 9 images" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    threads = bgan(
        "generate", models / "mlp-dbn.onnx", "-n", 9, "--seed", 4, "-o", tmp_path / "y.npy", "--threads", 1
    )
    assert threads.returncode == 0, threads.stderr
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


# bgan, which sends itself a signal once its first rows are recorded: from outside that moment is easily missed.
_SIGNALS_ITSELF = """
import os, sys
from bgan.serving.generate.partial_file import PartialFile
from bgan.trainer.cli.app import main

signals = [{number:d}]

def append(partial, rows, count, append=PartialFile.append):
    append(partial, rows, count)
    partial._end_recording()
    if signals:
        os.kill(os.getpid(), signals.pop())

PartialFile.append = append
sys.exit(main())
"""


def _stop(models, output, number, *options):
    """A generation that got a signal on its way; returns its exit code and what it said."""
    command = [sys.executable, "-c", _SIGNALS_ITSELF.format(number=number), "generate", models / "mlp-dbn.onnx"]
    command += ["--count", COUNT, "--output", output, "--threads", 1, *options]
    process = subprocess.run(list(map(str, command)), check=False, stderr=subprocess.PIPE, text=True, timeout=60)
    return process.returncode, process.stderr


@pytest.fixture(scope="module")
def unbroken(models, tmp_path_factory):
    """Files of seed 1 that nothing stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    for suffix in (".npz", ".npy", ".bits"):
        _generate(models, folder / f"a{suffix}", count=COUNT, seed=1)
    return folder


@pytest.fixture(scope="module")
def stopped_folder(models, tmp_path_factory):
    """A folder of a.npz, of a drawn seed, that was stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    assert _stop(models, folder / "a.npz", signal.SIGINT)[0] == 130
    return folder


@pytest.fixture
def stopped(stopped_folder, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(stopped_folder, tmp_path / "stopped") / "a.npz"


@pytest.mark.parametrize(
    ("number", "suffix"),
    [
        (signal.SIGINT, ".npz"),
        (signal.SIGTERM, ".npy"),
        (signal.SIGHUP, ".bits"),
        (signal.SIGKILL, ".bits"),
        (signal.SIGKILL, ".npz"),
        (signal.SIGKILL, ".npy"),
    ],
)
def test_the_same_command_goes_on_after_a_signal(models, unbroken, tmp_path, number, suffix):
    output = tmp_path / f"a{suffix}"
    code, errors = _stop(models, output, number, "--seed", 1)
    assert not output.exists()
    assert "Traceback" not in errors
    rows = json.loads(output.with_name(f"{output.name}.partial.json").read_text())["rows"]
    assert 0 < rows < COUNT
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number
        line = f"{number.name}: stopped and saved at image {rows:,} of {COUNT:,}; the same command resumes"
        assert f"bgan: {line}" in errors
    said = io.StringIO()
    _generate(models, output, count=COUNT, seed=1, said=said)
    assert f"resuming at image {rows:,} of {output}, seed 1" in said.getvalue()
    assert output.read_bytes() == (unbroken / output.name).read_bytes()
    names = {output.name, f"{output.name}.json"} if suffix == ".bits" else {output.name}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_only_what_is_recorded_is_trusted(models, stopped):
    """After a power cut the end of a file may hold anything, and a file half made may lie about."""
    partial = stopped.with_name("a.npz.partial")
    with partial.open("ab") as file:
        file.write(b"\xff" * 12_345)
    stopped.with_name(".a.npz.tmp").write_bytes(b"half an archive")
    origin = _generate(models, stopped, count=COUNT)
    _generate(models, stopped.with_name("b.npz"), count=COUNT, seed=origin.seed)
    assert stopped.read_bytes() == stopped.with_name("b.npz").read_bytes()
    assert sorted(path.name for path in stopped.parent.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(
    ("request_", "differences"),
    [
        ({"count": COUNT + 1}, f"count {COUNT} -> {COUNT + 1}"),
        ({"count": COUNT, "first_index": 5}, "first_index 0 -> 5"),
        ({"count": COUNT, "seed": 5}, "seed "),
        ({"count": COUNT, "model": "mlp-sbn"}, "model mlp-dbn -> mlp-sbn, revision "),
    ],
)
def test_a_part_of_other_images_is_refused_and_kept(models, stopped, request_, differences):
    before = {path: path.read_bytes() for path in stopped.parent.iterdir()}
    with pytest.raises(GenerationError, match="holds a part of other images") as caught:
        _generate(models, stopped, **request_)
    assert differences in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert {path: path.read_bytes() for path in stopped.parent.iterdir()} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_and_pipes_are_neither_replaced_nor_followed(tmp_path, overwrite):
    (tmp_path / "real.npy").write_text("old")
    (tmp_path / "link.npy").symlink_to("real.npy")
    (tmp_path / "dangling.npy").symlink_to("nowhere.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "a.bits.json").symlink_to("real.npy")
    names = sorted(path.name for path in tmp_path.iterdir())
    for name, says in {
        "link.npy": f"is a link; name what it leads to, {tmp_path}/real.npy",
        "dangling.npy": f"is a link; name what it leads to, {tmp_path}/nowhere.npy",
        "pipe.npy": "is no plain file, which could be resumed; name another",
        "a.bits": "a.bits.json is a link",
    }.items():
        with pytest.raises(GenerationError, match=says):
            GenerationRequest(output=tmp_path / name, count=2, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_replaced_file_keeps_its_permissions(models, tmp_path):
    for suffix in (".npy", ".npz"):
        output = tmp_path / f"private{suffix}"
        output.touch(0o600)
        _generate(models, output, count=2, overwrite=True)
        assert output.stat().st_mode & 0o777 == 0o600
        assert len(_images(output)) == 2


def test_overwrite_starts_afresh_but_goes_on_with_its_own(models, stopped):
    stopped.write_bytes(b"an older file")
    with pytest.raises(GenerationError, match=r"a\.npz exists; --overwrite replaces it"):
        _generate(models, stopped, count=COUNT)
    said = io.StringIO()
    _generate(models, stopped, count=COUNT, overwrite=True, said=said)
    assert "resuming at" in said.getvalue()
    _generate(models, stopped, count=20, seed=8, overwrite=True)
    assert len(_images(stopped)) == 20
    assert list(stopped.parent.iterdir()) == [stopped]


def test_overwrite_gives_up_a_part_of_other_images(models, stopped):
    _generate(models, stopped, count=20, seed=8, overwrite=True)
    _generate(models, stopped.with_name("b.npz"), count=20, seed=8)
    assert stopped.read_bytes() == stopped.with_name("b.npz").read_bytes()
    assert len(list(stopped.parent.iterdir())) == 2


def test_damaged_parts_are_refused(models, stopped):
    partial, record = stopped.with_name("a.npz.partial"), stopped.with_name("a.npz.partial.json")
    os.truncate(partial, 97)
    with pytest.raises(GenerationError, match="is shorter than its record says"):
        _generate(models, stopped, count=COUNT)
    record.write_text("{}")
    with pytest.raises(GenerationError, match="no record of `bgan generate` says what it holds"):
        _generate(models, stopped, count=COUNT)
    record.unlink()
    with pytest.raises(GenerationError, match="no record of `bgan generate` says what it holds"):
        _generate(models, stopped, count=COUNT)
    partial.unlink()
    _generate(models, stopped, count=20)
    assert list(stopped.parent.iterdir()) == [stopped]


def test_two_processes_do_not_write_one_file(models, stopped):
    with stopped.with_name("a.npz.partial").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(GenerationError, match="another process is writing"):
            _generate(models, stopped, count=COUNT)


@pytest.mark.parametrize(
    ("suffix", "room"), [(".npz", 1_000_000), (".npz", 98 * COUNT + 100), (".npy", 5_000_000)]
)
def test_a_full_disk_keeps_what_there_is(models, unbroken, tmp_path, suffix, room):
    """The second limit lets all images in, but not the archive that is made of them."""

    def bounded_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    output = tmp_path / f"a{suffix}"
    command = ("generate", models / "mlp-dbn.onnx", "--count", COUNT, "--seed", 1, "--output", output)
    line = _fails_with_one_line(bgan_process(*command, preexec_fn=bounded_files))
    rows = min((room - (128 if suffix == ".npy" else 0)) // (784 if suffix == ".npy" else 98), COUNT)
    kept = json.loads(output.with_name(f"{output.name}.partial.json").read_text())["rows"]
    assert 0 < kept <= rows
    assert f"{output}.partial: File too large; {kept:,} of {COUNT:,} images are kept, and the same command" in line
    assert len(list(tmp_path.iterdir())) == 2
    _generate(models, output, count=COUNT, seed=1)
    assert output.read_bytes() == (unbroken / output.name).read_bytes()


def test_a_disk_that_is_full_before_the_first_image_is_named(models, tmp_path):
    def bounded_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))

    output = tmp_path / "a.npz"
    command = ("generate", models / "mlp-dbn.onnx", "--count", 5, "--seed", 1, "--output", output)
    line = _fails_with_one_line(bgan_process(*command, preexec_fn=bounded_files))
    assert f"{output}.partial" in line
    assert "File too large" in line


def test_a_folder_of_models_that_is_none_is_said(tmp_path):
    with pytest.raises(
        GenerationError, match=f"no model 'digits' in {tmp_path}/models: that is no folder; name one"
    ):
        find_model("digits", tmp_path / "models")


def test_a_slow_disk_holds_the_computing_back(models, tmp_path, monkeypatch):
    engine = load_engine(models / "mlp-dbn.onnx")
    spec = GenerationSpec(model="m", revision="r", image_shape=(1, 28, 28), seed=1, first_index=0, count=10**9)
    calls, sample = [], engine.sample
    monkeypatch.setattr(
        engine, "sample", lambda *arguments, **options: calls.append(1) or sample(*arguments, **options)
    )
    with open_partial(tmp_path / "a.bits", spec) as partial:
        batches = computed_ahead(engine, partial, 2)
        next(batches)
        time.sleep(0.5)
        assert len(calls) <= 4
        batches.close()
    assert list(tmp_path.iterdir()) == []


_PEAK = """
import atexit, re, pathlib
from bgan.trainer.cli.app import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print("peak", re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]))
main()
"""


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_memory_does_not_grow_with_the_count(models, tmp_path, suffix):
    def peak_mib(count):
        command = [
            "generate",
            str(models / "mlp-dbn.onnx"),
            "-n",
            str(count),
            "-o",
            str(tmp_path / f"{count}{suffix}"),
        ]
        result = subprocess.run(
            [sys.executable, "-c", _PEAK, *command], capture_output=True, text=True, check=True, timeout=200
        )
        return int(result.stdout.split("peak ")[1]) / 1024

    # The larger file is 14 MiB (.npz) or 112 MiB (.npy).
    assert abs(peak_mib(150_000) - peak_mib(10_000)) < 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--count", 0), "--count is 0"),
        (("--count", -3), "--count is -3"),
        (("--first-index", -1), "--first-index is -1"),
        (("--first-index", 2**63 - 2), "--first-index + --count exceeds 2^63 - 1"),
        (("--seed", -1), "--seed is -1"),
        (("--seed", 2**63), "use 0 to 2^63 - 1"),
        (("--output", "x.gif"), "x.gif must end in one of .npz, .npy, .bits, .bin, .png"),
        (("--output", "x.png", "--count", 10_001), "are too many for one picture (at most 10000)"),
        (("--output", "missing/x.npz"), "the folder missing does not exist"),
        (("--models", "missing"), "there is no model 'mlp-dbn'"),
        (("--output", "f/x.npz"), "the folder f does not exist"),
        (("--output", "/proc/x.npz"), "/proc/x.npz.partial: "),
    ],
)
def test_what_cannot_be_asked_for(models, tmp_path, options, says):
    (tmp_path / "f").write_text("a file")
    defaults = ("generate", "mlp-dbn", "--models", models, "--count", 2, "--output", "x.npz")
    result = bgan(*defaults, *options, cwd=tmp_path)
    is_usage = not {"--models", "missing/x.npz", "f/x.npz", "/proc/x.npz"} & set(map(str, options))
    assert says in _fails_with_one_line(result, 2 if is_usage else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_picture_is_that_of_bgan_sample(models, tmp_path):
    for model, count in (("cnn-sbn", 30), ("mlp-dbn", 1)):
        _generate(models, tmp_path / f"{model}.png", model=model, count=count, seed=3)
        _generate(models, tmp_path / f"{model}.npy", model=model, count=count, seed=3)
        with Image.open(tmp_path / f"{model}.png") as picture:
            drawn = np.asarray(picture.convert("L"))
        np.testing.assert_array_equal(drawn, np.asarray(make_grid(np.load(tmp_path / f"{model}.npy"))))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy", ".npy", ".png", ".png"]


def test_the_last_image_of_a_stream(models, tmp_path):
    _generate(models, tmp_path / "a.bits", count=2, seed=2**63 - 1, first_index=2**63 - 3)
    engine = load_engine(models / "mlp-dbn.onnx")
    assert (tmp_path / "a.bits").read_bytes() == engine.sample(2**63 - 1, 2**63 - 3, 2).packed_images


def test_models_that_are_none(models, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for model, says in (
        ("nope", f"there is no model 'nope' in {models}: there are cnn-sbn, mlp-dbn, mlp-sbn"),
        (tmp_path / "text.onnx", "text.onnx is no ONNX model"),
        (tmp_path, "there is no model"),
    ):
        result = bgan("generate", model, "-o", tmp_path / "x.npz", env={"BGAN_MODELS": str(models)})
        assert says in _fails_with_one_line(result)
        assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


def test_files_that_are_in_the_way(models, tmp_path):
    (tmp_path / "a.bits.json").write_text("mine")
    with pytest.raises(GenerationError, match=r"a\.bits\.json exists"):
        _generate(models, tmp_path / "a.bits", count=2)
    (tmp_path / "b.npz.partial").write_text("mine")
    with pytest.raises(GenerationError, match=r"remove it, or start over with --overwrite"):
        _generate(models, tmp_path / "b.npz", count=2)
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(GenerationError, match="is a folder"):
        _generate(models, tmp_path / "c.npz", count=2, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bits.json", "b.npz.partial", "c.npz"]


def test_a_name_goes_before_a_file_of_that_name(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp-dbn").write_text("something else")
    assert find_model("mlp-dbn", models).path == models / "mlp-dbn.onnx"
    assert find_model(str(models / "mlp-sbn.onnx"), tmp_path).path == models / "mlp-sbn.onnx"
    for version in (9, 10):
        (tmp_path / "digits").mkdir(exist_ok=True)
        (tmp_path / "digits" / f"{version}.onnx").write_bytes((models / "mlp-dbn.onnx").read_bytes())
    assert find_model("digits", tmp_path).path == tmp_path / "digits" / "10.onnx"
    assert open_model("digits", tmp_path).manifest.name == "digits"
