"""The regular round of probes, probes asked for at once, and what other rooms' events mean for watching."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from certwright.kernel.actor import system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Invalid, NotFound
from certwright.platform.db import Tx
from certwright.platform.events import Event
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms import accounts, acme_server, authorities, certificates, organisations, renewal
from certwright.rooms.watch import actions, alarms, intended, rules, store
from certwright.rooms.watch.words import (
    CA_ENDS,
    DEPLOYMENT,
    DESK,
    EVIDENCE,
    OVERDUE,
    WRONG_CERTIFICATE,
    AlarmFact,
    Origin,
    Severity,
    StartTls,
)

log = structlog.get_logger(__name__)

VERSION_STEP = "watch.renewal"

_IN_FLIGHT = 400
_GATHER_SECONDS = 0.2
_CLAIM = timedelta(seconds=60)
_FORGOTTEN_AT_ONCE = 1000
_SETTLE_AFTER_ISSUE = rules.LONGEST_SETTLING
# Old workers of a server that was just reloaded may finish a handshake with what they had.
_SETTLE_AFTER_ROLLOUT = timedelta(seconds=30)


async def probe_due(services: Services, roots: actions.RootCache, *, in_flight: int = _IN_FLIGHT) -> int:
    """Probe every endpoint whose round has come, many at a time; returns how many.

    Results are written in batches while slow endpoints are still being waited for. Several workers share the work:
    a claim ends by itself when its worker dies.
    """
    known = await roots.get(services)
    async with services.db.begin() as tx:
        # The longest that anything is put off: a claim, or the interval and what it is spread by.
        longest = max(_CLAIM, 1.1 * timedelta(seconds=services.settings.probe_interval))
        now = services.clock.now()
        await store.call_back(tx, now, now + longest + rules.CLOCKS_DIFFER)
    pending: set[asyncio.Task[actions.Look]] = set()
    probed = 0
    try:
        while True:
            free = in_flight - len(pending)
            claimed = []
            if free >= in_flight // 4:
                now = services.clock.now()
                async with services.db.begin() as tx:
                    claimed = await store.claim_due(tx, now, now + _CLAIM, free)
                pending |= {asyncio.create_task(actions.look(services, row, known)) for row in claimed}
            if not pending:
                return probed
            done, pending = await asyncio.wait(pending, timeout=_GATHER_SECONDS)
            await actions.record(services, _results(done))
            probed += len(done)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _results(done: set[asyncio.Task[actions.Look]]) -> list[actions.Look]:
    """What was seen. A mistake of ours at one endpoint is logged and must not keep the others from being recorded."""
    found = []
    for task in done:
        error = task.exception()
        if error is None:
            found.append(task.result())
        else:
            log.error("probe failed", exc_info=error)
    return found


async def probe_step(services: Services, endpoint_id: str, roots: actions.RootCache) -> Next:
    """A probe somebody asked for."""
    async with services.db.begin() as tx:
        row = await store.endpoint(tx, endpoint_id)
    if row is None or not row.enabled:
        return None
    known = await roots.get(services)
    await actions.record(services, [await actions.look(services, row, known)])
    return None


# A certificate's life, as others tell it


async def version_issued(services: Services, told: Sequence[Event]) -> None:
    """Intended from now on; and their own renewal is waited for in turn."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        fresh = {version.certificate_id: version for version in await certificates.still_current(tx, told)}
        for row in await store.endpoints_of_certificates(tx, list(fresh)):
            sha256 = fresh[row.certificate_id].sha256
            # Where a binding says what is served, the rollout of the new version will say so in its turn.
            if row.binding_id is None and row.expected_fingerprint != sha256:
                await store.update_endpoint(
                    tx, row.id, expected_fingerprint=sha256, settle_until=now + _SETTLE_AFTER_ISSUE
                )
        for (_, kind), standing in (await store.open_alarms(tx, list(fresh))).items():
            if kind in (OVERDUE, WRONG_CERTIFICATE):
                await alarms.clear(tx, services, standing, "renewed")
        versions = list(fresh.values())
        await store.forget_versions(tx, list(fresh), but=[version.version_id for version in versions])
        watched = await store.watch_versions(
            tx,
            [
                {"id": v.version_id, "next_step_at": _first_look(v, now), "certificate_id": v.certificate_id,
                 "account_id": v.account_id, "project_id": v.project_id}
                for v in versions
            ],
        )  # fmt: skip
        await services.jobs.start(tx, VERSION_STEP, *(row.id for row in watched if row.next_step_at is None))


def _first_look(version: certificates.NewVersion, now: datetime) -> datetime | None:
    """Before this moment it can't be overdue, so nothing needs to look; None: look at once."""
    due = certificates.renew_at(version.not_before, version.not_after)
    overdue = rules.overdue_at(due, version.not_after)
    return overdue if overdue > now else None


