"""Certificates that were issued elsewhere, for the uploads room: what is known here that one must be held against, and
storing one as a certificate in state `hosted` or as a new version of one.

Everything runs in the caller's transaction. Judging what is stored is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit, authorities, keys
from certwright.rooms.certificates import rules, store, views
from certwright.rooms.certificates.actions import free_name, name_taken, require_allowed
from certwright.rooms.certificates.tables import certificates, versions
from certwright.rooms.certificates.words import Operation, Purpose, State
from certwright.x509.certificates import CertificateFacts

UPLOADED_CA = "uploaded"
"""In place of a CA's id on certificates whose CA isn't reached from here."""
# Comparing moduli costs 10 µs a key; accounts with more RSA keys are looked at as far as their newest.
_MOST_NEIGHBOURS = 2000
_MOST_CHAINS = 20

_C, _V = certificates.c, versions.c


@dataclass(frozen=True, slots=True)
class Hosted:
    """A judged upload: leaf first, `chain_ders` from its issuer up; `key` is None for client CAs."""

    purpose: Purpose
    leaf: CertificateFacts
    chain_ders: tuple[bytes, ...] = ()
    key: keys.NewKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate of the account that has something in common with an upload; `visible`: the caller may see it."""

    certificate_id: str
    name: str
    version: int
    is_current: bool
    visible: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the account knows about one leaf.

    `same`: this very certificate; `same_key`: others with its key; `pool`: intermediates and roots (DER) that could be
    its chain; `neighbours`: leaves (DER) with RSA keys, if its own key is one; `successor_of`: hosted certificates with
    the same names that the caller may see.
    """

    same: tuple[Held, ...] = ()
    same_key: tuple[Held, ...] = ()
    pool: tuple[bytes, ...] = ()
    neighbours: tuple[bytes, ...] = ()
    successor_of: tuple[Held, ...] = ()


async def surroundings(tx: Tx, actor: Actor, leaf: CertificateFacts, issuer: str) -> Surroundings:
    """Of a leaf, and of the name of the issuer its chain misses ("" if it misses none)."""
    found = await _held(tx, actor, sa.or_(_V.sha256 == leaf.sha256, _V.spki_sha256 == leaf.spki_sha256))
    names = [*leaf.dns_names, *leaf.ip_addresses]
    return Surroundings(
        same=tuple(held for held, sha256 in found if sha256 == leaf.sha256),
        same_key=tuple(held for held, sha256 in found if sha256 != leaf.sha256),
        pool=await known_issuers(tx, actor.account_id, leaf, issuer),
        neighbours=await _neighbours(tx, actor.account_id) if leaf.key_algorithm.startswith("RSA") else (),
        successor_of=await _same_names(tx, actor, names) if names else (),
    )


async def _held(tx: Tx, actor: Actor, same: sa.ColumnElement[bool]) -> list[tuple[Held, str]]:
    seen = sa.case((access.visible(certificates, actor, "scm:cert:get"), True), else_=False)
    query = (
        sa.select(_C.id, _C.name, _V.number, _V.superseded_at, seen, _V.sha256)
        .join(versions, _V.certificate_id == _C.id)
        .where(_V.account_id == actor.account_id, same)
        .order_by(_C.id.desc()).limit(10)
    )  # fmt: skip
    return [
        (Held(row[0], row[1], row[2], row[3] is None, bool(row[4])), str(row[5])) for row in await tx.execute(query)
    ]


async def known_issuers(tx: Tx, account_id: str, leaf: CertificateFacts, issuer: str) -> tuple[bytes, ...]:
    """Certificates (DER) of the chains of the account's certificates by the same issuer, and of the private CAs."""
    found: dict[bytes, None] = {}
    if issuer:
        chains = sa.select(_V.chain_ders).where(_V.account_id == account_id, _V.issuer == issuer)
        for chain in await tx.scalars(chains.order_by(_V.id.desc()).limit(_MOST_CHAINS)):
            found |= dict.fromkeys(chain)
        found |= dict.fromkeys(await authorities.ders_of(tx, account_id))
    found.pop(leaf.der, None)
    return tuple(found)


