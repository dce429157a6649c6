"""A headless Chromium, pages of it, and servers to look at."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bgan.serving.config.gallery import GALLERY, RUNTIME
from tests.conftest import FOLDER
from tests.fixtures.write import make_integer
from tests.kit.servers import server
from tests.serving.models.test_integer_check import save

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GATED = ("gated/gated-dbn", "gated/gated-sbn", "gated/gated-cnn", "gated/hidden-sbn")
READ_BACK = (Path(__file__).parent / "read_back.js").read_text()
"""A function that gives what the sheet's canvas shows: whether each pixel of each whole image is on."""


@pytest.fixture(scope="module")
def browser(processes):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        arguments.append("--host-resolver-rules=MAP gallery.test 127.0.0.1")
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser):
    """Makes pages, none of which may have asked another host for anything, or have had an error, at the end."""
    contexts, requests, errors = [], [], []

    def make(base_url, *, width=720, height=420, **options):
        viewport = {"width": width, "height": height}
        context = browser.new_context(base_url=base_url, viewport=viewport, reduced_motion="reduce", **options)
        contexts.append((context, base_url))
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append((base_url, request.url)))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        return page

    yield make
    for context, _ in contexts:
        context.close()
    assert errors == []
    foreign = [url for base, url in requests if not url.startswith((base, f"blob:{base}"))]
    assert foreign == []


@pytest.fixture(scope="session")
def runtime():
    """onnxruntime-web, where it was fetched."""
    if not (GALLERY / RUNTIME / "ort.wasm.min.mjs").exists():
        pytest.skip("onnxruntime-web is not here: make browser")


@pytest.fixture(scope="session")
def gallery_models(tmp_path_factory):
    """Models of other shapes, with and without classes, of integers, with gates and with binary hidden neurons."""
    folder = tmp_path_factory.mktemp("gallery")
    for name in ("models/mlp-dbn", "models/mlp-sbn", "models/cnn-sbn", "classes/sbn", *GATED):
        shutil.copy(FOLDER / f"{name}.onnx", folder)
    save(make_integer(), folder / "integers.onnx")
    return folder


@pytest.fixture(scope="session")
def gallery(gallery_models):
    with server(gallery_models, "--http-port", 0, "--default-model", "mlp-dbn") as process:
        yield process


def until(page, condition):
    """Wait until an expression of JavaScript holds; Playwright's own wait evaluates it as the CSP forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition} does not come to hold")


def settled(page):
    """Wait until every image that the sheet shows is there."""
    until(page, "document.querySelector('#sheet canvas').dataset.missing === '0'")


def shown(page):
    """The index of the first image that the sheet shows whole, and the pixels of all, [n, pixels of an image]."""
    settled(page)
    found = page.evaluate(READ_BACK)
    pixels = np.frombuffer(found["pixels"].encode(), np.uint8) - ord("0")
    return int(found["first"]), pixels.reshape(-1, found["size"])
