"""The built-in CA: made at first start, issues leaves, revokes, and publishes revocation lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem, Refused, Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.jobs import Next
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, crls, issued_certificates
from certwright.rooms.authorities.words import Authority, CaState, Crl, IssuedCertificate, IssueRequest
from certwright.x509 import crl as crl_format
from certwright.x509.certificates import read_certificate
from certwright.x509.issue import (
    BUILT_IN,
    DAY,
    ISSUING,
    ROOT,
    IssuerFacts,
    Subject,
    approve,
    assemble,
    draft_certificate,
    issuer_facts,
    new_serial,
    validity,
)
from certwright.x509.keys import KeyAlgorithm, PublicKey

CRL_STEP = "authorities.publish_crl"

_DEFAULT_SECONDS = 90 * DAY
_CRL_DAYS = 7
# Lists kept for readers with a cached number; older ones are dropped when a new one is made.
_CRLS_KEPT = 3


def crl_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.base_url}/crl/{authority_id}.crl"


def certificate_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.base_url}/ca/{authority_id}.crt"


# --- making the built-in hierarchy ----------------------------------------------------------------------------------


async def ensure_builtin(services: Services, account_id: str, project_id: str) -> None:
    """At first start make a root and an issuing CA (EC P-256); later find them. One transaction: both or neither."""
    async with services.db.begin() as tx:
        await tx.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('authorities.builtin'))"))
        found = await tx.scalar(
            sa.select(sa.func.count()).where(authorities.c.account_id == account_id, authorities.c.builtin)
        )
        if found:
            return
        organization = services.settings.organization
        root = await _create(
            tx, services, account_id, project_id, kind="root",
            subject=Subject(common_name=f"{organization} Root CA"[:64], organization=organization[:64]), parent=None,
        )  # fmt: skip
        await _create(
            tx, services, account_id, project_id, kind="issuing",
            subject=Subject(common_name=f"{organization} Issuing CA 1"[:64], organization=organization[:64]),
            parent=root,
        )  # fmt: skip


async def _create(
    tx: Tx, services: Services, account_id: str, project_id: str, *, kind: str, subject: Subject, parent: Any
) -> Any:
    """Key, certificate, row and ceremony record of one CA; `parent` is the row of the CA that signs it."""
    signer = services.port(Signer)
    now = services.clock.now()
    authority_id = new_id("ca", now)
    ca_key_id, public_key = await signer.create_key(tx, KeyAlgorithm.EC_P256)
    profile = ROOT if parent is None else ISSUING
    issuer = None if parent is None else issuer_facts(parent.certificate_der)
    not_before, not_after = validity(profile, issuer, at=now)
    linted = approve(
        draft_certificate(
            profile=profile,
            subject=subject,
            names=(),
            public_key=public_key,
            issuer=issuer,
            serial=new_serial(),
            not_before=not_before,
            not_after=not_after,
            crl_url=None if parent is None else crl_url(services, parent.id),
            aia_url=None if parent is None else certificate_url(services, parent.id),
        )
    )
    der = assemble(linted, await signer.sign(tx, ca_key_id if parent is None else parent.ca_key_id, linted))
    facts = read_certificate(der)
    row = (
        await tx.execute(
            sa.insert(authorities)
            .values(
                id=authority_id, account_id=account_id, project_id=project_id, name=subject.common_name, kind=kind,
                builtin=True, parent_id=None if parent is None else parent.id, ca_key_id=ca_key_id,
                subject=facts.subject, key_algorithm=facts.key_algorithm, serial=facts.serial, sha256=facts.sha256,
                certificate_der=der, not_before=facts.not_before, not_after=facts.not_after, created_at=now,
                crl_days=_CRL_DAYS,
            )
            .returning(authorities)
        )
    ).one()  # fmt: skip
    await services.jobs.start(tx, CRL_STEP, authority_id)
    await audit.record(
        tx, services, system_actor(account_id, "first start"), "ccm:ca:create", "authority", authority_id,
        project_id=project_id,
        after={"subject": facts.subject, "sha256": facts.sha256, "key": facts.spki_sha256, "kind": kind},
    )  # fmt: skip
    return row


# --- issuing --------------------------------------------------------------------------------------------------------


async def builtin_issuing_id(tx: Tx, account_id: str) -> str:
    found = await tx.scalar(
        sa.select(authorities.c.id).where(
            authorities.c.account_id == account_id, authorities.c.builtin, authorities.c.kind == "issuing"
        )
    )
    if found is None:
        raise Unavailable("ca_missing", "The built-in CA has not been made yet.", fix="Restart the server.")
    return str(found)


async def issue(services: Services, authority_id: str, request: IssueRequest) -> IssuedCertificate:
    """Draft, lint, sign and record one leaf in one transaction: it leaves this room recorded or not at all.

    Asked again with the same reference, returns what was issued then. Raises Refused `ca_not_active`, `ca_is_root`,
    Invalid `lint_failed`, `profile_unknown`, NotFound (also for a CA of another account).
    """
    try:
        return await _issue(services, authority_id, request)
    except IntegrityError:
        # Another worker with the same reference was quicker: ours was never recorded, so it never leaves.
        return await _issue(services, authority_id, request)


async def _issue(services: Services, authority_id: str, request: IssueRequest) -> IssuedCertificate:
    async with services.db.begin() as tx:
        done = await _issued_before(tx, request.reference)
        if done is not None:
            return done
        (result,) = await issue_many(tx, services, authority_id, [request])
        if isinstance(result, Problem):
            raise result
        return result


async def issue_many(
    tx: Tx, services: Services, authority_id: str, requests: Sequence[IssueRequest]
) -> list[IssuedCertificate | Problem]:
    """Several leaves of one CA for one account, with fresh references, in the caller's transaction; what is wrong with
    one request is its own answer."""
    ca = await _row(tx, authority_id)
    if any(ca.account_id != request.account_id for request in requests):
        raise not_found("CA", authority_id)
    if ca.kind == "root":
        raise Refused(
            "ca_is_root", f"{ca.name!r} is a root: it signs CAs and nothing else.", fix="Choose an issuing CA."
        )
    now = services.clock.now()
    state = ca_state(ca, now)
    if state is not CaState.ACTIVE:
        raise Refused("ca_not_active", f"The CA {ca.name!r} is {state} and can't issue.", fix="Choose an active CA.")
    chain = await _chain(tx, ca)
    results: list[IssuedCertificate | Problem] = []
    rows: list[dict[str, Any]] = []
    for request in requests:
        try:
            row = await _signed(tx, services, ca, request, now)
        except Invalid as problem:
            results.append(problem)
            continue
        rows.append(row)
        results.append(IssuedCertificate(row["id"], ca.id, row["serial"], row["der"], chain))
    if rows:
        await tx.execute(sa.insert(issued_certificates), rows)
    return results


async def _signed(tx: Tx, services: Services, ca: Any, request: IssueRequest, now: datetime) -> dict[str, Any]:
    profile = BUILT_IN.get(request.profile)
    if profile is None or profile.is_ca:
        raise Invalid("profile_unknown", f"There is no leaf profile {request.profile[:40]!r}.", field="profile",
                      fix="Use server, server_ov, server_ev or client.")  # fmt: skip
    issuer = _issuer(ca)
    not_before, not_after = validity(profile, issuer, at=now, seconds=request.seconds or _DEFAULT_SECONDS)
    serial = new_serial()
    linted = approve(
        draft_certificate(
            profile=profile,
            subject=request.subject or Subject(common_name=request.common_name),
            names=request.names,
            public_key=cast(PublicKey, request.public_key),
            issuer=issuer,
            serial=serial,
            not_before=not_before,
            not_after=not_after,
            crl_url=crl_url(services, ca.id),
            aia_url=certificate_url(services, ca.id),
        ),
        at=now,
    )
    der = assemble(linted, await services.port(Signer).sign(tx, ca.ca_key_id, linted))
    return {
        "id": new_id("crt", now), "authority_id": ca.id, "account_id": request.account_id,
        "project_id": request.project_id, "reference": request.reference, "profile": profile.name,
        "serial": f"{serial:x}", "names": list(request.names), "der": der, "not_before": not_before,
        "not_after": not_after, "issued_at": now,
    }  # fmt: skip


async def issued(tx: Tx, issued_id: str, account_id: str) -> IssuedCertificate:
    return await _load(
        tx, sa.and_(issued_certificates.c.id == issued_id, issued_certificates.c.account_id == account_id)
    )


async def _issued_before(tx: Tx, reference: str) -> IssuedCertificate | None:
    exists = await tx.scalar(sa.select(sa.exists().where(issued_certificates.c.reference == reference)))
    return await _load(tx, issued_certificates.c.reference == reference) if exists else None


async def _load(tx: Tx, where: sa.ColumnElement[bool]) -> IssuedCertificate:
    i = issued_certificates.c
    row = (await tx.execute(sa.select(i.id, i.authority_id, i.serial, i.der).where(where))).one_or_none()
    if row is None:
        raise not_found("issued certificate", "")
    return IssuedCertificate(
        row.id, row.authority_id, row.serial, row.der, await _chain(tx, await _row(tx, row.authority_id))
    )


async def _chain(tx: Tx, ca: Any) -> tuple[bytes, ...]:
    chain: list[bytes] = []
    while ca.parent_id is not None:
        chain.append(ca.certificate_der)
        ca = await _row(tx, ca.parent_id)
    return tuple(chain)


async def _row(tx: Tx, authority_id: str) -> Any:
    row = (await tx.execute(sa.select(authorities).where(authorities.c.id == authority_id))).one_or_none()
    if row is None:
        raise not_found("CA", authority_id)
    return row


_issuers: dict[str, IssuerFacts] = {}


def _issuer(ca: Any) -> IssuerFacts:
    """Parsed once per CA certificate: they never change under their fingerprint."""
    found = _issuers.get(ca.sha256)
    if found is None:
        found = _issuers[ca.sha256] = issuer_facts(ca.certificate_der)
    return found


def ca_state(ca: Any, now: datetime) -> CaState:
    if ca.revoked_at is not None:
        return CaState.REVOKED
    if ca.not_after <= now:
        return CaState.EXPIRED
    return CaState.ACTIVE if ca.disabled_at is None else CaState.DISABLED


# --- revoking -------------------------------------------------------------------------------------------------------


async def revoke(services: Services, account_id: str, serial: str, reason: str) -> None:
    """Revoke one leaf and have the list published at once; content to find it revoked. Raises NotFound."""
    i = issued_certificates.c
    now = services.clock.now()
    async with services.db.begin() as tx:
        authority_id = await tx.scalar(sa.select(i.authority_id).where(i.account_id == account_id, i.serial == serial))
        if authority_id is None:
            raise not_found("issued certificate", serial)
        changed = await tx.execute(
            sa.update(issued_certificates)
            .where(i.authority_id == authority_id, i.serial == serial, i.revoked_at.is_(None))
            .values(revoked_at=now, revocation_reason=reason)
        )
        if changed.rowcount:
            await tx.execute(
                sa.update(authorities)
                .where(authorities.c.id == authority_id)
                .values(revocations=authorities.c.revocations + 1)
            )
            await services.jobs.start(tx, CRL_STEP, authority_id)


async def publish_crl(services: Services, authority_id: str) -> Next:
    """Step: make a list if the newest has not seen every revocation or has used a third of its life."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        ca = (
            await tx.execute(sa.select(authorities).where(authorities.c.id == authority_id).with_for_update())
        ).one_or_none()
        if ca is None or ca.not_after <= now:
            return None
        last = await _newest(tx, authority_id)
        if last is not None and last.revocations >= ca.revocations:
            due = last.this_update + (last.next_update - last.this_update) / 3
            if last.this_update <= now < due:
                return cast(timedelta, due - now)
        number = ca.crl_number + 1
        next_update = now + timedelta(days=ca.crl_days)
        draft = crl_format.draft_crl(_issuer(ca), number, now, next_update, await _entries(tx, authority_id, now))
        signer = services.port(Signer)
        der = crl_format.assemble(draft, await signer.sign(tx, ca.ca_key_id, draft))
        await tx.execute(
            sa.insert(crls).values(
                authority_id=authority_id, number=number, der=der, revocations=ca.revocations, this_update=now,
                next_update=next_update,
            )
        )  # fmt: skip
        await tx.execute(sa.update(authorities).where(authorities.c.id == authority_id).values(crl_number=number))
        await tx.execute(
            sa.delete(crls).where(crls.c.authority_id == authority_id, crls.c.number <= number - _CRLS_KEPT)
        )
        await audit.record(
            tx, services, system_actor(ca.account_id, "authorities"), "ccm:crl:publish", "authority", authority_id,
            project_id=ca.project_id, after={"number": number, "next_update": next_update.isoformat()},
        )  # fmt: skip
    return timedelta(days=ca.crl_days) / 3


