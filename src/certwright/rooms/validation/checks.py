"""Gathering the facts: the look-ups and fetches behind every check. No database, no decisions."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from certwright.platform.egress import WEB_PORTS, Egress, EgressProblem
from certwright.platform.resolver import Look, Nameserver, Outcome, Resolver, Zone
from certwright.rooms.validation.rules import holds, is_registry, other_places, parse_caa
from certwright.rooms.validation.words import (
    CaaFacts,
    DnsFacts,
    DnsRecord,
    FileAttempt,
    FileFacts,
    FileToPublish,
    Misplaced,
)

FILE_MAX_BYTES = 8 * 1024
FILE_TIMEOUT = 10.0
FILE_MAX_REDIRECTS = 10
# Each question is bounded too; this is for servers that answer each one as late as they can.
LOOK_UP_SECONDS = 30.0

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


async def _gather_dns(
    resolver: Resolver,
    record: DnsRecord,
    written_at: Sequence[Nameserver],
    previous_values: frozenset[str],
    ca_identifiers: Sequence[str],
    wildcard: bool,
) -> DnsFacts:
    zone = await resolver.zone_of(record.name)
    if zone is not None and is_registry(zone.name, record.name):
        zone = None
    broken = await resolver.dnssec_broken(zone.name if zone else record.name, "SOA")
    if zone is None:
        looks = await resolver.lookup_everywhere(record.name, record.type)
        return DnsFacts(record, None, resolvers=looks, dnssec_failure=broken)
    looks, caa = await asyncio.gather(
        resolver.authoritative(zone, record.name, record.type),
        gather_caa(resolver, record.name, wildcard=wildcard),
    )
    answering = [look for look in looks if look.outcome in _ANSWERED]
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


async def _attempt(egress: Egress, url: str, ports: frozenset[int]) -> FileAttempt:
    try:
        fetched = await egress.fetch(
            url, max_bytes=FILE_MAX_BYTES, timeout=FILE_TIMEOUT, max_redirects=FILE_MAX_REDIRECTS,
            allowed_ports=ports, tls=_unverified(),
        )  # fmt: skip
    except EgressProblem as problem:
        return FileAttempt(url, code=problem.code, message=problem.message, extra=problem.extra)
    return FileAttempt(url, fetched.address, fetched.status, fetched.body, fetched.redirects)
