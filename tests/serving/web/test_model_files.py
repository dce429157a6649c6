"""Models' files over HTTP, with which the gallery computes: who gets them, and whose they are."""

import shutil

import httpx

from bgan.serving.models.engine import load_engine
from bgan.serving.security.tokens import make_token
from tests.conftest import FOLDER
from tests.kit.servers import server


def test_a_models_file_is_given_to_who_may_sample_it(tmp_path, models):
    token = make_token(tmp_path / "tokens", "a", models=["mlp-*"], images_per_minute=None, expires=None)
    with server(models, "--http-port", 0, "--tokens", tmp_path / "tokens") as process:
        addresses = {}
        for name in ("mlp-dbn", "cnn-sbn"):
            addresses[name] = f"{process.http}/v1/revisions/{load_engine(models / f'{name}.onnx').revision}/file"
        assert httpx.get(f"{process.http}/").status_code == 200  # the page itself has no secrets
        assert httpx.get(addresses["mlp-dbn"]).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        found = httpx.get(addresses["mlp-dbn"], headers=headers)
        assert found.content == (models / "mlp-dbn.onnx").read_bytes()
        assert found.headers["cache-control"].startswith("private, ")
        again = httpx.get(addresses["mlp-dbn"], headers={**headers, "if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert httpx.get(addresses["cnn-sbn"], headers=headers).status_code == 404
        assert httpx.get(addresses["mlp-dbn"] + "?x=1", headers=headers).status_code == 400


def test_a_models_file_that_is_another_by_now_is_not_given(tmp_path):
    path = tmp_path / "x.onnx"
    shutil.copy(FOLDER / "models" / "mlp-dbn.onnx", path)
    address = f"/v1/revisions/{load_engine(path).revision}/file"
    with server(tmp_path, "--http-port", 0, "--model-poll-seconds", 0) as process:
        assert httpx.head(process.http + address).headers["content-length"] == str(path.stat().st_size)
        shutil.copy(FOLDER / "models" / "mlp-sbn.onnx", path)
        gone = httpx.get(process.http + address)
        assert gone.status_code == 404
        assert "the file of mlp-dbn, revision" in gone.json()["detail"]
        assert str(tmp_path) not in gone.text
    with server(tmp_path, "--http-port", 0, "--no-model-files") as process:
        refused = httpx.get(f"{process.http}/v1/revisions/{load_engine(path).revision}/file")
        assert refused.status_code == 403
        assert "--no-model-files" in refused.json()["detail"]
