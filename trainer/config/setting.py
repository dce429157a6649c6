"""Settings: typed fields with help, choices and range, from which options, checks and documentation follow."""

import dataclasses
import math
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..common.entry_points import is_given, registered
from ..common.errors import ConfigError
from ..common.text import shown

_KEY = "setting"
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a field made by `setting` says beside its type and its default."""

    help: str
    """What it is, in a line, for `--help` and the documentation."""
    name: str | None = None
    """Its name in files and, with hyphens, on the command line; None: that of the field."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    shown_default: str | None = None
    """What it is where it is not given, in words, if a preset or another setting decides that."""
    choices: tuple[str, ...] = ()
    """Values that it may have, where its type does not list them."""
    entry_points: str | None = None
    """The group of entry points that add values to its choices; so do the names of what is given from Python."""
    suggestions: tuple[str, ...] = ()
    """Values that a shell completes, of a setting that takes others too."""
    separator: str | None = None
    """What stands between several values, each of which may be an option of its own; None: it is one value."""
    old_name: str | None = None
    """A spelling of one release ago, still understood."""
    is_option: bool = True
    """Whether `bgan train` takes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A setting where it stands."""

    name: str
    """Its name in files, options and errors."""
    attribute: str
    """The field of its group."""
    type: Any
    """int, float, str or bool; for a choice str."""
    choices: tuple[str, ...]
    """All values that it may have, but for those of entry points; none: any of its type."""
    is_optional: bool
    default: Any
    """MISSING where it follows from other settings."""
    setting: Setting

    def check(self, value: Any) -> None:
        """Raise ConfigError unless the value has the type and lies in the range."""
        if value is None and self.is_optional:
            return
        name = option(self.name)
        if self.choices:
            check_choice(name, value, self.choices, self.setting.entry_points)
        if not _has_type(value, self.type):
            raise ConfigError(f"{name} is {shown(value)}; it must be {_TYPE_NAMES[self.type]}")
        if self.type is float and not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; it must be finite")
        bounds = self.range_text()
        if bounds and not self._is_in_range(value):
            raise ConfigError(f"{name} is {value}; it must be {bounds}")

    def range_text(self) -> str:
        """The range, as in "at least 0 and below 1"; empty where there is none."""
        setting = self.setting
        bounds = (
            ("at least", setting.at_least),
            ("above", setting.above),
            ("at most", setting.at_most),
            ("below", setting.below),
        )
        return " and ".join(f"{words} {_number(bound)}" for words, bound in bounds if bound is not None)

    def _is_in_range(self, value: float) -> bool:
        setting = self.setting
        return (
            (setting.at_least is None or value >= setting.at_least)
            and (setting.above is None or value > setting.above)
            and (setting.at_most is None or value <= setting.at_most)
            and (setting.below is None or value < setting.below)
        )


def setting(help: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A field of a dataclass that is a setting; without a default it follows from others. See `Setting`."""
    return dataclasses.field(default=default, metadata={_KEY: Setting(help=help, **more)})


@cache
def fields_of(group: type[Any]) -> tuple[Field, ...]:
    """The settings of a dataclass, in order; fields that `setting` did not make are none."""
    hints = get_type_hints(group)
    return tuple(_field(field, hints[field.name]) for field in dataclasses.fields(group) if _KEY in field.metadata)


def check_choice(name: str, value: Any, choices: tuple[str, ...], group: str | None) -> None:
    """Raise ConfigError unless the value is a choice, an entry point of the group or given from Python."""
    if value in choices or (group is not None and isinstance(value, str) and is_given(value)):
        return
    added = () if group is None else registered(group)
    if value not in added:
        missing = "" if group is None else ", or install the package that adds it"
        raise ConfigError(f"{name} is {shown(value)}; choose one of {', '.join((*choices, *added))}{missing}")


class SettingsGroup:
    """A dataclass of settings, each checked once it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Raise ConfigError for the first setting that is out of its type or range."""
        group: Any = self.__class__
        for field in fields_of(group):
            field.check(getattr(self, field.attribute))


def option(name: str) -> str:
    """How a setting is spelled on the command line, without the dashes in front."""
    return name.replace("_", "-")


def _field(field: dataclasses.Field[Any], kind: Any) -> Field:
    is_optional = get_origin(kind) in (Union, types.UnionType)
    if is_optional:
        kind = get_args(kind)[0]
    choices = get_args(kind) if get_origin(kind) is Literal else field.metadata[_KEY].choices
    return Field(
        name=field.metadata[_KEY].name or field.name,
        attribute=field.name,
        type=str if choices else kind,
        choices=choices,
        is_optional=is_optional,
        default=field.default,
        setting=field.metadata[_KEY],
    )


def _has_type(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _number(bound: float) -> str:
    return "2^63" if bound == 2**63 else f"{bound:g}"
