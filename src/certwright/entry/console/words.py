"""How the console says what the rooms call by codes: states, operations, severities. Translated when shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    "refused": (N_("Refused, nothing was changed"), "bad"),
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

DNS_OUTCOMES: Mapping[str, tuple[str, str]] = {
    "found": (N_("There"), "ok"),
    "no_such_name": (N_("No such name"), "warn"),
    "no_such_type": (N_("No record of this type"), "warn"),
    "alias": (N_("A CNAME"), "warn"),
    "server_failure": (N_("Server failure (SERVFAIL)"), "bad"),
    "refused": (N_("Refused: not a zone of this server"), "bad"),
    "timeout": (N_("No answer in time"), "bad"),
    "unreachable": (N_("Can’t be reached"), "bad"),
    "malformed": (N_("An answer that can’t be read"), "bad"),
    "forbidden_address": (N_("Its address may not be contacted"), "bad"),
}

ACME_ACCOUNT_STATES: Mapping[str, tuple[str, str]] = {
    "valid": (N_("Good"), "ok"),
    "deactivated": (N_("Left"), "idle"),
    "revoked": (N_("Turned away"), "bad"),
}
ACME_ORDER_STATES: Mapping[str, tuple[str, str]] = {
    "pending": (N_("Waits for proof"), "busy"),
    "ready": (N_("Proved"), "busy"),
    "valid": (N_("Issued"), "ok"),
    "invalid": (N_("Failed"), "bad"),
}
ACME_AUTHORIZATION_STATES: Mapping[str, tuple[str, str]] = {
    "pending": (N_("Waits for proof"), "busy"),
    "valid": (N_("Proved"), "ok"),
    "invalid": (N_("Failed"), "bad"),
    "deactivated": (N_("Given up"), "idle"),
    "expired": (N_("Expired"), "idle"),
}
# What was done with a CA and its key, by what its audit events tell.
AUTHORITY_EVENTS: Mapping[str, str] = {
    "made": N_("Made, with a new key"),
    "outside": N_("Key and request made"),
    "imported": N_("Brought along"),
    "install": N_("Certificate of the parent installed"),
    "renew": N_("Renewed, with the same key"),
    "update": N_("Changed"),
    "disable": N_("Disabled"),
    "enable": N_("Enabled"),
    "revoke": N_("Revoked"),
    "delete": N_("Deleted, waiting for its key to be erased"),
    "restore": N_("Restored"),
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
    "reissue": (N_("Reissue"), N_("Get a new version, with a new key and other names if you want.")),
    "add_domains": (N_("Add domains"), N_("Get a new version with more names; the coverage stays as it is.")),
    "renew": (N_("Renew by order"), N_("Order its successor; the days that are left are added.")),
    "apply_again": (N_("Apply again"), N_("Use the paid time that is left for a new application.")),
    "withdraw_privacy": (N_("Withdraw privacy authorization"), N_("Erases the applicant's data for good.")),
    "revoke": (N_("Revoke"), N_("Tell the world not to trust it any more. Can't be undone.")),
    "revoke_earlier": (N_("Revoke an earlier version"), N_("The current version stays in use.")),
    "download": (N_("Download"), N_("Certificate, chain and key for your server.")),
    "export_key": (N_("Export private key"), N_("Recorded in the audit log.")),
    "deploy": (N_("Deploy"), N_("Put it to work on a server and verify it from outside.")),
    "set_auto_renew": (N_("Automatic renewal"), N_("Renew and deploy again at two thirds of its life.")),
    "update": (N_("Rename and describe"), N_("Name, description and tags.")),
    "delete": (N_("Delete"), N_("Erases its private keys for good. Deleting does not revoke.")),
}

APPLICATION_TYPES: Mapping[str, tuple[str, str]] = {
    "dv_basic": (N_("DV Basic"), N_("The domains are verified; in minutes.")),
    "dv": (N_("DV"), N_("The domains are verified; in minutes.")),
    "ov": (N_("OV"), N_("Names your organization, which a specialist verifies in three to ten working days.")),
    "ov_pro": (N_("OV Pro"), N_("Like OV, of the CA's higher brand.")),
    "ev": (N_("EV"), N_("Names your organization, which two specialists verify in depth. No wildcards.")),
    "ev_pro": (N_("EV Pro"), N_("Like EV, of the CA's higher brand. No wildcards.")),
}

ROOT_HASHES: Mapping[str, str] = {
    "default": N_("The CA's default"),
    "sha256": N_("SHA-256"),
}

# What can be done to many certificates at once.
BULK_ACTIONS: Mapping[str, tuple[str, str]] = {
    "auto_renew_on": (N_("Turn automatic renewal on"), N_("They are renewed in time, without anybody's doing.")),
    "auto_renew_off": (N_("Turn automatic renewal off"), N_("They run out unless somebody renews them.")),
    "notify_on": (N_("Send messages"), N_("Reminders and alarms about them are mailed.")),
    "notify_off": (N_("Send no messages"), N_("Alarms are still raised, but nobody is mailed about them.")),
    "tag": (N_("Add tags"), N_("Tags they have stay; one with the same key gets the new value.")),
    "untag": (N_("Remove tags"), N_("By their keys, whatever their values are.")),
    "move": (N_("Move to another project"), N_("Keys, versions and validations move along.")),
    "verify_domains": (N_("Check domains now"), N_("Every name that waits is looked at once.")),
    "withdraw": (N_("Withdraw applications"), N_("What was published for them is no longer looked for.")),
    "reissue": (N_("Reissue"), N_("Each gets a new version with a new key; the old one is revoked later.")),
    "withdraw_privacy": (N_("Withdraw privacy authorization"), N_("The applicants' data is erased for good.")),
    "revoke": (N_("Revoke"), N_("Clients refuse them from then on. That can't be undone.")),
    "delete": (N_("Delete"), N_("Their keys are erased for good. Deleting does not revoke.")),
}

CONFIRMATION_STATES: Mapping[str, tuple[str, str]] = {
    "waiting": (N_("Not followed yet"), "busy"),
    "confirmed": (N_("Confirmed"), "ok"),
    "ran_out": (N_("Ran out unanswered"), "bad"),
    "replaced": (N_("Replaced by a newer link"), "idle"),
}

MAIL_STATES: Mapping[str, tuple[str, str]] = {
    "queued": (N_("waits for the mail server"), "busy"),
    "sent": (N_("taken by the mail server"), "ok"),
    "failed": (N_("could not be sent"), "bad"),
}

# Whose turn it is, as a tag shows it.
TURNS: Mapping[str, tuple[str, str]] = {
    "you": (N_("Your turn"), "warn"),
    "applicant": (N_("Your turn"), "warn"),
    "us": (N_("Certwright's turn"), "busy"),
    "ca": (N_("The CA's turn"), "busy"),
    "desk": (N_("A specialist's turn"), "busy"),
    "operator": (N_("The operator's turn"), "busy"),
    "nobody": (N_("Nobody's turn"), "idle"),
}

VETTING_STATES: Mapping[str, tuple[str, str]] = {
    "awaiting_choice": (N_("Way not chosen yet"), "warn"),
    "awaiting_documents": (N_("Documents asked for"), "warn"),
    "queued": (N_("In the queue"), "busy"),
    "in_review": (N_("In review"), "busy"),
    "awaiting_second": (N_("Awaits a second specialist"), "busy"),
    "verified": (N_("Verified"), "ok"),
    "refused": (N_("Not verified"), "bad"),
    "cancelled": (N_("Withdrawn"), "idle"),
}

# Of one line of a verification's progress.
PROGRESS_STATES: Mapping[str, tuple[str, str]] = {
    "done": (N_("Done"), "ok"),
    "open": (N_("Now"), "busy"),
    "later": (N_("Later"), "idle"),
    "failed": (N_("Failed"), "bad"),
}

ORGANISATION_KINDS: Mapping[str, tuple[str, str]] = {
    "company": (N_("Company"), N_("In a commercial register.")),
    "sole_trader": (N_("Sole trader"), N_("A person in business under a registered trade name.")),
    "non_profit": (N_("Non-profit body"), N_("An association, foundation or other body in a public register.")),
    "public_body": (N_("Public body"), N_("A government body, municipality, university or other body made by law.")),
    "unlisted": (N_("In no public register"), N_("Can't be verified: such bodies get DV certificates only.")),
}

WAYS: Mapping[str, tuple[str, str]] = {
    "phone": (N_("By telephone"), N_("A specialist calls the number of the public directory.")),
    "documents": (N_("By documents"), N_("You send an extract of the register and a signed paper.")),
    "official_mail": (N_("By official mail"), N_("A letter goes to the registered address.")),
}

CHECK_ITEMS: Mapping[str, tuple[str, str]] = {
    "existence": (N_("Existence"), N_("It is in its public register, under this name and number.")),
    "address": (N_("Address"), N_("The register or another public source shows this address.")),
    "phone": (N_("Telephone"), N_("A public directory shows this number for it.")),
    "applicant_authority": (N_("Applicant's authority"), N_("Somebody of it confirmed that the applicant may apply.")),
    "operational_existence": (N_("Operation"), N_("It has been in business for three years, or has a bank account.")),
    "requester_authority": (N_("Requester's authority"), N_("Whoever requests the certificate may do so.")),
    "approver_authority": (N_("Approver's authority"), N_("Whoever approves the request may do so.")),
}

OUTCOMES: Mapping[str, tuple[str, str]] = {
    "passed": (N_("Passed"), "ok"),
    "failed": (N_("Failed"), "bad"),
}

CA_KINDS: Mapping[str, tuple[str, str]] = {
    "acme": (N_("ACME"), N_("Certificates over the ACME protocol, such as Let's Encrypt's.")),
    "certcentral": (N_("Ordering interface"), N_("A CA that sells, over an interface like DigiCert's CertCentral.")),
}

CA_LIMITS: Mapping[str, tuple[str, str]] = {
    "orders": (N_("Orders"), N_("New orders of this account.")),
    "certificates_per_domain": (N_("Certificates per domain"), N_("Below one registered domain.")),
    "duplicates": (N_("Duplicates"), N_("Certificates for exactly the same names.")),
    "failed_validations": (N_("Failed validations"), N_("Of one name.")),
}

CAMPAIGN_STATES: Mapping[str, tuple[str, str]] = {
    "planning": (N_("Being planned"), "busy"),
    "running": (N_("Running"), "busy"),
    "paused": (N_("Paused"), "warn"),
    "cancelled": (N_("Cancelled"), "idle"),
    "finished": (N_("Finished"), "ok"),
}

ITEM_STATES: Mapping[str, tuple[str, str]] = {
    "waiting": (N_("Waiting"), "idle"),
    "going": (N_("Under way"), "busy"),
    "replaced": (N_("Replaced"), "ok"),
    "failed": (N_("Failed"), "bad"),
    "skipped": (N_("Nothing to replace"), "idle"),
    "excluded": (N_("Can't be replaced from here"), "warn"),
}

CAMPAIGN_REASONS: Mapping[str, tuple[str, str]] = {
    "key_compromise": (N_("Key compromise"), ""),
    "distrust": (N_("The CA is distrusted"), ""),
    "ca_incident": (N_("Incident at the CA"), ""),
    "misissuance": (N_("Wrongly issued"), ""),
    "algorithm": (N_("Algorithm to be left behind"), ""),
    "drill": (N_("Drill"), ""),
    "other": (N_("Other"), ""),
}

PRIORITIES: Mapping[str, tuple[str, str]] = {
    "bound_first": (N_("What is in use first"), N_("What a listener serves, then what ends soonest.")),
    "soonest_end": (N_("What ends soonest first"), N_("Whether it is in use or not.")),
}

# Codes of what a mass replacement would do.
REPLACEABLE: Mapping[str, tuple[str, str]] = {
    "replaceable": (N_("Replaced"), ""),
    "busy": (N_("Replaced after what they are busy with"), ""),
    "uploaded": (N_("Uploaded: not from here"), ""),
    "uploaded_csr": (N_("CSR uploaded: its owner must act"), ""),
    "revoked": (N_("Revoked"), ""),
    "expired": (N_("Expired"), ""),
    "refund_review": (N_("Unsubscription under review"), ""),
    "ca_of_product": (N_("Bought from its CA"), ""),
    "ca_vouched": (N_("Issued without proof: not by another CA"), ""),
    "method_not_taken": (N_("Shown by a method the other CA doesn't take"), ""),
}

CRITERIA: Mapping[str, str] = {
    "ca": N_("CA"),
    "key_algorithm": N_("Key"),
    "issuer": N_("Issuer"),
    "issued_before": N_("Issued before"),
    "names": N_("Names"),
    "project_id": N_("Project"),
}

SURVIVALS: Mapping[str, tuple[str, str]] = {
    "yes": (N_("By itself"), "ok"),
    "with_work": (N_("With work"), "warn"),
    "no": (N_("Not at all"), "bad"),
}

RENEWERS: Mapping[str, tuple[str, str]] = {
    "us": (N_("Certwright"), "ok"),
    "us_by_order": (N_("Certwright, within its order"), "ok"),
    "owner": (N_("Its owner"), "warn"),
    "nobody": (N_("Nobody"), "bad"),
}

PROOFS: Mapping[str, tuple[str, str]] = {
    "not_needed": (N_("Not needed"), "ok"),
    "automatic": (N_("Automatic"), "ok"),
    "by_hand": (N_("By hand"), "warn"),
    "ended": (N_("Method is over"), "bad"),
}

METHODS: Mapping[str, str] = {
    "dns": N_("DNS record"),
    "file": N_("File on the web server"),
    "email": N_("E-mail"),
    "http-01": "http-01",
    "dns-01": "dns-01",
    "tls-alpn-01": "tls-alpn-01",
}

# What a CA believed a revocation by.
REVOKED_BY: Mapping[str, tuple[str, str]] = {
    "account": (N_("by the account that ordered it"), ""),
    "key": (N_("by its own key"), ""),
    "control": (N_("after its names were shown anew"), ""),
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


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before a change that can't simply be taken back."""

    title: str
    consequence: str
    button: str


