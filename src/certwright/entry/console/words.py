"""How the console says what the rooms call by codes: states, operations, severities. Translated when shown."""

from __future__ import annotations

from collections.abc import Mapping

from certwright.platform.i18n import N_, _

# Word for people, and the tone that picks dot and colour: ok, warn, bad, busy or idle.
CERTIFICATE_STATES: Mapping[str, tuple[str, str]] = {
    "pending_application": (N_("Pending application"), "idle"),
    "pending_domain_validation": (N_("Pending domain name verification"), "busy"),
    "pending_organization_validation": (N_("Pending organization verification"), "busy"),
    "to_be_issued": (N_("To be issued"), "busy"),
    "issued": (N_("Issued"), "ok"),
    "approval_failed": (N_("Approval failed"), "bad"),
    "verifying_domain_addition": (N_("CA verifying (domain name addition)"), "busy"),
    "verifying_reissue": (N_("CA verifying (reissue)"), "busy"),
    "verifying_withdrawal": (N_("CA verifying (application withdrawal)"), "busy"),
    "verifying_revocation": (N_("CA verifying (revocation)"), "busy"),
    "revocation_pending_domain_validation": (N_("CA verifying revocation (pending domain name verification)"), "busy"),
    "revoked": (N_("Revoked"), "bad"),
    "hosted": (N_("Hosted"), "ok"),
    "expired": (N_("Expired"), "bad"),
    "refund_review": (N_("Unsubscription under review"), "idle"),
}

ROLLOUT_STATES: Mapping[str, tuple[str, str]] = {
    "running": (N_("In progress"), "busy"),
    "undoing": (N_("Being undone"), "warn"),
    "deployed": (N_("Deployed"), "ok"),
    "undone": (N_("Undone"), "bad"),
    "failed": (N_("Failed: needs a look"), "bad"),
}

ROLLOUT_STEPS: Mapping[str, tuple[str, str]] = {
    "plan": (N_("Plan"), N_("Decide which files change and what every address must serve afterwards.")),
    "stage": (N_("Stage"), N_("Back up the present files and put the new ones beside them.")),
    "test": (N_("Test"), N_("Let the server check its configuration with the new files.")),
    "activate": (N_("Activate"), N_("Put the files in place atomically and reload the server.")),
    "verify": (N_("Verify"), N_("Connect from outside until every address serves the new certificate.")),
    "keep": (N_("Keep"), N_("Record the deployment and remove temporary files.")),
    "undo": (N_("Undo"), N_("Restore the previous files and verify the previous certificate.")),
}

SEVERITIES: Mapping[str, tuple[str, str]] = {
    "critical": (N_("Critical"), "bad"),
    "major": (N_("Major"), "bad"),
    "minor": (N_("Minor"), "warn"),
    "warning": (N_("Warning"), "warn"),
    "cleared": (N_("Cleared"), "ok"),
}

CHALLENGE_STATES: Mapping[str, tuple[str, str]] = {
    "pending": (N_("Waiting"), "busy"),
    "valid": (N_("Verified"), "ok"),
    "expired": (N_("Value expired"), "bad"),
    "cancelled": (N_("Cancelled"), "idle"),
}

AUTHORITY_STATES: Mapping[str, tuple[str, str]] = {
    "pending": (N_("Pending"), "busy"),
    "active": (N_("Active"), "ok"),
    "disabled": (N_("Disabled"), "idle"),
    "deleted": (N_("Waiting for deletion"), "bad"),
    "expired": (N_("Expired"), "bad"),
    "revoked": (N_("Revoked"), "bad"),
}

TARGET_STATES: Mapping[str, tuple[str, str]] = {
    "unknown": (N_("Not looked at yet"), "idle"),
    "healthy": (N_("Healthy"), "ok"),
    "unhealthy": (N_("Has a problem"), "bad"),
}

