"""What is read of a folder or a zip, and the count of what is not."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from bgan.trainer.common.errors import DataError
from bgan.trainer.config.images import ImageOptions
from bgan.trainer.data.packed import packed_dataset
from bgan.trainer.data.readers.detect import open_images
from bgan.trainer.data.readers.listing import list_folder
from tests.kit.images import read_images

BITS = np.random.default_rng(0).random((12, 6, 9)) < 0.3


def png(index):
    content = io.BytesIO()
    Image.fromarray(BITS[index]).save(content, "PNG")
    return content.getvalue()


def write(path, index):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(index))


def notes_and_classes(path):
    with open_images(path, ImageOptions()) as source:
        return list(source.notes), source.classes


def test_links_are_followed_wherever_they_lead(tmp_path):
    for i in range(6):
        write(tmp_path / "store" / f"{i}.png", i)
        write(tmp_path / "other" / "deep" / f"{i}.png", 6 + i)
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    for i in range(6):
        (folder / "a" / f"{i}.png").symlink_to(f"../../store/{i}.png")
    (folder / "b").symlink_to(tmp_path / "other")
    bits, labels = read_images(folder, ImageOptions())
    np.testing.assert_array_equal(bits[:, 0], BITS)
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert notes_and_classes(folder) == (
        ["12 files are reached through links that lead out of the folder"],
        ("a", "b"),
    )
    (tmp_path / "links").symlink_to(folder)
    assert len(read_images(tmp_path / "links", ImageOptions())[0]) == 12


def test_circles_and_broken_links_end_and_are_counted(tmp_path):
    folder = tmp_path / "set"
    for i in range(3):
        write(folder / "a" / f"{i}.png", i)
    (folder / "a" / "up").symlink_to("..")  # to a folder that is read already
    (folder / "b").symlink_to("a")
    (folder / "root").symlink_to("/")  # all of the machine, and this folder in it
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")
    os.mkfifo(folder / "pipe.png")
    (folder / ".hidden.png").write_bytes(png(0))
    (folder / "notes.txt").write_text("x")
    listing = list_folder(folder)
    assert sorted(listing.names) == ["a/0.png", "a/1.png", "a/2.png", "notes.txt"]
    assert len(read_images(folder, ImageOptions())[0]) == 3
    (note,) = notes_and_classes(folder)[0]
    assert note.startswith("left aside: ")
    for counted in (
        "3 links to folders that are read already, or to what they lie in",
        "2 links that lead nowhere",
        "1 pipes, sockets or devices",
        "1 hidden files or folders",
        "1 files named .txt",
    ):
        assert counted in note


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs another user to be refused")
def test_a_folder_that_cannot_be_opened_is_counted(tmp_path):
    for i in range(3):
        write(tmp_path / "set" / "a" / f"{i}.png", i)
        write(tmp_path / "set" / "b" / f"{i}.png", i)
    (tmp_path / "set" / "b").chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        listing = list_folder(tmp_path / "set")
        with pytest.raises(DataError, match="Permission denied"):
            list_folder(tmp_path / "set" / "b")
    finally:
        os.seteuid(0)
    assert len(listing.names) == 3
    assert listing.left_out == {"folders that cannot be opened (Permission denied)": 1}


def test_an_image_behind_a_link_that_changes_makes_another_set(tmp_path):
    for i in range(4):
        write(tmp_path / "store" / f"{i}.png", i)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "store")
    first = packed_dataset(tmp_path / "set", ImageOptions(), cache=tmp_path / "cache")
    assert packed_dataset(tmp_path / "set", ImageOptions(), cache=tmp_path / "cache").folder == first.folder
    write(tmp_path / "store" / "0.png", 7)
    assert packed_dataset(tmp_path / "set", ImageOptions(), cache=tmp_path / "cache").digest != first.digest


def test_classes_named_by_numbers_are_in_numeric_order(tmp_path):
    for i in range(12):
        write(tmp_path / "set" / str(i) / "a.png", i)
    assert notes_and_classes(tmp_path / "set")[1] == tuple(map(str, range(12)))
    bits, labels = read_images(tmp_path / "set", ImageOptions())
    order = sorted(range(12), key=str)  # the images stay in the order of their files
    np.testing.assert_array_equal(bits[:, 0], BITS[order])
    assert labels.tolist() == order


def test_why_there_are_no_classes_is_said_and_following_it_leads_on(tmp_path):
    for i in range(6):
        write(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i)
    write(tmp_path / "set" / "stray.png", 6)
    (note,), classes = notes_and_classes(tmp_path / "set")
    assert classes is None
    assert note.startswith("1 images lie beside the folders a, b: there are no classes")
    (tmp_path / "set" / "stray.png").rename(tmp_path / "set" / "a" / "stray.png")
    assert notes_and_classes(tmp_path / "set") == ([], ("a", "b"))


def test_folders_that_look_like_splits_are_said_to_be_taken_as_classes(tmp_path):
    for i in range(8):
        write(tmp_path / "set" / ("train", "test")[i % 2] / "xy"[i // 4] / f"{i}.png", i)
    (note,), classes = notes_and_classes(tmp_path / "set")
    assert classes == ("test", "train")
    assert note == "the folders test, train are taken as classes; to train on one of them name that folder"
    assert notes_and_classes(tmp_path / "set" / "train") == ([], ("x", "y"))


def _entry(name, *, utf8):
    """An entry whose name is written as given, flagged as UTF-8 or not, which zipfile decides by itself."""

    class Entry(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's
            return name, self.flag_bits | (0x800 if utf8 else 0)

    return Entry(repr(name))


@pytest.mark.parametrize(
    ("name", "utf8"),
    [
        ("köln/{}.png".encode(), True),
        ("köln/{}.png".encode(), False),  # macOS
        ("köln/{}.png".encode("cp437"), False),  # Windows
        ("köln\\{}.png".encode(), True),  # .NET
        ("./köln/{}.png".encode(), True),  # bsdtar
    ],
)
def test_zips_of_every_maker_have_the_same_classes(tmp_path, name, utf8):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("other/", b"")
        archive.writestr(_entry(name.split(b"{}")[0], utf8=utf8), b"")
        for i in range(6):
            archive.writestr(_entry(name.replace(b"{}", str(i).encode()), utf8=utf8), png(i))
            archive.writestr(f"other/{i}.png", png(6 + i))
        archive.writestr("__MACOSX/other/._1.png", b"litter")
        archive.writestr("other/.DS_Store", b"litter")
    notes, classes = notes_and_classes(tmp_path / "a.zip")
    assert classes == ("köln", "other")
    unsure = (
        "6 names in the zip are not in UTF-8 and are read as of code page 437; if names of classes are wrong, "
    )
    assert [note.removesuffix("unpack it, and name the folder") for note in notes] == [
        *([unsure] if b"\x94" in name else []),
        "left aside: 2 hidden files or folders",
    ]
    np.testing.assert_array_equal(read_images(tmp_path / "a.zip", ImageOptions())[0][:, 0], BITS)


def test_a_file_that_was_added_to_a_zip_again_counts_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i, name in enumerate(("a.png", "b.png", "c.png")):
            archive.writestr(name, png(i))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("b.png", png(7))
    bits, _ = read_images(tmp_path / "a.zip", ImageOptions())
    np.testing.assert_array_equal(bits[:, 0], BITS[[0, 7, 2]])
    assert notes_and_classes(tmp_path / "a.zip")[0] == ["left aside: 1 older files of the same name"]


def test_a_link_in_a_zip_is_said_to_be_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png(0))
        archive.writestr("b.png", png(1))
        link = zipfile.ZipInfo("c.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "a.png")
    with pytest.raises(DataError, match=r"c.png \(it is a link; without its -y, zip stores the file itself\)"):
        read_images(tmp_path / "a.zip", ImageOptions())


def test_an_npz_with_the_litter_of_macos_is_read(tmp_path):
    array = io.BytesIO()
    np.save(array, BITS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("masks.npy", array.getvalue())
        archive.writestr("__MACOSX/._masks.npy", b"\0\5\x16\7")
        archive.writestr("README.md", "masks")
    np.testing.assert_array_equal(read_images(tmp_path / "a.zip", ImageOptions())[0][:, 0], BITS)
    assert notes_and_classes(tmp_path / "a.zip")[0] == [
        "left aside: 1 hidden files or folders, 1 files that are no arrays"
    ]


def test_names_do_not_steer_a_terminal(tmp_path):
    for i in range(4):
        write(tmp_path / "set" / f"a\n{i % 2}\x1b[31m" / f"{i}.png", i)
    (tmp_path / "set" / "a\n0\x1b[31m" / "bad.png").write_bytes(b"x")
    (tmp_path / "set" / "x.\x1b[31m").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        read_images(tmp_path / "set", ImageOptions())
    assert r"a\n0\x1b[31m/bad.png (it is no image)" in str(caught.value)
    assert r"left aside: 1 files named .\x1b[31m" in notes_and_classes(tmp_path / "set")[0][0]


def test_many_kinds_of_other_files_are_counted_together(tmp_path):
    for i in range(3):
        write(tmp_path / "set" / f"{i}.png", i)
    for i in range(30):
        (tmp_path / "set" / f"x.{i}").write_bytes(b"x")
    (note,) = notes_and_classes(tmp_path / "set")[0]
    assert note.count("1 files named") == 5
    assert note.endswith("25 files of other names")
