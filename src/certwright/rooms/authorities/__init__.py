"""The authorities room: private CAs, their signing component, what they issue, revocation lists and OCSP."""

from certwright.platform.services import Services
from certwright.rooms.authorities import jobs
from certwright.rooms.authorities.actions import (
    builtin_issuing_id,
    ders_of,
    get_authority,
    issue,
    issue_many,
    issued,
    list_authorities,
    move_issued,
    public_authorities,
    public_certificate,
    root_ders,
)
from certwright.rooms.authorities.hierarchy import (
    create_authority,
    delete_authority,
    disable_authority,
    enable_authority,
    ensure_builtin,
    import_authority,
    install_certificate,
    restore_authority,
    revoke_authority,
    update_authority,
)
from certwright.rooms.authorities.kits import client_kit
from certwright.rooms.authorities.leaves import (
    delete_leaf,
    export_leaf,
    get_leaf,
    issue_leaves,
    list_leaves,
    revoke_leaf,
)
from certwright.rooms.authorities.lists import newest_crl, revoke
from certwright.rooms.authorities.profiles import create_profile, delete_profile, list_profiles, update_profile
from certwright.rooms.authorities.signer import Signer, SoftwareSigner
from certwright.rooms.authorities.status import StatusAnswer, StatusAnswers, answer
from certwright.rooms.authorities.store import ca_state
from certwright.rooms.authorities.tables import authorities
from certwright.rooms.authorities.words import (
    CA_STEP,
    Authority,
    CaOrigin,
    CaProfile,
    CaRequest,
    CaState,
    Crl,
    IssuedCertificate,
    IssueRequest,
    Leaf,
    LeafRequest,
)

__all__ = [
    "Authority",
    "CaOrigin",
    "CaProfile",
    "CaRequest",
    "CaState",
    "Crl",
    "IssueRequest",
    "IssuedCertificate",
    "Leaf",
    "LeafRequest",
    "Signer",
    "SoftwareSigner",
    "StatusAnswer",
    "StatusAnswers",
    "answer",
    "builtin_issuing_id",
    "ca_state",
    "client_kit",
    "create_authority",
    "create_profile",
    "delete_authority",
    "delete_leaf",
    "delete_profile",
    "ders_of",
    "disable_authority",
    "enable_authority",
    "ensure_builtin",
    "export_leaf",
    "get_authority",
    "get_leaf",
    "import_authority",
    "install_certificate",
    "issue",
    "issue_leaves",
    "issue_many",
    "issued",
    "list_authorities",
    "list_leaves",
    "list_profiles",
    "move_issued",
    "newest_crl",
    "public_authorities",
    "public_certificate",
    "register",
    "restore_authority",
    "revoke",
    "revoke_authority",
    "revoke_leaf",
    "root_ders",
    "update_authority",
    "update_profile",
]


def register(services: Services) -> None:
    SoftwareSigner.register(services)
    services.jobs.register(CA_STEP, authorities, jobs.step)
