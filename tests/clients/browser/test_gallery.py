"""The gallery of a server in headless Chromium: it shows the bits of the stream, whatever is done to it."""

import io
import re
import shlex
import subprocess

import numpy as np
import pytest
from PIL import Image

from bgan.clients import SamplingClient
from bgan.serving.models.engine import load_engine
from bgan.serving.models.noise import INDEX_END
from bgan.serving.models.npy import npz_description
from bgan.serving.security.tokens import make_token
from tests.clients.browser.conftest import settled, shown, until
from tests.conftest import FOLDER
from tests.fixtures.write import write_model
from tests.kit.servers import free_port, restarting_server, server


@pytest.fixture
def open_page(new_page, gallery):
    def make(address, **options):
        page = new_page(gallery.http, **options)
        page.goto(address)
        return page

    return make


@pytest.fixture(scope="module")
def client(gallery):
    with SamplingClient(gallery.target) as client:
        yield client


def stream(client, model, seed, first, count, **more):
    batches = client.sample_binary_images(model=model, seed=seed, first_index=first, image_count=count, **more)
    return np.concatenate([batch.images for batch in batches]).reshape(count, -1)


def check_sheet(page, client, model, seed, **more):
    """The sheet shows these images; returns the index of the first."""
    first, images = shown(page)
    assert len(images) >= 15
    np.testing.assert_array_equal(images, stream(client, model, seed, first, len(images), **more))
    return first


def picture(page, name):
    """The pixels of a canvas, [height, width, 3]."""
    image = page.evaluate(
        """(id) => { const canvas = document.getElementById(id);
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.height, canvas.width, [...data]]; }""",
        name,
    )
    return np.array(image[2], np.uint8).reshape(image[0], image[1], 4)[..., :3]


def is_on(page, name):
    """Whether each pixel of a canvas with the image of one channel is on."""
    return (picture(page, name)[..., 0] < 128).astype(np.uint8)  # ink on paper


def test_the_sheet_shows_the_bits_that_the_client_gets(open_page, client):
    page = open_page("/?model=mlp-dbn&seed=5", device_scale_factor=1.5)
    for model in ("mlp-dbn", "mlp-sbn", "cnn-sbn", "integers", "sbn"):
        page.get_by_label("Model").select_option(model)
        page.wait_for_url(f"**model={model}&**")
        assert check_sheet(page, client, model, 5) == 0
    page.get_by_label("Class").select_option("mouse")
    page.wait_for_url("**class=mouse**")
    check_sheet(page, client, "sbn", 5, labels=[3])


def test_any_index_is_reached_by_scrolling_or_by_its_number(open_page, client):
    page = open_page("/?model=mlp-dbn&seed=5")
    settled(page)
    page.locator("#sheet").hover()
    page.mouse.wheel(0, 100_000)
    page.wait_for_url("**index=**")
    first = check_sheet(page, client, "mlp-dbn", 5)
    assert first > 10_000
    for _ in range(3):  # which moves the scroll bar under the sheet
        page.locator("#sheet").evaluate("(sheet) => { sheet.scrollTop = sheet.scrollHeight; }")
        until(page, "document.querySelector('#sheet').scrollTop < 3e6")
    assert check_sheet(page, client, "mlp-dbn", 5) > 500_000
    for index in (2**53 + 1, INDEX_END - 1):
        page.get_by_label("Go to image").fill(f"{index:,}")
        page.get_by_label("Go to image").press("Enter")
        until(page, f"BigInt(document.querySelector('#sheet canvas').dataset.first) > {2**52}n")
        found = check_sheet(page, client, "mlp-dbn", 5)
        if index < INDEX_END - 1:
            assert 0 <= index - found < 20
            page.wait_for_url(f"**index={index}**")
    page.locator("#sheet").evaluate("(sheet) => { sheet.scrollTop -= 3000; }")  # from the end back
    until(page, f"BigInt(document.querySelector('#sheet canvas').dataset.first) < {INDEX_END - 500}n")
    check_sheet(page, client, "mlp-dbn", 5)


