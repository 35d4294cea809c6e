"""What people and the certificates room do with signing requests: make, upload, look, export, move, delete, apply."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import looks_like_ip, parse_dns_name
from certwright.kernel.problems import Forbidden, Invalid, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit, keys
from certwright.rooms.csrs import rules, store
from certwright.rooms.csrs.ports import Users
from certwright.rooms.csrs.tables import csrs
from certwright.rooms.csrs.words import Csr, Download, Origin, Taken, UsedBy
from certwright.x509.bundles import safe_file_name
from certwright.x509.csr import CsrFacts, Subject, make_csr, read_csr, to_pem
from certwright.x509.keys import read_private_key, spki_sha256, to_pkcs8_pem

CsrFormat = Literal["pem", "der"]


# --- reading ---------------------------------------------------------------------------------------------------------


async def list_csrs(
    services: Services,
    actor: Actor,
    *,
    name: str | None = None,
    search: str | None = None,
    project_id: str | None = None,
    has_key: bool | None = None,
    after: str | None = None,
    limit: int = 20,
) -> tuple[Csr, ...]:
    """Newest first; `name` is the whole name, `search` a part of it or of a name inside."""
    where = [
        access.visible(csrs, actor, "scm:csr:list"),
        *store.filters(name=name, search=search, project_id=project_id, has_key=has_key),
    ]
    async with services.db.begin() as tx:
        rows = await store.page(tx, where, after=after, limit=limit)
        used = await services.port(Users).used_by(tx, [row.id for row in rows])
    return tuple(_shown(row, used) for row in rows)


async def get_csr(services: Services, actor: Actor, csr_id: str) -> Csr:
    async with services.db.begin() as tx:
        return await _one(tx, services, await _visible(tx, actor, "scm:csr:get", csr_id))


async def _visible(
    tx: Tx, actor: Actor, action: str, csr_id: str, *, lock: bool = False, keep: bool = False
) -> store.Row:
    """The row, if the actor may do `action` to it. Raises NotFound if it may not be seen, Forbidden otherwise."""
    row = await store.csr(tx, csr_id, access.visible(csrs, actor, "scm:csr:get"), lock=lock, keep=keep)
    if row is None:
        raise not_found("CSR", csr_id)
    access.require(actor, action, project_id=row.project_id, resource=f"csr:{csr_id}")
    return row


async def _one(tx: Tx, services: Services, row: store.Row) -> Csr:
    return _shown(row, await services.port(Users).used_by(tx, [row.id]))


def _shown(row: store.Row, used: Mapping[str, UsedBy]) -> Csr:
    return Csr(
        id=row.id, project_id=row.project_id, name=row.name, origin=Origin(row.origin), names=tuple(row.names),
        subject=Subject(**row.subject), key_algorithm=row.key_algorithm, spki_sha256=row.spki_sha256,
        has_key=row.key_id is not None, pem=to_pem(row.csr_der).decode(), used_by=used.get(row.id, UsedBy()),
        created_at=row.created_at, updated_at=row.updated_at, revision=row.revision,
    )  # fmt: skip


# --- making and uploading --------------------------------------------------------------------------------------------


async def generate(
    services: Services,
    actor: Actor,
    *,
    names: Sequence[str] = (),
    subject: Subject | None = None,
    key_algorithm: str = "EC_P256",
    name: str | None = None,
    project_id: str | None = None,
) -> Csr:
    """Make a key and a request for `names` (host names and addresses); the key is sealed before anybody hears of it."""
    access.require_somewhere(actor, "scm:csr:create")
    wanted = _wanted_name(name)
    said = rules.judge_subject(subject or Subject())
    dns, ips = rules.judge_names(names, said.common_name)
    new = await keys.new_key(rules.judge_key_algorithm(key_algorithm))
    facts = read_csr(make_csr(new.key, dns, ips, subject=said))
    return await _keep(services, actor, facts, new, Origin.GENERATED, wanted, project_id)


async def upload(
    services: Services,
    actor: Actor,
    *,
    csr: str,
    private_key: str | None = None,
    passphrase: str | None = None,
    name: str | None = None,
    project_id: str | None = None,
) -> Csr:
    """Keep a request made elsewhere, alone or with its private key; the passphrase opens the key and is forgotten.

    Raises what `x509.csr.read_csr` and `x509.keys.read_private_key` say, and Invalid `key_mismatch`.
    """
    access.require_somewhere(actor, "scm:csr:create")
    wanted = _wanted_name(name)
    # An RSA key's trial signature and a passphrase's key derivation take up to a second.
    facts, new = await asyncio.to_thread(_read, csr, private_key, passphrase)
    return await _keep(services, actor, facts, new, Origin.UPLOADED, wanted, project_id)


def _read(csr: str, private_key: str | None, passphrase: str | None) -> tuple[CsrFacts, keys.NewKey | None]:
    facts = read_csr(_octets(csr, "csr"))
    if not private_key:
        return facts, None
    secret = _octets(passphrase, "passphrase") if passphrase else None
    key = read_private_key(_octets(private_key, "private_key"), secret)
    spki = spki_sha256(key.public_key())
    rules.judge_match(csr_spki=facts.spki_sha256, key_spki=spki)
    return facts, keys.NewKey(key, facts.key_algorithm, spki)


def _octets(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # `from None`: the error quotes the text.
        raise Invalid(
            "text_invalid", "The text holds a character that isn't one (half a surrogate pair).", field=field,
            fix="Remove that character.",
        ) from None  # fmt: skip


def _wanted_name(name: str | None) -> str:
    """`csr-xxxxxxxxxx` where none is given; the unique constraint has the last word."""
    if name is not None:
        return rules.judge_name(name)
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "csr-" + "".join(secrets.choice(alphabet) for _ in range(10))


async def _keep(
    services: Services,
    actor: Actor,
    facts: CsrFacts,
    new: keys.NewKey | None,
    origin: Origin,
    name: str,
    project_id: str | None,
) -> Csr:
    now = services.clock.now()
    csr_id = new_id("csr", now)
    names = facts.dns_names + facts.ip_addresses
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "scm:csr:create", project_id)
        key_id = None
        if new is not None:
            key_id = await keys.store_key(
                tx, services, new, account_id=actor.account_id, project_id=project, origin=origin.value
            )
        fresh = await store.insert(
            tx, id=csr_id, account_id=actor.account_id, project_id=project, name=name, origin=origin.value,
            names=list(names), subject=asdict(facts.subject), key_algorithm=facts.key_algorithm,
            spki_sha256=facts.spki_sha256, csr_der=facts.der, key_id=key_id, created_at=now, updated_at=now,
            search_text=store.search_text(name, names, _unicode(names), facts.subject.common_name),
        )  # fmt: skip
        if not fresh:
            raise _name_taken(name)
        await services.events.publish(
            tx, "csr.created", account_id=actor.account_id, object_id=csr_id, payload={"has_key": new is not None}
        )
        await audit.record(
            tx, services, actor, "scm:csr:create", "csr", csr_id, project_id=project,
            after={"name": name, "names": list(names), "origin": origin.value, "has_key": new is not None,
                   "key_algorithm": facts.key_algorithm, "spki_sha256": facts.spki_sha256},
        )  # fmt: skip
        return await _one(tx, services, await store.csr(tx, csr_id, csrs.c.account_id == actor.account_id))


def _unicode(names: Sequence[str]) -> list[str]:
    """The U-label forms, where a name has one."""
    found = []
    for name in names:
        try:
            found.append(name if looks_like_ip(name) else parse_dns_name(name).unicode)
        except Problem:
            found.append(name)  # found all the same by what it is called here
    return found


def _name_taken(name: str) -> Refused:
    return Refused("csr_name_taken", f"Another CSR is called {name!r}.", field="name", fix="Choose another name.")


# --- changing and deleting -------------------------------------------------------------------------------------------


async def update_csr(
    services: Services,
    actor: Actor,
    csr_id: str,
    *,
    revision: int,
    name: str | None = None,
    project_id: str | None = None,
) -> Csr:
    """Rename, move to another project. Raises Stale if changed meanwhile."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:csr:update", csr_id, lock=True)
        changes: dict[str, Any] = {}
        if name is not None and name != row.name:
            changes["name"] = rules.judge_name(name)
            if await store.name_taken(tx, actor.account_id, name, csr_id):
                raise _name_taken(name)
        if project_id is not None and project_id != row.project_id:
            changes["project_id"] = await access.project_for(tx, actor, "scm:csr:update", project_id)
            _may_move(actor, row, project_id)
        if changes:
            text = store.search_text(
                changes.get("name", row.name), row.names, _unicode(row.names), row.subject["common_name"]
            )
            if not await store.update(tx, csr_id, revision, changes | {"search_text": text, "updated_at": now}):
                raise Stale("changed_meanwhile", "The CSR was changed since you read it.", fix="Read it again.")
            if "project_id" in changes:
                if row.key_id is not None:
                    await keys.move(tx, [row.key_id], changes["project_id"])
                await services.events.publish(tx, "csr.moved", account_id=row.account_id, object_id=csr_id)
            await audit.record(
                tx, services, actor, "scm:csr:update", "csr", csr_id, project_id=row.project_id,
                before={key: getattr(row, key) for key in changes}, after=changes,
            )  # fmt: skip
        return await _one(tx, services, await store.csr(tx, csr_id, csrs.c.account_id == actor.account_id))


