"""Every setting of the server: a typed field with its help, choices, range and panel of --help.

Options, variables, TOML keys, messages and the documentation's tables follow from these fields (`SETTINGS`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .limits import MAX_MODEL_BYTES, MODEL_CACHE_BYTES

ENVIRONMENT_PREFIX = "BGAN_"
SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of the models that come with bgan."""
WHICH_FOLDER = "./models if it exists, else the shipped models"
"""What `model_folder` gives, in words."""
INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
_DAY = 86400
_ORIGINS = r"^https?://[^\s/,*]+(,https?://[^\s/,*]+)*$"
_MODELS, _ADDRESS, _SECURITY, _CALLS = "Models", "Address and processes", "Security", "Calls"
_TELEMETRY, _STOPPING = "Metrics, logs and traces", "Stopping"
# By JSON schema's name of a type or format.
_KINDS: dict[str, tuple[type, str]] = {
    "integer": (int, "a whole number"),
    "number": (float, "a number"),
    "string": (str, "text"),
    "path": (Path, "a path"),
    "boolean": (bool, "true or false"),
    "location": (str, "a path, or a URL such as s3://bucket/models"),  # as a path a URL would lose a slash
}
_PATTERNS = {_ORIGINS: "origins such as https://a.example, without paths, with commas between them"}
_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


def model_folder() -> Path:
    """./models, where `bgan export` writes, if it exists, else the models that come with bgan."""
    return own if (own := Path("models")).exists() else SHIPPED


def is_url(text: str) -> bool:
    """Whether a text names no path, but what a library of stores opens."""
    return "://" in text


