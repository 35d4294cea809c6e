"""What the validation room needs from others: of whoever hosts a DNS zone that one record is added and taken away, of
whoever sends mail that letters to a domain's mailboxes are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from certwright.kernel.problems import Invalid
from certwright.platform.db import Tx
from certwright.platform.egress import Egress
from certwright.platform.resolver import Nameserver
from certwright.platform.services import Services
from certwright.rooms.validation.words import DnsRecord


class DnsWriter(Protocol):
    """One connection to a DNS operator. Names are plain lower-case names without a trailing dot.

    `add` and `remove` take TXT and CNAME records, touch exactly one value and are content to find the work done; they
    don't wait for secondaries. Both raise problems with the codes dns_update_unreachable, dns_update_bad_key,
    dns_update_refused, dns_update_not_zone, dns_update_cname (a CNAME is in the way, so that nothing was added),
    dns_update_name_taken (a CNAME is to be added where other records are) or dns_update_failed.
    """

    def zone_for(self, name: str) -> str | None:
        """The zone of this connection that holds the name; the longest match wins; None if none does."""
        ...

    async def servers(self) -> tuple[Nameserver, ...]:
        """Where a written record can be looked up at once; empty if the operator has no such server."""
        ...

    async def check_credentials(self) -> None:
        """Prove that every zone could be updated, changing nothing; raises as above."""
        ...

    async def add(self, record: DnsRecord) -> None: ...

    async def remove(self, record: DnsRecord) -> None: ...


@dataclass(frozen=True, slots=True)
class DnsField:
    """One thing to ask for. `secret`: it becomes part of the secret. `choices` empty: any text; `default` is what is
    used when it is left out."""

    name: str
    secret: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class DnsOperator:
    """Whom a connection can be made to, and what to ask for. `key` is unique among all; `settings` come with it."""

    key: str
    title: str
    kind: str
    fields: tuple[DnsField, ...]
    settings: Mapping[str, str] = field(default_factory=dict)

    def secret(self, given: Mapping[str, str]) -> str:
        """One secret of what was typed into the secret fields: the value alone, or lines of name=value."""
        names = [one.name for one in self.fields if one.secret]
        if len(names) == 1:
            return given.get(names[0], "")
        return "\n".join(f"{name}={given[name]}" for name in names if given.get(name))


class DnsProvider(Protocol):
    """A kind of DNS connection. `settings` are plain facts shown to people; `secret` is sealed in the vault."""

    def operators(self) -> tuple[DnsOperator, ...]: ...

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check and complete the settings; raises Invalid or InvalidFields naming `settings.<field>`."""
        ...

    def check_secret(self, secret: str, settings: Mapping[str, Any]) -> None:
        """Raises Invalid for a secret that can't be one beside these (checked) settings."""
        ...

    def writer(self, egress: Egress, zones: Sequence[str], settings: Mapping[str, Any], secret: str) -> DnsWriter: ...


@dataclass(frozen=True, slots=True)
class DnsProviders:
    """The kinds there are, put into Services.ports by the entry."""

    by_kind: Mapping[str, DnsProvider] = field(default_factory=dict)

    def operators(self) -> tuple[DnsOperator, ...]:
        """All that connections can be made to, in the order of the kinds."""
        return tuple(operator for provider in self.by_kind.values() for operator in provider.operators())

    def get(self, kind: str) -> DnsProvider:
        """Raises Invalid dns_kind_unknown."""
        provider = self.by_kind.get(kind)
        if provider is None:
            raise Invalid(
                "dns_kind_unknown", f"There is no kind of DNS connection called {kind!r}.", field="kind",
                fix=f"Choose one of: {', '.join(sorted(self.by_kind))}.",
            )  # fmt: skip
        return provider


def longest_zone(name: str, zones: Sequence[str]) -> str | None:
    """The most specific of `zones` that holds `name`."""
    held = [zone for zone in zones if name == zone or name.endswith("." + zone)]
    return max(held, key=len, default=None)


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to a mailbox of a domain. `key` names the occasion: the same key is written once. `link` holds a
    secret, so whoever keeps the text wipes it once it was sent."""

    account_id: str
    subject_id: str
    key: str
    to_address: str
    account_name: str
    domain: str
    names: tuple[str, ...]
    link: str
    until: datetime


class Mail(Protocol):
    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        """Put the letter into the outbox, in the caller's transaction."""
        ...
