"""What there is to say of each setting, for options, variables, messages and the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from .settings import ENVIRONMENT_PREFIX, INT32_MAX, ServerSettings

_TYPES = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What there is to say of one field of ServerSettings."""

    name: str
    help: str
    panel: str
    kind: type
    """int, float, str, Path or bool."""
    choices: tuple[str, ...]
    """All of its values; empty: any of its kind and range."""
    limits: dict[str, float]
    """ge, gt and le, those that it has."""
    default: str
    """The default in words."""

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> Setting:
        """The setting of a field."""
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
        limits = {
            key: getattr(limit, key)
            for limit in field.metadata
            for key in ("ge", "gt", "le")
            if hasattr(limit, key)
        }
        said: Any = field.json_schema_extra
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        description = " ".join((field.description or "").split())
        kind = str if choices else kinds[0]
        return cls(name, description, said["panel"], kind, choices, limits, said["shown"] or default)

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    @property
    def allowed(self) -> str:
        """What values it takes, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {"ge": "from", "gt": "above", "le": "to"}
        return " ".join([_TYPES[self.kind], *(f"{words[key]} {limit}" for key, limit in self.limits.items())])

    @property
    def metavar(self) -> str | None:
        """What stands for a value in --help; None: its kind says enough."""
        if self.choices:
            return f"[{'|'.join(self.choices)}]"
        least, most = self.limits.get("ge"), self.limits.get("le", INT32_MAX)
        return None if least is None or most >= INT32_MAX else f"<{least}-{most}>"


SETTINGS = {name: Setting.of(name, field) for name, field in ServerSettings.model_fields.items()}
"""All settings by their names."""


def settings_table() -> str:
    """All settings as tables of Markdown, one a panel, for docs/serving.md."""
    lines: list[str] = []
    panel = ""
    for each in SETTINGS.values():
        if each.panel != panel:
            panel = each.panel
            lines += [
                "",
                f"**{panel}**",
                "",
                "| option and variable | values | default | |",
                "| --- | --- | --- | --- |",
            ]
        lines.append(f"| `{each.option}` `{each.variable}` | {each.allowed} | {each.default} | {each.help} |")
    return "\n".join(lines[1:])