async def version_step(services: Services, version_id: str) -> Next:
    """Wait until the version should have been renewed for some time; then it is overdue until it is renewed."""
    async with services.db.begin() as tx:
        watched = await store.watched_version(tx, version_id)
    if watched is None:
        return None
    watcher = system_actor(watched.account_id, "watch")
    try:
        # None: it isn't renewed automatically, or was revoked.
        due = (await certificates.get_certificate(services, watcher, watched.certificate_id)).renew_at
    except NotFound:
        return None
    now = services.clock.now()
    async with services.db.begin() as tx:
        current = await certificates.current_version(tx, watched.certificate_id)
        if current is None or current.version_id != version_id:
            return None
        # The plan has what the CA asked for, and windows and freezes; before there is one, its share of life counts.
        plan = await renewal.expected(tx, version_id)
        goes_at = None
        if due is not None and plan is not None:
            due, goes_at = plan.due, plan.goes_at
        fact = None if due is None else rules.renewal_overdue(version_id, due, current.not_after, now, goes_at)
        standing = (await store.open_alarms(tx, [watched.certificate_id])).get((watched.certificate_id, OVERDUE))
        await alarms.settle(tx, services, _certificate(current), OVERDUE, fact, standing, by="renewal watch")
    if due is None or now >= current.not_after:
        return None
    if fact is None:
        return rules.overdue_at(due, current.not_after, goes_at) - now
    return max((current.not_after - now) / 10, timedelta(hours=1))


def _certificate(version: certificates.VersionMaterial) -> alarms.Subject:
    return alarms.Subject(
        "certificate", version.certificate_id, version.name, version.account_id, version.project_id,
        {"certificate_id": version.certificate_id, "version_id": version.version_id, "names": list(version.names[:20])},
    )  # fmt: skip


async def renewal_moved(services: Services, event: Event) -> None:
    """Being overdue depends on whether it should renew at all, and when."""
    async with services.db.begin() as tx:
        await services.jobs.start(tx, VERSION_STEP, *await store.versions_of(tx, event.object_id))


async def certificate_revoked(services: Services, event: Event) -> None:
    async with services.db.begin() as tx:
        await alarms.clear_kind(tx, services, event.object_id, OVERDUE, "revoked")
        await store.forget_versions(tx, [event.object_id])


async def certificate_moved(services: Services, event: Event) -> None:
    """Its alarms are seen where it is. An endpoint stays in its own project, whatever is served there."""
    async with services.db.begin() as tx:
        await store.follow_certificate(tx, event.object_id)


async def certificate_deleted(services: Services, event: Event) -> None:
    """Nothing is intended any more where it was to be served."""
    async with services.db.begin() as tx:
        await alarms.clear_all_of(tx, services, event.object_id, "certificate deleted")
        await store.forget_versions(tx, [event.object_id])
        for row in await store.endpoints_of_certificates(tx, [event.object_id]):
            await store.update_endpoint(
                tx, row.id, certificate_id=None, expected_fingerprint=None, settle_until=None, revision=row.revision + 1
            )


_NOT_WHAT_WAS_ASKED_FOR = (
    "issued_other_names", "issued_other_key", "issued_other_chain", "issued_expired", "issued_unreadable",
)  # fmt: skip


async def application_failed(services: Services, event: Event) -> None:
    """ALM-2001017: a CA handed out what isn't ours. Other failures are the applicant's to see, or are tried again."""
    failure = event.payload["failure"]
    if failure.get("code") not in _NOT_WHAT_WAS_ASKED_FOR:
        return
    async with services.db.begin() as tx:
        known = await certificates.known(tx, event.object_id)
        if known is None:
            return
        subject = alarms.Subject(
            "certificate", event.object_id, known.name, event.account_id, known.project_id,
            {"certificate_id": event.object_id, "application_id": event.payload["application_id"]},
        )  # fmt: skip
        fact = AlarmFact(
            WRONG_CERTIFICATE, Severity.MAJOR, "wrong_certificate", params={"detail": failure["message"]},
            identity=(str(event.payload["application_id"]),),
        )  # fmt: skip
        standing = (await store.open_alarms(tx, [event.object_id])).get((event.object_id, WRONG_CERTIFICATE))
        await alarms.settle(tx, services, subject, WRONG_CERTIFICATE, fact, standing, by="issuance")


async def evidence_runs_out(services: Services, event: Event) -> None:
    """ALM-2001014: its renewal will want something shown that nobody shows by themselves."""
    told = event.payload
    async with services.db.begin() as tx:
        current = await certificates.current_version(tx, event.object_id)
        if current is None:
            return
        fact = AlarmFact(
            EVIDENCE, Severity.MINOR, "evidence_runs_out" if told["until"] else "evidence_missing",
            params={key: told[key] for key in ("names", "until", "needed_at") if told[key]},
            identity=tuple(told["names"]),
        )  # fmt: skip
        standing = (await store.open_alarms(tx, [event.object_id])).get((event.object_id, EVIDENCE))
        await alarms.settle(tx, services, _certificate(current), EVIDENCE, fact, standing, by="evidence")


