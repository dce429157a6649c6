"""Models with gates, and with binary hidden neurons, served: the laws of streams, and what is told and counted."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bgan.clients import SamplingClient, load_images
from bgan.serving.models.engine import load_engine
from tests.fixtures.write import HIDDEN, PARTS
from tests.kit.cli import bgan
from tests.kit.proxies import breaking_proxy
from tests.kit.servers import server
from tests.reliability.metrics import scrape

NAMES = ("gated-dbn", "gated-sbn", "gated-cnn", "hidden-sbn")
GATED = NAMES[:3]


@pytest.fixture(scope="module")
def running(gated_models):
    options = ("--metrics-port", 0, "--http-port", 0, "--threads", 2)
    with server(gated_models, "--default-model", "gated-sbn", *options) as process:
        yield process


@pytest.fixture(scope="module")
def engines(gated_models):
    return {name: load_engine(gated_models / f"{name}.onnx") for name in NAMES}


@pytest.fixture
def client(running):
    with SamplingClient(running.target) as client:
        yield client


def _packed(client, **request):
    return b"".join(batch.packed_images.tobytes() for batch in client.sample_binary_images(**request))


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_depend_on_no_batch_and_no_first_index(client, engines, name):
    width = engines[name].packed_bytes
    whole = engines[name].sample(5, 100, 700).packed_images
    for batch_size in (1, 7, 100, None):
        assert (
            _packed(client, model=name, seed=5, first_index=100, image_count=700, batch_size=batch_size) == whole
        )
    for first, count in ((100, 1), (101, 3), (350, 16), (799, 1)):
        place = (first - 100) * width
        found = _packed(client, model=name, seed=5, first_index=first, image_count=count)
        assert found == whole[place : place + count * width]


def test_small_calls_of_many_callers_share_runs_and_get_their_own_bits(running, engines):
    def sample(number):
        with SamplingClient(running.target) as client:
            name = NAMES[number % len(NAMES)]
            wanted = [(seed, 3 * seed + number, 1 + seed % 5) for seed in range(20)]
            return name, wanted, [
                _packed(client, model=name, seed=seed, first_index=first, image_count=count)
                for seed, first, count in wanted
            ]  # fmt: skip

    with ThreadPoolExecutor(12) as pool:
        for name, wanted, found in pool.map(sample, range(12)):
            assert found == [engines[name].sample(*each).packed_images for each in wanted]


def test_a_stream_that_breaks_and_one_of_two_servers_are_the_whole(running, gated_models, engines):
    whole = engines["gated-sbn"].sample(9, 50, 20_000).packed_images
    request = {"model": "gated-sbn", "seed": 9, "first_index": 50, "image_count": 20_000}
    cuts = iter([30_000, 60_000, *[None] * 100])
    with breaking_proxy(running.port, cuts) as proxy, SamplingClient(proxy.target) as client:
        assert _packed(client, **request) == whole
    with server(gated_models, "--workers", 2) as other, SamplingClient([running.target, other.target]) as client:
        assert _packed(client, **request) == whole
        assert client.get_model("gated-sbn").revision == engines["gated-sbn"].revision


def test_labels_are_named_as_ever(client, engines):
    found = client.sample(40, model="gated-sbn", seed=3, labels=["owl", "dog"])
    assert found.packed_images.tobytes() == engines["gated-sbn"].sample(3, 0, 40, labels=(4, 1)).packed_images
    assert found.labels.tolist() == [4, 1] * 20


def test_a_model_says_how_many_of_its_parts_run(running, client):
    told = {info.name: (info.part_count, info.mean_active_share) for info in client.list_models()}
    assert told == {**dict.fromkeys(GATED, (PARTS, 0.5)), "hidden-sbn": (0, None)}
    manifest = httpx.get(f"{running.http}/v1/models/gated-cnn").json()["model"]["model"]
    assert manifest["gates"]["active_shares"] == [0.25, 0.5, 0.75]
    assert manifest["inner_uniform_count"] == PARTS
    assert "1.5 of 3" in bgan("models", "--server", running.target).stdout


def _counted(process, model):
    found = scrape(process)
    return int(found["bgan_gated_images_total", model]), [
        int(found["bgan_part_runs_total", model, str(part)]) for part in range(PARTS)
    ]


def test_the_images_and_the_parts_that_ran_for_them_are_counted(running, client, engines):
    assert ("bgan_gated_images_total", "hidden-sbn") not in scrape(running)
    for name in GATED:
        images, runs = _counted(running, name)
        wanted = [(1, 0, 1000), (2, 7, 3), (3, 0, 16), (4, 50, 129)]
        for seed, first, count in wanted:
            _packed(client, model=name, seed=seed, first_index=first, image_count=count)
        noise = engines[name].noise.draw(5, 0, 5)
        with triton.InferenceServerClient(running.target) as other:
            gates = other.infer(name, _inputs(engines[name], noise)).as_numpy("gates")
        expected = [engines[name].sample(*each).part_runs for each in wanted] + [gates.sum(0)]
        now, after = _counted(running, name)
        assert now - images == sum(count for *_, count in wanted) + 5
        assert np.subtract(after, runs).tolist() == np.sum(expected, 0, dtype=int).tolist()


def test_top_shows_the_mean_active_share(running, client, engines):
    stop = threading.Event()

    def read():
        with SamplingClient(running.target) as reader:
            while not stop.is_set():
                reader.sample(500, model="gated-cnn", seed=1)

    reading = threading.Thread(target=read)
    reading.start()
    try:
        url = running.output().split("metrics on http://")[1].split("/")[0]
        result = bgan("top", url, "--once", "--interval", 1)
    finally:
        stop.set()
        reading.join()
    heading = next(line for line in result.stdout.splitlines() if "active" in line).split()
    row = next(line for line in result.stdout.splitlines() if line.startswith("gated-cnn")).split()
    share = sum(engines["gated-cnn"].sample(1, 0, 500).part_runs) / 500 / PARTS
    assert abs(float(row[heading.index("active")].rstrip("%")) / 100 - share) < 0.02
    assert next(line for line in result.stdout.splitlines() if line.startswith("hidden-sbn")).split()[6] == "-"


def _inputs(engine, noise):
    arrays = {"latents": noise.latents, "labels": noise.labels, "inner_uniforms": noise.inner}
    if noise.uniforms is not None:
        arrays["uniforms"] = noise.uniforms.reshape(-1, *engine.image_shape)
    found = []
    for name, array in arrays.items():
        if array is not None:
            found.append(triton.InferInput(name, array.shape, "INT64" if name == "labels" else "FP32"))
            found[-1].set_data_from_numpy(array)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_inference_takes_inner_uniforms_and_gives_gates(running, engines, name):
    engine = engines[name]
    noise = engine.noise.draw(7, 0, 300)
    with triton.InferenceServerClient(running.target) as client:
        metadata = client.get_model_metadata(name)
        inputs = {each.name: (each.datatype, list(each.shape)) for each in metadata.inputs}
        outputs = {each.name: (each.datatype, list(each.shape)) for each in metadata.outputs}
        answer = client.infer(name, _inputs(engine, noise))
    width = {"gated-dbn": None, "hidden-sbn": HIDDEN}.get(name, PARTS)
    assert inputs.get("inner_uniforms") == (None if width is None else ("FP32", [-1, width]))
    assert outputs.get("gates") == (("UINT8", [-1, PARTS]) if name in GATED else None)
    for output, expected in zip(outputs, engine.infer(*noise), strict=True):
        np.testing.assert_array_equal(answer.as_numpy(output), expected)


def test_inner_uniforms_are_checked(running, engines):
    noise = engines["gated-cnn"].noise.draw(7, 0, 2)
    for value, says in ((1.0, "uniforms are at least 0 and below 1"), (np.nan, "has nan as value 3")):
        noise.inner[1, 0] = value
        with triton.InferenceServerClient(running.target) as client:
            with pytest.raises(InferenceServerException, match=says):
                client.infer("gated-cnn", _inputs(engines["gated-cnn"], noise))
            with pytest.raises(
                InferenceServerException, match="the model takes latents and inner_uniforms, each once"
            ):
                client.infer("gated-cnn", _inputs(engines["gated-cnn"], noise._replace(inner=None)))


def test_files_of_images_are_those_of_the_stream(gated_models, engines, tmp_path, processes):
    for name in ("gated-sbn", "hidden-sbn"):
        expected = engines[name].sample(3, 5, 300).packed_images
        options = ("--seed", 3, "--first-index", 5)
        bgan("generate", gated_models / f"{name}.onnx", "-n", 300, *options, "-o", tmp_path / f"{name}.npz")
        assert load_images(tmp_path / f"{name}.npz").packed_images.tobytes() == expected
        bulk = ("--count", 300, "--output", tmp_path / name, "--shard-images", 128, "--format", "bits")
        result = bgan("bulk", gated_models / f"{name}.onnx", *options, *bulk)
        assert result.returncode == 0, result.stderr
        shards = json.loads((tmp_path / name / "manifest.json").read_text())["shards"]
        assert b"".join((tmp_path / name / each["file"]).read_bytes() for each in shards) == expected


def test_a_file_that_breaks_the_law_is_not_served(gated_models, tmp_path):
    model = onnx.load(gated_models / "gated-dbn.onnx")
    squeeze = next(node for node in model.graph.node if node.op_type == "Squeeze")
    del squeeze.input[1]
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    shutil.copy(gated_models / "gated-cnn.onnx", tmp_path)
    with server(tmp_path) as process:
        result = bgan("models", "--server", process.target)
    assert "gated-cnn" in result.stdout
    says = "bad cannot be served: bad.onnx has rows that the noise selects in the operator 'Squeeze', in a place"
    assert says in result.stderr