def _may_move(actor: Actor, row: store.Row, project_id: str) -> None:
    """All access to a request moves along with it. So whoever moves one must hold, where it is now, every right the
    move would give them; and with a key the right to hand that out. Raises Forbidden `move_gives_rights`."""
    resource = f"csr:{row.id}"
    gained = {
        action
        for action in access.ACTIONS
        if action.startswith("scm:csr:")
        and action != "scm:csr:create"
        and access.decide(actor.grants, action, resource, project_id).allowed
    }
    if row.key_id is not None:
        gained.add("scm:csr:export_key")
    missing = sorted(a for a in gained if not access.decide(actor.grants, a, resource, row.project_id).allowed)
    if missing:
        raise Forbidden(
            "move_gives_rights", "Moving the CSR would give rights to it that you don't hold where it is now.",
            field="project_id", fix=f"Ask somebody who holds these in its present project: {', '.join(missing)}.",
            extra={"actions": missing},
        )  # fmt: skip


async def delete_csr(services: Services, actor: Actor, csr_id: str) -> None:
    """Delete for good: the key is crypto-erased. Certificates applied for with it keep the copy that is theirs."""
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:csr:delete", csr_id, lock=True)
        used = await services.port(Users).used_by(tx, [csr_id])
        refused = rules.why_not_delete(used.get(csr_id, UsedBy()))
        if refused is not None:
            raise refused
        await store.delete(tx, csr_id)
        if row.key_id is not None:
            await keys.erase(tx, services, actor, row.key_id, f"CSR {csr_id} deleted")
        await services.events.publish(tx, "csr.deleted", account_id=row.account_id, object_id=csr_id)
        await audit.record(
            tx, services, actor, "scm:csr:delete", "csr", csr_id, project_id=row.project_id,
            before={"name": row.name, "names": list(row.names), "spki_sha256": row.spki_sha256},
        )  # fmt: skip


