"""Certificates and keys in PEM files, checked so that errors are one line."""

import logging
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ..errors import StartError

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_SOON = timedelta(days=14)
_log = logging.getLogger(__name__)


class TlsFiles(NamedTuple):
    """What the PEM files of a server hold."""

    configuration: grpc.ServerCertificateConfiguration
    """Its certificate with its chain, its key, and the authorities of its clients, for gRPC."""
    client_authorities: tuple[x509.Certificate, ...]
    context: ssl.SSLContext | None
    """The same for HTTP, if it is wanted."""


def read_tls_files(certificate: Path, key: Path, client_ca: Path | None, *, for_http: bool = False) -> TlsFiles:
    """Read and check a server's certificate, its key, and the authorities of its clients.

    Raises StartError if one cannot be read or is invalid, or key and certificate do not belong together.
    """
    chain, key_content = read_pem(certificate), read_pem(key)
    own, *_ = _certificates(certificate, chain)
    _check_key(own, certificate, key_content, key)
    _log_expiry(certificate, [own])
    roots, authorities = None, []
    if client_ca is not None:
        roots = read_pem(client_ca)
        authorities = _certificates(client_ca, roots)
        _log_expiry(client_ca, authorities)
    configuration = grpc.ssl_server_certificate_configuration([(key_content, chain)], roots)
    context = _context(certificate, key, roots) if for_http else None
    return TlsFiles(configuration, tuple(authorities), context)


def name_in(content: bytes) -> str | None:
    """The first name that a PEM certificate is valid for; None: it has none."""
    certificate = x509.load_pem_x509_certificate(content)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return found[0].replace("*", "bgan") if found else None


def read_pem(path: Path) -> bytes:
    """What a file holds. Raises StartError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be read ({error.strerror}); name a PEM file") from error


def _context(certificate: Path, key: Path, roots: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password="")  # it would ask the terminal
        if roots is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=roots.decode("ascii", errors="ignore"))
            # A session that is resumed does not know the certificates between the client's and an authority.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
    except OSError as error:  # ssl.SSLError is one
        raise StartError(f"{certificate} and {key} cannot be used for TLS ({error})") from error
    return context


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise StartError(
            f"{path} holds no PEM certificate, which begins with -----BEGIN CERTIFICATE-----"
        ) from error


def _check_key(own: x509.Certificate, certificate: Path, content: bytes, key: Path) -> None:
    try:
        private_key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise StartError(
            f"{key} is encrypted; write the key without a passphrase, readable by its owner only"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StartError(f"{key} holds no PEM private key") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private_key.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise StartError(f"{key} is not the key of {certificate}; name the two that belong together")
    curve = private_key.curve.name if isinstance(private_key, EllipticCurvePrivateKey) else None
    if not isinstance(private_key, RSAPrivateKey) and curve not in _CURVES:
        raise StartError(f"{key} is of a kind that gRPC does not accept; use RSA, or one of {', '.join(_CURVES)}")


def _log_expiry(path: Path, certificates: Iterable[x509.Certificate]) -> None:
    """An expired one is used all the same: its clients say so, and a stopped server would help nobody."""
    now = datetime.now(UTC)
    for certificate in certificates:
        end, name = certificate.not_valid_after_utc, certificate.subject.rfc4514_string()
        if end < now:
            _log.warning("%s: the certificate %s expired on %s; replace it", path, name, end)
        elif end < now + _SOON:
            _log.warning("%s: the certificate %s expires on %s; replace it soon", path, name, end)
        else:
            _log.info("%s: the certificate %s is valid until %s", path, name, end)
