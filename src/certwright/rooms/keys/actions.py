"""Make, store, open and erase private keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import audit
from certwright.rooms.keys.tables import private_keys
from certwright.x509.keys import (
    KeyAlgorithm,
    PrivateKey,
    from_pkcs8_der,
    generate,
    spki_sha256,
    to_pkcs8_der,
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key made or read but not stored yet; `key` stays in this process.

    `algorithm` is a KeyAlgorithm, or the words of `describe_public_key` for keys from elsewhere.
    """

    key: PrivateKey
    algorithm: str
    spki_sha256: str


def _context(key_id: str) -> str:
    return f"private_keys:{key_id}"


def register(services: Services) -> None:
    services.vault.register(private_keys.c.sealed, _context)


async def new_key(algorithm: KeyAlgorithm) -> NewKey:
    """Generate a key; RSA goes to a thread, because it takes 30 to 300 ms."""
    is_slow = algorithm.startswith("RSA")
    key = await asyncio.to_thread(generate, algorithm) if is_slow else generate(algorithm)
    return NewKey(key, algorithm, spki_sha256(key.public_key()))


Origin = Literal["generated", "uploaded"]


async def store_key(
    tx: Tx, services: Services, new: NewKey, *, account_id: str, project_id: str, origin: Origin = "generated"
) -> str:
    """Seal and insert in the caller's transaction; returns the key's id."""
    (key_id,) = await store_keys(tx, services, [new], account_id=account_id, project_id=project_id, origin=origin)
    return key_id


async def store_keys(
    tx: Tx,
    services: Services,
    new: Sequence[NewKey],
    *,
    account_id: str,
    project_id: str,
    origin: Origin = "generated",
) -> list[str]:
    """Several at once; ids in the order given."""
    now = services.clock.now()
    ids = [new_id("key", now) for _ in new]
    if ids:
        await tx.execute(
            sa.insert(private_keys),
            [
                {
                    "id": key_id, "account_id": account_id, "project_id": project_id, "algorithm": key.algorithm,
                    "spki_sha256": key.spki_sha256,
                    "sealed": services.vault.seal(to_pkcs8_der(key.key), _context(key_id)), "origin": origin,
                    "created_at": now,
                }
                for key_id, key in zip(ids, new, strict=True)
            ],
        )  # fmt: skip
    return ids


async def open_key(services: Services, actor: Actor, key_id: str, why: str) -> PrivateKey:
    """The private key, for use in this process. Every call is an audit event with the reason `why`.

    Raises NotFound, Refused `key_erased`.
    """
    async with services.db.begin() as tx:
        row = (
            await tx.execute(
                sa.select(private_keys.c.project_id, private_keys.c.sealed).where(
                    private_keys.c.id == key_id, private_keys.c.account_id == actor.account_id
                )
            )
        ).one_or_none()
        if row is None:
            raise not_found("key", key_id)
        if row.sealed is None:
            raise Refused("key_erased", f"The private key {key_id} was erased.", fix="Reissue the certificate.")
        await audit.record(
            tx, services, actor, "scm:key:read", "key", key_id, project_id=row.project_id, reason=why
        )  # fmt: skip
    return from_pkcs8_der(services.vault.open(row.sealed, _context(key_id)))


async def copy_key(tx: Tx, services: Services, actor: Actor, key_id: str, *, project_id: str, why: str) -> str:
    """A second stored key of the same value, sealed on its own, for another owner; returns its id. Audited.

    Either is moved and erased without the other. Raises NotFound, Refused `key_erased`.
    """
    row = (
        await tx.execute(
            sa.select(private_keys).where(private_keys.c.id == key_id, private_keys.c.account_id == actor.account_id)
        )
    ).one_or_none()
    if row is None:
        raise not_found("key", key_id)
    if row.sealed is None:
        raise Refused("key_erased", f"The private key {key_id} was erased.", fix="Reissue the certificate.")
    now = services.clock.now()
    copy_id = new_id("key", now)
    octets = services.vault.open(row.sealed, _context(key_id))
    await tx.execute(
        sa.insert(private_keys).values(
            id=copy_id, account_id=row.account_id, project_id=project_id, algorithm=row.algorithm,
            spki_sha256=row.spki_sha256, sealed=services.vault.seal(octets, _context(copy_id)), origin=row.origin,
            created_at=now,
        )
    )  # fmt: skip
    await audit.record(
        tx, services, actor, "scm:key:copy", "key", key_id, project_id=row.project_id, after={"copy": copy_id},
        reason=why,
    )  # fmt: skip
    return copy_id


async def erase(tx: Tx, services: Services, actor: Actor, key_id: str, why: str) -> None:
    """Crypto-erase: the sealed value goes, and with it the only data key that opened it."""
    now = services.clock.now()
    project_id = await tx.scalar(
        sa.update(private_keys)
        .where(
            private_keys.c.id == key_id,
            private_keys.c.account_id == actor.account_id,
            private_keys.c.erased_at.is_(None),
        )
        .values(sealed=None, erased_at=now)
        .returning(private_keys.c.project_id)
    )
    if project_id is not None:
        await audit.record(tx, services, actor, "scm:key:erase", "key", key_id, project_id=project_id, reason=why)


async def move(tx: Tx, key_ids: Sequence[str], project_id: str) -> None:
    """Keys go where their certificate goes; who may move that is judged there."""
    await tx.execute(sa.update(private_keys).where(private_keys.c.id.in_(key_ids)).values(project_id=project_id))
