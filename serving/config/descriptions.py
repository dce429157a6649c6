"""What there is to say of each setting, for options, variables, messages and the documentation."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from .settings import ENVIRONMENT_PREFIX, INT32_MAX, ServerSettings

# By JSON schema's name of a type or format.
_KINDS: dict[str, tuple[type, str]] = {
    "integer": (int, "a whole number"),
    "number": (float, "a number"),
    "string": (str, "text"),
    "path": (Path, "a path"),
    "boolean": (bool, "true or false"),
}
_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of ServerSettings in words."""

    name: str
    option: str
    variable: str
    kind: type
    """int, float, str, Path or bool."""
    choices: list[str]
    """All of its values; empty: any of its kind and range."""
    allowed: str
    metavar: str | None
    """What stands for a value in --help; None: its kind."""
    default: str
    panel: str
    help: str


def _describe(name: str, schema: dict[str, Any]) -> Setting:
    schema = {**schema, **schema.get("anyOf", [{}])[0]}
    kind, allowed = _KINDS[schema.get("format", schema["type"])]
    metavar = None
    if choices := schema.get("enum", []):
        allowed, metavar = f"one of {', '.join(choices)}", f"[{'|'.join(choices)}]"
    elif "minimum" in schema and schema.get("maximum", INT32_MAX) < INT32_MAX:
        metavar = f"<{schema['minimum']}-{schema['maximum']}>"
    return Setting(
        name,
        option=f"--{name.replace('_', '-')}",
        variable=f"{ENVIRONMENT_PREFIX}{name.upper()}",
        kind=kind,
        choices=choices,
        allowed=" ".join([allowed, *(f"{word} {schema[key]}" for key, word in _LIMITS.items() if key in schema)]),
        metavar=metavar,
        default=schema["shown"],
        panel=schema["panel"],
        help=" ".join(schema["description"].split()),
    )


SETTINGS = {
    name: _describe(name, schema) for name, schema in ServerSettings.model_json_schema()["properties"].items()
}
"""All settings by their names, in the order of their panels."""


def settings_table() -> str:
    """All settings as a Markdown table, for docs/serving.md."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for panel, settings in groupby(SETTINGS.values(), key=lambda setting: setting.panel):
        lines.append(f"| **{panel}** | | |")
        lines += [f"| `{each.name}` | {each.default} | {each.help} |" for each in settings]
    return "\n".join(lines) + "\n"
