"""`certificates.OutsideAuthorities`: the CAs of the cas room, each behind the connector of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from certwright.connectors.ca.acme import AcmeAuthorities, AcmeCa
from certwright.connectors.ca.certcentral import CertCentralCa
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import cas
from certwright.rooms.certificates import CertificateAuthority


class OutsideCas:
    """Found by id or name."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._acme = AcmeAuthorities(services)

    async def find(self, tx: Tx, account_id: str, ca: str) -> tuple[str, CertificateAuthority] | None:
        row = await cas.store.find(tx, account_id, ca)
        if row is None:
            return None
        if row.kind == cas.CaKind.CERTCENTRAL:
            return row.id, CertCentralCa(self._services, row)
        return row.id, AcmeCa(self._services, self._acme, row)

    async def names(self, tx: Tx, account_id: str) -> Sequence[str]:
        return await cas.store.names(tx, account_id)
