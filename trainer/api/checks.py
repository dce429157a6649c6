"""Arguments of the wrong type, as a ConfigError of one line that names them."""

from collections.abc import Callable
from typing import Any, TypeVar

from ..common.errors import ConfigError

_Made = TypeVar("_Made")


def check_type(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise ConfigError unless a value is of one of the kinds; `wanted` says what to give."""
    if not isinstance(value, kinds):
        raise ConfigError(f"{name} is of type {type(value).__name__}; give {wanted}")


def made(make: Callable[..., _Made], known: tuple[str, ...], options: dict[str, Any]) -> _Made:
    """What is made of options by name. Raises ConfigError for one that is not known."""
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(f"there is no option {unknown[0]!r}; there are {', '.join(known)}")
    return make(**options)