QUESTIONS: Mapping[str, Question] = {
    "withdraw": Question(
        N_("Withdraw this application?"),
        N_(
            "What you published for it is no longer looked for. If the CA approved it meanwhile, it is issued all the "
            "same; a version that is in use stays."
        ),
        N_("Withdraw the application"),
    ),
    "unbind": Question(
        N_("Unbind the certificate from this site?"),
        N_("The site keeps what it serves, but new versions are no longer deployed there."),
        N_("Unbind"),
    ),
    "delete_organisation": Question(
        N_("Delete this organization?"),
        N_("Its details and contacts are forgotten. Certificates that name it stay as they are."),
        N_("Delete the organization"),
    ),
    "refuse_case": Question(
        N_("Refuse this case?"),
        N_("The application fails, and the applicant reads your reasons. That can't be taken back."),
        N_("Refuse the case"),
    ),
    "delete_window": Question(
        N_("Remove this window?"), N_("Without any window renewals run at any time."), N_("Remove the window")
    ),
    "revert_rules": Question(
        N_("Go back to the shipped rules?"), N_("The file below is kept, but no longer in force."), N_("Go back")
    ),
    "delete_freeze": Question(
        N_("End this freeze?"), N_("Renewals that waited for its end run as soon as they may."), N_("End the freeze")
    ),
    "cancel_campaign": Question(
        N_("Cancel this mass replacement?"),
        N_("It can't be taken up again. What was replaced stays replaced, what is under way ends."),
        N_("Cancel it"),
    ),
    "change_ca_key": Question(
        N_("Change the account's key?"),
        N_("The CA is told the new key and the old one is erased. The account stays the same."),
        N_("Change the key"),
    ),
    "new_ca_account": Question(
        N_("Register another account?"),
        N_(
            "The present account is left behind and its key erased. Orders under way at this CA fail; certificates it "
            "issued are revoked with their own keys, or after their names were shown anew."
        ),
        N_("Register another"),
    ),
    "delete_ca": Question(
        N_("Remove this CA?"),
        N_("The key of your account there is erased, so nothing more can be ordered or revoked with it."),
        N_("Remove the CA"),
    ),
    "disable_authority": Question(
        N_("Disable this CA?"),
        N_("Nothing is issued from it any more, renewals included, until it is enabled again."),
        N_("Disable the CA"),
    ),
    "renew_authority": Question(
        N_("Renew this CA?"),
        N_(
            "It gets a new certificate for the same name and key. What it issued stays good, under the old one and the "
            "new one. Clients need a root's new certificate before the old one ends."
        ),
        N_("Renew the CA"),
    ),
    "revoke_authority": Question(
        N_("Revoke this CA?"),
        N_("Nothing it issued is trusted any more. This can't be taken back."),
        N_("Revoke the CA"),
    ),
    "delete_authority": Question(
        N_("Delete this CA?"),
        N_("After the time of waiting its key is erased for good. Until then it can be restored."),
        N_("Delete the CA"),
    ),
    "revoke_issued": Question(
        N_("Revoke this certificate?"),
        N_("The revocation list says so at once. This can't be taken back."),
        N_("Revoke the certificate"),
    ),
    "delete_issued": Question(
        N_("Delete this certificate?"),
        N_("Its key here is erased for good. It isn't revoked: whoever has a copy can use it until it expires."),
        N_("Delete the certificate"),
    ),
    "disable_acme": Question(
        N_("Disable this ACME service?"),
        N_("Its clients are refused: they neither order nor renew until it is enabled again."),
        N_("Disable the service"),
    ),
    "delete_acme": Question(
        N_("Delete this ACME service?"),
        N_("Its accounts, keys and orders go with it. What was issued stays; clients can't renew or revoke it here."),
        N_("Delete the service"),
    ),
    "revoke_acme_key": Question(
        N_("Revoke this key?"),
        N_("It binds no more accounts and its secret is erased. Clients that are bound already go on."),
        N_("Revoke the key"),
    ),
    "deactivate_acme_account": Question(
        N_("Turn this client away?"),
        N_("Its account can't order, renew or revoke any more, for good. Its certificates stay."),
        N_("Turn it away"),
    ),
    "remove_list_storage": Question(
        N_("Publish the lists here only?"),
        N_("Nothing more is put into the storage. What is there stays, and certificates that name it go on naming it."),
        N_("Publish here only"),
    ),
    "delete_kind": Question(
        N_("Delete this kind?"),
        N_("Nothing more can be issued as it, by ACME services that offer it neither. What was issued stays."),
        N_("Delete the kind"),
    ),
    "delete_ca_policy": Question(
        N_("Delete this policy?"),
        N_("What it refused may be issued from now on, unless another policy refuses it."),
        N_("Delete the policy"),
    ),
    "delete_csr": Question(
        N_("Delete this CSR?"),
        N_("Its private key is erased for good. Certificates that were made with it keep their own copy."),
        N_("Delete the CSR"),
    ),
    "undo_rollout": Question(
        N_("Undo this rollout?"),
        N_("The files that were there before it are put back and the server is reloaded."),
        N_("Put back what was there before"),
    ),
    "disable_user": Question(
        N_("Disable this user?"),
        N_("They are signed out everywhere and their tokens stop working until they are enabled again."),
        N_("Disable the user"),
    ),
    "delete_user": Question(
        N_("Delete this user?"),
        N_("Their sessions and tokens end at once. What they did stays in the audit log."),
        N_("Delete the user"),
    ),
    "delete_group": Question(N_("Delete this group?"), N_("Its members lose what it allowed."), N_("Delete the group")),
    "remove_member": Question(
        N_("Remove this member from the group?"),
        N_("They lose what the group allowed."),
        N_("Remove the member"),
    ),
    "detach_policy": Question(
        N_("Detach this policy?"),
        N_("What only this policy allowed or denied changes at once."),
        N_("Detach the policy"),
    ),
    "delete_policy": Question(N_("Delete this policy?"), N_("This can't be undone."), N_("Delete the policy")),
    "delete_project": Question(N_("Delete this project?"), N_("This can't be undone."), N_("Delete the project")),
    "revoke_token": Question(
        N_("Revoke this token?"), N_("Whatever uses it stops working at once."), N_("Revoke the token")
    ),
    "end_session": Question(N_("End this session?"), N_("That browser has to sign in again."), N_("End the session")),
    "remove_recipient": Question(
        N_("Remove this recipient?"), N_("They get no more alarms or reminders."), N_("Remove the recipient")
    ),
    "cancel_order": Question(
        N_("Cancel this order?"), N_("It can't be paid afterwards; order again instead."), N_("Cancel the order")
    ),
    "disable_coupon": Question(
        N_("Disable this code?"),
        N_("Nobody can use it from now on. What a voucher still holds stays in the books."),
        N_("Disable the code"),
    ),
    "approve_refund": Question(
        N_("Approve this unsubscription?"),
        N_("The money goes back and the certificates are deleted for good."),
        N_("Approve it"),
    ),
    "remove_connection": Question(
        N_("Remove this DNS connection?"),
        N_("Names in its zones must then be validated by hand."),
        N_("Remove the connection"),
    ),
}

