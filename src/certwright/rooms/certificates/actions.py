"""What people and other rooms can do with certificates: gather facts, ask the rules, write, queue."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Forbidden, Invalid, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit, keys, validation
from certwright.rooms.certificates import rules, store, views
from certwright.rooms.certificates.ports import AuthorityDirectory, CertificateAuthority, Issued, Usage
from certwright.rooms.certificates.tables import applications, certificates, versions
from certwright.rooms.certificates.words import (
    CURRENT_PRIVACY_STATEMENT,
    Application,
    JudgedApplication,
    Operation,
    RevocationReason,
    State,
    VersionMaterial,
)
from certwright.x509.certificates import read_certificate

STEP = "certificates.issue"
REVOKE_STEP = "certificates.revoke"
BUILTIN_CA = "builtin"
VOUCHED = "vouched"
"""Validation method of private certificates issued on the word of somebody who may use the CA."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing may be narrowed by; empty means everything the actor may see."""

    states: tuple[State, ...] = ()
    search: str | None = None
    ca: str | None = None
    project_id: str | None = None
    tag: Mapping[str, str] = field(default_factory=dict)
    expires_before: datetime | None = None
    expires_soon: bool | None = None
    key_algorithm: str | None = None
    sha256: str | None = None
    serial: str | None = None


SORTS: Mapping[str, sa.Column[Any]] = {
    "created": certificates.c.id,
    "expiry": certificates.c.not_after,
    "updated": certificates.c.updated_at,
    "state": certificates.c.stage,
}


# --- reading --------------------------------------------------------------------------------------------------------


async def list_certificates(
    services: Services,
    actor: Actor,
    filters: Filters,
    *,
    sort: str = "created",
    descending: bool = True,
    after: tuple[Any, str] | None = None,
    limit: int = 20,
) -> list[views.Summary]:
    """A page of at most `limit`; `after` is (value of the sort column, id) of the last line seen."""
    now = services.clock.now()
    where = [
        access.visible(certificates, actor, "scm:cert:list"),
        *store.filters(
            now=now, states=filters.states, search=filters.search, ca=filters.ca, project_id=filters.project_id,
            tag=filters.tag, expires_before=filters.expires_before, soon=filters.expires_soon,
            key_algorithm=filters.key_algorithm, sha256=filters.sha256, serial=filters.serial,
        ),
    ]  # fmt: skip
    async with services.db.read() as tx:
        rows = await store.page(tx, where, order=SORTS[sort], descending=descending, after=after, limit=limit)
    return [views.summary_of_columns(row, now) for row in rows]


async def count_by_state(services: Services, actor: Actor) -> dict[str, int]:
    async with services.db.read() as tx:
        return await store.counts(tx, access.visible(certificates, actor, "scm:cert:list"), services.clock.now())


async def expiry_days(services: Services, actor: Actor, days: int = 100) -> list[tuple[datetime, int]]:
    where = access.visible(certificates, actor, "scm:cert:list")
    async with services.db.begin() as tx:
        return await store.expiry_days(tx, where, services.clock.now(), days)


async def get_certificate(services: Services, actor: Actor, certificate_id: str) -> views.Detail:
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:get", certificate_id)
        return await _detail(tx, services, row)


async def _detail(tx: Tx, services: Services, row: Any) -> views.Detail:
    now = services.clock.now()
    attempt = await store.latest_application(tx, row.id)
    open_attempt = attempt is not None and not (attempt.issued_at or attempt.withdrawn_at or attempt.failed_at)
    state = await validation.state(tx, attempt.id, now) if attempt is not None and open_attempt else None
    version_rows = await store.version_list(tx, row.id)
    facts = await _facts(tx, services, row)
    current = next((v for v in version_rows if v.superseded_at is None), None)
    renews = row.auto_renew and not row.uploaded and current is not None and current.revoked_at is None
    return views.Detail(
        summary=views.summary(row, now),
        application=views.application_view(attempt) if attempt is not None else None,
        validation=state,
        versions=tuple(
            views.version_view(v, tuple(read_certificate(der).subject for der in v.chain_ders)) for v in version_rows
        ),
        renew_at=rules.renew_at(current.not_before, current.not_after) if renews and current is not None else None,
        allowed=rules.allowed_operations(facts),
    )


