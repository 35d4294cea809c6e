"""Which names a policy lets certificates carry: how its rules are written and what they match. Pure.

A rule is one line. `www.example.internal` means that host, `*.example.internal` names with one label in front,
`.example.internal` everything below, however deep (the leading dot of RFC 5280 section 4.2.1.10). Addresses and
networks are written as always. `ann@example.com` means a mailbox, `@example.com` every mailbox there,
`https://example.com` URIs with that scheme and host, `*://example.com` with any scheme; hosts in them as above. `.` is
every host name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from certwright.kernel.names import looks_like_ip, parse_dns_name
from certwright.kernel.problems import Invalid, InvalidFields, Problem

_MOST_CHARACTERS: Final = 320
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,39}|\*")
# What mail programs and browsers read alike. Anything else (quotes, a user before the host, backslashes, a dot behind
# the host) is no name a rule could be sure of.
_HOST: Final = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_PLAIN_MAILBOX: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_HOST}")
_PLAIN_URI: Final = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://{_HOST}(?::[0-9]+)?(?:[/?#][!-\[\]-~]*)?")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NameKind(StrEnum):
    DNS = "dns"
    IP = "ip"
    EMAIL = "email"
    URI = "uri"


class Reach(StrEnum):
    """What a rule's host stands for: itself, names with one label in front, or all names below it."""

    ITSELF = "itself"
    ONE_BELOW = "one_below"
    ALL_BELOW = "all_below"


@dataclass(frozen=True, slots=True)
class NameRule:
    """`host` is in A-labels and lower case; empty with `ALL_BELOW` means any host. `box` (the mailbox's own part) and
    `scheme` are None for any."""

    text: str
    kind: NameKind
    host: str = ""
    reach: Reach = Reach.ITSELF
    network: _Network | None = None
    box: str | None = None
    scheme: str | None = None


def kind_of(name: str) -> NameKind:
    """As `x509.issue` will write it into a certificate."""
    if looks_like_ip(name):
        return NameKind.IP
    if "://" in name:
        return NameKind.URI
    return NameKind.EMAIL if "@" in name else NameKind.DNS


# --- reading ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def read_rule(text: str) -> NameRule:
    """One rule as a person writes it. Raises Invalid `name_rule_invalid`, or what is wrong with its host."""
    said = text.strip()
    if not said or len(said) > _MOST_CHARACTERS:
        raise _wrong(said, "is empty or too long")
    if "://" in said:
        scheme, _, host = said.partition("://")
        if not _SCHEME.fullmatch(scheme):
            raise _wrong(said, "has no scheme such as https")
        if "/" in host:
            raise _wrong(said, "goes on behind the host: the path isn't judged")
        name, reach = _host(host)
        scheme = scheme.lower()
        return NameRule(f"{scheme}://{_written(name, reach)}", NameKind.URI, name, reach,
                        scheme=None if scheme == "*" else scheme)  # fmt: skip
    if "@" in said:
        box, _, host = said.rpartition("@")
        if box and not _PLAIN_MAILBOX.fullmatch(f"{box}@example.com"):
            raise _wrong(said, "has a mailbox that isn't written plainly")
        name, reach = _host(host)
        return NameRule(f"{box.lower()}@{_written(name, reach)}", NameKind.EMAIL, name, reach, box=box.lower() or None)
    if "/" in said or looks_like_ip(said):
        return _network_rule(said)
    name, reach = _host(said)
    return NameRule(_written(name, reach), NameKind.DNS, name, reach)


def read_rules(texts: Sequence[str], field: str) -> tuple[str, ...]:
    """The rules as they are kept: each once, hosts as A-labels. Raises InvalidFields."""
    problems: list[Problem] = []
    found: list[str] = []
    for index, text in enumerate(texts):
        try:
            found.append(read_rule(text).text)
        except Invalid as problem:
            problems.append(problem.at(f"{field}[{index}]"))
    if problems:
        raise InvalidFields(problems)
    return tuple(dict.fromkeys(found))


def _host(text: str) -> tuple[str, Reach]:
    if text == ".":
        return "", Reach.ALL_BELOW
    if text.startswith("."):
        return parse_dns_name(text[1:]).base, Reach.ALL_BELOW
    name = parse_dns_name(text)
    return name.base, Reach.ONE_BELOW if name.is_wildcard else Reach.ITSELF


def _written(host: str, reach: Reach) -> str:
    return {Reach.ITSELF: "", Reach.ONE_BELOW: "*.", Reach.ALL_BELOW: "."}[reach] + host


def _network_rule(text: str) -> NameRule:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise _wrong(text, f"is no network: {error}") from None
    alone = network.num_addresses == 1
    return NameRule(str(network.network_address if alone else network), NameKind.IP, network=network)


def _wrong(text: str, why: str) -> Invalid:
    return Invalid(
        "name_rule_invalid", f"The rule {text[:80]!r} {why}.",
        fix="Write www.example.internal, *.example.internal, .example.internal for everything below, 10.0.0.0/8, "
        "@example.com or https://example.com.",
    )  # fmt: skip


# --- matching --------------------------------------------------------------------------------------------------------


def which_allows(rules: Iterable[str], name: str) -> str | None:
    """The first rule that means everything a certificate with `name` would be good for."""
    return _rule_set(tuple(rules)).allowing(name)