async def _entries(tx: Tx, authority_id: str, now: datetime) -> list[crl_format.RevokedEntry]:
    """Revoked leaves, until a day after their end, so that each is in one list made after it."""
    i = issued_certificates.c
    rows = await tx.execute(
        sa.select(i.serial, i.revoked_at, i.revocation_reason).where(
            i.authority_id == authority_id, i.revoked_at.is_not(None), i.not_after > now - timedelta(days=1)
        )
    )
    return [crl_format.RevokedEntry(int(row[0], 16), row[1], row[2] or "unspecified") for row in rows]


async def _newest(tx: Tx, authority_id: str) -> Any:
    query = sa.select(crls).where(crls.c.authority_id == authority_id).order_by(crls.c.number.desc()).limit(1)
    return (await tx.execute(query)).one_or_none()


# --- reading --------------------------------------------------------------------------------------------------------


async def newest_crl(services: Services, authority_id: str) -> Crl:
    """For everybody: the newest list of a CA. Raises NotFound."""
    async with services.db.begin() as tx:
        row = await _newest(tx, authority_id)
    if row is None:
        raise not_found("CRL of CA", authority_id)
    return Crl(row.number, row.der, row.this_update, row.next_update)


async def public_certificate(services: Services, authority_id: str) -> tuple[str, bytes]:
    """For everybody: name and certificate (DER) of a CA. Raises NotFound."""
    async with services.db.begin() as tx:
        row = await _row(tx, authority_id)
    return row.name, row.certificate_der


