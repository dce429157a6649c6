"""The documentation as a site: `make docs` builds it; what its check finds, and what a browser makes of it."""

import importlib.util
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.clients.browser.conftest import browser  # noqa: F401 - a fixture
from tests.conftest import ROOT

SITE = ROOT / "docs" / "site"


@pytest.fixture
def check():
    specification = importlib.util.spec_from_file_location("check_of_the_site", SITE / "check.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_what_is_wrong_with_a_site_is_found(check, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other.html").write_text('<h1 id="there">Other</h1><a href="../index.html#here">back</a>')
    (tmp_path / "style.css").write_text('body { background: url("//cdn.example/x.png") }')
    (tmp_path / "index.html").write_text(
        """<h1 id="here">A page</h1><a href="a/other.html#there">fine</a><a href="https://example.org/x">fine</a>
        <img src="data:image/png;base64,AA=="><a href="a/other.html#gone">1</a><a href="gone.html">2</a>
        <img src="https://example.org/x.png"><script src="//cdn.example/x.js"></script><a href="https:///x">3</a>"""
    )
    assert check.problems(tmp_path) == [
        "index.html: //cdn.example/x.js is loaded from another host",
        "index.html: a/other.html#gone has no such heading",
        "index.html: gone.html is not there",
        "index.html: https:///x is no address of the web",
        "index.html: https://example.org/x.png is loaded from another host",
        "style.css: loads from another host",
    ]


def test_every_page_is_in_the_navigation():
    navigation = (SITE / "navigation.md").read_text()
    pages = [
        path for folder in ("docs", "docs/reference", "docs/walkthroughs") for path in (ROOT / folder).glob("*.md")
    ]
    assert len(pages) > 25
    for page in pages:
        assert str(page.relative_to(ROOT).with_suffix("")) in navigation, page


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, built anew."""
    pytest.importorskip("myst_nb", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--nitpicky", "--fail-on-warning", "--conf-dir", SITE, "--doctree-dir", folder / "trees")
    subprocess.run([sys.executable, "-m", "sphinx", *options, ROOT, folder / "site"], check=True)
    subprocess.run([sys.executable, SITE / "check.py", folder / "site"], check=True)
    handler = partial(_Quiet, directory=folder / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_in_a_browser(site, scheme, browser):  # noqa: F811 - the fixture
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    others, errors = [], []
    page.on("request", lambda request: request.url.startswith((site, "data:")) or others.append(request.url))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    for name, says in (
        ("index.html", "Four generators of MNIST digits"),
        ("docs/reference/python.html", "RevisionChangedError"),
        ("docs/reference/commands.html", "--model-poll-seconds"),
        ("docs/reference/settings.html", "--discriminator-steps"),
        ("docs/reference/proto.html", "SampleBinaryImages"),
        ("docs/reference/metrics.html", "bgan_images_total"),
        ("docs/tutorials/own-network.html", "frechet_distance"),
        ("search.html?q=checkpoint", "matching the search query"),
    ):
        page.goto(site + name)
        page.get_by_text(says).first.wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, name  # it scrolls down alone
    assert (others, errors) == ([], [])
    context.close()
