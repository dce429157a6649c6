"""The Node.js example against a real server: the Python client's images, from the .proto files alone."""

import asyncio
import math
import re
import shutil
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from bgan.clients import SamplingClient
from tests.conftest import ROOT
from tests.fixtures.write import write_model
from tests.kit.servers import free_port, server

GAP = 2  # pixels around each image of the picture
UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|ENOTCACHED)\b")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example in a tree of its own that has nothing else of bgan but the .proto files."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "clients" / "node", root / "clients" / "node", ignore=lambda *_: {"node_modules"})
    (root / "proto" / "bgan" / "v1").mkdir(parents=True)
    for proto in (ROOT / "proto" / "bgan" / "v1").glob("*.proto"):
        shutil.copy(proto, root / "proto" / "bgan" / "v1")
    folder = root / "clients" / "node"
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False
    )
    if found := UNREACHABLE.search(install.stderr):
        pytest.skip(f"the npm registry cannot be reached ({found[0]})")
    assert install.returncode == 0, install.stderr
    assert not (folder / "package-lock.json").exists()
    return folder / "sample.mjs"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "digits")
    write_model(folder, "pairs", network="cnn", stochastic=True, shape=(2, 9, 13), latent_size=10)
    return folder


@pytest.fixture(scope="module")
def running(models):
    with server(models) as process:
        yield process


def _sample(example, *arguments):
    result = subprocess.run(
        ["node", str(example), *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    return result.returncode, result.stdout, result.stderr


def _images(path, count, shape):
    """The images in a picture, uint8 [count, channels, height, width]; black is on."""
    picture = 1 - np.asarray(Image.open(path), np.uint8)
    channels, height, width = shape
    columns = math.ceil(math.sqrt(count))
    images = np.zeros((count, *shape), np.uint8)
    for image, (row, column) in enumerate(divmod(index, columns) for index in range(count)):
        top, left = GAP + row * (height + GAP), GAP + column * (channels * width + GAP)
        for channel in range(channels):
            x = left + channel * width
            images[image, channel] = picture[top : top + height, x : x + width]
    assert picture.sum() == images.sum()  # nothing is on between the images
    return images


def _expected(target, **request):
    with SamplingClient(target) as client:
        return np.concatenate([batch.images for batch in client.sample_binary_images(**request)])


@pytest.mark.parametrize(
    ("model", "shape", "count", "seed", "first_index"),
    [
        ("digits", (1, 28, 28), 64, 1, 0),
        ("digits", (1, 28, 28), 3000, 0, 7),
        ("pairs", (2, 9, 13), 11, 2**63 - 1, 2**53 + 1),
        ("pairs", (2, 9, 13), 1, 2**53 + 1, 2**63 - 2),
    ],
)
def test_the_images_are_those_of_the_python_client(
    example, running, tmp_path, model, shape, count, seed, first_index
):
    picture = tmp_path / "images.pbm"
    code, stdout, stderr = _sample(
        example,
        *("--server", running.target, "--model", model, "--count", count),
        *("--seed", seed, "--first-index", first_index, picture),
    )
    assert (code, stderr) == (0, "")
    assert stdout == f"{picture}: {count} images of {model}, seed {seed}, from index {first_index}\n"
    expected = _expected(
        running.target, model=model, image_count=count, seed=seed, first_index=first_index, batch_size=100
    )
    np.testing.assert_array_equal(_images(picture, count, shape), expected)
    assert list(tmp_path.iterdir()) == [picture]


def test_the_seed_that_the_server_drew_is_printed(example, running, tmp_path):
    code, stdout, _ = _sample(example, "--server", running.target, "--count", 5, tmp_path / "a.pbm")
    assert code == 0
    seed = int(re.search(r"5 images of digits, seed (\d+), from index 0", stdout)[1])
    expected = _expected(running.target, image_count=5, seed=seed)
    np.testing.assert_array_equal(_images(tmp_path / "a.pbm", 5, (1, 28, 28)), expected)


def test_a_server_that_is_not_there_is_given_up_after_some_tries(example, tmp_path):
    code, stdout, stderr = _sample(example, "--server", f"localhost:{free_port()}", tmp_path / "a.pbm")
    assert (code, stdout) == (1, "")
    *tries, last = stderr.splitlines()
    assert len(tries) == 4
    assert all("; trying again from image 0" in line for line in tries)
    assert last.startswith("sample: UNAVAILABLE: ")
    assert list(tmp_path.iterdir()) == []


async def _forward(reader, writer, limit):
    """Pass on what comes, and hang up at its end or after so many bytes."""
    with suppress(ConnectionError):
        while limit > 0 and (data := await reader.read(16384)):
            writer.write(data)
            await writer.drain()
            limit -= len(data)
    writer.close()


@pytest.mark.parametrize("seed", [[], ["--seed", "0"]])
async def test_a_stream_that_breaks_resumes(example, running, tmp_path, seed):
    limits = iter([300_000])  # bytes of the first connection; the next one holds

    async def connect(reader, writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", running.port)
        await asyncio.gather(
            _forward(reader, server_writer, math.inf), _forward(server_reader, writer, next(limits, math.inf))
        )

    picture = tmp_path / "a.pbm"
    async with await asyncio.start_server(connect, "127.0.0.1", 0) as proxy:
        target = f"localhost:{proxy.sockets[0].getsockname()[1]}"
        code, stdout, stderr = await asyncio.to_thread(
            _sample, example, "--server", target, "--count", 10_000, *seed, picture
        )
    assert code == 0, stderr
    (next_index,) = map(int, re.findall(r"UNAVAILABLE.*; trying again from image (\d+)", stderr))
    assert 0 < next_index < 10_000
    expected = _expected(running.target, image_count=10_000, seed=int(re.search(r"seed (\d+)", stdout)[1]))
    np.testing.assert_array_equal(_images(picture, 10_000, (1, 28, 28)), expected)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "sample: name one FILE.pbm; see --help"),
        (["a.png"], 2, "sample: name one FILE.pbm; see --help"),
        (["--count", "0", "a.pbm"], 2, "sample: --count is 0; use 1 to 10000; see --help"),
        (["--seed", str(2**63), "a.pbm"], 2, f"sample: --seed is {2**63}; use 0 to {2**63 - 1}; see --help"),
        (["--seed=-1", "a.pbm"], 2, "sample: --seed is -1; use 0 to"),
        (["--nope", "a.pbm"], 2, "sample: Unknown option '--nope'"),
        (["--model", "nope", "a.pbm"], 1, "sample: NOT_FOUND: there is no model 'nope'; there are digits, pairs"),
        (["--first-index", str(2**63 - 1), "a.pbm"], 1, "sample: INVALID_ARGUMENT: first_index: first_index + "),
        (["no-such-folder/a.pbm"], 1, "sample: ENOENT: no such file or directory"),
    ],
)
def test_an_error_is_one_line(example, running, tmp_path, arguments, code, text):
    if arguments:
        arguments = [*arguments[:-1], tmp_path / arguments[-1]]
    found, stdout, stderr = _sample(example, "--server", running.target, *arguments)
    assert (found, stdout) == (code, "")
    assert stderr.startswith(text)
    assert stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option(example):
    code, stdout, stderr = _sample(example, "--help")
    assert (code, stderr) == (0, "")
    for option in ("--server", "--model", "--count", "--seed", "--first-index", "FILE.pbm"):
        assert option in stdout
