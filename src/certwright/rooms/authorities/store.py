"""All rooms of this folder read CAs through here: rows, facts, chains, addresses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access
from certwright.rooms.authorities import rules
from certwright.rooms.authorities.tables import authorities, crl_shards, crls, issued_certificates
from certwright.rooms.authorities.words import Authority, CaOrigin, CaState
from certwright.x509.certificates import facts_of
from certwright.x509.issue import IssuerFacts, issuer_facts
from certwright.x509.profiles import constraint_words, purpose_words


def crl_url(services: Services, authority_id: str, shard: int = 0) -> str:
    name = f"{authority_id}-{shard}" if shard else authority_id
    return f"{services.settings.base_url}/crl/{name}.crl"


def certificate_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.base_url}/ca/{authority_id}.crt"


def ocsp_url(services: Services, authority_id: str) -> str:
    return f"{services.settings.base_url}/ocsp/{authority_id}"


async def row(tx: Tx, authority_id: str, *, lock: bool = False) -> Any:
    """A CA whose key still exists. Raises NotFound."""
    query = sa.select(authorities).where(authorities.c.id == authority_id, authorities.c.erased_at.is_(None))
    found = (await tx.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if found is None:
        raise not_found("CA", authority_id)
    return found


async def hold(tx: Tx, authority_id: str) -> None:
    """Locks the CA's row. Whoever changes lists does this first, publishing and revoking alike: they can't block each
    other in turn. Issuing goes on meanwhile (its rows only point at this one)."""
    query = sa.select(authorities.c.id).where(authorities.c.id == authority_id)
    await tx.execute(query.with_for_update(key_share=True))


async def visible_row(tx: Tx, actor: Actor, action: str, authority_id: str, *, lock: bool = False) -> Any:
    """A CA the actor may do `action` with. Raises NotFound if they may not see it, Forbidden otherwise."""
    where = sa.and_(
        authorities.c.id == authority_id, authorities.c.erased_at.is_(None),
        access.visible(authorities, actor, "ccm:ca:get"),
    )  # fmt: skip
    query = sa.select(authorities).where(where)
    found = (await tx.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if found is None:
        raise not_found("CA", authority_id)
    access.require(actor, action, project_id=found.project_id, resource=f"authority:{authority_id}")
    return found


async def children(tx: Tx, authority_id: str, now: datetime) -> int:
    """CAs below it that somebody may still use."""
    a = authorities.c
    found = await tx.scalar(
        sa.select(sa.func.count()).where(
            a.parent_id == authority_id, a.erased_at.is_(None), a.delete_at.is_(None), a.revoked_at.is_(None),
            sa.or_(a.not_after.is_(None), a.not_after > now),
        )
    )  # fmt: skip
    return int(found or 0)


def ca_facts(ca: Any, below: int = 0) -> rules.CaFacts:
    return rules.CaFacts(
        name=ca.name, root=ca.kind == "root", builtin=ca.builtin,
        has_certificate=ca.certificate_der is not None, not_after=ca.not_after, disabled=ca.disabled_at is not None,
        revoked=ca.revoked_at is not None, delete_at=ca.delete_at, children=below,
    )  # fmt: skip


def ca_state(ca: Any, now: datetime) -> CaState:
    return rules.state_of(ca_facts(ca), now)


_issuers: dict[str, IssuerFacts] = {}
# Every CA of a large installation, parsed; 2 KB each.
_MOST_ISSUERS = 1000


def issuer_of(ca: Any) -> IssuerFacts:
    """Parsed once per CA certificate: they never change under their fingerprint."""
    found = _issuers.get(ca.sha256)
    if found is None:
        if len(_issuers) >= _MOST_ISSUERS:
            _issuers.clear()
        found = _issuers[ca.sha256] = issuer_facts(ca.certificate_der)
    return found


async def chain(tx: Tx, ca: Any) -> tuple[bytes, ...]:
    """From this CA's certificate up, without the root."""
    found: list[bytes] = []
    while ca.kind != "root":
        found.append(ca.certificate_der)
        if ca.parent_id is None:
            found += [der for der in ca.outside_chain if not facts_of(der).self_signed]
            break
        ca = (await tx.execute(sa.select(authorities).where(authorities.c.id == ca.parent_id))).one()
    return tuple(found)


# --- showing ---------------------------------------------------------------------------------------------------------


def listing() -> sa.Select[Any]:
    """CAs with what their first list says, roots first, then by age."""
    lists = (
        sa.select(crl_shards.c.number, crls.c.next_update)
        .outerjoin(
            crls,
            sa.and_(
                crls.c.authority_id == crl_shards.c.authority_id, crls.c.shard == crl_shards.c.shard,
                crls.c.number == crl_shards.c.number,
            ),
        )
        .where(crl_shards.c.authority_id == authorities.c.id, crl_shards.c.shard == 0)
        .lateral("lists")
    )  # fmt: skip
    return (
        sa.select(authorities, lists.c.number.label("crl_number"), lists.c.next_update.label("crl_next_update"))
        .outerjoin(lists, sa.true())
        .where(authorities.c.erased_at.is_(None))
        .order_by(sa.case((authorities.c.kind == "root", 0), else_=1), authorities.c.id)
    )


async def issued_count(tx: Tx, authority_id: str) -> int:
    i = issued_certificates.c
    query = sa.select(sa.func.count()).where(i.authority_id == authority_id, i.deleted_at.is_(None))
    return int(await tx.scalar(query) or 0)


def shown(services: Services, ca: Any, issued: int | None = None) -> Authority:
    issuer = issuer_of(ca) if ca.certificate_der is not None else None
    permitted, excluded = constraint_words(issuer.constraints if issuer else None)
    return Authority(
        id=ca.id,
        project_id=ca.project_id,
        name=ca.name,
        kind=ca.kind,
        origin=CaOrigin(ca.origin),
        builtin=ca.builtin,
        parent_id=ca.parent_id,
        state=ca_state(ca, services.clock.now()),
        subject=ca.subject,
        key_algorithm=ca.key_algorithm,
        hash_name=ca.hash_name,
        serial=ca.serial,
        sha256=ca.sha256,
        not_before=ca.not_before,
        not_after=ca.not_after,
        certificate_der=ca.certificate_der,
        csr_der=ca.csr_der,
        path_len=issuer.path_len if issuer else None,
        permitted=permitted,
        excluded=excluded,
        purposes=purpose_words(issuer.ekus) if issuer and issuer.ekus is not None else None,
        delete_at=ca.delete_at,
        crl_enabled=ca.crl_enabled,
        crl_days=ca.crl_days,
        crl_shards=ca.crl_shards,
        crl_number=ca.crl_number or 0,
        crl_next_update=ca.crl_next_update,
        crl_url=crl_url(services, ca.id),
        ocsp_enabled=ca.ocsp_enabled,
        ocsp_url=ocsp_url(services, ca.id),
        issued=issued,
        revision=ca.revision,
    )
