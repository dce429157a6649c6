"""The files that the port shows at its root, and that no others can be had there."""

from contextlib import asynccontextmanager

import httpx
import pytest

from bgan.serving.config.settings import ServerSettings
from bgan.serving.rpc.context import ServiceContext
from bgan.serving.rpc.guard import CallGuard
from bgan.serving.rpc.open_inference import OpenInferenceServicer
from bgan.serving.rpc.sampling import SamplingServicer
from bgan.serving.server.health import Health
from bgan.serving.server.ports import bound_socket
from bgan.serving.telemetry.metrics import NO_METRICS
from bgan.serving.web.app import make_app
from bgan.serving.web.listener import WebListener

LONG = bytes(range(256)) * 1000


@asynccontextmanager
async def _client(folder):
    settings = ServerSettings(http_port=0)
    context = ServiceContext.build(settings, NO_METRICS, None)
    services = SamplingServicer(context), OpenInferenceServicer(context), Health(context)
    app = make_app(context, CallGuard(context), *services, pages=folder)
    listener = WebListener(app, settings, None, max_connections=100)
    port = await listener.start(bound_socket("127.0.0.1", 0))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    await listener.stop(0)
    context.close()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "browser"
    (folder / "parts").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "index.html").write_text("<!doctype html>\u00e9")
    (folder / "main.mjs").write_text("export {}")
    (folder / "parts" / "long.wasm").write_bytes(LONG)
    (folder / "parts" / "empty.css").touch()
    return folder


async def test_files_are_shown_at_the_root_with_their_kinds(folder):
    async with _client(folder) as client:
        page = await client.get("/")
        assert (page.status_code, page.text) == (200, "<!doctype html>\u00e9")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "javascript" in (await client.get("/main.mjs")).headers["content-type"]
        assert (await client.get("/parts/empty.css")).content == b""
        long = await client.get("/parts/long.wasm")
        assert (long.headers["content-type"], long.content) == ("application/wasm", LONG)
        head = await client.head("/parts/long.wasm")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(LONG)))


async def test_a_file_that_changed_is_read_again_and_no_other(folder):
    async with _client(folder) as client:
        first = await client.get("/main.mjs")
        again = {"if-none-match": first.headers["etag"]}
        assert first.headers["cache-control"] == "no-cache"
        assert (await client.get("/main.mjs", headers=again)).status_code == 304
        (folder / "main.mjs").write_text("export {};")
        assert (await client.get("/main.mjs", headers=again)).text == "export {};"


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
async def test_nothing_else_is_there(folder, path):
    async with _client(folder) as client:
        url = httpx.URL(client.base_url).copy_with(raw_path=path.encode())
        found = await client.get(url)
        assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json")
        assert found.json()["detail"].startswith("there is nothing at /")
        assert found.headers["x-request-id"]


async def test_without_the_folder_there_is_nothing_and_other_verbs_are_refused(tmp_path):
    async with _client(tmp_path / "none") as client:
        assert (await client.get("/")).status_code == 404
        refused = await client.post("/", content=b"x")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"
