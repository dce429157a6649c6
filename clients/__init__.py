"""Clients of the sampling service: binary images as numpy arrays, from a blocking or an asyncio client."""

from ._aio import AsyncSamplingClient
from ._base import RetryPolicy
from ._client import SamplingClient
from ._errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    SamplingError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from ._types import ImageBatch, Limits, ModelInfo

__all__ = [
    "AsyncSamplingClient",
    "DeadlineExceededError",
    "ImageBatch",
    "InvalidRequestError",
    "Limits",
    "ModelInfo",
    "ModelNotFoundError",
    "RetryPolicy",
    "SamplingClient",
    "SamplingError",
    "ServerOverloadedError",
    "ServerUnavailableError",
]
