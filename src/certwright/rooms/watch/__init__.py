"""Watching: what endpoints serve, what is wrong with it, and the alarms that say so."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms.watch import jobs, metrics, tables
from certwright.rooms.watch.actions import (
    PROBE_STEP,
    Counts,
    EndpointFilter,
    RootCache,
    counts,
    create_endpoint,
    delete_endpoint,
    get_endpoint,
    list_endpoints,
    name_of,
    observations,
    open_alarms_for,
    probe_now,
    update_endpoint,
)
from certwright.rooms.watch.alarms import AlarmFilter, acknowledge, get_alarm, list_alarms
from certwright.rooms.watch.catalogue import CATALOGUE, AlarmKind, localized, sentence
from certwright.rooms.watch.metrics import refresh as refresh_metrics
from certwright.rooms.watch.metrics import text_for as metrics_text
from certwright.rooms.watch.ports import TrustedRoots
from certwright.rooms.watch.words import (
    ALARM_CHANGED,
    ALARM_CLEARED,
    ALARM_RAISED,
    Chain,
    Origin,
    Severity,
    StartTls,
)

__all__ = [
    "ALARM_CHANGED",
    "ALARM_CLEARED",
    "ALARM_RAISED",
    "CATALOGUE",
    "PROBE_STEP",
    "AlarmFilter",
    "AlarmKind",
    "Chain",
    "Counts",
    "EndpointFilter",
    "Origin",
    "Severity",
    "StartTls",
    "TrustedRoots",
    "acknowledge",
    "counts",
    "create_endpoint",
    "delete_endpoint",
    "get_alarm",
    "get_endpoint",
    "list_alarms",
    "list_endpoints",
    "localized",
    "metrics_text",
    "name_of",
    "observations",
    "open_alarms_for",
    "probe_due",
    "probe_now",
    "refresh_metrics",
    "register",
    "sentence",
    "tables",
    "update_endpoint",
]

_ROOTS = RootCache()


async def probe_due(services: Services) -> int:
    """The regular round, run by every worker once a second: probes all endpoints that are due; returns how many."""
    return await jobs.probe_due(services, _ROOTS)


def register(services: Services) -> None:
    roots = RootCache()

    async def round_of_probes(services: Services) -> None:
        await jobs.probe_due(services, roots)

    async def probe(services: Services, endpoint_id: str) -> Next:
        return await jobs.probe_step(services, endpoint_id, roots)

    services.jobs.register(PROBE_STEP, tables.endpoints, probe)
    services.jobs.register(jobs.VERSION_STEP, tables.watched_versions, jobs.version_step)
    services.jobs.every("watch.probes", timedelta(seconds=1), round_of_probes)
    services.jobs.every("watch.metrics", timedelta(seconds=15), metrics.refresh)
    services.jobs.every("watch.desk", timedelta(minutes=5), jobs.look_at_desk)
    services.jobs.every("watch.authorities", timedelta(minutes=5), jobs.look_at_cas)
    services.jobs.every("watch.forget", timedelta(hours=1), jobs.forget)
    for kind, listener in (
        ("certificate.auto_renew_set", jobs.renewal_moved),
        ("renewal.sooner", jobs.renewal_moved),
        ("certificate.application_failed", jobs.application_failed),
        ("certificate.revoked", jobs.certificate_revoked),
        ("certificate.moved", jobs.certificate_moved),
        ("certificate.deleted", jobs.certificate_deleted),
        ("validation.evidence_runs_out", jobs.evidence_runs_out),
        ("validation.evidence_lasts", jobs.evidence_lasts),
        ("deployment.binding_created", jobs.binding_created),
        ("deployment.binding_removed", jobs.binding_removed),
        ("deployment.rollout_finished", jobs.rollout_finished),
        ("deployment.rollout_failed", jobs.rollout_failed),
        ("deployment.rollout_undone", jobs.rollout_undone),
    ):
        services.events.subscribe(kind, "watch", listener)
    services.events.subscribe_batch("certificate.version_issued", "watch", jobs.version_issued)