async def _facts(tx: Tx, services: Services, row: Any) -> Any:
    bound = await services.port(Usage).bound_to(tx, row.id)
    return views.facts(row, bound, services.clock.now())


async def _visible(tx: Tx, actor: Actor, action: str, certificate_id: str, *, lock: bool = False) -> Any:
    """The row, if the actor may do `action` to it. Raises NotFound if it may not be seen, Forbidden otherwise."""
    row = await store.certificate(tx, certificate_id, access.visible(certificates, actor, "scm:cert:get"), lock=lock)
    if row is None:
        raise not_found("certificate", certificate_id)
    access.require(actor, action, project_id=row.project_id, resource=f"certificate:{certificate_id}")
    return row


async def _require_allowed(tx: Tx, services: Services, row: Any, operation: Operation) -> None:
    facts = await _facts(tx, services, row)
    refused = rules.judge_operation(operation, facts)
    if refused is not None:
        raise rules.with_allowed(refused, facts)


# --- applying -------------------------------------------------------------------------------------------------------


def authority(services: Services, ca: str) -> CertificateAuthority:
    found = services.port(AuthorityDirectory).get(ca)
    if found is None:
        known = ", ".join(sorted(services.port(AuthorityDirectory).by_id))
        raise Invalid("ca_unknown", f"There is no CA {ca[:60]!r}.", field="ca", fix=f"Use one of: {known}.")
    return found