# --- exporting -------------------------------------------------------------------------------------------------------


async def export_csr(services: Services, actor: Actor, csr_id: str, form: str = "pem") -> Download:
    """The request as a file; `form` is one of `CsrFormat`."""
    if form not in get_args(CsrFormat):
        raise Invalid(
            "format_unknown", f"A CSR is not exported as {form[:40]!r}.", field="format", fix="Use pem or der."
        )
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:csr:get", csr_id)
    stem = safe_file_name(row.name)
    if form == "der":
        return Download(f"{stem}.der", "application/pkcs10", row.csr_der)
    return Download(f"{stem}.csr", "application/x-pem-file", to_pem(row.csr_der))


async def export_key(services: Services, actor: Actor, csr_id: str, passphrase: str | None = None) -> Download:
    """The private key as PKCS#8 PEM, encrypted (PBES2, AES-256) where a passphrase is given. Audited before it is read.

    Raises Refused `csr_without_key`.
    """
    secret = rules.judge_passphrase(passphrase)
    async with services.db.begin() as tx:
        row = await _visible(tx, actor, "scm:csr:export_key", csr_id)
        if row.key_id is None:
            raise Refused(
                "csr_without_key", "The private key of this CSR is not held here: only the CSR was uploaded.",
                fix="Use the key you made the CSR with.",
            )  # fmt: skip
        await audit.record(
            tx, services, actor, "scm:csr:export_key", "csr", csr_id, project_id=row.project_id,
            after={"encrypted": secret is not None},
        )  # fmt: skip
    key = await keys.open_key(services, actor, row.key_id, f"export of the key of CSR {csr_id}")
    content = await asyncio.to_thread(to_pkcs8_pem, key, secret)
    return Download(f"{safe_file_name(row.name)}.key", "application/x-pem-file", content)


# --- for the certificates room ---------------------------------------------------------------------------------------


async def take(tx: Tx, actor: Actor, csr_id: str, *, project_id: str, certificate_id: str) -> Taken:
    """The request to apply with; it is not deleted before the transaction ends.

    With a key, the certificate gets it: whoever could export it there, or hands it to another project, must be allowed
    to export it here. Raises NotFound, Forbidden `not_permitted` or `csr_key_gives_rights`.
    """
    row = await _visible(tx, actor, "scm:csr:use", csr_id, keep=True)
    if row.key_id is not None:
        certificate = f"certificate:{certificate_id}"
        gives = (
            row.project_id != project_id
            or access.decide(actor.grants, "scm:cert:export_key", certificate, project_id).allowed
        )
        held = access.decide(actor.grants, "scm:csr:export_key", f"csr:{csr_id}", row.project_id)
        if gives and not held.allowed:
            raise Forbidden(
                "csr_key_gives_rights",
                "Applying with this CSR would give access to its private key, which you may not export.",
                field="csr_id",
                fix="Ask somebody who holds scm:csr:export_key in the CSR's project to apply.",
                extra={"action": "scm:csr:export_key"},
            )
    return Taken(row.id, row.csr_der, to_pem(row.csr_der).decode(), row.key_id)


async def lend_key(
    tx: Tx, services: Services, actor: Actor, taken: Taken, *, project_id: str, certificate_id: str
) -> str | None:
    """A copy of the request's key for a certificate, sealed anew; its id, or None where no key is held."""
    if taken.key_id is None:
        return None
    why = f"copy of the key of CSR {taken.id} for {certificate_id}"
    return await keys.copy_key(tx, services, actor, taken.key_id, project_id=project_id, why=why)
