"""Every setting of the server, from flags, then the environment (BGAN_...), then these defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .model_folder import model_folder


class ServerSettings(BaseSettings):
    """Settings of `bgan serve`. Raises pydantic.ValidationError where a value is out of range."""

    model_config = SettingsConfigDict(env_prefix="BGAN_", frozen=True, extra="ignore")

    models: Path = Field(default_factory=model_folder)
    """The folder whose .onnx files are served: ./models where it is there, else those that come with bgan."""
    default_model: str | None = None
    """What an empty model name means; None: mlp-dbn of those that come with bgan, else the first by name."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 or [::] for all of the machine's."""
    port: int = Field(50051, ge=0, le=65535)
    """The port to listen on; 0: a free one, which is printed."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that share the port; each holds the models and keeps the limits on streams for itself."""
    threads: int = Field(0, ge=0)
    """How many batches a process computes at once, each in a thread; 0: its share of the cores."""
    max_image_count: int = Field(1_000_000_000, ge=1, lt=2**63)
    """The most images one request may ask for."""
    max_batch_size: int = Field(4096, ge=1, lt=2**31)
    """The most images one response may be asked to carry."""
    max_message_bytes: int = Field(4_000_000, ge=1024, lt=2**31)
    """The most bytes one response, or one request for an inference, may take; gRPC's own default is 4 MiB."""
    max_streams: int = Field(256, ge=1)
    """The most streams at once; more are refused with RESOURCE_EXHAUSTED."""
    grace_seconds: float = Field(10.0, ge=0)
    """How long streams may go on after SIGTERM; after half of it they end at the next image boundary."""