OPERATIONS: Mapping[str, tuple[str, str]] = {
    "apply": (N_("Apply"), N_("Submit the application to the CA.")),
    "save_draft": (N_("Save draft"), N_("Keep what was typed so far.")),
    "verify_domains": (N_("Verify domains"), N_("Look now whether the records or files are there.")),
    "withdraw": (N_("Withdraw application"), N_("Take the application back before it is issued.")),
    "reissue": (N_("Reissue"), N_("Get a new version with the same names and a new key.")),
    "revoke": (N_("Revoke"), N_("Tell the world not to trust it any more. Can't be undone.")),
    "download": (N_("Download"), N_("Certificate, chain and key for your server.")),
    "export_key": (N_("Export private key"), N_("Recorded in the audit log.")),
    "deploy": (N_("Deploy"), N_("Put it to work on a server and verify it from outside.")),
    "set_auto_renew": (N_("Automatic renewal"), N_("Renew and deploy again at two thirds of its life.")),
    "update": (N_("Rename and describe"), N_("Name, description and tags.")),
    "delete": (N_("Delete"), N_("Erases its private keys for good. Deleting does not revoke.")),
}

METHODS: Mapping[str, str] = {
    "dns": N_("DNS record"),
    "file": N_("File on the web server"),
    "email": N_("E-mail"),
    "http-01": "http-01",
    "dns-01": "dns-01",
    "tls-alpn-01": "tls-alpn-01",
}

KEY_ALGORITHMS: Mapping[str, str] = {
    "EC_P256": "EC P-256",
    "EC_P384": "EC P-384",
    "EC_P521": "EC P-521",
    "RSA_2048": "RSA 2048",
    "RSA_3072": "RSA 3072",
    "RSA_4096": "RSA 4096",
    "ED25519": "Ed25519",
}

REASONS: Mapping[str, tuple[str, str]] = {
    "unspecified": (N_("Unspecified"), N_("No particular reason.")),
    "key_compromise": (N_("Key compromise"), N_("Somebody else may have the private key.")),
    "affiliation_changed": (N_("Affiliation changed"), N_("The organization's name or identity changed.")),
    "superseded": (N_("Superseded"), N_("A newer certificate took its place.")),
    "cessation_of_operation": (N_("Cessation of operation"), N_("The site is no longer run.")),
}

# What a redirect says it did; the code travels in a cookie, the sentence is chosen here.
SAID: Mapping[str, str] = {
    "signed_out": N_("You are signed out."),
    "saved": N_("Saved."),
    "created": N_("Created."),
    "deleted": N_("Deleted."),
    "applied": N_("The application is submitted."),
    "withdrawn": N_("The application is withdrawn."),
    "revoking": N_("The certificate is being revoked."),
    "reissuing": N_("A new version is on its way; the present one keeps working."),
    "renewal_on": N_("Automatic renewal is on."),
    "renewal_off": N_("Automatic renewal is off."),
    "acknowledged": N_("The alarm is acknowledged."),
    "discovered": N_("The target was looked at again."),
    "unbound": N_("The binding is removed."),
    "probing": N_("The endpoint will be looked at now."),
    "session_ended": N_("The session is ended."),
    "token_revoked": N_("The token is revoked."),
    "password_changed": N_("The password is changed. Your other sessions are ended."),
    "password_set": N_("The password is set. Sign in with it now."),
    "disabled": N_("The user is disabled."),
    "enabled": N_("The user is enabled again."),
    "removed": N_("Removed."),
    "added": N_("Added."),
    "checked": N_("Looked: see below what was found."),
    "sent": N_("A new code is on its way."),
}


def word(table: Mapping[str, tuple[str, str]], code: object) -> str:
    """The word for a code; an unknown code is shown as it is, so that nothing new breaks a page."""
    found = table.get(str(code))
    return _(found[0]) if found else str(code).replace("_", " ").capitalize()


def detail(table: Mapping[str, tuple[str, str]], code: object) -> str:
    found = table.get(str(code))
    return _(found[1]) if found else ""


def tone(table: Mapping[str, tuple[str, str]], code: object) -> str:
    found = table.get(str(code))
    return found[1] if found else "idle"


def plain(table: Mapping[str, str], code: object) -> str:
    found = table.get(str(code))
    return _(found) if found else str(code)
