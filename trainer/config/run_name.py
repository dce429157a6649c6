"""What a run is called that was given no name."""

import re

from .presets import preset_values
from .training import TrainingConfig, with_followed


def default_name(config: TrainingConfig) -> str:
    """The settings that people tell runs apart by, joined by hyphens."""
    own = config.settings()
    usual = with_followed({"network": own["network"]})
    usual |= preset_values(config.preset, neuron=own["neuron"], network=own["network"])
    parts = [
        config.preset or "",
        own["dataset"],
        own["network"],
        "" if own["discriminator"] == usual["discriminator"] else own["discriminator"],
        own["neuron"],
        own["objective"],
        "" if own["discriminator_norm"] == "none" else own["discriminator_norm"],
        "" if own["estimator"] == usual["estimator"] else own["estimator"],
        "conditional" if own["conditional"] else "",
        "" if own["augment"] == usual["augment"] else own["augment"],
        f"seed{own['seed']}",
    ]
    return "-".join(re.sub("[:+]", "-", part) for part in parts if part)
