"""What the ACME server needs of a CA: issue for one of its clients, find what was issued, revoke it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from certwright.acme.jose import from_b64url
from certwright.acme.renewal import certificate_id
from certwright.kernel.actor import Actor
from certwright.kernel.problems import Problem, Unavailable
from certwright.platform.db import Tx, is_one_of
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.authorities import actions, lists, profiles, rules, store
from certwright.rooms.authorities.tables import authorities, ca_policies, issued_certificates
from certwright.rooms.authorities.words import IssuedCertificate, IssueRequest
from certwright.x509.certificates import load
from certwright.x509.issue import Profile

log = structlog.get_logger(__name__)

# A serial of 20 octets with a leading zero, in base 64.
_LONGEST_SERIAL = 28


@dataclass(frozen=True, slots=True)
class IssuedLeaf:
    """What a CA recorded of one certificate."""

    id: str
    authority_id: str
    project_id: str
    reference: str
    serial: str
    names: tuple[str, ...]
    der: bytes
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None


async def issue_for_client(
    tx: Tx, services: Services, actor: Actor, authority_id: str, request: IssueRequest
) -> IssuedCertificate:
    """One certificate in the caller's transaction, with its line in the audit log. Raises what `issue_many` answers."""
    (result,) = await actions.issue_many(tx, services, authority_id, [request])
    if isinstance(result, Problem):
        raise result
    await audit.record_many(tx, services, [_entry(actor, authority_id, request, result.id, result.serial, result.der)])
    return result


def _entry(
    actor: Actor, authority_id: str, request: IssueRequest, issued_id: str, serial: str, der: bytes
) -> audit.Entry:
    return audit.Entry(
        actor, "ccm:cert:issue", "authority", authority_id, request.project_id,
        after={
            "certificate": issued_id, "profile": request.profile, "serial": serial,
            "sha256": hashlib.sha256(der).hexdigest(), "names": list(request.names),
        },
    )  # fmt: skip


# --- issuing in one statement ----------------------------------------------------------------------------------------

_i = issued_certificates.c
_RECORDED = (
    "id", "authority_id", "account_id", "project_id", "reference", "profile", "serial", "names", "der", "not_before",
    "not_after", "issued_at", "shard", "internal",
)  # fmt: skip
_known_cas: dict[str, Any] = {}
_MOST_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """A certificate that isn't recorded yet, so it mustn't leave: `values` are the parameters of `store.unchanged` and
    `recorded`, parts of the statement that records it together with what its issuing means to the caller."""

    id: str
    values: Mapping[str, Any]


async def sign_at_once(services: Services, actor: Actor, authority_id: str, request: IssueRequest) -> SignedLeaf | None:
    """The quick way of `issue_for_client`: judged by what this process knows of the CA, and recorded only if that still
    holds. None where it can't be gone: where there are policies, for kinds of certificates described by people, for a
    CA that was changed, and for whatever is refused: `issue_for_client` says why. Raises Unavailable."""
    if request.profile not in profiles.BUILT_IN:
        return None
    ca = _known_cas.get(authority_id)
    if ca is None:
        ca = await store.row_at_once(services.db, authority_id)
        if len(_known_cas) >= _MOST_KNOWN:
            _known_cas.clear()
        _known_cas[authority_id] = ca
    row = None
    if ca is not None and actions.needs_no_reading(ca, request):
        try:
            row = await actions.sign_unread(services, ca, request)
        except Unavailable:
            raise  # whoever signs would be asked in vain a second time
        except Problem as problem:
            log.debug("not issued at once", code=problem.code)
    if row is None:
        forget_known(authority_id)
        return None
    entry = _entry(actor, authority_id, request, row["id"], row["serial"], row["der"])
    values = {f"i_{name}": row[name] for name in _RECORDED} | {"ca_version": ca.version}
    return SignedLeaf(row["id"], values | audit.values(services, entry))


def forget_known(authority_id: str) -> None:
    """After a certificate of `sign_at_once` wasn't recorded: the CA isn't what it was."""
    _known_cas.pop(authority_id, None)


def recorded(done: sa.FromClause) -> tuple[sa.CTE, ...]:
    """Parts of a statement that record the certificate, with its line in the audit log, if `done` has a row."""
    values = [sa.bindparam(f"i_{name}", type_=_i[name].type) for name in _RECORDED]
    added = sa.insert(issued_certificates).from_select(list(_RECORDED), sa.select(*values).select_from(done))
    return (added.returning(_i.id).cte("issued"), *audit.recorded(done))


