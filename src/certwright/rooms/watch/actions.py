"""Adding, changing and removing endpoints, looking at them, and recording what was seen."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, Refused, Stale, not_found
from certwright.platform.addresses import IPAddress
from certwright.platform.db import Tx
from certwright.platform.egress import EgressProblem
from certwright.platform.services import Services
from certwright.rooms import access, audit, certificates, deployment
from certwright.rooms.watch import alarms, intended, metrics, rules, store
from certwright.rooms.watch.chains import Roots, UnreadableError, examine
from certwright.rooms.watch.handshake import NoHandshakeError, handshake
from certwright.rooms.watch.ports import TrustedRoots
from certwright.rooms.watch.tables import alarms as alarms_table
from certwright.rooms.watch.tables import endpoints
from certwright.rooms.watch.words import Expectation, Observation, Origin, StartTls, stamp

PROBE_STEP = "watch.probe"

PROBE_TIMEOUT = 10.0
"""Seconds for one address, from connecting to the end of the handshake."""

_MAX_ADDRESSES = 8
# A server restarting or a lost packet isn't an alarm: a failure counts when the next look, soon after, fails too.
_CONFIRM = 2
_CONFIRM_AFTER = timedelta(seconds=10)
_ROOTS_FOR = 60.0


# For people


def location_of(row: Any) -> dict[str, Any]:
    """Where an endpoint is, for alarms and messages."""
    return {
        "host": row.host,
        "port": row.port,
        "sni": row.sni or None,
        "starttls": row.starttls,
        "site_id": row.site_id,
        "binding_id": row.binding_id,
        "certificate_id": row.certificate_id,
    }


def name_of(row: Any) -> str:
    """`www.example.com:443`, with the name asked for where it isn't the host."""
    host = f"[{row.host}]" if ":" in row.host else row.host
    return f"{host}:{row.port}" + (f" ({row.sni})" if row.sni and row.sni != row.host else "")


def normal_host(text: str, *, field: str = "host") -> str:
    """A host name in A-labels or an address in its one spelling; raises Invalid as kernel.names does."""
    plain = text.strip().strip("[]")
    if looks_like_ip(plain):
        return str(parse_ip(plain, field=field))
    name = parse_dns_name(plain, field=field)
    if name.is_wildcard:
        raise Invalid(
            "host_is_wildcard", f"{name} is a wildcard; only a single host can be watched.", field=field,
            fix="Enter one of the hosts that use the wildcard certificate.",
        )  # fmt: skip
    return name.ascii


def normal_sni(text: str | None) -> str:
    """The name to ask for; empty for none. Raises Invalid."""
    if not text:
        return ""
    name = parse_dns_name(text, field="sni")
    if name.is_wildcard:
        raise Invalid(
            "sni_is_wildcard", f"{name} is a wildcard; a client asks for one name.", field="sni",
            fix="Enter one of the names that the wildcard covers.",
        )  # fmt: skip
    return name.ascii


async def create_endpoint(
    services: Services,
    actor: Actor,
    *,
    host: str,
    port: int = 443,
    sni: str | None = None,
    starttls: str = "none",
    certificate_id: str | None = None,
    project_id: str | None = None,
) -> Any:
    """Watch an address from now on; the first probe starts at once. Returns the row.

    Raises Refused `endpoint_exists`, Invalid for host, port, sni and starttls, NotFound for the certificate.
    """
    plain_host, plain_sni = normal_host(host), normal_sni(sni)
    _check_port(port)
    kind = _starttls(starttls)
    version = None
    if certificate_id is not None:
        await certificates.get_certificate(services, actor, certificate_id)
    now = services.clock.now()
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "alarm:endpoint:create", project_id)
        if certificate_id is not None:
            version = await certificates.current_version(tx, certificate_id)
        values = {
            "id": new_id("endp", now), "account_id": actor.account_id, "project_id": project, "host": plain_host,
            "port": port, "sni": plain_sni, "starttls": kind, "origin": Origin.MANUAL,
            "certificate_id": certificate_id, "expected_fingerprint": version.sha256 if version else None,
            "created_at": now, "next_probe_at": now + timedelta(seconds=services.settings.probe_interval),
        }  # fmt: skip
        if not await store.insert_endpoint(tx, values):
            raise _exists(plain_host, port)
        await services.jobs.start(tx, PROBE_STEP, str(values["id"]))
        await audit.record(
            tx, services, actor, "alarm:endpoint:create", "endpoint", str(values["id"]), project_id=project,
            after={"host": plain_host, "port": port, "sni": plain_sni, "starttls": kind.value,
                   "certificate_id": certificate_id},
        )  # fmt: skip
        return await store.endpoint(tx, str(values["id"]))


