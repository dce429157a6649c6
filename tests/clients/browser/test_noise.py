"""The noise layouts in JavaScript, in Node.js: golden vectors, and the server's noise of any seed and index."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pytest

from bgan.serving.models.noise import QUANTILES_SHA256, NoiseLayout
from tests.conftest import ROOT

DRAW = """
import { NoiseLayout, quantiles } from "%s";
import { writeSync } from "node:fs";
const write = (values) => {
  const bytes = new Uint8Array(values.buffer);
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
};
for (const [seed, first, count, layout, labels] of JSON.parse(process.argv[1])) {
  const made = new NoiseLayout(layout);
  const noise = made.draw(BigInt(seed), BigInt(first), count, labels);
  const alone = made.labels(BigInt(seed), BigInt(first), count, labels);
  if (`${alone}` !== `${noise.labels}`) throw new Error(`${alone} are not the labels ${noise.labels}`);
  for (const values of [noise.latents, noise.uniforms, noise.labels, noise.inner]) if (values) write(values);
}
write(quantiles());
"""


@pytest.fixture
def draw(tmp_path):
    """What Node.js draws: all noise of each request, as bytes, and the table."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no Node.js here")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in ("noise.js", "philox.js"):
        shutil.copy(ROOT / "clients" / "browser" / name, tmp_path)
    module = tmp_path / "noise.js"

    def run(*requests):
        command = [node, "--input-type=module", "--eval", DRAW % module.as_uri(), "--", json.dumps(requests)]
        result = subprocess.run(command, check=True, capture_output=True)
        return result.stdout[: -4 * 65536], result.stdout[-4 * 65536 :]

    return run


def test_golden_vectors(draw):
    noise, table = draw(["1", "0", 2, {"latentSize": 128, "uniformCount": 784}, []])
    assert hashlib.sha256(noise).hexdigest() == "c1f5d701d2c86f936f706b42cd0f4487ee56f6316365da9f53295b3582ec4c10"
    assert hashlib.sha256(table).hexdigest() == QUANTILES_SHA256


def test_golden_labels(draw):
    layout = {"latentSize": 128, "uniformCount": 784, "classCount": 10}
    noise, _ = draw(["1", "0", 1000, layout, []])
    labels = np.frombuffer(noise[-4000:], "<i4")
    digest = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
    assert digest == "9a9ef7ed2028b0028e7c56ca5755a78be849504100d650d1516e0f179794b727"


def test_golden_inner_uniforms(draw):
    noise, _ = draw(["1", "0", 2, {"latentSize": 128, "innerCount": 5}, []])
    assert hashlib.sha256(noise).hexdigest() == "30cdf6010bede9fdd9219216c0344296f6597f62401906abd1e2509c19fa13f6"


CASES = [
    # seed, first index, latents, uniforms, classes, class counts, inner uniforms, labels
    (0, 0, 128, 784, 0, (), 0, ()),
    (2**63 - 1, 2**63 - 41, 128, 784, 10, (), 0, ()),  # a counter beyond 2^64
    (2**53 + 1, 2**53 + 1, 3, 5, 4, (3, 0, 5, 1), 0, ()),
    (7, 2**32 - 3, 13, 0, 2, (2**31, 2**31 - 1), 0, ()),
    (9, 5, 16, 3, 964, tuple(range(1, 965)), 0, ()),
    (9, 5, 16, 3, 5, (), 0, (4, 0, 1)),
    (0xFFFFFFFF, 2**62, 1, 1, 1, (), 0, ()),
    (7, 2**32 - 3, 13, 5, 4, (3, 0, 5, 1), 5, ()),
    (7, 2**62, 9, 0, 0, (), 8, ()),
    (7, 1, 9, 6, 3, (), 1, (2, 1)),
]


def test_the_noise_is_the_servers(draw):
    requests, expected = [], b""
    for seed, first, latents, uniforms, classes, counts, inner, labels in CASES:
        layout = NoiseLayout(
            latents, uniform_count=uniforms, class_count=classes, class_counts=counts, inner_count=inner
        )
        noise = layout.draw(seed, first, 40, labels)
        kinds = {"latentSize": latents, "uniformCount": uniforms, "classCount": classes, "classCounts": counts}
        kinds["innerCount"] = inner
        requests.append([str(seed), str(first), 40, kinds, labels])
        expected += noise.latents.tobytes()
        expected += b"" if noise.uniforms is None else noise.uniforms.tobytes()
        expected += b"" if noise.labels is None else noise.labels.astype("<i4").tobytes()
        expected += b"" if noise.inner is None else noise.inner.tobytes()
    assert draw(*requests)[0] == expected


def test_random_words_are_philox_words(draw):
    """Enough of them that all carries but the rarest, one of 2^31, happen."""
    random = np.random.default_rng(1)
    seeds, firsts = random.integers(0, 2**63 - 1, (2, 30)).tolist()
    requests = [
        [str(seed), str(first), 50, {"latentSize": 512}, []] for seed, first in zip(seeds, firsts, strict=True)
    ]
    layout = NoiseLayout(512)
    expected = b"".join(
        layout.draw(seed, first, 50).latents.tobytes() for seed, first in zip(seeds, firsts, strict=True)
    )
    assert draw(*requests)[0] == expected
