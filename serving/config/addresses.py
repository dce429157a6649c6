"""Hosts and ports to listen on: how they are written, and why one cannot be had."""

import errno
import socket
from typing import Literal

_FOR_ALL = ("0.0.0.0", "::")


def in_brackets(host: str) -> str:
    """A host as it stands before a port: IPv6 addresses have brackets there."""
    host = host.strip("[]")
    return f"[{host}]" if ":" in host else host


def own_address(host: str, port: int) -> str:
    """How its own machine reaches a server that listens on a host and a port."""
    return f"{'localhost' if host.strip('[]') in _FOR_ALL else in_brackets(host)}:{port}"


def cannot_listen(
    error: OSError | UnicodeError, host: str, port: int, *, use: Literal["", "metrics", "HTTP"] = ""
) -> str:
    """Why a host and a port cannot be listened on, and what to do; `use`: what the port is for, "": gRPC."""
    what = f"cannot listen on {in_brackets(host)}:{port}{f' for {use}' if use else ''}"
    option = f"--{use.lower()}-" if use else "--"
    host_option = "--metrics-host" if use == "metrics" else "--host"
    reason = getattr(error, "strerror", None) or str(error)
    if host == "*":  # the C library takes it for all, gRPC does not
        error = OSError(errno.EADDRNOTAVAIL, reason)
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"{what}: {host!r} is no known host ({reason}); give {host_option} an address of this machine"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: {host} is no address of this machine; {host_option} 0.0.0.0 or [::] means all it has"
    if error.errno == errno.EAFNOSUPPORT:
        return f"{what}: this machine has no addresses of this kind; give {host_option} another"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{what}: this user may not; choose a {option}port from 1024 on"
    if error.errno == errno.EADDRINUSE:
        return f"{what}; is another server there? Choose another {option}port, or 0 for a free one"
    return f"{what}: {reason}"
