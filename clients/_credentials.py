"""What a client shows of itself and asks of the server: TLS and a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

_PEM_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_METHODS = ("SampleBinaryImages", "ListModels", "GetModel")


def tls_credentials(
    *, ca: str | Path | None = None, certificate: str | Path | None = None, key: str | Path | None = None
) -> grpc.ChannelCredentials:
    """Credentials for a server that has TLS, out of PEM files.

    ca: the authorities that the server's certificate must come from; None: the public ones that gRPC brings, or
        those of the file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.
    certificate, key: for a server that wants its clients to have certificates (mutual TLS).

    Raises OSError for a file that cannot be read, ValueError for one that is no PEM file, or a certificate without
    its key.
    """
    if (certificate is None) != (key is None):
        raise ValueError("a client's certificate and its key go together; name both")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(ca, _PEM_CERTIFICATE),
        private_key=_read(key, b"PRIVATE KEY-----"),
        certificate_chain=_read(certificate, _PEM_CERTIFICATE),
    )


def _read(path: str | Path | None, mark: bytes) -> bytes | None:
    if path is None:
        return None
    content = Path(path).read_bytes()
    if mark not in content:
        kind = "certificate" if mark == _PEM_CERTIFICATE else "private key"
        raise ValueError(f"{path} holds no PEM {kind}")
    return content


def check_token(token: str) -> str:
    """The token without what surrounds it. Raises ValueError for what cannot be one; does not show it."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty, or has characters that no token has")
    return token


def with_token(stub: Any, token: str | None) -> Any:
    """The methods of a stub, whose calls carry the token."""
    if token is None:
        return stub
    # As metadata of each call: gRPC's own call credentials are for TLS alone, and some have a proxy for that.
    mark = ("authorization", f"Bearer {token}")

    def marked(method: Any) -> Callable[..., Any]:
        return lambda request, *, metadata=(), **options: method(request, metadata=(*metadata, mark), **options)

    return SimpleNamespace(**{name: marked(getattr(stub, name)) for name in _METHODS})