async def evidence_lasts(services: Services, event: Event) -> None:
    async with services.db.begin() as tx:
        await alarms.clear_kind(tx, services, event.object_id, EVIDENCE, "evidence")


async def look_at_desk(services: Services) -> None:
    """Chore: ALM-2001016, one for the desk as a whole, in the operator's account."""
    async with services.db.begin() as tx:
        operator = await accounts.store.first_account(tx)
        if operator is None:
            return
        found = await organisations.backlog(tx, services.clock.now())
        standing = (await store.open_alarms(tx, [operator.id])).get((operator.id, DESK))
        if not found.late and standing is None:
            return
        fact = None
        if found.due_at is not None:
            fact = AlarmFact(
                DESK, Severity.MINOR, "desk_behind", value=found.late, identity=(str(found.late),),
                params={"late": found.late, "waiting": found.waiting, "due_at": found.due_at.isoformat()},
            )  # fmt: skip
        project_id = await accounts.store.default_project(tx, operator.id)
        subject = alarms.Subject("desk", operator.id, operator.name, operator.id, project_id)
        await alarms.settle(tx, services, subject, DESK, fact, standing, by="desk")


async def look_at_cas(services: Services) -> None:
    """Chore: ALM-2001018, one for each private CA that nears its end or ended while it was in use."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        lives = {ca.id: ca for ca in await authorities.lives(tx)}
        ended = {ca.id for ca in lives.values() if ca.not_after <= now}
        used = await authorities.used_to_the_end(tx, ended) | await acme_server.served_authorities(tx, ended)
        facts = {
            ca.id: rules.ca_ends(
                name=ca.name, sha256=ca.sha256, not_before=ca.not_before, not_after=ca.not_after,
                used_to_the_end=ca.id in used, now=now,
            )
            for ca in lives.values()
        }  # fmt: skip
        standing = await store.open_alarms_of_kind(tx, CA_ENDS)
        for ca_id, fact in facts.items():
            opened = standing.pop(ca_id, None)
            if fact is not opened and not _is_said(opened, fact):
                await alarms.settle(tx, services, _authority(lives[ca_id]), CA_ENDS, fact, opened, by="CA watch")
        for revoked_or_deleted in standing.values():
            await alarms.clear(tx, services, revoked_or_deleted, "CA watch")


def _is_said(opened: Any, fact: AlarmFact | None) -> bool:
    """Looked at so often, most times nothing is new about years."""
    return (
        opened is not None and fact is not None
        and (opened.severity, opened.reason, tuple(opened.identity)) == (fact.severity, fact.reason, fact.identity)
        and opened.recent_values[-1]["value"] == fact.value
    )  # fmt: skip


def _authority(ca: authorities.CaLife) -> alarms.Subject:
    return alarms.Subject("authority", ca.id, ca.name, ca.account_id, ca.project_id, {"authority_id": ca.id})


# Bindings and rollouts


async def binding_created(services: Services, event: Event) -> None:
    """Watch where the certificate is served; an endpoint added by hand there is taken over.

    What holds is the binding as it is now, in whatever order its events arrive.
    """
    told = event.payload
    host = actions.listener_host(str(told["host"]))
    sni = _single_name(str(told.get("sni") or ""))
    now = services.clock.now()
    async with services.db.begin() as tx:
        found = await intended.bound(tx, binding_id=str(told["binding_id"]))
        if not found:
            return  # it is gone again
        (binding,) = found
        row = await store.endpoint_of_binding(tx, binding.id)
        endpoint_id = str(row.id) if row is not None else await _endpoint_for_binding(tx, event, host, sni, now)
        await _bind(tx, services, endpoint_id, binding)


async def _bind(tx: Tx, services: Services, endpoint_id: str, binding: intended.Bound) -> None:
    """Expect at the endpoint what the binding says, and look."""
    await store.update_endpoint(
        tx, endpoint_id, binding_id=binding.id, site_id=binding.site_id, certificate_id=binding.certificate_id,
        expected_fingerprint=binding.fingerprint, settle_until=services.clock.now() + _SETTLE_AFTER_ROLLOUT,
    )  # fmt: skip
    await services.jobs.start(tx, actions.PROBE_STEP, endpoint_id)


async def _endpoint_for_binding(tx: Tx, event: Event, host: str, sni: str, now: datetime) -> str:
    told = event.payload
    values = {
        "id": new_id("endp", now), "account_id": event.account_id, "project_id": told["project_id"], "host": host,
        "port": told["port"], "sni": sni, "starttls": StartTls.NONE, "origin": Origin.BINDING, "created_at": now,
        "next_probe_at": now,
    }  # fmt: skip
    if await store.insert_endpoint(tx, values):
        return str(values["id"])
    there = await store.endpoint_at(tx, str(told["project_id"]), host, int(told["port"]), sni, StartTls.NONE)
    assert there is not None, "the row in the way of the insert is that very endpoint"
    return str(there.id)


def _single_name(server_name: str) -> str:
    """The name to ask for: a site of a wildcard is looked at through a name it covers, one of none (`_`) without."""
    try:
        name = parse_dns_name(server_name)
    except Invalid:
        return ""
    return f"certwright-probe.{name.base}" if name.is_wildcard else name.ascii


async def binding_removed(services: Services, event: Event) -> None:
    """Stop watching what was watched because of the binding; what a person added stays, without an intention."""
    async with services.db.begin() as tx:
        row = await store.endpoint_of_binding(tx, str(event.payload["binding_id"]))
        if row is None or await intended.bound(tx, binding_id=row.binding_id):
            return  # not watched, or bound anew since
        others = await intended.bound(tx, site_id=row.site_id)
        if others:
            await _bind(tx, services, row.id, others[0])
        elif row.origin == Origin.MANUAL:
            await store.update_endpoint(
                tx, row.id, binding_id=None, site_id=None, certificate_id=None, expected_fingerprint=None,
                settle_until=None, revision=row.revision + 1,
            )  # fmt: skip
        else:
            await alarms.clear_all_of(tx, services, row.id, "no longer bound")
            await store.delete_endpoint(tx, row.id)


async def rollout_finished(services: Services, event: Event) -> None:
    """The certificate's deployment alarm is over, and what is served now is looked at at once."""
    async with services.db.begin() as tx:
        for certificate_id in _certificates_of(event):
            await alarms.clear_kind(tx, services, certificate_id, DEPLOYMENT, "deployed")
            await _look_again(tx, services, certificate_id)