async def _neighbours(tx: Tx, account_id: str) -> tuple[bytes, ...]:
    query = sa.select(_V.leaf_der).where(
        _V.account_id == account_id, _V.key_algorithm.startswith("RSA"), _V.superseded_at.is_(None)
    )
    return tuple(await tx.scalars(query.order_by(_V.id.desc()).limit(_MOST_NEIGHBOURS)))


async def _same_names(tx: Tx, actor: Actor, names: Sequence[str]) -> tuple[Held, ...]:
    where = sa.and_(
        access.visible(certificates, actor, "scm:cert:get"), _C.uploaded, _C.names.contains(list(names)),
        _C.names.contained_by(list(names)), _C.stage == State.HOSTED.value,
    )  # fmt: skip
    query = sa.select(_C.id, _C.name, _V.number).join(versions, _V.id == _C.current_version_id).where(where)
    rows = await tx.execute(query.order_by(_C.id.desc()).limit(5))
    return tuple(Held(row[0], row[1], row[2], True, True) for row in rows)


async def count_hosted(tx: Tx, account_id: str) -> dict[Purpose, int]:
    query = sa.select(_C.purpose, sa.func.count()).where(_C.account_id == account_id, _C.uploaded).group_by(_C.purpose)
    return {Purpose(purpose): number for purpose, number in await tx.execute(query)}


@dataclass(frozen=True, slots=True)
class Replaceable:
    """A hosted certificate that the caller may give a new version."""

    certificate_id: str
    name: str
    project_id: str
    purpose: Purpose
    names: tuple[str, ...]
    not_after: Any


async def replaceable(
    tx: Tx, services: Services, actor: Actor, certificate_id: str, *, lock: bool = False
) -> Replaceable:
    """Raises NotFound, Forbidden, and Refused for one that isn't uploaded or is in no state for it."""
    where = access.visible(certificates, actor, "scm:cert:get")
    row = await store.certificate(tx, certificate_id, where, lock=lock)
    if row is None:
        raise not_found("certificate", certificate_id)
    access.require(actor, "scm:cert:replace", project_id=row.project_id, resource=f"certificate:{certificate_id}")
    await require_allowed(tx, services, row, Operation.REPLACE)
    return Replaceable(row.id, row.name, row.project_id, Purpose(row.purpose), tuple(row.names), row.not_after)


async def require_visible(services: Services, actor: Actor, certificate_id: str) -> None:
    """Raises NotFound."""
    async with services.db.read() as tx:
        if await store.certificate(tx, certificate_id, access.visible(certificates, actor, "scm:cert:get")) is None:
            raise not_found("certificate", certificate_id)


def judge_labels(name: str | None, description: str, tags: Mapping[str, str]) -> None:
    """Raises Invalid for a name, description or tags that no certificate may have."""
    if name is not None:
        rules.judge_name(name)
    rules.judge_description(description)
    rules.judge_tags(tags)


async def host(
    tx: Tx,
    services: Services,
    actor: Actor,
    hosted: Hosted,
    *,
    project_id: str,
    name: str | None,
    description: str,
    tags: Mapping[str, str],
) -> tuple[str, str]:
    """Store it as a certificate of its own; returns its id and its version's. Raises Refused
    `certificate_name_taken`."""
    now, leaf = services.clock.now(), hosted.leaf
    certificate_id, version_id = new_id("cert", now), new_id("ver", now)
    wanted = await free_name(tx, actor.account_id, name)
    key_id = await _seal(tx, services, hosted, actor.account_id, project_id)
    try:
        await store.insert_certificate(
            tx, id=certificate_id, account_id=actor.account_id, project_id=project_id, name=wanted,
            description=rules.judge_description(description), tags=rules.judge_tags(tags), ca=UPLOADED_CA,
            uploaded=True, purpose=hosted.purpose.value, stage=State.HOSTED.value, auto_renew=False,
            current_version_id=version_id, key_id=key_id, created_at=now, **_of_version(wanted, leaf), updated_at=now,
        )  # fmt: skip
    except IntegrityError as error:
        if "name" in str(error.orig):
            raise name_taken(wanted) from error
        raise
    await _insert_version(tx, services, hosted, version_id, certificate_id, actor.account_id, project_id, 1, key_id)
    await audit.record(
        tx, services, actor, "scm:cert:upload", "certificate", certificate_id, project_id=project_id,
        after={"name": wanted, "state": State.HOSTED.value, "purpose": hosted.purpose.value, "version": 1}
        | _told(leaf),
    )  # fmt: skip
    return certificate_id, version_id


