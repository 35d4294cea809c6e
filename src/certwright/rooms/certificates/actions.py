"""What people and other rooms can do with certificates: gather facts, ask the rules, write, queue."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, Refused, Stale, not_found
from certwright.platform.db import Tx, is_one_of
from certwright.platform.events import Event
from certwright.platform.services import Services
from certwright.rooms import access, audit, authorities, csrs, keys, organisations, validation
from certwright.rooms.certificates import privacy, rules, store, views
from certwright.rooms.certificates.ports import AuthorityDirectory, Cancels, CertificateAuthority, Issued, Usage
from certwright.rooms.certificates.tables import CURRENT, applications, certificates, confirmations, versions
from certwright.rooms.certificates.words import (
    UNCHANGED,
    VOUCHED,
    Applicant,
    Application,
    CertificateFacts,
    Changes,
    JudgedApplication,
    KeySource,
    NewVersion,
    Operation,
    Purpose,
    RevocationReason,
    State,
    VersionMaterial,
)
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import to_pem

STEP = "certificates.issue"
REVOKE_STEP = "certificates.revoke"
BUILTIN_CA = "builtin"


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing may be narrowed by; empty means everything the actor may see."""

    states: tuple[State, ...] = ()
    search: str | None = None
    ca: str | None = None
    project_id: str | None = None
    tag: Mapping[str, str] = field(default_factory=dict)
    expires_after: datetime | None = None
    expires_before: datetime | None = None
    expires_soon: bool | None = None
    key_algorithm: str | None = None
    sha256: str | None = None
    serial: str | None = None
    certificate_type: str | None = None
    domain_type: str | None = None
    # Id or name of a target one of whose sites it serves.
    deployed_on: str | None = None


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
    """A page of at most `limit`; `after` is (value of the sort column, id) of the last line seen.

    By expiry those without one come last.
    """
    now = services.clock.now()
    where = [
        access.visible(certificates, actor, "scm:cert:list"),
        *store.filters(
            now=now, states=filters.states, search=filters.search, ca=filters.ca, project_id=filters.project_id,
            tag=filters.tag, expires_after=filters.expires_after, expires_before=filters.expires_before,
            soon=filters.expires_soon, key_algorithm=filters.key_algorithm, sha256=filters.sha256,
            serial=filters.serial, certificate_type=filters.certificate_type, domain_type=filters.domain_type,
        ),
    ]  # fmt: skip
    async with services.db.read() as tx:
        if filters.deployed_on:
            there = await services.port(Usage).certificates_on(tx, actor, filters.deployed_on)
            where.append(is_one_of(certificates.c.id, list(there)))
        rows = await store.page(tx, where, order=SORTS[sort], descending=descending, after=after, limit=limit)
        found = [views.summary_of_columns(row, now) for row in rows]
        moving = [one.id for one in found if one.state in (State.VERIFYING_DOMAIN_ADDITION, State.VERIFYING_REISSUE)]
        attempts = await store.under_way(tx, moving) if moving else {}
    return [views.with_progress(one, attempts[one.id]) if one.id in attempts else one for one in found]


_EXPORTED_AT_ONCE = 500


async def export_certificates(services: Services, actor: Actor, filters: Filters) -> AsyncIterator[views.Summary]:
    """All that `list_certificates` would show, newest first, read a page at a time."""
    after: tuple[Any, str] | None = None
    while True:
        page = await list_certificates(services, actor, filters, after=after, limit=_EXPORTED_AT_ONCE)
        for summary in page:
            yield summary
        if len(page) < _EXPORTED_AT_ONCE:
            return
        after = (page[-1].id, page[-1].id)


async def count_by_state(services: Services, actor: Actor) -> dict[str, int]:
    async with services.db.read() as tx:
        return await store.counts(tx, access.visible(certificates, actor, "scm:cert:list"), services.clock.now())


async def expiry_days(services: Services, actor: Actor, days: int = 100) -> list[tuple[datetime, int]]:
    where = access.visible(certificates, actor, "scm:cert:list")
    async with services.db.begin() as tx:
        return await store.expiry_days(tx, where, services.clock.now(), days)


async def get_certificate(services: Services, actor: Actor, certificate_id: str) -> views.Detail:
    # Or a state from before its revocation would stand beside a version from after it.
    async with services.db.moment() as tx:
        row = await _visible(tx, actor, "scm:cert:get", certificate_id)
        return await _detail(tx, services, row)


async def detail(tx: Tx, services: Services, certificate_id: str) -> views.Detail:
    """For whoever has just changed it, and may have the right for that alone."""
    return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def _detail(tx: Tx, services: Services, row: Any) -> views.Detail:
    now = services.clock.now()
    attempt = await store.latest_application(tx, row.id)
    open_attempt = attempt is not None and not (attempt.issued_at or attempt.withdrawn_at or attempt.failed_at)
    version_rows = await store.version_list(tx, row.id)
    subject = attempt.id if attempt is not None and open_attempt else _control_of(version_rows)
    state = await validation.state(tx, services, subject, now) if subject is not None else None
    facts = await facts_of(tx, services, row, version_rows)
    current = next((v for v in version_rows if v.superseded_at is None), None)
    renews = row.auto_renew and not row.uploaded and current is not None and current.revoked_at is None
    return views.Detail(
        summary=views.summary(row, now, attempt if open_attempt else None),
        purpose=Purpose(row.purpose),
        application=views.application_view(attempt) if attempt is not None else None,
        validation=state,
        versions=tuple(
            views.version_view(v, tuple(read_certificate(der).subject for der in v.chain_ders)) for v in version_rows
        ),
        renew_at=await _due_at(tx, row, current) if renews and current is not None else None,
        fallback_ca=row.fallback_ca,
        coverage=views.coverage(row, await store.renewed_by(tx, row)),
        confirmations=views.confirmation_views(await store.confirmation_list(tx, row.id), now),
        only_by_program=rules.why_only_by_program(facts),
        allowed=rules.allowed_operations(facts),
    )


