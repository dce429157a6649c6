"""Settings as text: TOML (`bgan train --print-config`), JSON (a run's config.json), and Markdown (the docs)."""

import json
import textwrap
import tomllib
from collections.abc import Collection
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, RunError
from .images import ImageOptions
from .presets import shown_default
from .setting import Field, fields_of, option
from .training import GROUPS, RENAMED_SETTINGS, SETTINGS, TrainingConfig

_OPTIONS = {field.name for field in fields_of(ImageOptions)}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file by name, those of reading images too.

    Raises RunError where it cannot be read or holds none, and ConfigError for what is no setting.

    A table of TOML, or an object in JSON, is only a heading: its settings count as if they stood outside of it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        advice = "name a TOML file, or the config.json of a run"
        raise RunError(f"{path} cannot be read ({reason}); {advice}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no settings; name a TOML file, or the config.json of a run")
    settings: dict[str, Any] = {}
    for name, value in content.items():
        settings |= value if isinstance(value, dict) else {name: value}
    settings = {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items() if value is not None}
    unknown = sorted(settings.keys() - SETTINGS.keys() - _OPTIONS - {"preset"})
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is no setting; `bgan train --print-config` lists them")
    return settings


def as_toml(config: TrainingConfig, *, open_ones: Collection[str] = ()) -> str:
    """All settings as a TOML file with their help, which `read_settings` reads; open ones are commented out."""
    values = {**config.settings(), **config.data.options.to_dict(), **dict.fromkeys(open_ones)}
    data, *others = GROUPS.items()
    lines = [f"preset = {json.dumps(config.preset)}"] if config.preset else []
    for name, group in (data, ("images", ImageOptions), *others):
        lines += ["", f"[{name}]"]
        for field in fields_of(group):
            lines += _lines(field, values[field.name])
    return "\n".join(lines) + "\n"


def _lines(field: Field, value: Any) -> list[str]:
    """A setting with its help; one that is None is commented out."""
    bounds = field.range_text()
    help_text = field.setting.help + (f" Must be {bounds}." if bounds else "")
    comment = [f"# {line}" for line in textwrap.wrap(help_text, 100, break_on_hyphens=False)]
    if value is None:
        return [*comment, f"# {field.name} ="]
    return [*comment, f"{field.name} = {json.dumps(value, ensure_ascii=False)}"]


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