CERTIFICATE_TYPES: Mapping[str, str] = {
    "dv_basic": "DV Basic",
    "dv": "DV",
    "ov": "OV",
    "ov_pro": "OV Pro",
    "ev": "EV",
    "ev_pro": "EV Pro",
}

DOMAIN_TYPES: Mapping[str, str] = {
    "single": N_("Single domain"),
    "multi": N_("Several domains"),
    "wildcard": N_("Wildcard"),
}

DISCOUNTS: Mapping[str, str] = {
    "years_discount": N_("Discount for the years"),
    "quantity_discount": N_("Discount for the quantity"),
    "coupon": N_("Coupon"),
}

ORDER_STATUSES: Mapping[str, tuple[str, str]] = {
    "pending_payment": (N_("To be paid"), "warn"),
    "payment_running": (N_("Payment under way"), "busy"),
    "paid": (N_("Paid"), "ok"),
    "refund_review": (N_("Unsubscription under review"), "busy"),
    "refunded": (N_("Refunded"), "idle"),
    "refund_rejected": (N_("Paid, unsubscription rejected"), "ok"),
    "cancelled": (N_("Cancelled"), "idle"),
    "lapsed": (N_("Lapsed"), "bad"),
}

REFUND_STATES: Mapping[str, tuple[str, str]] = {
    "review": (N_("To be reviewed"), "warn"),
    "refunding": (N_("Being paid back"), "busy"),
    "refunded": (N_("Refunded"), "ok"),
    "rejected": (N_("Rejected"), "bad"),
}