def _exists(host: str, port: int) -> Refused:
    return Refused(
        "endpoint_exists", f"{host} port {port} is watched already with this name and kind of start.", field="host",
        fix="Use the endpoint that exists, or give another name to ask for.",
    )  # fmt: skip


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise Invalid("port_invalid", f"{port} is not a port.", field="port", fix="Enter a number from 1 to 65535.")


def _starttls(text: str) -> StartTls:
    try:
        return StartTls(text)
    except ValueError:
        raise Invalid(
            "starttls_unknown", f"{text[:40]!r} is not a way to begin TLS known here.", field="starttls",
            fix="Use one of: " + ", ".join(kind.value for kind in StartTls) + ".",
        ) from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Empty fields don't narrow. `search` is part of the host or the name asked for; `or_serves` the fingerprint of a
    version of `certificate_id`, for endpoints that serve it without being bound to it."""

    search: str = ""
    certificate_id: str | None = None
    or_serves: str | None = None
    reachable: bool | None = None


async def list_endpoints(
    services: Services, actor: Actor, filter: EndpointFilter | None = None, *, after: str | None = None, limit: int = 20
) -> list[Any]:
    """Rows of `endpoints`, newest first; `after` is the id of the last one seen."""
    where = [access.visible(endpoints, actor, "alarm:endpoint:list")]
    wanted = filter or EndpointFilter()
    if wanted.search:
        part = wanted.search.lower()
        where.append(
            sa.or_(endpoints.c.host.contains(part, autoescape=True), endpoints.c.sni.contains(part, autoescape=True))
        )
    if wanted.certificate_id is not None:
        its_own = endpoints.c.certificate_id == wanted.certificate_id
        found = sa.false() if wanted.or_serves is None else endpoints.c.fingerprint == wanted.or_serves
        where.append(sa.or_(its_own, found))
    if wanted.reachable is not None:
        where.append(endpoints.c.reachable.is_(wanted.reachable))
    async with services.db.begin() as tx:
        return await store.endpoint_page(tx, where, after=after, limit=limit)


async def get_endpoint(services: Services, actor: Actor, endpoint_id: str) -> tuple[Any, list[Any], list[Any]]:
    """The endpoint, what each of its addresses serves now, and its open alarms (rows)."""
    async with services.db.moment() as tx:
        row = await _visible(tx, actor, "alarm:endpoint:get", endpoint_id)
        seen = await store.observation_page(tx, endpoint_id, current=True, limit=_MAX_ADDRESSES)
        standing = list((await store.open_alarms(tx, [endpoint_id])).values())
        return row, seen, standing


async def observations(
    services: Services, actor: Actor, endpoint_id: str, *, after: str | None = None, limit: int = 20
) -> list[Any]:
    """The history of an endpoint as changes, newest first (rows of `observations`)."""
    async with services.db.begin() as tx:
        await _visible(tx, actor, "alarm:endpoint:get", endpoint_id)
        return await store.observation_page(tx, endpoint_id, current=False, after=after, limit=limit)


async def update_endpoint(
    services: Services,
    actor: Actor,
    endpoint_id: str,
    *,
    revision: int | None = None,
    enabled: bool | None = None,
    certificate_id: str | None = None,
    any_certificate: bool = False,
) -> Any:
    """Switch watching on or off, or change which certificate should be served (`any_certificate`: none in particular).

    Raises Refused `endpoint_bound` when a binding says which certificate it is, Stale when `revision` is old.
    """
    if certificate_id is not None:
        await certificates.get_certificate(services, actor, certificate_id)
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "alarm:endpoint:update", endpoint_id)
        values: dict[str, Any] = {}
        if certificate_id is not None or any_certificate:
            if row.binding_id is not None:
                raise Refused(
                    "endpoint_bound", "Which certificate this endpoint should serve follows from its binding.",
                    field="certificate_id", fix="Bind another certificate to the site instead.",
                )  # fmt: skip
            version = await certificates.current_version(tx, certificate_id) if certificate_id else None
            values |= {
                "certificate_id": certificate_id,
                "expected_fingerprint": version.sha256 if version else None,
                "settle_until": None,
            }
        if enabled is not None:
            values |= {"enabled": enabled, "next_probe_at": now if enabled else None}
        if not await store.update_endpoint(tx, endpoint_id, read_at=revision, revision=row.revision + 1, **values):
            raise Stale(
                "changed_meanwhile", "The endpoint was changed since you read it.",
                fix="Read it again, then repeat your change.", extra={"revision": row.revision},
            )  # fmt: skip
        if enabled is False:
            await alarms.clear_all_of(tx, services, endpoint_id, "switched off")
        elif values:
            await services.jobs.start(tx, PROBE_STEP, endpoint_id)
        shown = {key: value for key, value in values.items() if key in ("certificate_id", "enabled")}
        await audit.record(
            tx, services, actor, "alarm:endpoint:update", "endpoint", endpoint_id, project_id=row.project_id,
            before={key: getattr(row, key) for key in shown}, after=shown,
        )  # fmt: skip
        return await store.endpoint(tx, endpoint_id)


async def delete_endpoint(services: Services, actor: Actor, endpoint_id: str) -> None:
    """Stop watching; its alarms are cleared and stay in the history. Raises Refused `endpoint_bound`."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "alarm:endpoint:delete", endpoint_id)
        if row.binding_id is not None:
            raise Refused(
                "endpoint_bound", "The endpoint is watched because a certificate is bound there.",
                fix="Switch it off instead, or remove the binding.", extra={"binding_id": row.binding_id},
            )  # fmt: skip
        await alarms.clear_all_of(tx, services, endpoint_id, "no longer watched")
        await store.delete_endpoint(tx, endpoint_id)
        await audit.record(
            tx, services, actor, "alarm:endpoint:delete", "endpoint", endpoint_id, project_id=row.project_id,
            before=location_of(row),
        )  # fmt: skip


