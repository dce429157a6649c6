"""Iterations that are recorded once and then replayed, so that a GPU waits for no Python between its kernels.

A recording (a CUDA graph) has the addresses of tensors and no numbers of the host. So all that differs between
iterations lies in tensors that stay where they are: images, labels and noise, which are read and drawn anew before
each replay, and the slope, the learning rates and the averaging weight, which the trainer fills. On a CPU nothing
is recorded: the same code runs on the same tensors, with the same bits as without.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..common.errors import ConfigError
from ..config.training import TrainingConfig

Batch = tuple[Tensor, Tensor | None]
"""Real images [B, C, H, W], and their labels [B]."""
Iterate = Callable[[list[Batch]], Tensor]
"""One iteration on these batches, one for each step of the discriminators; it gives values to report."""
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Of what is to be done again and again on the same tensors: a function that does it."""
_DRAWS = {torch.rand, torch.randn, torch.randint}
_WARM_UP = 3  # iterations, in which libraries choose and allocate what a recording may not


class _Draw(NamedTuple):
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    tensor: Tensor


class StaticDraws(TorchFunctionMode):
    """Keeps what is drawn from generators; after `redraw` the same tensors are given in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self._draws: list[_Draw] = []
        self._given: int | None = None

    def redraw(self) -> None:
        """Draw all again, from the same generators as they are now."""
        for draw in self._draws:
            draw.function(*draw.arguments, **draw.options, out=draw.tensor)
        self._given = 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What a function of torch gives within this mode."""
        options = kwargs or {}
        if function not in _DRAWS or options.get("generator") is None:
            return function(*args, **options)
        if self._given is None:
            self._draws.append(_Draw(function, args, options, function(*args, **options)))
            return self._draws[-1].tensor
        self._given += 1
        return self._draws[self._given - 1].tensor


def check_capture(config: TrainingConfig, device: torch.device) -> None:
    """Raise ConfigError where iterations of these settings cannot be captured."""
    own = config.optimization
    reasons = {
        f"--device {device.type}; use cuda, or cpu to try it": device.type not in {"cuda", "cpu"},
        "--shards; leave them out": own.shards > 1,
        f"--optimizer {own.optimizer} in the form {own.optimizer_form}; use adam in the form torch": (
            (own.optimizer, own.optimizer_form) != ("adam", "torch")
        ),
        f"--estimator {config.neurons.estimator}, which trains by numbers of the host; choose another": (
            config.neurons.estimator in {"rebar", "relax"}
        ),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason is not None:
        raise ConfigError(f"capture does not go with {reason}, or train without --capture")


@dataclass(slots=True)
class _Plan:
    """Iterations of one number of discriminator steps."""

    batches: list[Batch]
    runs: int = 0
    draws: StaticDraws = field(default_factory=StaticDraws)
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    replay: Callable[[], None] | None = None


class CapturedIterations:
    """Runs iterations: a few as they are, then as they were recorded, one recording for each number of batches."""

    def __init__(self, iterate: Iterate, device: torch.device, record: Record | None = None) -> None:
        """`record` stands in for a CUDA graph, where there is none."""
        self._iterate, self._device = iterate, device
        self._record = record or (_recorded if device.type == "cuda" else lambda work: work)
        self._plans: dict[int, _Plan] = {}

    def run(self, batches: list[Batch]) -> Tensor:
        """What the iteration gives, in a tensor of its own. Its generators must be seeded."""
        plan = self._plans.setdefault(len(batches), _Plan([_copied(batch) for batch in batches]))
        plan.runs += 1
        if plan.runs < _WARM_UP:
            with _aside(self._device):
                return self._iterate(batches)
        if plan.runs == _WARM_UP:
            with _aside(self._device), plan.draws:
                plan.values = self._iterate(batches).clone()
            return plan.values.clone()
        for own, batch in zip(plan.batches, batches, strict=True):
            for there, given in zip(own, batch, strict=True):
                if there is not None and given is not None:
                    there.copy_(given)
        plan.draws.redraw()
        if plan.replay is None:
            plan.replay = self._record(partial(self._run, plan))
        plan.replay()
        return plan.values.clone()

    def _run(self, plan: _Plan) -> None:
        with plan.draws:
            plan.values.copy_(self._iterate(plan.batches))


def _copied(batch: Batch) -> Batch:
    images, labels = batch
    return images.clone(), None if labels is None else labels.clone()


def _recorded(work: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of the work, which is not done meanwhile."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a GPU: in a stream beside the usual one, as what comes before a recording has to be."""
    if device.type != "cuda":
        yield
        return
    stream, usual = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(usual)
    with torch.cuda.stream(stream):
        yield
    usual.wait_stream(stream)