async def public_authorities(services: Services) -> list[Authority]:
    """For everybody: the CAs of this installation, roots first, for the download page."""
    async with services.db.begin() as tx:
        rows = (await tx.execute(_listing())).all()
    return [_authority(services, row) for row in rows]


async def list_authorities(services: Services, actor: Actor) -> list[Authority]:
    async with services.db.begin() as tx:
        rows = (await tx.execute(_listing().where(access.visible(authorities, actor, "ccm:ca:list")))).all()
    return [_authority(services, row) for row in rows]


async def get_authority(services: Services, actor: Actor, authority_id: str) -> Authority:
    where = sa.and_(authorities.c.id == authority_id, access.visible(authorities, actor, "ccm:ca:get"))
    async with services.db.begin() as tx:
        row = (await tx.execute(_listing().where(where))).one_or_none()
        if row is None:
            raise not_found("CA", authority_id)
        issued_count = await tx.scalar(
            sa.select(sa.func.count()).where(issued_certificates.c.authority_id == authority_id)
        )
    return _authority(services, row, issued_count)


def _listing() -> sa.Select[Any]:
    newest = (
        sa.select(crls.c.next_update)
        .where(crls.c.authority_id == authorities.c.id, crls.c.number == authorities.c.crl_number)
        .scalar_subquery()
    )
    return sa.select(authorities, newest.label("crl_next_update")).order_by(
        sa.case((authorities.c.kind == "root", 0), else_=1), authorities.c.id
    )


def _authority(services: Services, row: Any, issued_count: int | None = None) -> Authority:
    return Authority(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        kind=row.kind,
        builtin=row.builtin,
        parent_id=row.parent_id,
        state=ca_state(row, services.clock.now()),
        subject=row.subject,
        key_algorithm=row.key_algorithm,
        serial=row.serial,
        sha256=row.sha256,
        not_before=row.not_before,
        not_after=row.not_after,
        certificate_der=row.certificate_der,
        crl_number=row.crl_number,
        crl_next_update=row.crl_next_update,
        crl_url=crl_url(services, row.id),
        issued=issued_count,
        revision=row.revision,
    )


async def root_ders(tx: Tx) -> tuple[bytes, ...]:
    """Certificates of every root of this installation: what our own leaves chain up to."""
    found = await tx.scalars(sa.select(authorities.c.certificate_der).where(authorities.c.kind == "root"))
    return tuple(found.all())


async def move_issued(tx: Tx, references: Sequence[str], project_id: str) -> None:
    """What was issued for these references belongs to another project from now on."""
    i = issued_certificates.c
    await tx.execute(sa.update(issued_certificates).where(i.reference.in_(references)).values(project_id=project_id))