async def probe_now(services: Services, actor: Actor, endpoint_id: str) -> Any:
    """Have it looked at at once, by a worker; see `last_probe_at` and the observations for what was found."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "alarm:endpoint:probe", endpoint_id)
        if not row.enabled:
            raise Refused("endpoint_disabled", "Watching is switched off for this endpoint.", fix="Switch it on first.")
        await services.jobs.start(tx, PROBE_STEP, endpoint_id)
        return row


async def _visible(tx: Tx, actor: Actor, action: str, endpoint_id: str) -> Any:
    row = await store.endpoint(tx, endpoint_id, access.visible(endpoints, actor, "alarm:endpoint:get"))
    if row is None:
        raise not_found("endpoint", endpoint_id)
    access.require(actor, action, project_id=row.project_id, resource=f"endpoint:{endpoint_id}")
    return row


@dataclass(frozen=True, slots=True)
class Counts:
    """For the dashboard: open alarms by severity; endpoints being watched, answering and not."""

    alarms: Mapping[str, int]
    endpoints: int
    reachable: int
    unreachable: int


async def counts(tx: Tx, actor: Actor) -> Counts:
    by_severity = await store.open_alarm_counts(tx, access.visible(alarms_table, actor, "alarm:alarm:list"))
    total, reachable, unreachable = await store.endpoint_counts(
        tx, access.visible(endpoints, actor, "alarm:endpoint:list")
    )
    return Counts(by_severity, total, reachable, unreachable)


async def open_alarms_for(tx: Tx, object_id: str) -> list[Any]:
    """Open alarms (rows) of an endpoint, or of a certificate with those of the endpoints that should serve it.

    Whoever asks: callers check access to the object themselves.
    """
    ids = [object_id, *(row.id for row in await store.endpoints_of_certificates(tx, [object_id]))]
    return sorted((await store.open_alarms(tx, ids)).values(), key=lambda row: row.id)


# Looking


@dataclass(frozen=True, slots=True)
class Look:
    """What a probe of an endpoint found, an observation for each address, and how long each took in seconds."""

    endpoint_id: str
    started_at: datetime
    observations: tuple[Observation, ...]


class RootCache:
    """The roots known here, read about once a minute and the same object while they are the same."""

    def __init__(self) -> None:
        self._ders: frozenset[bytes] = frozenset()
        self._roots = Roots(())
        self._read_at: float | None = None

    async def get(self, services: Services) -> Roots:
        if self._read_at is None or time.monotonic() - self._read_at > _ROOTS_FOR:
            ders = set(_system_roots())
            if TrustedRoots in services.ports:
                ders |= set(await services.port(TrustedRoots).roots(services))
            if ders != self._ders or self._read_at is None:
                self._ders, self._roots = frozenset(ders), Roots(ders)
            self._read_at = time.monotonic()
        return self._roots


@lru_cache(maxsize=1)
def _system_roots() -> frozenset[bytes]:
    """The machine's trust store, where it has one."""
    context = ssl.create_default_context()
    found = context.get_ca_certs(binary_form=True)
    paths = ssl.get_default_verify_paths()
    if not found and paths.capath is not None:
        # A store that is a directory is only read by OpenSSL when needed, so it has to be read here.
        for file in sorted(Path(paths.capath).glob("*.0")):
            try:
                found.append(ssl.PEM_cert_to_DER_cert(file.read_text("ascii").strip()))
            except (OSError, ValueError):
                continue
    return frozenset(found)


