"""Gathering the facts: the look-ups and fetches behind every check. No database, no decisions."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import replace

from certwright.acme.challenges import TLS_ALPN_PROTOCOL, read_tls_alpn, tls_alpn_server_name
from certwright.platform.egress import WEB_PORTS, Egress, EgressProblem
from certwright.platform.resolver import Look, Nameserver, Outcome, Resolver, Zone, normal_name
from certwright.rooms.validation.rules import holds, is_delegable, is_registry, other_places, parse_caa
from certwright.rooms.validation.words import (
    CaaFacts,
    Delegation,
    DnsFacts,
    DnsRecord,
    FileAttempt,
    FileFacts,
    FileToPublish,
    Misplaced,
    TlsAttempt,
)

FILE_MAX_BYTES = 8 * 1024
FILE_TIMEOUT = 10.0
FILE_MAX_REDIRECTS = 10
# Each question is bounded too; this is for servers that answer each one as late as they can.
LOOK_UP_SECONDS = 30.0
_MOST_CNAMES = 8

_OTHER_TYPE = {"TXT": "CNAME", "CNAME": "TXT"}


async def gather_dns(
    resolver: Resolver,
    record: DnsRecord,
    *,
    written_at: Sequence[Nameserver] = (),
    previous_values: frozenset[str] = frozenset(),
    ca_identifiers: Sequence[str] = (),
    wildcard: bool = False,
) -> DnsFacts:
    """Look for one record everywhere it matters, and where people put it by mistake if it isn't there, within 30 s.

    Recursive servers are asked for the record only once the zone's own servers all have it: asking earlier would
    plant a negative answer in the very caches that people check with afterwards.
    """
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await _gather_dns(resolver, record, written_at, previous_values, ca_identifiers, wildcard)
    except TimeoutError:
        late = Look("the DNS", record.name, record.type, Outcome.TIMEOUT)
        return DnsFacts(record, None, resolvers=(late,))


async def follow(resolver: Resolver, record: DnsRecord) -> Delegation:
    """Where the CNAMEs of a record's name lead, asked at the servers of each zone on the way."""
    names = [record.name]
    if not is_delegable(record):
        return Delegation((record.name,))
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await _follow(resolver, names)
    except TimeoutError:
        return Delegation(tuple(names), known=False)


async def _follow(resolver: Resolver, names: list[str]) -> Delegation:
    while len(names) <= _MOST_CNAMES:
        zone = await _zone_of(resolver, names[-1])
        # A target in no zone that can be found is where the record belongs all the same.
        looks = await resolver.authoritative(zone, names[-1], "CNAME") if zone is not None else ()
        answered = [look for look in looks if look.outcome in _ANSWERED]
        target = _agreed([look.values[:1] for look in answered])
        if target is None:
            return Delegation(tuple(names), known=bool(answered) or len(names) > 1)
        names.append(target)
        if target in names[:-1]:
            return Delegation(tuple(names), loops=True)
    return Delegation(tuple(names), loops=True)


def _agreed(said: Sequence[tuple[str, ...]]) -> str | None:
    """The one name all servers gave; None when they gave none, or differ."""
    names = {normal_name(values[0]) if values else "" for values in said}
    return (names.pop() or None) if len(names) == 1 else None


async def _zone_of(resolver: Resolver, name: str) -> Zone | None:
    """The zone that holds the name itself, though its CNAME may lead to one that is dead or doesn't exist."""
    zone = await resolver.zone_of(name)
    if zone is None and name.startswith("_"):
        look = await resolver.lookup(name, "CNAME")
        if look.outcome is Outcome.FOUND:
            zone = await resolver.zone_of(name.partition(".")[2])
    return None if zone is not None and is_registry(zone.name, name) else zone


async def _gather_dns(
    resolver: Resolver,
    record: DnsRecord,
    written_at: Sequence[Nameserver],
    previous_values: frozenset[str],
    ca_identifiers: Sequence[str],
    wildcard: bool,
) -> DnsFacts:
    zone = await _zone_of(resolver, record.name)
    broken = await resolver.dnssec_broken(zone.name if zone else record.name, "SOA")
    if zone is None:
        looks = await resolver.lookup_everywhere(record.name, record.type)
        return DnsFacts(record, None, resolvers=looks, dnssec_failure=broken)
    looks, caa = await asyncio.gather(
        resolver.authoritative(zone, record.name, record.type),
        gather_caa(resolver, record.name, wildcard=wildcard),
    )
    answering = [look for look in looks if look.outcome in _ANSWERED]
    if broken is None and is_delegable(record) and _agreed([look.aliases[:1] for look in answering]) is not None:
        delegation = await _follow(resolver, [record.name])
        if delegation.loops:
            return DnsFacts(record, zone.name, zone.server_names, looks, delegation=delegation)
        if delegation.target is not None:
            there = replace(record, name=delegation.target)
            facts = await _gather_dns(resolver, there, written_at, previous_values, ca_identifiers, wildcard)
            if facts.dnssec_failure is None and facts.resolvers:
                facts = replace(facts, dnssec_failure=await resolver.dnssec_broken(record.name, record.type))
            return replace(facts, delegation=delegation, caa=caa)
    everywhere = bool(answering) and all(holds(look, record) for look in answering)
    cached: tuple[Look, ...] = ()
    other: Look | None = None
    misplaced: Misplaced | None = None
    elsewhere: tuple[Look, ...] = ()
    if everywhere:
        cached = await resolver.lookup_everywhere(record.name, record.type)
        broken = broken or await resolver.dnssec_broken(record.name, record.type)
    elif answering or written_at:
        elsewhere = tuple(
            await asyncio.gather(*(resolver.ask_stranger(s, record.name, record.type) for s in written_at))
        )
        other = await _as_other_type(resolver, zone, record)
        misplaced = await _misplaced(resolver, zone, record)
    return DnsFacts(
        record, zone.name, zone.server_names, looks, cached, other, misplaced, elsewhere, broken, previous_values, caa,
        tuple(ca_identifiers),
    )  # fmt: skip