PAYMENT_METHODS: Mapping[str, str] = {
    "balance": N_("Balance"),
    "invoice": N_("Invoice"),
    "none": N_("Nothing to pay"),
}

LEDGER_KINDS: Mapping[str, str] = {
    "payment": N_("Payment"),
    "refund": N_("Refund"),
    "top_up": N_("Top-up"),
    "settlement": N_("Invoice settled"),
    "voucher": N_("Voucher made"),
}

LEDGER_ACCOUNTS: Mapping[str, str] = {
    "balance": N_("Balance"),
    "voucher": N_("Voucher"),
    "payable": N_("Owed on invoice"),
    "external": N_("Payment provider"),
    "purchases": N_("Purchases"),
    "paid_in": N_("Paid in"),
    "granted": N_("Granted"),
}

COUPON_KINDS: Mapping[str, tuple[str, str]] = {
    "coupon": (N_("Coupon"), N_("Lowers the price by a percentage or an amount.")),
    "voucher": (N_("Voucher"), N_("Holds an amount that pays until it is used up.")),
}

COUPON_STATES: Mapping[str, tuple[str, str]] = {
    "usable": (N_("Usable"), "ok"),
    "waiting": (N_("Not valid yet"), "idle"),
    "used_up": (N_("Used up"), "idle"),
    "over": (N_("No longer valid"), "idle"),
    "disabled": (N_("Disabled"), "bad"),
}

