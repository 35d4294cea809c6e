"""The authorities room: the private CA, its signing component, its revocation lists."""

from certwright.platform.services import Services
from certwright.rooms.authorities.actions import (
    CRL_STEP,
    builtin_issuing_id,
    ca_state,
    ensure_builtin,
    get_authority,
    issue,
    issue_many,
    issued,
    list_authorities,
    move_issued,
    newest_crl,
    public_authorities,
    public_certificate,
    publish_crl,
    revoke,
    root_ders,
)
from certwright.rooms.authorities.signer import Signer, SoftwareSigner
from certwright.rooms.authorities.tables import authorities
from certwright.rooms.authorities.words import Authority, CaState, Crl, IssuedCertificate, IssueRequest

__all__ = [
    "Authority",
    "CaState",
    "Crl",
    "IssueRequest",
    "IssuedCertificate",
    "Signer",
    "SoftwareSigner",
    "builtin_issuing_id",
    "ca_state",
    "ensure_builtin",
    "get_authority",
    "issue",
    "issue_many",
    "issued",
    "list_authorities",
    "move_issued",
    "newest_crl",
    "public_authorities",
    "public_certificate",
    "register",
    "revoke",
    "root_ders",
]


def register(services: Services) -> None:
    SoftwareSigner.register(services)
    services.jobs.register(CRL_STEP, authorities, publish_crl)