def test_a_link_shows_the_same_to_someone_else(open_page, gallery_models):
    page = open_page("/?model=mlp-dbn")
    page.get_by_label("Seed", exact=True).fill("9223372036854775807")
    page.get_by_label("Seed", exact=True).press("Tab")
    page.get_by_label("Model").select_option("mlp-sbn")
    page.get_by_label("Go to image").fill("123")
    page.get_by_label("Go to image").press("Enter")
    settled(page)
    page.locator("#sheet").press("Enter")
    page.locator("#walk").fill("30")
    page.wait_for_url("**walk=30**")
    revision = load_engine(gallery_models / "mlp-sbn.onnx").revision
    assert re.search(rf"\?model=mlp-sbn&revision={revision[:8]}&seed=9223372036854775807&.*image=123", page.url)
    other = open_page(page.url)
    other.get_by_role("heading", name="Image 123").wait_for()
    assert shown(other)[0] == shown(page)[0]
    np.testing.assert_array_equal(shown(other)[1], shown(page)[1])
    for canvas in ("image", "probabilities", "walked"):
        until(page, f"document.getElementById('{canvas}').hasAttribute('aria-label')")
        until(other, f"document.getElementById('{canvas}').hasAttribute('aria-label')")
        np.testing.assert_array_equal(picture(other, canvas), picture(page, canvas))
    changed = open_page(page.url.replace(revision[:8], "0" * 8))
    changed.get_by_text("The model has changed since this link was made").wait_for()


def test_one_image_its_probabilities_its_draws_and_a_walk(open_page, gallery_models):
    engine = load_engine(gallery_models / "mlp-sbn.onnx")
    page = open_page("/?model=mlp-sbn&seed=3&image=7&to=20&walk=0")
    until(page, "document.getElementById('walked').hasAttribute('aria-label')")
    until(page, "document.getElementById('draws').hasAttribute('aria-label')")
    own, target = engine.noise.draw(3, 7, 1), engine.noise.draw(3, 20, 1)
    images, probabilities = engine.infer(*own)
    np.testing.assert_array_equal(is_on(page, "image"), images[0, 0])
    np.testing.assert_array_equal(is_on(page, "walked"), images[0, 0])
    on, off = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in ("#1c2128", "#ffffff"))
    greys = off + (on - off) * probabilities[0, 0, :, :, None]
    assert np.abs(picture(page, "probabilities") - greys).max() <= 1
    assert re.match(r"\d+ of 784 pixels are on", page.locator("#facts").inner_text())
    # Twelve draws, six in a row with a gap of one pixel: the same latents with the uniforms of images 8 to 19.
    draws, _ = engine.infer(own.latents.repeat(12, 0), engine.noise.draw(3, 8, 12).uniforms)
    sheet = is_on(page, "draws")
    np.testing.assert_array_equal(sheet[30:58, 1:29], draws[6, 0])
    for share, name in ((40, "40 %"), (100, "100 %")):
        page.locator("#walk").fill(str(share))
        page.locator("#walked-caption", has_text=re.compile(f"^{name}$")).wait_for()
        first, last = own.latents[0].astype(float), target.latents[0].astype(float)
        angle = np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
        path = np.sin((1 - share / 100) * angle) * first + np.sin(share / 100 * angle) * last
        walked, _ = engine.infer((path / np.sin(angle)).astype(np.float32)[None], own.uniforms)
        assert (is_on(page, "walked") != walked[0, 0]).mean() < 0.005  # sums in another order


def parts_shown(page):
    """Which parts the page says ran for the chosen image, 0 or 1 for each, once it says so."""
    page.locator("#parts[aria-label] .part").first.wait_for()
    squares = page.locator("#parts .part").evaluate_all("(all) => all.map((each) => each.className)")
    return [int(name == "part ran") for name in squares]


