"""Certificates issued by hand from a private CA: for servers, people, devices; shown, exported, revoked, deleted.

Those of the certificates room are listed too, but led from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import is_host_uri, is_mailbox, looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, not_found
from certwright.platform.batching import Coalescer
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit, keys
from certwright.rooms.authorities import actions, lists, profiles, rules, store
from certwright.rooms.authorities.tables import issued_certificates
from certwright.rooms.authorities.words import IssueRequest, Leaf, LeafRequest
from certwright.x509 import bundles
from certwright.x509.certificates import facts_of, load
from certwright.x509.csr import read_csr_key
from certwright.x509.issue import DAY

MOST_AT_ONCE = 1000
# Calls of so many certificates wait for others to share a transaction; larger ones are worth their own.
_SMALL = 10
# So many requests (CSRs) are judged one after the other: a millisecond's work.
_IN_A_ROW = 10


async def issue_leaves(
    services: Services,
    actor: Actor,
    authority_id: str,
    requests: Sequence[LeafRequest],
    *,
    project_id: str | None = None,
) -> list[Leaf | Problem]:
    """Up to 1,000 certificates in one call and one transaction; what is wrong with one is its own answer.

    Needs `ccm:cert:issue` on the CA: who has it vouches for the names. Keys made here are sealed in the same
    transaction. Raises Refused `ca_not_active`, `ca_is_root`, Invalid `too_many_requests`.
    """
    access.require_somewhere(actor, "ccm:cert:issue")
    if not 1 <= len(requests) <= MOST_AT_ONCE:
        raise Invalid("batch_size", f"A batch holds 1 to {MOST_AT_ONCE} requests.", field="requests",
                      fix="Split it.")  # fmt: skip
    call = await prepared(actor, requests)
    return await services.port(LeafIssuance).issue(call, authority_id, project_id)


async def prepared(actor: Actor, requests: Sequence[LeafRequest]) -> _Call:
    """What can be said of them without a CA; with keys made for those that bring none."""
    made = []
    for request in requests:
        made.append(await _prepare(request))
        if len(made) % _IN_A_ROW == 0:
            await asyncio.sleep(0)  # others have requests here
    return _Call(actor, made)


async def issue_in(
    tx: Tx, services: Services, calls: Sequence[_Call], authority_id: str, project_id: str
) -> list[list[Leaf | Problem] | Problem]:
    """Calls of one caller, issued and recorded in the caller's transaction. Raises what `issue_leaves` does."""
    ca = await store.visible_row(tx, calls[0].actor, "ccm:cert:issue", authority_id)
    batch = _gather(services, calls, ca, project_id)
    rows = await actions.sign_many(tx, services, ca, batch.asked)
    await _record(tx, services, batch, rows)
    return batch.answers(rows)


_Key = tuple[str, str, str, str | None]


class LeafIssuance:
    """The queue of one process, plugged into Services.ports by the entry: small calls of one caller that come at the
    same time are written together."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._queue: Coalescer[_Key, _Call, list[Leaf | Problem]] = Coalescer(self._write)

    async def issue(self, call: _Call, authority_id: str, project_id: str | None) -> list[Leaf | Problem]:
        key = (call.actor.account_id, call.actor.id, authority_id, project_id)
        if len(call.prepared) <= _SMALL:
            return await self._queue.submit(key, call)
        (answer,) = await self._write(key, [call])
        if isinstance(answer, Problem):
            raise answer
        return answer

    async def _write(self, key: _Key, calls: Sequence[_Call]) -> list[list[Leaf | Problem] | Problem]:
        services, (_, _, authority_id, project_id), first = self._services, key, calls[0].actor
        if all(_is_plain(one) for call in calls for one in call.prepared):
            async with services.db.read() as tx:
                project = await access.project_for(tx, first, "ccm:cert:issue", project_id)
                ca = await store.seen_row(services.db, first, "ccm:cert:issue", authority_id)
                batch = _gather(services, calls, ca, project)
                rows = None if ca.policed else await actions.sign_many(tx, services, ca, batch.asked)
            if rows is not None:
                made = [row for row in rows if not isinstance(row, Problem)]
                # Where the CA was changed meanwhile, what was signed goes nowhere, and all is asked again.
                if not made or await store.record_at_once(services, ca.version, made, batch.events(rows)):
                    return batch.answers(rows)
        async with services.db.begin() as tx:
            project = await access.project_for(tx, first, "ccm:cert:issue", project_id)
            return await issue_in(tx, services, calls, authority_id, project)


def _is_plain(one: _Prepared | Problem) -> bool:
    """Whether it can be signed before the one statement that records it: it needs no key stored, no description of a
    profile. (And there may be no policies, whose quotas are counted in the transaction that records.)"""
    return isinstance(one, Problem) or (one.key is None and one.request.profile in profiles.BUILT_IN)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Calls of one caller to one CA. `refused` has an entry for each, `good` and `asked` for each certificate."""

    ca: Any
    calls: Sequence[_Call]
    refused: Sequence[Problem | None]
    good: Sequence[tuple[_Call, _Prepared]]
    asked: Sequence[IssueRequest]

    def events(self, rows: Sequence[Mapping[str, Any] | Problem]) -> list[audit.Entry]:
        return [
            _entry(call.actor, self.ca, row)
            for (call, _), row in zip(self.good, rows, strict=True)
            if not isinstance(row, Problem)
        ]

    def answers(self, rows: Sequence[Mapping[str, Any] | Problem]) -> list[list[Leaf | Problem] | Problem]:
        results = iter(rows)
        return [
            problem or [_answer(one if isinstance(one, Problem) else next(results)) for one in call.prepared]
            for call, problem in zip(self.calls, self.refused, strict=True)
        ]


