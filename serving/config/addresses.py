"""Hosts and ports to listen on: how they are written, and why one cannot be had."""

import errno
import socket

_FOR_ALL = ("0.0.0.0", "::")


def in_brackets(host: str) -> str:
    """A host as it stands before a port: IPv6 addresses have brackets there."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def own_address(host: str, port: int) -> str:
    """How its own machine reaches a server that listens on a host and a port."""
    return f"{'localhost' if host.strip('[]') in _FOR_ALL else in_brackets(host)}:{port}"


def cannot_listen(error: OSError | UnicodeError, host: str, port: int, *, options: str = "--") -> str:
    """Why a host and a port cannot be listened on, and what to do; `options` is how their two options begin."""
    what = f"cannot listen on {in_brackets(host)}:{port}"
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, socket.gaierror | UnicodeError):
        return (
            f"cannot listen on {host!r}: no known host ({reason}); give {options}host an address of this machine"
        )
    code = error.errno
    if code == errno.EADDRNOTAVAIL:
        return f"{what}: it is no address of this machine; {options}host 0.0.0.0 or [::] means all it has"
    if code == errno.EAFNOSUPPORT:
        return f"{what}: this machine lacks its kind of address; give {options}host another"
    if code in (errno.EACCES, errno.EPERM):
        return f"{what}: this user may not; choose a {options}port from 1024 on"
    if code == errno.EADDRINUSE:
        return f"{what}; is another server there? Choose another {options}port, or 0 for a free one"
    return f"{what}: {reason}"