@pytest.mark.parametrize("compute", ["", "&compute=here"])
def test_the_parts_that_ran_for_an_image_are_shown(request, open_page, client, gallery_models, compute):
    if compute:
        request.getfixturevalue("runtime")
    engine = load_engine(gallery_models / "gated-sbn.onnx")
    page = open_page(f"/?model=gated-sbn&seed=3&image=7{compute}")
    for index in (7, 8, 9):
        _, _, gates = engine.infer(*engine.noise.draw(3, index, 1))
        ran = [str(part) for part in np.flatnonzero(gates[0])]
        label = f"{len(ran)} of 3 parts ran for it{': ' * bool(ran)}{', '.join(ran)}"
        page.get_by_role("img", name=label, exact=True).wait_for()
        assert parts_shown(page) == gates[0].tolist()
        page.get_by_role("button", name="Next image").click()
    check_sheet(page, client, "gated-sbn", 3)
    for model in ("gated-dbn", "gated-cnn"):
        page.get_by_label("Model").select_option(model)
        page.wait_for_url(f"**model={model}&**")
        check_sheet(page, client, model, 3)
    page.get_by_label("Model").select_option("hidden-sbn")
    page.wait_for_url("**model=hidden-sbn&**")
    check_sheet(page, client, "hidden-sbn", 3)
    page.locator("#sheet").press("Enter")
    until(page, "document.getElementById('draws').hasAttribute('aria-label')")
    assert page.locator("#parts").is_hidden()


def test_draws_of_a_model_are_those_of_its_hidden_neurons(open_page, gallery_models):
    engine = load_engine(gallery_models / "hidden-sbn.onnx")
    page = open_page("/?model=hidden-sbn&seed=3&image=7")
    until(page, "document.getElementById('draws').hasAttribute('aria-label')")
    own, others = engine.noise.draw(3, 7, 1), engine.noise.draw(3, 8, 12)
    images, _ = engine.infer(own.latents.repeat(12, 0), None, None, others.inner)
    np.testing.assert_array_equal(is_on(page, "draws")[10:18, 1:10], images[6, 0])


def test_images_are_taken_as_files_and_by_the_lines_that_are_shown(open_page, client, tmp_path):
    page = open_page("/?model=sbn&seed=3&image=7")
    page.get_by_label("From here on").fill("40")
    expected = stream(client, "sbn", 3, 7, 40)
    with page.expect_download() as download:
        page.get_by_role("button", name=".npz").click()
    assert download.value.suggested_filename == "sbn-seed-3-7-46.npz"
    with np.load(download.value.path()) as file:
        np.testing.assert_array_equal(np.unpackbits(file["packed_images"], axis=1, count=135), expected)
        assert str(file["description"]) == npz_description((3, 5, 9), has_classes=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    with Image.open(download.value.path()) as image:
        assert image.size == (7 * 11 + 2, 6 * 7 + 2)
    found = {}
    exec(page.locator("#python").inner_text(), found)  # the line that people copy
    np.testing.assert_array_equal(found["images"].reshape(40, -1), expected)
    command = shlex.split(page.locator("#curl").inner_text())
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "images.png").read_bytes() == download.value.path().read_bytes()


