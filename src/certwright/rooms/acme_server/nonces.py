"""Nonces (RFC 8555 section 6.5): signed, so that giving one out costs nothing; written down when they are used, so that
each is good once, for every web process.

Table and key are kept without a log. A crash of PostgreSQL empties both, so no nonce from before can be used again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from certwright.acme.jose import b64url, from_b64url
from certwright.acme.requests import AcmeProblem
from certwright.kernel.ids import new_id
from certwright.platform.services import Services
from certwright.rooms.acme_server.tables import acme_nonce_keys, acme_used_nonces

LIFE: Final = timedelta(hours=1)
_MAC: Final = 12
_RANDOM: Final = 10
_SIZE: Final = 4 + _RANDOM + _MAC
# A key that doesn't fit is looked up again, but not for every stranger's invention.
_LOOK_EVERY: Final = timedelta(seconds=1)


def bad_nonce() -> AcmeProblem:
    return AcmeProblem("badNonce", "The nonce is unknown, used or too old; repeat the request with the one given here.")


@dataclass(frozen=True, slots=True)
class NonceKey:
    id: str
    key: bytes = field(repr=False)

    def made(self, now: datetime) -> str:
        body = int(now.timestamp()).to_bytes(4) + secrets.token_bytes(_RANDOM)
        return b64url(body + self._mac(body))

    def fits(self, nonce: str, now: datetime) -> bool:
        try:
            octets = from_b64url(nonce)
        except ValueError:
            return False
        # Written in one way only: what is remembered of a used nonce is its text.
        if (
            len(octets) != _SIZE
            or b64url(octets) != nonce
            or not hmac.compare_digest(self._mac(octets[:-_MAC]), octets[-_MAC:])
        ):
            return False
        made = datetime.fromtimestamp(int.from_bytes(octets[:4]), UTC)
        # From "the future" it is only after the clock was set back.
        return now - LIFE < made <= now + LIFE

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, hashlib.sha256)[:_MAC]


class Nonces:
    """What one process knows of the key; plugged into Services.ports by the entry."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._key: NonceKey | None = None
        self._looked: datetime | None = None

    async def fresh(self) -> str:
        key = self._key or await self._look()
        return key.made(self._services.clock.now())

    async def check(self, nonce: str | None) -> tuple[str, str]:
        """The nonce and the id of the key it was made with, for `used`. Raises AcmeProblem `badNonce`."""
        now = self._services.clock.now()
        key = self._key or await self._look()
        if nonce is None or len(nonce) > 60:
            raise bad_nonce()
        if not key.fits(nonce, now):
            if self._looked is not None and abs(now - self._looked) < _LOOK_EVERY:
                raise bad_nonce()
            key = await self._look()
            if not key.fits(nonce, now):
                raise bad_nonce()
        return nonce, key.id

    def forget(self) -> None:
        """After a nonce of the key in hand wasn't taken: the key may be gone from the database."""
        self._key = None

    async def _look(self) -> NonceKey:
        """The key; made by whichever process needs it first."""
        k = acme_nonce_keys.c
        oldest = sa.select(k.id, k.key).order_by(k.created_at, k.id).limit(1)
        now = self._services.clock.now()
        async with self._services.db.begin() as tx:
            row = (await tx.execute(oldest)).one_or_none()
            if row is None:
                await tx.execute(sa.text("LOCK TABLE acme_nonce_keys IN SHARE ROW EXCLUSIVE MODE"))
                row = (await tx.execute(oldest)).one_or_none()
            if row is None:
                values = {"id": new_id("acn", now), "key": secrets.token_bytes(32), "created_at": now}
                await tx.execute(sa.insert(acme_nonce_keys).values(values))
                row = (await tx.execute(oldest)).one()
        self._key = NonceKey(row.id, row.key)
        self._looked = now
        return self._key


def used() -> sa.CTE:
    """A part of a statement that marks a nonce as used, and has one row if it was good. Its parameters are `nonce`,
    `nonce_key` (the id of the key it was made with) and `now`."""
    given = sa.select(
        sa.bindparam("nonce", type_=acme_used_nonces.c.nonce.type),
        sa.bindparam("now", type_=acme_used_nonces.c.used_at.type),
    ).where(sa.exists().where(acme_nonce_keys.c.id == sa.bindparam("nonce_key")))
    return (
        postgresql.insert(acme_used_nonces)
        .from_select(["nonce", "used_at"], given)
        .on_conflict_do_nothing()
        .returning(acme_used_nonces.c.nonce)
        .cte("used")
    )


async def forget_old(services: Services) -> None:
    """Chore: nonces too old to be taken needn't be remembered."""
    async with services.db.begin() as tx:
        u = acme_used_nonces.c
        await tx.execute(sa.delete(acme_used_nonces).where(u.used_at < services.clock.now() - 2 * LIFE))
