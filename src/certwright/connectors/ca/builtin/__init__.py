"""The product's own CA behind the same port as any other."""

from __future__ import annotations

from dataclasses import replace

from certwright.kernel.problems import not_found
from certwright.platform.services import Services
from certwright.rooms import authorities
from certwright.rooms.certificates import (
    Capabilities,
    CertificateOrder,
    CertificateType,
    Issued,
    Pending,
    Rejected,
    RevocationReason,
)
from certwright.x509.certificates import read_certificate
from certwright.x509.csr import read_csr
from certwright.x509.issue import Subject

_EV = (CertificateType.EV, CertificateType.EV_PRO)
# EVG 7.1.4.2.3: one of these sentences, word for word.
_BUSINESS = {
    "company": "Private Organization",
    "non_profit": "Private Organization",
    "sole_trader": "Business Entity",
    "public_body": "Government Entity",
}


class BuiltinCa:
    """Issues at once from the account's built-in issuing CA."""

    def __init__(self, services: Services) -> None:
        self.capabilities = Capabilities(
            name="Built-in CA", public=False, methods=("dns", "file", "email"), types=tuple(CertificateType),
            revocation_reasons=tuple(RevocationReason), root_hashes=("default", "sha256"),
        )  # fmt: skip
        self._services = services

    async def submit(self, order: CertificateOrder) -> str:
        async with self._services.db.read() as tx:
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
                profile=_profile(order.certificate_type),
                subject=_subject(order),
                replaces=read_certificate(order.replaces_der).serial or None if order.replaces_der else None,
            ),
        )
        return issued.id

    async def collect(self, order_id: str, account_id: str) -> Issued | Pending | Rejected:
        async with self._services.db.read() as tx:
            issued = await authorities.issued(tx, order_id, account_id)
        return Issued(issued.der, issued.chain_ders)

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        serial = read_certificate(leaf_der).serial
        if not serial:
            raise not_found("issued certificate", "")
        await authorities.revoke(self._services, account_id, serial, reason.value)


def _profile(certificate_type: CertificateType) -> str:
    if certificate_type in _EV:
        return "server_ev"
    return "server_ov" if certificate_type.names_organisation else "server"


def _subject(order: CertificateOrder) -> Subject | None:
    """What OV (BR 7.1.2.7.4) and EV (EVG 7.1.4.2) certificates say of their holder."""
    facts = order.organisation
    if facts is None or not order.certificate_type.names_organisation:
        return None
    subject = Subject(
        organization=facts["legal_name"], locality=facts["city"] or None, state=facts["province"] or None,
        country=facts["country"],
    )  # fmt: skip
    if order.certificate_type not in _EV:
        return subject
    # What EVG 7.1.4.2.5 asks for where a body made by law has no number: that it is one.
    number = facts["registration_number"] or _BUSINESS["public_body"]
    return replace(
        subject, serial_number=number, business_category=_BUSINESS[facts["kind"]],
        jurisdiction_country=facts["jurisdiction_country"], jurisdiction_state=facts["jurisdiction_region"] or None,
    )  # fmt: skip
