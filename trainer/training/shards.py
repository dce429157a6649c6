"""Gradients, statistics and losses of a batch in shards: the mean over all of them, wherever each is computed.

A shard has rows, noise and batch normalization of its own. What it gives is one flat vector, a leaf of a binary
tree: (0 + 1) + (2 + 3) within a process and across them. Floating-point sums depend on their order; this one is
the same for every number of processes.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .distributed import World

ShardLoss = Callable[[int], tuple[Tensor, Tensor]]
"""Of a shard: the scalar to call backward on, and values [n] to report."""


class ShardMeans:
    """Calls backward for the shards of this process, and takes the mean over those of all."""

    def __init__(self, count: int, world: World) -> None:
        """Raises ConfigError where the processes cannot share so many shards."""
        self.count, self._world = count, world
        self.own = world.own_shards(count)

    def backward(self, loss: ShardLoss, trained: Sequence[nn.Module], modules: Sequence[nn.Module]) -> Tensor:
        """Leave in the parameters of `trained` the gradients of the mean loss; the mean values [n] are returned.

        Each shard starts from the same buffers of all `modules`; then floating-point ones are the mean of what the
        shards made of them. Parameters without a gradient keep none. Raises PeerLostError.
        """
        parameters = [parameter for module in trained for parameter in module.parameters()]
        if self.count == 1:
            return _values(loss, 0, parameters)
        buffers = [buffer for module in modules for buffer in module.buffers()]
        before = [buffer.clone() for buffer in buffers]

        def leaf(shard: int) -> Tensor:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.data.copy_(value)  # a graph that is kept for later steps does not read them: no new version
            values = _values(loss, shard, parameters)
            return torch.cat([tensor.reshape(-1) for tensor in (*_averaged(parameters, buffers), values)])

        mean = self._world.sum(_tree_sum(map(leaf, self.own))) / self.count
        for tensor in _averaged(parameters, buffers):
            tensor.data.copy_(mean[: tensor.numel()].view(tensor.shape))
            mean = mean[tensor.numel() :]
        return mean


def _values(loss: ShardLoss, shard: int, parameters: list[nn.Parameter]) -> Tensor:
    for parameter in parameters:
        parameter.grad = None
    surrogate, values = loss(shard)
    surrogate.backward()  # type: ignore[no-untyped-call]
    return values.detach()


def _averaged(parameters: list[nn.Parameter], buffers: list[Tensor]) -> list[Tensor]:
    """What is averaged over shards, but for the values."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [*gradients, *(buffer for buffer in buffers if buffer.is_floating_point())]


def _tree_sum(leaves: Iterator[Tensor]) -> Tensor:
    """The sum of 2^k vectors in a binary tree, with at most k + 1 of them in memory."""
    sums: list[tuple[int, Tensor]] = []  # (leaves, their sum), fewer and fewer leaves
    for leaf in leaves:
        sums.append((1, leaf))
        while len(sums) > 1 and sums[-1][0] == sums[-2][0]:
            (count, left), (_, right) = sums[-2:]
            sums[-2:] = [(2 * count, left.add_(right))]
    ((_, total),) = sums
    return total
