"""TLS: credentials for the server's listeners, which follow their files, and for a call to the server itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc

from ..config.settings import ServerSettings
from ..errors import StartError
from .watched_files import WatchedFiles


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificates lie, each a PEM file."""

    certificate: Path
    """The server's own, and those between it and its authority."""
    key: Path
    client_ca: Path | None
    """The authorities whose clients alone are let in; None: any client."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


def certificates_of(settings: ServerSettings) -> Certificates | None:
    """The certificates that the settings name; None: plaintext. Raises StartError where they are no good."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is not None and key is not None:
        return Certificates(TlsFiles(certificate, key, client_ca))
    if certificate is not None or key is not None:
        one, other = ("tls_key", "tls_certificate") if certificate is None else ("tls_certificate", "tls_key")
        raise StartError(f"{one} is set and {other} is not; name both, or neither for plaintext")
    if client_ca is not None:
        raise StartError("tls_client_ca needs TLS; name tls_certificate and tls_key too")
    return None


class Certificates:
    """Credentials for listeners, which follow the files from connection to connection."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises StartError with one line that says which is no good and why."""
        self._needs_client = files.client_ca is not None
        self._files = WatchedFiles(files.paths, lambda: _configuration(files), what="certificates")

    async def poll(self) -> None:
        """Read the files again if they changed. A connection keeps the certificate that it began with."""
        await asyncio.to_thread(self._files.poll)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one listener: each is told of a change once, at its next connection."""
        handed = self._files.content

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal handed
            if self._files.content is handed:
                return None
            handed = self._files.content
            return handed

        return grpc.dynamic_ssl_server_credentials(handed, newer, self._needs_client)  # type: ignore[arg-type]


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    from .certificates import read_checked

    chain, key, client_ca = read_checked(files.certificate, files.key, files.client_ca)
    return grpc.ssl_server_certificate_configuration([(key, chain)], client_ca)
