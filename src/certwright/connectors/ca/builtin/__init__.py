"""The product's own CA behind the same port as any other."""

from __future__ import annotations

from certwright.kernel.problems import not_found
from certwright.platform.services import Services
from certwright.rooms import authorities
from certwright.rooms.certificates import Capabilities, CertificateOrder, Issued, Pending, Rejected, RevocationReason
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import read_csr


class BuiltinCa:
    """Issues at once from the account's built-in issuing CA."""

    def __init__(self, services: Services) -> None:
        self.capabilities = Capabilities(
            name="Built-in CA", public=False, methods=("dns", "file"), revocation_reasons=tuple(RevocationReason)
        )
        self._services = services

    async def submit(self, order: CertificateOrder) -> str:
        async with self._services.db.begin() as tx:
            authority_id = await authorities.builtin_issuing_id(tx, order.account_id)
        issued = await authorities.issue(
            self._services,
            authority_id,
            authorities.IssueRequest(
                reference=order.reference,
                account_id=order.account_id,
                project_id=order.project_id,
                names=order.names,
                public_key=read_csr(order.csr_der).public_key,
            ),
        )
        return issued.id

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Rejected:
        async with self._services.db.begin() as tx:
            issued = await authorities.issued(tx, order_id, account_id)
        return Issued(issued.der, issued.chain_ders)

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        serial = read_certificate(leaf_der).serial
        if not serial:
            raise not_found("issued certificate", "")
        await authorities.revoke(self._services, account_id, serial, reason.value)
