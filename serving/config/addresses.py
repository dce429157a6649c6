"""Addresses of servers."""

from __future__ import annotations

_ALL_ADDRESSES = ("0.0.0.0", "::")


def own_host(host: str) -> str:
    """How its own machine reaches a server that listens on `host`."""
    return "localhost" if host.strip("[]") in _ALL_ADDRESSES else host