async def look(services: Services, row: Any, roots: Roots) -> Look:
    """Probe every address of an endpoint. What the network does is in the result, never an exception."""
    started = services.clock.now()
    try:
        addresses = (await services.egress.resolve(row.host))[:_MAX_ADDRESSES]
    except EgressProblem as problem:
        own = await _own_listener(services, row) if problem.code == "egress_denied" else None
        if own is None:
            return Look(row.id, started, (_unresolved(row, started, problem),))
        addresses = (own,)
    if len(addresses) == 1:
        found = [await _observe(row, str(addresses[0]), started, roots)]
    else:
        found = await asyncio.gather(*(_observe(row, str(address), started, roots) for address in addresses))
    return Look(row.id, started, tuple(found))


def _unresolved(row: Any, at: datetime, problem: EgressProblem) -> Observation:
    code = {"egress_denied": "denied", "egress_dns": "dns"}.get(problem.code, "refused")
    if problem.extra.get("outcome") in ("timeout", "unreachable"):
        code = "resolver_away"
    detail = f"{problem.message} {problem.fix}" if code == "denied" else problem.message
    address = str(problem.extra.get("address", ""))
    return Observation(address, at, problem=code, detail=detail, failures=row.failures + 1)


async def _own_listener(services: Services, row: Any) -> IPAddress | None:
    """The loopback address of an endpoint at which a bound site of this very machine was found listening.

    Loopback is closed, because whoever may add endpoints could otherwise feel out every program of this machine. This
    one address and port a target's own configuration names, and deploying connects to it in any case. The binding is
    asked each time: when it is gone, or the site listens elsewhere, the door is closed again.
    """
    if row.binding_id is None or not looks_like_ip(row.host):
        return None
    address = ipaddress.ip_address(row.host)
    if not address.is_loopback:
        return None
    async with services.db.begin() as tx:
        return address if await deployment.listens_at(tx, row.binding_id, row.host, row.port) else None


