"""Images over HTTP: the same bits as over gRPC, in every format and every part."""

import io
import json

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bgan.serving.models.engine import load_engine
from bgan.serving.models.npy import npz_description
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.conftest import FOLDER

MODELS = {"mlp-dbn": "models", "cnn-sbn": "models", "sbn": "classes"}


@pytest.fixture(scope="module")
def engines():
    return {name: load_engine(FOLDER / folder / f"{name}.onnx") for name, folder in MODELS.items()}


def _images(engine, seed, first_index, count, **labels):
    """uint8 [n, channels, height, width]."""
    batch = engine.sample(seed, first_index, count, **labels)
    bits = np.frombuffer(batch.packed_images, np.uint8).reshape(count, -1)
    pixels = int(np.prod(engine.image_shape))
    return np.unpackbits(bits, axis=1, count=pixels).reshape(-1, *engine.image_shape)


def _get(http, path, status=200, **headers):
    response = http.get(path, headers=headers)
    assert response.status_code == status, response.text
    return response


@pytest.mark.parametrize("count", [1, 3, 16, 17, 700])
def test_bits_are_those_of_grpc(web, http, count):
    with grpc.insecure_channel(web.target) as channel:
        request = sampling_pb2.SampleBinaryImagesRequest(seed=4, first_index=9, image_count=count)
        answers = list(sampling_pb2_grpc.SamplingServiceStub(channel).SampleBinaryImages(request))
    response = _get(http, f"/v1/models/mlp-dbn/images?seed=4&first_index=9&count={count}&format=bits")
    assert response.content == b"".join(each.packed_images for each in answers)
    headers = response.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-length"] == str(98 * count)
    assert "content-encoding" not in headers
    assert (headers["bgan-model"], headers["bgan-revision"]) == (answers[0].model, answers[0].revision)
    assert (headers["bgan-seed"], headers["bgan-first-index"], headers["bgan-image-count"]) == (
        "4",
        "9",
        str(count),
    )
    assert headers["bgan-image-shape"] == "1,28,28"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [1, 40, 300])
def test_every_format_holds_the_images(http, engines, model, count):
    expected = _images(engines[model], 2, 5, count)
    address = f"/v1/models/{model}/images?seed=2&first_index=5&count={count}&format="
    npy = np.load(io.BytesIO(_get(http, address + "npy").content))
    assert npy.dtype == np.uint8
    np.testing.assert_array_equal(npy, expected)
    with np.load(io.BytesIO(_get(http, address + "npz").content)) as npz:
        shape = tuple(npz["image_shape"])
        pixels = int(np.prod(shape))
        unpacked = np.unpackbits(npz["packed_images"], axis=1, count=pixels).reshape(-1, *shape)
        np.testing.assert_array_equal(unpacked, expected)
        assert (npz["seed"], npz["first_index"]) == (2, 5)
        assert (npz["model"], npz["revision"]) == (model, engines[model].revision)
        labels = engines[model].sample(2, 5, count).labels
        assert ("labels" in npz) == (model == "sbn")
        assert str(npz["description"]) == npz_description(shape, has_classes=model == "sbn")
        if model == "sbn":
            assert tuple(npz["labels"]) == labels
            assert list(npz["classes"]) == list(engines[model].manifest.classes)
    found = _get(http, address + "json").json()
    assert (found["model"], found["seed"], found["first_index"], found["image_count"]) == (
        model,
        "2",
        "5",
        str(count),
    )
    np.testing.assert_array_equal([each["pixels"] for each in found["images"]], expected)
    assert [int(each["index"]) for each in found["images"]] == list(range(5, 5 + count))
    assert tuple(each["label"] for each in found["images"] if "label" in each) == labels


def _tiles(picture, engine, count):
    """The images of a grid, by their places in it."""
    channels, height, width = engine.image_shape
    width *= 1 if channels == 3 else channels
    columns = min(int(np.ceil(np.sqrt(count))), 100)
    for number in range(count):
        row, column = divmod(number, columns)
        top, left = 2 + row * (height + 2), 2 + column * (width + 2)
        yield picture[top : top + height, left : left + width]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [2, 40, 300])
def test_a_picture_is_a_grid(http, engines, model, count):
    response = _get(http, f"/v1/models/{model}/images?seed=2&count={count}", accept="image/*")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["vary"] == "Accept"
    with Image.open(io.BytesIO(response.content)) as image:
        picture = np.asarray(image.convert("RGB"))
    gaps = np.ones(picture.shape[:2], bool)
    for tile, gap, expected in zip(
        _tiles(picture, engines[model], count),
        _tiles(gaps, engines[model], count),
        _images(engines[model], 2, 0, count),
        strict=True,
    ):
        if len(expected) == 3:
            wanted = expected.transpose(1, 2, 0)
        else:
            wanted = np.hstack(list(expected))[:, :, None].repeat(3, axis=2)
        np.testing.assert_array_equal(tile, wanted * 255)
        gap[:] = False
    assert (picture[gaps] == 90).all()
    assert gaps[:2].all()
    assert gaps[-2:].all()
    assert gaps[:, :2].all()
    assert gaps[:, -2:].all()


