"""Options of a connection to servers, which the clients' commands share."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option

if TYPE_CHECKING:
    from grpc import ChannelCredentials

    from .._client import SamplingClient

DEFAULT_SERVER = "localhost:50051"


class ConnectionFileError(Exception):
    """A file of certificates or of a token cannot be used; the message says which and why."""

    exit_code = 1


@dataclass(frozen=True)
class Security:
    """TLS and token options. A token is in no argument: the list of processes shows these to everyone."""

    tls: Annotated[
        bool, Option("--tls", help="Use TLS, with the public authorities that gRPC knows.", envvar="BGAN_TLS")
    ] = False
    tls_ca: Annotated[
        Path | None,
        Option(
            help="Use TLS; the authorities that may have issued the server's certificate, a PEM file.",
            envvar="BGAN_TLS_CA",
            show_default="the public ones",
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        Option(help="Use TLS; this client's certificate, a PEM file.", envvar="BGAN_CLIENT_CERTIFICATE"),
    ] = None
    tls_key: Annotated[
        Path | None, Option(help="The certificate's private key, a PEM file.", envvar="BGAN_CLIENT_KEY")
    ] = None
    tls_server_name: Annotated[
        str | None,
        Option(
            help="The name in the server's certificate.",
            envvar="BGAN_TLS_SERVER_NAME",
            show_default="that of the address",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Option(
            help="A file with the token to call with.",
            envvar="BGAN_TOKEN_FILE",
            show_default="the variable BGAN_TOKEN",
        ),
    ] = None
    plaintext_token: Annotated[
        bool,
        Option("--plaintext-token", help="Send the token to other machines without TLS too, for all to read."),
    ] = False

    def connect(self, targets: list[str], timeout: float | None) -> SamplingClient:
        """A client with these options.

        Raises OSError and ConnectionFileError for a file that cannot be used, and BadParameter for other values.
        """
        from .._client import SamplingClient

        credentials, token = self._credentials(), self._token()
        limit: dict[str, Any] = {} if timeout is None else {"timeout_seconds": timeout}
        try:
            return SamplingClient(
                targets,
                credentials=credentials,
                server_name=self.tls_server_name,
                token=token,
                plaintext_token=self.plaintext_token,
                **limit,
            )
        except ValueError as error:
            raise BadParameter(str(error)) from error

    def _credentials(self) -> ChannelCredentials | None:
        from .._credentials import tls_credentials

        if (self.tls_certificate is None) != (self.tls_key is None):
            raise BadParameter("--tls-certificate and --tls-key go together; name both")
        if not (self.tls or self.tls_ca or self.tls_certificate or self.tls_server_name):
            return None
        try:
            return tls_credentials(ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key)
        except ValueError as error:
            raise ConnectionFileError(str(error)) from error

    def _token(self) -> str | None:
        from .._credentials import check_token

        if self.token_file is None:
            return os.environ.get("BGAN_TOKEN") or None
        try:
            return check_token(self.token_file.read_text())
        except ValueError as error:
            raise ConnectionFileError(f"{self.token_file} holds no token ({error})") from error


def with_security_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `Security` in place of its last parameter, `security`."""
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(Security, eval_str=True).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        security = Security(**{name: given.pop(name) for name in options})
        command(**given, security=security)

    *own, _ = signature.parameters.values()
    run.__dict__["__signature__"] = signature.replace(parameters=[*own, *options.values()])
    return run


def check_timeout(seconds: float | None) -> float | None:
    """A callback for --timeout. Raises BadParameter for what is no time."""
    if seconds is not None and (math.isnan(seconds) or seconds <= 0):
        raise BadParameter(f"{seconds} is no time; use seconds above 0, or inf")
    return seconds