def _gather(services: Services, calls: Sequence[_Call], ca: Any, project: str) -> _Batch:
    now = services.clock.now()
    refused = [_refusal(call.actor, ca, project) for call in calls]
    going = [call for call, problem in zip(calls, refused, strict=True) if problem is None]
    good = [(call, one) for call in going for one in call.prepared if isinstance(one, _Prepared)]
    asked = [
        IssueRequest(
            reference=new_id("lrq", now), account_id=ca.account_id, project_id=project, names=one.names,
            public_key=one.public_key, profile=one.request.profile, subject=one.request.subject,
            seconds=None if one.request.days is None else one.request.days * DAY,
        )
        for _, one in good
    ]  # fmt: skip
    return _Batch(ca, calls, refused, good, asked)


def _refusal(actor: Actor, ca: Any, project_id: str) -> Problem | None:
    """Asked of each call: what its caller may do may have changed since the first of them came."""
    try:
        access.require(actor, "ccm:cert:issue", project_id=project_id)
        access.require(actor, "ccm:cert:issue", project_id=ca.project_id, resource=f"authority:{ca.id}")
    except Problem as problem:
        return problem
    return None


async def _record(tx: Tx, services: Services, batch: _Batch, rows: Sequence[dict[str, Any] | Problem]) -> None:
    made = [(one, row) for (_, one), row in zip(batch.good, rows, strict=True) if not isinstance(row, Problem)]
    if not made:
        return
    holders = [(one.key, row) for one, row in made if one.key is not None]
    account_id, project_id = batch.ca.account_id, batch.asked[0].project_id
    key_ids = await keys.store_keys(
        tx, services, [key for key, _ in holders], account_id=account_id, project_id=project_id
    )
    for (_, row), key_id in zip(holders, key_ids, strict=True):
        row["key_id"] = key_id
    await tx.execute(sa.insert(issued_certificates), [{"key_id": None} | row for _, row in made])
    await audit.record_many(tx, services, batch.events(rows))


@dataclass(frozen=True, slots=True)
class _Call:
    actor: Actor
    prepared: Sequence[_Prepared | Problem]


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: LeafRequest
    names: tuple[str, ...]
    public_key: object
    key: keys.NewKey | None


async def _prepare(request: LeafRequest) -> _Prepared | Problem:
    try:
        names = judge_names(request.names)
        if request.days is not None and request.days < 1:
            raise Invalid("days_out_of_range", "A certificate lives 1 day or longer.", field="days",
                          fix="Choose 1 or more.")  # fmt: skip
        if request.csr is not None:
            return _Prepared(request, names, read_csr_key(request.csr.encode("utf-8", "replace")), None)
        key = await keys.new_key(rules.judge_algorithm(request.key_algorithm))
        return _Prepared(request, names, key.key.public_key(), key)
    except Problem as problem:
        return problem


def judge_names(names: Sequence[str]) -> tuple[str, ...]:
    """Host names (as A-labels), addresses, e-mail addresses and URIs, each once. Raises InvalidFields."""
    problems: list[Problem] = []
    found: list[str] = []
    for index, name in enumerate(names):
        try:
            found.append(_name(name.strip()))
        except Problem as problem:
            problems.append(problem.at(f"names[{index}]"))
    if problems:
        raise InvalidFields(problems)
    return tuple(dict.fromkeys(found))


