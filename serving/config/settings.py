"""Every setting of the server; `sources` says where their values come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .default_models import model_folder

ENVIRONMENT_PREFIX = "BGAN_"
MAX_MODEL_BYTES = 268_435_456
"""The largest model file that is read, unless a setting says otherwise."""


class ServerSettings(BaseSettings):
    """Settings of `bgan serve`. Raises pydantic.ValidationError where a value is out of range."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    models: Path = Field(default_factory=model_folder)
    """The folder of models, NAME.onnx, NAME/VERSION.onnx and NAME/VERSION/model.onnx: ./models where it is there,
    else those that come with bgan."""
    default_model: str | None = None
    """The model of calls that name none; not set: the first by name."""
    model_versions: int = Field(2, ge=1)
    """How many versions of a model are loaded, the highest numbers; others of its files are left alone."""
    model_poll_seconds: float = Field(2.0, ge=0, le=86400)
    """How often the folder is looked at; new, changed and removed files count at the second look; 0: never."""
    model_keep_seconds: float = Field(60.0, ge=0, le=86400)
    """How long a replaced or removed version can still be asked for by its revision, since its last call."""
    max_model_bytes: int = Field(MAX_MODEL_BYTES, ge=1024, lt=2**31)
    """The largest model file that is read; larger ones cannot be served."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 or [::] for all of the machine's."""
    port: int = Field(50051, ge=0, le=65535)
    """The port to listen on; 0: a free one, which is printed."""
    tls_certificate: Path | None = None
    """The server's certificate with those between it and its authority, a PEM file; not set: plaintext."""
    tls_key: Path | None = None
    """The certificate's private key, a PEM file without a passphrase."""
    tls_client_ca: Path | None = None
    """The authorities, in a PEM file, whose clients alone are let in (mutual TLS); not set: any client."""
    tokens: Path | None = None
    """The file of tokens, as `bgan token` writes it, one of which every call must carry; not set: none."""
    health: Literal["open", "token"] = "open"
    """Who may ask for the health: all who reach the server, or only who has a token."""
    reflection: bool = True
    """Whether the server tells all who reach it what its services are (server reflection)."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that share the port; each holds the models and keeps the limits on streams for itself."""
    threads: int = Field(0, ge=0)
    """How many batches a process computes at once, each in a thread; 0: its share of the cores."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """The port that shows metrics to Prometheus, to all who reach it; 0: a free one, printed; not set: none."""
    metrics_host: str = "127.0.0.1"
    """The address that shows metrics; 0.0.0.0 or [::] for all of the machine's."""
    log_format: Literal["text", "json"] = "text"
    """How the log is written on stderr: for people, or as one JSON object a line."""
    log_calls: Literal["none", "failed", "all"] = "failed"
    """Which calls are logged when they end; errors inside the server always are."""
    trace_endpoint: str | None = None
    """Where a collector takes OpenTelemetry traces over OTLP/gRPC, as http://host:4317; not set: none are sent."""
    max_image_count: int = Field(1_000_000_000, ge=1, lt=2**63)
    """The most images one request may ask for."""
    max_batch_size: int = Field(4096, ge=1, lt=2**31)
    """The most images one response may be asked to carry."""
    max_message_bytes: int = Field(4_000_000, ge=1024, lt=2**31)
    """The most bytes one response, or one request for an inference, may take; gRPC's own default is 4 MiB."""
    max_streams: int = Field(256, ge=1)
    """The most streams and inferences that a process runs at once."""
    max_streams_per_caller: int = Field(128, ge=1)
    """How many of them, running or waiting, one address may have; behind a proxy all callers are one."""
    max_queued_calls: int = Field(64, ge=0)
    """How many calls may wait for a place, in turn and within their deadlines; more are refused."""
    stalled_write_seconds: float = Field(60.0, gt=0, le=86400)
    """A stream whose reader has taken nothing for so long is ended; it can be gone on with."""
    keepalive_seconds: float = Field(60.0, ge=1, le=86400)
    """How often the other side of a connection without traffic is asked whether it is there."""
    max_connection_age_seconds: float = Field(0.0, ge=0, le=86400)
    """The age at which a connection takes no more calls, give or take a tenth: those on it go on, others come on a
    new one, for which clients look the server's name up again; 0: any age."""
    lame_duck_seconds: float = Field(0.0, ge=0, le=86400)
    """How long new calls are still taken after SIGTERM, while health says NOT_SERVING and balancers turn away."""
    grace_seconds: float = Field(10.0, ge=0, le=86400)
    """How long calls may go on after that; after half of it streams end at the next image boundary."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        """In Python true is a 1; in a file it is a slip."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("true and false are no values of it")
        return value
