"""Which IP addresses a client's URL may make this server connect to: public ones, checked after name resolution."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from .errors import ApiError
from .settings import FetchPolicy

# The IPv6 unicast range in use (NAT64 lies outside), and in it the networks that tunnel to IPv4 or serve as examples.
_UNICAST_6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(ipaddress.ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NOT_PUBLIC_4 = tuple(map(ipaddress.ip_network, ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")))


def is_public(address: str) -> bool:
    """Whether `address` (IPv4 or IPv6) is a single host on the public internet.

    Private, loopback, link-local, CGNAT, multicast, reserved and documentation addresses are not public. Neither are
    IPv6 addresses that stand for an IPv4 address (mapped, 6to4, Teredo, NAT64), even for a public one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    return ip in _UNICAST_6 and not any(ip in network for network in _NOT_PUBLIC_6)


def check_host(host: str, policy: FetchPolicy) -> None:
    """ApiError if the policy lists domains and `host` is not in one of them."""
    if policy.domains and not _within(host, (*policy.domains, *policy.private_hosts)):
        raise _refused(f"Clips are not fetched from {host}: it is in none of the domains that the operator allows.")


async def resolve(host: str, port: int, policy: FetchPolicy) -> list[str]:
    """The addresses of `host`. ApiError if it has none, or if the policy does not allow one of them.

    The caller must connect to one of these addresses and not to the name, which may resolve to another one by then.
    """
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _refused(f"The clip's host {host} has no address: check its name.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    if host not in policy.private_hosts:
        for address in addresses:
            if not is_public(address):
                raise _refused(f"Clips are not fetched from {host}: its address is not on the public internet.")
    return addresses


def _within(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in domains)


def _refused(message: str) -> ApiError:
    return ApiError(message, code="invalid_audio_url")
