"""Noise layouts 1 to 3, against golden vectors and against a second implementation in plain Python."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from bgan.serving.models.noise import QUANTILES_SHA256, ImageRange, NoiseLayout, layout_number, normal_quantiles

MASK = 2**64 - 1
LIMIT = 2**63 - 1


def philox_words(key, counter):
    """The four 64-bit words of one Philox4x64-10 block (Salmon et al. 2011, section 3.3)."""
    c = [(counter >> (64 * i)) & MASK for i in range(4)]
    k = [key & MASK, (key >> 64) & MASK]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def noise_by_hand(seed, index, latent_size, uniform_count):
    """One image's latents and uniforms, word by word."""
    latent_words, uniform_words = -(-latent_size // 4), -(-uniform_count // 2)
    counters = -(-(latent_words + uniform_words) // 4)
    # numpy advances the counter before it makes a block.
    words = [word for i in range(counters) for word in philox_words(seed, index * counters + i + 1)]
    keys = [(words[j // 4] >> (16 * (j % 4))) & 0xFFFF for j in range(latent_size)]
    halves = [(words[latent_words + j // 2] >> (32 * (j % 2))) & 0xFFFFFFFF for j in range(uniform_count)]
    latents = [ndtri((k + 0.5) / 65536).astype(np.float32) for k in keys]
    return np.array(latents), np.array([(half >> 8) * 2.0**-24 for half in halves], np.float32)


@pytest.mark.parametrize(
    ("seed", "index", "latent_size", "uniform_count"),
    [(0, 0, 128, 784), (1, 5, 128, 784), (7, 3, 3, 5), (2**63 - 1, 2**40, 6, 0), (42, 123_456_789, 129, 1)],
)
def test_noise_is_what_the_layout_says(seed, index, latent_size, uniform_count):
    layout = NoiseLayout(latent_size=latent_size, uniform_count=uniform_count)
    latents, uniforms, *_ = layout.draw(seed, index, 1)
    expected_latents, expected_uniforms = noise_by_hand(seed, index, latent_size, uniform_count)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(latents[0], expected_latents)
    if uniform_count:
        assert uniforms.dtype == np.float32
        np.testing.assert_array_equal(uniforms[0], expected_uniforms)
    else:
        assert uniforms is None


def label_by_hand(seed, index, latent_size, uniform_count, class_count):
    """One image's label: the word after its latents and uniforms."""
    place = -(-latent_size // 4) - (-uniform_count // 2)
    counters = -(-(place + 1) // 4)
    word = philox_words(seed, index * counters + place // 4 + 1)[place % 4]
    return ((word & 0xFFFFFFFF) * class_count) >> 32


@pytest.mark.parametrize(("latent_size", "uniform_count"), [(128, 784), (3, 5), (16, 0), (13, 3)])
@pytest.mark.parametrize("class_count", [1, 10, 964])
def test_a_label_is_drawn_as_the_layout_says_and_takes_nothing_from_the_rest(
    latent_size, uniform_count, class_count
):
    layout = NoiseLayout(latent_size=latent_size, uniform_count=uniform_count, class_count=class_count)
    drawn = layout.draw(7, 40, 50)
    assert drawn.labels.dtype == np.int64
    expected = [label_by_hand(7, 40 + i, latent_size, uniform_count, class_count) for i in range(50)]
    assert drawn.labels.tolist() == expected
    named = layout.draw(7, 40, 50, labels=(0, 0, class_count - 1))
    assert named.labels.tolist() == [0 if (40 + i) % 3 < 2 else class_count - 1 for i in range(50)]
    np.testing.assert_array_equal(named.latents, drawn.latents)
    if uniform_count:
        np.testing.assert_array_equal(named.uniforms, drawn.uniforms)


@pytest.mark.parametrize("counts", [(3, 0, 5, 1), (1,), (2**31, 2**31 - 1), (0, 7), tuple(range(1, 965))])
def test_a_label_is_drawn_in_the_shares_of_the_counts(counts):
    layout = NoiseLayout(latent_size=13, uniform_count=3, class_count=len(counts), class_counts=counts)
    drawn = layout.draw(7, 40, 50)
    assert drawn.labels.dtype == np.int64
    images = [label_by_hand(7, 40 + i, 13, 3, sum(counts)) for i in range(50)]
    ends = np.cumsum(counts)
    assert drawn.labels.tolist() == [next(label for label, end in enumerate(ends) if n < end) for n in images]
    assert layout.draw_labels(ImageRange(7, 40, 50)).tolist() == drawn.labels.tolist()
    plain = NoiseLayout(latent_size=13, uniform_count=3, class_count=len(counts)).draw(7, 40, 50)
    np.testing.assert_array_equal(drawn.latents, plain.latents)
    np.testing.assert_array_equal(drawn.uniforms, plain.uniforms)


@pytest.mark.parametrize(
    ("uniform_count", "counts", "inner_count"), [(0, (), 1), (5, (3, 0, 9), 5), (4, (1, 1), 6)]
)
def test_uniforms_of_inner_neurons_follow_all_else(uniform_count, counts, inner_count):
    kinds = {"uniform_count": uniform_count, "class_count": len(counts), "class_counts": counts}
    layout = NoiseLayout(13, **kinds, inner_count=inner_count)
    # Layouts 1 and 2 of as many words: what is before the inner uniforms lies where it does there.
    inner_word = 4 - (-uniform_count // 2) + bool(counts)
    words = inner_word - (-inner_count // 2)
    assert layout.counters_per_image == -(-words // 4)
    drawn = layout.draw(7, 40, 3)
    for row in range(3):
        blocks = [philox_words(7, (40 + row) * layout.counters_per_image + i + 1) for i in range(-(-words // 4))]
        of_image = [word for block in blocks for word in block]
        halves = [half for word in of_image for half in (word & 0xFFFFFFFF, word >> 32)]
        inner = [(half >> 8) * 2.0**-24 for half in halves[2 * inner_word :][:inner_count]]
        np.testing.assert_array_equal(drawn.inner[row], np.array(inner, np.float32))
        keys = [(of_image[j // 4] >> (16 * (j % 4))) & 0xFFFF for j in range(13)]
        np.testing.assert_array_equal(drawn.latents[row], normal_quantiles()[keys])
        if counts:
            image = ((of_image[inner_word - 1] & 0xFFFFFFFF) * sum(counts)) >> 32
            assert drawn.labels[row] == next(i for i, end in enumerate(np.cumsum(counts)) if image < end)
    assert drawn.inner.dtype == np.float32
    assert (drawn.uniforms is None) == (uniform_count == 0)


def test_the_layout_has_the_number_that_revisions_hold():
    numbers = [layout_number(*given) for given in (((),), ((1, 2),), ((), 1), ((1, 2), 5))]
    assert numbers == [1, 2, 3, 3]


def test_shares_are_kept_and_equal_ones_give_the_labels_of_layout_1():
    counts = (500, 300, 199, 1)
    labels = NoiseLayout(4, class_count=4, class_counts=counts).draw(3, 0, 100_000).labels
    assert np.bincount(labels, minlength=4) / 100 == pytest.approx(counts, abs=5)  # 3 standard errors
    even = NoiseLayout(4, class_count=4, class_counts=(1, 1, 1, 1)).draw(3, 0, 1000).labels
    np.testing.assert_array_equal(even, NoiseLayout(4, class_count=4).draw(3, 0, 1000).labels)


def test_classes_are_drawn_alike():
    labels = NoiseLayout(latent_size=4, class_count=10).draw(5, 0, 20_000).labels
    counts = np.bincount(labels, minlength=10)
    assert ((counts - 2000) ** 2 / 2000).sum() < 40  # chi-square of 9 degrees of freedom


def test_golden_vectors():
    latents, uniforms, *_ = NoiseLayout(latent_size=128, uniform_count=784).draw(1, 0, 2)
    assert latents[0, :4].tobytes().hex() == "c97be63c9740d5bda34ab03ec2a003bf"
    assert uniforms[1, -4:].tobytes().hex() == "df8d5e3f2a438b3e74386f3fc8da8d3e"
    digest = hashlib.sha256(latents.tobytes() + uniforms.tobytes()).hexdigest()
    assert digest == "c1f5d701d2c86f936f706b42cd0f4487ee56f6316365da9f53295b3582ec4c10"


def test_golden_labels():
    labels = NoiseLayout(latent_size=128, uniform_count=784, class_count=10).draw(1, 0, 1000).labels
    assert labels[:12].tolist() == [7, 0, 6, 0, 0, 4, 3, 5, 9, 7, 5, 7]
    digest = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
    assert digest == "9a9ef7ed2028b0028e7c56ca5755a78be849504100d650d1516e0f179794b727"
    deterministic = NoiseLayout(latent_size=128, class_count=3).draw(1, 2**40, 12)
    assert deterministic.labels.tolist() == [2, 0, 1, 2, 1, 0, 0, 1, 1, 2, 1, 0]
    digest = hashlib.sha256(deterministic.latents.tobytes()).hexdigest()
    assert digest == "52150c24d973bee37185146bf706852c244545d1540573239771965a5adfbcd6"


def test_golden_inner_uniforms():
    drawn = NoiseLayout(128, inner_count=5).draw(1, 0, 2)
    assert drawn.inner.tobytes().hex().startswith("ccb7913e1714023f14dee63e665df13e596b303f")
    digest = hashlib.sha256(drawn.latents.tobytes() + drawn.inner.tobytes()).hexdigest()
    assert digest == "30cdf6010bede9fdd9219216c0344296f6597f62401906abd1e2509c19fa13f6"
    counts = (5, 1, 1, 1, 1, 1, 1, 1, 1, 7)
    drawn = NoiseLayout(128, uniform_count=784, class_count=10, class_counts=counts, inner_count=9).draw(1, 0, 2)
    digest = hashlib.sha256(b"".join(each.tobytes() for each in drawn)).hexdigest()
    assert digest == "e3c3dfb97e9df96083c67f08563696635e3bb9cf5e8fcffbc14facedcc271c4b"


def test_quantile_table():
    table = normal_quantiles()
    assert table.shape == (65536,)
    assert hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() == QUANTILES_SHA256
    np.testing.assert_array_equal(table, ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32))
    np.testing.assert_array_equal(table, -table[::-1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, LIMIT),
    first=st.integers(0, LIMIT - 100),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    latent_size=st.integers(1, 40),
    uniform_count=st.integers(0, 50),
    inner_count=st.integers(0, 9),
)
def test_any_split_gives_the_same_noise(seed, first, sizes, latent_size, uniform_count, inner_count):
    layout = NoiseLayout(latent_size=latent_size, uniform_count=uniform_count, inner_count=inner_count)
    whole = layout.draw(seed, first, sum(sizes))
    index, pieces = first, []
    for size in sizes:
        pieces.append(layout.draw(seed, index, size))
        index += size
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), whole[0])
    for place, size in enumerate((uniform_count, 0, inner_count), 1):
        if size:
            np.testing.assert_array_equal(np.concatenate([piece[place] for piece in pieces]), whole[place])


def test_noise_has_the_right_distribution():
    latents, uniforms, *_ = NoiseLayout(latent_size=128, uniform_count=784).draw(3, 0, 2000)
    count = latents.size
    assert abs(latents.mean()) < 4 / np.sqrt(count)
    assert abs(latents.var() - 1) < 4 * np.sqrt(2 / count)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert abs(uniforms.mean() - 0.5) < 4 * np.sqrt(1 / 12 / uniforms.size)


def test_labels_alone_are_those_of_the_whole_noise():
    layout = NoiseLayout(latent_size=10, uniform_count=35, class_count=7)
    for labels in ((), (4, 0, 1)):
        whole = layout.draw(5, 90, 2_000, labels).labels
        np.testing.assert_array_equal(layout.draw_labels(ImageRange(5, 90, 2_000, labels)), whole)
