"""`Idempotency-Key`: a request sent twice is carried out once, and the second sender gets the first one's answer.

The key is claimed before the work begins and the answer stored after it. When a process dies in between, or something
it needs goes away while it writes, nobody can know whether the work was done; then the key answers "look first" until
it is forgotten, because doing it again could do it twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.kernel.problems import Invalid, Problem, Refused
from certwright.platform.db import Database, at_column, id_column, json_column, metadata

KEPT = timedelta(hours=24)
# A request still running after this long is taken for lost.
_LONGEST_REQUEST = timedelta(minutes=5)
# In place of a status: how it ended isn't known.
_LOST = 0
MAX_KEY = 200
MAX_BODY = 1024 * 1024

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    id_column("account_id", primary_key=True),
    # The token, or the person signed in: what one credential was answered is never handed to another.
    id_column("caller_id", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer),
    json_column("headers"),
    sa.Column("body", sa.LargeBinary),
    sa.Column("object_id", sa.Text),
    at_column("created_at", nullable=False),
    sa.Index("ix_idempotency_keys_created", "created_at"),
)

_K = idempotency_keys.c


@dataclass(frozen=True, slots=True)
class Key:
    """One caller's key. `fingerprint` is over method, path, query and body of the request."""

    account_id: str
    caller_id: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer; `body` is None when it held a secret and was not kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    object_id: str | None


def fingerprint(method: str, path: str, query: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode("utf-8", "surrogatepass"), query, body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def checked_key(text: str) -> str:
    """Raises Invalid `idempotency_key_invalid`."""
    if not 1 <= len(text) <= MAX_KEY or not text.isascii() or not text.isprintable():
        raise Invalid(
            "idempotency_key_invalid",
            f"The idempotency key must have 1 to {MAX_KEY} printable ASCII characters.",
            field="Idempotency-Key",
            fix="Use a random UUID, a new one for each thing to be done.",
        )
    return text


def _mine(key: Key) -> sa.ColumnElement[bool]:
    return sa.and_(_K.account_id == key.account_id, _K.caller_id == key.caller_id, _K.key == key.key)


async def claim(db: Database, key: Key, now: datetime) -> Answer | None:
    """None: go ahead, and then `keep` or `release`. Otherwise the answer given the first time.

    Raises Invalid `idempotency_mismatch` if the key was used for another request, Refused `idempotency_in_flight`
    while the first runs, Refused `idempotency_outcome_unknown` when it was lost or failed midway, and Refused
    `already_done` when the first answer held a secret.
    """
    async with db.begin() as tx:
        old = sa.and_(_mine(key), _K.created_at < now - KEPT)
        await tx.execute(sa.delete(idempotency_keys).where(old))
        claimed = await tx.execute(
            insert(idempotency_keys)
            .values(
                account_id=key.account_id, caller_id=key.caller_id, key=key.key, fingerprint=key.fingerprint,
                created_at=now,
            )
            .on_conflict_do_nothing()
        )  # fmt: skip
        if claimed.rowcount:
            return None
        row = (
            await tx.execute(
                sa.select(_K.fingerprint, _K.status, _K.headers, _K.body, _K.object_id, _K.created_at).where(_mine(key))
            )
        ).one_or_none()
    if row is None:
        raise _in_flight()
    if row.fingerprint != key.fingerprint:
        raise Invalid(
            "idempotency_mismatch",
            "This idempotency key was used for a different request.",
            field="Idempotency-Key",
            fix="Use a new key for a new request.",
        )
    if row.status is None and now - row.created_at < _LONGEST_REQUEST:
        raise _in_flight()
    if row.status is None or row.status == _LOST:
        raise Refused(
            "idempotency_outcome_unknown",
            "The first request with this key was interrupted; whether it was carried out isn't known.",
            fix="Look whether the thing exists; if it doesn't, send the request again with a new key.",
        )
    answer = Answer(row.status, row.headers or {}, row.body, row.object_id)
    if answer.body is None:
        raise Refused(
            "already_done",
            "This was done already; its answer held a secret and can't be shown again.",
            fix="Look at the object; if you lost the secret, make a new one.",
            extra={"object_id": answer.object_id} if answer.object_id else None,
        )
    return answer


def _in_flight() -> Problem:
    return Refused(
        "idempotency_in_flight", "The first request with this key is still running.", fix="Wait and send it again."
    )


async def keep(db: Database, key: Key, answer: Answer) -> None:
    async with db.begin() as tx:
        await tx.execute(
            sa.update(idempotency_keys)
            .where(_mine(key))
            .values(
                status=answer.status, headers=dict(answer.headers), body=answer.body, object_id=answer.object_id
            )
        )  # fmt: skip


async def release(db: Database, key: Key) -> None:
    """The request was refused, so that nothing was done: the same key may be used again."""
    async with db.begin() as tx:
        await tx.execute(sa.delete(idempotency_keys).where(_mine(key), _K.status.is_(None)))


async def lose(db: Database, key: Key) -> None:
    """Something failed midway: whether it was done isn't known, and the key says so from now on.

    Where even this can't be written, the key stays claimed, and says so once the longest request would be over.
    """
    async with db.begin() as tx:
        await tx.execute(
            sa.update(idempotency_keys).where(_mine(key), _K.status.is_(None)).values(status=_LOST)
        )  # fmt: skip


async def forget(services: Any) -> None:
    """Chore: drop keys older than a day."""
    async with services.db.begin() as tx:
        await tx.execute(sa.delete(idempotency_keys).where(_K.created_at < services.clock.now() - KEPT))
