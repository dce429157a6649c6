"""Tells a service manager, such as systemd with Type=notify, the server's state (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"
_log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send `state` to the socket that NOTIFY_SOCKET names, if it names one.

    A failure is only logged: the manager will consider the start failed, but callers are not affected.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket has no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("the service manager cannot be told %s: %s", state, error)