async def create_certificate(
    services: Services,
    actor: Actor,
    *,
    application: Application | None = None,
    name: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    project_id: str | None = None,
    ca: str = BUILTIN_CA,
    auto_renew: bool = True,
) -> views.Detail:
    """A new certificate, with its first application if one is given (else in `pending_application`)."""
    chosen = authority(services, ca)
    judged = rules.judge_application(application, public_ca=chosen.capabilities.public) if application else None
    description, judged_tags = rules.judge_description(description), rules.judge_tags(tags or {})
    now = services.clock.now()
    certificate_id = new_id("cert", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:cert:apply", project_id)
        wanted = await free_name(tx, actor.account_id, name)
        await store.insert_certificate(
            tx, id=certificate_id, account_id=actor.account_id, project_id=project, name=wanted,
            description=description, tags=judged_tags, ca=ca, stage=State.PENDING_APPLICATION.value,
            auto_renew=auto_renew, search_text=store.search_text(wanted, (), ()), created_at=now, updated_at=now,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "scm:cert:apply", "certificate", certificate_id, project_id=project,
            after={"name": wanted, "ca": ca, "state": State.PENDING_APPLICATION.value},
        )  # fmt: skip
        row = await store.certificate(tx, certificate_id)
        assert row is not None
        if judged is not None:
            await _submit(tx, services, actor, row, judged, kind="apply")
            row = await store.certificate(tx, certificate_id)
        return await _detail(tx, services, row)


async def apply(services: Services, actor: Actor, certificate_id: str, application: Application) -> views.Detail:
    """Submit the application of a certificate in `pending_application` or `approval_failed`."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:apply", certificate_id, lock=True)
        await _require_allowed(tx, services, row, Operation.APPLY)
        public = authority(services, row.ca).capabilities.public
        judged = rules.judge_application(application, public_ca=public)
        await _submit(tx, services, actor, row, judged, kind="apply")
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def _submit(tx: Tx, services: Services, actor: Actor, row: Any, judged: JudgedApplication, *, kind: str) -> str:
    """Write the application, ask validation for its names, move the certificate on; in the caller's transaction."""
    now = services.clock.now()
    application_id = new_id("app", now)
    first = kind == "apply"
    leaves = (State.PENDING_APPLICATION, State.APPROVAL_FAILED) if first else (State.ISSUED,)
    enters = State.PENDING_DOMAIN_VALIDATION if first else State.VERIFYING_REISSUE
    values: dict[str, Any] = {}
    if first:
        values = {
            # Without the key there is no new CSR, so nobody but its owner can renew it.
            "auto_renew": row.auto_renew and judged.csr_der is None,
            "draft": None,
            "primary_name": judged.names[0],
            "names": list(judged.names),
            "search_text": store.search_text(row.name, judged.names, judged.unicode_names),
        }
    if not await store.move(tx, row.id, leaves, enters, now, **values):
        raise Refused(
            "state_changed", "The certificate was changed by someone else meanwhile.", fix="Look at it again."
        )
    await store.insert_application(
        tx, id=application_id, certificate_id=row.id, account_id=row.account_id, project_id=row.project_id, kind=kind,
        names=list(judged.names), domain_type=judged.domain_type.value, validation_method=judged.validation_method,
        per_name_methods=dict(judged.per_name_methods), key_algorithm=judged.key_algorithm, csr_der=judged.csr_der,
        csr_uploaded=judged.csr_der is not None, applicant=judged.applicant.as_dict(), consent_at=now,
        consent_version=judged.consent_version or CURRENT_PRIVACY_STATEMENT, submitted_at=now,
    )  # fmt: skip
    await validation.require_domains(
        tx, services, account_id=row.account_id, project_id=row.project_id, subject_id=application_id,
        names=judged.names, method=judged.validation_method, per_name_methods=judged.per_name_methods, ca=row.ca,
        now=now,
    )  # fmt: skip
    await services.jobs.start(tx, STEP, application_id)
    await audit.record(
        tx, services, actor, f"scm:cert:{kind}", "certificate", row.id, project_id=row.project_id,
        before={"state": row.stage},
        after={"state": enters.value, "application": application_id, "names": list(judged.names)},
    )  # fmt: skip
    return application_id


async def free_name(tx: Tx, account_id: str, wanted: str | None) -> str:
    if wanted is not None:
        rules.judge_name(wanted)
        if await store.name_taken(tx, account_id, wanted):
            raise name_taken(wanted)
        return wanted
    return generated_name()


def generated_name() -> str:
    """`cert-xxxxxxxxxx`; 30^10 possibilities, and the unique index has the last word."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "cert-" + "".join(secrets.choice(alphabet) for _ in range(10))


def name_taken(name: str) -> Refused:
    return Refused(
        "certificate_name_taken", f"Another certificate is called {name!r}.", field="name", fix="Choose another name."
    )


async def save_draft(services: Services, actor: Actor, certificate_id: str, application: Application) -> None:
    """Keep what the applicant typed so far, unjudged; read it back with `read_draft`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:apply", certificate_id, lock=True)
        await _require_allowed(tx, services, row, Operation.SAVE_DRAFT)
        await store.update_certificate(tx, certificate_id, None, now, draft=application.as_draft())
        await audit.record(
            tx, services, actor, "scm:cert:apply", "certificate", certificate_id, project_id=row.project_id,
            reason="draft saved",
        )  # fmt: skip


async def read_draft(services: Services, actor: Actor, certificate_id: str) -> Mapping[str, Any]:
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:get", certificate_id)
        return row.draft or Application().as_draft()


async def check_domains(services: Services, actor: Actor, certificate_id: str) -> tuple[validation.DomainResult, ...]:
    """Look now at what each pending domain shows, record it, and move on if the last one became valid."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:validation:check", certificate_id)
        await _require_allowed(tx, services, row, Operation.VERIFY_DOMAINS)
        attempt = await store.open_application(tx, certificate_id)
    if attempt is None:
        raise Refused("no_open_application", "Nothing is waiting for validation.", fix="Apply or reissue first.")
    return await validation.check_now(services, actor, attempt.id)


async def record_version(
    tx: Tx, services: Services, actor: Actor, certificate: Any, attempt: Any, issued: Issued
) -> str:
    """Write an issued version of a locked certificate, retire the one before, and tell. Returns the version's id."""
    now = services.clock.now()
    leaf = read_certificate(issued.leaf_der)
    version_id = new_id("ver", now)
    number = await store.supersede(tx, certificate.id, now)
    await store.insert_version(
        tx, id=version_id, certificate_id=certificate.id, account_id=certificate.account_id,
        project_id=certificate.project_id, number=number,
        **store.version_values(
            leaf, issued.chain_ders, application_id=attempt.id, key_id=attempt.key_id, issued_at=now
        ),
    )  # fmt: skip
    names = list(attempt.names)
    unicode_names = [views.unicode_name(name) for name in names]
    await store.move(
        tx, certificate.id, [State.TO_BE_ISSUED, State.VERIFYING_REISSUE], State.ISSUED, now,
        current_version_id=version_id, key_id=attempt.key_id, key_algorithm=leaf.key_algorithm, sha256=leaf.sha256,
        serial=leaf.serial, not_before=leaf.not_before, not_after=leaf.not_after, primary_name=names[0], names=names,
        search_text=store.search_text(certificate.name, names, unicode_names, leaf.sha256, leaf.serial),
    )  # fmt: skip
    await services.events.publish(
        tx, "certificate.version_issued", account_id=certificate.account_id, object_id=certificate.id,
        payload=views.version_issued_payload(
            version_id=version_id, number=number, application_id=attempt.id, leaf=leaf,
            project_id=certificate.project_id,
        ),
    )  # fmt: skip
    await audit.record(
        tx, services, actor, "scm:cert:issue", "certificate", certificate.id, project_id=certificate.project_id,
        before={"state": certificate.stage},
        after={"state": State.ISSUED.value, "version": number, "sha256": leaf.sha256, "serial": leaf.serial},
    )  # fmt: skip
    return version_id


# --- withdrawing, reissuing, revoking -------------------------------------------------------------------------------


async def withdraw(services: Services, actor: Actor, certificate_id: str) -> views.Detail:
    """Take the open application back. Loses against an order already placed: then the certificate is issued."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:withdraw", certificate_id, lock=True)
        await _require_allowed(tx, services, row, Operation.WITHDRAW)
        attempt = await store.open_application(tx, certificate_id)
        if attempt is None or not await store.record(tx, attempt.id, "order_intended_at", withdrawn_at=now):
            raise Refused(
                "withdrawal_too_late",
                "The certificate has already been ordered from the CA, so the application can't be withdrawn.",
                fix="Wait until it is issued; then revoke or delete it.",
            )
        first = attempt.kind == "apply"
        enters = State.PENDING_APPLICATION if first else State.ISSUED
        kept = _as_application(attempt).as_draft() if first else None
        await store.move(tx, certificate_id, [State(row.stage)], enters, now, draft=kept)
        await validation.cancel(tx, attempt.id, now)
        await services.events.publish(
            tx,
            "certificate.application_withdrawn",
            account_id=row.account_id,
            object_id=certificate_id,
            payload={"application_id": attempt.id, "kind": attempt.kind},
        )
        await audit.record(
            tx, services, actor, "scm:cert:withdraw", "certificate", certificate_id, project_id=row.project_id,
            before={"state": row.stage}, after={"state": enters.value},
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


def _as_application(attempt: Any) -> Application:
    from certwright.rooms.certificates.words import Applicant

    applicant = Applicant(**attempt.applicant) if attempt.applicant else None
    return Application(
        names=tuple(attempt.names),
        domain_type=attempt.domain_type,
        validation_method=attempt.validation_method,
        per_name_methods=attempt.per_name_methods,
        key_algorithm=attempt.key_algorithm,
        applicant=applicant,
    )


async def reissue(services: Services, actor: Actor, certificate_id: str, *, action: str = "scm:cert:renew") -> str:
    """Get a new version with the same names and a new key; valid evidence is reused. Returns the application's id.

    Used by people and, when a version is due, by the renewal room. A certificate whose CSR was uploaded needs a new CSR
    and so can't be reissued without its owner.
    """
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, action, certificate_id, lock=True)
        await _require_allowed(tx, services, row, Operation.REISSUE)
        last = await store.latest_application(tx, certificate_id)
        if last is None or last.csr_uploaded:
            raise Refused(
                "reissue_needs_csr",
                "This certificate's CSR was uploaded: a reissue needs a new CSR from you.",
                fix="Apply for a new certificate with a new CSR.",
            )
        if last.validation_method == VOUCHED:
            return await _reissue_vouched(tx, services, actor, row, last)
        previous = _as_application(last)
        judged = rules.judge_application(
            replace(previous, consent=True, consent_version=last.consent_version),
            public_ca=authority(services, row.ca).capabilities.public,
        )
        return await _submit(tx, services, actor, row, judged, kind="reissue")


async def _reissue_vouched(tx: Tx, services: Services, actor: Actor, row: Any, last: Any) -> str:
    """A private certificate needs no new proof: its application starts with the names vouched for."""
    now = services.clock.now()
    application_id = new_id("app", now)
    await store.move(tx, row.id, [State.ISSUED], State.VERIFYING_REISSUE, now)
    await store.insert_application(
        tx, id=application_id, certificate_id=row.id, account_id=row.account_id, project_id=row.project_id,
        kind="reissue", names=list(last.names), domain_type=last.domain_type, validation_method=VOUCHED,
        per_name_methods={}, key_algorithm=last.key_algorithm, csr_uploaded=False, submitted_at=now, validated_at=now,
    )  # fmt: skip
    await services.jobs.start(tx, STEP, application_id)
    await audit.record(
        tx, services, actor, "scm:cert:reissue", "certificate", row.id, project_id=row.project_id,
        before={"state": row.stage}, after={"state": State.VERIFYING_REISSUE.value, "application": application_id},
    )  # fmt: skip
    return application_id


async def revoke(services: Services, actor: Actor, certificate_id: str, reason: RevocationReason) -> views.Detail:
    """Ask the CA to revoke the current version; can't be undone. Ends in `revoked`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:revoke", certificate_id, lock=True)
        await _require_allowed(tx, services, row, Operation.REVOKE)
        taken = authority(services, row.ca).capabilities.revocation_reasons
        if reason not in taken:
            raise Invalid(
                "revocation_reason_not_taken", f"This CA doesn't take the reason {reason}.", field="reason",
                fix=f"Use one of: {', '.join(taken)}.",
            )  # fmt: skip
        await store.move(tx, certificate_id, [State.ISSUED], State.VERIFYING_REVOCATION, now)
        await store.update_version(
            tx, row.current_version_id, "revoke_asked_at", revoke_asked_at=now, revocation_reason=reason.value
        )
        await services.jobs.start(tx, REVOKE_STEP, row.current_version_id)
        await audit.record(
            tx, services, actor, "scm:cert:revoke", "certificate", certificate_id, project_id=row.project_id,
            before={"state": row.stage}, after={"state": State.VERIFYING_REVOCATION.value}, reason=reason.value,
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


# --- plain fields ---------------------------------------------------------------------------------------------------


async def update_certificate(
    services: Services,
    actor: Actor,
    certificate_id: str,
    *,
    revision: int,
    name: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    auto_renew: bool | None = None,
    notify: bool | None = None,
    project_id: str | None = None,
) -> views.Detail:
    """Rename, describe, tag, switch automatic renewal, move to another project. Raises Stale if changed meanwhile."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:update", certificate_id, lock=True)
        changes: dict[str, Any] = {}
        if name is not None and name != row.name:
            rules.judge_name(name)
            if await store.name_taken(tx, actor.account_id, name, besides=certificate_id):
                raise name_taken(name)
            unicode_names = tuple(views.unicode_name(n) for n in row.names)
            changes |= {
                "name": name,
                "search_text": store.search_text(name, row.names, unicode_names, row.sha256 or "", row.serial or ""),
            }
        if description is not None:
            changes["description"] = rules.judge_description(description)
        if tags is not None:
            changes["tags"] = rules.judge_tags(tags)
        if auto_renew is not None and auto_renew != row.auto_renew:
            await _require_allowed(tx, services, row, Operation.SET_AUTO_RENEW)
            changes["auto_renew"] = auto_renew
        if notify is not None:
            changes["notify"] = notify
        if project_id is not None and project_id != row.project_id:
            changes["project_id"] = await access.project_for(tx, actor, "scm:cert:update", project_id)
            await _may_move(tx, actor, row, changes["project_id"])
            await _move_project(tx, certificate_id, changes["project_id"])
        if changes:
            if not await store.update_certificate(tx, certificate_id, revision, now, **changes):
                raise Stale("changed_meanwhile", "The certificate was changed since you read it.", fix="Read it again.")
            shown = {key: value for key, value in changes.items() if key != "search_text"}
            before = {key: getattr(row, key) for key in shown}
            await audit.record(
                tx, services, actor, "scm:cert:update", "certificate", certificate_id, project_id=row.project_id,
                before=before, after=shown,
            )  # fmt: skip
            if "auto_renew" in changes:
                await services.events.publish(
                    tx, "certificate.auto_renew_set", account_id=row.account_id, object_id=certificate_id,
                    payload={"auto_renew": auto_renew},
                )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def _may_move(tx: Tx, actor: Actor, row: Any, project_id: str) -> None:
    """Raises Forbidden `move_gives_rights`.

    All access to a certificate moves along with it. So whoever moves one must hold, where it is now, every right to it
    that the move would give them; and where a private key is held, the right to hand it out, because whoever may
    export keys in the other project gets it.
    """
    resource = f"certificate:{row.id}"
    gained = {
        action
        for action in access.ACTIONS
        # Uploading makes another one; it is no right to this one.
        if action.startswith("scm:cert:")
        and action != "scm:cert:upload"
        and access.decide(actor.grants, action, resource, project_id).allowed
    }
    if await store.key_ids(tx, row.id):
        gained.add("scm:cert:export_key")
    missing = sorted(a for a in gained if not access.decide(actor.grants, a, resource, row.project_id).allowed)
    if missing:
        raise Forbidden(
            "move_gives_rights", "Moving the certificate would give rights to it that you don't hold where it is now.",
            field="project_id", fix=f"Ask somebody who holds these in its present project: {', '.join(missing)}.",
            extra={"actions": missing},
        )  # fmt: skip


async def _move_project(tx: Tx, certificate_id: str, project_id: str) -> None:
    for table in (applications, versions):
        await tx.execute(sa.update(table).where(table.c.certificate_id == certificate_id).values(project_id=project_id))


async def delete_certificate(services: Services, actor: Actor, certificate_id: str) -> None:
    """Delete for good: private keys are crypto-erased, the audit trail and the fingerprint stay. Does not revoke."""
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            row = await _visible(tx, actor, "scm:cert:delete", certificate_id, lock=True)
            await _require_allowed(tx, services, row, Operation.DELETE)
            attempt = await store.open_application(tx, certificate_id)
            if attempt is not None:
                await validation.cancel(tx, attempt.id, now)
            for key_id in await store.key_ids(tx, certificate_id):
                await keys.erase(tx, services, actor, key_id, f"certificate {certificate_id} deleted")
            await store.delete_certificate(tx, certificate_id, row.revision)
            await services.events.publish(
                tx, "certificate.deleted", account_id=row.account_id, object_id=certificate_id, payload={}
            )
            await audit.record(
                tx, services, actor, "scm:cert:delete", "certificate", certificate_id, project_id=row.project_id,
                before={"name": row.name, "names": list(row.names), "state": row.stage, "sha256": row.sha256,
                        "serial": row.serial},
            )  # fmt: skip
    except IntegrityError as error:
        # A binding made between our look and the delete: the foreign key keeps the promise.
        raise Refused(
            "certificate_bound", "The certificate can't be deleted: it has just been bound to a listener.",
            fix="Unbind it, or bind another certificate there first.",
        ) from error  # fmt: skip


# --- for other rooms ------------------------------------------------------------------------------------------------


async def current_version(tx: Tx, certificate_id: str) -> VersionMaterial | None:
    """The current version of a certificate, whoever asks: callers check access to the certificate themselves."""
    return await store.material(tx, certificate_id=certificate_id)


async def version_material(tx: Tx, version_id: str) -> VersionMaterial | None:
    return await store.material(tx, version_id=version_id)


async def usable_version(
    tx: Tx, services: Services, actor: Actor, certificate_id: str, *, action: str, operation: Operation
) -> VersionMaterial:
    """The current version for `operation` (deploy, download…), after the access check and the state rules."""
    row = await _visible(tx, actor, action, certificate_id)
    await _require_allowed(tx, services, row, operation)
    found = await store.material(tx, certificate_id=certificate_id)
    if found is None:
        raise not_found("certificate", certificate_id)
    return found
