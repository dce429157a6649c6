"""load_images: all that the commands write, as what was sampled; and what it says of everything else."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bgan.clients import ImageBatch, ImageFileError, SamplingClient, load_images
from bgan.clients._files import make_grid

pytest.importorskip("onnxruntime")  # some tests of the clients' run where nothing can serve
pytest.importorskip("pyarrow")

from bgan.serving.generate import bulk as bulk_module
from bgan.serving.generate.bulk import BulkRequest, bulk
from bgan.serving.generate.generate import GenerationRequest, generate
from bgan.serving.generate.shards import ShardJob, make_shard
from bgan.serving.models.engine import load_engine
from tests.fixtures.write import CLASSES, FOLDER
from tests.kit.files import write_batches

MODEL = FOLDER / "classes/sbn.onnx"
CONSOLE = Console(file=io.StringIO(), width=200)
NUMBERS = {"count": 150, "seed": 7, "first_index": 30}


@pytest.fixture(scope="module")
def engine():
    return load_engine(MODEL)


@pytest.fixture(scope="module")
def expected(engine):
    """The batch that a client would get."""
    batch = engine.sample(7, 30, 150)
    return ImageBatch(
        model="sbn",
        revision=engine.revision,
        seed=7,
        first_index=30,
        image_shape=(3, 5, 9),
        packed_images=np.frombuffer(batch.packed_images, np.uint8).reshape(150, 17),
        probabilities=None,
        labels=np.array(batch.labels, np.int32),
        classes=CLASSES,
    )


def _generate(engine, output, **request):
    """What `bgan generate` does."""
    generate(engine, GenerationRequest(output=output, **NUMBERS, **request), CONSOLE)


def _bulk(engine, output, **request):
    """What `bgan bulk` does, but in this process."""

    @contextmanager
    def makers(engine, plan, url, request):
        job = ShardJob(plan, url, MODEL.read_bytes())
        yield lambda shards: (make_shard(job, shard) for shard in shards)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk_module, "_makers", makers)
        bulk(engine, BulkRequest(output=str(output), shard_images=40, **NUMBERS, **request), CONSOLE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, engine):
    """What `bgan generate` and `bgan bulk` write."""
    folder = tmp_path_factory.mktemp("written")
    for name in ("a.npz", "a.npy", "a.bits"):
        _generate(engine, folder / name)
    for form in ("parquet", "npz", "bits"):
        _bulk(engine, folder / form, format=form)
    return folder


@pytest.mark.parametrize("name", ["a.npz", "parquet", "npz"])
def test_files_with_labels_are_read_whole(folder, expected, name):
    batch = load_images(folder / name)
    assert batch == expected
    assert batch.classes == CLASSES
    assert batch.labels.dtype == np.int32


def test_bits_have_no_labels_that_were_drawn(folder, expected):
    for name in ("a.bits", "bits"):
        batch = load_images(str(folder / name))
        assert batch == dataclasses.replace(expected, labels=None)
        assert batch.classes == CLASSES


def test_bits_have_the_labels_that_were_asked_for(tmp_path, engine):
    asked = {"labels": ("owl", "3", "dog")}
    _generate(engine, tmp_path / "b.bits", **asked)
    _generate(engine, tmp_path / "c.npz", **asked)
    _bulk(engine, tmp_path / "bits", format="bits", **asked)
    bits, shards, npz = (load_images(tmp_path / name) for name in ("b.bits", "bits", "c.npz"))
    assert bits == shards == npz
    assert bits.labels[:4].tolist() == [4, 2, 1, 4]


def test_a_dense_array_says_nothing_of_its_origin(folder, expected):
    batch = load_images(folder / "a.npy")
    np.testing.assert_array_equal(batch.images, expected.images)
    assert (batch.model, batch.revision, batch.seed, batch.first_index, batch.labels) == ("", "", None, 0, None)
    assert repr(batch) == "ImageBatch(150 images of 3x5x9, model='', revision='', seed=None, first_index=0)"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9, 10, 150])
@pytest.mark.parametrize(
    ("shape", "read"), [((1, 4, 6), (1, 4, 6)), ((3, 5, 9), (3, 5, 9)), ((2, 4, 6), (1, 4, 12))]
)
def test_a_picture_is_cut_into_its_images(tmp_path, count, shape, read):
    images = np.random.default_rng(count).integers(0, 2, (count, *shape), np.uint8)
    images[0], images[-1] = 0, 1
    make_grid(images).save(tmp_path / "x.png")
    batch = load_images(tmp_path / "x.png")
    assert (batch.image_shape, batch.seed) == (read, None)
    expected = images if shape == read else images.transpose(0, 2, 1, 3).reshape(count, *read)
    np.testing.assert_array_equal(batch.images, expected)


@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_a_shard_is_read_alone(folder, expected, form):
    shard = load_images(folder / form / "data" / f"images-00001-of-00004.{form}")
    assert (len(shard), shard.first_index, shard.seed) == (40, 70, 7)
    np.testing.assert_array_equal(shard.images, expected.images[40:80])
    np.testing.assert_array_equal(shard.labels, expected.labels[40:80])


def test_urls_are_read_by_fsspec(folder, expected):
    fsspec = pytest.importorskip("fsspec")
    assert load_images(f"file://{folder}/parquet") == load_images(f"file://{folder}/a.npz") == expected
    store = fsspec.filesystem("memory")
    try:
        store.put(str(folder / "npz"), "/digits/v1.0", recursive=True)
        assert load_images("memory://digits/v1.0") == expected
        store.rm("/digits/v1.0/manifest.json")
        with pytest.raises(ImageFileError, match="is not finished; the same command of `bgan bulk` resumes it"):
            load_images("memory://digits/v1.0")
        with pytest.raises(FileNotFoundError):
            load_images("memory://digits/none.npz")
    finally:
        store.rm("/digits", recursive=True)


@pytest.mark.parametrize(("package", "path"), [("pyarrow", "x.parquet"), ("fsspec", "memory://x.npz")])
def test_what_must_be_installed_is_named(tmp_path, monkeypatch, package, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, package, None)
    for loaded in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(ModuleNotFoundError, match=rf"^{path} needs {package}, .*: pip install 'bgan\[bulk\]'"):
        load_images(path)


def test_what_sample_writes_is_what_was_sampled(classes_server, tmp_path):
    with SamplingClient(classes_server.target) as client:
        for options in ({}, {"model": "plain"}):
            batch = client.sample(90, seed=3, first_index=5, **options)
            for name in ("a.npz", "a.npy"):
                write_batches([batch], tmp_path / name, image_count=90, classes=lambda: CLASSES)
            assert load_images(tmp_path / "a.npz") == batch
            np.testing.assert_array_equal(load_images(tmp_path / "a.npy").images, batch.images)


def test_probabilities_are_read_where_there_are_any(folder, expected, tmp_path):
    with np.load(folder / "a.npz") as file:
        arrays = dict(file)
    probabilities = np.random.default_rng(0).random((150, 3, 5, 9))
    np.savez_compressed(tmp_path / "p.npz", **arrays, probabilities=probabilities)
    batch = load_images(tmp_path / "p.npz")
    np.testing.assert_array_equal(batch.probabilities, probabilities.astype(np.float32))
    np.testing.assert_array_equal(batch.images, expected.images)


def test_an_npz_documents_itself(folder, expected, tmp_path):
    write_batches([expected], tmp_path / "sampled.npz", image_count=150, classes=lambda: CLASSES)
    write_batches([dataclasses.replace(expected, labels=None)], tmp_path / "plain.npz", image_count=150)
    paths = (folder / "a.npz", tmp_path / "sampled.npz", folder / "npz/data/images-00000-of-00004.npz")
    texts = {str(np.load(path)["description"]) for path in paths}
    assert len(texts) == 1  # whoever writes it
    for path in (folder / "a.npz", tmp_path / "plain.npz"):
        with np.load(path) as file:
            text = str(file["description"])
            described = re.findall(r"^([a-z_, ]+): ", text, re.M)
            assert {name for names in described for name in names.split(", ")} == {*file.files} - {"description"}
            reader = text.splitlines()[-1]
            images = eval(reader, {"np": np, "packed_images": file["packed_images"]})  # as it says
            np.testing.assert_array_equal(images, expected.images)


def _changed(path, target, **changes):
    with np.load(path) as file:
        np.savez(target, **{**file, **changes})
    return target


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"packed_images": np.zeros((2, 18), np.uint8)},
            r"has packed images of uint8 \(2, 18\), not",
        ),
        ({"packed_images": np.zeros((2, 17))}, "has packed images of float64"),
        ({"packed_images": np.zeros((0, 17), np.uint8)}, "has no images"),
        ({"packed_images": np.full((150, 17), 255, np.uint8)}, "has images with bits beyond their last pixel"),
        ({"image_shape": [5, 9]}, r"has images of the shape \(5, 9\), not \(channels, height, width\)"),
        ({"image_shape": [0, 5, 9]}, "has images of the shape"),
        ({"labels": np.zeros(3, int)}, r"has labels of int64 \(3,\) with 150 images"),
        ({"labels": np.zeros(150)}, "has labels of float64"),
        ({"probabilities": np.zeros((150, 135))}, r"has probabilities of float64 \(150, 135\) with 150 images"),
        ({"seed": -1}, "has images of no stream, of seed -1 from index 30"),
        ({"first_index": 2**63 - 5}, "has images of no stream"),
        ({"seed": "one"}, "is broken, or no file of bgan's: invalid literal"),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit(folder, tmp_path, changes, says):
    path = _changed(folder / "a.npz", tmp_path / "x.npz", **changes)
    with pytest.raises(ImageFileError, match=f"^{path} {says}"):
        load_images(path)


def _other_files(folder, tmp_path):
    """Files that cannot be read, and what is said of each."""
    files = {
        "x.txt": (b"", "is none of .npz, .npy, .bits, .bin, .parquet, .png and no folder of shards"),
        "x.png": (b"", "is broken, or no file of bgan's: cannot identify image file"),
        "a.npz.partial": (b"", "is unfinished; the command that began it resumes it"),
        "x.npz": (b"PK", "is broken, or no file of bgan's"),
        "cut.npz": (
            (folder / "a.npz").read_bytes()[:-50],
            "is broken, or no file of bgan's: File is not a zip",
        ),
        "x.npy": (b"", "is broken, or no file of bgan's: No data left in file"),
        "named.npy": ((folder / "a.npz").read_bytes(), "is a .npz; name it so"),
        "named.npz": ((folder / "a.npy").read_bytes(), "is a .npy; name it so"),
        "alone.bits": (b"abc", "is read with alone.bits.json beside it, which is missing; a shard is read with"),
        "x.parquet": (b"PAR1", "is broken, or no file of bgan's"),
    }
    for name, (content, says) in files.items():
        (tmp_path / name).write_bytes(content)
        yield name, says
    np.save(tmp_path / "grey.npy", np.full((2, 1, 3, 3), 255, np.uint8))
    yield "grey.npy", r"has uint8 (2, 1, 3, 3), not all 0 and 1, not uint8"
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    yield "objects.npy", "is broken, or no file of bgan's: Object arrays cannot be loaded"
    np.savez(tmp_path / "own.npz", images=np.zeros(3))
    yield "own.npz", "has images, but no packed_images, image_shape, seed, first_index, model, revision"
    Image.new("L", (30, 30), 90).save(tmp_path / "grey.png")
    yield "grey.png", "is no grid of images, as `bgan sample` writes it"
    grid = np.array(make_grid(np.ones((4, 1, 8, 8), np.uint8)))
    grid[5, 5] = 7
    Image.fromarray(grid).save(tmp_path / "retouched.png")
    yield "retouched.png", "is no grid of images"
    Image.fromarray(grid[:-1]).save(tmp_path / "cut.png")
    yield "cut.png", "is no grid of images"
    shutil.copy(folder / "a.bits.json", tmp_path / "short.bits.json")
    (tmp_path / "short.bits").write_bytes(b"abc")
    yield "short.bits", "has 3 bytes, not 150 images of 17"
    (tmp_path / "empty").mkdir()
    yield "empty", "is a folder without manifest.json, as `bgan bulk` writes it beside data; name that folder"


def test_what_is_no_file_of_images_is_one_line(folder, tmp_path):
    for name, says in _other_files(folder, tmp_path):
        with pytest.raises(ImageFileError, match=re.escape(says)) as caught:
            load_images(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load_images(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_images(tmp_path / "nothing")


def test_a_table_that_is_not_ours(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = parquet.read_table(folder / "parquet/data/images-00000-of-00004.parquet")
    for changed, says in (
        (pa.table({"a": [1]}), "does not say what its images are"),
        (table.drop(["seed"]), "has no column seed"),
        (table.take(pa.array([0, 2])), "has not consecutive images of one stream"),
        (table.slice(0, 0), "has not consecutive images"),
    ):
        parquet.write_table(changed, tmp_path / "x.parquet")
        with pytest.raises(ImageFileError, match=says):
            load_images(tmp_path / "x.parquet")


@pytest.mark.parametrize("form", ["parquet", "npz", "bits"])
def test_folders_are_held_against_their_manifest(folder, tmp_path, form):
    copy = tmp_path / form
    shutil.copytree(folder / form, copy)
    shard = copy / "data" / f"images-00002-of-00004.{form}"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 8]))
    with pytest.raises(ImageFileError, match=r"images-00002.* was changed or cut: its SHA-256"):
        load_images(copy)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="images-00002"):
        load_images(copy)
    shard.write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    for changed, says in (
        ({**manifest, "count": 151}, "has 150 images, not the 151 of manifest.json"),
        ({**manifest, "shards": manifest["shards"][::-1]}, "its shards do not follow each other"),
        ({**manifest, "shards": [{"file": "none"}]}, "none"),
        ([], "does not say what its images are"),
    ):
        (copy / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises((ImageFileError, FileNotFoundError), match=says):
            load_images(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ImageFileError, match="is not finished; the same command of `bgan bulk` resumes it"):
        load_images(copy)
    with pytest.raises(ImageFileError, match="name that folder"):
        load_images(copy / "data")
    assert hashlib.sha256(content).hexdigest() == manifest["shards"][2]["sha256"]