def test_the_page_computes_the_bits_of_the_server_itself(runtime, open_page, client):
    page = open_page("/?model=integers&seed=3")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    settled(page)
    assert not [url for url in asked if "onnxruntime" in url]  # which is loaded only on use
    page.get_by_label("Compute here").check()
    page.get_by_text("are the server's, bit for bit").wait_for()
    digests = page.locator("#computed").evaluate("(element) => ({...element.dataset})")
    assert digests["digest"] == digests["expected"]
    assert digests["differing"] == "0"
    assert [url for url in asked if url.endswith(".wasm")]
    check_sheet(page, client, "integers", 3)
    page.wait_for_url("**compute=here")
    for model in ("sbn", "mlp-sbn"):  # of floats
        page.get_by_label("Model").select_option(model)
        page.get_by_text(re.compile("bit for bit|of floats may")).wait_for()
        settled(page)
    before = len(asked)
    page.get_by_label("Go to image").fill("50000")
    page.get_by_label("Go to image").press("Enter")
    check_sheet(page, client, "mlp-sbn", 3)
    assert [url for url in asked[before:] if "/v1/" in url] == []
    page.locator("#sheet").press("Enter")
    page.get_by_label("From here on").fill("300")  # several inferences
    with page.expect_download() as download:
        page.get_by_role("button", name=".npz").click()
    with np.load(download.value.path()) as file:
        assert {name: file[name].tolist() for name in ("image_shape", "seed", "first_index", "model")} == {
            "image_shape": [1, 28, 28],
            "seed": 3,
            "first_index": 50000,
            "model": "mlp-sbn",
        }
        bits = np.unpackbits(file["packed_images"], axis=1, count=784)
        np.testing.assert_array_equal(bits, stream(client, "mlp-sbn", 3, 50000, 300))
        assert str(file["description"]) == npz_description((1, 28, 28), has_classes=False)


@pytest.mark.long
def test_images_larger_than_their_place_and_few_at_once(new_page, tmp_path):
    write_model(tmp_path, "big", shape=(1, 200, 300), latent_size=10)
    with server(tmp_path, "--http-port", 0, "--max-image-count", 10) as process:
        page = new_page(process.http, width=360, height=640)
        page.goto("/?index=100&image=101")
        settled(page)
        shown_now = page.locator("#sheet canvas").evaluate("(canvas) => ({...canvas.dataset})")
        assert int(shown_now["columns"]) == 5
        assert float(shown_now["scale"]) < 1
        page.locator("#image[aria-label]").wait_for()
        assert picture(page, "image").shape == (200, 300, 3)


@pytest.mark.long
def test_a_page_of_another_machine_without_tls_has_no_digests_and_compares_all_the_same(
    runtime, new_page, gallery, client
):
    address = gallery.http.replace("127.0.0.1", "gallery.test")  # of 127.0.0.1 browsers think better
    page = new_page(address)
    page.goto("/?model=integers&seed=3&compute=here")
    page.get_by_text("images 0 to 1023 of seed 3 are the server's, bit for bit").wait_for()
    assert not page.evaluate("isSecureContext")
    check_sheet(page, client, "integers", 3)
    page.locator("#sheet").press("Enter")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("The address bar has the link.").wait_for()


def test_models_of_several_pages_are_all_there(open_page, client):
    page, asked = open_page("about:blank"), []

    def one_a_page(route):
        asked.append(route.request.url)
        route.continue_(url=f"{route.request.url}{'&' if '?' in route.request.url else '?'}page_size=1")

    page.route(re.compile(r"/v1/models(\?.*)?$"), one_a_page)
    page.goto("/")
    settled(page)
    names = page.get_by_label("Model").locator("option").all_inner_texts()
    assert sorted(names) == sorted(info.name for info in client.list_models().models)
    assert len(set(asked)) == len(names) > 1


def test_without_what_computes_the_server_goes_on_showing(open_page, client):
    page = open_page("about:blank")
    page.route("**/onnxruntime-web/*", lambda route: route.abort())
    page.goto("/?model=mlp-dbn&seed=5")
    settled(page)
    page.get_by_label("Compute here").check()
    page.get_by_text("onnxruntime-web is not here; `make browser` fetches it").wait_for()
    assert not page.get_by_label("Compute here").is_checked()
    check_sheet(page, client, "mlp-dbn", 5)


@pytest.mark.long
def test_a_server_that_stops_and_comes_back(new_page, gallery_models):
    port = free_port()
    with restarting_server(gallery_models, "--http-port", port) as process:
        page = new_page(f"http://127.0.0.1:{port}")
        page.goto("/?model=mlp-dbn&seed=5")
        settled(page)
        process.stop()
        page.get_by_label("Go to image").fill("70000")
        page.get_by_label("Go to image").press("Enter")
        page.get_by_text("The server does not answer. Trying again.").wait_for()
        process.start()
        settled(page)
        until(page, "document.getElementById('status').textContent === ''")
        with SamplingClient(process.target) as client:
            assert check_sheet(page, client, "mlp-dbn", 5) > 69_900