def _control_of(version_rows: Sequence[Any]) -> str | None:
    """Under which id names are being shown, so that a version is revoked."""
    return next((v.control_id for v in version_rows if v.control_id is not None and v.revoked_at is None), None)


async def _due_at(tx: Tx, row: Any, current: Any) -> datetime:
    fallback = (await validation.rules_of(tx, row.account_id)).renewal_fallback
    return rules.renew_at(current.not_before, current.not_after, current.id, fallback)


async def facts_of(tx: Tx, services: Services, row: Any, versions: Sequence[Any] | None = None) -> CertificateFacts:
    """What `rules.allowed_operations` decides on, of a certificate's row."""
    bound = await services.port(Usage).bound_to(tx, row.id)
    known = await store.version_facts(tx, row.id) if versions is None else versions
    personal = await store.holds_personal_data(tx, row.id)
    return views.facts(row, known, bound, services.clock.now(), holds_personal_data=personal)


async def _visible(tx: Tx, actor: Actor, action: str, certificate_id: str, *, lock: bool = False) -> Any:
    """The row, if the actor may do `action` to it. Raises NotFound if it may not be seen, Forbidden otherwise."""
    row = await store.certificate(tx, certificate_id, access.visible(certificates, actor, "scm:cert:get"), lock=lock)
    if row is None:
        raise not_found("certificate", certificate_id)
    access.require(actor, action, project_id=row.project_id, resource=f"certificate:{certificate_id}")
    return row


async def require_allowed(tx: Tx, services: Services, row: Any, operation: Operation) -> None:
    facts = await facts_of(tx, services, row)
    refused = rules.judge_operation(operation, facts)
    if refused is not None:
        raise rules.with_allowed(refused, facts)


# --- applying -------------------------------------------------------------------------------------------------------


async def find_authority(tx: Tx, services: Services, account_id: str, ca: str) -> tuple[str, CertificateAuthority]:
    """The CA of this id or name, and the id to store. Raises Invalid `ca_unknown`."""
    directory = services.port(AuthorityDirectory)
    found = await directory.find(tx, account_id, ca)
    if found is None:
        known = ", ".join(await directory.names(tx, account_id))
        raise Invalid("ca_unknown", f"There is no CA {ca[:60]!r}.", field="ca", fix=f"Use one of: {known[:300]}.")
    return found


async def authority(tx: Tx, services: Services, certificate: Any, ca: str | None = None) -> CertificateAuthority:
    """The CA of a certificate's row, or the one that an application or a version says it was ordered from."""
    return (await find_authority(tx, services, certificate.account_id, ca or certificate.ca))[1]


async def _fallback(tx: Tx, services: Services, actor: Actor, ca: str, project_id: str, but: str) -> str:
    """The id of a second CA for a certificate. Raises Invalid `ca_unknown`, `fallback_same`, Forbidden."""
    try:
        found, _ = await find_authority(tx, services, actor.account_id, ca)
    except Invalid as unknown:
        raise unknown.at("fallback_ca") from unknown
    may_order(services, actor, found, project_id)
    if found == but:
        raise Invalid(
            "fallback_same", "The second CA is the first one.", field="fallback_ca",
            fix="Name another one, or leave it out.",
        )  # fmt: skip
    return found


