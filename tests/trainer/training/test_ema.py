import pytest
import torch

from bgan.trainer.training.optimizers import ExponentialAverage


def _network():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_is_the_one_of_a_loop_by_hand(decay):
    torch.manual_seed(0)
    network = _network()
    ema = ExponentialAverage(network, decay=decay)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(40):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        network(torch.randn(5, 3, dtype=torch.float64))  # moves the running statistics
        ema.update(network, ema.weight_at(step))
        rate = min(decay, (1 + step) / (5 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = rate * expected[name] + (1 - rate) * tensor
            else:
                expected[name] = tensor.clone()
    torch.testing.assert_close(dict(ema.module.state_dict()), expected)
    assert expected["1.num_batches_tracked"] == 40
    assert not torch.allclose(expected["1.running_mean"], network[1].running_mean)


def test_the_average_is_not_trained():
    average = ExponentialAverage(_network(), decay=0.9).module
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
