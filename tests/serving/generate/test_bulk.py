"""bgan bulk: every image of a plan once, in whole shards, whoever makes them and whatever stops them."""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bgan.serving.config.settings import SHIPPED
from bgan.serving.errors import GenerationError, StartError
from bgan.serving.generate import shards
from bgan.serving.generate.bulk import BulkRequest, bulk
from bgan.serving.generate.bulk_plan import BulkPlan, as_json
from bgan.serving.generate.formats import GenerationSpec
from bgan.serving.generate.processes import local_processes
from bgan.serving.generate.shards import ShardJob, make_shard
from bgan.serving.models import engine as engine_module
from bgan.serving.models.engine import load_engine
from tests.conftest import ROOT
from tests.fixtures.write import FOLDER
from tests.kit.cli import BGAN, bgan, error_line
from tests.kit.limits import files_of_at_most
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("processes")
DBN, CONDITIONAL = FOLDER / "models/mlp-dbn.onnx", FOLDER / "classes/sbn.onnx"
FORMATS = ("parquet", "npz", "bits")
COUNT, SHARD = 2500, 700  # the last shard has 400


def _bulk(model, output, **request):
    console = Console(file=io.StringIO(), width=200)
    given = {"count": COUNT, "seed": 7, "first_index": 50, "shard_images": SHARD, "workers": 1, **request}
    return bulk(load_engine(model), BulkRequest(output=str(output), **given), console)


