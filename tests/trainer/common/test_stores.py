"""Files behind a URL: written whole, read as they are, and what is told of those that are not there."""

import re

import pytest

from bgan.trainer.common.errors import ExportError
from bgan.trainer.common.stores import Store, StoreError, is_url, without_secrets
from tests.kit.stores import s3_environment

fsspec = pytest.importorskip("fsspec", reason="the extra s3 is not installed")


@pytest.fixture(autouse=True)
def files():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_what_is_a_url():
    assert is_url("s3://bucket/models")
    assert not any(map(is_url, ("models", "/a/b", "C:\\models", "a:b")))


@pytest.mark.parametrize("url", ["memory://models", "file://{}/deep/models"])
def test_a_file_there_and_back(url, tmp_path):
    store = Store(url.format(tmp_path))
    (tmp_path / "here.onnx").write_bytes(b"1")
    assert store.fetch("a/x.onnx", tmp_path / "copies") is None
    assert store.send(tmp_path / "here.onnx", "a/x.onnx") == f"{url.format(tmp_path)}/a/x.onnx"
    assert store.fetch("a/x.onnx", tmp_path / "copies").read_bytes() == b"1"
    (tmp_path / "here.onnx").write_bytes(b"2")
    store.send(tmp_path / "here.onnx", "a/x.onnx")
    assert Store(url.format(tmp_path)).fetch("a/x.onnx", tmp_path / "copies").read_bytes() == b"2"


def test_a_store_that_is_none_is_one_line(tmp_path):
    for url, says in (
        ("what://bucket", "what://bucket cannot be opened (Protocol not known: what); try again, or name another"),
        ("http://user:secret@127.0.0.1:1/m", "http://127.0.0.1:1/m cannot be read (Cannot connect to host"),
    ):
        with pytest.raises(StoreError, match=f"^{re.escape(says)}") as caught:
            Store(url).fetch("x.onnx", tmp_path)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_copy_is_called_by_its_url(tmp_path):
    with (
        pytest.raises(ExportError, match=r"^memory://models/x\.onnx is of another run$"),
        Store("memory://models").naming(tmp_path),
    ):
        raise ExportError(f"{tmp_path}/x.onnx is of another run")


def test_a_bucket_that_is_not_there_is_one_line(s3_port, tmp_path, monkeypatch):
    for name, value in s3_environment(s3_port).items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    (tmp_path / "x.onnx").write_bytes(b"1")
    says = r"^s3://no-such-bucket/models is not there \(.*\); make its bucket, or name another$"
    with pytest.raises(StoreError, match=says):
        Store("s3://no-such-bucket/models").send(tmp_path / "x.onnx", "x.onnx")


@pytest.mark.parametrize(
    "url", ["zz://me:p%40ss-word@host/x", "zz://AKIA123:p%40ss-word@bucket/x", "zz://host/x?sig=p%40ss-word"]
)
def test_no_message_shows_what_a_url_keeps_secret(url):
    with pytest.raises(StoreError) as found:
        Store(url)
    assert "word" not in str(found.value)
    assert "AKIA" not in str(found.value)
    assert without_secrets(url) == f"zz://{'bucket' if 'bucket' in url else 'host'}/x"
