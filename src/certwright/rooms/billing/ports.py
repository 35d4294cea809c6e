"""What billing needs from others: certificates made, held and removed by the room above; money moved by providers.

The certificates room answers inside billing's transaction, so that an order is paid and fulfilled, or neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from certwright.kernel.actor import Actor
from certwright.kernel.money import Money
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.billing.words import BoughtCertificate, Predecessor


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a paid order buys: `quantity` certificates, alike. `product` is the snapshot it was sold at, `ca`
    the id its CA is stored by."""

    order_id: str
    account_id: str
    project_id: str
    ca: str
    product: Mapping[str, Any]
    quantity: int
    names: int
    wildcards: int
    years: int
    paid: bool
    renews_certificate_id: str | None = None
    inherited_days: int = 0
    primary_name: str = ""


class Fulfilment(Protocol):
    """Making what was bought. Every call runs in the caller's transaction and may be repeated after a crash."""

    async def offered(self, tx: Tx, services: Services, account_id: str, cas: Iterable[str]) -> Mapping[str, str]:
        """Those of these CAs (ids, or names the account gave) that are configured, with the id certificates store."""
        ...

    def require_use(self, services: Services, actor: Actor, ca: str, project_id: str) -> None:
        """Raises Forbidden for an actor who may not order from this CA (its id) for this project."""
        ...

    async def deliver(self, tx: Tx, services: Services, actor: Actor, delivery: Delivery) -> tuple[str, ...]:
        """Ids of the new certificates, in `pending_application`."""
        ...

    async def bought(self, tx: Tx, services: Services, order_id: str, *, lock: bool) -> tuple[BoughtCertificate, ...]:
        """The certificates of an order that still exist, oldest first."""
        ...


class Withdrawal(Protocol):
    """Taking back what was bought, in the caller's transaction."""

    async def hold(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        """No other operation from now on; returns how many certificates are held."""
        ...

    async def release(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        """Back to where they were; returns how many."""
        ...

    async def remove(self, tx: Tx, services: Services, actor: Actor, order_id: str) -> int:
        """Delete the held certificates with their keys; returns how many. Raises Refused when one is still bound."""
        ...


class Predecessors(Protocol):
    """Certificates that renewal orders follow."""

    async def predecessor(self, tx: Tx, actor: Actor, certificate_id: str) -> Predecessor:
        """Raises NotFound, or Forbidden for who may not renew it."""
        ...


@dataclass(frozen=True, slots=True)
class Charge:
    """`reference` identifies the charge for ever: the same reference never takes money twice."""

    reference: str
    order_id: str
    account_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class Charged:
    """Done; `provider_reference` is the provider's own id, needed to give money back."""

    provider_reference: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ask again after this time."""

    again: timedelta


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider said no for good."""

    reason: str


class PaymentProvider(Protocol):
    """Somebody outside who moves money. Every call may be repeated after a crash and then finds what it did before.

    Called without an open transaction. Raises kernel.problems.Unavailable when the provider can't be reached.
    """

    async def charge(self, charge: Charge) -> Charged | Waiting | Declined: ...

    async def refund(self, charge: Charge, provider_reference: str) -> Charged | Waiting | Declined:
        """Give the amount back; `charge.reference` is the refund's own. The answer names the provider's refund."""
        ...


@dataclass(frozen=True, slots=True)
class PaymentProviders:
    """The external payment methods of this installation by name; `balance`, `invoice` and `none` are built in."""

    by_name: Mapping[str, PaymentProvider]
