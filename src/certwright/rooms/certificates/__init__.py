"""The certificates room: applications, versions and states, from the first draft to deletion."""

from certwright.platform.services import Services
from certwright.rooms import organisations
from certwright.rooms.certificates.actions import (
    BUILTIN_CA,
    REVOKE_STEP,
    SORTS,
    STEP,
    CaDependents,
    CsrUsers,
    Filters,
    add_domains,
    apply,
    apply_again,
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
    renew_version,
    revoke,
    save_draft,
    still_current,
    update_certificate,
    usable_version,
    version_material,
    withdraw,
    withdraw_privacy,
)
from certwright.rooms.certificates.confirmations import MailedRevocation
from certwright.rooms.certificates.confirmations import confirm as confirm_revocation
from certwright.rooms.certificates.confirmations import look_link as look_revocation_link
from certwright.rooms.certificates.downloads import Download, Format, download
from certwright.rooms.certificates.fulfilment import BoughtCertificates, coverage_begins
from certwright.rooms.certificates.jobs import (
    domains_validated,
    give_back_order,
    issue_step,
    organisation_decided,
    revoke_step,
)
from certwright.rooms.certificates.ports import (
    AuthorityDirectory,
    Cancelled,
    Cancels,
    Capabilities,
    CertificateAuthority,
    CertificateOrder,
    Challenging,
    Issued,
    Letter,
    Mail,
    Needs,
    OutsideAuthorities,
    Pending,
    Rejected,
    RenewalInformation,
    RenewalWindow,
    RevokesByKey,
    TooLate,
    Usage,
)
from certwright.rooms.certificates.private import PrivateIssuance, issue_private
from certwright.rooms.certificates.rules import MOST_NAMES, judge_application, renew_at
from certwright.rooms.certificates.standing import Match, Standing, standing
from certwright.rooms.certificates.tables import CURRENT, applications, followed, versions
from certwright.rooms.certificates.views import ApplicationView, Detail, Summary, VersionView
from certwright.rooms.certificates.words import (
    CURRENT_PRIVACY_STATEMENT,
    UNCHANGED,
    Applicant,
    Application,
    CertificateType,
    Changes,
    DomainType,
    NewVersion,
    Operation,
    RevocationReason,
    State,
    VersionMaterial,
)
from certwright.rooms.validation import Wanted

__all__ = [
    "BUILTIN_CA",
    "CURRENT",
    "CURRENT_PRIVACY_STATEMENT",
    "MOST_NAMES",
    "SORTS",
    "UNCHANGED",
    "Applicant",
    "Application",
    "ApplicationView",
    "AuthorityDirectory",
    "BoughtCertificates",
    "CaDependents",
    "Cancelled",
    "Cancels",
    "Capabilities",
    "CertificateAuthority",
    "CertificateOrder",
    "CertificateType",
    "Challenging",
    "Changes",
    "CsrUsers",
    "Detail",
    "DomainType",
    "Download",
    "Filters",
    "Format",
    "Issued",
    "Letter",
    "Mail",
    "MailedRevocation",
    "Match",
    "Needs",
    "NewVersion",
    "Operation",
    "OutsideAuthorities",
    "Pending",
    "PrivateIssuance",
    "Rejected",
    "RenewalInformation",
    "RenewalWindow",
    "RevocationReason",
    "RevokesByKey",
    "Standing",
    "State",
    "Summary",
    "TooLate",
    "Usage",
    "VersionMaterial",
    "VersionView",
    "Wanted",
    "add_domains",
    "apply",
    "apply_again",
    "check_domains",
    "confirm_revocation",
    "count_by_state",
    "create_certificate",
    "current_version",
    "delete_certificate",
    "download",
    "expiry_days",
    "followed",
    "get_certificate",
    "issue_private",
    "judge_application",
    "list_certificates",
    "look_revocation_link",
    "read_draft",
    "register",
    "reissue",
    "renew_at",
    "renew_version",
    "revoke",
    "save_draft",
    "standing",
    "still_current",
    "update_certificate",
    "usable_version",
    "version_material",
    "withdraw",
    "withdraw_privacy",
]


def register(services: Services) -> None:
    services.jobs.register(STEP, applications, issue_step)
    services.jobs.register(REVOKE_STEP, versions, revoke_step)
    services.events.subscribe("validation.domains_validated", "certificates", domains_validated)
    services.events.subscribe("certificate.application_failed", "certificates.give_back", give_back_order)
    services.events.subscribe(organisations.VERIFIED, "certificates", organisation_decided)
    services.events.subscribe(organisations.REFUSED, "certificates", organisation_decided)
    services.events.subscribe_batch("certificate.version_issued", "certificates.coverage", coverage_begins)
