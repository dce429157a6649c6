"""Models of a Hub repository, hf://user/name: huggingface_hub's file system against a server of its protocol."""

import shutil

import pytest

from bgan.clients import SamplingClient
from bgan.serving.config.settings import SHIPPED
from bgan.serving.errors import StoreError
from bgan.serving.models.engine import load_engine
from bgan.serving.models.remote import Mirror
from tests.kit.hub import TOKEN, digest, hub
from tests.kit.servers import free_port, server
from tests.kit.waiting import eventually

fsspec = pytest.importorskip("fsspec", reason="the extra hub is not installed")
pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """A folder of repositories, and the variables by which they are found."""
    folder = tmp_path_factory.mktemp("hub")
    with hub(folder) as environment:
        yield folder, environment


@pytest.fixture
def repository(repositories, request, monkeypatch):
    """An empty repository, user/digits, of a Hub that this process finds."""
    folder, environment = repositories
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": environment["HF_ENDPOINT"]})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    root = folder / "user" / "digits"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


def _mirror(tmp_path, url="hf://user/digits"):
    return Mirror(url, tmp_path / "cache")


def _there(mirror):
    return {
        path.relative_to(mirror.folder).as_posix(): digest(path)
        for path in mirror.folder.rglob("*.onnx")
        if not path.name.startswith(".")
    }


def test_a_repository_is_fetched_and_followed(repository, tmp_path):
    (repository / "README.md").write_text("---\nlicense: mit\n---\n")
    (repository / "samples.png").write_bytes(b"a picture")
    for name in ("a.onnx", "b.onnx", "b/4.onnx", "b/5/model.onnx"):  # small ones are git's, large ones LFS's
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(name.encode() * (1 if name == "a.onnx" else 1000))
    (repository / "b.onnx").unlink()
    mirror = _mirror(tmp_path)
    mirror.sync()
    wanted = ("a.onnx", "b/4.onnx", "b/5/model.onnx")
    assert _there(mirror) == {name: digest(repository / name) for name in wanted}
    (repository / "a.onnx").write_bytes(b"another content")
    (repository / "c.onnx").write_bytes(b"new" * 1000)
    (repository / "b" / "4.onnx").unlink()
    mirror.sync()
    assert _there(mirror) == {name: digest(repository / name) for name in ("a.onnx", "c.onnx", "b/5/model.onnx")}


def test_a_folder_of_a_revision(repository, tmp_path):
    (repository / "models").mkdir()
    (repository / "models" / "a.onnx").write_bytes(b"a")
    mirror = _mirror(tmp_path, "hf://user/digits@main/models")
    mirror.sync()
    assert _there(mirror) == {"a.onnx": digest(repository / "models" / "a.onnx")}


def test_a_private_repository_needs_the_token(repository, tmp_path, monkeypatch):
    (repository / "a.onnx").write_bytes(b"a")
    (repository / ".private").touch()
    with pytest.raises(StoreError, match=r"^hf://user/digits: .*If the repo is private, .*authenticated"):
        _mirror(tmp_path).sync()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    mirror = _mirror(tmp_path)
    mirror.sync()
    assert _there(mirror) == {"a.onnx": digest(repository / "a.onnx")}


def test_a_repository_that_is_not_there_and_a_hub_that_is_away(repository, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"^hf://user/none: .*not found") as raised:
        _mirror(tmp_path, "hf://user/none").sync()
    assert raised.value.fault == "missing"
    with pytest.raises(StoreError, match=r"^hf://user: Repository id must be 'namespace/name'"):
        _mirror(tmp_path, "hf://user").sync()
    with pytest.raises(StoreError, match=r"hf://user/digits has no \.onnx file"):
        _mirror(tmp_path).sync()
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(StoreError, match=r"is it running, and is the endpoint right\?$") as raised:
        _mirror(tmp_path).sync()
    assert raised.value.fault == "away"


def test_a_server_follows_a_repository(repositories, repository, tmp_path):
    _, environment = repositories
    shutil.copy(SHIPPED / "mlp-dbn.onnx", repository)
    options = ("--model-cache", tmp_path / "cache", "--model-poll-seconds", "0.1")
    with (
        server("hf://user/digits", *options, env=environment, cwd=tmp_path) as process,
        SamplingClient(process.target) as client,
    ):
        (batch,) = client.sample_binary_images(image_count=50, seed=3)
        expected = load_engine(SHIPPED / "mlp-dbn.onnx").sample(3, 0, 50).packed_images
        assert batch.packed_images.tobytes() == expected
        shutil.copy(SHIPPED / "mlp-sbn.onnx", repository)
        eventually(lambda: len(client.list_models()) == 2)
