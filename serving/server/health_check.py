"""Asks a server for its health, or that of one model, by `grpc.health.v1`."""

import re
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bgan.v1 import sampling_pb2

from ..config.addresses import own_address
from ..config.settings import ServerSettings
from ..errors import NotServingError, UsageError, printable

SAMPLING = sampling_pb2.DESCRIPTOR.services_by_name["SamplingService"]
_STATUS = health_pb2.HealthCheckResponse
_AWAY = grpc.StatusCode.UNAVAILABLE
_HINT_SECONDS = 1.0
_OTHER_NAME = "is for another name; use --tls-server-name"
_CERTIFICATE_PROBLEMS = {
    "Hostname Verification": _OTHER_NAME,
    "is not in peer certificate": _OTHER_NAME,  # in the words of gRPC 1.73
    "CERTIFICATE_VERIFY_FAILED": "has expired, or is of no authority trusted here; name one by --tls-ca",
}
_NO_SERVER = "nothing listens there; start a server with `bgan serve`, or name another address with --server"
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_URI = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):.*[^/]")
_MAX_PORT = 65535
_NO_LIMIT_SECONDS = 1e6  # gRPC and sockets take more than some for a time that is over
# A probe asks the server itself, whatever proxy the environment names.
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def model_service(name: str) -> str:
    """The service whose health is that of a model."""
    return f"{SAMPLING.full_name}/{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsCheck:
    """How the server's certificate is checked, and which one is shown to it."""

    ca: bytes | None = None
    """PEM of the authorities to trust, or of the certificate itself; None: the public authorities."""
    certificate: bytes | None = None
    key: bytes | None = None
    """This side's own as PEM, for mutual TLS."""
    server_name: str | None = None
    """The name to expect in the certificate; None: that of the address."""

    def channel(self, target: str) -> grpc.Channel:
        """A channel to a server."""
        credentials = grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
        named = [] if self.server_name is None else [("grpc.ssl_target_name_override", self.server_name)]
        return grpc.secure_channel(target, credentials, options=[*_OPTIONS, *named])


def own_tls(settings: ServerSettings, *, timeout_seconds: float) -> TlsCheck | None:
    """How to ask a server of these settings on its own machine, trusting any certificate; None: in plaintext.

    A probe finds out whether the server serves; it must not fail one whose new files are invalid. Raises
    NotServingError if the server shows no certificate.
    """
    if settings.tls_certificate is None:
        return None
    from ..security.certificates import name_in

    target = own_address(settings.host, settings.port)
    try:
        shown = _shown_certificate(target, timeout_seconds)
    except OSError as error:
        refused = f"; {_NO_SERVER}" if isinstance(error, ConnectionRefusedError) else ""
        raise NotServingError(f"{target}: shows no certificate: {error.strerror or error}{refused}") from error
    return TlsCheck(ca=shown, server_name=name_in(shown))


def _shown_certificate(target: str, timeout_seconds: float) -> bytes:
    """The certificate that a server shows, as PEM, unchecked. Raises OSError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])  # gRPC logs connections that want something else
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection(
            (host.strip("[]"), int(port)), timeout=min(timeout_seconds, _NO_LIMIT_SECONDS)
        ) as connection,
        context.wrap_socket(connection) as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
    if certificate is None:
        raise OSError("the server has none")
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def check_health(
    target: str,
    model: str | None,
    *,
    timeout_seconds: float,
    tls: TlsCheck | None = None,
    token: str | None = None,
) -> None:
    """Return if the server at `target`, or its model, is SERVING. Raises NotServingError, which says why not."""
    check_address(target)
    what = "the server" if model is None else f"model '{printable(model)}'"
    if model is not None and not model.isascii():
        raise NotServingError(
            f"{target}: {what} cannot be there; names have ASCII letters, digits, '.', '_' and '-'"
        )
    request = health_pb2.HealthCheckRequest(service="" if model is None else model_service(model))
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(target, options=_OPTIONS) if tls is None else tls.channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs do not name its methods
        try:
            timeout = None if timeout_seconds > _NO_LIMIT_SECONDS else timeout_seconds
            status = stub.Check(request, timeout=timeout, metadata=metadata).status
        except grpc.RpcError as error:
            hint = _hint(target, error.details() or "", tls) if error.code() == _AWAY else None
            known = "SERVICE_UNKNOWN" if error.code() == grpc.StatusCode.NOT_FOUND else "UNREACHABLE"
            reason = "; ".join(filter(None, (_reason(error, what), hint)))
            raise NotServingError(f"{target}: {reason}", status=known) from error
    if status != _STATUS.SERVING:
        name = _STATUS.ServingStatus.Name(status)
        raise NotServingError(f"{target}: {what} is {name}", status=name)


def check_address(target: str) -> None:
    """Raises UsageError unless gRPC can take a target: host:port, or a URI such as unix:/run/x."""
    endpoint = _ENDPOINT.fullmatch(target)
    is_valid = _URI.match(target) if endpoint is None else 1 <= int(endpoint["port"]) <= _MAX_PORT
    if not is_valid:
        shown, examples = printable(target), "localhost:50051 or [::1]:50051"
        raise UsageError(f"'{shown}' is no address of a server; use host:port, such as {examples}")


def refuse_plaintext(target: str) -> None:
    """Raises UsageError where a token without TLS would leave this machine."""
    endpoint = _ENDPOINT.fullmatch(target)
    host = "" if endpoint is None else endpoint["host"].strip("[]")
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost" or target.startswith("unix")
    if not is_here:
        raise UsageError(
            f"the token would go to {printable(target)} in plaintext, for all on the way to read; use TLS (--tls, "
            "--tls-ca), or insist (--plaintext-token)"
        )


def _hint(target: str, said: str, tls: TlsCheck | None) -> str | None:
    """What kept a call from a server, of which gRPC `said` something, and what to do; None: it cannot be told."""
    problem = next((advice for words, advice in _CERTIFICATE_PROBLEMS.items() if words in said), None)
    if problem is not None:
        return f"TLS: the server's certificate {problem}"
    return _hint_of_handshake(target, is_secure=tls is not None)


def _hint_of_handshake(target: str, *, is_secure: bool) -> str | None:
    """What another try to connect tells."""
    if not _ENDPOINT.fullmatch(target):
        return None
    try:
        _shown_certificate(target, _HINT_SECONDS)
    except ConnectionRefusedError:
        return _NO_SERVER
    except ssl.SSLError as error:
        if is_secure and error.reason == "WRONG_VERSION_NUMBER":
            return "TLS: the server speaks no TLS; leave the TLS options out"
        return None
    except OSError:
        return None
    return None if is_secure else "TLS: the server takes TLS alone; name --tls or --tls-ca"


def _reason(error: Any, what: str) -> str:
    """Why a call failed; `error` is gRPC's, which is a `grpc.Call` too."""
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return f"{what} is not known; `bgan models` lists the models"
    return f"no answer about {what}: {error.code().name}: {printable(error.details() or '')}"
