"""How a client trusts a server and identifies itself: TLS and a token."""

from pathlib import Path

import grpc

_PEM_MARKS = {"certificate": b"-----BEGIN CERTIFICATE-----", "private key": b"PRIVATE KEY-----"}


def tls_credentials(
    *, ca: str | Path | None = None, certificate: str | Path | None = None, key: str | Path | None = None
) -> grpc.ChannelCredentials:
    """Credentials for a server with TLS, from PEM files.

    ca: the authorities that may have issued the server's certificate; None: the public ones that gRPC ships, or
        those in the file named by GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
    certificate, key: the client's own, for a server that requires certificates of its clients (mutual TLS).

    Raises OSError for a file that cannot be read, ValueError for one that is no PEM file or for a certificate
    without its key.
    """
    if (certificate is None) != (key is None):
        raise ValueError("a client's certificate and its key go together; name both")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(ca, "certificate"),
        private_key=_read(key, "private key"),
        certificate_chain=_read(certificate, "certificate"),
    )


def _read(path: str | Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    content = Path(path).read_bytes()
    if _PEM_MARKS[kind] not in content:
        raise ValueError(f"{path} holds no PEM {kind}")
    return content


def check_token(token: str) -> str:
    """The token without surrounding whitespace. Raises ValueError, which does not show it, if it is invalid."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty or has invalid characters")
    return token
