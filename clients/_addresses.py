"""The addresses of servers: what gRPC takes, whether it is this machine, and the proxy that lies in between."""

import os
import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from ._text import printable

_SCHEMES = {"dns", "ipv4", "ipv6", "unix", "unix-abstract"}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_MAX_PORT = 65535
# In the order in which gRPC looks; it knows these in small letters alone.
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def check_target(target: Any) -> str:
    """An address that gRPC takes. Raises ValueError, which says what is wrong with another."""
    problem = f"it is {type(target).__name__}, not text" if not isinstance(target, str) else _problem(target)
    if problem:
        shown = printable(repr(target) if not isinstance(target, str) else f"'{target}'")
        raise ValueError(f"{shown} is no address of a server: {problem}; use host:port, as in localhost:50051")
    return str(target)


def is_local(target: str) -> bool:
    """Whether what is sent there stays on this machine, as far as the address itself tells."""
    scheme, _, endpoints = _split(target)
    return scheme.startswith("unix") or all(_is_loopback(host_port(each)[0]) for each in endpoints)


def proxy_of(target: str) -> str | None:
    """The proxy that gRPC takes to a server, as the environment says, and which variable does; None: none."""
    name = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if name is None or is_local(target):
        return None
    proxy = urlsplit(os.environ[name])
    exceptions = next((os.environ[each] for each in _EXCEPTIONS if each in os.environ), "")
    host = host_port(_split(target)[2][0])[0]
    is_used = proxy.scheme == "http" and not any(_fits(host, each.strip()) for each in exceptions.split(","))
    return f"{proxy.hostname}:{proxy.port or 80} of {name}" if is_used else None  # without its password


def host_port(endpoint: str) -> tuple[str, str]:
    """The host, without brackets, and the port of host:port; an empty port where there is none."""
    host, _, port = (endpoint, "", "") if endpoint.endswith("]") else endpoint.partition(":")
    if endpoint.startswith("[") and "]:" in endpoint:
        host, _, port = endpoint.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def _split(target: str) -> tuple[str, str, list[str]]:
    """The scheme, the path after it and the endpoints that this names."""
    scheme, _, path = target.partition(":")
    if scheme not in _SCHEMES:
        return "", target, [target]
    if path.startswith("//"):  # an authority, which may be empty, and then the path
        path = path[2:].partition("/")[2]
    return scheme, path, path.split(",") if scheme.startswith("ip") else [path]


def _problem(target: str) -> str | None:
    scheme, path, endpoints = _split(target)
    if not path.strip():
        return "it is empty"
    if scheme.startswith("unix"):
        return None
    if "://" in path:
        return f"it begins with {printable(path.partition('://')[0])}://, but is no web address"
    if path.startswith(("/", "./", "~")):
        return "it is a path; a unix socket is named as in unix:/run/bgan.sock"
    return next(filter(None, map(_problem_of_endpoint, endpoints)), None)


def _problem_of_endpoint(endpoint: str) -> str | None:
    if "," in endpoint:
        return "several servers are a list of addresses, or --server a:50051 --server b:50051"
    host, port = host_port(endpoint)
    if problem := _problem_of_host(host, endpoint):
        return problem
    if not port:
        return "it has no port"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _MAX_PORT):
        return f"its port is {printable(port)}, not a number from 1 to {_MAX_PORT}"
    return None


def _problem_of_host(host: str, endpoint: str) -> str | None:
    if endpoint.startswith("["):
        return None if isinstance(_ip(host), IPv6Address) else "there is no IPv6 address in its brackets"
    if endpoint.count(":") > 1:
        return "the address of IPv6 stands in brackets, as in [::1]:50051"
    if not host:
        return "it has no name of a host"
    return None if _HOST.fullmatch(host) else "its host has signs that no host's name has"


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        return ip_address(host.partition("%")[0])
    return None


def _is_loopback(host: str) -> bool:
    address = _ip(host)
    if address is None:
        return host.lower().removesuffix(".").rpartition(".")[2] == "localhost"
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _fits(host: str, exception: str) -> bool:
    """Whether an entry of no_proxy, the end of a name or a network, is about a host."""
    if not exception:
        return False
    with suppress(ValueError):
        if (address := _ip(host)) is not None and address in ip_network(exception, strict=False):
            return True
    return host.lower().endswith(exception.lower())
