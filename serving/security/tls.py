"""TLS credentials for the server's listeners, which follow their files."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from ..config.settings import ServerSettings
from ..errors import SettingError
from .watched_files import WatchedFiles

if TYPE_CHECKING:  # these load cryptography, which plaintext does not need
    from .client_certificates import ClientCertificates


def certificates_of(settings: ServerSettings) -> Certificates | None:
    """The certificates that the settings name; None: plaintext. Raises StartError if they are invalid."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is not None and key is not None:
        return Certificates(certificate, key, client_ca, for_http=settings.http_port is not None)
    if certificate is not None or key is not None:
        one, other = ("tls_key", "tls_certificate") if certificate is None else ("tls_certificate", "tls_key")
        raise SettingError(f"{one} is set and {other} is not; name both, or neither for plaintext")
    if client_ca is not None:
        raise SettingError("tls_client_ca needs TLS; name tls_certificate and tls_key too")
    return None


class Certificates:
    """Credentials for listeners; new connections get what the files hold now."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None, *, for_http: bool = False) -> None:
        """Read the PEM files; `client_ca` has the authorities that clients need, None: any client is admitted.

        for_http: whether there will be an `ssl_context`.
        Raises StartError with one line that says which is invalid and why.
        """
        from .certificates import read_tls_files
        from .client_certificates import ClientCertificates

        read = partial(read_tls_files, certificate, key, client_ca, for_http=for_http)
        paths = [path for path in (certificate, key, client_ca) if path is not None]
        self._files = WatchedFiles(paths, read, what="certificates")
        self.clients: ClientCertificates | None = None
        """Checks the certificates of clients; None: they need none."""
        if client_ca is not None:
            self.clients = ClientCertificates(lambda: self._files.content.client_authorities)

    async def poll(self) -> None:
        """Read the files again if they changed. A connection keeps the server's certificate that it began with."""
        await asyncio.to_thread(self._files.poll)

    def ssl_context(self) -> ssl.SSLContext:
        """The same for a listener of HTTP: each new connection takes what the files hold then."""
        first = self._files.content.context
        assert first is not None  # who asks for it was made for it

        def renew(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if (newest := self._files.content.context) is not None:
                connection.context = newest

        first.sni_callback = renew
        return first

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one listener: each is told of a change once, at its next connection."""
        handed = self._files.content.configuration
        needs_client = self.clients is not None

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal handed
            if self._files.content.configuration is handed:
                return None
            handed = self._files.content.configuration
            return handed

        return grpc.dynamic_ssl_server_credentials(handed, newer, needs_client)  # type: ignore[arg-type]
