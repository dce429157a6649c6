import io
import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bgan.trainer import ConfigError, GatedParts, gradient_estimator


def gated(parts=3, **options):
    """Parts of images [B, 2, 4, 4] to [B, 5, 3], of random weights."""
    torch.manual_seed(0)
    built = [nn.Sequential(nn.Conv2d(2, 5, 2), nn.ReLU(), nn.Flatten(2), nn.Linear(9, 3)) for _ in range(parts)]
    return GatedParts(built, nn.Sequential(nn.Flatten(), nn.Linear(32, parts)), **options)


def batch(rows=17):
    random = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 2, 4, 4, generator=random), torch.randn(rows, 5, 3, generator=random)


def close_gate(module, part, *, at=-50.0):
    with torch.no_grad():
        module.gate[1].weight[part], module.gate[1].bias[part] = 0, at


@pytest.mark.parametrize("neuron", ["dbn", "sbn"])
@torch.no_grad()
def test_what_is_routed_is_what_is_masked(neuron):
    module, (inputs, base) = gated(neuron=neuron), batch()
    uniforms = torch.rand(17, 3) if neuron == "sbn" else None
    masked = module.train()(inputs, base, uniforms)
    assert 0 < masked.gates.mean() < 1
    assert torch.equal(masked.shares, masked.gates.mean(dim=0))
    routed = module.eval()(inputs, base, uniforms)
    assert torch.equal(routed.gates, masked.gates)
    torch.testing.assert_close(routed.outputs, masked.outputs, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_part_sees_the_rows_alone_whose_gate_is_on_and_none_where_it_is_off():
    module, (inputs, base) = gated(), batch()
    close_gate(module, 1)
    seen = []
    for part in module.parts:
        part.register_forward_hook(lambda part, given, output: seen.append(given[0]))
    found = module.eval()(inputs, base)
    assert found.shares[1] == 0
    for rows, gate in zip(seen, found.gates.T, strict=True):
        assert torch.equal(rows, inputs[gate > 0])
    for part in (0, 2):
        close_gate(module, part)
    assert torch.equal(module(inputs, base).outputs, base)


@pytest.mark.parametrize(
    ("neuron", "estimator"), [("dbn", "sigmoid-adjusted"), ("dbn", "identity"), ("sbn", "reinmax")]
)
def test_gradients_reach_gate_and_parts(neuron, estimator):
    module, (inputs, base) = gated(neuron=neuron, estimator=estimator), batch()
    module(inputs, base).outputs.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize(("neuron", "rate"), [("dbn", 0.25), ("sbn", 0.75)])
def test_the_penalty_holds_the_rate(neuron, rate):
    module, (inputs, base) = gated(neuron=neuron, rate=rate), batch(256)
    close_gate(module, 0, at=-3.0)  # a gate that is never on comes back
    optimizer = torch.optim.Adam(module.gate.parameters(), lr=0.2)
    for _ in range(60):
        logits = module.gate_logits(inputs)
        optimizer.zero_grad()
        module.penalty(logits).backward()
        optimizer.step()
    shares = torch.stack([module(inputs, base).shares for _ in range(4)]).mean(dim=0)
    np.testing.assert_allclose(shares, rate, atol=0.08)


def test_a_reward_for_variance_makes_gates_differ_by_row():
    module, (inputs, _) = gated(neuron="sbn"), batch()
    logits = module.gate_logits(inputs)
    same = logits.mean(dim=0).expand_as(logits)
    assert module.penalty(same, variance=2.0) == module.penalty(same)
    reward = module.penalty(logits) - module.penalty(logits, variance=2.0)
    torch.testing.assert_close(reward, 2 * torch.sigmoid(logits).var(dim=0, correction=0).sum())


def test_any_estimator_trains_the_gates():
    module, (inputs, base) = gated(neuron="sbn"), batch()
    logits = module.gate_logits(inputs)
    estimate = gradient_estimator("disarm", 3)(
        logits, lambda bits: module.combined(inputs, base, bits).square().mean(dim=(1, 2))
    )
    estimate.surrogate.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.gate.parameters())


def test_what_cannot_be_is_refused():
    for rate in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="must be above 0 and at most 1"):
            gated(rate=rate)
    for slope in (0.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"slope is .*; it must be above 0 and finite"):
            gated(slope=slope)
    with pytest.raises(ConfigError, match="there are 1 parts; gates choose among 2 or more"):
        gated(parts=1)
    with pytest.raises(ConfigError, match="or gradient_estimator"):
        gated(estimator="disarm")
    inputs, base = batch()
    with pytest.raises(ValueError, match=r"need uniforms \[B, 3\] in eval mode"):
        gated(neuron="sbn").eval()(inputs, base)
    module = gated()
    module.gate = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    with pytest.raises(
        ValueError, match=r"gives \[17, 4\]; it must give a logit for each row and part, \[17, 3\]"
    ):
        module(inputs, base)
    with pytest.raises(
        ValueError, match=r"the base is \[1, 5, 3\]; it must have the outputs' shape, \[17, 5, 3\]"
    ):
        gated()(inputs, base[:1])


@pytest.mark.parametrize("shape", [(17, 1), (1, 3)])
def test_gates_share_no_uniforms(shape):
    inputs, base = batch()
    for module in (gated(neuron="sbn"), gated(neuron="sbn").eval()):
        with pytest.raises(ValueError, match=r"they must be \[17, 3\], one a gate"):
            module(inputs, base, torch.rand(shape))


@torch.no_grad()
def test_what_is_routed_has_the_type_of_the_base_under_autocast():
    inputs, base = batch()
    module = gated().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        passed = module(inputs, base)
    assert passed.outputs.dtype == torch.float32
    torch.testing.assert_close(passed.outputs, module.combined(inputs, base, passed.gates), atol=0.05, rtol=0.05)


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.gated = nn.Sequential(nn.Flatten(), nn.Linear(32, 15), nn.Unflatten(1, (5, 3))), gated()

    def forward(self, inputs):
        passed = self.gated(inputs, self.trunk(inputs))
        return passed.outputs, passed.gates


@pytest.mark.filterwarnings("ignore")  # of torch, about itself
@torch.no_grad()
def test_what_is_exported_routes_batches_of_any_size(exporting):
    network, file = _Network().eval(), io.BytesIO()
    close_gate(network.gated, 2)
    rows = torch.export.Dim("batch", min=1)
    torch.onnx.export(network, (batch(2)[0],), file, dynamo=True, verbose=False, dynamic_shapes=({0: rows},))
    session = onnxruntime.InferenceSession(file.getvalue())
    for count in (1, 2, 33):
        inputs, _ = batch(count)
        outputs, gates = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        expected = network(inputs)
        np.testing.assert_array_equal(gates, expected[1])
        np.testing.assert_allclose(outputs, expected[0], atol=1e-5)