_ANSWERED = frozenset((Outcome.FOUND, Outcome.NO_SUCH_NAME, Outcome.NO_SUCH_TYPE, Outcome.ALIAS))


async def _as_other_type(resolver: Resolver, zone: Zone, record: DnsRecord) -> Look | None:
    """The value under the type that is chosen by mistake; a CNAME's target may have had the zone's name appended."""
    value = record.value.rstrip(".").lower()
    for look in await resolver.authoritative(zone, record.name, _OTHER_TYPE[record.type]):
        said = [text.rstrip(".").lower() for text in look.values]
        if value in said or f"{value}.{zone.name}" in said:
            return look
    return None


async def _misplaced(resolver: Resolver, zone: Zone, record: DnsRecord) -> Misplaced | None:
    places = other_places(record, zone.name)
    looks = await asyncio.gather(*(resolver.authoritative(zone, name, record.type) for name, _ in places))
    for (name, doubled), answers in zip(places, looks, strict=True):
        if any(holds(look, record) for look in answers):
            return Misplaced(name, doubled)
    return None


async def gather_caa(resolver: Resolver, name: str, *, wildcard: bool) -> CaaFacts:
    """Climb from the name to the first CAA set (RFC 8659 3); a look-up that fails ends the climb."""
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await _climb_for_caa(resolver, name, wildcard)
    except TimeoutError:
        return CaaFacts(name, wildcard, failure="the look-ups took too long")


async def _climb_for_caa(resolver: Resolver, name: str, wildcard: bool) -> CaaFacts:
    at = name
    while at:
        look = await resolver.lookup(at, "CAA")
        if look.outcome is Outcome.FOUND and look.values:
            return CaaFacts(name, wildcard, at, parse_caa(look.values))
        if look.outcome not in _ANSWERED:
            broken = await resolver.dnssec_broken(at, "CAA")
            if broken is not None:
                return CaaFacts(name, wildcard, failure=f"DNSSEC of {at} is broken ({broken})", broken=True)
            why = f"{look.server} says {look.outcome.replace('_', ' ')}" + (f", {look.detail}" if look.detail else "")
            return CaaFacts(name, wildcard, failure=why)
        at = at.partition(".")[2]
    return CaaFacts(name, wildcard)


def _unverified() -> ssl.SSLContext:
    """The certificate doesn't matter: the file is often fetched to replace an expired one (BR 3.2.2.4.18)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def gather_file(egress: Egress, file: FileToPublish) -> FileFacts:
    """Fetch over http; if that doesn't give the file and the port is the usual one, over https as well."""
    ports = WEB_PORTS | {file.port}
    attempts = [await _attempt(egress, file.url, ports)]
    first = attempts[0]
    arrived = first.status is not None and 200 <= first.status < 300
    if not arrived and file.port == 80 and first.code not in ("egress_dns", "egress_denied"):
        attempts.append(await _attempt(egress, file.url.replace("http:", "https:", 1), ports))
    return FileFacts(file, tuple(attempts))


def _asking_for_alpn() -> ssl.SSLContext:
    context = _unverified()
    context.set_alpn_protocols([TLS_ALPN_PROTOCOL])
    return context


async def gather_tls_alpn(egress: Egress, name: str, port: int) -> TlsAttempt:
    """Look at what answers for the name when a CA asks (RFC 8737 section 3; RFC 8738 section 6 for addresses).

    Where that isn't the challenge's certificate, a second time for those of RSA keys alone: Apache's mod_md, with one
    of each kind, puts the challenge in the place of the RSA one only, and we prefer the other. CAs that prefer RSA
    never notice.
    """
    first = await _look_at_tls_alpn(egress, name, port, _asking_for_alpn())
    if not first.spoke or first.digest is not None:
        return first
    rsa = _asking_for_alpn()
    # In TLS 1.3 the kind of key isn't the cipher's to say.
    rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    rsa.set_ciphers("ECDHE+aRSA")
    second = await _look_at_tls_alpn(egress, name, port, rsa)
    return second if second.spoke and second.digest is not None else first


async def _look_at_tls_alpn(egress: Egress, name: str, port: int, context: ssl.SSLContext) -> TlsAttempt:
    try:
        connection = await egress.connect(
            name, port, timeout=FILE_TIMEOUT, tls=context, server_hostname=tls_alpn_server_name(name)
        )
    except EgressProblem as problem:
        return TlsAttempt(name, port, code=problem.code, message=problem.message, fix=problem.fix, extra=problem.extra)
    try:
        spoken = connection.writer.get_extra_info("ssl_object")
        names, digest = read_tls_alpn(spoken.getpeercert(binary_form=True) or b"")
        return TlsAttempt(
            name, port, connection.address, spoken.selected_alpn_protocol() == TLS_ALPN_PROTOCOL, names, digest
        )
    finally:
        await connection.close()


async def _attempt(egress: Egress, url: str, ports: frozenset[int]) -> FileAttempt:
    try:
        fetched = await egress.fetch(
            url, max_bytes=FILE_MAX_BYTES, timeout=FILE_TIMEOUT, max_redirects=FILE_MAX_REDIRECTS,
            allowed_ports=ports, tls=_unverified(),
        )  # fmt: skip
    except EgressProblem as problem:
        return FileAttempt(url, code=problem.code, message=problem.message, extra=problem.extra)
    return FileAttempt(url, fetched.address, fetched.status, fetched.body, fetched.redirects)