def _name(text: str) -> str:
    if "://" in text:
        if not is_host_uri(text):
            raise Invalid("name_invalid", f"{text[:80]!r} isn't a URI with a scheme and a host, in ASCII.",
                          fix="Write it without a user and spaces, international parts as A-labels: "
                          "https://www.example.com/.")  # fmt: skip
        return text
    if "@" in text:
        box, _, host = text.rpartition("@")
        if not is_mailbox(text):
            raise Invalid("name_invalid", f"{text[:80]!r} isn't an e-mail address in ASCII.",
                          fix="Write it without quotes and spaces, an international host as A-labels: "
                          "ann@example.com.")  # fmt: skip
        return f"{box}@{host.lower()}"
    return str(parse_ip(text)) if looks_like_ip(text) else parse_dns_name(text).ascii


def _entry(actor: Actor, ca: Any, row: Mapping[str, Any]) -> audit.Entry:
    return audit.Entry(
        actor, "ccm:cert:issue", "authority", ca.id, row["project_id"],
        after={
            "certificate": row["id"], "profile": row["profile"], "serial": row["serial"],
            "sha256": hashlib.sha256(row["der"]).hexdigest(), "names": row["names"],
        },
    )  # fmt: skip


def _answer(result: Problem | Mapping[str, Any]) -> Leaf | Problem:
    if isinstance(result, Problem):
        return result
    none: dict[str, Any] = {"revoked_at": None, "revocation_reason": None, "key_id": None}
    return shown(SimpleNamespace(**none | dict(result)))


# --- looking ---------------------------------------------------------------------------------------------------------


def shown(row: Any) -> Leaf:
    # Of a thousand at once only this is read again, not every fact.
    subject = load(row.der).subject.rfc4514_string()
    return Leaf(
        id=row.id, authority_id=row.authority_id, project_id=row.project_id, profile=row.profile, serial=row.serial,
        names=tuple(row.names), subject=subject, sha256=hashlib.sha256(row.der).hexdigest(),
        der=row.der, not_before=row.not_before,
        not_after=row.not_after, issued_at=row.issued_at, has_key=row.key_id is not None,
        managed=not _by_itself(row), revoked_at=row.revoked_at,
        revocation_reason=row.revocation_reason,
    )  # fmt: skip


async def list_leaves(
    services: Services,
    actor: Actor,
    authority_id: str,
    *,
    search: str | None = None,
    revoked: bool | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Leaf]:
    """What a CA issued, newest first, without what was deleted; `search` is a serial's beginning or a whole name."""
    i = issued_certificates.c
    async with services.db.begin() as tx:
        await store.visible_row(tx, actor, "ccm:cert:list", authority_id)
        query = sa.select(issued_certificates).where(
            i.authority_id == authority_id, i.deleted_at.is_(None), i.account_id == actor.account_id
        )
        if search:
            wanted = search.strip().lower()
            # Hosts are kept in small letters, mailboxes and URIs as they were said.
            meant = sa.or_(i.names.contains([wanted]), i.names.contains([search.strip()]))
            # Others write serials in whole octets, some with colons between; here they have no zero in front.
            if serial := wanted.replace(":", "").lstrip("0"):
                meant = sa.or_(meant, i.serial.startswith(serial, autoescape=True))
            query = query.where(meant)
        if revoked is not None:
            query = query.where(i.revoked_at.is_not(None) if revoked else i.revoked_at.is_(None))
        if after is not None:
            query = query.where(i.id < after)
        rows = (await tx.execute(query.order_by(i.id.desc()).limit(limit))).all()
    return [shown(row) for row in rows]


async def get_leaf(services: Services, actor: Actor, authority_id: str, leaf_id: str) -> Leaf:
    async with services.db.begin() as tx:
        _, row = await _visible(tx, actor, "ccm:cert:get", authority_id, leaf_id)
    return shown(row)


async def _visible(
    tx: Tx, actor: Actor, action: str, authority_id: str, leaf_id: str, *, lock: bool = False
) -> tuple[Any, Any]:
    i = issued_certificates.c
    ca = await store.visible_row(tx, actor, action, authority_id)
    query = sa.select(issued_certificates).where(
        i.id == leaf_id, i.authority_id == authority_id, i.account_id == actor.account_id, i.deleted_at.is_(None)
    )
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise not_found("issued certificate", leaf_id)
    # Issued for another project, it is that project's: who may use the CA can't take its key along.
    access.require(actor, action, project_id=row.project_id, resource=f"authority:{authority_id}")
    return ca, row


