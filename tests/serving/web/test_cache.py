"""A real nginx in front: the second reader of a revision's images costs the server nothing."""

import os
import re
import shutil
import subprocess

import httpx
import pytest

from bgan.serving.models.engine import load_engine
from tests.conftest import FOLDER
from tests.kit.servers import free_port
from tests.kit.waiting import eventually

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin")
CONFIG = """
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
daemon off;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=images:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {server};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache images;
      proxy_cache_lock on;
      add_header x-cache $upstream_cache_status;
    }}
  }}
}}
"""


@pytest.fixture
def cached(web, tmp_path):
    """A client of an nginx whose server is ours."""
    port = free_port()
    user = "user root;" if os.getuid() == 0 else ""  # its own could not enter the folder
    file, log = tmp_path / "nginx.conf", tmp_path / "error.log"
    file.write_text(CONFIG.format(folder=tmp_path, port=port, server=web.http, user=user))
    process = subprocess.Popen([NGINX, "-p", tmp_path, "-c", file, "-e", log])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            eventually(lambda: _answers(client))
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _answers(client):
    try:
        return client.get("/healthz").status_code == 200
    except httpx.ConnectError:
        return False


def _sent(http):
    return re.findall(r"^bgan_images_total.*", http.get("/metrics").text, re.M)


@pytest.mark.skipif(NGINX is None, reason="no nginx here: apt-get install nginx-light")
def test_the_second_reader_costs_the_server_nothing(cached, http):
    engine = load_engine(FOLDER / "models" / "mlp-dbn.onnx")
    address = f"/v1/revisions/{engine.revision}/images?seed=5&count=700&format="
    first = cached.get(address + "bits")
    assert first.headers["x-cache"] == "MISS"
    assert first.content == engine.sample(5, 0, 700).packed_images
    before = _sent(http)
    for reader in ({}, {"accept-encoding": "gzip"}, {"authorization": "Bearer x"}):
        again = cached.get(address + "bits", headers=reader)
        assert again.headers["x-cache"] == "HIT"
        assert again.content == first.content
        assert again.headers["etag"] == first.headers["etag"]
    part = cached.get(address + "bits", headers={"range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, first.content[1000:2000])
    assert cached.get(address + "bits", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert cached.head(address + "bits").headers["x-cache"] == "HIT"
    assert _sent(http) == before
    assert cached.get(address + "png").headers["x-cache"] == "MISS"
    # What may change is not kept.
    for _ in range(2):
        assert cached.get("/v1/models/mlp-dbn/images?seed=5&count=3").headers["x-cache"] == "MISS"
    assert _sent(http) != before