async def rollout_undone(services: Services, event: Event) -> None:
    """Somebody asked for it: nothing failed, but something else is served and intended now."""
    async with services.db.begin() as tx:
        for certificate_id in _certificates_of(event):
            await _look_again(tx, services, certificate_id)


async def _look_again(tx: Tx, services: Services, certificate_id: str) -> None:
    """Expect what the bindings say now, and probe at once."""
    for row in await store.endpoints_of_certificates(tx, [certificate_id]):
        binding = await intended.bound(tx, binding_id=row.binding_id) if row.binding_id is not None else ()
        if binding:
            await _bind(tx, services, row.id, binding[0])
        else:
            await services.jobs.start(tx, actions.PROBE_STEP, row.id)
    # Endpoints added by hand serve the same names: whoever fixed a site wants their alarms to clear now, too.
    current = await certificates.current_version(tx, certificate_id)
    if current is not None:
        named = await store.endpoints_named(tx, current.account_id, current.names)
        await services.jobs.start(tx, actions.PROBE_STEP, *named)


async def rollout_failed(services: Services, event: Event) -> None:
    """ALM-2001012 for each certificate the rollout was to put in place."""
    told = event.payload
    undone = str(told.get("state", "")) == "undone"
    rollout = str(told.get("rollout_id", event.object_id))
    detail = (told.get("problem") or {}).get("message")
    async with services.db.begin() as tx:
        for certificate_id in _certificates_of(event):
            current = await certificates.current_version(tx, certificate_id)
            if current is None:
                continue
            fact = AlarmFact(
                DEPLOYMENT,
                Severity.MAJOR,
                "rollout_undone" if undone else "rollout_failed",
                params={"rollout_id": rollout, "detail": detail or "see the rollout's steps"},
                identity=(rollout,),
            )
            standing = (await store.open_alarms(tx, [certificate_id])).get((certificate_id, DEPLOYMENT))
            await alarms.settle(tx, services, _certificate(current), DEPLOYMENT, fact, standing, by="rollout")
            await _look_again(tx, services, certificate_id)


def _certificates_of(event: Event) -> list[str]:
    """A rollout may move several certificates of one target."""
    return [str(certificate_id) for certificate_id in event.payload["certificate_ids"]]


# Keeping the history short


async def forget(services: Services) -> None:
    """Chore: drop ended observations and cleared alarms that are older than the settings say, some at a time."""
    now, settings = services.clock.now(), services.settings
    for drop, days in (
        (store.forget_observations, settings.observations_days),
        (store.forget_alarms, settings.alarms_days),
    ):
        dropped = _FORGOTTEN_AT_ONCE
        while dropped == _FORGOTTEN_AT_ONCE:
            async with services.db.begin() as tx:
                dropped = await drop(tx, now - timedelta(days=days), _FORGOTTEN_AT_ONCE)
