"""Folders that a killed server leaves, and that the next start removes."""

import os
import subprocess
import sys
import tempfile

import pytest

from bgan.serving.config.shared_folder import shared_folder
from bgan.serving.errors import StartError

_HOLD = """
from bgan.serving.config.shared_folder import shared_folder
with shared_folder("bgan-test-", "the figures") as folder:
    print(folder, flush=True)
    input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files go, in this process and its children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def _hold():
    """Another process with a folder of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def test_a_folder_is_there_until_it_is_left(temporary):
    with shared_folder("bgan-test-", "the figures") as folder:
        assert folder.parent == temporary
        (folder / "file").touch()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(temporary):
    used, kept = _hold()
    killed, left = _hold()
    with used, killed:
        killed.kill()
        killed.wait()
        (temporary / "bgan-test-file").touch()
        (temporary / "other").mkdir()
        with shared_folder("bgan-test-", "the figures") as folder:
            names = {folder.name, os.path.basename(kept), "bgan-test-file", "other"}
            assert {path.name for path in temporary.iterdir()} == names
        used.communicate("\n")
    assert not os.path.exists(left)


def test_small_folders_lie_in_memory_and_need_no_other_place(temporary):
    with shared_folder("bgan-test-", "the figures", is_small=True) as folder:
        assert os.path.isdir("/dev/shm") == (folder.parent != temporary)


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    expected = (
        "the figures of several workers need a folder for temporary files .*; name one .* with TMPDIR, or use 1"
    )
    with pytest.raises(StartError, match=expected), shared_folder("bgan-test-", "the figures"):
        pass
