"""Checks of settings, and how a setting is spelled on the command line."""

from __future__ import annotations

import math

from ..common.errors import ConfigError


def option(name: str) -> str:
    """How the setting `name` is spelled on the command line, without the dashes in front."""
    return name.replace("_", "-")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ConfigError unless the value is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{option(name)} is {value!r}; choose one of {', '.join(choices)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises ConfigError unless the value is finite and at least `least`."""
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{option(name)} is {value}; it must be at least {least}")


def check_fraction(name: str, value: float) -> None:
    """Raises ConfigError unless the value lies in [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"{option(name)} is {value}; it must be at least 0 and below 1")


def check_positive(name: str, value: float) -> None:
    """Raises ConfigError unless the value is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{option(name)} is {value}; it must be above 0")
