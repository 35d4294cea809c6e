"""The catalogue of actions, and the values decisions are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SERVICES = ("scm", "ccm", "dns", "bss", "elb", "waf", "iam", "smn", "alarm", "desk")

# One line an action: what holding it lets someone do. A policy may name only these (or patterns matching them).
ACTIONS: dict[str, str] = {
    # Certificates
    "scm:cert:apply": "Apply for certificates.",
    "scm:cert:list": "See the list of certificates.",
    "scm:cert:get": "See a certificate's details.",
    "scm:cert:update": "Rename, describe and tag certificates and change their renewal settings.",
    "scm:cert:delete": "Delete certificates with their keys.",
    "scm:cert:download": "Download certificates and their chains, without private keys.",
    "scm:cert:export_key": "Download private keys.",
    "scm:cert:upload": "Upload certificates that were issued elsewhere.",
    "scm:cert:replace": "Replace uploaded certificates by newer ones.",
    "scm:upload_policy:get": "See what the account admits in uploads, and how many it may hold.",
    "scm:upload_policy:update": "Change what the account admits in uploads.",
    "scm:cert:revoke": "Revoke certificates.",
    "scm:cert:withdraw": "Withdraw applications that haven't been issued.",
    "scm:cert:withdraw_privacy": "Erase the personal data kept with certificates.",
    "scm:cert:deploy": "Deploy certificates to targets.",
    "scm:cert:renew": "Renew and reissue certificates.",
    "scm:csr:create": "Make and upload signing requests.",
    "scm:csr:list": "See the list of signing requests.",
    "scm:csr:get": "See and download a signing request.",
    "scm:csr:update": "Rename and move signing requests.",
    "scm:csr:delete": "Delete signing requests with their keys.",
    "scm:csr:export_key": "Download the private keys of signing requests.",
    "scm:csr:use": "Apply for certificates with signing requests that are kept here.",
    "scm:target:create": "Add servers that certificates are deployed to.",
    "scm:target:list": "See the list of servers.",
    "scm:target:get": "See a server's details.",
    "scm:target:update": "Change a server and which certificates its sites use.",
    "scm:target:delete": "Remove servers.",
    "scm:target:discover": "Look for sites on a server.",
    "scm:rollout:list": "See the list of deployments.",
    "scm:rollout:get": "See how a deployment went.",
    "scm:rollout:undo": "Undo a deployment.",
    "scm:renewal:list": "See when certificates are renewed, and the windows, freezes and limits for it.",
    "scm:renewal:get": "See when and why one certificate is renewed.",
    "scm:renewal:update": "Change maintenance windows, freezes and limits of renewal.",
    "scm:campaign:create": "Preview and start mass replacements of certificates.",
    "scm:campaign:list": "See the list of mass replacements.",
    "scm:campaign:get": "See how a mass replacement goes.",
    "scm:campaign:update": "Pause, resume, speed up, retry and cancel mass replacements.",
    "scm:readiness:get": "See which certificates survive shorter lives.",
    "scm:rules:get": "See the dated rules in force.",
    "scm:rules:update": "Replace the dated rules and go back to the shipped ones.",
    "scm:validation:get": "See what must be published to prove control of a domain.",
    "scm:validation:check": "Have a validation checked now.",
    "scm:evidence:list": "See the evidence of past validations.",
    "scm:ca:create": "Add CAs to order certificates from.",
    "scm:ca:list": "See the list of CAs to order from.",
    "scm:ca:get": "See the details of a CA to order from.",
    "scm:ca:update": "Change, test and register at CAs, and change their account keys.",
    "scm:ca:delete": "Remove CAs and their account keys.",
    "scm:ca:use": "Order certificates from CAs that were added.",
    # Organisations
    "scm:organisation:create": "Add organizations to apply for.",
    "scm:organisation:list": "See the list of organizations.",
    "scm:organisation:get": "See an organization's details and contacts.",
    "scm:organisation:update": "Change organizations; other facts have to be verified anew.",
    "scm:organisation:delete": "Delete organizations.",
    "scm:organisation:use": "Apply for OV and EV certificates in an organization's name.",
    "scm:vetting:list": "See which organizations are being verified.",
    "scm:vetting:get": "See how far the verification of an organization is, and what is missing.",
    "scm:vetting:choose": "Choose how an organization is verified.",
    "scm:vetting:send": "Send documents for the verification of an organization.",
    "scm:vetting:download": "Download the documents that were sent.",
    # The organisation desk: for people of the operator, never part of the certificates' permissions
    "desk:case:list": "See the queue of the organization desk, of every account.",
    "desk:case:get": "See a case of the organization desk with its evidence.",
    "desk:case:work": "Take cases, record checks, attach documents, ask applicants.",
    "desk:case:decide": "Approve, return and refuse cases of the organization desk.",
    "desk:document:download": "Download the documents of a case.",
    # Private CAs
    "ccm:ca:create": "Create private CAs.",
    "ccm:ca:list": "See the list of private CAs.",
    "ccm:ca:get": "See a private CA's details.",
    "ccm:ca:update": "Change a private CA's settings.",
    "ccm:ca:disable": "Disable and enable private CAs.",
    "ccm:ca:delete": "Delete private CAs with their keys.",
    "ccm:cert:issue": "Issue certificates from a private CA.",
    "ccm:cert:list": "See what a private CA issued.",
    "ccm:cert:get": "See an issued certificate's details.",
    "ccm:cert:revoke": "Revoke certificates of a private CA.",
    "ccm:cert:export": "Export what a private CA issued, with the key held here.",
    "ccm:cert:delete": "Delete what a private CA issued from its list, with the key held here.",
    "ccm:acme:create": "Open ACME services on private CAs.",
    "ccm:acme:list": "See the list of ACME services, and their accounts and orders.",
    "ccm:acme:get": "See an ACME service's details.",
    "ccm:acme:update": "Change ACME services, and turn their accounts away.",
    "ccm:acme:delete": "Close ACME services for good.",
    "ccm:acme:bind": "Make and revoke keys that bind ACME clients to a project.",
    "ccm:profile:list": "See the kinds of certificates private CAs issue.",
    "ccm:profile:create": "Describe kinds of certificates.",
    "ccm:profile:update": "Change kinds of certificates.",
    "ccm:profile:delete": "Delete kinds of certificates.",
    "ccm:policy:list": "See the list of policies of what private CAs issue.",
    "ccm:policy:get": "See such a policy, and try names against all that apply.",
    "ccm:policy:create": "Limit what private CAs issue by policies.",
    "ccm:policy:update": "Change such policies.",
    "ccm:policy:delete": "Delete such policies.",
    # DNS
    "dns:connection:create": "Connect DNS servers for automatic validation.",
    "dns:connection:list": "See the list of DNS connections.",
    "dns:connection:get": "See a DNS connection's details.",
    "dns:connection:update": "Change a DNS connection and its credentials.",
    "dns:connection:delete": "Remove DNS connections.",
    # Watching
    "alarm:alarm:list": "See the list of alarms.",
    "alarm:alarm:get": "See an alarm's details.",
    "alarm:alarm:ack": "Acknowledge alarms.",
    "alarm:endpoint:create": "Add addresses to watch.",
    "alarm:endpoint:list": "See the list of watched addresses.",
    "alarm:endpoint:get": "See a watched address and its history.",
    "alarm:endpoint:update": "Change a watched address.",
    "alarm:endpoint:delete": "Stop watching addresses.",
    "alarm:endpoint:probe": "Have an address looked at now.",
    # Ordering
    "bss:product:create": "Add products to the catalogue.",
    "bss:product:list": "See the catalogue.",
    "bss:product:get": "See a product and its price.",
    "bss:product:update": "Change products and their prices.",
    "bss:order:create": "Place orders, renewal orders too.",
    "bss:order:list": "See the list of orders.",
    "bss:order:get": "See an order's details.",
    "bss:order:pay": "Pay orders.",
    "bss:order:cancel": "Cancel unpaid orders.",
    "bss:order:refund": "Unsubscribe from paid orders.",
    "bss:refund:list": "See the list of unsubscriptions.",
    "bss:refund:get": "See an unsubscription's details.",
    "bss:refund:review": "Approve and reject unsubscriptions.",
    "bss:balance:get": "See the balance and what is owed.",
    "bss:balance:top_up": "Record money paid in.",
    "bss:invoice:settle": "Record that invoices were paid.",
    "bss:transaction:list": "See the account's books.",
    "bss:coupon:create": "Make coupons and vouchers.",
    "bss:coupon:list": "See the list of coupons and vouchers.",
    "bss:coupon:get": "See a coupon's details.",
    "bss:coupon:disable": "Disable coupons and vouchers.",
    "bss:setting:get": "See how the account orders.",
    "bss:setting:update": "Change who reviews unsubscriptions, when unpaid orders lapse, and limits for invoices.",
    # Messages
    "smn:recipient:create": "Add people and addresses that are told about alarms.",
    "smn:recipient:list": "See the list of recipients.",
    "smn:recipient:get": "See a recipient's details.",
    "smn:recipient:update": "Change a recipient.",
    "smn:recipient:delete": "Remove recipients.",
    "smn:message:list": "See which messages were sent.",
    "smn:message:get": "See a message that was sent.",
    # Who may do what
    "iam:account:get": "See the account.",
    "iam:account:update": "Rename the account.",
    "iam:user:create": "Invite users.",
    "iam:user:list": "See the list of users.",
    "iam:user:get": "See a user's details and policies.",
    "iam:user:update": "Rename, disable and enable users and send them password links.",
    "iam:user:delete": "Delete users.",
    "iam:group:create": "Create groups.",
    "iam:group:list": "See the list of groups.",
    "iam:group:get": "See a group's members and policies.",
    "iam:group:update": "Rename groups and change their members.",
    "iam:group:delete": "Delete groups.",
    "iam:policy:create": "Create policies.",
    "iam:policy:list": "See the list of policies and attachments, and simulate decisions.",
    "iam:policy:get": "See a policy's document.",
    "iam:policy:update": "Change, attach and detach policies.",
    "iam:policy:delete": "Delete policies.",
    "iam:project:create": "Create projects.",
    "iam:project:list": "See the list of projects.",
    "iam:project:get": "See a project's details.",
    "iam:project:update": "Rename projects.",
    "iam:project:delete": "Delete empty projects.",
    "iam:token:create": "Create API tokens of one's own.",
    "iam:token:list": "See everybody's API tokens, without their secrets.",
    "iam:token:get": "See an API token's details, without its secret.",
    "iam:token:update": "Rename API tokens.",
    "iam:token:delete": "Revoke anybody's API tokens.",
    "iam:audit:list": "Read the audit log.",
    "iam:setting:get": "See the server's settings.",
    "iam:setting:update": "Change the server's settings.",
    "iam:metrics:read": "Read the server's metrics.",
}  # fmt: skip

# The kinds of objects a statement's Resource may name, as `kind:id`.
RESOURCES = frozenset((
    "acme-directory", "alarm", "attachment", "audit", "authority", "ca", "ca-policy", "campaign", "certificate",
    "coupon", "csr", "dns-connection", "endpoint", "evidence", "group", "ledger", "message", "order",
    "organisation", "organisation-case", "policy", "product", "project", "recipient", "renewal-freeze",
    "renewal-window", "rollout", "target", "token", "unsubscription", "user", "validation",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """May they? `policy` and `statement` (its number from 0) say because of which; None when nothing matched."""

    allowed: bool
    reason: str
    policy: str | None = None
    statement: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document with a name. System policies belong to no account and can't be changed."""

    id: str
    account_id: str | None
    name: str
    description: str
    document: Mapping[str, Any]
    revision: int
    created_at: datetime | None

    @property
    def is_system(self) -> bool:
        return self.account_id is None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A policy given to a user or a group, perhaps for one project only."""

    id: str
    account_id: str
    policy: str
    user_id: str | None
    group_id: str | None
    project_id: str | None
    created_at: datetime
