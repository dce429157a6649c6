"""The files that the port shows at its root, and that no others can be had there."""

import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from bgan.serving.config.gallery import GALLERY
from tests.conftest import ROOT
from tests.kit.cli import bgan_process

LONG = bytes(range(256)) * 1000


@contextmanager
def _client(folder):
    command = [sys.executable, "-m", "tests.kit.pages_server", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        port = int(process.stdout.readline())
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
        process.stdin.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "browser"
    (folder / "parts").mkdir(parents=True)
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "index.html").write_text("<!doctype html>\u00e9")
    (folder / "main.mjs").write_text("export {}")
    (folder / "parts" / "long.wasm").write_bytes(LONG)
    (folder / "parts" / "empty.css").touch()
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with _client(folder) as client:
        yield client


def test_files_are_shown_at_the_root_with_their_kinds(client):
    page = client.get("/")
    assert (page.status_code, page.text) == (200, "<!doctype html>\u00e9")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "javascript" in client.get("/main.mjs").headers["content-type"]
    assert client.get("/parts/empty.css").content == b""
    long = client.get("/parts/long.wasm")
    assert (long.headers["content-type"], long.content) == ("application/wasm", LONG)
    head = client.head("/parts/long.wasm")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(LONG)))


def test_a_file_that_changed_is_read_again_and_no_other(client, folder):
    first = client.get("/main.mjs")
    again = {"if-none-match": first.headers["etag"]}
    assert first.headers["cache-control"] == "no-cache"
    assert client.get("/main.mjs", headers=again).status_code == 304
    (folder / "main.mjs").write_text("export {};")
    assert client.get("/main.mjs", headers=again).text == "export {};"


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/parts",
        "/parts/",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/%00",
        "/x" * 4000,
    ],
)
def test_nothing_else_is_there(client, path):
    url = httpx.URL(client.base_url).copy_with(raw_path=path.encode())
    found = client.get(url)
    assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json")
    assert found.json()["reason"] == "PATH_NOT_FOUND"
    assert found.json()["detail"].startswith("there is nothing at /")
    assert found.headers["x-request-id"]


def test_without_the_folder_there_is_nothing_and_other_verbs_are_refused(tmp_path):
    with _client(tmp_path / "none") as client:
        assert client.get("/").status_code == 404
        refused = client.post("/", content=b"x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert client.get("/openapi.json").json()["openapi"] == "3.1.0"


def test_onnxruntime_web_may_lie_anywhere(http, tmp_path):
    """It is in no wheel."""
    found = http.get("/onnxruntime-web/ort.wasm.min.mjs")
    assert (found.status_code, found.text) == (200, "ort.wasm.min.mjs")
    refused = bgan_process("serve", "--port", 0, "--http-port", 0, "--http-runtime", tmp_path)
    assert refused.returncode == 1
    expected = (
        f"bgan: {tmp_path} has no ort.wasm.min.mjs: `make browser` fetches it, or name the folder `dist` of "
    )
    assert refused.stderr.splitlines()[-1].startswith(expected)
    assert refused.stderr.endswith("with --http-runtime\n")


def test_a_folder_on_another_web_host_has_the_same_policy(client):
    policy = client.get("/").headers["content-security-policy"].removesuffix("; frame-ancestors 'none'")
    assert f'content="{policy}"' in (GALLERY / "index.html").read_text()  # an element cannot say who may frame it
    assert "unsafe" not in policy.replace("wasm-unsafe-eval", "")