async def _observe(row: Any, address: str, at: datetime, roots: Roots) -> Observation:
    sni = row.sni or ("" if looks_like_ip(row.host) else row.host)
    try:
        shaken = await handshake(
            address, row.port, server_name=sni or None, starttls=StartTls(row.starttls), timeout=PROBE_TIMEOUT
        )
    except NoHandshakeError as error:
        return Observation(address, at, problem=error.code, detail=error.detail, failures=row.failures + 1)
    seen = Observation(
        address, at, chain_der=shaken.chain, tls_version=shaken.tls_version, cipher=shaken.cipher,
        group=shaken.group, latency=shaken.seconds,
    )  # fmt: skip
    if not shaken.chain:
        return replace(seen, problem="no_certificate", detail="the server sent no certificate")
    try:
        return replace(seen, chain=examine(shaken.chain, roots))
    except UnreadableError as error:
        return replace(seen, problem="unreadable", detail=str(error))


# Recording


async def _expectation(tx: Tx, row: Any, found: Look, now: datetime) -> Expectation:
    expected = Expectation(
        name=row.sni or row.host,
        fingerprint=row.expected_fingerprint,
        settle_until=row.settle_until,
        # What was never seen working has no restart to be waiting for: its first failure counts.
        confirm=_CONFIRM if row.reachable else 1,
    )
    served = {seen.chain.fingerprint for seen in found.observations if seen.chain is not None}
    if row.site_id is None or served <= {row.expected_fingerprint}:
        return expected
    # What events told may be old: ask the bindings before saying that something else is served than intended.
    meant = [one.fingerprint for one in await intended.bound(tx, site_id=row.site_id) if one.fingerprint is not None]
    as_served = [fingerprint for fingerprint in meant if fingerprint in served]
    expected = replace(expected, fingerprint=as_served[0] if as_served else meant[0] if meant else None)
    if not served <= {expected.fingerprint} and await intended.rollout_under_way(tx, row.site_id):
        return replace(expected, settle_until=now + _CONFIRM_AFTER)
    return expected


def _failed(found: Look) -> bool:
    """Whether an address gave no handshake; one this machine has no route to doesn't count beside others."""
    routed = [seen for seen in found.observations if seen.problem != "no_route"]
    return any(not seen.reachable for seen in routed or found.observations)


async def record(services: Services, looks: Sequence[Look]) -> None:
    """Write what a batch of probes found, in one transaction: periods extended or begun, alarms settled, next probes.

    A look older than one already recorded is dropped, so that a slow probe doesn't undo what a later one found.
    """
    if not looks:
        return
    now = services.clock.now()
    interval = timedelta(seconds=services.settings.probe_interval)
    by_id = {look.endpoint_id: look for look in looks}
    touched: list[tuple[str, float | None]] = []
    ended: list[str] = []
    begun: list[dict[str, Any]] = []
    quiet: list[str] = []
    async with services.db.begin() as tx:
        rows = await store.lock_endpoints(tx, list(by_id))
        opened = await store.open_observations(tx, list(rows))
        standing = await store.open_alarms(tx, list(rows))
        for endpoint_id, row in rows.items():
            found = by_id[endpoint_id]
            last = row.last_probe_at
            is_old = last is not None and found.started_at < last <= now + rules.CLOCKS_DIFFER
            if not row.enabled or is_old:
                continue
            fresh = False
            expected = await _expectation(tx, row, found, now)
            addresses = {seen.address for seen in found.observations}
            for seen in found.observations:
                as_meant = None
                if seen.chain is not None and expected.fingerprint is not None:
                    as_meant = seen.chain.fingerprint == expected.fingerprint
                digest = rules.digest(seen, intended=as_meant)
                before = opened.get(endpoint_id, {}).get(seen.address)
                latency = None if seen.latency is None else round(seen.latency * 1000, 2)
                if before is not None and before.digest == digest:
                    touched.append((before.id, latency))
                    continue
                fresh = True
                if before is not None:
                    ended.append(before.id)
                begun.append(_observation_row(row, seen, digest, as_meant, latency, now))
            ended += [old.id for address, old in opened.get(endpoint_id, {}).items() if address not in addresses]
            failed = _failed(found)
            verdict = rules.combine([(seen, rules.judge(seen, expected, now)) for seen in found.observations])
            facts = {fact.kind: fact for fact in verdict.facts}
            for kind in rules.ENDPOINT_KINDS:
                alarm = standing.get((endpoint_id, kind))
                if alarm is not None or kind in facts:
                    await alarms.settle(
                        tx, services, subject_of(row), kind, facts.get(kind), alarm,
                        undecided=kind in verdict.undecided, by="probe",
                    )  # fmt: skip
            if fresh or failed or row.failures or row.last_probe_at is None:
                await store.update_endpoint(tx, endpoint_id, **_kept(row, found, failed, now, interval))
            else:
                quiet.append(endpoint_id)
        if ended:
            await store.supersede_observations(tx, ended, now)
        if begun:
            await store.insert_observations(tx, begun)
        if touched:
            await store.touch_observations(tx, now, touched)
        if quiet:
            await store.note_unchanged(tx, quiet, now, interval)
    failures = sum(_failed(found) for found in looks)
    metrics.PROBES.labels("failed").inc(failures)
    metrics.PROBES.labels("reached").inc(len(looks) - failures)


