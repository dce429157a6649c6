"""How the other side of a connection is named, and what counts as one address."""

import grpc
import pytest

from bgan.serving.rpc.peers import address_of, peer_name
from bgan.v1 import sampling_pb2, sampling_pb2_grpc
from tests.kit.servers import server
from tests.kit.waiting import eventually


@pytest.mark.parametrize(
    ("host", "peer", "address"),
    [
        ("192.0.2.1", "ipv4:192.0.2.1:7", "ipv4:192.0.2.1"),
        ("::ffff:192.0.2.1", "ipv4:192.0.2.1:7", "ipv4:192.0.2.1"),
        ("2001:db8::1:2:3:4", "ipv6:[2001:db8::1:2:3:4]:7", "2001:db8::/64"),
        ("fe80::1%eth0", "ipv6:[fe80::1%eth0]:7", "fe80::/64"),
    ],
)
def test_a_network_of_ipv6_is_one_address(host, peer, address):
    assert peer_name(host, 7) == peer
    assert address_of(peer) == address


def test_what_grpc_calls_no_address_counts_as_it_is():
    assert address_of("unix:/tmp/socket:1") == "unix:/tmp/socket"
    assert address_of("ipv6:[nothing]:1") == "ipv6:[nothing]"


def test_grpc_names_callers_of_both_kinds_so(small_models):
    with server(small_models, "--host", "[::]") as process:
        for target in ("127.0.0.1", "[::1]"):
            with grpc.insecure_channel(f"{target}:{process.port}") as channel, pytest.raises(grpc.RpcError):
                stub = sampling_pb2_grpc.SamplingServiceStub(channel)
                stub.GetModel(sampling_pb2.GetModelRequest(name="nothing"))
        for peer in (peer_name("127.0.0.1", 1), peer_name("::1", 1)):
            eventually(lambda peer=peer: f"from {peer.rpartition(':')[0]}:" in process.output())
