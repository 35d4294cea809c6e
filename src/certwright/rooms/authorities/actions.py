"""Issuing for the product's own certificates, and looking at CAs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem, Refused, Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access
from certwright.rooms.authorities import lists, policies, profiles, rules, store
from certwright.rooms.authorities.rules import CaOperation
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.tables import authorities, issued_certificates
from certwright.rooms.authorities.words import Authority, CaState, IssuedCertificate, IssueRequest
from certwright.x509.issue import (
    DAY,
    Profile,
    Subject,
    approve,
    assemble,
    draft_certificate,
    new_serial,
    validity,
)
from certwright.x509.keys import PublicKey

_DEFAULT_SECONDS = 90 * DAY
# So many certificates are signed one after the other: two milliseconds' work.
_IN_A_ROW = 4

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
    ca = await store.row(tx, authority_id)
    rows = await sign_many(tx, services, ca, requests)
    chain = await store.chain(tx, ca)
    good = [row for row in rows if not isinstance(row, Problem)]
    if good:
        await tx.execute(sa.insert(issued_certificates), good)
    return [
        row if isinstance(row, Problem) else IssuedCertificate(row["id"], ca.id, row["serial"], row["der"], chain)
        for row in rows
    ]


async def sign_many(
    tx: Tx, services: Services, ca: Any, requests: Sequence[IssueRequest]
) -> list[dict[str, Any] | Problem]:
    """The rows of signed certificates, which the caller inserts before anything leaves; or each one's problem.

    Every certificate but those of CAs and responders is signed here, so here the policies are put to it."""
    now = services.clock.now()
    _require_issuer(ca, requests, now)
    known = await profiles.leaf_profiles(tx, ca.account_id, {request.profile for request in requests})
    gate = await policies.gate(tx, ca, requests, now)
    rows: list[dict[str, Any] | Problem] = []
    for number, request in enumerate(requests):
        if number % _IN_A_ROW == _IN_A_ROW - 1:
            await asyncio.sleep(0)  # others have requests here
        refused = gate.refusal(request)
        if refused is not None:
            rows.append(refused)
            continue
        try:
            row = await _signed(tx, services, ca, known, request, gate.longest(request), now)
        except Invalid as problem:
            rows.append(problem)
            continue
        gate.count(request)
        rows.append(row | {"internal": gate.is_internal(request)})
    return rows


def needs_no_reading(ca: Any, request: IssueRequest) -> bool:
    """Whether the row of the CA, which says that there are no policies, is all that has to be known for signing."""
    return not ca.policed and request.profile in profiles.BUILT_IN and request.replaces is None


async def sign_unread(services: Services, ca: Any, request: IssueRequest) -> dict[str, Any]:
    """What `sign_many` does for one request that `needs_no_reading`, without a connection to the database. Raises the
    problem."""
    assert needs_no_reading(ca, request), "policies are put to it by sign_many alone"
    now = services.clock.now()
    _require_issuer(ca, [request], now)
    row = await _signed(None, services, ca, profiles.BUILT_IN, request, None, now)
    return row | {"internal": request.internal}


def _require_issuer(ca: Any, requests: Sequence[IssueRequest], now: datetime) -> None:
    if any(ca.account_id != request.account_id for request in requests):
        raise not_found("CA", ca.id)
    if not store.signs_leaves(ca):
        raise Refused(
            "ca_is_root", f"{ca.name!r} is a root: it signs CAs and nothing else.", fix="Choose an issuing CA."
        )
    refused = rules.refusal(CaOperation.ISSUE, store.ca_facts(ca), now)
    if refused is not None:
        raise refused


async def _signed(
    tx: Tx | None,
    services: Services,
    ca: Any,
    known: Mapping[str, Profile | Problem],
    request: IssueRequest,
    longest: int | None,
    now: datetime,
) -> dict[str, Any]:
    profile = known.get(request.profile)
    if profile is None:
        raise Invalid("profile_unknown", f"There is no profile {request.profile[:40]!r} for certificates.",
                      field="profile", fix="Choose one of the list of profiles.")  # fmt: skip
    if isinstance(profile, Problem):
        raise profile
    issuer = await store.binding_issuer(tx, services, ca)
    seconds = request.seconds or min(_DEFAULT_SECONDS, profile.max_seconds, longest or _DEFAULT_SECONDS)
    not_before, not_after = validity(profile, issuer, at=now, seconds=seconds)
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
            hash_name=ca.hash_name,
            **lists.pointers(services, ca, serial),
        ),
        at=now,
    )
    der = assemble(linted, await services.port(Signer).sign(tx, ca.ca_key_id, linted))
    return {
        "id": new_id("crt", now), "authority_id": ca.id, "account_id": request.account_id,
        "project_id": request.project_id, "reference": request.reference, "profile": profile.name,
        "serial": f"{serial:x}", "names": list(request.names), "der": der, "not_before": not_before,
        "not_after": not_after, "issued_at": now, "shard": lists.shard_of(ca, serial),
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
        row.id, row.authority_id, row.serial, row.der, await store.chain(tx, await store.any_row(tx, row.authority_id))
    )


# --- reading --------------------------------------------------------------------------------------------------------


async def public_certificate(services: Services, authority_id: str) -> tuple[str, bytes]:
    """For everybody: name and certificate (DER) of a CA. Raises NotFound."""
    async with services.db.begin() as tx:
        row = await store.row(tx, authority_id)
    if row.certificate_der is None:
        raise not_found("CA", authority_id)
    return row.name, row.certificate_der


async def public_authorities(services: Services) -> list[Authority]:
    """For everybody: the CAs of this installation, roots first, for the download page."""
    async with services.db.begin() as tx:
        rows = (await tx.execute(store.listing().where(authorities.c.certificate_der.is_not(None)))).all()
    return [store.shown(services, row) for row in rows]


async def trusted_roots(services: Services) -> list[bytes]:
    """For everybody: certificates of the roots that clients should trust, those that are active or disabled."""
    found = await public_authorities(services)
    usable = (CaState.ACTIVE, CaState.DISABLED)
    return [ca.certificate_der for ca in found if ca.kind == "root" and ca.state in usable and ca.certificate_der]


async def list_authorities(services: Services, actor: Actor) -> list[Authority]:
    async with services.db.begin() as tx:
        rows = (await tx.execute(store.listing().where(access.visible(authorities, actor, "ccm:ca:list")))).all()
    return [store.shown(services, row) for row in rows]


async def get_authority(services: Services, actor: Actor, authority_id: str) -> Authority:
    where = sa.and_(authorities.c.id == authority_id, access.visible(authorities, actor, "ccm:ca:get"))
    async with services.db.begin() as tx:
        row = (await tx.execute(store.listing().where(where))).one_or_none()
        if row is None:
            raise not_found("CA", authority_id)
        issued_count = await store.issued_count(tx, authority_id)
    return store.shown(services, row, issued_count)


async def authority_chain(services: Services, actor: Actor, authority_id: str) -> list[bytes]:
    """Certificates (DER) of a CA and of those above it, up to the root as far as they are known. Needs `ccm:ca:get`.
    Raises NotFound, also of one that waits for its certificate."""
    found: list[bytes] = []
    async with services.db.begin() as tx:
        ca = await store.visible_row(tx, actor, "ccm:ca:get", authority_id)
        if ca.certificate_der is None:
            raise not_found("certificate of the CA", authority_id)
        while ca.parent_id is not None:
            found.append(ca.certificate_der)
            ca = await store.any_row(tx, ca.parent_id)
    return [*found, ca.certificate_der, *ca.outside_chain]


async def root_ders(tx: Tx) -> tuple[bytes, ...]:
    """Certificates of every root of this installation: what our own leaves chain up to."""
    a = authorities.c
    found = await tx.scalars(sa.select(a.certificate_der).where(a.kind == "root", a.certificate_der.is_not(None)))
    return tuple(found.all())


async def ders_of(tx: Tx, account_id: str) -> tuple[bytes, ...]:
    """Certificates of every CA of an account."""
    a = authorities.c
    query = sa.select(a.certificate_der).where(a.account_id == account_id, a.certificate_der.is_not(None))
    found = await tx.scalars(query)
    return tuple(found.all())


async def move_issued(tx: Tx, references: Sequence[str], project_id: str) -> None:
    """What was issued for these references belongs to another project from now on."""
    i = issued_certificates.c
    await tx.execute(sa.update(issued_certificates).where(i.reference.in_(references)).values(project_id=project_id))