async def host_version(
    tx: Tx, services: Services, actor: Actor, certificate: Replaceable, hosted: Hosted
) -> tuple[str, int]:
    """Store it as the newest version of a certificate locked by `replaceable`; returns the version's id and number."""
    now, leaf = services.clock.now(), hosted.leaf
    version_id = new_id("ver", now)
    key_id = await _seal(tx, services, hosted, actor.account_id, certificate.project_id)
    number = await store.supersede(tx, certificate.certificate_id, now)
    await store.move(
        tx, certificate.certificate_id, (State.HOSTED,), State.HOSTED, now, current_version_id=version_id,
        key_id=key_id, **_of_version(certificate.name, leaf),
    )  # fmt: skip
    await _insert_version(
        tx, services, hosted, version_id, certificate.certificate_id, actor.account_id, certificate.project_id,
        number, key_id,
    )  # fmt: skip
    await audit.record(
        tx, services, actor, "scm:cert:replace", "certificate", certificate.certificate_id,
        project_id=certificate.project_id, before={"version": number - 1, "names": list(certificate.names)},
        after={"version": number} | _told(leaf),
    )  # fmt: skip
    return version_id, number


async def _seal(tx: Tx, services: Services, hosted: Hosted, account_id: str, project_id: str) -> str | None:
    if hosted.key is None:
        return None
    return await keys.store_key(
        tx, services, hosted.key, account_id=account_id, project_id=project_id, origin="uploaded"
    )  # fmt: skip


def _of_version(name: str, leaf: CertificateFacts) -> dict[str, Any]:
    """The columns of a certificate that repeat its version's facts."""
    names = [*leaf.dns_names, *leaf.ip_addresses]
    primary = names[0] if names else (leaf.common_name or "")[:253]
    shown = [views.unicode_name(one) for one in names]
    return {
        "primary_name": primary, "names": names, "key_algorithm": leaf.key_algorithm, "sha256": leaf.sha256,
        "serial": leaf.serial, "not_before": leaf.not_before, "not_after": leaf.not_after,
        "search_text": store.search_text(name, names or [primary], shown, leaf.sha256, leaf.serial),
    }  # fmt: skip


async def _insert_version(
    tx: Tx,
    services: Services,
    hosted: Hosted,
    version_id: str,
    certificate_id: str,
    account_id: str,
    project_id: str,
    number: int,
    key_id: str | None,
) -> None:
    leaf = hosted.leaf
    await store.insert_version(
        tx, id=version_id, certificate_id=certificate_id, account_id=account_id, project_id=project_id, number=number,
        **store.version_values(
            leaf, hosted.chain_ders, application_id=None, key_id=key_id, issued_at=services.clock.now()
        ),
    )  # fmt: skip
    await services.events.publish(
        tx, "certificate.version_issued", account_id=account_id, object_id=certificate_id,
        payload=views.version_issued_payload(
            version_id=version_id, number=number, application_id=None, leaf=leaf, project_id=project_id
        ),
    )  # fmt: skip


def _told(leaf: CertificateFacts) -> dict[str, Any]:
    return {"names": [*leaf.dns_names, *leaf.ip_addresses], "sha256": leaf.sha256, "serial": leaf.serial}
