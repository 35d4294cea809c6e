"""The validation room: proof that the applicant controls the names, kept as evidence, explained when it fails."""

from __future__ import annotations

from certwright.platform.services import Services
from certwright.rooms.validation import foresight
from certwright.rooms.validation.actions import (
    cancel,
    check_caa,
    check_dns,
    check_file,
    check_now,
    list_evidence,
    method_offers,
    move,
    publish,
    require_domains,
    state,
    tls_alpn_answers,
    why_caa_forbids,
)
from certwright.rooms.validation.checks import follow, gather_tls_alpn
from certwright.rooms.validation.connections import (
    STEP,
    check_connection,
    create_connection,
    delete_connection,
    get_connection,
    list_connections,
    operators,
    secret_context,
    update_connection,
)
from certwright.rooms.validation.foresight import EVIDENCE_LASTS, EVIDENCE_RUNS_OUT, FORESEE_STEP
from certwright.rooms.validation.jobs import challenge_step, version_issued
from certwright.rooms.validation.ledger import DOMAINS_VALIDATED
from certwright.rooms.validation.mails import LINK_PATH, confirm, look_link, resend
from certwright.rooms.validation.ports import (
    DnsField,
    DnsOperator,
    DnsProvider,
    DnsProviders,
    DnsWriter,
    Letter,
    Mail,
    longest_zone,
)
from certwright.rooms.validation.proofs import Shown, held_zones, shown_by
from certwright.rooms.validation.rulebook import Rulebook, get_rules, replace_rules, revert_rules, rules_of
from certwright.rooms.validation.rulepack import (
    LETS_ENCRYPT,
    RenewalFallback,
    RulePack,
    Validity,
    dcv_reuse,
    dcv_usable_until,
    lets_encrypt_classic,
    method_end,
    organization_reuse,
    rule_pack,
    validity,
)
from certwright.rooms.validation.tables import challenges, dns_connections, foreseen
from certwright.rooms.validation.words import (
    CaaVerdict,
    CaKind,
    ChallengeStatus,
    Delegation,
    DnsConnection,
    DnsRecord,
    DomainResult,
    DomainState,
    Evidence,
    Explanation,
    FileToPublish,
    MailedLink,
    Mailing,
    Method,
    Offer,
    ValidationState,
    Wanted,
)

__all__ = [
    "DOMAINS_VALIDATED",
    "EVIDENCE_LASTS",
    "EVIDENCE_RUNS_OUT",
    "FORESEE_STEP",
    "LETS_ENCRYPT",
    "LINK_PATH",
    "STEP",
    "CaKind",
    "CaaVerdict",
    "ChallengeStatus",
    "Delegation",
    "DnsConnection",
    "DnsField",
    "DnsOperator",
    "DnsProvider",
    "DnsProviders",
    "DnsRecord",
    "DnsWriter",
    "DomainResult",
    "DomainState",
    "Evidence",
    "Explanation",
    "FileToPublish",
    "Letter",
    "Mail",
    "MailedLink",
    "Mailing",
    "Method",
    "Offer",
    "RenewalFallback",
    "RulePack",
    "Rulebook",
    "Shown",
    "ValidationState",
    "Validity",
    "Wanted",
    "cancel",
    "check_caa",
    "check_connection",
    "check_dns",
    "check_file",
    "check_now",
    "confirm",
    "create_connection",
    "dcv_reuse",
    "dcv_usable_until",
    "delete_connection",
    "follow",
    "gather_tls_alpn",
    "get_connection",
    "get_rules",
    "held_zones",
    "lets_encrypt_classic",
    "list_connections",
    "list_evidence",
    "longest_zone",
    "look_link",
    "method_end",
    "method_offers",
    "move",
    "operators",
    "organization_reuse",
    "publish",
    "register",
    "replace_rules",
    "require_domains",
    "resend",
    "revert_rules",
    "rule_pack",
    "rules_of",
    "shown_by",
    "state",
    "tls_alpn_answers",
    "update_connection",
    "validity",
    "why_caa_forbids",
]


def register(services: Services) -> None:
    """Called once per process by the entry."""
    services.jobs.register(STEP, challenges, challenge_step)
    services.jobs.register(FORESEE_STEP, foreseen, foresight.foresee_step)
    services.events.subscribe_batch("certificate.version_issued", "validation", version_issued)
    for kind in ("certificate.revoked", "certificate.deleted"):
        services.events.subscribe(kind, "validation", foresight.renewal_over)
    services.vault.register(dns_connections.c.secret, secret_context)
