"""Where the settings of `bgan serve` come from: options, then the environment, then a TOML file, then defaults."""

import difflib
import json
import os
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from ..errors import ServingError, SettingError, StartError, printable
from .settings import ENVIRONMENT_PREFIX, SETTINGS, ServerSettings

# Variables of other commands.
_OTHER_VARIABLES = {
    f"{ENVIRONMENT_PREFIX}{name}"
    for name in (
        *("CACHE_DIR", "CONFIG", "DATA_DIR", "DEBUG", "RUNS_DIR", "SERVER", "TIMEOUT"),
        *("CLIENT_CERTIFICATE", "CLIENT_KEY", "TLS", "TLS_CA", "TLS_SERVER_NAME", "TOKEN", "TOKEN_FILE"),
    )
}
_TRACES = "OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"
"""OpenTelemetry's own variables, those of traces alone first."""
_COMMENT_COLUMNS = 110
# What Kubernetes sets BGAN_PORT to for a service that is named bgan: no setting, whatever its name.
_SERVICE = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """Settings, and where each value came from."""

    settings: ServerSettings
    origins: Mapping[str, str]
    """By setting: an option, a variable or a file; settings that kept their default are not there."""

    def as_toml(self) -> str:
        """A file that gives these settings again, each with what it does and where it came from.

        Raises StartError if one is not UTF-8, as a path may be.
        """
        entries = []
        for name, setting in SETTINGS.items():
            source = f"{setting.allowed}; from {self.origins.get(name, 'the default')}"
            comment = "".join(f"# {line}\n" for line in (*textwrap.wrap(setting.help, _COMMENT_COLUMNS), source))
            value = getattr(self.settings, name)
            entries.append(comment + (f"# {name} is not set\n" if value is None else f"{name} = {_toml(value)}\n"))
            if any(map(_is_surrogate, entries[-1])):
                raise StartError(f"{name} is {printable(str(value))}, which is not UTF-8: TOML cannot hold it")
        return "\n".join(entries)


def resolve(options: Mapping[str, Any], file: Path | None) -> ResolvedSettings:
    """Settle every setting; an option that is None was not given.

    Raises SettingError with one line that says which setting, from where, and what is allowed.
    """
    given = {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }
    content = {} if file is None else read_toml(file)
    variables = _read_environment()
    endpoint, variable = standard_trace_endpoint()
    standard = {} if endpoint is None else {"trace_endpoint": endpoint}
    origins = {
        **dict.fromkeys(standard, variable),
        **dict.fromkeys(content, str(file)),
        **{name: SETTINGS[name].variable for name in variables},
        **{name: SETTINGS[name].option for name in given},
    }
    try:
        settings = ServerSettings.model_validate({**standard, **content, **variables, **given})
    except ValidationError as error:
        raise SettingError(_explain(error.errors()[0], origins)) from error
    return ResolvedSettings(settings, origins)


def standard_trace_endpoint() -> tuple[str | None, str]:
    """Where OpenTelemetry's own variables send traces, and which does.

    None where they send none, or in a protocol other than gRPC; then the name is that of the variable that says
    so, or empty.
    """
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    named = next((name for each in _TRACES if os.environ.get(name := f"{each}ENDPOINT", "").strip()), None)
    if named is None or is_off or "otlp" not in exporters.split(","):
        return None, ""
    protocol = next((name for each in _TRACES if os.environ.get(name := f"{each}PROTOCOL")), None)
    if protocol is not None and os.environ[protocol].strip() != "grpc":
        return None, protocol
    endpoint = os.environ[named].strip()
    if "://" not in endpoint:
        is_plain = any(os.environ.get(f"{each}INSECURE", "").strip().lower() == "true" for each in _TRACES)
        endpoint = f"{'http' if is_plain else 'https'}://{endpoint}"
    return endpoint, named


def read_toml(file: Path, error_type: type[ServingError] = StartError, *, hint: str = "") -> dict[str, Any]:
    """What a file holds. Raises `error_type` if it cannot be read, with the hint, or is not TOML."""
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise error_type(f"{file} cannot be read ({error.strerror}){hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise error_type(f"{file} is not TOML ({error})") from error


def _read_environment() -> dict[str, Any]:
    known = {setting.variable for setting in SETTINGS.values()}
    for variable in sorted(set(os.environ) - known - _OTHER_VARIABLES):
        # Others may have variables of this prefix too: only what looks like a slip is refused.
        if variable.startswith(ENVIRONMENT_PREFIX) and (near := _nearest(variable, known)):
            raise SettingError(f"{variable} is not a setting; did you mean {near}?")
    values = EnvSettingsSource(ServerSettings)()
    return {name: value for name, value in values.items() if not _SERVICE.fullmatch(str(value))}


def _explain(problem: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    if name in SETTINGS:
        return f"{origins[name]}: {name} is {problem['input']!r}; use {SETTINGS[name].allowed}"
    near = _nearest(name, SETTINGS)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(SETTINGS)}"
    return f"{origins[name]}: {name} is not a setting; {hint}"


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.85)), None)


def _is_surrogate(sign: str) -> bool:
    """Whether a character stands for a byte that is not UTF-8."""
    return "\ud800" <= sign <= "\udfff"


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's strings are TOML's but for one character."""
    plain = value if isinstance(value, bool | int | float) else str(value)
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
