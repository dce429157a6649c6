"""The settings of binary neurons within the generator: gates of its parts, or a binary hidden layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..common import entry_points
from ..common.errors import ConfigError
from .estimators import ESTIMATORS
from .setting import SettingsGroup, fields_of, option, setting

_ESTIMATOR: dict[str, Any] = {"choices": tuple(ESTIMATORS), "entry_points": entry_points.ESTIMATORS}
_AS_NEURON = "reinmax for sbn, sigmoid-adjusted for dbn"


@dataclass(frozen=True, kw_only=True, slots=True)
class InnerConfig(SettingsGroup):
    """Binary neurons within the generator; None of each is what holds where there are none."""

    gates: int | None = setting(
        "Conditional computation: divide the generator into a trunk and so many parts, each run only where its "
        "binary gate is on.",
        None,
        at_least=2,
        at_most=1024,
        shown_default="none",
    )
    gate_rate: float | None = setting(
        "Share of images for which a part is to run: the cost of sampling falls with it.",
        above=0,
        at_most=1,
        shown_default="0.5",
    )
    gate_by: Literal["latents", "labels", "random"] | None = setting(
        "What decides the gates: latents (and labels, where there are), labels alone, or random, fixed directions "
        "of the latents that learn nothing, to compare with.",
        shown_default="latents",
    )
    gate_neuron: Literal["dbn", "sbn"] | None = setting(
        "Neurons of the gates: dbn (deterministic) or sbn (stochastic).", shown_default="dbn"
    )
    gate_estimator: str | None = setting(
        "Gradient estimator through the gates: any of --estimator.", shown_default=_AS_NEURON, **_ESTIMATOR
    )
    gate_penalty: float | None = setting(
        "Weight of the penalty that holds each gate's share at the rate.", at_least=0, shown_default="10"
    )
    gate_variance: float | None = setting(
        "Weight of a reward for gates that differ from image to image; for sbn gates.",
        at_least=0,
        shown_default="1 for sbn, 0 for dbn",
    )
    hidden_neuron: Literal["dbn", "sbn"] | None = setting(
        "Make the generator's last hidden layer binary: dbn or sbn.", None, shown_default="none"
    )
    hidden_estimator: str | None = setting(
        "Gradient estimator through a binary hidden layer: any of --estimator.",
        shown_default=_AS_NEURON,
        **_ESTIMATOR,
    )

    def __post_init__(self) -> None:
        """Check every value, and that nothing is set of what there is not."""
        SettingsGroup.__post_init__(self)
        if self.gates is not None and self.hidden_neuron is not None:
            raise ConfigError("gates and hidden-neuron do not go together; choose one of --gates, --hidden-neuron")
        for kind, is_there in (("gate", self.gates is not None), ("hidden", self.hidden_neuron is not None)):
            names = [field.name for field in fields_of(InnerConfig) if field.name.startswith(f"{kind}_")]
            given = [name for name in names if name != "hidden_neuron" and getattr(self, name) is not None]
            if given and not is_there:
                needed = "--gates" if kind == "gate" else "--hidden-neuron"
                raise ConfigError(f"{option(given[0])} has no meaning without {needed}; add it, or leave it out")

    @property
    def neuron(self) -> str | None:
        """The kind of the inner neurons, "dbn" or "sbn"; None: there are none."""
        return self.gate_neuron or self.hidden_neuron

    @property
    def estimator(self) -> str | None:
        """The gradient estimator of the inner neurons; None: there are none."""
        return self.gate_estimator or self.hidden_estimator


def inner_following(values: dict[str, Any]) -> dict[str, Any]:
    """The inner settings that follow from these values, by name."""
    has_gates, gate_neuron = values.get("gates") is not None, values.get("gate_neuron") or "dbn"
    gates = {
        "gate_rate": 0.5,
        "gate_by": "latents",
        "gate_neuron": gate_neuron,
        "gate_estimator": _usual_estimator(gate_neuron),
        "gate_penalty": 10.0,
        "gate_variance": 1.0 if gate_neuron == "sbn" else 0.0,
    }
    hidden = values.get("hidden_neuron")
    return {
        **{name: value if has_gates else None for name, value in gates.items()},
        "hidden_estimator": None if hidden is None else _usual_estimator(hidden),
    }


def _usual_estimator(neuron: str) -> str:
    return "reinmax" if neuron == "sbn" else "sigmoid-adjusted"