def _packed(folder, row_bytes=98):
    """The packed images of all shards, read by what their format is for."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    parts = []
    for shard in manifest["shards"]:
        content = (folder / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
        if manifest["format"] == "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            content = b"".join(parquet.read_table(io.BytesIO(content))["image"].to_pylist())
        elif manifest["format"] == "npz":
            content = np.load(io.BytesIO(content))["packed_images"].tobytes()
        assert len(content) == shard["image_count"] * row_bytes
        parts.append(content)
    return b"".join(parts)


def _job(model, folder, format_="bits", count=COUNT):
    engine = load_engine(model)
    origin = {"model": engine.manifest.name, "revision": engine.revision, "image_shape": engine.image_shape}
    spec = GenerationSpec(**origin, seed=7, first_index=50, count=count)
    return ShardJob(BulkPlan(spec=spec, format=format_, shard_images=SHARD), str(folder), model.read_bytes())


def test_shards_hold_the_bits_of_the_stream(tmp_path):
    expected = load_engine(DBN).sample(7, 50, COUNT).packed_images
    for format_ in FORMATS:
        _bulk(DBN, tmp_path / format_, format=format_, workers=2 if format_ == "bits" else 1)
        assert _packed(tmp_path / format_) == expected
        names = sorted(path.name for path in (tmp_path / format_).glob("*/*"))
        assert names[:4] == ["00000.json", "00001.json", "00002.json", "00003.json"]
        assert names[4:] == [f"images-0000{shard}-of-00004.{format_}" for shard in range(4)]


def test_a_row_says_which_image_it_is(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    job = _job(CONDITIONAL, tmp_path, "parquet")
    records = [make_shard(job, shard) for shard in range(4)]
    assert [record["first_index"] for record in records] == [50, 750, 1450, 2150]
    table = parquet.read_table(tmp_path / "data")
    expected = load_engine(CONDITIONAL).sample(7, 50, COUNT)
    assert table.column_names == ["index", "seed", "revision", "label", "image"]
    assert table["index"].to_pylist() == list(range(50, 50 + COUNT))
    assert set(table["seed"].to_pylist()) == {7}
    assert set(table["revision"].to_pylist()) == {job.plan.spec.revision}
    assert tuple(table["label"].to_pylist()) == expected.labels
    assert b"".join(table["image"].to_pylist()) == expected.packed_images
    said = json.loads(table.schema.metadata[b"bgan"])
    assert (said["model"], said["image_shape"], said["classes"][3]) == ("sbn", [3, 5, 9], "mouse")


def test_a_shard_has_the_same_bytes_whenever_it_is_made(tmp_path, monkeypatch):
    jobs = [_job(CONDITIONAL, tmp_path, format_) for format_ in FORMATS]
    first = [make_shard(job, 3) for job in jobs]
    monkeypatch.setattr("time.time", lambda: 1.9e9)
    monkeypatch.setattr("time.localtime", lambda *moment: (2031, 1, 2, 3, 4, 5, 0, 0, 0))
    assert [make_shard(job, 3) for job in jobs] == first
    with np.load(tmp_path / "data/images-00003-of-00004.npz") as file:
        assert sorted(file) == [
            *("classes", "description", "first_index", "image_shape", "labels", "model"),
            *("packed_images", "revision", "seed"),
        ]
        assert tuple(file["labels"]) == load_engine(CONDITIONAL).sample(7, 2150, 400).labels


def test_the_command_says_what_it_did(tmp_path):
    result = bgan(
        "bulk", DBN, "-n", 90, "--seed", 4, "-o", "x", "--shard-images", 50, "--workers", 1, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "x\n"
    assert "90 images of mlp-dbn, seed 4, from index 0, in 2 shards\n" in result.stderr
    assert "90 of 90 images" in result.stderr
    assert "left 0:00:00" in result.stderr
    assert bgan("generate", DBN, "-n", 90, "--seed", 4, "-o", "x.bits", cwd=tmp_path).returncode == 0
    assert _packed(tmp_path / "x") == (tmp_path / "x.bits").read_bytes()


def _children():
    """The processes that this one has started and that still run."""
    return {
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    }


def test_a_killed_worker_is_replaced(tmp_path):
    job, before, records = _job(DBN, tmp_path), _children(), []
    with local_processes(job, 1) as make:
        for record in make(range(4)):
            if record is not None:
                records.append(record)
                (worker,) = _children() - before
                os.kill(worker, signal.SIGKILL)
    assert [record["shard"] for record in records] == [0, 1, 2, 3]
    assert _children() == before
    assert {path.name for path in (tmp_path / "data").iterdir()} == {Path(each["file"]).name for each in records}


def test_workers_that_cannot_live(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(GenerationError) as found:
        _bulk(DBN, tmp_path / "out")
    assert re.fullmatch(
        r"the processes that made shard 0 ended with exit code 1, 3 in a row; is there enough memory\?; "
        "0 of 4 shards are kept, and the same command resumes",
        str(found.value),
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_resumes(tmp_path, number):
    """Whatever stops the command, its workers end with it, and nothing is made twice or left out."""
    output, count = tmp_path / "out", 100_000
    request = ["--count", count, "--seed", 1, "--output", output, "--shard-images", 2500, "--format", "bits"]
    command = [BGAN, "bulk", DBN, *request, "--workers", "2"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: len(list(output.glob("records/*.json"))) >= 3)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}").parent.glob("*/children")
        workers = {int(pid) for file in workers for pid in file.read_text().split()}
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert ("the same command resumes" in said) == (number == signal.SIGTERM)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not (output / "manifest.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in output.glob("records/*.json")}
    result = bgan("bulk", DBN, *request)
    assert result.returncode == 0, result.stderr
    assert f"resuming: {len(kept)} of 40 shards are whole, seed 1" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert _packed(output) == load_engine(DBN).sample(1, 0, count).packed_images
    assert not list(output.rglob("*.tmp"))


@pytest.fixture
def planned(tmp_path):
    """A store with a plan, one whole shard and nothing else."""
    job = _job(DBN, tmp_path / "out", count=SHARD)
    make_shard(job, 0)
    (tmp_path / "out/plan.json").write_bytes(as_json(job.plan.to_dict()))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"count": 900}, "count 700 -> 900"),
        ({"seed": 8}, "seed 7 -> 8"),
        ({"first_index": 0}, "first_index 50 -> 0"),
        ({"format": "npz"}, "format bits -> npz"),
        ({"shard_images": 350}, "shard_images 700 -> 350"),
    ],
)
def test_a_plan_of_other_images_is_refused(planned, change, difference):
    before = {path: path.read_bytes() for path in planned.rglob("*.*")}
    with pytest.raises(GenerationError) as found:
        _bulk(DBN, planned, **{"count": SHARD, "format": "bits", **change})
    assert str(found.value) == f"{planned} is planned for other images ({difference}); name another --output"
    assert {path: path.read_bytes() for path in planned.rglob("*.*")} == before


def test_a_plan_of_another_revision_is_refused(planned, tmp_path):
    other = tmp_path / "mlp-dbn.onnx"
    shutil.copy(FOLDER / "other/sbn.onnx", other)
    line = error_line(
        bgan("bulk", other, "-n", SHARD, "-o", planned, "--seed", 7, "--first-index", 50, "--format", "bits")
    )
    assert re.search(r"\(model mlp-dbn -> sbn, revision \w{32} -> \w{32}\); name another --output$", line)


def test_what_is_not_said_is_as_in_the_plan(planned):
    plan = _bulk(DBN, planned, count=SHARD, format="bits", seed=None, shard_images=None)
    assert (plan.spec.seed, plan.shard_images) == (7, SHARD)


def test_what_is_no_plan_is_refused(planned):
    (planned / "plan.json").write_text("{}")
    with pytest.raises(GenerationError, match=r"plan.json is no plan of `bgan bulk`; name another --output$"):
        _bulk(DBN, planned)
    (planned / "plan.json").unlink()
    with pytest.raises(GenerationError, match=r"out has a folder data, but no plan.json; name another --output$"):
        _bulk(DBN, planned)


@pytest.mark.parametrize("damage", ["no file", "no record", "half a record", "another's record"])
def test_only_a_whole_shard_with_its_record_counts(planned, damage):
    shard, record = planned / "data/images-00000-of-00001.bits", planned / "records/00000.json"
    content = shard.read_bytes()
    if damage == "no file":
        shard.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text('{"shard": ' if damage == "half a record" else '{"shard": 3, "file": "x"}')
    shard.with_name(".left.tmp").write_bytes(content[:100])
    _bulk(DBN, planned, count=SHARD, format="bits")
    assert shard.read_bytes() == content
    assert _packed(planned) == content
    assert not list(planned.rglob("*.tmp"))


def test_a_store_that_fills_up_keeps_what_is_whole(tmp_path):
    output, request = tmp_path / "out", {"count": 1000, "shard_images": 900, "format": "bits"}
    with files_of_at_most(50_000), pytest.raises(GenerationError) as found:
        _bulk(DBN, output, **request)
    kept = "0 of 2 shards are kept, and the same command resumes"
    assert str(found.value) == f"{output}: File too large; {kept}"
    assert not list(output.rglob("*.tmp"))
    _bulk(DBN, output, **request)
    assert _packed(output) == load_engine(DBN).sample(7, 50, 1000).packed_images


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = bgan("bulk", DBN, "-n", 9, "-o", tmp_path / "out")
    assert error_line(result) == "bgan: this command needs the package 'pyarrow': pip install 'bgan[data]'"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["-n", 0], "--count is 0; ask for at least 1 image"),
        (["-n", 9, "--seed", -1], "--seed is -1; use 0 to 2^63 - 1, or none to have one drawn"),
        (
            ["-n", 9, "--shard-images", 0],
            "--shard-images is 0; a shard of mlp-dbn has 1 to 10,956,549 images, since it",
        ),
        (["-n", 9, "--label", "x"], "--label: mlp-dbn is not class-conditional; leave it out"),
        (["-n", 9, "-o", "zz://x"], "zz://x is no URL that fsspec opens"),
        (
            ["-n", 9, "--ray", "auto", "--workers", 2],
            "--workers counts processes of this machine; with --ray the clus",
        ),
        (["-n", 9, "--ray", "there"], "--ray there is no address; use HOST:PORT, ray://HOST:PORT, auto or local"),
        (
            ["-n", 9, "--ray", "127.0.0.1:1"],
            "--ray 127.0.0.1:1 does not answer ([Errno 111] Connection refused); start",
        ),
        (["-n", 9, "-o", "/dev/null"], "/dev/null: "),
    ],
)
def test_bad_input_is_one_line(tmp_path, given, line):
    result = bgan("bulk", DBN, "-o", tmp_path / "out", *given)
    is_failure = {"zz://x", "127.0.0.1:1", "/dev/null"} & set(map(str, given))
    assert error_line(result, 1 if is_failure else 2).startswith(f"bgan: {line}")


def test_a_machine_of_another_kind(tmp_path, monkeypatch):
    """It is refused where a float model has other bits there, and makes the same shards of an integer model."""
    floats, integers = _job(DBN, tmp_path / "a"), _job(SHIPPED / "mlp-dbn.onnx", tmp_path / "b")
    expected = make_shard(integers, 3)
    shards._engine.cache_clear()
    monkeypatch.setattr(engine_module, "cpu_class", lambda: "x86_64-of-1999")
    monkeypatch.setattr(shards, "cpu_class", lambda: "x86_64-of-1999")
    with pytest.raises(GenerationError) as found:
        make_shard(floats, 3)
    assert re.search(
        r"\(x86_64-of-1999, onnxruntime [\d.]+\) computes the revision \w{32}, not the plan's \w{32}: a float "
        "model needs machines of one kind; `bgan export --arithmetic integer` writes one for all$",
        str(found.value),
    )
    assert not (tmp_path / "a").exists()
    assert make_shard(integers, 3) == expected
    shards._engine.cache_clear()


def _blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/bulk.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folders that docs/bulk.md reads."""
    folder = tmp_path_factory.mktemp("docs")
    for name, format_ in (("digits", "parquet"), ("digits-npz", "npz"), ("digits-bits", "bits")):
        job = _job(SHIPPED / "mlp-dbn.onnx", folder / name, format_)
        for shard in range(4):
            make_shard(job, shard)
        (folder / name / "plan.json").write_bytes(as_json(job.plan.to_dict()))
    return folder