def may_order(services: Services, actor: Actor, ca_id: str, project_id: str) -> None:
    """A CA somebody added is ordered from by whoever may use it; those every account has are open to applicants."""
    if ca_id not in services.port(AuthorityDirectory).by_id:
        access.require(actor, "scm:ca:use", project_id=project_id, resource=f"ca:{ca_id}")


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
    fallback_ca: str | None = None,
    auto_renew: bool = True,
) -> views.Detail:
    """A new certificate, with its first application if one is given (else in `pending_application`)."""
    description, judged_tags = rules.judge_description(description), rules.judge_tags(tags or {})
    now = services.clock.now()
    certificate_id = new_id("cert", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:cert:apply", project_id)
        ca_id, chosen = await find_authority(tx, services, actor.account_id, ca)
        may_order(services, actor, ca_id, project)
        second = await _fallback(tx, services, actor, fallback_ca, project, ca_id) if fallback_ca else None
        taken = await _take(tx, actor, application, project, certificate_id) if application else None
        statement = privacy.current(services).version
        judged = _judged_with(taken, application, chosen, statement=statement) if application else None
        wanted = await free_name(tx, actor.account_id, name)
        await store.insert_certificate(
            tx, id=certificate_id, account_id=actor.account_id, project_id=project, name=wanted,
            description=description, tags=judged_tags, ca=ca_id, fallback_ca=second,
            stage=State.PENDING_APPLICATION.value, auto_renew=auto_renew,
            search_text=store.search_text(wanted, (), ()), created_at=now, updated_at=now,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "scm:cert:apply", "certificate", certificate_id, project_id=project,
            after={"name": wanted, "ca": ca_id, "state": State.PENDING_APPLICATION.value},
        )  # fmt: skip
        row = await store.certificate(tx, certificate_id)
        assert row is not None
        if application is not None and judged is not None:
            await _heed_policies(tx, row, judged, now)
            key = await _lent(tx, services, actor, row, application, taken)
            await _submit(tx, services, actor, row, judged, chosen, kind="apply", key=key)
            row = await store.certificate(tx, certificate_id)
        return await _detail(tx, services, row)


async def apply(services: Services, actor: Actor, certificate_id: str, application: Application) -> views.Detail:
    """Submit the application of a certificate in `pending_application` or `approval_failed`."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:apply", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.APPLY)
        chosen = await authority(tx, services, row)
        may_order(services, actor, row.ca, row.project_id)
        taken = await _take(tx, actor, application, row.project_id, certificate_id)
        judged = _judged_with(taken, application, chosen, row, statement=privacy.current(services).version)
        await _heed_policies(tx, row, judged, services.clock.now())
        key = await _lent(tx, services, actor, row, application, taken)
        await _submit(tx, services, actor, row, judged, chosen, kind="apply", key=key)
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def _heed_policies(tx: Tx, row: Any, judged: JudgedApplication, now: datetime) -> None:
    """What policies won't let the built-in CA issue is refused before anybody proves anything; issuing asks them again.
    Raises Refused."""
    if row.ca == BUILTIN_CA:
        refused = await authorities.builtin_names_refused(tx, row.account_id, row.project_id, judged.names, now)
        if refused is not None:
            raise refused


@dataclass(frozen=True, slots=True)
class _Key:
    """What goes with a CSR that wasn't pasted: the key that is held here (None: it is with its owner), the kept CSR it
    came from, and whether later versions keep it."""

    key_id: str | None
    csr_id: str | None
    pinned: bool


async def _take(
    tx: Tx, actor: Actor, application: Application, project_id: str, certificate_id: str
) -> csrs.Taken | None:
    """The kept CSR the application names. Raises Invalid `csr_given_twice`, `pin_key_not_held`."""
    taken = None
    if application.csr_id is not None:
        if application.csr is not None:
            raise Invalid(
                "csr_given_twice", "Both a CSR and the id of one that is kept here are given.", field="csr_id",
                fix="Leave one of them out.",
            )  # fmt: skip
        taken = await csrs.take(tx, actor, application.csr_id, project_id=project_id, certificate_id=certificate_id)
    if application.pin_key and (taken is None or taken.key_id is None):
        raise Invalid(
            "pin_key_not_held", "Only the key of a CSR that is kept here with its key can be kept for later versions.",
            field="pin_key", fix="Leave it out: a new key is made for every version.",
        )  # fmt: skip
    return taken


def _judged_with(
    taken: csrs.Taken | None,
    application: Application,
    chosen: CertificateAuthority,
    row: Any = None,
    *,
    statement: str | None = None,
) -> JudgedApplication:
    """With the kept CSR in place of one that was pasted."""
    if taken is None:
        return _judged(application, chosen, row, statement=statement)
    try:
        judged = _judged(replace(application, csr=taken.pem), chosen, row, statement=statement)
    except InvalidFields as met:
        raise InvalidFields(p.at("csr_id") if p.field == "csr" else p for p in met.problems) from met
    return replace(judged, key_held=taken.key_id is not None)


async def _lent(
    tx: Tx, services: Services, actor: Actor, row: Any, application: Application, taken: csrs.Taken | None
) -> _Key | None:
    """The certificate's own copy of the kept CSR's key."""
    if taken is None:
        return None
    key_id = await csrs.lend_key(tx, services, actor, taken, project_id=row.project_id, certificate_id=row.id)
    return _Key(key_id, taken.id, application.pin_key)


def _judged(
    application: Application,
    chosen: CertificateAuthority,
    row: Any = None,
    *,
    applicant_needed: bool = True,
    statement: str | None = None,
) -> JudgedApplication:
    """By the rules of the CA and, where it was bought, of its product."""
    bought = row is not None and row.order_id is not None
    if bought:
        application = replace(
            application, certificate_type=application.certificate_type or row.certificate_type,
            domain_type=application.domain_type or row.domain_type,
        )  # fmt: skip
    can = chosen.capabilities
    judged = rules.judge_application(
        application, public_ca=can.public, types=can.types, methods=can.methods, root_hashes=can.root_hashes,
        applicant_needed=applicant_needed, statement=statement, ip_addresses=can.ip_addresses,
    )  # fmt: skip
    if bought:
        rules.judge_against_purchase(
            judged, certificate_type=row.certificate_type, domain_type=row.domain_type, quota=row.domain_quota,
            wildcard_quota=row.wildcard_quota, methods=row.product["methods"],
        )  # fmt: skip
    return judged


_BEGINS: Mapping[str, tuple[tuple[State, ...], State]] = {
    "apply": ((State.PENDING_APPLICATION, State.APPROVAL_FAILED), State.PENDING_DOMAIN_VALIDATION),
    "reissue": ((State.ISSUED,), State.VERIFYING_REISSUE),
    "add": ((State.ISSUED,), State.VERIFYING_DOMAIN_ADDITION),
}
"""What an application of each kind leaves and enters."""


async def _submit(
    tx: Tx,
    services: Services,
    actor: Actor,
    row: Any,
    judged: JudgedApplication,
    chosen: CertificateAuthority,
    *,
    kind: str,
    key: _Key | None = None,
    last: Any = None,
    revokes_replaced: bool = False,
) -> str:
    """Write the application, ask validation for its names, move the certificate on; in the caller's transaction.

    `last` is the application whose consent goes on to count; without one, somebody agrees now. With `revokes_replaced`
    the version it replaces is revoked as superseded.
    What a CA with challenges of its own wants to see is known once it was asked: the application's step does that.
    """
    now = services.clock.now()
    application_id = new_id("app", now)
    leaves, enters = _BEGINS[kind]
    values: dict[str, Any] = {}
    if kind == "apply":
        values = {
            # Without the key there is no new CSR, so nobody but its owner can renew it.
            "auto_renew": row.auto_renew and judged.key_source is KeySource.SYSTEM,
            "draft": None,
            "primary_name": judged.names[0],
            "names": list(judged.names),
            "search_text": store.search_text(row.name, judged.names, judged.unicode_names),
        }
    if not await store.move(tx, row.id, leaves, enters, now, **values):
        raise Refused(
            "state_changed", "The certificate was changed by someone else meanwhile.", fix="Look at it again."
        )
    agreed = privacy.current(services)
    before = last if last is not None and last.consent_at is not None else None
    if before is None:
        await privacy.remember(tx, agreed, now)
    technical = judged.technical_contact
    await store.insert_application(
        tx, id=application_id, certificate_id=row.id, account_id=row.account_id, project_id=row.project_id, kind=kind,
        names=list(judged.names), domain_type=judged.domain_type.value, validation_method=judged.validation_method,
        per_name_methods=dict(judged.per_name_methods), key_algorithm=judged.key_algorithm, csr_der=judged.csr_der,
        csr_uploaded=judged.key_source is KeySource.UPLOADED_CSR, key_id=key.key_id if key else None,
        csr_id=key.csr_id if key else None, key_pinned=key is not None and key.pinned,
        applicant=judged.applicant.as_dict() if judged.applicant else sa.null(),
        technical_contact=technical.as_dict() if technical else sa.null(), root_hash=judged.root_hash,
        revokes_replaced=revokes_replaced, consent_at=now if before is None else before.consent_at,
        consent_version=agreed.version if before is None else before.consent_version, submitted_at=now,
        certificate_type=judged.certificate_type.value, organisation_id=judged.organisation_id, ca=row.ca,
    )  # fmt: skip
    if judged.organisation_id is not None:
        ours = not chosen.capabilities.checks_organisations
        await _require_organisation(tx, services, actor, row, judged, application_id, by_our_desk=ours)
    if not chosen.capabilities.challenges:
        await validation.require_domains(
            tx, services, account_id=row.account_id, project_id=row.project_id, subject_id=application_id,
            names=judged.names, method=judged.validation_method, per_name_methods=judged.per_name_methods, ca=row.ca,
            now=now, ca_kind=validation.CaKind.PUBLIC if chosen.capabilities.public else validation.CaKind.PRIVATE,
        )  # fmt: skip
    await services.jobs.start(tx, STEP, application_id)
    await audit.record(
        tx, services, actor, f"scm:cert:{kind}", "certificate", row.id, project_id=row.project_id,
        before={"state": row.stage},
        after={"state": enters.value, "application": application_id, "names": list(judged.names)},
    )  # fmt: skip
    return application_id


async def _require_organisation(
    tx: Tx,
    services: Services,
    actor: Actor,
    row: Any,
    judged: JudgedApplication,
    application_id: str,
    *,
    by_our_desk: bool,
) -> None:
    """Have the organisation verified, or find that it is; what is known of it becomes part of the application."""
    assert judged.organisation_id is not None
    facts = await organisations.organisation_for(tx, actor, judged.organisation_id)
    rules.judge_company(await store.company_before(tx, row), facts.legal_name)
    who = judged.applicant
    if who is None:
        raise Refused(
            "person_withdrawn", "The applicant's data was withdrawn, so nobody can be asked about the organization.",
            fix="Reissue it with an applicant, or apply for a new certificate.",
        )  # fmt: skip
    if by_our_desk:
        await organisations.require(
            tx, services, account_id=row.account_id, project_id=row.project_id, subject_id=application_id,
            type=judged.certificate_type.value, ca=row.ca, organisation_id=judged.organisation_id,
            applicant=organisations.Applicant(name=who.name, email=who.email, phone=who.phone, user_id=actor.user_id),
            now=services.clock.now(), review_days=((row.product or {}).get("review_days") or {}).get("most", 0),
        )  # fmt: skip
    await store.record(tx, application_id, "organisation", organisation=asdict(facts))


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
        await require_allowed(tx, services, row, Operation.SAVE_DRAFT)
        await store.update_certificate(tx, certificate_id, None, now, draft=application.as_draft())
        await audit.record(
            tx, services, actor, "scm:cert:apply", "certificate", certificate_id, project_id=row.project_id,
            reason="draft saved",
        )  # fmt: skip


async def read_draft(services: Services, actor: Actor, certificate_id: str) -> Mapping[str, Any]:
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:get", certificate_id)
        # Drafts of earlier releases lack the fields that are new.
        return Application().as_draft() | (row.draft or {})


async def check_domains(services: Services, actor: Actor, certificate_id: str) -> tuple[validation.DomainResult, ...]:
    """Look now at what each pending domain shows, record it, and move on if the last one became valid."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:validation:check", certificate_id)
        await require_allowed(tx, services, row, Operation.VERIFY_DOMAINS)
        attempt = await store.open_application(tx, certificate_id)
        subject = attempt.id if attempt else _control_of(await store.version_list(tx, certificate_id))
    if subject is None:
        raise Refused("no_open_application", "Nothing is waiting for validation.", fix="Apply or reissue first.")
    return await validation.check_now(services, actor, subject)