@pytest.mark.long
def test_a_model_that_is_replaced_or_gone_is_followed(new_page, tmp_path):
    target = tmp_path / "x.onnx"
    target.write_bytes((FOLDER / "classes" / "sbn.onnx").read_bytes())
    options = ("--http-port", 0, "--model-poll-seconds", 0.1, "--model-keep-seconds", 0)
    with server(tmp_path, *options) as process, SamplingClient(process.target) as client:

        def serves(*names):
            while [(each.name, *each.classes[:1]) for each in client.list_models()] != [*names]:
                page.wait_for_timeout(100)
            page.get_by_label("Go to image").fill(f"{70000 + page.evaluate('Date.now() % 10000')}")
            page.get_by_label("Go to image").press("Enter")

        page = new_page(process.http)
        page.goto("/?seed=5")
        settled(page)
        page.get_by_label("Class").select_option(index=1)
        settled(page)
        target.write_bytes((FOLDER / "other" / "sbn.onnx").read_bytes())  # without classes
        serves(("sbn",))
        page.get_by_text("The model has changed: these are images of its new revision.").wait_for()
        check_sheet(page, client, "sbn", 5)
        target.unlink()
        serves()
        page.get_by_text("The server has no models. Trying again.").wait_for()
        target.write_bytes((FOLDER / "models" / "mlp-dbn.onnx").read_bytes())
        page.get_by_text("There is no model sbn any more; this is mlp-dbn.").wait_for()
        check_sheet(page, client, "mlp-dbn", 5)
        assert page.locator("#status").inner_text() == ""


@pytest.mark.long
def test_a_token_is_asked_for_and_kept_out_of_the_address(new_page, gallery_models, tmp_path):
    tokens = tmp_path / "tokens.toml"
    token = make_token(tokens, "someone", models=["mlp-*"], images_per_minute=None, expires=None)
    with (
        server(gallery_models, "--http-port", 0, "--tokens", tokens) as process,
        SamplingClient(process.target, token=token) as client,
    ):
        page = new_page(process.http)
        page.goto("/?seed=5")
        asks = page.get_by_text("This server asks for a token.")
        asks.wait_for()
        page.evaluate("document.getElementById('token-text').textContent = ''")
        page.keyboard.press("Escape")
        asks.wait_for()  # no token is no wrong one
        for wrong in ("bgan_wrong_00", token):
            page.get_by_role("textbox", name="Token").fill(wrong)
            page.get_by_role("button", name="Use it").click()
            if wrong != token:
                page.get_by_text("This token does not open it").wait_for()
        check_sheet(page, client, "mlp-dbn", 5)
        assert page.locator("#model option").all_inner_texts() == ["mlp-dbn", "mlp-sbn"]
        page.locator("#sheet").press("Enter")
        page.wait_for_url("**image=0**")
        assert token not in page.content()
        assert token not in page.url
        with page.expect_download() as download:
            page.get_by_role("button", name=".npz").click()
        with np.load(io.BytesIO(download.value.path().read_bytes())) as file:
            assert len(file["packed_images"]) == 64
        page.reload()
        check_sheet(page, client, "mlp-dbn", 5)