def _location(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and not is_url(value) else value


Location = Annotated[Path | str, BeforeValidator(_location), Field(json_schema_extra={"format": "location"})]
"""A folder, or as text a URL."""


def _setting(
    panel: str,
    default: object | Callable[[], object],
    *,
    shown: str | None = None,
    is_repeated: bool = False,
    **limits: float | str,
) -> Any:
    """A field; `shown` says what its default means where the value itself does not."""
    arguments: dict[str, Any] = {"default_factory" if callable(default) else "default": default, **limits}
    words = shown or (f"{default:g}" if isinstance(default, float) else str(default))
    return Field(json_schema_extra={"panel": panel, "shown": words, "repeated": is_repeated}, **arguments)


class ServerSettings(BaseSettings):
    """Settings of `bgan serve`. Raises pydantic.ValidationError if a value is out of range."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given alone: `sources.resolve` reads the environment."""
        return (init_settings,)

    models: Location = _setting(_MODELS, model_folder, shown=WHICH_FOLDER)
    """The folder, or URL (s3://, https://), of models: NAME.onnx, NAME/VERSION.onnx or NAME/VERSION/model.onnx."""
    default_model: str | None = _setting(_MODELS, None, shown="the first by name")
    """The model for calls that name none."""
    model_versions: int = _setting(_MODELS, 2, ge=1)
    """How many versions of each model to load, the highest first."""
    model_poll_seconds: float = _setting(_MODELS, 2.0, ge=0, le=_DAY)
    """How often to check the folder; a change counts once two checks agree. 0: never."""
    model_keep_seconds: float = _setting(_MODELS, 60.0, ge=0, le=_DAY)
    """How long a replaced or removed version still answers by its revision after its last call."""
    max_model_bytes: int = _setting(_MODELS, MAX_MODEL_BYTES, ge=1024, le=INT32_MAX)
    """The largest model file to read; larger ones are not served."""
    model_cache: Path | None = _setting(_MODELS, None, shown="in the user's cache")
    """Where the files of a URL are kept, in a folder for each URL."""
    model_cache_bytes: int = _setting(_MODELS, MODEL_CACHE_BYTES, ge=1024)
    """The most bytes of them; the highest versions come first."""
    provider: Literal["cpu", "cuda", "openvino"] = _setting(_MODELS, "cpu")
    """What computes images: the CPU, CUDA (a GPU, with the package onnxruntime-gpu) or OpenVINO
    (onnxruntime-openvino). Other providers give float models other revisions."""
    host: str = _setting(_ADDRESS, "127.0.0.1")
    """The address to listen on; 0.0.0.0 or [::] for all of the machine's."""
    port: int = _setting(_ADDRESS, 50051, ge=0, le=65535)
    """The port to listen on; 0 picks a free one, which the log shows."""
    http_port: int | None = _setting(_ADDRESS, None, shown="no HTTP", ge=0, le=65535)
    """The port that answers HTTP: images, models, health and metrics; 0 picks a free one, which the log shows."""
    http_origins: str | None = _setting(_ADDRESS, None, shown="no others", is_repeated=True, pattern=_ORIGINS)
    """The web pages of other servers that may call it, such as https://a.example (CORS); for several repeat the
    option, or write a list."""
    http_runtime: Path | None = _setting(_ADDRESS, None, shown="what `make browser` fetched")
    """The folder `dist` of npm's package onnxruntime-web, with which the gallery computes images in the page."""
    workers: int = _setting(_ADDRESS, 1, ge=1, le=256)
    """Processes that share the port (Linux only); each loads the models and has its own limits on calls."""
    threads: int = _setting(_ADDRESS, 0, ge=0, shown="its share of the cores")
    """Batches that a process computes at once, one thread each; 0: its share of the cores."""
    tls_certificate: Path | None = _setting(_SECURITY, None, shown="plaintext")
    """The server's certificate, then its intermediates, a PEM file; turns TLS on."""
    tls_key: Path | None = _setting(_SECURITY, None, shown="none")
    """The certificate's private key, a PEM file without a passphrase."""
    tls_client_ca: Path | None = _setting(_SECURITY, None, shown="any client")
    """A PEM file of authorities; only clients that they certified are admitted (mutual TLS)."""
    tokens: Path | None = _setting(_SECURITY, None, shown="no token needed")
    """The file of tokens that `bgan token` writes; every call must carry one of them."""
    health: Literal["open", "token"] = _setting(_SECURITY, "open")
    """Who may ask for the server's health: everyone, or only callers with a token."""
    reflection: bool = _setting(_SECURITY, True, shown="on")
    """Tell all callers which services there are (server reflection)."""
    model_files: bool = _setting(_SECURITY, True, shown="on")
    """Let callers over HTTP download the files of models they may sample, with which pages compute images."""
    metrics_port: int | None = _setting(_TELEMETRY, None, shown="no metrics", ge=0, le=65535)
    """The port that shows metrics to Prometheus and all who reach it; 0 picks a free one, which the log shows."""
    metrics_host: str = _setting(_TELEMETRY, "127.0.0.1")
    """The address that shows metrics; 0.0.0.0 or [::] for all of the machine's."""
    log_format: Literal["text", "json"] = _setting(_TELEMETRY, "text")
    """How to write the log on stderr: for people, or one JSON object per line."""
    log_calls: Literal["none", "failed", "all"] = _setting(_TELEMETRY, "failed")
    """Which calls to log when they end; errors inside the server always are."""
    trace_endpoint: str | None = _setting(_TELEMETRY, None, shown="no traces")
    """Where a collector takes OpenTelemetry traces over OTLP/gRPC, such as http://localhost:4317."""
    max_image_count: int = _setting(_CALLS, 1_000_000_000, ge=1, le=_INT64_MAX)
    """The most images a request may ask for."""
    max_batch_size: int = _setting(_CALLS, 4096, ge=1, le=INT32_MAX)
    """The most images a response may carry."""
    max_message_bytes: int = _setting(_CALLS, 4_000_000, ge=1024, le=INT32_MAX)
    """The most bytes of a response, or of a request for an inference; gRPC's own default is 4 MiB."""
    max_connections: int = _setting(_CALLS, 1000, ge=16)
    """The most connections of all workers together; those unused for the longest time make room for new ones."""
    max_connections_per_address: int = _setting(_CALLS, 250, ge=1)
    """The most of them of one address (a proxy is one) or network of IPv6 (/64)."""
    max_streams: int = _setting(_CALLS, 256, ge=1)
    """The most streams and inferences that a process runs at once."""
    max_streams_per_caller: int = _setting(_CALLS, 128, ge=1)
    """The most of them, running or queued, for one address (a proxy is one) or token."""
    max_queued_calls: int = _setting(_CALLS, 64, ge=0)
    """How many calls may wait for a slot, in order and within their deadlines; more are refused."""
    stalled_write_seconds: float = _setting(_CALLS, 60.0, gt=0, le=_DAY)
    """After how long to end a stream whose reader takes nothing; it can be resumed."""
    keepalive_seconds: float = _setting(_CALLS, 60.0, ge=1, le=_DAY)
    """How often to ping a connection without traffic; one of HTTP is closed then."""
    max_connection_age_seconds: float = _setting(_CALLS, 0.0, ge=0, le=_DAY)
    """The age, give or take a tenth, at which a connection takes no new calls; clients then connect again, and so
    find new servers of a name. 0: any age."""
    lame_duck_seconds: float = _setting(_STOPPING, 0.0, ge=0, le=_DAY)
    """How long to answer new calls after SIGTERM, while health is NOT_SERVING and balancers turn away."""
    grace_seconds: float = _setting(_STOPPING, 10.0, ge=0, le=_DAY)
    """How long running calls have after that; after half of it streams end at an image boundary."""

    def as_argument(self) -> str:
        """These settings as a worker's command takes them, whatever bytes a path has."""
        return json.dumps(self.model_dump(), default=str)

    @classmethod
    def of_argument(cls, text: str) -> Self:
        """The settings of `as_argument`."""
        return cls.model_validate(json.loads(text))

    @field_validator("http_origins", mode="before")
    @classmethod
    def _join(cls, value: Any) -> Any:
        """A list, as a file may have it, with commas."""
        return ",".join(map(str, value)) if isinstance(value, list) else value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        """In Python true is a 1; in a file it is a slip."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("true and false are not values of it")
        return value


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
    is_repeated: bool
    """Whether its option may be given several times; its values stand with commas between them."""


def _describe(name: str, schema: dict[str, Any]) -> Setting:
    schema = {**schema.get("anyOf", [{}])[0], **schema}
    kind, allowed = _KINDS[schema.get("format", schema["type"])]
    metavar = "PATH|URL" if schema.get("format") == "location" else None
    if "pattern" in schema:
        allowed = _PATTERNS[schema["pattern"]]
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
        is_repeated=schema["repeated"],
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