REVIEWS: Mapping[str, tuple[str, str]] = {
    "manual": (N_("A person"), N_("Somebody with the permission to review approves or rejects each one.")),
    "automatic": (N_("Automatically"), N_("Whatever meets the conditions is approved at once.")),
}

# What a redirect says it did; the code travels in a cookie, the sentence is chosen here.
SAID: Mapping[str, str] = {
    "signed_out": N_("You are signed out."),
    "saved": N_("Saved."),
    "created": N_("Created."),
    "deleted": N_("Deleted."),
    "applied": N_("The application is submitted."),
    "withdrawn": N_("The application is withdrawn."),
    "withdrawing": N_("The CA was asked to take the order back."),
    "draft_saved": N_("The draft is saved; nothing was submitted."),
    "adding": N_("The names are being added; the present version keeps working."),
    "again": N_("Apply again: what was applied for last is filled in."),
    "erased": N_("The personal data is erased."),
    "chosen": N_("Your choice is noted."),
    "document_sent": N_("The document is stored."),
    "claimed": N_("The case is yours."),
    "released": N_("The case is back in the queue."),
    "check_noted": N_("The check is noted."),
    "asked": N_("The applicant was asked."),
    "approved": N_("Your approval is recorded."),
    "returned": N_("The case went back to the first specialist."),
    "refused": N_("The case is refused; the applicant is told why."),
    "rules_replaced": N_("The rules are in force."),
    "rules_reverted": N_("The shipped rules are in force again."),
    "campaign_started": N_("The mass replacement has begun."),
    "campaign_paused": N_("Paused: no further ones begin."),
    "campaign_resumed": N_("It goes on."),
    "campaign_cancelled": N_("The mass replacement is cancelled."),
    "key_changed": N_("The account has a new key."),
    "account_renewed": N_("There is another account; the test below says whether it can be used."),
    "ca_added": N_("The CA is added. Test it: that reads its directory and makes your account there."),
    "revoking": N_("The certificate is being revoked."),
    "reissuing": N_("A new version is on its way; the present one keeps working."),
    "renewal_on": N_("Automatic renewal is on."),
    "renewal_off": N_("Automatic renewal is off."),
    "notify_on": N_("Messages about it are sent."),
    "notify_off": N_("No messages about it are sent."),
    "mailed_again": N_("A new link is on its way; the one before it is dead."),
    "bulk_done": N_("Done to all of them."),
    "acknowledged": N_("The alarm is acknowledged."),
    "renewed": N_("Renewed: what it issues from now on goes by the new certificate."),
    "discovered": N_("The target was looked at again: below is what it has now."),
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
    "mailed": N_("The mails are on their way."),
    "uploaded": N_("The certificate is uploaded. Below is what was found in it."),
    "replaced": N_("The newer certificate is in place; targets get it now."),
    "ordered": N_("The order is placed."),
    "paying": N_("The payment is made, or under way."),
    "cancelled": N_("The order is cancelled."),
    "unsubscribed": N_("The unsubscription is asked for."),
    "refund_approved": N_("The unsubscription is approved."),
    "refund_rejected": N_("The unsubscription is rejected."),
    "booked": N_("Booked."),
    "coupon_disabled": N_("The code is disabled."),
}

