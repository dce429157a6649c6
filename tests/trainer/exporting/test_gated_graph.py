import numpy as np
import onnx
import pytest
import torch

from bgan.trainer import configure
from bgan.trainer.common.image_shape import ImageShape
from bgan.trainer.exporting.graph import gated_graph
from bgan.trainer.exporting.model_file import open_session
from bgan.trainer.networks.build import configured_generator

pytestmark = pytest.mark.usefixtures("exporting")

SLOPE = 1.3
OUTPUTS = ["images", "probabilities", "gates"]


def gated_generator(shape, classes, **settings):
    """A gated generator of random weights and biases, in eval mode."""
    torch.manual_seed(0)
    config = configure(latent_size=16, conditional=classes > 0, **settings)
    generator = configured_generator(config, ImageShape(*shape), classes).eval()
    for parameter in generator.parameters():
        if parameter.ndim == 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return generator


def inputs_of(generator, rows, *, stochastic):
    random = torch.Generator().manual_seed(rows)
    inputs = {"latents": torch.randn(rows, generator.latent_size, generator=random)}
    if generator.class_count:
        inputs["labels"] = torch.arange(rows) % generator.class_count
    if stochastic:
        inputs["uniforms"] = torch.rand(rows, *generator.image_shape, generator=random)
    if generator.inner_uniforms:
        inputs["inner_uniforms"] = torch.rand(rows, generator.inner_uniforms, generator=random)
    return inputs


@pytest.mark.parametrize(
    ("shape", "classes", "graph", "settings"),
    [
        ((1, 4, 4), 0, "fast", {"network": "mlp", "neuron": "dbn", "gates": 3}),
        # torch names a product of this graph mul_20, and 20 nodes stand before one of the masked graph
        ((1, 4, 4), 3, "fast", {"network": "mlp", "neuron": "dbn", "gates": 2}),
        ((2, 9, 14), 3, "fast", {"network": "cnn", "neuron": "sbn", "gates": 2, "gate_neuron": "sbn"}),
        ((1, 28, 28), 0, "fast", {"network": "cnn", "neuron": "dbn", "gates": 5, "gate_by": "random"}),
        ((1, 10, 12), 4, "plain", {"network": "doubling-cnn", "neuron": "sbn", "gates": 2, "gate_by": "labels"}),
    ],
)
def test_both_graphs_are_the_generator_and_give_the_same_bits(shape, classes, graph, settings):
    generator = gated_generator(shape, classes, **settings)
    stochastic = settings["neuron"] == "sbn"
    graphs = gated_graph(generator, SLOPE, stochastic=stochastic, graph=graph)
    routed, masked = graphs.model(), graphs.model(is_routed=False)
    onnx.checker.check_model(routed, full_check=True)
    assert "Shape" not in {
        node.op_type for node in routed.graph.node
    }  # no size follows from how many rows there are
    sessions = [open_session(model.SerializeToString()) for model in (routed, masked)]
    for rows in (1, 2, 5, 200):
        inputs = inputs_of(generator, rows, stochastic=stochastic)
        feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
        found, other = (session.run(OUTPUTS, feeds) for session in sessions)
        assert [each.tobytes() for each in found] == [each.tobytes() for each in other]
        with torch.no_grad():
            logits = generator(
                inputs["latents"],
                inputs.get("labels"),
                slope=SLOPE,
                inner_uniforms=inputs.get("inner_uniforms"),
            )
        np.testing.assert_allclose(found[1], torch.sigmoid(SLOPE * logits).numpy(), atol=2e-6, rtol=0)
    assert 0 < found[2].mean() < 1
