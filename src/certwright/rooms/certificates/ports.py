"""The port behind which every CA stands: the built-in one today, ACME and commercial ones later.

A connector is a folder in `connectors/ca/` and passes `tests/certificates/ca_conformance.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from certwright.platform.db import Tx
from certwright.rooms.certificates.words import RevocationReason


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a CA is and takes; facts rules need before anything is ordered."""

    name: str
    public: bool
    methods: tuple[str, ...]
    revocation_reasons: tuple[RevocationReason, ...]


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """`reference` is the application's id: the same reference never yields two certificates."""

    reference: str
    account_id: str
    project_id: str
    names: tuple[str, ...]
    csr_der: bytes


@dataclass(frozen=True, slots=True)
class Issued:
    leaf_der: bytes
    chain_ders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """Ask again after this time."""

    again: timedelta


@dataclass(frozen=True, slots=True)
class Rejected:
    """The CA said no for good; `reasons` are its words."""

    reasons: tuple[str, ...]


class CertificateAuthority(Protocol):
    """Every call may be repeated after a crash and then finds what it did before.

    Raises kernel.problems.Unavailable when the CA can't be reached.
    """

    capabilities: Capabilities

    async def submit(self, order: CertificateOrder) -> str:
        """Order a certificate; returns the CA's own id of the order."""
        ...

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Rejected: ...

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        """Content to find it revoked already."""
        ...


@dataclass(frozen=True, slots=True)
class AuthorityDirectory:
    """The CAs this installation can order from, by the id stored on certificates."""

    by_id: Mapping[str, CertificateAuthority]

    def get(self, ca: str) -> CertificateAuthority | None:
        return self.by_id.get(ca)


class Usage(Protocol):
    """Where a certificate is used; answered by the deployment room, which this room must not know."""

    async def bound_to(self, tx: Tx, certificate_id: str) -> tuple[str, ...]:
        """Names of the listeners it is bound to, for people."""
        ...
