"""How a server is reached, by everything that calls it here: address, token, TLS."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from bgan.clients import SamplingClient
from bgan.serving.security.tokens import make_token
from tests.kit.certificates import Authority

_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Access:
    """A server's address and what its callers need."""

    target: str
    token: str | None = None
    ca: Path | None = None
    """The authority of its certificate, a PEM file; None: plaintext."""

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What a call carries."""
        return [] if self.token is None else [("authorization", f"Bearer {self.token}")]

    def client(self, **options) -> SamplingClient:
        """A client for this server alone."""
        return SamplingClient(self.target, **self.client_options(), **options)

    def client_options(self) -> dict:
        """What every client of it is made with."""
        credentials = None if self.ca is None else self._credentials()
        return {"credentials": credentials, "token": self.token}

    def channel(self, module=grpc, options=()):
        """A channel of `grpc` or `grpc.aio` that shares its connection with no other."""
        options = [("grpc.use_local_subchannel_pool", 1), *options]
        if self.ca is None:
            return module.insecure_channel(self.target, options=options)
        return module.secure_channel(self.target, self._credentials(), options=options)

    def connect(self) -> socket.socket:
        """A connection for bytes."""
        host, _, port = self.target.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ca is None:
            return connection
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["h2"])
        return context.wrap_socket(connection, server_hostname=host)

    def _credentials(self):
        return grpc.ssl_channel_credentials(self.ca.read_bytes())


@dataclass(frozen=True)
class Guard:
    """What servers are guarded with: TLS, and tokens of several holders."""

    folder: Path
    tokens: dict[str, str]
    """By holder."""

    @classmethod
    def make(cls, folder: Path, **holders: dict) -> "Guard":
        """New certificates and tokens; each holder's may be limited, as `bgan token` does."""
        authority = Authority()
        certificate, key = authority.issue("localhost")
        for name, content in (("ca", authority.pem), ("certificate", certificate), ("key", key)):
            (folder / f"{name}.pem").write_bytes(content)
        limits = {"models": ["*"], "images_per_minute": None, "expires": None}
        file = folder / "tokens.toml"
        return cls(folder, {name: make_token(file, name, **{**limits, **own}) for name, own in holders.items()})

    @property
    def options(self) -> tuple:
        """Of `bgan serve`."""
        tls = "--tls-certificate", self.folder / "certificate.pem", "--tls-key", self.folder / "key.pem"
        return *tls, "--tokens", self.folder / "tokens.toml"

    def access(self, target: str, holder: str) -> Access:
        """Of a server with these options."""
        return Access(target, self.tokens[holder], self.folder / "ca.pem")