FINDING_SEVERITIES: Mapping[str, tuple[str, str]] = {
    "error": (N_("Error"), "bad"),
    "warning": (N_("Warning"), "warn"),
    "note": (N_("Note"), "idle"),
}

# Title and purpose of each tool, in the order of the page.
TOOLS: Mapping[str, tuple[str, str]] = {
    "check": (N_("Check"), N_("What is wrong with a certificate, its key and its chain, and how to mend it.")),
    "inspect": (N_("Look inside"), N_("What a file holds: certificate, request, key, list, PKCS#7, PFX, JKS.")),
    "match": (N_("Match"), N_("Whether a key belongs to a certificate or a request.")),
    "convert": (N_("Convert"), N_("PEM, DER, PKCS#7, PFX and JKS, each into the others.")),
    "chain": (N_("Complete the chain"), N_("Put the intermediates in order and add those that are missing.")),
    "split": (N_("Split"), N_("Each certificate, key and request of a file by itself.")),
    "join": (N_("Join"), N_("Several files as one PEM, in the right order.")),
    "csr": (N_("Make a CSR"), N_("A signing request with a new key or one of yours.")),
    "bundle": (N_("Pack for a server"), N_("The files one kind of server wants, with a note how to install them.")),
    "key": (N_("Encrypt or decrypt a key"), N_("Put a passphrase on a private key, take it off, change its form.")),
}