async def record_version(
    tx: Tx, services: Services, actor: Actor, certificate: Any, attempt: Any, issued: Issued
) -> str:
    """Write an issued version of a locked certificate, retire the one before, and tell. Returns the version's id."""
    now = services.clock.now()
    leaf = read_certificate(issued.leaf_der)
    version_id = new_id("ver", now)
    replaced = certificate.current_version_id
    number = await store.supersede(tx, certificate.id, now)
    if replaced is not None and attempt.revokes_replaced:
        after = now + timedelta(days=services.settings.superseded_grace_days)
        await store.update_version(tx, replaced, "revoke_replaced_at", revoke_replaced_at=after, next_step_at=now)
    await store.insert_version(
        tx, id=version_id, certificate_id=certificate.id, account_id=certificate.account_id,
        project_id=certificate.project_id, number=number, ca=attempt.ca or certificate.ca,
        **store.version_values(
            leaf, issued.chain_ders, application_id=attempt.id, key_id=attempt.key_id, issued_at=now
        ),
    )  # fmt: skip
    names = list(attempt.names)
    unicode_names = [views.unicode_name(name) for name in names]
    # A CA that verifies organisations itself issues as soon as it has; we hear of both at once. And a withdrawal asked
    # for while the CA was answering comes too late.
    leaves = [
        State.PENDING_ORGANIZATION_VALIDATION, State.TO_BE_ISSUED, State.VERIFYING_REISSUE,
        State.VERIFYING_DOMAIN_ADDITION, State.VERIFYING_WITHDRAWAL,
    ]  # fmt: skip
    moved = await store.move(
        tx, certificate.id, leaves, State.ISSUED, now, current_version_id=version_id, key_id=attempt.key_id,
        key_algorithm=leaf.key_algorithm, sha256=leaf.sha256, serial=leaf.serial, not_before=leaf.not_before,
        not_after=leaf.not_after, primary_name=names[0], names=names,
        search_text=store.search_text(certificate.name, names, unicode_names, leaf.sha256, leaf.serial),
    )  # fmt: skip
    assert moved, f"a certificate that waits for a version is in none of {leaves}, but {certificate.stage}"
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
    """Take the open application back.

    Where the CA knows of the order, it has the last word (`verifying_withdrawal`): if it approved meanwhile, the
    certificate is issued all the same. A CA that takes no order back can't be withdrawn from once it was told to issue.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:withdraw", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.WITHDRAW)
        attempt = await store.open_application(tx, certificate_id)
        too_late = Refused(
            "withdrawal_too_late",
            "The certificate has already been ordered from the CA, so the application can't be withdrawn.",
            fix="Wait until it is issued; then revoke or delete it.",
        )
        if attempt is None:
            raise too_late
        ordered = attempt.order_id is not None or attempt.order_intended_at is not None
        if ordered and isinstance(await authority(tx, services, row, attempt.ca), Cancels):
            await store.record(tx, attempt.id, "withdraw_asked_at", withdraw_asked_at=now)
            enters = State.VERIFYING_WITHDRAWAL
            await store.move(tx, certificate_id, [State(row.stage)], enters, now)
            await services.jobs.start(tx, STEP, attempt.id)
        elif await store.record(tx, attempt.id, "order_intended_at", withdrawn_at=now):
            enters = await leave_application(tx, services, row, attempt)
        else:
            raise too_late
        await audit.record(
            tx, services, actor, "scm:cert:withdraw", "certificate", certificate_id, project_id=row.project_id,
            before={"state": row.stage}, after={"state": enters.value},
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def leave_application(tx: Tx, services: Services, row: Any, attempt: Any) -> State:
    """What follows when an application of this locked certificate was withdrawn; returns the state it is in then."""
    now = services.clock.now()
    if attempt.kind == "apply":
        enters = State.PENDING_APPLICATION
        await store.move(
            tx, row.id, [State(row.stage)], enters, now, draft=_as_application(attempt).as_draft()
        )  # fmt: skip
    else:
        enters = await fall_back(tx, services, row)
    await validation.cancel(tx, attempt.id, now)
    if attempt.organisation_id is not None:
        await organisations.cancel(tx, attempt.id, now)
    await services.events.publish(
        tx, "certificate.application_withdrawn", account_id=row.account_id, object_id=row.id,
        payload={"application_id": attempt.id, "kind": attempt.kind},
    )  # fmt: skip
    return enters


def _as_application(attempt: Any) -> Application:
    applicant = Applicant(**attempt.applicant) if attempt.applicant else None
    return Application(
        names=tuple(attempt.names),
        domain_type=attempt.domain_type,
        validation_method=attempt.validation_method,
        per_name_methods=attempt.per_name_methods,
        key_algorithm=rules.algorithm_of_new_key(attempt.key_algorithm),
        csr_id=attempt.csr_id,
        pin_key=attempt.key_pinned and attempt.csr_id is not None,
        applicant=applicant,
        technical_contact=Applicant(**attempt.technical_contact) if attempt.technical_contact else None,
        root_hash=attempt.root_hash,
        certificate_type=attempt.certificate_type,
        organisation_id=attempt.organisation_id,
    )


async def fall_over(
    tx: Tx, services: Services, actor: Actor, certificate_id: str, attempt: Any, why: Mapping[str, Any]
) -> bool:
    """Ask the certificate's second CA for what the first one refused or was away for too long: the CAs change places
    and the application is made anew. False when there is no second CA, it takes no such application, or it was the
    second already. In the transaction that ends the attempt."""
    row = await store.certificate(tx, certificate_id, lock=True)
    if row is None or row.fallback_ca is None or attempt.takes_over_id is not None:
        return False
    if State(row.stage) not in _BEGINS[attempt.kind][0]:
        return False
    application = replace(
        _as_application(attempt), csr_id=None, pin_key=False, consent=True,
        # What the second CA can't let anybody choose must not keep it from issuing.
        root_hash="default",
        csr=to_pem(attempt.csr_der).decode() if attempt.csr_uploaded else None,
    )  # fmt: skip
    now = services.clock.now()
    try:
        second, chosen = await find_authority(tx, services, row.account_id, row.fallback_ca)
        judged = _judged(application, chosen, row, applicant_needed=False)
    except Invalid:
        return False
    await store.update_certificate(tx, certificate_id, None, now, ca=second, fallback_ca=row.ca)
    swapped = await store.certificate(tx, certificate_id)
    anew = await _submit(
        tx, services, actor, swapped, judged, chosen, kind=attempt.kind, last=attempt,
        revokes_replaced=attempt.revokes_replaced,
    )  # fmt: skip
    await store.record(tx, anew, "takes_over_id", takes_over_id=attempt.id)
    await audit.record(
        tx, services, actor, "scm:cert:fall_over", "certificate", certificate_id, project_id=row.project_id,
        before={"ca": row.ca}, after={"ca": second, "application": anew},
        reason=str(why.get("message", ""))[:500],
    )  # fmt: skip
    return True


async def renew_version(services: Services, actor: Actor, certificate_id: str, *, at_ca: str | None = None) -> str:
    """Get a new version with the same names and a new key, because the current one is due or has to be replaced; valid
    evidence is reused. Returns the application's id. For the renewal room: see `rules.judge_renewal`.

    With `at_ca` (an id) this version and all later ones come from that CA. A certificate whose CSR was uploaded needs a
    new CSR and so can't be renewed without its owner. Raises NotFound, Refused, and Invalid where that CA doesn't take
    such an application.
    """
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:renew", certificate_id, lock=True)
        facts = await facts_of(tx, services, row)
        refused = rules.judge_renewal(facts)
        if refused is not None:
            raise rules.with_allowed(refused, facts)
        if at_ca is not None and at_ca != row.ca:
            row = await _at_other_ca(tx, services, actor, row, at_ca)
        return await _same_again(tx, services, actor, row, revokes_replaced=False)


async def reissue(services: Services, actor: Actor, certificate_id: str, changes: Changes = UNCHANGED) -> str:
    """Get a new version at somebody's wish, with other names, organisation, key or method if they say so. Returns the
    application's id.

    The current version works until the new one is deployed; it is revoked as superseded some days after nothing serves
    it any more (`superseded_grace_days`), for OV and EV once the applicant followed a mailed link.
    """
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:renew", certificate_id, lock=True)
        facts = await facts_of(tx, services, row)
        # Who sends a new CSR doesn't need the key of the last one to be here.
        refused = rules.judge_operation(
            Operation.REISSUE, replace(facts, has_key=facts.has_key or changes.csr is not None)
        )
        if refused is not None:
            raise rules.with_allowed(refused, facts)
        if changes == UNCHANGED:
            return await _same_again(tx, services, actor, row, revokes_replaced=True)
        return await _changed(tx, services, actor, row, changes, kind="reissue")


async def add_domains(
    services: Services, actor: Actor, certificate_id: str, names: Sequence[str], changes: Changes = UNCHANGED
) -> str:
    """More names for a multi-domain certificate: a new version with the old names and these. Returns the application's
    id. The coverage still counts from the first issue. Raises InvalidFields, Refused `operation_not_allowed`."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:renew", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.ADD_DOMAINS)
        if not names:
            raise Invalid("names_missing", "No domain name is given.", field="names", fix="Enter the names to add.")
        wanted = replace(changes, names=(*row.names, *names))
        return await _changed(tx, services, actor, row, wanted, kind="add")