def test_a_picture_of_one_image_is_that_image(http, engines):
    with Image.open(io.BytesIO(_get(http, "/v1/models/mlp-dbn/images?seed=2&count=1").content)) as image:
        np.testing.assert_array_equal(
            np.asarray(image.convert("L")), _images(engines["mlp-dbn"], 2, 0, 1)[0, 0] * 255
        )


def test_labels_by_name_and_by_number(http, engines):
    engine = engines["sbn"]
    names = list(engine.manifest.classes)
    bits = "/v1/models/sbn/images?seed=1&count=20&first_index=3&format=bits"
    expected = engine.sample(1, 3, 20, labels=(1, 0)).packed_images
    assert _get(http, f"{bits}&label={names[1]}&label={names[0]}").content == expected
    problem = _get(http, f"{bits}&label=fox", 400).json()
    assert problem["errors"] == [
        {"field": "label", "detail": "is 'fox'; the classes of sbn are cat, dog, 3, mouse, owl"}
    ]


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", ["bits", "npy"])
def test_any_range_is_that_part_of_the_whole(http, form, data):
    count = data.draw(st.integers(1, 40))
    address = f"/v1/models/mlp-dbn/images?seed=3&first_index=7&count={count}&format={form}"
    whole = _get(http, address)
    total = len(whole.content)
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start, total + 5))
    part = _get(http, address, 206, range=f"bytes={start}-{stop}")
    assert part.content == whole.content[start : stop + 1]
    assert part.headers["content-range"] == f"bytes {start}-{min(stop, total - 1)}/{total}"
    assert part.headers["content-length"] == str(len(part.content))
    assert part.headers["etag"] == whole.headers["etag"]
    assert _get(http, address, 206, range=f"bytes={start}-").content == whole.content[start:]
    assert _get(http, address, 206, range=f"bytes=-{total - start}").content == whole.content[start:]


def test_a_range_ends_where_the_bytes_do(http):
    address = "/v1/models/mlp-dbn/images?seed=3&count=2&format=bits"
    refused = _get(http, address, 416, range="bytes=196-")
    assert refused.headers["content-range"] == "bytes */196"
    assert refused.json()["errors"] == [{"field": "range", "detail": "begins after the last of 196 bytes"}]
    whole = _get(http, address).content
    for ignored in ("bytes=5-3", "bytes=-", "bytes=0-1,5-6", "images=0-1", "bytes=a-b", f"bytes={'9' * 40}-"):
        assert _get(http, address, range=ignored).content == whole
    tag = _get(http, address).headers["etag"]
    assert _get(http, address, 206, **{"range": "bytes=0-0", "if-range": tag}).content == whole[:1]
    assert _get(http, address, **{"range": "bytes=0-0", "if-range": '"other"'}).content == whole


def test_a_seed_that_was_drawn_is_said_and_gives_the_images_again(http):
    drawn = _get(http, "/v1/models/mlp-dbn/images?count=3&format=bits", range="bytes=0-1")
    assert "etag" not in drawn.headers
    assert drawn.headers["cache-control"] == "no-store, no-transform"
    seed = drawn.headers["bgan-seed"]
    again = _get(http, f"/v1/models/mlp-dbn/images?count=3&format=bits&seed={seed}")
    assert again.content == drawn.content
    assert again.headers["cache-control"] == "no-cache, no-transform"


def test_a_revisions_images_may_be_kept_for_ever(http, engines):
    revision = engines["mlp-dbn"].revision
    address = f"/v1/revisions/{revision}/images?seed=1&count=3&format=bits"
    answer = _get(http, address)
    assert answer.content == engines["mlp-dbn"].sample(1, 0, 3).packed_images
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable, no-transform"
    tag = answer.headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        unchanged = _get(http, address, 304, **{"if-none-match": known})
        assert unchanged.content == b""
        assert unchanged.headers["etag"] == tag
        assert "content-length" not in unchanged.headers
    assert _get(http, address, **{"if-none-match": '"x"'}).content == answer.content
    missing = _get(http, f"/v1/revisions/{revision}/images", 400).json()
    assert missing["errors"][0]["field"] == "seed"
    assert (
        "no model is served in the revision" in _get(http, "/v1/revisions/0/images?seed=1", 404).json()["detail"]
    )


def test_tags_are_equal_only_where_bytes_are(http, engines):
    revision = engines["mlp-dbn"].revision
    base = {"seed": 1, "count": 3, "format": "bits", "first_index": 0}
    others = [{}, {"seed": 2}, {"count": 4}, {"format": "npy"}, {"format": "png"}, {"first_index": 1}]
    addresses = [f"/v1/revisions/{revision}/images?{_query(base | other)}" for other in others]
    tags = [http.head(address).headers["etag"] for address in addresses]
    assert len(set(tags)) == len(tags)
    assert http.head(f"/v1/models/mlp-dbn/images?{_query(base)}").headers["etag"] == tags[0]


