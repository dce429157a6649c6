import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting import polyphase as p
from bgan.trainer.exporting.graph import folded_layers
from bgan.trainer.networks.generators import build_generator

AXES = st.builds(
    p.Axis, before=st.integers(1, 7), kernel=st.integers(1, 6), stride=st.integers(1, 3), padding=st.integers(0, 2)
).filter(lambda axis: axis.after >= axis.stride)  # no phase is empty
WHOLE_AXES = st.builds(
    lambda before, steps, stride: p.Axis(before, steps * stride, stride, 0),
    before=st.integers(1, 5),
    steps=st.integers(1, 3),
    stride=st.integers(1, 3),
)
CHANNELS = st.integers(1, 4)


def layer_and_images(channels, outputs, rows, columns):
    torch.manual_seed(3)
    kernel, stride, padding = zip(rows[1:], columns[1:], strict=True)
    layer = nn.ConvTranspose2d(channels, outputs, kernel, stride, padding).double()
    images = torch.randn(3, channels, rows.before, columns.before, dtype=torch.float64)
    assert p.axes(layer, images.shape[2:]) == (rows, columns)
    return layer, images


def cnn_layers(*shape):
    """A CNN generator's layers, folded."""
    torch.manual_seed(4)
    return folded_layers(build_generator("cnn", ImageShape(*shape), 16).eval().layers, 1.0)


def assert_same(found, expected):
    torch.testing.assert_close(
        found, expected, atol=1e-12 * max(1.0, expected.detach().abs().max().item()), rtol=0
    )


@settings(deadline=None, max_examples=30)
@given(channels=CHANNELS, outputs=CHANNELS, rows=AXES, columns=AXES)
def test_the_phases_are_those_of_the_transposed_convolution(channels, outputs, rows, columns):
    layer, images = layer_and_images(channels, outputs, rows, columns)
    expected = layer(images).relu()
    planes = p.Phases(layer, rows, columns)(images)
    assert len(planes) == rows.stride * columns.stride
    for place, plane in enumerate(planes):
        u, v = divmod(place, columns.stride)
        torch.testing.assert_close(
            plane, expected[:, :, u :: rows.stride, v :: columns.stride], atol=1e-12, rtol=0
        )

    interleaved = p.Interleaving(rows, columns)(p.Phases(layer, rows, columns, even=True)(images))
    assert_same(interleaved, expected)


@settings(deadline=None, max_examples=30)
@given(
    channels=CHANNELS,
    outputs=CHANNELS,
    rows=AXES,
    columns=AXES,
    phases=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_output_layer_reads_planes(channels, outputs, rows, columns, phases):
    phases = min(phases[0], rows.before), min(phases[1], columns.before)
    layer, images = layer_and_images(channels, outputs, rows, columns)
    planes = [images[:, :, u :: phases[0], v :: phases[1]] for u in range(phases[0]) for v in range(phases[1])]
    outputs = p.OutputPhases(layer, rows, columns, phases)
    assert_same(outputs(planes), layer(images))


@settings(deadline=None, max_examples=30)
@given(channels=CHANNELS, outputs=CHANNELS, rows=WHOLE_AXES, columns=WHOLE_AXES)
def test_block_products_are_the_transposed_convolution(channels, outputs, rows, columns):
    layer, images = layer_and_images(channels, outputs, rows, columns)
    found = p.BlockProducts(layer, rows, columns)(images)
    assert_same(found, layer(images).relu())


@settings(deadline=None, max_examples=30)
@given(channels=CHANNELS, outputs=CHANNELS, kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_one_pixel_is_a_product(channels, outputs, kernel):
    layer, images = layer_and_images(channels, outputs, *(p.Axis(1, length, 1, 0) for length in kernel))
    found = p.PixelProduct(layer)(images.flatten(1))
    assert_same(found, layer(images).relu())


@settings(deadline=None, max_examples=20)
@given(channels=st.integers(1, 3), height=st.integers(1, 50), width=st.integers(1, 90))
def test_a_generator_stays_the_same_function(channels, height, width):
    layers = cnn_layers(channels, height, width).double()
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.bias)
    rewritten = p.polyphase(layers)
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in rewritten.modules())
    latents = torch.randn(2, 16, dtype=torch.float64)
    expected = layers(latents)
    assert_same(rewritten(latents), expected)


def test_the_published_cnn_takes_each_form():
    layers = cnn_layers(1, 28, 28)
    assert [type(layer) for layer in p.polyphase(layers)] == [
        p.PixelProduct,
        p.BlockProducts,
        p.Phases,
        p.OutputPhases,
    ]
    layers = cnn_layers(3, 32, 32)
    forms = [p.PixelProduct, p.Phases, p.Interleaving, p.Phases, p.OutputPhases]
    assert [type(layer) for layer in p.polyphase(layers)] == forms


def test_an_mlp_stays_as_it_is_and_other_layers_are_refused():
    layers = build_generator("mlp", ImageShape(1, 4, 4), 8).layers
    assert p.polyphase(layers) is layers
    with pytest.raises(TypeError, match="not the layers of a CNN generator"):
        p.polyphase(build_generator("cnn", ImageShape(1, 8, 8), 8).layers)
    with pytest.raises(TypeError, match="not the layers of a CNN generator"):
        p.polyphase(nn.Sequential(nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 1, 4)))
