"""Gauges of what endpoints serve, under the names existing dashboards know, from values kept by the last probes; and of
when private CAs end.

A scrape never touches the database by itself: `refresh` reads one row an endpoint, at most every few seconds, and
`text_for` shows a caller those of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from certwright.kernel.actor import Actor, Grant
from certwright.platform.services import Services
from certwright.platform.telemetry import REGISTRY
from certwright.rooms import access, authorities
from certwright.rooms.watch import store

PROBES = Counter("certwright_probes", "Endpoint probes, by outcome", ["outcome"], registry=REGISTRY)

# Of one account.
_MOST_ENDPOINTS = 20_000
_FRESH_SECONDS = 10.0


_LABELS = ("endpoint", "instance", "server_name")


class EndpointGauges(Collector):
    """Shows these rows."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        success = GaugeMetricFamily("probe_success", "Whether the endpoint answered with TLS", labels=_LABELS)
        earliest = GaugeMetricFamily(
            "probe_ssl_earliest_cert_expiry", "First expiry in the served chain, unix seconds", labels=_LABELS
        )
        subject = (*_LABELS, "subject_CN", "issuer", "serial_number")
        before = GaugeMetricFamily("x509_cert_not_before", "Served certificate: start, unix seconds", labels=subject)
        after = GaugeMetricFamily("x509_cert_not_after", "Served certificate: expiry, unix seconds", labels=subject)
        for row in self.rows:
            host = f"[{row.host}]" if ":" in row.host else row.host
            names = [row.id, f"{host}:{row.port}", row.sni or row.host]
            success.add_metric(names, 1.0 if row.reachable else 0.0)
            if row.not_after is None or not row.reachable:
                continue
            earliest.add_metric(names, row.chain_not_after.timestamp())
            labels = [*names, row.subject, row.issuer, row.serial]
            before.add_metric(labels, row.not_before.timestamp())
            after.add_metric(labels, row.not_after.timestamp())
        yield from (success, earliest, before, after)


class AuthorityGauges(Collector):
    """Shows when these CAs end. A name of their own: they are no endpoint, and rules that watch what is served would
    take them for one."""

    def __init__(self, cas: Sequence[authorities.CaLife]) -> None:
        self.cas = cas

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ("authority", "name", "kind")
        after = GaugeMetricFamily("certwright_ca_not_after", "Private CA: expiry, unix seconds", labels=labels)
        for ca in self.cas:
            after.add_metric([ca.id, ca.name, ca.kind], ca.not_after.timestamp())
        yield after


@dataclass
class Kept:
    """The rows of the last refresh, of all accounts; `read_at` by the monotonic clock."""

    rows: Sequence[Any] = ()
    cas: Sequence[authorities.CaLife] = ()
    read_at: float | None = None
    texts: dict[tuple[str, tuple[Grant, ...]], bytes] = field(default_factory=dict)
    """What was made of the rows, by account and permissions: making it costs a fifth of a second for many endpoints,
    in which nobody else is served, and a scraper may come as often as it likes."""


# In no registry: what is registered is shown to everybody who may read metrics, whatever their account.
GAUGES = Kept()


async def refresh(services: Services) -> None:
    """Read the kept values unless they were read a moment ago; whoever serves `/metrics` calls this first."""
    if GAUGES.read_at is not None and time.monotonic() - GAUGES.read_at < _FRESH_SECONDS:
        return
    GAUGES.read_at = time.monotonic()
    async with services.db.begin() as tx:
        GAUGES.rows = await store.metric_rows(tx, _MOST_ENDPOINTS)
        GAUGES.cas = await authorities.lives(tx)
    GAUGES.texts.clear()


def text_for(actor: Actor) -> bytes:
    """What this process counted, and the gauges of the actor's own endpoints and CAs, in Prometheus' text format."""
    who = (actor.account_id, actor.grants)
    text = GAUGES.texts.get(who)
    if text is None:
        own = CollectorRegistry()
        rows = [row for row in GAUGES.rows if _may_read(actor, row, "endpoint", "alarm:endpoint:list")]
        own.register(EndpointGauges(rows))
        own.register(AuthorityGauges([ca for ca in GAUGES.cas if _may_read(actor, ca, "authority", "ccm:ca:list")]))
        text = GAUGES.texts[who] = generate_latest(own)
    return generate_latest(REGISTRY) + text


def _may_read(actor: Actor, row: Any, kind: str, action: str) -> bool:
    """Reading metrics is permission enough, but what somebody is kept from listing isn't told here either."""
    if row.account_id != actor.account_id:
        return False
    resource = f"{kind}:{row.id}"
    listing = access.decide(actor.grants, action, resource, row.project_id)
    is_denied = not listing.allowed and listing.policy is not None
    return not is_denied and access.decide(actor.grants, "iam:metrics:read", resource, row.project_id).allowed
