"""Documents of a case: judged by their content, encrypted with a key of their own that the vault seals."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.platform.vault import Vault
from certwright.rooms import audit
from certwright.rooms.organisations import cases, desk, rules, store
from certwright.rooms.organisations.words import Document, DocumentContent, Operation, State

_NONCE = 12


def document_context(document_id: str) -> str:
    """What the vault binds a document's key to."""
    return f"organisation_documents:{document_id}"


async def send_document(services: Services, actor: Actor, case_id: str, *, name: str, content: bytes) -> Document:
    """The applicant's side sends a document; what was asked for counts as sent.

    Raises TooLarge `document_too_large`, Invalid `document_type`, `document_name`, NotFound, Refused.
    """
    values, now = await _made(services, name, content), services.clock.now()
    async with services.db.begin() as tx:
        case = await cases.own_case(tx, actor, "scm:vetting:send", case_id, lock=True)
        if refusal := rules.why_not(Operation.SEND, case.facts, actor.user_id, now):
            raise refusal
        moved: dict[str, Any] = {"worked_at": now} if case.facts.claimed_by else {}
        if case.state is State.AWAITING_DOCUMENTS:
            moved |= cases.not_waiting(now)
        kept = await _keep(tx, actor, case_id, values, now, from_applicant=True)
        await desk.apply(tx, case, moved)
        await audit.record(
            tx, services, actor, "scm:vetting:send", "organisation-case", case_id, project_id=case.row.project_id,
            after=_told(values),
        )  # fmt: skip
        return kept


async def attach_document(services: Services, actor: Actor, case_id: str, *, name: str, content: bytes) -> Document:
    """A specialist adds evidence, such as an extract of a register. Raises as `send_document`."""
    values, now = await _made(services, name, content), services.clock.now()
    async with services.db.begin() as tx:
        case = await desk.judged(tx, services, actor, "desk:case:work", case_id, Operation.ATTACH, now)
        kept = await _keep(tx, actor, case_id, values, now, from_applicant=False)
        await desk.apply(tx, case, {"worked_at": now})
        await desk.audited(tx, services, actor, case.row, "desk:case:attach", after=_told(values))
        return kept


async def download_sent(services: Services, actor: Actor, case_id: str, document_id: str) -> DocumentContent:
    """A document the applicant's side sent, for that side; audited. What the desk attached isn't there for them."""
    async with services.db.begin() as tx:
        case = await cases.own_case(tx, actor, "scm:vetting:download", case_id)
        row = await store.document(tx, case_id, document_id)
        if row is None or not row.from_applicant:
            raise not_found("document", document_id)
        _refuse_erased(row)
        await audit.record(
            tx, services, actor, "scm:vetting:download", "organisation-case", case_id,
            project_id=case.row.project_id, after={"document": document_id},
        )  # fmt: skip
    return await _opened(services, row)


async def download(services: Services, actor: Actor, case_id: str, document_id: str) -> DocumentContent:
    """A document of a case, for the desk; audited in both accounts."""
    async with services.db.begin() as tx:
        case = await desk.desk_case(tx, actor, "desk:document:download", case_id)
        row = await store.document(tx, case_id, document_id)
        if row is None:
            raise not_found("document", document_id)
        _refuse_erased(row)
        await desk.audited(tx, services, actor, case.row, "desk:document:download", after={"document": document_id})
    return await _opened(services, row)


def _refuse_erased(row: store.Row) -> None:
    if row.erased_at is not None:
        raise Refused(
            "document_erased", "The document was erased when privacy authorization was withdrawn.",
            fix="It can't be had back.",
        )  # fmt: skip


async def _made(services: Services, name: str, content: bytes) -> dict[str, Any]:
    plain, media_type = rules.judge_document(name, content)
    document_id = new_id("ovd", services.clock.now())
    # 10 MB take some 20 ms to hash and encrypt.
    digest, sealed_key, sealed = await asyncio.to_thread(_sealed, services.vault, document_id, content)
    return {
        "id": document_id, "name": plain, "media_type": media_type, "size": len(content), "sha256": digest,
        "sealed_key": sealed_key, "content": sealed,
    }  # fmt: skip


def _sealed(vault: Vault, document_id: str, content: bytes) -> tuple[str, bytes, bytes]:
    key, nonce, context = AESGCM.generate_key(256), secrets.token_bytes(_NONCE), document_context(document_id)
    encrypted = nonce + AESGCM(key).encrypt(nonce, content, context.encode())
    return hashlib.sha256(content).hexdigest(), vault.seal(key, context), encrypted


async def _opened(services: Services, row: store.Row) -> DocumentContent:
    content = await asyncio.to_thread(_content, services.vault, row)
    return DocumentContent(f"{row.id}.{rules.EXTENSIONS[row.media_type]}", row.media_type, content)


def _content(vault: Vault, row: store.Row) -> bytes:
    context = document_context(row.id)
    key = vault.open(row.sealed_key, context)
    try:
        return AESGCM(key).decrypt(row.content[:_NONCE], row.content[_NONCE:], context.encode())
    except InvalidTag:
        raise Unavailable(
            "document_unreadable", f"The content of {row.id} was changed or belongs to another document.",
            fix="Restore it from a backup, or have it sent again.",
        ) from None  # fmt: skip


async def _keep(
    tx: Tx, actor: Actor, case_id: str, values: dict[str, Any], now: datetime, *, from_applicant: bool
) -> Document:
    await store.insert_document(
        tx, case_id=case_id, from_applicant=from_applicant, by_user=actor.user_id or actor.id, by_name=actor.name,
        at=now, **values,
    )  # fmt: skip
    return Document(
        values["id"], values["name"], values["media_type"], values["size"], values["sha256"], from_applicant,
        actor.name, now,
    )  # fmt: skip


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """For the audit log: which file, not what it is called."""
    return {"document": values["id"], "media_type": values["media_type"], "size": values["size"]}
