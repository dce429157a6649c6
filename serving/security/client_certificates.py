"""Whether clients' certificates are still good: TLS asks when a session begins, which connections then resume."""

import time
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ..call_context import CallContext
from ..errors import UnauthenticatedError

_MAX_KNOWN = 10_000
_Certificates = Sequence[x509.Certificate]


class ClientCertificates:
    """Checks the certificates of calls against the authorities that are admitted now."""

    def __init__(self, authorities: Callable[[], _Certificates]) -> None:
        """`authorities` gives another object once they changed."""
        self._authorities = authorities
        self._known_by: _Certificates = ()
        self._until: dict[bytes, float] = {}  # in seconds since 1970, by the certificate and what it came with

    def of(self, context: CallContext) -> bytes:
        """The certificate of a call's connection and those that it came with, for `check`."""
        found = context.auth_context()
        return b"".join([*found.get("x509_pem_cert", ()), *found.get("x509_pem_cert_chain", ())])

    def check(self, certificates: bytes) -> None:
        """Raises UnauthenticatedError if they have expired, or lead to none of the authorities."""
        authorities = self._authorities()
        if authorities is not self._known_by or len(self._until) > _MAX_KNOWN:
            self._known_by, self._until = authorities, {}
        until = self._until.get(certificates)
        if until is None:
            until = self._until[certificates] = _good_until(certificates, authorities)
        if until <= time.time():
            raise UnauthenticatedError("the client certificate has expired, or its authority was removed")


def _good_until(content: bytes, authorities: _Certificates) -> float:
    """When the first certificate ends, or one between it and an authority, or that; 0: none of them leads to one.

    All else about them, TLS has checked.
    """
    others = x509.load_pem_x509_certificates(content) if content else []
    certificate = others.pop(0) if others else None
    end = float("inf")
    while certificate is not None:
        issuers = [each for each in others if _issued(each, certificate)]
        ends = [_end_of(each) for each in authorities if each == certificate or _issued(each, certificate)]
        end = min(end, _end_of(certificate))
        if ends:
            return min(end, max(ends))
        certificate = issuers[0] if issuers else None
        others = [each for each in others if each is not certificate]
    return 0.0


def _end_of(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    except UnsupportedAlgorithm:
        return certificate.issuer == issuer.subject
    return True