async def _changed(tx: Tx, services: Services, actor: Actor, row: Any, changes: Changes, *, kind: str) -> str:
    last = await store.application_in_use(tx, row.id)
    if last is None or last.validation_method == VOUCHED:
        raise Refused(
            "issued_without_application", "This certificate was issued at once, without an application.",
            fix="Issue another one with the names you want.",
        )  # fmt: skip
    if last.csr_uploaded and changes.csr is None:
        raise _needs_csr()
    before = _as_application(last)
    after = replace(
        before,
        names=changes.names or (() if changes.csr is not None else before.names),
        # What suits the names now; a product's own type is put in by `_judged`.
        domain_type=before.domain_type if kind == "add" else None,
        validation_method=changes.validation_method or before.validation_method,
        per_name_methods=before.per_name_methods if changes.per_name_methods is None else changes.per_name_methods,
        key_algorithm=changes.key_algorithm or before.key_algorithm,
        csr=changes.csr,
        applicant=changes.applicant or before.applicant,
        technical_contact=changes.technical_contact or before.technical_contact,
        organisation_id=changes.organisation_id or before.organisation_id,
        consent=True,
    )
    if changes.per_name_methods is None:
        after = replace(after, per_name_methods={n: m for n, m in before.per_name_methods.items() if n in after.names})
    chosen = await authority(tx, services, row)
    same = set(after.names) == set(last.names) and changes.csr is None and changes.key_algorithm is None
    key = await _pinned(tx, last) if same else None
    judged = _judged(_with_csr_of(after, last, key), chosen, row)
    return await _submit(
        tx, services, actor, row, _held(judged, key), chosen, kind=kind, key=key, last=last,
        revokes_replaced=kind == "reissue",
    )  # fmt: skip


