"""The settings as Markdown, for the documentation."""

from dataclasses import MISSING

from .presets import shown_default
from .setting import Field, fields_of, option
from .training import GROUPS


def settings_table() -> str:
    """A table of the options of `bgan train`, but for those of reading images, which docs/data.md explains."""
    lines = ["| option | what it is | default |", "|---|---|---|"]
    for attribute, group in GROUPS.items():
        lines.append(f"| **{attribute}** | | |")
        lines += [_row(field) for field in fields_of(group) if field.setting.is_option]
    return "\n".join(lines) + "\n"


def _row(field: Field) -> str:
    default = field.setting.shown_default or shown_default(field.name)
    if default is None and field.default not in (None, MISSING):
        default = ("off", "on")[field.default] if field.type is bool else str(field.default)
    return f"| `--{option(field.name)}` | {field.setting.help} | {default or ''} |"
