"""The policies everybody has, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from certwright.rooms.access.words import Policy

TENANT_ADMINISTRATOR = "tenant_administrator"


def _policy(policy_id: str, name: str, description: str, *statements: Mapping[str, Any]) -> Policy:
    document = {"Version": "1.1", "Statement": list(statements)}
    return Policy(policy_id, None, name, description, document, 1, None)


def _allow(*actions: str) -> Mapping[str, Any]:
    return {"Effect": "Allow", "Action": list(actions)}


_PROJECTS = ("iam:project:list", "iam:project:get")

SYSTEM_POLICIES: Mapping[str, Policy] = MappingProxyType({
    policy.id: policy
    for policy in (
        _policy(TENANT_ADMINISTRATOR, "Tenant Administrator", "Everything in the account.", _allow("*")),
        _policy(
            "scm_administrator", "SCM Administrator",
            "Certificates, servers, validation, private CAs, watching and messages; not users and policies.",
            _allow("scm:*", "ccm:*", "dns:*", "alarm:*", "smn:*", *_PROJECTS),
        ),
        _policy("scm_full_access", "SCM FullAccess", "Everything about certificates.", _allow("scm:*", *_PROJECTS)),
        _policy(
            "scm_read_only_access", "SCM ReadOnlyAccess", "See certificates, servers and deployments; change nothing.",
            _allow("scm:*:list", "scm:*:get", "alarm:*:list", "alarm:*:get", *_PROJECTS),
        ),
        _policy(
            "bss_administrator", "BSS Administrator", "Catalogue, orders, payments, unsubscriptions, balance.",
            _allow("bss:*", *_PROJECTS),
        ),
        _policy(
            "dns_administrator", "DNS Administrator", "DNS connections and the validation of domains.",
            _allow("dns:*", "scm:validation:*", "scm:evidence:list", *_PROJECTS),
        ),
        _policy(
            "validation_specialist", "Validation Specialist",
            "The organization desk: verify organizations of every account. Of use in the operator's account only.",
            _allow("desk:*"),
        ),
        _policy("pca_full_access", "PCA FullAccess", "Everything about private CAs.", _allow("ccm:*", *_PROJECTS)),
        _policy(
            "security_auditor", "Security Auditor", "See everything, the audit log too, but no private key.",
            _allow("*:*:list", "*:*:get", "scm:cert:download", "iam:metrics:read"),
            {"Effect": "Deny", "Action": ["scm:cert:export_key"]},
        ),
    )
})  # fmt: skip