FORMATS: Mapping[str, str] = {
    "pem": N_("PEM: text, for most servers"),
    "der": N_("DER: binary, one certificate, request or key"),
    "p7b": N_("PKCS#7 (.p7b): certificates without a key"),
    "pfx": N_("PFX (PKCS#12): certificate, chain and key under a passphrase"),
    "jks": N_("JKS: Java's old key store"),
    "pkcs8": N_("Key as PKCS#8 (PRIVATE KEY)"),
    "pkcs1": N_("Key as PKCS#1 (RSA PRIVATE KEY)"),
    "sec1": N_("Key as SEC1 (EC PRIVATE KEY)"),
}

SERVERS: Mapping[str, str] = {
    "nginx": "nginx",
    "apache": "Apache",
    "tomcat": "Tomcat",
    "iis": "IIS",
    "weblogic": "WebLogic",
    "resin": "Resin",
    "haproxy": "HAProxy",
    "kubernetes": "Kubernetes",
    "pem": "PEM",
    "der": "DER",
    "p7b": "P7B",
    "chain": N_("Intermediates and root alone"),
}

# How a file came.
CONTAINERS: Mapping[str, str] = {
    "pem": N_("PEM text"),
    "der": N_("Binary (DER)"),
    "p7b": N_("PKCS#7 bundle"),
    "pfx": N_("PKCS#12 store (PFX)"),
    "jks": N_("JKS store"),
}

