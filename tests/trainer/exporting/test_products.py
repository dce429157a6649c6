import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting.graph import folded_layers
from bgan.trainer.exporting.products import PatchAxis, Patches, as_products, images_of
from bgan.trainer.networks.generators import build_generator
from tests.trainer.exporting.test_polyphase import AXES

GROUPS = st.integers(1, 3)


@settings(deadline=None, max_examples=40)
@given(rows=AXES, columns=AXES, groups=st.tuples(GROUPS, GROUPS), channels=st.integers(1, 3))
def test_patches_and_their_products_are_the_transposed_convolution(rows, columns, groups, channels):
    torch.manual_seed(3)
    kernel, stride, padding = zip(rows[1:], columns[1:], strict=True)
    layer = nn.ConvTranspose2d(channels, 2, kernel, stride, padding, bias=False).double()
    images = torch.randn(3, channels, rows.before, columns.before, dtype=torch.float64)
    down, across = PatchAxis(rows, groups[0]), PatchAxis(columns, groups[1])
    patches = Patches(down, across, channels)
    gathered = patches.gather(images.numpy().transpose(0, 2, 3, 1))
    weight = np.einsum("cdkl,pok,qrl->pqcord", layer.weight.detach().numpy(), down.taps(), across.taps())
    found = patches.image(gathered @ weight.reshape(gathered.shape[-1], -1)[patches.order()])
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), layer(images).detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("network", ["mlp", "cnn", "doubling-cnn"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 10, 17), (2, 1, 3)])
def test_a_generator_as_products_is_the_same_function(network, shape):
    torch.manual_seed(4)
    layers = folded_layers(build_generator(network, ImageShape(*shape), 16).eval().layers, 1.3).double()
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.bias)
    latents = torch.randn(5, 16, dtype=torch.float64)
    values, products = latents.numpy(), as_products(layers)
    for number, product in enumerate(products, 1):
        sums = product.rows(values) @ product.weight + product.bias
        values = product.outputs(np.maximum(sums, 0) if number < len(products) else sums)
    np.testing.assert_allclose(images_of(values, shape), layers(latents).detach().numpy(), atol=1e-12)


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="not the layers of a generator"):
        as_products(nn.Sequential(nn.Linear(3, 4), nn.Tanh()))
