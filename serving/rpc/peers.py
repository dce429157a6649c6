"""The other side of a connection: how gRPC writes it, and what of it counts as one address."""

from functools import lru_cache
from ipaddress import ip_address, ip_network

_IPV6_NETWORK_BITS = 64  # what a provider gives to one customer


def peer_name(host: str, port: int) -> str:
    """How gRPC writes an address: ipv4:192.0.2.1:40000 or ipv6:[2001:db8::1]:40000."""
    address = ip_address(host.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is None:
        return f"ipv6:[{host}]:{port}"
    return f"ipv4:{getattr(address, 'ipv4_mapped', None) or address}:{port}"


def address_of(peer: str) -> str:
    """What counts as one address: that of IPv4, or the network of IPv6, in which one caller has all of them."""
    return _network(peer.rpartition(":")[0])


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    kind, _, host = address.partition(":")
    if kind != "ipv6":
        return address
    try:
        return str(ip_network((host.strip("[]").partition("%")[0], _IPV6_NETWORK_BITS), strict=False))
    except ValueError:
        return address
