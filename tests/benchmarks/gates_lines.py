"""What `make gates` compares: generators with gates and without, each a line of its tables."""

from dataclasses import dataclass

GATES = 8
EPOCHS = {"mnist": 2, "digits": 40, "estimators": 16}
_UNITS = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A generator to compare."""

    kind: str
    """"dense", or what decides the gates: "latents", "labels" or "random"."""
    width: float
    rate: float | None = None
    neuron: str | None = None
    estimator: str | None = None
    """None: the usual one."""
    gates: int = GATES

    @property
    def name(self) -> str:
        """It in one word, as part of a run's name."""
        rate = "" if self.rate is None else f"-r{self.rate:g}"
        gates = "" if self.neuron is None else f"-{self.neuron}-{self.estimator}"
        count = "" if self.gates == GATES else f"-e{self.gates}"
        return f"{self.kind}-w{self.width:g}{rate}{gates}{count}"

    @property
    def title(self) -> str:
        """It in words."""
        if self.rate is None:
            return f"dense, `--width {self.width:g}`"
        own = "" if self.gates == GATES else f" --gates {self.gates}"
        if self.neuron is not None:
            own = f"{own} --gate-neuron {self.neuron} --gate-estimator {self.estimator}"
        return f"gates by {self.kind}, `--width {self.width:g} --gate-rate {self.rate:g}{own}`"

    @property
    def label(self) -> str:
        """It in a picture: its width; with gates their rate, and what of them is not usual."""
        rate = "" if self.rate is None else f", {self.rate:g}"
        count = "" if self.gates == GATES else f", {self.gates} gates"
        own = "" if self.neuron is None else f", {self.neuron}, {self.estimator}"
        return f"{self.width:g}{rate}{count}{own}"

    @property
    def mean_units(self) -> float:
        """Hidden units that an image takes, on average, where each gate has its rate."""
        if self.rate is None:
            return _UNITS * self.width
        return _UNITS * self.width * (1 + self.gates * self.rate) / self.gates

    def settings(self) -> dict[str, object]:
        """Its settings of `bgan train`."""
        if self.rate is None:
            return {"width": self.width}
        own = {} if self.neuron is None else {"gate_neuron": self.neuron, "gate_estimator": self.estimator}
        return {"width": self.width, "gates": self.gates, "gate_rate": self.rate, "gate_by": self.kind, **own}


_COMPARED = (
    *(Line("dense", width) for width in (0.03125, 0.0625, 0.125, 0.375, 1)),
    *(Line(by, 1, 0.25) for by in ("latents", "labels", "random")),
    *(Line(by, 0.25, 0.25) for by in ("latents", "random")),
    *(Line("latents", width, rate) for width, rate in ((1, 0.5), (2, 0.25))),
    *(Line("latents", width, 0.25, gates=4) for width in (0.5, 1)),
)
_STOCHASTIC = tuple(Line("latents", 1, 0.25, "sbn", estimator) for estimator in ("reinmax", "reinforce-loo"))
_ESTIMATORS = (
    ("dbn", "sigmoid-adjusted"), ("dbn", "identity"), ("sbn", "sigmoid-adjusted"), ("sbn", "identity"),
    ("sbn", "reinmax"), ("sbn", "st-gumbel"), ("sbn", "concrete"), ("sbn", "reinforce"),
    ("sbn", "reinforce-per-unit"), ("sbn", "reinforce-loo"), ("sbn", "disarm"), ("sbn", "muprop"),
    ("sbn", "rebar"), ("sbn", "relax"),
)  # fmt: skip
PARTS = {
    "mnist": (*_COMPARED, *_STOCHASTIC),
    "digits": _COMPARED,
    "estimators": tuple(Line("latents", 1, 0.25, neuron, estimator) for neuron, estimator in _ESTIMATORS),
}
