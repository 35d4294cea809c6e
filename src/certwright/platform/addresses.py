"""Which network addresses the product may talk to when somebody else chose them.

Pure: an address in, a verdict out. The table follows the IANA special-purpose address registries (RFC 6890 and its
updates) rather than `ipaddress.is_global`, whose answers differ between Python versions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Instance metadata services hand out credentials to whoever asks from the machine itself; an operator who opens a
# whole private network rarely means these, so only a network of exactly that one address opens them.
_METADATA = frozenset(
    ipaddress.ip_address(a)
    for a in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)

_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignment"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "protocol assignment"),
    ("192.52.193.0/24", "protocol assignment"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "protocol assignment"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("64:ff9b:1::/48", "local-use NAT64"),
    ("100::/64", "discard"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("2001::/23", "protocol assignment"),
    ("2620:4f:8000::/48", "protocol assignment"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_TABLE: tuple[tuple[IPNetwork, str], ...] = tuple((ipaddress.ip_network(n), kind) for n, kind in _SPECIAL)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOW_32_BITS = 0xFFFFFFFF
# More proxies than this stand in no row; a longer list is somebody's attempt to keep us busy.
_MOST_HOPS = 32


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address a packet to this IPv6 address ends up at: mapped, 6to4 (RFC 3056) or NAT64 (RFC 6052)."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _LOW_32_BITS)
    return None


def special_class(address: IPAddress) -> str | None:
    """`loopback`, `private`, `link-local`, `metadata`, … for addresses that aren't plain public unicast; else None."""
    if address in _METADATA:
        return "metadata"
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return special_class(inner)
    for network, kind in _TABLE:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return "reserved"
    return None


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Decides for the whole process; `allowed_networks` is what the operator opened."""

    allowed_networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[str]) -> AddressGuard:
        """From setting texts such as "10.0.0.0/8"; raises ValueError naming the bad one."""
        return cls(tuple(ipaddress.ip_network(text, strict=False) for text in networks))

    def refusal(self, address: IPAddress) -> str | None:
        """The class for which the address is refused, or None when it may be talked to."""
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            return "scoped"
        kind = special_class(address)
        if kind is None:
            return None
        faces: list[IPAddress] = [address]
        if isinstance(address, ipaddress.IPv6Address):
            inner = _embedded(address)
            if inner is not None:
                faces.append(inner)
        for network in self.allowed_networks:
            if kind == "metadata" and network.num_addresses != 1:
                continue
            if any(face.version == network.version and face in network for face in faces):
                return None
        return kind


def is_trusted(peer: str, trusted: Iterable[IPNetwork]) -> bool:
    """Whether the connected address is one of the operator's reverse proxies."""
    address = _plain_address(peer)
    return address is not None and _within(address, trusted)


def address_behind(peer: str, forwarded_for: Iterable[str], trusted: Sequence[IPNetwork]) -> str:
    """Who sent a request that arrived from `peer` with these X-Forwarded-For lines, in their order.

    Every proxy adds the address it was connected from at the end, so that reading from there each address is vouched
    for by the one before it, as long as that is a trusted one; the first that isn't is the client, and what stands left
    of it is only what the client claims. What can't be read ends the walk: then it is the last one vouched for.
    """
    hops = ",".join(forwarded_for).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
    reached = peer
    for hop in reversed(hops):
        address = _plain_address(hop)
        if not is_trusted(reached, trusted) or address is None:
            break
        reached = str(address)
    return reached


def _plain_address(text: str) -> IPAddress | None:
    """An address as proxies write it: bare, `[v6]`, or with a port behind; an IPv4-mapped one as what it is."""
    plain = text.strip()
    if plain.startswith("["):
        plain = plain[1:].partition("]")[0]
    elif plain.count(":") == 1:
        plain = plain.partition(":")[0]
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id is not None else address.ipv4_mapped or address
    return address


def _within(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