# --- taking away -----------------------------------------------------------------------------------------------------


async def export_leaf(
    services: Services,
    actor: Actor,
    authority_id: str,
    leaf_id: str,
    *,
    server: str,
    legacy: bool = False,
) -> tuple[str, bytes]:
    """An archive for one kind of server, device or browser (`x509.bundles.Server`) with its key, if that is held
    here: file name and zip. Audited. Needs `ccm:cert:export`."""
    try:
        kind = bundles.Server(server)
    except ValueError:
        raise Invalid("server_unknown", f"There is no archive for {server[:40]!r}.", field="server",
                      fix=f"Use one of: {', '.join(bundles.Server)}.") from None  # fmt: skip
    async with services.db.begin() as tx:
        ca, row = await _visible(tx, actor, "ccm:cert:export", authority_id, leaf_id)
        chain = (row.der, *await store.chain(tx, ca))
    key = None
    if row.key_id is not None:
        key = await keys.open_key(services, actor, row.key_id, f"export of certificate {leaf_id}")
    else:
        async with services.db.begin() as tx:
            await audit.record(tx, services, actor, "ccm:cert:export", "authority", authority_id,
                               project_id=row.project_id, after={"certificate": leaf_id})  # fmt: skip
    name = next(iter(row.names), "") or facts_of(row.der).common_name or row.serial
    contents = bundles.Contents(name=name, chain=chain, key=key)
    content = await asyncio.to_thread(
        bundles.archive, kind, contents, at=services.clock.now(), random=os.urandom, legacy=legacy
    )
    return f"{bundles.safe_file_name(name)}-{kind.value}.zip", content


async def revoke_leaf(
    services: Services, actor: Actor, authority_id: str, leaf_id: str, reason: str = "unspecified"
) -> Leaf:
    """Revoke one certificate; its list is made anew at once. Content to find it revoked. Needs `ccm:cert:revoke`.

    Raises Refused `ca_leads_it` for a CA below this one, `leaf_is_managed` for one that belongs to a certificate.
    """
    rules.judge_reason(reason)
    async with services.db.begin() as tx:
        _, row = await _visible(tx, actor, "ccm:cert:revoke", authority_id, leaf_id)
        _refuse_managed(row)
        if await lists.mark_revoked(tx, services, authority_id, row.serial, reason):
            await audit.record(
                tx, services, actor, "ccm:cert:revoke", "authority", authority_id, project_id=row.project_id,
                after={"certificate": leaf_id, "serial": row.serial, "reason": reason},
            )  # fmt: skip
        _, row = await _visible(tx, actor, "ccm:cert:revoke", authority_id, leaf_id)
    return shown(row)


def _by_itself(row: Any) -> bool:
    """Whether no other room leads it: issued by hand, or to an ACME client (its order's id)."""
    return str(row.reference).startswith(("lrq_", "aco_"))


def _refuse_managed(row: Any) -> None:
    if row.reference.startswith("ca_"):
        raise Refused("ca_leads_it", "This is the certificate of a CA.", fix="Revoke or delete that CA.")
    if row.reference.startswith("ocr_"):
        raise Refused("responder_leads_it", "This is the CA's own responder for OCSP; it renews itself.",
                      fix="Leave it; it lives for weeks only.")  # fmt: skip
    if not _by_itself(row):
        raise Refused("leaf_is_managed", "This version belongs to a certificate that is managed here.",
                      fix="Revoke or delete it on the certificate's own page.")  # fmt: skip


async def delete_leaf(services: Services, actor: Actor, authority_id: str, leaf_id: str) -> None:
    """Takes it out of the lists people see and erases its key; revocation lists and OCSP still know it. Doesn't
    revoke. Needs `ccm:cert:delete`."""
    async with services.db.begin() as tx:
        _, row = await _visible(tx, actor, "ccm:cert:delete", authority_id, leaf_id, lock=True)
        _refuse_managed(row)
        if row.key_id is not None:
            await keys.erase(tx, services, actor, row.key_id, "the certificate was deleted")
        i = issued_certificates.c
        await tx.execute(sa.update(issued_certificates).where(i.id == leaf_id).values(deleted_at=services.clock.now()))
        await audit.record(
            tx, services, actor, "ccm:cert:delete", "authority", authority_id, project_id=row.project_id,
            before={"certificate": leaf_id, "serial": row.serial, "sha256": facts_of(row.der).sha256},
        )  # fmt: skip
