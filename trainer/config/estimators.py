"""The gradient estimators by name: what each is, what it takes, and where it cannot apply. Loads no torch."""

from dataclasses import dataclass, field
from functools import partial

from ..common import entry_points
from ..common.errors import ConfigError

BINARY_NEURONS = ("dbn", "sbn")


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorEntry:
    """What is known of an estimator without running it."""

    summary: str = field(kw_only=False)
    is_deterministic_too: bool = False
    """Whether it is defined for neurons that draw nothing, too."""
    is_unbiased: bool = False
    """Whether its expectation is the gradient of the expected loss."""
    needs_image_losses: bool = False
    """Whether the loss of an image must depend on that image alone."""
    needs_density_ratio: bool = False
    """Whether the discriminator's logit must be an estimate of log p(real) / p(fake)."""
    samples: int | None = None
    """How many images it draws of the same logits, unless told otherwise; None: that cannot be chosen."""
    temperature: float | None = None
    """The temperature of its relaxation, or where training that begins; None: it has none."""


_score = partial(EstimatorEntry, is_unbiased=True, needs_image_losses=True)
_weighted = partial(EstimatorEntry, needs_image_losses=True, needs_density_ratio=True)

ESTIMATORS: dict[str, EstimatorEntry] = {
    "sigmoid-adjusted": EstimatorEntry("straight-through by the sigmoid's derivative", is_deterministic_too=True),
    "identity": EstimatorEntry("straight-through by the identity", is_deterministic_too=True),
    "reinmax": EstimatorEntry("straight-through of second order"),
    "st-gumbel": EstimatorEntry("straight-through by a relaxed sample", temperature=0.5),
    "concrete": EstimatorEntry("relaxed samples in the generator's step", temperature=0.5),
    "reinforce": _score("score function, moving-average baseline"),
    "reinforce-per-unit": _score("score function, a moving baseline for each pixel"),
    "reinforce-loo": _score("score function, leave-one-out baseline", samples=8),
    "muprop": _score("score function, the loss linearized at the mean image"),
    "disarm": _score("score function, antithetic pairs"),
    "rebar": _score("score function, the relaxed loss as control variate", temperature=0.1),
    "relax": _score("REBAR with a learned network added", temperature=0.1),
    "bgan": _weighted("importance weights among samples of one latent", samples=20),
    "maligan": _weighted("importance weights within the batch"),
}

OWN_ESTIMATOR = EstimatorEntry("of another package")
"""What is taken to hold of an estimator that says nothing of itself."""

# With the logit of any other objective, the weights sigma / (1 - sigma) are no ratio of densities.
_RATIO_OBJECTIVES = ("gan",)


def estimator_entry(name: str) -> EstimatorEntry:
    """What is known of an estimator by name; what one of another package says of itself is its attribute `entry`.

    Raises ConfigError where that package is not there, or broken.
    """
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    entry = getattr(entry_points.load(entry_points.ESTIMATORS, name), "entry", OWN_ESTIMATOR)
    if not isinstance(entry, EstimatorEntry):
        what = entry_points.shown(entry_points.ESTIMATORS, name)
        raise ConfigError(f"{what} says of itself {entry!r}; its attribute `entry` must be an EstimatorEntry")
    return entry


def refusal(
    estimator: str,
    *,
    neuron: str,
    objective: str,
    discriminator_norm: str,
    discriminator: str,
    prefix: str = "",
) -> str | None:
    """Why the estimator cannot be used with these settings, in words that follow its name; None where it can.

    `prefix` stands before "neuron" and "estimator" in the names of the options: "gate-" or "hidden-".
    """
    entry = estimator_entry(estimator)
    sbn, adjusted = f"--{prefix}neuron sbn", f"--{prefix}estimator sigmoid-adjusted"
    if neuron == "real" and not entry.is_deterministic_too:
        return f"is for binary neurons; real ones have an exact gradient, so leave --{prefix}estimator out"
    if neuron == "dbn" and estimator == "reinmax":
        return (
            "averages the slopes at 0 and at 1 over a neuron's draws, and deterministic neurons (dbn) show one of "
            f"the two; choose {sbn}, or {adjusted}"
        )
    if neuron == "dbn" and not entry.is_deterministic_too:
        return (
            "needs neurons that are drawn, and deterministic ones (dbn) are not: the gradient of their expected "
            f"loss is 0 almost everywhere; choose {sbn}, or {adjusted}"
        )
    if entry.needs_image_losses and discriminator_norm == "batch":
        return (
            "needs a loss of each image by itself, and a discriminator with batch normalization mixes the images "
            "of a batch; choose --discriminator-norm none"
        )
    if entry.needs_density_ratio and (objective not in _RATIO_OBJECTIVES or "+" in discriminator):
        return (
            f"weights images by the density ratio in the logit of one discriminator, and {objective} with "
            f"{discriminator} has none; choose --objective {' or '.join(_RATIO_OBJECTIVES)} and a single "
            "--discriminator"
        )
    return None
