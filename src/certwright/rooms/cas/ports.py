"""What the cas room needs from above: who speaks to a CA about an account, and who knows what depends on a CA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from certwright.platform.db import Tx
from certwright.rooms.cas.words import Credentials, Offers, ShopCredentials
from certwright.x509.keys import PrivateKey


class AccountKeeper(Protocol):
    """Speaks to CAs about accounts. Nothing of an order is known here.

    Every call may be repeated after a crash and then finds what it did before. All raise Unavailable when the CA
    can't be reached or asks for patience (`extra["retry_after"]`, seconds), and Invalid or Refused for a no.
    """

    async def offers(self, ca: Credentials) -> Offers:
        """What the directory says today."""
        ...

    async def register(self, ca: Credentials) -> str:
        """The account's URL: the one this key has, else a new one."""
        ...

    async def find(self, ca: Credentials, key: PrivateKey) -> str | None:
        """The URL of the account this key has at the CA, or None; makes nothing."""
        ...

    async def tell_contacts(self, ca: Credentials) -> None: ...

    async def change_key(self, ca: Credentials, new: PrivateKey) -> None:
        """From now on the account answers to `new` alone."""
        ...

    async def deactivate(self, ca: Credentials) -> None:
        """Close the account for good; content to find it closed."""
        ...


class Storefront(Protocol):
    """Speaks to CAs that sell, about what they sell."""

    async def products(self, ca: ShopCredentials) -> Mapping[str, str]:
        """The CA's own names of the products this account may order, each with one for people. Raises Unavailable
        when the CA can't be reached or asks for patience, Refused when it doesn't take the key."""
        ...


class Dependents(Protocol):
    """What would be lost with a CA; answered by the certificates room, which this room must not know."""

    async def certificates_of(self, tx: Tx, ca_id: str) -> int: ...
