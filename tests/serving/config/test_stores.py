"""Stores by fsspec: whole files or none, and one line where something is wrong."""

import errno
import pickle
import sys

import pytest

from bgan.serving.config.stores import open_store, store_error, without_secrets
from bgan.serving.errors import StoreError


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        return open_store(f"memory://{tmp_path.name}")
    return open_store(str(tmp_path / "a b"))


def test_files_are_written_read_and_listed(store):
    assert store.names("inner") == set()
    assert store.read("inner/x") is None
    store.write("inner/x", b"one")
    store.write("inner/x", b"two")
    store.write("y", b"")
    assert (store.read("inner/x"), store.read("y")) == (b"two", b"")
    assert store.names("inner") == {"x"}


def test_a_folder_is_a_store_by_its_path_and_by_its_url(tmp_path):
    open_store(str(tmp_path)).write("x", b"1")
    assert open_store(f"file://{tmp_path}/").read("x") == b"1"
    assert open_store(str(tmp_path)).is_local
    assert not open_store("memory://x").is_local


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    store.write("x", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError) as found:
        store.write("x", b"new")
    assert str(found.value) == f"{tmp_path}: No space left on device; make room there"
    assert found.value.fault == "full"
    assert store.read("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (FileNotFoundError(errno.ENOENT, "The specified bucket does not exist"), "missing"),
        (PermissionError(errno.EACCES, "Access Denied"), "forbidden"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "full"),
        (OSError(errno.EIO, "XMinioStorageFull: Storage backend has reached its minimum free drive"), "full"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "away"),
        (TimeoutError(), "away"),
        (type("EndpointConnectionError", (type("ConnectionError", (Exception,), {}),), {})("no"), "away"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "forbidden"),
        (OSError(errno.EIO, "Internal error\nsecond line"), "other"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(error, fault):
    found = store_error("s3://bucket/x", error)
    assert found.fault == fault
    assert str(found).startswith("s3://bucket/x: ")
    assert "\n" not in str(found)
    assert pickle.loads(pickle.dumps(found)).fault == fault  # it comes from other processes


def test_a_folder_that_is_closed_needs_no_credentials():
    error = PermissionError(errno.EACCES, "Permission denied")
    assert str(store_error("/a/b", error)) == (
        "/a/b: Permission denied; name a folder that this user may read and write"
    )


@pytest.mark.parametrize("url", ["hf://", "s3://", "s3:///"])
def test_a_url_without_a_bucket_is_refused(url):
    pytest.importorskip("s3fs")
    pytest.importorskip("huggingface_hub")
    with pytest.raises(StoreError, match=f"^{url} names no bucket or repository; add it, as in"):
        open_store(url)


def test_the_cause_tells_what_a_library_hides():
    error = RuntimeError("failed")
    error.__cause__ = ConnectionResetError()
    assert store_error("x://y", error).fault == "away"


def test_a_url_that_nothing_opens():
    with pytest.raises(StoreError, match=r"^zz://b is no URL that fsspec opens \(Protocol not known: zz\); name"):
        open_store("zz://b")


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match=r"^s3a://b/models: Install s3fs to access S3: pip install 'bgan\[s3\]'$"):
        open_store("s3a://b/models")  # another test may have opened s3://, which fsspec keeps


SECRETS = (
    "ftp://me:p%40ss@host/x",
    "s3://AKIA123:topsecret@bucket/x",
    "https://host/x?sig=topsecret&a=b",
    "sftp://me:p@ss@host/x",
)


@pytest.mark.parametrize("url", SECRETS)
def test_no_message_shows_what_a_url_keeps_secret(url):
    shown = (
        url.partition("?")[0].replace("me:p%40ss@", "").replace("AKIA123:topsecret@", "").replace("me:p@ss@", "")
    )
    assert without_secrets(url) == shown
    said = str(
        store_error(url, RuntimeError(f"{url}: no; p@ss, p%40ss or topsecret of AKIA123:topsecret is wrong"))
    )
    assert said.startswith(f"{shown}: {shown}: no; ")
    for secret in ("p%40ss", "topsecret", "AKIA123"):
        assert secret not in said or secret not in url
    assert without_secrets("a b/x?y") == "a b/x?y"


def test_a_url_that_no_package_opens_keeps_its_secrets():
    with pytest.raises(StoreError) as found:
        open_store("zz://me:topsecret@host/x?key=topsecret")
    assert str(found.value).startswith("zz://host/x is no URL that fsspec opens")
    assert "topsecret" not in str(found.value)
    assert open_store("memory://me:topsecret@host/x").shown == "memory://host/x"
