"""Judging and storing certificates that were issued elsewhere: look, gather, ask outside, judge, store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from datetime import UTC, datetime, time

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Stale
from certwright.platform.db import Tx
from certwright.platform.events import Event
from certwright.platform.processes import Processes
from certwright.platform.services import Services
from certwright.rooms import access, audit, certificates, keys, validation
from certwright.rooms.certificates import Replaceable, Surroundings
from certwright.rooms.uploads import outside, rules, store
from certwright.rooms.uploads.words import (
    Given,
    Judgement,
    Purpose,
    Quota,
    Record,
    Reference,
    Uploaded,
    UploadPolicy,
    UploadRefused,
    Wishes,
    judgement,
)
from certwright.x509.keys import from_pkcs8_der
from certwright.x509.workshop import toolbox
from certwright.x509.workshop import upload as workshop
from certwright.x509.workshop.policy import PublicPolicy
from certwright.x509.workshop.toolbox import Around, Judged
from certwright.x509.workshop.words import Finding, Place


@dataclass(frozen=True, slots=True)
class _Looked:
    """An upload judged with all that could be known, and what to say of it."""

    judged: Judged
    judgement: Judgement


# --- judging ----------------------------------------------------------------------------------------------------------


def public_policy(rules_in_force: validation.RulePack) -> PublicPolicy:
    """The part of an account's dated rules that judges a certificate."""
    tls = rules_in_force.public_tls
    steps = ((datetime.combine(step.from_, time(), UTC), step.max) for step in tls.validity_days)
    return PublicPolicy(tuple(sorted(steps)), tls.server_auth_only_eku)


async def options_for(
    tx: Tx, services: Services, actor: Actor, wishes: Wishes, *, key_required: bool, legacy_rsa: bool = False
) -> workshop.Options:
    """How to judge for this account, now."""
    policy = None
    if not wishes.private and wishes.purpose is Purpose.SERVER:
        policy = public_policy(await validation.rules_of(tx, actor.account_id))
    return workshop.Options(
        at=services.clock.now(), policy=policy, purpose=workshop.Purpose(wishes.purpose.value), strict=wishes.strict,
        key_required=key_required, duplicates_allowed=wishes.allow_duplicate, legacy_rsa=legacy_rsa,
    )  # fmt: skip


def weak_keys(services: Services) -> str | None:
    """The operator's list of keys known to be weak."""
    return None if services.settings.weak_keys_file is None else str(services.settings.weak_keys_file)


async def _look(
    services: Services, actor: Actor, given: Given, wishes: Wishes, replaces: Replaceable | None = None
) -> _Looked:
    """All that `check` and the uploads have in common. Reads, asks outside, writes nothing."""
    pool = services.port(Processes)
    async with services.db.read() as tx:
        legacy_rsa = (await _policy(tx, actor)).legacy_rsa
        options = await options_for(
            tx, services, actor, wishes, key_required=wishes.purpose is Purpose.SERVER, legacy_rsa=legacy_rsa
        )
    around = Around(blocklist=weak_keys(services))
    first = await pool.run(toolbox.judge, given, options, around)
    if first.leaf is None:
        return _Looked(first, judgement(first))
    leaf = first.leaf
    async with services.db.read() as tx:
        near = await certificates.surroundings(tx, actor, leaf, first.missing)
    around = replaced(
        around,
        certificates=rules.known_certificates(near.same, leaf.sha256),
        keys=rules.known_keys(near.same_key, leaf.spki_sha256, replaces.certificate_id if replaces else None),
        pool=near.pool,
        neighbours=near.neighbours,
        lint=True,
    )
    second = await pool.run(toolbox.judge, given, options, around)
    second, found = await completed(services, actor, given, wishes, options, around, second)
    around = replaced(around, pool=(*around.pool, *(facts.der for facts in found.issuers)))
    notes: Sequence[Finding] = found.notes
    if wishes.online:
        said = await outside.revoked(services, actor.account_id, second)
        notes = (*notes, *said.notes)
        if said.words:
            second = await pool.run(toolbox.judge, given, options, replaced(around, revoked=said.words))
    if replaces is not None and second.leaf is not None:
        notes = (
            *rules.judge_replacement(
                second.leaf, before=replaces.names, ends=replaces.not_after, allow_fewer_names=wishes.allow_fewer_names
            ),
            *notes,
        )
    return _Looked(
        second,
        judgement(
            second, more=notes, fetched=[facts.sha256 for facts in found.issuers],
            successor_of=_successors(near, replaces),
        ),
    )  # fmt: skip


