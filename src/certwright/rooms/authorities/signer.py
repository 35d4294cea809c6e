"""The signing component: the only code that reads keys of certificate authorities.

It signs what was drafted of judged values: linted certificates, revocation lists, answers about certificates, requests
to parents. It never returns a key. A process of its own can take its place behind the same methods.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.kernel.ids import new_id
from certwright.kernel.problems import Refused, Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.platform.vault import Vault
from certwright.rooms.authorities import rules
from certwright.rooms.authorities.ports import Token
from certwright.rooms.authorities.tables import authorities, ca_keys, ocsp_responders
from certwright.rooms.authorities.words import KeyStore, TokenState
from certwright.x509.ca_requests import RequestDraft
from certwright.x509.crl import CrlDraft
from certwright.x509.issue import Linted, sign_with_key
from certwright.x509.keys import (
    CaKeyAlgorithm,
    CaPrivateKey,
    CaPublicKey,
    KeyAlgorithm,
    ca_key_from_pkcs8_der,
    describe_public_key,
    generate_ca_key,
    spki_sha256,
    to_pkcs8_der,
)
from certwright.x509.ocsp import OcspDraft

# What a CA's key signs: each of these can be made only of values that were judged.
Document = Linted | CrlDraft | OcspDraft | RequestDraft


class Signer(Protocol):
    """Holds keys of CAs and signs with them. `key_id` is this signer's own name for a key; to sign takes no transaction
    where the caller has none."""

    async def create_key(
        self, tx: Tx, algorithm: CaKeyAlgorithm, store: KeyStore = KeyStore.SOFTWARE
    ) -> tuple[str, CaPublicKey]: ...

    async def import_key(self, tx: Tx, key: CaPrivateKey) -> str: ...

    async def sign(self, tx: Tx | None, key_id: str, document: Document) -> bytes: ...

    async def erase_key(self, tx: Tx, key_id: str) -> None: ...

    async def token_state(self, *, anew: bool = False) -> TokenState: ...


class CaVault(Vault):
    """Seals CA keys, with a keyring of its own that only the signing component opens."""


def _context(key_id: str) -> str:
    return f"ca_keys:{key_id}"


@dataclass(frozen=True, slots=True)
class _InToken:
    """A key in the HSM: its name there."""

    handle: str


class LocalSigner:
    """The signer of this process: keys sealed in the database, opened once and kept in memory, and keys in an HSM."""

    def __init__(self, services: Services, vault: CaVault) -> None:
        self._services = services
        self._vault = vault
        vault.register(ca_keys.c.sealed, _context)
        self._open: dict[str, CaPrivateKey | _InToken] = {}

    async def create_key(
        self, tx: Tx, algorithm: CaKeyAlgorithm, store: KeyStore = KeyStore.SOFTWARE
    ) -> tuple[str, CaPublicKey]:
        """Raises what `Token` does for a key in the HSM."""
        if store is KeyStore.HSM:
            return await self._create_in_token(tx, algorithm)
        key = await asyncio.to_thread(generate_ca_key, algorithm)
        return await self.import_key(tx, key), key.public_key()

    async def _create_in_token(self, tx: Tx, algorithm: CaKeyAlgorithm) -> tuple[str, CaPublicKey]:
        """The row comes first and stays whatever becomes of `tx`: a key nobody uses is found by it and destroyed."""
        if not isinstance(algorithm, KeyAlgorithm):
            raise rules.not_in_the_hsm(algorithm)
        token, now = self._services.port(Token), self._services.clock.now()
        key_id, handle = new_id("cak", now), secrets.token_hex(16)
        place = {"token_label": token.label, "token_key": handle}
        async with self._services.db.single() as alone:
            await alone.execute(
                sa.insert(ca_keys).values(
                    id=key_id, store=KeyStore.HSM, algorithm=algorithm.value, created_at=now, **place
                )
            )
        public = await token.create_key(handle, f"certwright {key_id}", algorithm)
        await tx.execute(
            sa.update(ca_keys)
            .where(ca_keys.c.id == key_id)
            .values(algorithm=describe_public_key(public), spki_sha256=spki_sha256(public))
        )
        return key_id, public

    async def import_key(self, tx: Tx, key: CaPrivateKey) -> str:
        """Seals a key somebody brought. Raises Refused `ca_key_known` for one that is held already."""
        now = self._services.clock.now()
        key_id = new_id("cak", now)
        stored = await tx.execute(
            postgresql.insert(ca_keys)
            .values(
                id=key_id,
                algorithm=describe_public_key(key.public_key()),
                spki_sha256=spki_sha256(key.public_key()),
                sealed=self._vault.seal(to_pkcs8_der(key), _context(key_id)),
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=[ca_keys.c.spki_sha256])
        )
        if stored.rowcount:
            return key_id
        unused = await self._taken_anew(tx, key)
        if unused is None:
            raise Refused("ca_key_known", "A CA with this key is or was here already.",
                          fix="Look for it in the list of CAs; a deleted CA's key isn't taken again.")  # fmt: skip
        return unused

    async def _taken_anew(self, tx: Tx, key: CaPrivateKey) -> str | None:
        """Somebody brought this key before, and the CA didn't come about: its row is used; None where a CA has it."""
        k, now = ca_keys.c, self._services.clock.now()
        used = sa.or_(
            sa.exists().where(authorities.c.ca_key_id == k.id), sa.exists().where(ocsp_responders.c.ca_key_id == k.id)
        )
        mine = sa.and_(k.spki_sha256 == spki_sha256(key.public_key()), k.store == KeyStore.SOFTWARE, ~used)
        key_id = await tx.scalar(sa.select(k.id).where(mine).with_for_update())
        if key_id is None:
            return None
        sealed = self._vault.seal(to_pkcs8_der(key), _context(key_id))
        await tx.execute(sa.update(ca_keys).where(k.id == key_id).values(sealed=sealed, erased_at=None, created_at=now))
        return str(key_id)

    async def erase_key(self, tx: Tx, key_id: str) -> None:
        """Crypto-erases, or destroys in the HSM: what could sign is gone, the fingerprint stays. Content to find it
        done; repeatable when `tx` is rolled back."""
        self._open.pop(key_id, None)
        k = ca_keys.c
        found = await tx.execute(
            sa.select(k.token_label, k.token_key).where(k.id == key_id, k.store == KeyStore.HSM, k.erased_at.is_(None))
        )
        in_token = found.one_or_none()
        if in_token is not None:
            await self._token_with(in_token.token_label).destroy_key(in_token.token_key)
        await tx.execute(
            sa.update(ca_keys)
            .where(ca_keys.c.id == key_id, ca_keys.c.erased_at.is_(None))
            .values(sealed=None, erased_at=self._services.clock.now())
        )

    async def sign(self, tx: Tx | None, key_id: str, document: Document) -> bytes:
        key = self._open.get(key_id)
        if key is None:
            key = self._open[key_id] = await self._opened(tx, key_id)
        if isinstance(key, _InToken):
            return await self._services.port(Token).sign(key.handle, document.tbs, document.hash_name)
        return sign_with_key(key, document.tbs, document.hash_name)

    async def _opened(self, tx: Tx | None, key_id: str) -> CaPrivateKey | _InToken:
        if tx is None:
            async with self._services.db.read() as reading:
                return await self._opened(reading, key_id)
        k = ca_keys.c
        query = sa.select(k.store, k.sealed, k.token_label, k.token_key)
        row = (await tx.execute(query.where(k.id == key_id, k.erased_at.is_(None)))).one_or_none()
        if row is None:
            raise not_found("CA key", key_id)
        if row.store == KeyStore.HSM:
            self._token_with(row.token_label)
            return _InToken(row.token_key)
        return ca_key_from_pkcs8_der(self._vault.open(row.sealed, _context(key_id)))

    def _token_with(self, label: str) -> Token:
        """The HSM, if its token is the one the key was made in."""
        token = self._services.port(Token)
        if token.label != label:
            raise Unavailable(
                "hsm_key_missing", f"This CA's key is in the token {label!r}; the settings name {token.label!r}.",
                fix="Set hsm_token_label to the token the key was made in.",
            )  # fmt: skip
        return token

    async def token_state(self, *, anew: bool = False) -> TokenState:
        return await self._services.port(Token).state(anew=anew)
