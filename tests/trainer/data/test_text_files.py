"""Tables of numbers as text, as Larochelle's .amat files."""

import gzip
import zipfile

import numpy as np
import pytest

from bgan.trainer.common.errors import ConfigError, DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.readers import arrays, text_files
from bgan.trainer.data.readers.detect import open_images
from tests.kit.images import read_images

RANDOM = np.random.default_rng(0)
BITS = RANDOM.random((40, 1, 28, 28)) < 0.2
LABELS = np.arange(40) % 10
ROWS = BITS.reshape(40, 784)


def write(path, rows, fmt="%d"):
    np.savetxt(path, rows, fmt=fmt)
    return path


def read(path, **options):
    return read_images(path, ImageOptions(**options))


def notes(path, **options):
    with open_images(path, ImageOptions(**options)) as source:
        return source.notes


def test_binarized_mnist_is_read_gzipped_or_not_and_some_rows_at_a_time(tmp_path, monkeypatch):
    path = write(tmp_path / "binarized_mnist_train.amat", ROWS)
    (tmp_path / "a.gz").write_bytes(gzip.compress(path.read_bytes() + b"\n \n"))
    for own in (path, tmp_path / "a.gz"):
        for at_once in (2**22, 7 * 784 * 4):
            monkeypatch.setattr(arrays, "_CHUNK_BYTES", at_once)
            bits, labels = read(own)
            np.testing.assert_array_equal(bits, BITS)
            assert labels is None
    with open_images(path, ImageOptions()) as source:
        assert (source.count, source.notes) == (40, ())


def test_a_last_column_of_whole_numbers_is_the_label(tmp_path):
    greys = np.where(ROWS, RANDOM.uniform(0.5, 1, ROWS.shape), 0)
    path = write(tmp_path / "mnist_basic.amat", np.column_stack([greys, LABELS]), "%.7e")
    bits, labels = read(path)
    np.testing.assert_array_equal(bits, BITS)
    np.testing.assert_array_equal(labels, LABELS)
    (note,) = notes(path)
    assert note.startswith("the last of 785 columns is taken as labels, the others as 28x28; if it is of pixels")
    bits, labels = read(path, row_shape="14x56")
    np.testing.assert_array_equal(bits, ROWS.reshape(40, 1, 14, 56))
    np.testing.assert_array_equal(labels, LABELS)
    bits, labels = read(path, row_shape="5x157")  # as the note says
    assert (bits.shape, labels) == ((40, 1, 5, 157), None)


def test_a_last_column_of_fractions_is_no_label(tmp_path):
    path = write(tmp_path / "a.amat", np.column_stack([ROWS, LABELS / 10]), "%.3f")
    with pytest.raises(DataError, match=r"holds an array of shape 40x785; .*--row-shape"):
        read(path)
    _, labels = read(path, row_shape="5x157")
    assert labels is None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda lines: [*lines[:11], lines[11][:-2], *lines[12:]],
            "line 12 has 783 values, where the first has 784",
        ),
        (lambda lines: [*lines[:2], b"", lines[2] + b" 1", *lines[3:]], "line 4 has 785 values"),
        (lambda lines: [lines[0], b"a" + lines[1][1:], *lines[2:]], "line 2 holds 'a', which is no number"),
        (lambda lines: [*lines[:3], lines[3][:-1] + b"x"], "line 4 holds 'x', which is no number"),
        (lambda lines: [lines[0], lines[1].replace(b" ", b"\0", 1)], "line 2 has 783 values"),
    ],
)
def test_a_bad_row_is_named(tmp_path, damage, says):
    path = write(tmp_path / "a.amat", ROWS)
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    with pytest.raises(DataError) as caught:
        read(path)
    assert f"{path}: {says}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_and_bombs_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.amat.gz"
    content = gzip.compress(write(tmp_path / "a.amat", ROWS).read_bytes())
    path.write_bytes(content[:-3000])
    with pytest.raises(DataError, match="cannot be read"):
        read(path)
    monkeypatch.setattr(text_files, "_LINE_BYTES", 2**20)
    path.write_bytes(gzip.compress(b"0 " * 2**20))
    with pytest.raises(DataError, match="line 1 is longer than 1 MiB"):
        read(path)
    monkeypatch.setattr("bgan.trainer.data.readers.source._SMALL_BYTES", 2**19)
    path.write_bytes(gzip.compress((b"0 " * 784 + b"\n") * 500))
    with pytest.raises(DataError, match="like a zip bomb"):
        read(path)


def test_options_without_meaning_are_refused(tmp_path):
    path = write(tmp_path / "a.amat", ROWS)
    for options in ({"key": "x"}, {"labels_key": "y"}, {"channels": "rgb"}):
        with pytest.raises(ConfigError, match="has no meaning for"):
            read(path, **options)


def test_a_table_in_a_zip_is_called_what_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        archive.write(write(tmp_path / "a.amat", ROWS), "mnist_train.amat")
    with pytest.raises(DataError, match="which are read one by one: name one of them"):
        read(tmp_path / "mnist.zip")
