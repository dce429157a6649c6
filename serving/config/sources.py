"""Where the settings of `bgan serve` come from: flags, then the environment, then a TOML file, then defaults."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from ..errors import StartError
from .settings import ENVIRONMENT_PREFIX, ServerSettings

CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
# Variables of other commands.
_OTHER_VARIABLES = {
    f"{ENVIRONMENT_PREFIX}{name}" for name in ("CONFIG", "DATA_DIR", "DEBUG", "SERVER", "TLS_CA", "TOKEN")
}
_TYPE_NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """Settings, and where each value came from."""

    settings: ServerSettings
    origins: Mapping[str, str]
    """By setting: a flag, a variable or a file; settings that kept their default are not there."""

    def as_toml(self) -> str:
        """A file that gives these settings again, each with what it does and where it came from."""
        fields = ServerSettings.model_fields.items()
        return "\n".join(self._entry(name, field.description or "") for name, field in fields)

    def _entry(self, name: str, description: str) -> str:
        lines = [*description.split("\n"), f"{_allowed(name)}; from {self.origins.get(name, 'the default')}"]
        comment = "".join(f"# {line}\n" for line in lines)
        value = getattr(self.settings, name)
        return f"{comment}# {name} is not set\n" if value is None else f"{comment}{name} = {_toml(value)}\n"


def resolve(flags: Mapping[str, Any], file: Path | None) -> ResolvedSettings:
    """Settle every setting. Raises StartError with one line that says which key, where, and what is allowed."""
    content = {} if file is None else _read(file)
    variables = _read_environment()
    origins = {
        **dict.fromkeys(content, str(file)),
        **{name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in variables},
        **{name: f"--{name.replace('_', '-')}" for name in flags},
    }
    try:
        settings = ServerSettings.model_validate({**content, **variables, **flags})
    except ValidationError as error:
        raise StartError(_explain(error.errors()[0], origins)) from error
    return ResolvedSettings(settings, origins)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise StartError(f"{file} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{file} is no TOML ({error})") from error


def _read_environment() -> dict[str, Any]:
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in ServerSettings.model_fields}
    for variable in sorted(set(os.environ) - known - _OTHER_VARIABLES):
        # Others may have variables of this prefix too: only what looks like a slip is refused.
        if variable.startswith(ENVIRONMENT_PREFIX) and (near := _nearest(variable, known)):
            raise StartError(f"{variable} is no setting; did you mean {near}?")
    return EnvSettingsSource(ServerSettings)()


def _explain(problem: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    origin = origins[name]
    if problem["type"] == "extra_forbidden":
        near = _nearest(name, ServerSettings.model_fields)
        names = ", ".join(ServerSettings.model_fields)
        return f"{origin}: {name} is no setting; " + (f"did you mean {near}?" if near else f"there are {names}")
    return f"{origin}: {name} is {problem['input']!r}; use {_allowed(name)}"


def _nearest(name: str, names: Any) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.85)), None)


def _allowed(name: str) -> str:
    """What values a setting takes, in words."""
    schema: dict[str, Any] = ServerSettings.model_json_schema()["properties"][name]
    schema = {**schema, **schema.get("anyOf", [{}])[0]}
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    least, most = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMaximum" in schema:
        most = schema["exclusiveMaximum"] - 1
    limits = "" if least is None else f" from {least}" if most is None else f" from {least} to {most}"
    return f"{_TYPE_NAMES[schema['type']]}{limits}"


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's strings are TOML's but for one character."""
    plain = value if isinstance(value, bool | int | float) else str(value)
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
