"""How a client trusts a server and identifies itself: TLS and a token."""

import socket
import ssl
from pathlib import Path
from typing import Literal

import grpc

TLS_MARK = "TLS: "
"""What a message has where TLS is the trouble, which no other try mends."""
_OTHER_NAME = "the server's certificate is for another name; use server_name or --tls-server-name"
_CERTIFICATE_PROBLEMS = {
    "Hostname Verification": _OTHER_NAME,
    "is not in peer certificate": _OTHER_NAME,  # in the words of gRPC 1.73
    "CERTIFICATE_VERIFY_FAILED": (
        "the server's certificate has expired, or is of no authority trusted here; name one by ca or --tls-ca"
    ),
}
_TLS_ALONE = "the server takes TLS alone; give credentials, such as tls_credentials(), --tls or --tls-ca"
# By whether the client has TLS, and what a handshake found.
_PROBLEMS: dict[tuple[bool, str | None], str] = {
    (False, "open"): _TLS_ALONE,
    (False, "closed"): _TLS_ALONE,
    (True, "plaintext"): "the server speaks no TLS; leave the credentials or the TLS options out",
    (True, "closed"): "the server asks for a client's certificate; name one that it trusts, and its key",
}
_PROBE_SECONDS = 1.0
_NOT_REACHED = ("connect", "backends failing", "Socket closed", "reset", "handshake")
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


def tls_problem(host: str, port: int, grpc_text: str, *, is_secure: bool) -> str | None:
    """What of TLS keeps a client from a server that listens there; None: nothing, as far as can be seen.

    gRPC says "Socket closed" for most of it, or of a name with two addresses what the other one said. So a
    handshake that trusts anything looks, within a second. Raises OSError where nothing listens.
    """
    for text, problem in _CERTIFICATE_PROBLEMS.items():
        if is_secure and text in grpc_text:
            return f"{TLS_MARK}{problem}"
    if not any(text in grpc_text for text in _NOT_REACHED):
        return None
    found = _handshake(host, port)
    if is_secure and found == "open" and "refused" in grpc_text:  # at another address of the name, or a moment ago
        return "a server with TLS is there; does its certificate's name fit (server_name, --tls-server-name)?"
    known = _PROBLEMS.get((is_secure, found))
    return None if known is None else f"{TLS_MARK}{known}"


def _handshake(host: str, port: int) -> Literal["plaintext", "open", "closed"] | None:
    """What a server speaks; with TLS, whether it lets in one without a certificate. None: it cannot be told."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    is_done = False
    with socket.create_connection((host, port), timeout=_PROBE_SECONDS) as connection:
        try:
            with context.wrap_socket(connection, server_hostname=host) as secure:
                is_done = True
                return "open" if secure.recv(1) else "closed"  # by HTTP/2 a server speaks first
        except ssl.SSLError as error:
            if error.reason == "WRONG_VERSION_NUMBER":
                return "plaintext"
            return "closed" if is_done or "HANDSHAKE_FAILURE" in str(error) else None
        except OSError:
            return "closed" if is_done else None


def _read(path: str | Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    content = Path(path).read_bytes()
    if _PEM_MARKS[kind] not in content:
        raise ValueError(f"{path} holds no PEM {kind}")
    return content


def check_token(token: str) -> str:
    """The token without surrounding whitespace. Raises ValueError, which does not show it, if it is invalid."""
    if not isinstance(token, str):
        raise ValueError("the token is no text")
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is empty or has invalid characters")
    return token
