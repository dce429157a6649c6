"""Addresses of servers, before the first try: what is one, what stays here, and the proxy in between."""

import pytest

from bgan.clients import AsyncSamplingClient, RetryPolicy, SamplingClient, ServerUnavailableError
from bgan.clients._addresses import check_target, is_local, proxy_of
from tests.kit.clients import Blocking
from tests.kit.liars import lying_server
from tests.kit.servers import free_port

ONCE = RetryPolicy(attempts=1)
LOCAL = [
    *(
        "localhost:1",
        "LOCALHOST:1",
        "localhost.:1",
        "a.localhost:1",
        "127.0.0.1:1",
        "127.9.9.9:65535",
        "0.0.0.0:1",
    ),
    *("[::1]:1", "[::]:1", "[::ffff:127.0.0.1]:1", "unix:/run/x.sock", "unix:x.sock", "unix:///run/x.sock"),
    *("unix-abstract:x", "dns:///localhost:1", "dns:localhost:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"),
]
REMOTE = [
    *("example.org:1", "my_server-1.internal:443", "10.0.0.1:1", "[2001:db8::1]:1", "[fe80::1%25eth0]:1"),
    *("dns:///example.org:1", "dns://8.8.8.8/example.org:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "localhost.org:1"),
    *("128.0.0.1:1", "a.:1"),
]


@pytest.mark.parametrize(("targets", "is_here"), [(LOCAL, True), (REMOTE, False)], ids=["local", "remote"])
def test_addresses(targets, is_here):
    for target in targets:
        assert check_target(target) == target
        assert is_local(target) is is_here, target


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("dns:///", "it is empty"),
        ("localhost", "it has no port"),
        ("localhost:", "it has no port"),
        (":50051", "it has no name of a host"),
        ("localhost:0", "its port is 0, not a number from 1 to 65535"),
        ("localhost:65536", "its port is 65536"),
        ("localhost:-1", "its port is -1"),
        ("localhost:many", "its port is many"),
        ("localhost:٣", "its port is"),
        ("localhost:1/", "its port is 1/"),
        ("dns:///localhost:65536", "its port is 65536"),
        ("ipv4:127.0.0.1:1,127.0.0.1:0", "its port is 0"),
        ("http://localhost:1", "it begins with http://"),
        ("grpc://localhost:1", "it begins with grpc://"),
        ("a:1,b:1", "several servers are a list of addresses, or --server a:50051 --server b:50051"),
        ("::1", "stands in brackets, as in [::1]:50051"),
        ("::1:50051", "stands in brackets"),
        ("fe80::1%eth0:1", "stands in brackets"),
        ("[::1]", "it has no port"),
        ("[localhost]:1", "no IPv6 address in its brackets"),
        ("[::1:1", "no IPv6 address in its brackets"),
        ("/run/x.sock", "a unix socket is named as in unix:/run/bgan.sock"),
        ("unix:", "it is empty"),
        ("a b:1", "its host has signs that no host's name has"),
        ("me@host:1", "its host has signs"),
        ("höst:1", "its host has signs"),
        ("localhost:1\n", "its port is"),
        ("\x1b[2J:1", "its host has signs"),
        (None, "it is NoneType, not text"),
        (50051, "it is int, not text"),
        (b"localhost:1", "it is bytes, not text"),
        (["localhost:1", ""], "it is empty"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line_before_the_first_try(target, says):
    for make_client in (SamplingClient, AsyncSamplingClient):
        with pytest.raises(ValueError, match="no address of a server") as caught:
            make_client(target)
        assert says in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("variables", "target", "proxy"),
    [
        ({"http_proxy": "http://p:8"}, "example.org:1", "p:8 of http_proxy"),
        ({"http_proxy": "http://p"}, "example.org:1", "p:80 of http_proxy"),
        ({"http_proxy": "http://me:secret@p:8"}, "example.org:1", "p:8 of http_proxy"),
        ({"http_proxy": "http://p:8", "grpc_proxy": "http://q:9"}, "example.org:1", "q:9 of grpc_proxy"),
        ({"http_proxy": "http://p:8"}, "localhost:1", None),
        ({"http_proxy": "http://p:8"}, "unix:/x", None),
        ({"http_proxy": "http://p:8", "no_proxy": "a.org, example.org"}, "example.org:1", None),
        ({"http_proxy": "http://p:8", "no_proxy": ".ORG"}, "example.org:1", None),
        ({"http_proxy": "http://p:8", "no_proxy": "10.0.0.0/8"}, "10.1.2.3:1", None),
        ({"http_proxy": "http://p:8", "no_proxy": "*,"}, "example.org:1", "p:8 of http_proxy"),
        ({"http_proxy": "socks5://p:8"}, "example.org:1", None),
        ({"http_proxy": ""}, "example.org:1", None),
        ({"HTTP_PROXY": "http://p:8"}, "example.org:1", None),
    ],
)
def test_the_proxy_is_the_one_that_grpc_takes(monkeypatch, variables, target, proxy):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(target) == proxy


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking])
def test_a_proxy_is_passed_by_on_this_machine_and_named_elsewhere(running, monkeypatch, make_client):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    for target in (running.target, f"127.0.0.1:{running.port}"):
        with make_client(target, retry=ONCE) as client:
            assert len(client.list_models()) == 3
    with make_client("bgan.invalid:50051", retry=ONCE) as client:
        for call in (client.list_models, lambda: next(client.sample_binary_images(image_count=1))):
            with pytest.raises(ServerUnavailableError, match=r"through the proxy 127\.0\.0\.1:\d+ of http_proxy"):
                call()


@pytest.mark.parametrize("make_client", [SamplingClient, Blocking])
def test_a_token_goes_in_plaintext_to_this_machine_alone(make_client):
    with pytest.raises(ValueError, match=r"the token would go to example.org:1 in plaintext.*use TLS") as caught:
        make_client(["localhost:1", "example.org:1"], token="bgan_alice_secret")
    assert "secret" not in str(caught.value)
    for options in ({"target": "example.org:1", "plaintext_token": True}, {"target": "unix:/run/x.sock"}):
        with make_client(**options, token="bgan_alice_secret"):
            pass


def test_a_unix_socket(tmp_path):
    with lying_server(f"unix:{tmp_path}/x.sock"), SamplingClient(f"unix:{tmp_path}/x.sock") as client:
        assert [info.name for info in client.list_models()] == ["m"]
    with (
        SamplingClient(f"unix:{tmp_path}/none.sock", retry=ONCE) as client,
        pytest.raises(ServerUnavailableError, match="No such file"),
    ):
        client.list_models()