async def _same_again(tx: Tx, services: Services, actor: Actor, row: Any, *, revokes_replaced: bool) -> str:
    """Another version like the current one, of a locked certificate."""
    last = await store.application_in_use(tx, row.id)
    if last is None or last.csr_uploaded:
        raise _needs_csr()
    if last.validation_method == VOUCHED:
        return await _reissue_vouched(tx, services, actor, row, last, revokes_replaced=revokes_replaced)
    # Who withdrew their personal data is asked no more: the names and the organisation were agreed on before.
    previous = replace(_as_application(last), consent=True)
    chosen = await authority(tx, services, row)
    key = await _pinned(tx, last)
    judged = _judged(_with_csr_of(previous, last, key), chosen, row, applicant_needed=False)
    return await _submit(
        tx, services, actor, row, _held(judged, key), chosen, kind="reissue", key=key, last=last,
        revokes_replaced=revokes_replaced,
    )  # fmt: skip


async def _at_other_ca(tx: Tx, services: Services, actor: Actor, row: Any, ca: str) -> Any:
    """The row of a locked certificate after it went to another CA; what is issued stays with the CA it came from."""
    last = await store.application_in_use(tx, row.id)
    why = rules.why_bound_to_ca(
        bought=row.order_id is not None, vouched=last is not None and last.validation_method == VOUCHED
    )
    if why is not None:
        raise why
    found, _ = await find_authority(tx, services, row.account_id, ca)
    fallback = None if row.fallback_ca == found else row.fallback_ca
    await store.update_certificate(tx, row.id, None, services.clock.now(), ca=found, fallback_ca=fallback)
    await audit.record(
        tx, services, actor, "scm:cert:renew", "certificate", row.id, project_id=row.project_id,
        before={"ca": row.ca}, after={"ca": found},
    )  # fmt: skip
    return await store.certificate(tx, row.id)


async def _pinned(tx: Tx, last: Any) -> _Key | None:
    """The key this certificate is to keep, unless a version with it is revoked because somebody else may have it."""
    if not last.key_pinned or last.key_id is None or await store.key_compromised(tx, last.certificate_id, last.key_id):
        return None
    return _Key(last.key_id, last.csr_id, pinned=True)


def _with_csr_of(application: Application, last: Any, key: _Key | None) -> Application:
    """With a pinned key the CSR of the last time serves again."""
    return application if key is None else replace(application, csr=to_pem(last.csr_der).decode())


def _held(judged: JudgedApplication, key: _Key | None) -> JudgedApplication:
    return judged if key is None else replace(judged, key_held=True)


