"""Parquet files as Hugging Face and others write them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.packed import packed_dataset
from bgan.trainer.data.readers.detect import open_images
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((12, 6, 9)) < 0.3
LABELS = np.arange(12) % 3
WORDS = ("star", "circle", "square")  # in the order of the schema, which is not that of the alphabet


def png(bits):
    content = io.BytesIO()
    Image.fromarray(bits).save(content, "PNG")
    return content.getvalue()


CELLS = [{"bytes": png(bits), "path": f"{i}.png"} for i, bits in enumerate(BITS)]


def write(path, labels=LABELS, rows=slice(None), **columns):
    feature = {"_type": "ClassLabel", "names": list(WORDS)}
    features = {"image": {"_type": "Image"}, "label": feature}
    table = pa.table({"image": CELLS[rows], "label": labels[rows], **columns})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def notes_and_classes(path, **options):
    with open_images(path, ImageOptions(**options)) as source:
        return list(source.notes), source.classes


def test_the_names_of_classes_are_those_of_the_schema_in_its_order(tmp_path):
    write(tmp_path / "a.parquet")
    assert notes_and_classes(tmp_path / "a.parquet") == ([], WORDS)
    np.testing.assert_array_equal(read_images(tmp_path / "a.parquet", ImageOptions())[1], LABELS)
    packed = packed_dataset(tmp_path / "a.parquet", ImageOptions(), cache=tmp_path / "cache")
    assert packed.classes == WORDS


def test_labels_that_are_kept_secret_are_none(tmp_path):
    write(tmp_path / "a.parquet", labels=np.full(12, -1))
    notes, classes = notes_and_classes(tmp_path / "a.parquet")
    assert classes is None
    assert notes == ["the labels in label are left out: none of the images has one"]
    assert read_images(tmp_path / "a.parquet", ImageOptions())[1] is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array(LABELS.astype(np.float64)),
        pa.array([("circle", "square", "star")[label] for label in LABELS]),
        pa.array([("circle", "square", "star")[label] for label in LABELS]).dictionary_encode(),
        pa.array([(b"circle", b"square", b"star")[label] for label in LABELS], pa.large_binary()),
        pa.array([str(9 + label) for label in LABELS]),
    ],
    ids=["floats", "words", "dictionary", "bytes", "numbers as words"],
)
def test_labels_of_every_type_are_read(tmp_path, column):
    pq.write_table(pa.table({"image": CELLS, "label": column}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(read_images(tmp_path / "a.parquet", ImageOptions())[1], LABELS)


def test_labels_of_no_use_are_left_out_unless_they_are_named(tmp_path):
    table = {"image": CELLS, "label": pa.array([[0, 1]] * 12), "kind": LABELS}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    notes, _ = notes_and_classes(tmp_path / "a.parquet")
    assert "the labels in label are left out: they are of type list<" in notes[0]
    assert notes[1] == "read as images: image; not used: kind (--key, --labels-key)"
    with pytest.raises(DataError, match="name others with --labels-key"):
        read_images(tmp_path / "a.parquet", ImageOptions(labels_key="label"))
    options = ImageOptions(labels_key="kind")
    np.testing.assert_array_equal(read_images(tmp_path / "a.parquet", options)[1], LABELS)


def test_images_without_a_label_are_counted(tmp_path):
    labels = pa.array([None if i == 5 else int(label) for i, label in enumerate(LABELS)])
    pq.write_table(pa.table({"image": CELLS, "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"1 of them cannot be used: row 5 \(it has no label\)"):
        read_images(tmp_path / "a.parquet", ImageOptions())
    assert len(read_images(tmp_path / "a.parquet", ImageOptions(skip_bad=True))[0]) == 11


def test_a_folder_of_shards_is_one_set_in_their_order(tmp_path):
    for shard in range(3):
        write(tmp_path / "data" / f"train-{shard}-of-3.parquet", rows=slice(4 * shard, 4 * shard + 4))
    (tmp_path / "data" / "README.md").write_text("a card")
    bits, labels = read_images(tmp_path / "data", ImageOptions())
    np.testing.assert_array_equal(bits[:, 0], BITS)
    np.testing.assert_array_equal(labels, LABELS)
    assert notes_and_classes(tmp_path / "data") == (
        [
            "3 parquet files are read as one set, from train-0-of-3.parquet to train-2-of-3.parquet",
            "left aside: 1 files that are no parquet",
        ],
        WORDS,
    )


def test_folders_of_shards_are_said_to_be_no_labels(tmp_path):
    for i, name in enumerate(("kind=a", "kind=b")):
        (tmp_path / "set" / name).mkdir(parents=True)
        pq.write_table(pa.table({"image": CELLS[6 * i : 6 * i + 6]}), tmp_path / "set" / name / "0.parquet")
    assert notes_and_classes(tmp_path / "set")[0] == [
        "2 parquet files are read as one set, from kind=a/0.parquet to kind=b/0.parquet",
        "what their folders are called, such as kind=a, is not used as a label",
    ]


def test_bytes_and_text_of_every_type_of_arrow_are_told_apart(tmp_path):
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        pq.write_table(pa.table({"image": pa.array([png(bits) for bits in BITS], kind)}), tmp_path / "a.parquet")
        np.testing.assert_array_equal(read_images(tmp_path / "a.parquet", ImageOptions())[0][:, 0], BITS)
    for kind in (pa.string(), pa.large_string()):
        pq.write_table(
            pa.table({"image": pa.array([f"{i}.png" for i in range(12)], kind)}), tmp_path / "b.parquet"
        )
        with pytest.raises(DataError, match="If those are paths of images, name the folder"):
            read_images(tmp_path / "b.parquet", ImageOptions())


def test_a_shard_with_other_columns_is_one_line(tmp_path):
    write(tmp_path / "data" / "0.parquet")
    pq.write_table(pa.table({"other": LABELS}), tmp_path / "data" / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet has no column"):
        read_images(tmp_path / "data", ImageOptions())


def test_images_by_path_alone_are_said_to_be_that(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": f"{i}.png"} for i in range(12)], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_images(tmp_path / "a.parquet", ImageOptions())
    says = "row 0 (only its path is kept, 0.png, not the image; name the folder that holds the images)"
    assert says in str(caught.value)
    assert "--skip-bad" not in str(caught.value)  # nothing would be left