# What a part of a file is.
PARTS: Mapping[str, str] = {
    "certificate": N_("Certificate"),
    "csr": N_("Signing request (CSR)"),
    "key": N_("Private key"),
    "public_key": N_("Public key"),
    "crl": N_("Revocation list (CRL)"),
    "pkcs7": N_("PKCS#7 bundle"),
    "pkcs12": N_("PKCS#12 store (PFX)"),
    "ocsp_response": N_("OCSP response"),
    "parameters": N_("Curve parameters"),
    "ssh_key": N_("OpenSSH private key"),
    "unknown": N_("Block of an unknown kind"),
}

PART_FIELDS: Mapping[str, str] = {
    "name": N_("Alias"),
    "subject": N_("Subject"),
    "issuer": N_("Issuer"),
    "serial": N_("Serial number"),
    "not_before": N_("Valid from"),
    "not_after": N_("Valid until"),
    "names": N_("Names"),
    "common_name": N_("Common name (CN)"),
    "key_algorithm": N_("Key"),
    "signature_algorithm": N_("Signed with"),
    "sha256": N_("SHA-256 fingerprint"),
    "sha1": N_("SHA-1 fingerprint"),
    "spki_sha256": N_("SHA-256 of the public key"),
    "is_ca": N_("May issue certificates"),
    "self_signed": N_("Self-signed"),
    "version": N_("Version"),
    "key_usage": N_("Key usage"),
    "extended_key_usage": N_("Extended key usage"),
    "path_length": N_("CAs allowed below"),
    "subject_key_id": N_("Subject key identifier"),
    "authority_key_id": N_("Authority key identifier"),
    "policies": N_("Policies"),
    "crl_urls": N_("Revocation lists at"),
    "issuer_urls": N_("Issuer's certificate at"),
    "ocsp_urls": N_("OCSP at"),
    "must_staple": N_("Must staple"),
    "timestamps": N_("Certificate Transparency timestamps"),
    "permitted_names": N_("May certify only"),
    "excluded_names": N_("May not certify"),
    "number": N_("Number"),
    "this_update": N_("Of"),
    "next_update": N_("Next"),
    "entries": N_("Revoked certificates"),
    "revoked": N_("First of them"),
    "at": N_("on"),
    "reason": N_("reason"),
    "response_status": N_("Answer"),
    "produced_at": N_("Made"),
    "answers": N_("About"),
    "status": N_("status"),
    "revoked_at": N_("revoked"),
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