def _needs_csr() -> Refused:
    return Refused(
        "reissue_needs_csr",
        "This certificate's CSR was uploaded: a reissue needs a new CSR from you.",
        fix="Send a new CSR with the reissue, or apply for a new certificate.",
    )


async def apply_again(services: Services, actor: Actor, certificate_id: str) -> views.Detail:
    """Use the paid time that is left after a revocation: back to `pending_application`, with the last application as
    its draft. The revoked version stays in the history."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:apply", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.APPLY_AGAIN)
        last = await store.latest_application(tx, certificate_id)
        draft = None if last is None else _as_application(last).as_draft()
        await store.move(tx, certificate_id, [State.REVOKED], State.PENDING_APPLICATION, now, draft=draft)
        await audit.record(
            tx, services, actor, "scm:cert:apply", "certificate", certificate_id, project_id=row.project_id,
            before={"state": row.stage}, after={"state": State.PENDING_APPLICATION.value},
            reason="again, after a revocation",
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def withdraw_privacy(services: Services, actor: Actor, certificate_id: str) -> views.Detail:
    """Erase the applicant's contact data and the organisation's details for good; the issued certificate stays."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:withdraw_privacy", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.WITHDRAW_PRIVACY)
        await store.forget_person(tx, certificate_id, now)
        for application_id in await store.application_ids(tx, certificate_id):
            await organisations.forget_person(tx, services, application_id, now)
        await audit.record(
            tx, services, actor, "scm:cert:withdraw_privacy", "certificate", certificate_id, project_id=row.project_id,
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def _reissue_vouched(
    tx: Tx, services: Services, actor: Actor, row: Any, last: Any, *, revokes_replaced: bool
) -> str:
    """A private certificate needs no new proof: its application starts with the names vouched for."""
    now = services.clock.now()
    application_id = new_id("app", now)
    await store.move(tx, row.id, [State.ISSUED], State.VERIFYING_REISSUE, now)
    await store.insert_application(
        tx, id=application_id, certificate_id=row.id, account_id=row.account_id, project_id=row.project_id,
        kind="reissue", names=list(last.names), domain_type=last.domain_type, validation_method=VOUCHED,
        per_name_methods={}, key_algorithm=last.key_algorithm, csr_uploaded=False, submitted_at=now, validated_at=now,
        revokes_replaced=revokes_replaced,
    )  # fmt: skip
    await services.jobs.start(tx, STEP, application_id)
    await audit.record(
        tx, services, actor, "scm:cert:reissue", "certificate", row.id, project_id=row.project_id,
        before={"state": row.stage}, after={"state": State.VERIFYING_REISSUE.value, "application": application_id},
    )  # fmt: skip
    return application_id


async def fall_back(tx: Tx, services: Services, row: Any) -> State:
    """A reissue of this locked certificate ended without a version: back to the one there is, whatever became of it."""
    now = services.clock.now()
    current = await store.version(tx, row.current_version_id)
    assert current is not None, "what is reissued has a version"
    enters = rules.after_reissue(
        revocation_asked=current.revoke_asked_at is not None, revoked=current.revoked_at is not None
    )
    leaves = [State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION, State.VERIFYING_WITHDRAWAL]
    if await store.move(tx, row.id, leaves, enters, now) and enters is State.REVOKED:
        await tell_revoked(tx, services, current, over=True)
    return enters


async def tell_revoked(tx: Tx, services: Services, version: Any, *, over: bool) -> None:
    """`over`: the certificate is in state `revoked` now, and not only this version."""
    await services.events.publish(
        tx, "certificate.revoked" if over else "certificate.version_revoked", account_id=version.account_id,
        object_id=version.certificate_id,
        payload={"version_id": version.id, "reason": version.revocation_reason, "sha256": version.sha256},
    )  # fmt: skip


async def revoke(
    services: Services,
    actor: Actor,
    certificate_id: str,
    reason: RevocationReason,
    *,
    version_id: str | None = None,
) -> views.Detail:
    """Ask the CA to revoke a version, by default the current one; can't be undone.

    With the current version the certificate ends in `revoked`, unless a reissue is under way: that goes on, and brings
    a version that is good. Revoking an earlier version leaves the state as it is. Raises NotFound (field version_id).
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:revoke", certificate_id, lock=True)
        earlier = None
        if version_id is not None and version_id != row.current_version_id:
            earlier = await store.version(tx, version_id)
            if earlier is None or earlier.certificate_id != certificate_id:
                raise not_found("version", version_id).at("version_id")
        facts = await facts_of(tx, services, row)
        why_not = await why_not_revoke(tx, services, row, facts, earlier, reason)
        if why_not is not None:
            raise rules.with_allowed(why_not, facts) if isinstance(why_not, Refused) else why_not
        chosen = row.current_version_id if earlier is None else earlier.id
        enters = State(row.stage)
        if earlier is None and enters is State.ISSUED:
            enters = State.VERIFYING_REVOCATION
        await store.move(tx, certificate_id, [State(row.stage)], enters, now)
        await store.update_version(
            tx, chosen, "revoke_asked_at", revoke_asked_at=now, revocation_reason=reason.value
        )  # fmt: skip
        if reason is RevocationReason.KEY_COMPROMISE:
            await _spare_from_key(tx, certificate_id, chosen)
        await services.jobs.start(tx, REVOKE_STEP, chosen)
        await audit.record(
            tx, services, actor, "scm:cert:revoke", "certificate", certificate_id, project_id=row.project_id,
            before={"state": row.stage}, after={"state": enters.value, "version": chosen}, reason=reason.value,
        )  # fmt: skip
        return await _detail(tx, services, await store.certificate(tx, certificate_id))


async def why_not_revoke(
    tx: Tx, services: Services, row: Any, facts: CertificateFacts, earlier: Any, reason: RevocationReason
) -> Refused | Invalid | None:
    """Why the current version, or the `earlier` one, is not revoked for this reason."""
    refused = rules.judge_revocation(facts, None if earlier is None else earlier.number, reason)
    if refused is not None:
        return refused
    version = await store.version(tx, row.current_version_id) if earlier is None else earlier
    assert version is not None, "what can be revoked is there"
    taken = (await authority(tx, services, row, version.ca)).capabilities.revocation_reasons
    if reason in taken:
        return None
    return Invalid(
        "revocation_reason_not_taken", f"This CA doesn't take the reason {reason}.", field="reason",
        fix=f"Use one of: {', '.join(taken)}.",
    )  # fmt: skip


async def _spare_from_key(tx: Tx, certificate_id: str, version_id: str) -> None:
    """A reissue under way that was to keep this version's key gets one of its own."""
    version, attempt = await store.version(tx, version_id), await store.open_application(tx, certificate_id)
    if version is not None and version.key_id is not None and attempt is not None:
        algorithm = rules.algorithm_of_new_key(attempt.key_algorithm)
        await store.unpin(tx, certificate_id, version.key_id, algorithm)


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
    fallback_ca: str | None = None,
) -> views.Detail:
    """Rename, describe, tag, switch automatic renewal, move to another project. Raises Stale if changed meanwhile."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:cert:update", certificate_id, lock=True)
        await require_allowed(tx, services, row, Operation.UPDATE)
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
            await require_allowed(tx, services, row, Operation.SET_AUTO_RENEW)
            changes["auto_renew"] = auto_renew
        if notify is not None:
            changes["notify"] = notify
        if fallback_ca is not None:
            # An empty one takes the second CA away.
            changes["fallback_ca"] = (
                await _fallback(tx, services, actor, fallback_ca, row.project_id, row.ca) if fallback_ca else None
            )
        if project_id is not None and project_id != row.project_id:
            changes["project_id"] = await access.project_for(tx, actor, "scm:cert:update", project_id)
            await may_move(tx, actor, row, changes["project_id"])
            await _move_project(tx, services, row, changes["project_id"])
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


async def may_move(tx: Tx, actor: Actor, row: Any, project_id: str) -> None:
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


async def _move_project(tx: Tx, services: Services, row: Any, project_id: str) -> None:
    """Everything that belongs to the certificate follows it: what is below in this transaction, what is above when it
    hears of it."""
    for table in (applications, versions, confirmations):
        await tx.execute(sa.update(table).where(table.c.certificate_id == row.id).values(project_id=project_id))
    attempts = await store.application_ids(tx, row.id)
    await keys.move(tx, await store.key_ids(tx, row.id), project_id)
    await validation.move(tx, [*attempts, *await store.control_ids(tx, row.id)], project_id)
    await organisations.move(tx, attempts, project_id)
    await authorities.move_issued(tx, attempts, project_id)
    await services.events.publish(
        tx, "certificate.moved", account_id=row.account_id, object_id=row.id, payload={}
    )  # fmt: skip


async def delete_certificate(services: Services, actor: Actor, certificate_id: str) -> None:
    """Delete for good: private keys are crypto-erased, the audit trail and the fingerprint stay. Does not revoke."""
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            row = await _visible(tx, actor, "scm:cert:delete", certificate_id, lock=True)
            await require_allowed(tx, services, row, Operation.DELETE)
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


async def known(tx: Tx, certificate_id: str) -> Any | None:
    """`name` and `project_id` of a certificate, whoever asks; None when it is gone."""
    query = sa.select(CURRENT.name, CURRENT.project_id).where(CURRENT.certificate_id == certificate_id)
    return (await tx.execute(query)).one_or_none()


async def still_current(tx: Tx, told: Sequence[Event]) -> list[NewVersion]:
    """Of `certificate.version_issued` events those whose version is the current one; the others were told late."""
    by_version = {str(event.payload["version_id"]): event for event in told}
    rows = await tx.execute(
        sa.select(CURRENT.version_id, CURRENT.certificate_id, CURRENT.account_id, CURRENT.project_id).where(
            is_one_of(CURRENT.certificate_id, [event.object_id for event in told]),
            is_one_of(CURRENT.version_id, list(by_version)),
        )
    )
    return [_new_version(row, by_version[row.version_id].payload) for row in rows]


def _new_version(row: Any, payload: Mapping[str, Any]) -> NewVersion:
    return NewVersion(
        row.version_id, row.certificate_id, row.account_id, row.project_id, str(payload["sha256"]),
        *(datetime.fromisoformat(str(payload[key])) for key in ("not_before", "not_after")),
    )  # fmt: skip


class CsrUsers:
    """`csrs.Users`: who applied with a kept CSR."""

    async def used_by(self, tx: Tx, csr_ids: Sequence[str]) -> Mapping[str, csrs.UsedBy]:
        return await store.csr_uses(tx, csr_ids)


class CaDependents:
    """`cas.Dependents`: certificates need the CA they came from for renewal and revocation."""

    async def certificates_of(self, tx: Tx, ca_id: str) -> int:
        issued = sa.select(versions.c.id).where(
            versions.c.certificate_id == certificates.c.id, versions.c.ca == ca_id, versions.c.revoked_at.is_(None)
        )
        query = sa.select(sa.func.count()).where(
            sa.or_(certificates.c.ca == ca_id, certificates.c.fallback_ca == ca_id, issued.exists())
        )
        return int(await tx.scalar(query) or 0)


async def version_material(tx: Tx, version_id: str) -> VersionMaterial | None:
    return await store.material(tx, version_id=version_id)


async def usable_version(
    tx: Tx, services: Services, actor: Actor, certificate_id: str, *, action: str, operation: Operation
) -> VersionMaterial:
    """The current version for `operation` (deploy, download…), after the access check and the state rules."""
    row = await _visible(tx, actor, action, certificate_id)
    await require_allowed(tx, services, row, operation)
    found = await store.material(tx, certificate_id=certificate_id)
    if found is None:
        raise not_found("certificate", certificate_id)
    return found
