"""Files that are not read are called what they are, and the step that is named makes them readable."""

import bz2
import gzip
import io
import re
import tarfile
import zipfile

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.readers.detect import open_images
from tests.conftest import ROOT
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((10, 6, 6)) < 0.3
LABELS = np.arange(10) % 3


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def image(index, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(255 * BITS[index].astype(np.uint8)).save(content, kind)
    return content.getvalue()


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_images(path, ImageOptions())
    message = str(caught.value)
    assert "\n" not in message
    return message


def follow(message, folder, monkeypatch):
    """Run the command of Python in a message, in a folder, as `python -c` would."""
    (code,) = re.findall(r'python -c "(.*?)"', message)
    monkeypatch.chdir(folder)
    exec(compile(code, "advice", "exec"), {})
    (written,) = folder.glob("images.*")
    return read_images(written, ImageOptions())


def _write_torch(folder):
    torch.save(torch.from_numpy(BITS), folder / "a.pt")
    return folder / "a.pt", "a file of torch.save"


def _write_folder_of_npy(folder):
    (folder / "set").mkdir()
    for i, bits in enumerate(BITS):
        np.save(folder / "set" / f"{i}.npy", bits)
    return folder / "set", "10 .npy; if each is one image, join them"


def _write_zip_of_npy(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for i, bits in enumerate(BITS):
            archive.writestr(f"set/{i}.npy", npy(bits))
        archive.writestr("__MACOSX/set/._0.npy", b"litter")
    return folder / "a.zip", "if each is one image, join them"


def _write_sparse(folder):
    scipy.sparse.save_npz(folder / "a.npz", scipy.sparse.csr_matrix(BITS.reshape(10, 36)))
    return folder / "a.npz", "a sparse matrix of scipy"


def _write_csv(folder):
    rows = np.column_stack([LABELS, 255 * BITS.reshape(10, 36)])
    names = ",".join(["label", *(f"pixel{i}" for i in range(36))])
    np.savetxt(folder / "a.csv", rows, fmt="%d", delimiter=",", header=names, comments="")
    return folder / "a.csv", "a table of numbers as text"


def _write_lists(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": BITS.astype(np.uint8).tolist()}), folder / "a.parquet")
    return folder / "a.parquet", "columns that hold bytes: none; it has image (list<"


def _write_pixel_columns(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = {f"pixel{i}": column for i, column in enumerate(BITS.reshape(10, 36).T.astype(np.uint8))}
    pq.write_table(pa.table({"label": LABELS, **pixels}), folder / "a.parquet")
    return folder / "a.parquet", "pixel6 (uint8), .... Save pixels with"


def _arrow_shards(folder, new, kind):
    import pyarrow as pa

    (folder / "set").mkdir()
    (folder / "set" / "dataset_info.json").write_text("{}")
    for shard in range(2):
        cells = [{"bytes": image(i), "path": None} for i in range(5 * shard, 5 * shard + 5)]
        table = pa.table({"image": cells, "label": LABELS[5 * shard : 5 * shard + 5]})
        with new(str(folder / "set" / f"data-{shard}-of-2.arrow"), table.schema) as writer:
            writer.write_table(table)
    return folder / "set", f"data-0-of-2.arrow is {kind}"


def _write_arrow_stream(folder):  # as save_to_disk of Hugging Face's datasets does
    import pyarrow as pa

    return _arrow_shards(folder, pa.ipc.new_stream, "an Arrow file; make it parquet")


def _write_arrow_file(folder):
    import pyarrow as pa

    return _arrow_shards(folder, pa.ipc.new_file, "an Arrow file; make it parquet")


_WITH_LABELS = (_write_csv, _write_pixel_columns, _write_arrow_stream, _write_arrow_file)


@pytest.mark.parametrize(
    "write",
    [
        _write_arrow_stream,
        _write_arrow_file,
        _write_pixel_columns,
        _write_torch,
        _write_folder_of_npy,
        _write_zip_of_npy,
        _write_sparse,
        _write_csv,
        _write_lists,
    ],
)
def test_following_the_command_in_a_message_leads_on(tmp_path, monkeypatch, write):
    path, says = write(tmp_path)
    message = refusal(path)
    assert says in message
    (tmp_path / "here").mkdir()
    bits, labels = follow(message, tmp_path / "here", monkeypatch)
    np.testing.assert_array_equal(bits[:, 0], BITS)
    assert (labels is not None) == (write in _WITH_LABELS)
    if labels is not None:
        np.testing.assert_array_equal(labels, LABELS)


def test_a_song_of_pypianoroll_is_named_and_the_lines_of_the_docs_make_it_readable(tmp_path, monkeypatch):
    song = np.random.default_rng(0).random((2, 200, 128)) < 0.05
    arrays = {"tempo": np.full(200, 120.0)}
    for i, track in enumerate(song):
        matrix = scipy.sparse.csc_matrix(100 * track)
        for part in ("data", "indices", "indptr", "shape"):
            arrays[f"pianoroll_{i}_csc_{part}"] = np.array(getattr(matrix, part))
    np.savez(tmp_path / "song.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "song.npz", "a") as archive:
        archive.writestr("info.json", "{}")
    assert "a song of pypianoroll; docs/data.md (Other files) has the lines" in refusal(tmp_path / "song.npz")
    text = (ROOT / "docs" / "data.md").read_text().partition("## Other files")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/data.md", "exec"), {})
    bits, _ = read_images(tmp_path / "bars.npy", ImageOptions())
    np.testing.assert_array_equal(bits, song[:, :192].reshape(2, 2, 96, 128).swapaxes(0, 1))


def _tar(mode):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(image(0))
        archive.addfile(entry, io.BytesIO(image(0)))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tar", _tar("w"), "a tar archive; unpack it with tar -xf, and name the folder"),
        ("a.tar.gz", _tar("w:gz"), "a tar archive"),
        ("a.npy.gz", gzip.compress(npy(BITS)), "compressed with gzip (it holds .npy); unpack it"),
        ("a.pkl.gz", gzip.compress(b"\x80\x04 something"), "compressed with gzip; unpack it"),
        ("a.bz2", bz2.compress(b"x"), "compressed with bzip2"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ("a.rar", b"Rar!\x1a\x07", "a rar archive"),
        ("a.zst", b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        ("a.xz", b"\xfd7zXZ\0", "compressed with xz"),
        ("a.pkl", b"\x80\x04\x95", "a Python pickle, which could run any code when read"),
        (
            "a.npy",
            b"version https://git-lfs.github.com/spec/v1\noid x",
            "a pointer of Git LFS, not the file itself",
        ),
        ("a.npz", b"<!DOCTYPE html><html>", "a page of the web"),
        ("a.arrow", b"ARROW1\0\0", "an Arrow file"),
        ("a.mid", b"MThd\0\0\0\6", "a MIDI file"),
        ("a.dcm", bytes(128) + b"DICM", "a DICOM file; save its pixels with numpy.save"),
        ("a.png", image(0), "is one image (.png); a set is a folder of them"),
        ("a.jpg", image(0, "JPEG"), "is one image (.jpg)"),
        ("a.mat", b"# Created by Octave 9.1", "cannot be read"),
    ],
    ids=lambda value: "content" if isinstance(value, bytes) else value,  # some contents hold the time
)
def test_files_of_other_formats_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert says in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jfif", "JPEG"), (".jpe", "JPEG"), (".pnm", "PPM"), (".JPG", "JPEG"), (".tiff", "TIFF")]
)
def test_images_with_rarer_suffixes_are_read(tmp_path, suffix, kind):
    for i in range(10):
        (tmp_path / f"{i}{suffix}").write_bytes(image(i, kind))
    bits, _ = read_images(tmp_path, ImageOptions(binarize="threshold"))
    np.testing.assert_array_equal(bits[:, 0], BITS)


def test_images_under_other_names_are_said_to_be_such_and_renamed_they_are_read(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}").write_bytes(image(i))
    message = refusal(tmp_path)
    assert "but 0 is one: let the names of such files end in .png (it holds 10 without a suffix)" in message
    for i in range(9):
        (tmp_path / f"{i}").rename(tmp_path / f"{i}.png")
    assert len(read_images(tmp_path, ImageOptions())[0]) == 9
    with open_images(tmp_path, ImageOptions()) as source:
        assert source.notes == ("left aside: 1 images (rename them to .png) without a suffix",)


def test_a_folder_of_files_that_are_read_one_by_one_names_the_first(tmp_path):
    np.savez(tmp_path / "train.npz", images=BITS)
    np.savez(tmp_path / "val.npz", images=BITS)
    message = refusal(tmp_path)
    assert f"2 .npz, which are read one by one: name {tmp_path / 'train.npz'}" in message
    assert len(read_images(tmp_path / "train.npz", ImageOptions())[0]) == 10


def test_a_pointer_of_git_lfs_among_the_images_is_said_to_be_one(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(image(i))
    (tmp_path / "3.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "3.png (it is a pointer of Git LFS, not the file itself; git lfs pull fetches that)" in refusal(
        tmp_path
    )


def test_a_link_to_a_file_that_is_gone_is_said_to_be_one(tmp_path):
    (tmp_path / "a.npy").symlink_to(tmp_path / "b.npy")
    assert refusal(tmp_path / "a.npy").endswith("a.npy is a link to a file that is gone")
