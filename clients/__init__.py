"""Clients of the sampling service: binary images as numpy arrays, from a blocking or an asyncio client."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._async_client import AsyncSamplingClient
    from ._client import SamplingClient
    from ._credentials import tls_credentials
    from ._errors import (
        DeadlineExceededError,
        InvalidRequestError,
        ModelNotFoundError,
        PermissionDeniedError,
        RevisionChangedError,
        SamplingError,
        ServerOverloadedError,
        ServerUnavailableError,
        UnauthenticatedError,
    )
    from ._reading import ImageFileError, load_images
    from ._retry import RetryPolicy
    from ._types import ImageBatch, Limits, ModelFailure, ModelInfo, ModelList

__all__ = [
    "AsyncSamplingClient",
    "DeadlineExceededError",
    "ImageBatch",
    "ImageFileError",
    "InvalidRequestError",
    "Limits",
    "ModelFailure",
    "ModelInfo",
    "ModelList",
    "ModelNotFoundError",
    "PermissionDeniedError",
    "RetryPolicy",
    "RevisionChangedError",
    "SamplingClient",
    "SamplingError",
    "ServerOverloadedError",
    "ServerUnavailableError",
    "UnauthenticatedError",
    "load_images",
    "tls_credentials",
]

_MODULES = {
    "AsyncSamplingClient": "_async_client",
    "ImageFileError": "_reading",
    "load_images": "_reading",
    "RetryPolicy": "_retry",
    "SamplingClient": "_client",
    "tls_credentials": "_credentials",
} | dict.fromkeys(("ImageBatch", "Limits", "ModelFailure", "ModelInfo", "ModelList"), "_types")


def __getattr__(name: str) -> object:
    # Loaded on first use: `bgan --help` passes here and needs neither grpc nor numpy.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, '_errors')}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
