"""The signing component: the only code that reads keys of certificate authorities.

It signs what was drafted of judged values: linted certificates, revocation lists, answers about certificates, requests
to parents. It never returns a key. An HSM or a process of its own can take its place behind the same methods.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.authorities.tables import ca_keys
from certwright.x509.ca_requests import RequestDraft
from certwright.x509.crl import CrlDraft
from certwright.x509.issue import Linted, sign_with_key
from certwright.x509.keys import (
    KeyAlgorithm,
    PrivateKey,
    PublicKey,
    describe_public_key,
    from_pkcs8_der,
    generate,
    spki_sha256,
    to_pkcs8_der,
)
from certwright.x509.ocsp import OcspDraft

# What a CA's key signs: each of these can be made only of values that were judged.
Document = Linted | CrlDraft | OcspDraft | RequestDraft


class Signer(Protocol):
    """Holds keys of CAs and signs with them. `key_id` is this signer's own name for a key."""

    async def create_key(self, tx: Tx, algorithm: KeyAlgorithm) -> tuple[str, PublicKey]: ...

    async def import_key(self, tx: Tx, key: PrivateKey) -> str: ...

    async def sign(self, tx: Tx, key_id: str, document: Document) -> bytes: ...

    async def erase_key(self, tx: Tx, key_id: str) -> None: ...


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
        return await self.import_key(tx, key), key.public_key()

    async def import_key(self, tx: Tx, key: PrivateKey) -> str:
        """Seals a key somebody brought. Raises Refused `ca_key_known` for one that is held already."""
        now = self._services.clock.now()
        key_id = new_id("cak", now)
        stored = await tx.execute(
            postgresql.insert(ca_keys)
            .values(
                id=key_id,
                algorithm=describe_public_key(key.public_key()),
                spki_sha256=spki_sha256(key.public_key()),
                sealed=self._services.vault.seal(to_pkcs8_der(key), _context(key_id)),
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=[ca_keys.c.spki_sha256])
        )
        if not stored.rowcount:
            raise Refused("ca_key_known", "A CA with this key is or was here already.",
                          fix="Look for it in the list of CAs; a deleted CA's key isn't taken again.")  # fmt: skip
        return key_id

    async def erase_key(self, tx: Tx, key_id: str) -> None:
        """Crypto-erases: what was sealed is gone, the fingerprint stays. Content to find it done."""
        self._open.pop(key_id, None)
        await tx.execute(
            sa.update(ca_keys)
            .where(ca_keys.c.id == key_id, ca_keys.c.erased_at.is_(None))
            .values(sealed=None, erased_at=self._services.clock.now())
        )

    async def sign(self, tx: Tx, key_id: str, document: Document) -> bytes:
        key = self._open.get(key_id)
        if key is None:
            sealed = await tx.scalar(sa.select(ca_keys.c.sealed).where(ca_keys.c.id == key_id))
            if sealed is None:
                raise not_found("CA key", key_id)
            key = self._open[key_id] = from_pkcs8_der(self._services.vault.open(sealed, _context(key_id)))
        return sign_with_key(key, document.tbs, document.hash_name)
