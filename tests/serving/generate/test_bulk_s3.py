"""bgan bulk into a bucket: a real client, and a real server of the S3 protocol."""

import io
import json
import logging
import urllib.request

import pytest

from bgan.serving.config.stores import open_store
from bgan.serving.errors import StoreError
from bgan.serving.models.engine import load_engine
from tests.fixtures.write import FOLDER
from tests.kit.cli import bgan, error_line
from tests.kit.s3 import s3_server

pytestmark = pytest.mark.usefixtures("processes")
DBN = FOLDER / "models/mlp-dbn.onnx"
REQUEST = ["--count", 900, "--seed", 3, "--shard-images", 400]


@pytest.fixture(scope="module")
def s3():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server("bulk") as variables:
        yield variables


def _let_pass(s3, requests):
    """From now on the server lets so many requests pass without asking whose keys they have; it knows none."""
    url = f"{s3['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    asked = urllib.request.Request(url, requests.encode(), {"Content-Type": "text/plain"})
    urllib.request.urlopen(asked).close()


@pytest.fixture
def client(s3, monkeypatch):
    """This process is a client too."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)


def test_a_bucket_holds_what_a_folder_would(s3, client):
    parquet = pytest.importorskip("pyarrow.parquet")
    result = bgan("bulk", DBN, *REQUEST, "-o", "s3://bulk/digits", "--workers", 1, env=s3)
    assert result.returncode == 0, result.stderr
    store = open_store("s3://bulk/digits")
    manifest = json.loads(store.read("manifest.json"))
    assert store.names("data") == {shard["file"].removeprefix("data/") for shard in manifest["shards"]}
    parts = [parquet.read_table(io.BytesIO(store.read(shard["file"])))["image"] for shard in manifest["shards"]]
    assert (
        b"".join(row for part in parts for row in part.to_pylist())
        == load_engine(DBN).sample(3, 0, 900).packed_images
    )
    store.files.rm_file(store.path(manifest["shards"][1]["file"]))
    store.files.rm_file(store.path("manifest.json"))
    result = bgan("bulk", DBN, *REQUEST, "-o", "s3://bulk/digits", "--workers", 1, env=s3)
    assert result.returncode == 0, result.stderr
    assert "resuming: 2 of 3 shards are whole, seed 3" in result.stderr
    assert json.loads(store.read("manifest.json")) == manifest


def test_a_process_whose_environment_names_another_server_asks_that_one(client, monkeypatch):
    for _ in range(2):
        with s3_server("other") as variables:
            monkeypatch.setenv("AWS_ENDPOINT_URL", variables["AWS_ENDPOINT_URL"])
            open_store("s3://other/digits").write("plan.json", b"{}")


def test_a_bucket_that_is_not_there(s3):
    line = error_line(bgan("bulk", DBN, *REQUEST, "-o", "s3://nowhere/x", env=s3))
    assert line == "bgan: s3://nowhere/x: The specified bucket does not exist; make it first, or name another"


def test_a_bucket_that_is_not_allowed(s3):
    _let_pass(s3, "0")
    try:
        line = error_line(bgan("bulk", DBN, *REQUEST, "-o", "s3://bulk/x", env=s3))
    finally:
        _let_pass(s3, "inf")
    assert line.startswith("bgan: s3://bulk/x: ")
    assert "; check the credentials, which are found as the store's own tools find them" in line


def test_a_server_that_is_away(client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()  # it was opened with the address before
    with pytest.raises(StoreError) as found:
        open_store("s3://away/x").read("plan.json")
    s3fs.S3FileSystem.clear_instance_cache()
    assert found.value.fault == "away"
    assert str(found.value).endswith("; is it running, and is the endpoint right?")