def test_all_is_done_by_keyboard_and_said_in_words(open_page):
    page = open_page("/?model=sbn&seed=5")
    settled(page)
    sheet = page.get_by_role("application", name="Images of sbn, seed 5")
    sheet.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    columns = int(page.locator("#sheet canvas").get_attribute("data-columns"))
    words = page.locator("#spoken").inner_text()
    assert re.fullmatch(rf"Image {columns}, \d+ pixels on", words)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == f"Image {columns}"
    page.get_by_role("img", name=re.compile(r"The image, \d+ of 135 pixels on")).wait_for()
    page.get_by_role("button", name="Next image").press("Enter")
    page.get_by_role("heading", name=f"Image {columns + 1}").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#panel").is_hidden()
    assert page.evaluate("document.activeElement.id") == "sheet"
    page.keyboard.press("End")
    page.wait_for_url("**index=92233720368547*")
    page.locator("#spoken", has_text=re.compile(rf"^Image {INDEX_END - 1}, \d+ pixels on$")).wait_for(
        state="attached"
    )
    page.keyboard.press("Home")
    page.wait_for_url(re.compile(r"^((?!index=).)*$"))
    names = "[...document.querySelectorAll('button, input, select')].filter((each) => !each.labels?.length "
    names += "&& !each.ariaLabel && !each.textContent.trim()).map((each) => each.id)"
    assert page.evaluate(names) == []


def test_a_phone_in_the_dark_shows_all_of_it(open_page, client):
    page = open_page("/?model=mlp-dbn&seed=5", width=360, height=740, color_scheme="dark", has_touch=True)
    first, images = shown(page)
    assert first == 0
    np.testing.assert_array_equal(images, stream(client, "mlp-dbn", 5, 0, len(images)))
    page.locator("#sheet canvas").tap(position={"x": 100, "y": 100})
    page.get_by_role("heading", name=re.compile("Image")).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#panel").bounding_box()["width"] == 360
    page.locator("#target").fill("x")
    page.locator("#target").press("Enter")
    page.get_by_text("x is no whole number").wait_for()
    top = "(id) => { const { x, y } = document.querySelector(id).getBoundingClientRect(); "
    top += "return document.elementFromPoint(x + 1, y + 1).closest(id) !== null; }"
    assert page.evaluate(top, "#notice")  # the panel does not lie on what is said
    assert page.evaluate(top, "footer")
    page.get_by_role("button", name="Close").tap()
    assert page.locator("#panel").is_hidden()


def test_what_is_no_number_is_marked(open_page):
    page = open_page("/?model=nope&seed=x&index=-1&image=9223372036854775808")
    page.get_by_text("There is no model nope; this is mlp-dbn.").wait_for()
    settled(page)
    assert page.locator("#seed").input_value() == "1"
    page.get_by_label("Seed", exact=True).fill("-3")
    page.get_by_label("Seed", exact=True).press("Tab")
    page.get_by_text(f"-3 is no whole number from 0 to {2**63 - 1}").wait_for()
    assert page.locator("#seed").get_attribute("aria-invalid") == "true"


ABANDONED = """async () => {
  const { Computer, Server } = await import("/source.js");
  const server = new Server({ waiting() {}, token() {} });
  const computer = new Computer(server);
  const [model] = await server.models();
  const ask = (first, signal) => computer.bits(model, { seed: 1n, first, count: 128, labels: [] }, signal);
  const stop = new AbortController();
  const asked = Array.from({ length: 40 }, (_, i) => ask(BigInt(128 * i), stop.signal).catch(({ name }) => name));
  await asked[0];
  stop.abort();
  await ask(0n);
  return [computer.images, await asked[39]];
}"""


def test_what_is_scrolled_past_is_not_computed(runtime, open_page):
    page = open_page("/")
    settled(page)
    images, last = page.evaluate(ABANDONED)
    assert images <= 3 * 128
    assert last == "AbortError"


def test_what_a_browser_refuses_is_said(open_page):
    page = open_page("/?model=mlp-dbn&seed=5&image=0")
    settled(page)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("The address bar has the link.").wait_for()
    large = "{ shape: [1, 70000, 1], bytes: 8750 }"  # pixels high, where a canvas has at most 65,535
    picture = (
        f"import('/pictures.js').then((it) => it.png(new Uint8Array(8750), 1, {large})).catch((e) => e.message)"
    )
    assert page.evaluate(picture) == "This is more than one picture holds here; take fewer images, or .npz"