def _query(fields):
    return "&".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize("form", ["bits", "npy", "png", "npz", "json"])
def test_head_says_what_get_does_and_computes_nothing(http, form):
    address = f"/v1/models/mlp-dbn/images?seed=1&count=100000&format={form}"
    before = _counted(http)
    head = http.head(address)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers.get("content-length") == {"bits": "9800000", "npy": "78400128"}.get(form)
    assert head.headers["bgan-image-count"] == "100000"
    assert _counted(http) == before
    assert http.head(f"/v1/models/mlp-dbn/images?count=0&format={form}").status_code == 400
    assert http.head(address, headers={"range": "bytes=0-9"}).status_code == 200  # a range is for GET


def _counted(http):
    """Images that the server has sent."""
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("bgan_images_total"))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("application/json;q=0.5, application/octet-stream", "application/octet-stream"),
        ("text/html, image/*;q=0.2, */*;q=0.1", "image/png"),
        ("image/*;q=0, */*;q=0.5", "application/x-npz"),
        ("application/x-npy;q=1.0, */*;q=0.9", "application/x-npy"),
    ],
)
def test_accept_decides_where_the_format_does_not(http, accept, kind):
    headers = {"accept": accept or ""}
    assert http.head("/v1/models/mlp-dbn/images?seed=1", headers=headers).headers["content-type"] == kind
    fixed = http.head("/v1/models/mlp-dbn/images?seed=1&format=bits", headers=headers).headers
    assert fixed["content-type"] == "application/octet-stream"
    assert "vary" not in fixed


def test_a_header_of_several_lines_is_one_list(http):
    address = "/v1/models/mlp-dbn/images?seed=1"
    lines = [("accept", "text/html"), ("accept", "application/json;q=0.5"), ("accept", "application/x-npy")]
    answer = http.head(address, headers=lines)
    assert answer.headers["content-type"] == "application/x-npy"
    lines += [("if-none-match", '"other"'), ("if-none-match", answer.headers["etag"])]
    assert http.get(address, headers=lines).status_code == 304


def test_who_takes_none_of_the_formats_is_told_which_there_are(http):
    problem = _get(http, "/v1/models/mlp-dbn/images?seed=1", 406, accept="text/html").json()
    assert problem["errors"][0]["field"] == "accept"
    assert "image/png, application/x-npz" in problem["detail"]


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("count=0", "count", "is 0; ask for 1 to 1000000 images"),
        ("count=1000001", "count", "is 1000001; ask for 1 to 1000000 images"),
        ("count=-1", "count", "is -1"),
        ("count=9999999999999999999999", "count", "is '9999999999999999999999'; it is a whole number, below 2^63"),
        ("seed=-1", "seed", "is -1; use 0 to 2^63 - 1"),
        ("seed=1e3", "seed", "is '1e3'; it is a whole number"),
        ("seed=", "seed", "is ''; it is a whole number"),
        ("seed=1&seed=2", "seed", "is there 2 times; send it once"),
        ("first_index=-1", "first_index", "is -1; it must be at least 0"),
        ("first_index=9223372036854775807", "first_index", "exceeds 2^63 - 1"),
        ("format=gif", "format", "is 'gif'; use one of png, npz, npy, bits, json"),
        ("label=3", "label", "mlp-dbn is not class-conditional; leave it out"),
        ("token=abc", "token", "is no field of this address; it has seed, first_index, count"),
        ("seed=%00%0a", "seed", "is '\\x00\\n'; it is"),
    ],
)
def test_a_bad_field_is_named_on_one_line(http, query, field, says):
    response = _get(http, f"/v1/models/mlp-dbn/images?{query}", 400)
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.content)
    assert (problem["status"], problem["title"], problem["code"]) == (400, "Bad Request", "INVALID_ARGUMENT")
    assert (problem["domain"], problem["reason"]) == ("bgan", "INVALID_REQUEST")
    assert [each["field"] for each in problem["errors"]] == [field]
    assert says in problem["errors"][0]["detail"]
    assert problem["detail"] == f"{field}: {problem['errors'][0]['detail']}"
    assert "\n" not in problem["detail"]


def test_a_revision_has_no_version(http, engines):
    problem = _get(http, f"/v1/revisions/{engines['mlp-dbn'].revision}/images?seed=1&version=7", 400).json()
    assert problem["detail"] == (
        "version: is no field of this address; it has seed, first_index, count, label, format"
    )


def test_an_unknown_model_or_version_is_not_found(http):
    assert (
        "there is no model 'nope'; there are cnn-sbn" in _get(http, "/v1/models/nope/images", 404).json()["detail"]
    )
    problem = _get(http, "/v1/models/mlp-dbn/images?version=7", 404).json()
    assert problem["detail"] == "model 'mlp-dbn' has no version 7; there is one without a number"
    assert _get(http, "/v1/models/..%2f..%2fetc%2fpasswd/images", 404).json()["status"] == 404
    assert _get(http, "/v1/models/%ff%00/images", 404).json()["status"] == 404
