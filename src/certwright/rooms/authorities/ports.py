"""What the room asks of others: an HSM that makes CA keys and signs with them."""

from __future__ import annotations

from typing import Protocol

from certwright.rooms.authorities.words import TokenState
from certwright.x509.keys import KeyAlgorithm, PublicKey


class Token(Protocol):
    """A token of an HSM. `handle` is what we call a key in it: random octets in hex, chosen by the caller.

    Every call is bounded in time and raises Refused `hsm_not_configured`, `hsm_token_ambiguous`, `hsm_pin_wrong`,
    `hsm_pin_last_try`, `hsm_pin_locked`, `hsm_pin_expired`, `hsm_refused`, or Unavailable `hsm_not_configured`,
    `hsm_module_missing`, `hsm_token_missing`, `hsm_sessions`, `hsm_unavailable`.
    """

    @property
    def label(self) -> str:
        """Of the token keys are made in. Raises Refused `hsm_not_configured`."""
        ...

    async def create_key(self, handle: str, name: str, algorithm: KeyAlgorithm) -> PublicKey:
        """Makes a key that can't leave the token, and tries it once; what a broken off call left behind under the
        handle goes first. Raises Refused `hsm_key_kind`, `hsm_key_extractable`, `hsm_key_unusable`, `hsm_full`,
        `hsm_read_only` too."""
        ...

    async def sign(self, handle: str, data: bytes, hash_name: str) -> bytes:
        """ECDSA (DER) or RSA with PKCS#1 v1.5 over `data`. Raises Unavailable `hsm_key_missing` too."""
        ...

    async def destroy_key(self, handle: str) -> None:
        """For good. Content to find nothing. Raises Refused `hsm_read_only` too."""
        ...

    async def state(self, *, anew: bool = False) -> TokenState:
        """Looks at the token; what is wrong stands in the answer. `anew` forgets that the PIN was refused before, and
        may use its last try."""
        ...

    async def close(self) -> None: ...
