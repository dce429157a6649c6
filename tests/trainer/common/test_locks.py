"""Locks: of one holder, free again once it is gone, and no hindrance where a file system has none."""

import errno
import subprocess
import sys

import pytest

from bgan.trainer.common.locks import file_lock

_HOLDING = """if True:
    import sys
    from pathlib import Path
    from bgan.trainer.common.locks import file_lock
    with file_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_lock_has_one_holder_and_is_gone_afterwards(tmp_path):
    for _ in range(2):
        with file_lock(tmp_path / "lock"), pytest.raises(BlockingIOError), file_lock(tmp_path / "lock"):
            pytest.fail("two have it")
        assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_process_that_was_killed_is_free(tmp_path):
    command = [sys.executable, "-c", _HOLDING, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock"):
            pass
        process.kill()
        process.wait()
    assert (tmp_path / "lock").exists()
    with file_lock(tmp_path / "lock"):
        pass


def test_a_lock_that_was_removed_meanwhile_is_held_by_another(tmp_path, monkeypatch):
    """Between opening the file and locking it."""

    def removed(*arguments):
        (tmp_path / "lock").unlink()

    monkeypatch.setattr("fcntl.flock", removed)
    with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_locks_lets_all_pass(tmp_path, monkeypatch, reason):
    def without_locks(*arguments):
        raise OSError(reason, "as the file system says")

    monkeypatch.setattr("fcntl.flock", without_locks)
    if reason == errno.EIO:
        with pytest.raises(OSError, match="as the file system says"), file_lock(tmp_path / "lock"):
            pass
    else:
        with file_lock(tmp_path / "lock"), file_lock(tmp_path / "lock"):
            pass
