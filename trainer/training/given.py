"""Parts of a training that are given from Python, in place of names in its settings."""

from dataclasses import dataclass, replace

from ..common.entry_points import GIVEN
from ..config.training import TrainingConfig
from ..networks.own import NetworkSource, given_name
from .objectives import Objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Networks and an objective; what is not given is as the settings name it."""

    generator: NetworkSource | None = None
    discriminators: tuple[NetworkSource, ...] = ()
    """Those that are named own:..., in their order."""
    objective: Objective | None = None

    def named_in(self, config: TrainingConfig) -> TrainingConfig:
        """The settings with the names of what is given. Raises ConfigError where they do not go with it."""
        networks = config.networks
        if self.generator is not None:
            networks = replace(networks, network=given_name(self.generator))
        if self.discriminators:
            networks = replace(networks, discriminator="+".join(map(given_name, self.discriminators)))
        objective = config.objective
        if self.objective is not None:
            objective = replace(objective, objective=GIVEN + self.objective.name)
        return replace(config, networks=networks, objective=objective)


NOTHING_GIVEN = Given()
