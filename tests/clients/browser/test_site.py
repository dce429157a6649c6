"""What `bgan gallery` writes, on a plain web host: the page computes the images of its models itself."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bgan.serving.models.engine import load_engine
from tests.clients.browser.conftest import settled, shown
from tests.conftest import ROOT
from tests.kit.cli import bgan
from tests.portability.runtimes import WEB_VERSION


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def hosted(processes):
    """Puts a folder on a web host, whose address it gives."""
    hosts = []

    def serve(folder):
        host = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        hosts.append((host, thread))
        return f"http://127.0.0.1:{host.server_port}"

    yield serve
    for host, thread in hosts:
        host.shutdown()
        thread.join()
        host.server_close()


@pytest.fixture
def site(runtime, gallery_models, tmp_path, hosted):
    folder = tmp_path / "site"
    result = bgan("gallery", "integers", "mlp-sbn", "--models", gallery_models, "-o", folder)
    assert result.returncode == 0, result.stderr
    return folder, hosted(folder)


def expected(path, seed, first, count):
    engine = load_engine(path)
    packed = np.frombuffer(engine.sample(seed, first, count).packed_images, np.uint8).reshape(count, -1)
    return np.unpackbits(packed, axis=1, count=np.prod(engine.image_shape))


def test_the_first_images_are_there_and_others_are_computed(site, new_page, gallery_models):
    page, asked = new_page(site[1]), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    first, images = shown(page)
    np.testing.assert_array_equal(images, expected(gallery_models / "integers.onnx", 0, first, len(images)))
    assert not [url for url in asked if "onnxruntime" in url or url.endswith(".onnx")]
    page.get_by_label("Seed", exact=True).fill("12")
    page.get_by_label("Seed", exact=True).press("Tab")
    page.wait_for_url("**seed=12*")
    first, images = shown(page)
    np.testing.assert_array_equal(images, expected(gallery_models / "integers.onnx", 12, first, len(images)))
    assert [url for url in asked if url.endswith(".wasm")]
    page.get_by_label("Compute here").check()
    page.get_by_text("are the model's, bit for bit").wait_for()


def test_models_with_gates_are_computed_there(runtime, gallery_models, new_page, tmp_path, hosted):
    folder = tmp_path / "site"
    result = bgan("gallery", "gated-sbn", "hidden-sbn", "--models", gallery_models, "-o", folder)
    assert result.returncode == 0, result.stderr
    page = new_page(hosted(folder))
    for model in ("gated-sbn", "hidden-sbn"):
        page.goto(f"/?model={model}&seed=4&image=2")
        first, images = shown(page)
        np.testing.assert_array_equal(images, expected(gallery_models / f"{model}.onnx", 4, first, len(images)))
        assert page.locator("#parts[aria-label]").count() == (model == "gated-sbn")


def test_from_a_disk_the_page_says_how_to_open_it(site, new_page):
    page = new_page("file:///")
    page.goto(f"file://{site[0]}/index.html")
    page.get_by_text("The gallery has not started.").wait_for()
    page.get_by_text("python3 -m http.server").wait_for()


@pytest.mark.long
def test_pixels_that_differ_are_counted(site, new_page):
    folder, address = site
    revision = json.loads((folder / "models.json").read_text())["models"][1]["revision"]
    bits = bytearray((folder / "models" / f"{revision}.bits").read_bytes())
    bits[5] ^= 0b110
    bits[70_000] ^= 0b1
    (folder / "models" / f"{revision}.bits").write_bytes(bits)
    page = new_page(address)
    page.goto("/?model=mlp-sbn&compute=here")
    page.get_by_text(
        "differ from the model's in 3 of 802816 pixels, as those of a model of floats may."
    ).wait_for()
    settled(page)
    (folder / "models" / f"{revision}.onnx").write_bytes(b"broken")
    page.reload()
    page.locator("#notice", has_text="ERROR").wait_for()


def test_one_version_of_the_runtime_is_meant_everywhere():
    assert f"WEB_RUNTIME_VERSION := {WEB_VERSION}\n" in (ROOT / "Makefile").read_text()