@pytest.mark.parametrize("block", _blocks(), ids=range(len(_blocks())))
def test_the_page_reads_all_shards(digits, block, tmp_path, monkeypatch):
    package = next(name for name in ("datasets", "pyarrow", "numpy") if f"import {name}" in block)
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(digits)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    expected = load_engine(SHIPPED / "mlp-dbn.onnx").sample(7, 50, COUNT)
    if package == "datasets":  # in a process: it brings warnings, threads and a cache
        code = f"{block}\nprint(dataset.num_rows, dataset.column_names, b''.join(dataset['image']).hex())"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said == f"{COUNT} ['index', 'seed', 'revision', 'label', 'image'] {expected.packed_images.hex()}\n"
        return
    found = {}
    exec(block, found)
    if "images" in found:
        assert found["images"].shape == (COUNT, 1, 28, 28)
        assert np.packbits(found["images"].reshape(COUNT, -1), axis=1).tobytes() == expected.packed_images
    elif "packed" in found:
        assert found["packed"].tobytes() == expected.packed_images
    else:
        assert tuple(found["table"]["label"].to_pylist()) == expected.labels


def test_a_provider_that_is_not_here_is_refused_by_the_command_and_by_each_machine(tmp_path):
    result = bgan("bulk", DBN, "-n", 9, "-o", tmp_path / "out", "--provider", "openvino")
    assert "install onnxruntime-openvino in place of onnxruntime" in error_line(result)
    assert not (tmp_path / "out").exists()
    job = dataclasses.replace(_job(DBN, tmp_path / "a"), provider="openvino")
    with pytest.raises(StartError, match="install onnxruntime-openvino"):
        make_shard(job, 0)