def which_refuses(rules: Iterable[str], name: str) -> str | None:
    """The first rule that means anything a certificate with `name` would be good for: *.example.internal is good for
    www.example.internal, too. A name that can't be read for sure is met by every rule of its kind."""
    return _rule_set(tuple(rules)).refusing(name)


@lru_cache(maxsize=512)
def _rule_set(texts: tuple[str, ...]) -> _RuleSet:
    return _RuleSet(texts)


_Place = tuple[int, str]
"""A rule's place in the list, and the rule."""


class _Hosts:
    """Rules of one kind that differ in their hosts, found by the name instead of one by one."""

    def __init__(self) -> None:
        self._by_reach: dict[Reach, dict[str, _Place]] = {reach: {} for reach in Reach}
        self._below: dict[str, _Place] = {}

    def add(self, rule: NameRule, place: _Place) -> None:
        self._by_reach[rule.reach].setdefault(rule.host, place)
        if rule.reach is Reach.ITSELF:
            self._below.setdefault(_parent(rule.host), place)

    def meaning(self, host: str) -> Iterator[_Place]:
        """Those that mean `host`, or with `*.` in front every name that stands for."""
        itself, one, all_ = (self._by_reach[reach] for reach in (Reach.ITSELF, Reach.ONE_BELOW, Reach.ALL_BELOW))
        yield from _found(itself, host)
        yield from _found(one, _parent(host))
        yield from _found(all_, "")
        while host := _parent(host):
            yield from _found(all_, host)

    def inside(self, wildcard: str) -> Iterator[_Place]:
        """Those that mean one of the names a wildcard stands for."""
        yield from _found(self._below, wildcard.removeprefix("*."))


def _found(places: Mapping[str, _Place], key: str) -> Iterator[_Place]:
    if key in places:
        yield places[key]


class _RuleSet:
    def __init__(self, texts: Sequence[str]) -> None:
        self._hosts: dict[tuple[NameKind, str | None], _Hosts] = {}
        self._networks: dict[tuple[int, int], dict[int, _Place]] = {}
        self._first: dict[NameKind, _Place] = {}
        for index, text in enumerate(texts):
            rule, place = read_rule(text), (index, text)
            self._first.setdefault(rule.kind, place)
            if rule.network is not None:
                size = (rule.network.version, rule.network.prefixlen)
                self._networks.setdefault(size, {}).setdefault(int(rule.network.network_address), place)
            else:
                part = rule.box if rule.kind is NameKind.EMAIL else rule.scheme
                self._hosts.setdefault((rule.kind, part), _Hosts()).add(rule, place)

    def allowing(self, name: str) -> str | None:
        return _first(self._meaning(name))

    def refusing(self, name: str) -> str | None:
        kind, places = kind_of(name), list(self._meaning(name))
        if kind is NameKind.DNS and name.startswith("*."):
            places += self._of(NameKind.DNS, None).inside(name.lower())
        elif kind is NameKind.IP:
            mapped = getattr(ipaddress.ip_address(name.strip()), "ipv4_mapped", None)
            places += self._around(mapped) if mapped is not None else ()
        elif kind is not NameKind.DNS and not _is_plain(name) and kind in self._first:
            places.append(self._first[kind])
        return _first(places)

    def _meaning(self, name: str) -> Iterator[_Place]:
        """Rules that mean all that `name` is good for."""
        kind = kind_of(name)
        if kind is NameKind.DNS:
            yield from self._of(kind, None).meaning(name.lower())
        elif kind is NameKind.IP:
            yield from self._around(ipaddress.ip_address(name.strip()))
        elif _is_plain(name):
            if kind is NameKind.EMAIL:
                part, _, host = name.lower().rpartition("@")
            else:
                parts = urlsplit(name)
                part, host = parts.scheme.lower(), parts.hostname or ""
            for said in (part, None):
                yield from self._of(kind, said).meaning(host)

    def _of(self, kind: NameKind, part: str | None) -> _Hosts:
        return self._hosts.get((kind, part), _NO_HOSTS)

    def _around(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[_Place]:
        for (version, bits), networks in self._networks.items():
            if version == address.version:
                rest = address.max_prefixlen - bits
                place = networks.get(int(address) >> rest << rest)
                if place is not None:
                    yield place


_NO_HOSTS: Final = _Hosts()


def _first(places: Iterable[_Place]) -> str | None:
    found = min(places, default=None)
    return None if found is None else found[1]


def _is_plain(name: str) -> bool:
    return (_PLAIN_URI if "://" in name else _PLAIN_MAILBOX).fullmatch(name) is not None


def _parent(host: str) -> str:
    return host.partition(".")[2]


# --- common names ----------------------------------------------------------------------------------------------------


def name_in_common_name(text: str | None, names: Sequence[str]) -> str | None:
    """What a common name names where old clients read it: a host with a dot, an address, a mailbox or a URI that isn't
    among the subject alternative names. None for a person, a company, a device."""
    said = (text or "").strip()
    if not said or said in names or any(c.isspace() for c in said):
        return None
    if looks_like_ip(said) or "://" in said or "@" in said:
        return said
    if "." not in said:
        return None
    try:
        name = parse_dns_name(said).ascii
    except Invalid:
        return None
    return None if name in names else name
