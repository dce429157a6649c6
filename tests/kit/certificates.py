"""Real certificates for the tests, made on the spot."""

import os
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PURPOSES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


class Authority:
    """A certificate authority, and what it issues."""

    def __init__(self, name="an authority"):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._name, self._name, self._key).add_extension(constraints, critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def intermediate(self, name):
        """An authority that this one has certified."""
        other = Authority(name)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(other._name, self._name, other._key).add_extension(constraints, critical=True)
        other.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return other

    def issue(self, *names, days=90, password=None, curve=ec.SECP256R1):
        """A certificate and its key, as PEM; negative days: it has ended."""
        key = ec.generate_private_key(curve())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = (
            _builder(subject, self._name, key, days=days)
            .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(PURPOSES), critical=False)
        )
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        return (
            builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        )


def _builder(subject, issuer, key, *, days=90):
    now = datetime.now(UTC)
    begin = now - timedelta(days=1) + timedelta(days=min(days, 0))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(now + timedelta(days=days))
    )


def _general_name(name):
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write(path, content):
    """Replace a file as a tool does that renews certificates: whole, by its name."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.utime(new, ns=(time.time_ns(), time.time_ns()))
    new.replace(path)
    return path
