"""The certificates room: applications, versions and states, from the first draft to deletion."""

from certwright.platform.services import Services
from certwright.rooms.certificates.actions import (
    BUILTIN_CA,
    REVOKE_STEP,
    SORTS,
    STEP,
    Filters,
    apply,
    check_domains,
    count_by_state,
    create_certificate,
    current_version,
    delete_certificate,
    expiry_days,
    get_certificate,
    list_certificates,
    read_draft,
    reissue,
    revoke,
    save_draft,
    update_certificate,
    usable_version,
    version_material,
    withdraw,
)
from certwright.rooms.certificates.downloads import Download, Format, download
from certwright.rooms.certificates.jobs import domains_validated, issue_step, revoke_step
from certwright.rooms.certificates.ports import (
    AuthorityDirectory,
    Capabilities,
    CertificateAuthority,
    CertificateOrder,
    Issued,
    Pending,
    Rejected,
    Usage,
)
from certwright.rooms.certificates.private import PrivateIssuance, issue_private
from certwright.rooms.certificates.rules import judge_application, renew_at
from certwright.rooms.certificates.tables import CURRENT, applications, versions
from certwright.rooms.certificates.views import ApplicationView, Detail, Summary, VersionView
from certwright.rooms.certificates.words import (
    CURRENT_PRIVACY_STATEMENT,
    Applicant,
    Application,
    DomainType,
    Operation,
    RevocationReason,
    State,
    VersionMaterial,
)

__all__ = [
    "BUILTIN_CA",
    "CURRENT",
    "CURRENT_PRIVACY_STATEMENT",
    "SORTS",
    "Applicant",
    "Application",
    "ApplicationView",
    "AuthorityDirectory",
    "Capabilities",
    "CertificateAuthority",
    "CertificateOrder",
    "Detail",
    "DomainType",
    "Download",
    "Filters",
    "Format",
    "Issued",
    "Operation",
    "Pending",
    "PrivateIssuance",
    "Rejected",
    "RevocationReason",
    "State",
    "Summary",
    "Usage",
    "VersionMaterial",
    "VersionView",
    "apply",
    "check_domains",
    "count_by_state",
    "create_certificate",
    "current_version",
    "delete_certificate",
    "download",
    "expiry_days",
    "get_certificate",
    "issue_private",
    "judge_application",
    "list_certificates",
    "read_draft",
    "register",
    "reissue",
    "renew_at",
    "revoke",
    "save_draft",
    "update_certificate",
    "usable_version",
    "version_material",
    "withdraw",
]


def register(services: Services) -> None:
    services.jobs.register(STEP, applications, issue_step)
    services.jobs.register(REVOKE_STEP, versions, revoke_step)
    services.events.subscribe("validation.domains_validated", "certificates", domains_validated)
