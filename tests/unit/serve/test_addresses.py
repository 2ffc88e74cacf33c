import asyncio
import socket

import pytest

from qwen2_audio.serve.addresses import check_host, is_public, resolve
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.settings import FetchPolicy

NOT_PUBLIC = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_a_client_may_not_reach(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("example.org", True), ("cdn.example.org", True), ("badexample.org", False), ("example.org.evil.com", False)],
)
def test_a_list_of_domains_covers_what_lies_below_them(host, allowed):
    policy = FetchPolicy(domains=("Example.org",))
    if allowed:
        check_host(host, policy)
    else:
        with pytest.raises(ApiError, match="none of the domains"):
            check_host(host, policy)


def names(monkeypatch, *addresses):
    """All names have these addresses."""

    async def getaddrinfo(self, host, port, **_):
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    names(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(ApiError, match="not on the public internet"):
        asyncio.run(resolve("two.example", 80, FetchPolicy()))
    assert asyncio.run(resolve("two.example", 80, FetchPolicy(private_hosts=("two.example",)))) == [
        "8.8.8.8",
        "10.0.0.1",
    ]


def test_a_name_without_an_address(monkeypatch):
    async def getaddrinfo(self, host, port, **_):
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with pytest.raises(ApiError, match="has no address"):
        asyncio.run(resolve("nowhere.example", 80, FetchPolicy()))
