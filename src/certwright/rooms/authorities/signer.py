"""The signing component: the only code that reads keys of certificate authorities.

It signs bytes that come with the proof of having been linted, or revocation lists; it never returns a key. An HSM or a
process of its own can take its place behind the same two methods.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import sqlalchemy as sa

from certwright.kernel.ids import new_id
from certwright.kernel.problems import not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.authorities.tables import ca_keys
from certwright.x509.crl import CrlDraft
from certwright.x509.issue import Linted, sign_with_key
from certwright.x509.keys import (
    KeyAlgorithm,
    PrivateKey,
    PublicKey,
    from_pkcs8_der,
    generate,
    spki_sha256,
    to_pkcs8_der,
)


class Signer(Protocol):
    """Holds keys of CAs and signs with them. `key_id` is this signer's own name for a key."""

    async def create_key(self, tx: Tx, algorithm: KeyAlgorithm) -> tuple[str, PublicKey]: ...

    async def sign(self, tx: Tx, key_id: str, document: Linted | CrlDraft) -> bytes: ...


def _context(key_id: str) -> str:
    return f"ca_keys:{key_id}"


class SoftwareSigner:
    """Keys sealed in the database, opened once per process and kept in memory."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: dict[str, PrivateKey] = {}

    @staticmethod
    def register(services: Services) -> None:
        services.vault.register(ca_keys.c.sealed, _context)

    async def create_key(self, tx: Tx, algorithm: KeyAlgorithm) -> tuple[str, PublicKey]:
        key = await asyncio.to_thread(generate, algorithm)
        now = self._services.clock.now()
        key_id = new_id("cak", now)
        await tx.execute(
            sa.insert(ca_keys).values(
                id=key_id,
                algorithm=algorithm.value,
                spki_sha256=spki_sha256(key.public_key()),
                sealed=self._services.vault.seal(to_pkcs8_der(key), _context(key_id)),
                created_at=now,
            )
        )
        return key_id, key.public_key()

    async def sign(self, tx: Tx, key_id: str, document: Linted | CrlDraft) -> bytes:
        key = self._open.get(key_id)
        if key is None:
            sealed = await tx.scalar(sa.select(ca_keys.c.sealed).where(ca_keys.c.id == key_id))
            if sealed is None:
                raise not_found("CA key", key_id)
            key = self._open[key_id] = from_pkcs8_der(self._services.vault.open(sealed, _context(key_id)))
        return sign_with_key(key, document.tbs)