def subject_of(row: Any) -> alarms.Subject:
    """An endpoint as what an alarm is about."""
    return alarms.Subject("endpoint", row.id, name_of(row), row.account_id, row.project_id, location_of(row))


def _kept(row: Any, found: Look, failed: bool, now: datetime, interval: timedelta) -> dict[str, Any]:
    """What the endpoint's row keeps of its last probe: of several addresses, the certificate that ends first."""
    chains = [seen.chain for seen in found.observations if seen.chain is not None]
    failures = row.failures + 1 if failed else 0
    soon = failed and failures < _CONFIRM and interval > _CONFIRM_AFTER
    values: dict[str, Any] = {
        "last_probe_at": now,
        "failures": failures,
        "next_probe_at": now + (_CONFIRM_AFTER if soon else interval),
        "reachable": not failed or (bool(row.reachable) and failures < _CONFIRM),
    }
    if chains:
        first = min(chains, key=lambda chain: chain.not_after)
        values |= {
            "fingerprint": first.fingerprint,
            "subject": first.subject,
            "issuer": first.issuer,
            "serial": first.serial,
            "not_before": first.not_before,
            "not_after": first.not_after,
            "chain_not_after": min(chain.earliest_not_after for chain in chains),
        }
    return values


def _observation_row(
    row: Any, seen: Observation, digest: str, as_meant: bool | None, latency: float | None, now: datetime
) -> dict[str, Any]:
    chain = seen.chain
    return {
        "id": new_id("probe", now),
        "endpoint_id": row.id,
        "account_id": row.account_id,
        "project_id": row.project_id,
        "address": seen.address,
        "first_seen": now,
        "last_seen": now,
        "digest": digest,
        "reachable": seen.reachable,
        "intended": as_meant,
        "problem": seen.problem,
        "detail": seen.detail if chain is None else chain.detail,
        "fingerprint": chain.fingerprint if chain else None,
        "names": list(chain.names) if chain else [],
        "not_before": chain.not_before if chain else None,
        "not_after": chain.not_after if chain else None,
        "chain_state": chain.state.value if chain else None,
        "trusted": chain.trusted if chain else None,
        "links": [
            {"subject": link.subject, "issuer": link.issuer, "fingerprint": link.fingerprint,
             "not_after": stamp(link.not_after)}
            for link in (chain.links if chain else ())
        ],
        "chain_ders": list(seen.chain_der),
        "tls_version": seen.tls_version,
        "cipher": seen.cipher,
        "key_exchange_group": seen.group,
        "latency_ms": latency,
    }  # fmt: skip


def listener_host(host: str) -> str:
    """Where to look for a listener on all addresses of this machine: at the machine itself."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "127.0.0.1" if host in ("*", "") else host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)
