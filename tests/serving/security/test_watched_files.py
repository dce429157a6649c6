"""Files that change while they are watched: real ones."""

import os

import pytest

from bgan.serving.errors import TokenFileError
from bgan.serving.security.tokens import make_token, read_tokens
from bgan.serving.security.watched_files import WatchedFiles
from tests.kit.certificates import write
from tests.kit.limits import no_files_left


def _settle(files):
    return [files.poll() for _ in range(3)]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "file", b"one")


def test_what_could_not_be_read_for_a_moment_is_read_later(tmp_path, caplog):
    """No file descriptor was left when the change came; the file itself does not change again."""
    path = tmp_path / "tokens.toml"
    for name in ("alice", "mallory"):
        make_token(path, name, models=["*"], images_per_minute=None, expires=None)
    files = WatchedFiles([path], lambda: read_tokens(path), what="tokens")
    write(path, path.read_bytes().partition(b"[mallory]")[0])
    with no_files_left():
        assert _settle(files) == [False] * 3
    assert set(files.content) == {"alice", "mallory"}
    assert caplog.text.count("stay in force") == 1
    assert files.poll()
    assert set(files.content) == {"alice"}
    assert _settle(files) == [False] * 3


def test_an_invalid_file_is_tried_until_it_is_mended(path, caplog):
    def read():
        if path.read_bytes() == b"bad":
            raise TokenFileError("it is bad")
        return path.read_bytes()

    files = WatchedFiles([path], read, what="tokens")
    write(path, b"bad")
    assert _settle(files) == [False] * 3
    assert caplog.text.count("it is bad; the tokens that were read before stay in force") == 1
    write(path, b"two")
    assert _settle(files) == [False, True, False]
    assert files.content == b"two"


def test_a_change_that_keeps_size_and_time_is_seen(path):
    """As `cp -p` writes it from files whose time is fixed."""
    os.utime(path, (1_700_000_000, 1_700_000_000))
    files = WatchedFiles([path], path.read_bytes, what="tokens")
    path.write_bytes(b"two")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert _settle(files) == [False, True, False]
    assert files.content == b"two"