# For statements of subscribers: a certificate with what `chain_of` needs to know of it.
LEAF = (
    sa.select(_i.id, _i.der, _i.authority_id, authorities.c.revision)
    .join(authorities, authorities.c.id == _i.authority_id)
    .subquery("leaf")
)


async def chain_of(services: Services, leaf: Any) -> tuple[bytes, ...]:
    """A certificate, a row of `LEAF`, and what stands above it (DER), without the root."""
    above = store.known_chain(leaf.authority_id, leaf.revision)
    if above is None:
        async with services.db.read() as tx:
            above = await store.chain(tx, await store.any_row(tx, leaf.authority_id))
    return (leaf.der, *above)


async def issued_like(tx: Tx, authority_id: str, der: bytes) -> IssuedLeaf | None:
    """The record of exactly this certificate; None if this CA didn't issue it."""
    try:
        serial = load(der).serial_number
    except ValueError:
        return None
    leaf = await _by_serial(tx, authority_id, serial)
    return leaf if leaf is not None and leaf.der == der else None


async def issued_by_renewal_id(tx: Tx, authority_id: str, renewal_id: str) -> IssuedLeaf | None:
    """What RFC 9773 section 4.1 names: `<key identifier of the issuer>.<serial>`, each base 64 for URLs."""
    _, dot, text = renewal_id.partition(".")
    if not dot or not 0 < len(text) <= _LONGEST_SERIAL:
        return None
    try:
        serial = int.from_bytes(from_b64url(text))
    except ValueError:
        return None
    leaf = await _by_serial(tx, authority_id, serial)
    return leaf if leaf is not None and certificate_id(leaf.der) == renewal_id else None


async def _by_serial(tx: Tx, authority_id: str, serial: int) -> IssuedLeaf | None:
    i = issued_certificates.c
    row: Any = (
        await tx.execute(
            sa.select(
                i.id, i.authority_id, i.project_id, i.reference, i.serial, i.names, i.der, i.not_before, i.not_after,
                i.revoked_at,
            ).where(i.authority_id == authority_id, i.serial == f"{serial:x}")
        )
    ).one_or_none()  # fmt: skip
    if row is None:
        return None
    return IssuedLeaf(
        row.id, row.authority_id, row.project_id, row.reference, row.serial, tuple(row.names), row.der, row.not_before,
        row.not_after, row.revoked_at,
    )  # fmt: skip


async def revoke_issued(tx: Tx, services: Services, actor: Actor, leaf: IssuedLeaf, reason: str) -> bool:
    """In the caller's transaction; False where it was revoked before. Its list is made anew at once."""
    if not await lists.mark_revoked(tx, services, leaf.authority_id, leaf.serial, reason):
        return False
    await audit.record(
        tx, services, actor, "ccm:cert:revoke", "authority", leaf.authority_id, project_id=leaf.project_id,
        after={"certificate": leaf.id, "serial": leaf.serial, "reason": reason},
    )  # fmt: skip
    return True


# --- for whoever opens an ACME service --------------------------------------------------------------------------------


async def signs_for(tx: Tx, actor: Actor, authority_id: str, at: datetime | None = None) -> bool:
    """Whether a CA the actor may issue from certifies servers and clients. Raises NotFound, Forbidden, and Refused
    `ca_not_active` for one that issues nothing `at` that time."""
    ca = await store.visible_row(tx, actor, "ccm:cert:issue", authority_id)
    if at is not None and (refused := rules.refusal(rules.CaOperation.ISSUE, store.ca_facts(ca), at)) is not None:
        raise refused
    return store.signs_leaves(ca)


async def unknown_profiles(tx: Tx, account_id: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that are no kind of certificate of this account."""
    known = await profiles.leaf_profiles(tx, account_id, set(names))
    return [name for name in names if name not in known]


async def must_staple(tx: Tx, account_id: str, name: str) -> bool:
    """Whether certificates of this kind say that servers have to show OCSP answers (RFC 7633)."""
    found = (await profiles.leaf_profiles(tx, account_id, {name})).get(name)
    return isinstance(found, Profile) and found.must_staple


async def has_policies(tx: Tx, account_id: str) -> bool:
    """Whether anything limits what the account's CAs issue."""
    return bool(await tx.scalar(sa.select(sa.exists().where(ca_policies.c.account_id == account_id))))


async def serials_of(tx: Tx, issued_ids: Sequence[str]) -> dict[str, str]:
    """Serial numbers (hex) by the id of what was issued."""
    i = issued_certificates.c
    rows = await tx.execute(sa.select(i.id, i.serial).where(is_one_of(i.id, issued_ids)))
    return {row.id: row.serial for row in rows}
