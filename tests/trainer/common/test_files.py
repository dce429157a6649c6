"""Written files: whole or not at all, and what is no plain file stays what it is."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bgan.trainer.common import files
from bgan.trainer.common.errors import DataError
from bgan.trainer.common.files import cache_folder, check_writable, data_root, write_atomically


def _written_to_a_pipe(path):
    """What `write_atomically` writes to a FIFO."""
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write_atomically(path, b"new")
    reader.join(60)
    return found


def test_a_pipe_is_written_to_and_stays(tmp_path):
    assert _written_to_a_pipe(tmp_path / "pipe") == [b"new"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_that_nobody_reads_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_READER_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device or address") as failed:
        write_atomically(tmp_path / "pipe", b"new")
    assert failed.value.filename == str(tmp_path / "pipe")


def test_a_device_is_written_to_and_stays(tmp_path):
    terminal, end = os.openpty()
    (tmp_path / "device").symlink_to(os.ttyname(end))
    for path in (tmp_path / "device", tmp_path / "device"):
        write_atomically(path, b"new")
        assert os.read(terminal, 100) == b"new"
    assert stat.S_ISCHR((tmp_path / "device").stat().st_mode)
    assert (tmp_path / "device").is_symlink()


@pytest.mark.parametrize("before", ["old", None])
def test_a_link_keeps_its_target_which_gets_the_content(tmp_path, before):
    target = tmp_path / "elsewhere" / "real"
    target.parent.mkdir()
    if before:
        target.write_text(before)
    (tmp_path / "link").symlink_to("elsewhere/real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["real"]


def test_a_link_to_itself_is_refused_and_stays(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for write in (check_writable, lambda path: write_atomically(path, b"new")):
        with pytest.raises(OSError, match="circle") as caught:
            write(tmp_path / "circle")
        assert caught.value.errno == errno.ELOOP
    assert [path.is_symlink() for path in tmp_path.iterdir()] == [True]


def test_an_old_file_keeps_its_permissions_and_a_new_one_has_the_usual(tmp_path):
    (tmp_path / "private").touch(0o600)
    (tmp_path / "usual").touch()
    for name in ("private", "new"):
        write_atomically(tmp_path / name, b"new")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("os.fsync", lambda descriptor: os.read(-1, 1))
    with pytest.raises(OSError, match="Bad file descriptor") as failed:
        write_atomically(tmp_path / "file", b"new")
    assert failed.value.filename == str(tmp_path / "file")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "old"}


def test_a_file_that_is_the_commands_own_output_is_written_through(tmp_path):
    with (tmp_path / "out").open("w") as out:
        command = "from pathlib import Path; from bgan.trainer.common.files import write_atomically as write\n"
        command += "print('before'); write(Path('/dev/stdout'), b'json\\n'); print('after')"
        subprocess.run([sys.executable, "-c", command], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\njson\nafter\n"


def test_the_cache_without_a_home_names_the_variable(monkeypatch, tmp_path):
    for name in ("BGAN_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder().is_absolute()  # by the user database
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # without an entry there
    with pytest.raises(DataError, match="name a folder for them with BGAN_CACHE_DIR"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bgan"
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_data_sets_are_in_the_users_cache_unless_there_is_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache" / "bgan" / "data"
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "own"))
    assert data_root() == tmp_path / "own" / "data"
    (tmp_path / "data").mkdir()
    assert data_root() == Path("data")
    monkeypatch.setenv("BGAN_DATA_DIR", "elsewhere")
    assert data_root() == Path("elsewhere")
    assert data_root("named") == Path("named")
