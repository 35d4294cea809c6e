"""The validation room: proof that the applicant controls the names, kept as evidence, explained when it fails."""

from __future__ import annotations

from certwright.platform.services import Services
from certwright.rooms.validation.actions import (
    DOMAINS_VALIDATED,
    STEP,
    cancel,
    check_caa,
    check_dns,
    check_file,
    check_now,
    list_evidence,
    method_offers,
    require_domains,
    state,
)
from certwright.rooms.validation.connections import (
    check_connection,
    create_connection,
    delete_connection,
    get_connection,
    list_connections,
    secret_context,
    update_connection,
)
from certwright.rooms.validation.jobs import challenge_step, version_issued
from certwright.rooms.validation.ports import DnsProvider, DnsProviders, DnsWriter, longest_zone
from certwright.rooms.validation.rulepack import (
    RulePack,
    Validity,
    dcv_reuse,
    dcv_usable_until,
    method_end,
    organization_reuse,
    rule_pack,
    validity,
)
from certwright.rooms.validation.tables import challenges, dns_connections
from certwright.rooms.validation.words import (
    CaaVerdict,
    CaKind,
    ChallengeStatus,
    DnsConnection,
    DnsRecord,
    DomainResult,
    DomainState,
    Evidence,
    Explanation,
    FileToPublish,
    Method,
    Offer,
    ValidationState,
)

__all__ = [
    "DOMAINS_VALIDATED",
    "STEP",
    "CaKind",
    "CaaVerdict",
    "ChallengeStatus",
    "DnsConnection",
    "DnsProvider",
    "DnsProviders",
    "DnsRecord",
    "DnsWriter",
    "DomainResult",
    "DomainState",
    "Evidence",
    "Explanation",
    "FileToPublish",
    "Method",
    "Offer",
    "RulePack",
    "ValidationState",
    "Validity",
    "cancel",
    "check_caa",
    "check_connection",
    "check_dns",
    "check_file",
    "check_now",
    "create_connection",
    "dcv_reuse",
    "dcv_usable_until",
    "delete_connection",
    "get_connection",
    "list_connections",
    "list_evidence",
    "longest_zone",
    "method_end",
    "method_offers",
    "organization_reuse",
    "register",
    "require_domains",
    "rule_pack",
    "state",
    "update_connection",
    "validity",
]


def register(services: Services) -> None:
    """Called once per process by the entry."""
    services.jobs.register(STEP, challenges, challenge_step)
    services.events.subscribe("certificate.version_issued", "validation", version_issued)
    services.vault.register(dns_connections.c.secret, secret_context)