async def completed(
    services: Services,
    actor: Actor,
    given: Given,
    wishes: Wishes,
    options: workshop.Options,
    around: Around,
    judged: Judged,
) -> tuple[Judged, outside.Found]:
    """With the issuers that could be fetched, if any are missing."""
    if not wishes.online or not judged.issuer_urls:
        return judged, outside.Found()
    found = await outside.issuers(services, actor.account_id, judged.issuer_urls)
    if not found.issuers:
        return judged, found
    more = replaced(around, pool=(*around.pool, *(facts.der for facts in found.issuers)))
    return await services.port(Processes).run(toolbox.judge, given, options, more), found


def _successors(near: Surroundings, replaces: Replaceable | None) -> tuple[Reference, ...]:
    if replaces is not None:
        return ()
    same = {held.certificate_id for held in near.same}
    return tuple(
        Reference(held.certificate_id, held.name) for held in near.successor_of if held.certificate_id not in same
    )


async def check(
    services: Services, actor: Actor, given: Given, wishes: Wishes, *, replaces: str | None = None
) -> Judgement:
    """What an upload would come to; stores nothing. Raises Forbidden, and for `replaces` as `replace` does."""
    if replaces is None:
        access.require_somewhere(actor, "scm:cert:upload")
        return (await _look(services, actor, given, wishes)).judgement
    async with services.db.read() as tx:
        old = await certificates.replaceable(tx, services, actor, replaces)
    return (await _look(services, actor, given, replaced(wishes, purpose=old.purpose), old)).judgement


# --- storing ----------------------------------------------------------------------------------------------------------


async def upload(
    services: Services,
    actor: Actor,
    given: Given,
    wishes: Wishes,
    *,
    name: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    project_id: str | None = None,
) -> Uploaded:
    """Judge it and store it as a certificate in state `hosted`, its key sealed in the same transaction.

    Raises UploadRefused for findings that are errors, Refused `upload_quota_reached` or `certificate_name_taken`,
    Invalid for name, description and tags, Forbidden and NotFound for the project.
    """
    certificates.judge_labels(name, description, tags or {})
    async with services.db.read() as tx:
        # Who may not, or has no room, isn't looked at for seconds first.
        project = await access.project_for(tx, actor, "scm:cert:upload", project_id)
        await _require_room(tx, services, actor, wishes.purpose)
    looked = await _look(services, actor, given, wishes)
    if not looked.judgement.ok:
        raise UploadRefused(looked.judgement)
    hosted = _hosted(looked.judged, wishes.purpose)
    async with services.db.begin() as tx:
        await store.one_at_a_time(tx, actor.account_id)
        await _require_room(tx, services, actor, wishes.purpose)
        await _require_new(tx, actor, services, looked, wishes)
        certificate_id, version_id = await certificates.host(
            tx, services, actor, hosted, project_id=project, name=name, description=description, tags=tags or {}
        )
        await _record(tx, services, actor, looked.judgement, wishes, project, certificate_id, (version_id, 1))
        # Not by `get_certificate`: who may upload needn't be allowed to look.
        return Uploaded(await certificates.detail(tx, services, certificate_id), 1, looked.judgement)


async def replace(services: Services, actor: Actor, certificate_id: str, given: Given, wishes: Wishes) -> Uploaded:
    """Judge it and store it as the next version of a hosted certificate: deployed wherever that one is.

    The purpose is the certificate's, whatever `wishes` say. Raises as `upload` does, and NotFound, Forbidden and
    Refused for a certificate that isn't the caller's, wasn't uploaded, or is in no state for it.
    """
    async with services.db.read() as tx:
        old = await certificates.replaceable(tx, services, actor, certificate_id)
    wishes = replaced(wishes, purpose=old.purpose)
    looked = await _look(services, actor, given, wishes, old)
    if not looked.judgement.ok:
        raise UploadRefused(looked.judgement)
    hosted = _hosted(looked.judged, old.purpose)
    async with services.db.begin() as tx:
        await store.one_at_a_time(tx, actor.account_id)
        await _require_new(tx, actor, services, looked, wishes)
        old = await certificates.replaceable(tx, services, actor, certificate_id, lock=True)
        version_id, number = await certificates.host_version(tx, services, actor, old, hosted)
        await _record(
            tx, services, actor, looked.judgement, wishes, old.project_id, certificate_id, (version_id, number)
        )
        return Uploaded(await certificates.detail(tx, services, certificate_id), number, looked.judgement)


