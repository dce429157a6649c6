"""Files of settings: TOML, as `bgan train --print-config` writes it, or a run's config.json."""

import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError
from .images import ImageOptions
from .setting import Field, fields_of
from .training import GROUPS, RENAMED_SETTINGS, SETTINGS, TrainingConfig

_IMAGES = "images"
_OPTIONS = {field.name for field in fields_of(ImageOptions)}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file by name, those of reading images too. Raises ConfigError where it is not one of them.

    A table of TOML, or an object in JSON, is only a heading: its settings count as if they stood outside of it.
    """
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{path} cannot be read ({reason}); name a TOML file, or the config.json of a run"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; name a TOML file, or the config.json of a run")
    settings: dict[str, Any] = {}
    for name, value in content.items():
        settings |= value if isinstance(value, dict) else {name: value}
    settings = {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items() if value is not None}
    unknown = sorted(settings.keys() - SETTINGS.keys() - _OPTIONS - {"preset"})
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is no setting; `bgan train --print-config` lists them")
    return settings


def as_toml(config: TrainingConfig) -> str:
    """All settings as a TOML file with their help, which `read_settings` reads."""
    own, options = config.settings(), config.data.options.to_dict()
    lines = [f"preset = {json.dumps(config.preset)}"] if config.preset else []
    for attribute, group in GROUPS.items():
        lines += ["", f"[{attribute}]"]
        for field in fields_of(group):
            lines += _lines(field, own[field.name])
        if attribute == "data":
            lines += ["", f"[{_IMAGES}]"]
            for field in fields_of(ImageOptions):
                lines += _lines(field, options[field.name])
    return "\n".join(lines) + "\n"


def _lines(field: Field, value: Any) -> list[str]:
    """A setting with its help; one that is None is commented out."""
    bounds = field.range_text()
    help_text = field.setting.help + (f" Must be {bounds}." if bounds else "")
    comment = [f"# {line}" for line in textwrap.wrap(help_text, 100, break_on_hyphens=False)]
    if value is None:
        return [*comment, f"# {field.name} ="]
    return [*comment, f"{field.name} = {json.dumps(value, ensure_ascii=False)}"]
