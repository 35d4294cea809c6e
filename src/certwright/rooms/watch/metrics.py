"""Gauges of what endpoints serve, under the names existing dashboards know, from values kept by the last probes.

A scrape never touches the database by itself: `refresh` reads one row an endpoint, at most every few seconds, and the
collector shows what was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from certwright.platform.services import Services
from certwright.platform.telemetry import REGISTRY
from certwright.rooms.watch import store

PROBES = Counter("certwright_probes", "Endpoint probes, by outcome", ["outcome"], registry=REGISTRY)

_MOST_ENDPOINTS = 20_000
_FRESH_SECONDS = 10.0


_LABELS = ("endpoint", "instance", "server_name")


class EndpointGauges(Collector):
    """Shows the rows of the last refresh."""

    def __init__(self) -> None:
        self.rows: Sequence[Any] = ()
        self.read_at: float | None = None

    def describe(self) -> list[Any]:
        """Nothing: registering must not collect."""
        return []

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


GAUGES = EndpointGauges()
REGISTRY.register(GAUGES)


async def refresh(services: Services) -> None:
    """Read the kept values unless they were read a moment ago; whoever serves `/metrics` calls this first."""
    if GAUGES.read_at is not None and time.monotonic() - GAUGES.read_at < _FRESH_SECONDS:
        return
    GAUGES.read_at = time.monotonic()
    async with services.db.begin() as tx:
        GAUGES.rows = await store.metric_rows(tx, _MOST_ENDPOINTS)