def _hosted(judged: Judged, purpose: Purpose) -> certificates.Hosted:
    assert judged.leaf is not None, "nothing without a certificate is ok"
    key = None
    if purpose is Purpose.SERVER:
        assert judged.key is not None, "no server certificate is ok without its key"
        key = keys.NewKey(from_pkcs8_der(judged.key.pkcs8), judged.key.algorithm, judged.key.spki_sha256)
    return certificates.Hosted(purpose, judged.leaf, tuple(facts.der for facts in judged.chain), key)


async def _require_room(tx: Tx, services: Services, actor: Actor, purpose: Purpose) -> None:
    used = await certificates.count_hosted(tx, actor.account_id)
    refused = rules.over_quota(purpose, used.get(purpose, 0), _limit(services, purpose))
    if refused is not None:
        raise refused


def _limit(services: Services, purpose: Purpose) -> int:
    settings = services.settings
    return settings.uploaded_servers if purpose is Purpose.SERVER else settings.uploaded_client_cas


async def _require_new(tx: Tx, actor: Actor, services: Services, looked: _Looked, wishes: Wishes) -> None:
    """Somebody may have uploaded the same one between our look and our turn."""
    leaf = looked.judged.leaf
    if leaf is None or wishes.allow_duplicate:
        return
    near = await certificates.surroundings(tx, actor, leaf, "")
    if not near.same:
        return
    there = rules.known_certificates(near.same, leaf.sha256)[leaf.sha256]
    found = workshop.duplicate(there, Place(workshop.CERTIFICATE), allowed=False)
    raise UploadRefused(replaced(looked.judgement, ok=False, findings=(found, *looked.judgement.findings)))


async def _record(
    tx: Tx,
    services: Services,
    actor: Actor,
    found: Judgement,
    wishes: Wishes,
    project_id: str,
    certificate_id: str,
    version: tuple[str, int],
) -> None:
    now = services.clock.now()
    await store.insert(
        tx, id=new_id("upl", now), account_id=actor.account_id, project_id=project_id, certificate_id=certificate_id,
        version_id=version[0], version=version[1], by=actor.name, strict=wishes.strict,
        repaired=list(dict.fromkeys(repair.code for repair in found.repaired)),
        findings=[finding.as_dict() for finding in found.findings], created_at=now,
    )  # fmt: skip


async def moved(services: Services, event: Event) -> None:
    """Listener of `certificate.moved`: what was found goes along."""
    async with services.db.begin() as tx:
        await store.follow(tx, event.object_id)


# --- reading ----------------------------------------------------------------------------------------------------------


async def records(services: Services, actor: Actor, certificate_id: str) -> tuple[Record, ...]:
    """What was found at each upload of a certificate, newest first; empty for one that was issued here.

    Raises NotFound, Forbidden.
    """
    await certificates.require_visible(services, actor, certificate_id)
    async with services.db.read() as tx:
        rows = await store.records(tx, certificate_id)
    return tuple(
        Record(
            row.version_id, row.version, row.created_at, row.by, row.strict, tuple(row.repaired), tuple(row.findings)
        )
        for row in rows
    )


async def quotas(services: Services, actor: Actor) -> tuple[Quota, ...]:
    access.require_somewhere(actor, "scm:upload_policy:get")
    async with services.db.read() as tx:
        used = await certificates.count_hosted(tx, actor.account_id)
    return tuple(Quota(purpose, used.get(purpose, 0), _limit(services, purpose)) for purpose in Purpose)


async def get_policy(services: Services, actor: Actor) -> UploadPolicy:
    access.require(actor, "scm:upload_policy:get")
    async with services.db.read() as tx:
        return await _policy(tx, actor)


async def _policy(tx: Tx, actor: Actor) -> UploadPolicy:
    row = await store.policy(tx, actor.account_id)
    return UploadPolicy() if row is None else UploadPolicy(row.legacy_rsa, row.revision, row.updated_at)


async def set_policy(services: Services, actor: Actor, *, legacy_rsa: bool, revision: int) -> UploadPolicy:
    """For the whole account. Raises Forbidden, Stale `changed_meanwhile`."""
    access.require(actor, "scm:upload_policy:update")
    now = services.clock.now()
    async with services.db.begin() as tx:
        before = await _policy(tx, actor)
        if not await store.set_policy(tx, actor.account_id, revision, now, legacy_rsa=legacy_rsa):
            raise Stale("changed_meanwhile", "The policy was changed since you read it.", fix="Read it again.")
        await audit.record(
            tx, services, actor, "scm:upload_policy:update", "account", actor.account_id,
            before={"legacy_rsa": before.legacy_rsa}, after={"legacy_rsa": legacy_rsa},
        )  # fmt: skip
        return await _policy(tx, actor)
