"""Pure decisions about certificates: what an application must look like, which operation is allowed when, and when to
renew. Facts and time come in; a verdict with its reason goes out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from certwright.kernel.names import DnsName, is_internal, is_public_suffix, looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused, TooMany
from certwright.rooms.certificates.words import (
    PROGRESS,
    Applicant,
    Application,
    CertificateFacts,
    CertificateType,
    DomainType,
    JudgedApplication,
    Operation,
    Purchase,
    RevocationReason,
    State,
)
from certwright.rooms.validation import RenewalFallback
from certwright.x509.csr import CsrFacts, read_csr
from certwright.x509.keys import KeyAlgorithm

MOST_NAMES = 250
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.\-]{3,63}")
LONGEST_DESCRIPTION = 255
EXPIRES_SOON = timedelta(days=30)
METHODS = ("dns", "file", "email", "tls-alpn-01")
_OF_ADDRESSES = ("file", "tls-alpn-01")
_OF_EXACT_NAMES = ("file", "tls-alpn-01")
ROOT_HASHES = ("default", "sha256")

_EMAIL = re.compile(r"[^@\s<>\"',;:\\]{1,64}@[^@\s<>\"',;:\\]{1,253}")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./\-]{3,30}")


def shown_state(stage: State, not_after: datetime | None, now: datetime) -> State:
    """The state people see: a version that ran out makes an issued or hosted certificate `expired`."""
    lapses = stage in (State.ISSUED, State.HOSTED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION)
    if lapses and not_after is not None and not_after <= now:
        return State.EXPIRED
    return stage


def progress(state: State, *, validated: bool = False, awaits_organisation: bool = False) -> int | None:
    """Percent done of a first application, or of the addition or reissue that is being verified."""
    if state not in (State.VERIFYING_DOMAIN_ADDITION, State.VERIFYING_REISSUE):
        return PROGRESS.get(state)
    if not validated:
        return PROGRESS[State.PENDING_DOMAIN_VALIDATION]
    return PROGRESS[State.PENDING_ORGANIZATION_VALIDATION if awaits_organisation else State.TO_BE_ISSUED]


def expires_soon(state: State, not_before: datetime | None, not_after: datetime | None, now: datetime) -> bool:
    """The badge: 30 days or less left, or for lives under 100 days a third or less of the life (rules-2026)."""
    if state not in (State.ISSUED, State.HOSTED) or not_after is None or not_before is None:
        return False
    life = not_after - not_before
    margin = EXPIRES_SOON if life >= timedelta(days=100) else life * 0.33
    return not_after - now <= margin


# --- operations -----------------------------------------------------------------------------------------------------

_WAITS_FOR_DOMAINS = (
    State.PENDING_DOMAIN_VALIDATION,
    State.VERIFYING_DOMAIN_ADDITION,
    State.VERIFYING_REISSUE,
    State.REVOCATION_PENDING_DOMAIN_VALIDATION,
)
# While somebody may still have to ask the applicant something.
_NEEDS_PERSON = (
    State.PENDING_DOMAIN_VALIDATION,
    State.PENDING_ORGANIZATION_VALIDATION,
    State.TO_BE_ISSUED,
    State.VERIFYING_DOMAIN_ADDITION,
)
_WITHDRAWABLE = (
    State.PENDING_DOMAIN_VALIDATION,
    State.PENDING_ORGANIZATION_VALIDATION,
    State.VERIFYING_DOMAIN_ADDITION,
    State.VERIFYING_REISSUE,
)
# While a new version is being verified the old one keeps working, so it can still be fetched and deployed.
_USABLE = (State.ISSUED, State.HOSTED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION)
_DELETABLE = (
    State.PENDING_APPLICATION,
    State.APPROVAL_FAILED,
    State.ISSUED,
    State.REVOKED,
    State.EXPIRED,
    State.HOSTED,
)

Verdict = Refused | None


def allowed_operations(facts: CertificateFacts) -> dict[Operation, Verdict]:
    """Every operation with None (allowed) or the reason it is refused. Used by API, console and CLI alike."""
    return {operation: judge_operation(operation, facts) for operation in Operation}


def judge_operation(operation: Operation, facts: CertificateFacts) -> Verdict:
    state = facts.state
    if state is State.REFUND_REVIEW:
        return _refuse(operation, facts, "its order is being unsubscribed from",
                       "Wait until the unsubscription is approved or rejected.")  # fmt: skip
    match operation:
        case Operation.APPLY | Operation.SAVE_DRAFT:
            return _in_state(operation, facts, (State.PENDING_APPLICATION, State.APPROVAL_FAILED))
        case Operation.VERIFY_DOMAINS:
            return _in_state(operation, facts, _WAITS_FOR_DOMAINS)
        case Operation.WITHDRAW:
            return _in_state(operation, facts, _WITHDRAWABLE)
        case Operation.REISSUE:
            if facts.uploaded:
                return _refuse(operation, facts, "it was uploaded, so its CA is not reached from here",
                               "Apply for a new certificate with the same names.")  # fmt: skip
            if facts.has_version and not facts.has_key:
                return Refused(
                    "reissue_needs_csr",
                    "This certificate's CSR was uploaded: a reissue needs a new CSR from you.",
                    fix="Apply for a new certificate with a new CSR.",
                    extra=_context(operation, facts),
                )
            return _in_state(operation, facts, (State.ISSUED,)) or _why_not_reissue(operation, facts)
        case Operation.ADD_DOMAINS:
            return _why_not_add(operation, facts)
        case Operation.RENEW:
            return _why_not_renew(operation, facts)
        case Operation.APPLY_AGAIN:
            if facts.purchase is None or not facts.purchase.paid:
                return _refuse(operation, facts, "it was not bought", "Apply for a new certificate.")
            if not facts.purchase.coverage_left:
                return _refuse(operation, facts, "the time paid for is over", "Order a new certificate.")
            return _in_state(operation, facts, (State.REVOKED,))
        case Operation.REVOKE:
            if facts.uploaded:
                return _refuse(operation, facts, "it was uploaded; only the CA that issued it can revoke it",
                               "Revoke it where it was issued.")  # fmt: skip
            if facts.revocation_asked and state in (State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION):
                return _refuse(operation, facts, "the current version's revocation was asked for already",
                               "Wait for the new version; an earlier one can be revoked by its id.")  # fmt: skip
            # A key known to others can't wait for its successor: what is under way goes on meanwhile.
            return _in_state(
                operation, facts, (State.ISSUED, State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION)
            )  # fmt: skip
        case Operation.REVOKE_EARLIER:
            if facts.uploaded:
                return _refuse(operation, facts, "it was uploaded; only the CA that issued it can revoke it",
                               "Revoke it where it was issued.")  # fmt: skip
            if not facts.earlier:
                return _refuse(operation, facts, "every earlier version has expired or is revoked",
                               "Nothing needs doing; the current version is revoked without naming one.")  # fmt: skip
            return None
        case Operation.DOWNLOAD:
            return _in_state(operation, facts, _USABLE)
        case Operation.EXPORT_KEY | Operation.DEPLOY:
            refused = _in_state(operation, facts, _USABLE)
            if refused is None and facts.client_ca:
                return _refuse(operation, facts, "it is the certificate of a CA to check clients by, without a key",
                               "Download it, and name the file where your server checks clients.")  # fmt: skip
            if refused is None and not facts.has_key:
                return _refuse(operation, facts, "its private key is not held here: the CSR was uploaded",
                               "Install it by hand with the key you made the CSR with.")  # fmt: skip
            return refused
        case Operation.REPLACE:
            if not facts.uploaded:
                return _refuse(operation, facts, "it was issued here, and only uploaded ones are",
                               "Reissue it, or upload the file as another certificate.")  # fmt: skip
            return _in_state(operation, facts, (State.HOSTED, State.EXPIRED))
        case Operation.SET_AUTO_RENEW:
            if facts.uploaded:
                return _refuse(operation, facts, "it was uploaded, so it can't be renewed from here",
                               "Apply for a certificate with the same names.")  # fmt: skip
            if facts.has_version and not facts.has_key:
                return _refuse(operation, facts, "its CSR was uploaded, so only you can make the next one",
                               "Apply for a new certificate with a new CSR in time.")  # fmt: skip
            return _in_state(operation, facts, tuple(s for s in State if s not in (State.EXPIRED, State.REVOKED)))
        case Operation.UPDATE:
            return None
        case Operation.WITHDRAW_PRIVACY:
            refused = _in_state(operation, facts, tuple(s for s in State if s not in _NEEDS_PERSON))
            if refused is None and not facts.holds_personal_data:
                return _refuse(operation, facts, "no personal data is kept with it", "Nothing needs doing.")
            return refused
        case Operation.DELETE:
            if facts.revoking:
                return _refuse(operation, facts, "the CA has yet to confirm a revocation",
                               "Wait a moment, and delete it then.")  # fmt: skip
            if facts.bound_to:
                places = ", ".join(facts.bound_to[:5])
                return Refused(
                    "certificate_bound",
                    f"The certificate can't be deleted: it is bound to {places}.",
                    fix="Unbind it, or bind another certificate there first.",
                    extra=_context(operation, facts) | {"bound_to": list(facts.bound_to)},
                )
            if facts.uploaded:
                return _in_state(operation, facts, (State.HOSTED, State.EXPIRED))
            if facts.purchase is not None and facts.purchase.paid:
                if state in (State.PENDING_APPLICATION, State.APPROVAL_FAILED):
                    return _refuse(operation, facts, "it was paid for and is not used yet",
                                   "Apply, or unsubscribe from its order to get the money back.")  # fmt: skip
                return _in_state(operation, facts, (State.ISSUED, State.REVOKED, State.EXPIRED))
            return _in_state(operation, facts, _DELETABLE)
    raise AssertionError(f"no rule for {operation} in {state}")


def _why_not_reissue(operation: Operation, facts: CertificateFacts) -> Verdict:
    """By people. What falls due inside the time paid for is renewed all the same: see `judge_renewal`."""
    if facts.purchase is None:
        return None
    if facts.domain_type is DomainType.MULTI:
        return _refuse(operation, facts, "only single-domain and wildcard certificates can be",
                       "Add the domains that are missing instead.")  # fmt: skip
    if not facts.purchase.paid:
        return _refuse(operation, facts, "it is a free product", "Apply for another free certificate.")
    if not facts.purchase.reissue_open:
        return _refuse(operation, facts, "the CA's time for reissuing it is over",
                       "Wait for its renewal, or order a new certificate.")  # fmt: skip
    return None


def _why_not_add(operation: Operation, facts: CertificateFacts) -> Verdict:
    if facts.uploaded:
        return _refuse(operation, facts, "it was uploaded, so its CA is not reached from here",
                       "Apply for a new certificate with all the names.")  # fmt: skip
    refused = _in_state(operation, facts, (State.ISSUED,))
    if refused is not None:
        return refused
    if facts.domain_type is not DomainType.MULTI:
        return _refuse(operation, facts, "only multi-domain certificates take more names",
                       "Reissue it with other names, or apply for a multi-domain certificate.")  # fmt: skip
    left = MOST_NAMES - facts.name_count if facts.purchase is None else facts.purchase.names_left
    if left <= 0:
        return _refuse(operation, facts, "its domain quota is used up", "Order a certificate with a larger quota.")
    return None


def _why_not_renew(operation: Operation, facts: CertificateFacts) -> Verdict:
    """A renewal order, which makes a new certificate; versions inside the coverage renew by themselves."""
    if facts.uploaded:
        return _refuse(operation, facts, "it was uploaded", "Apply for a new certificate with the same names.")
    if facts.purchase is None or not facts.purchase.paid:
        return _refuse(operation, facts, "it was not bought", "Switch on automatic renewal instead.")
    refused = _in_state(operation, facts, (State.ISSUED,))
    if refused is None and not facts.purchase.renewal_open:
        return _refuse(operation, facts, "that is possible in the last 30 days of its coverage",
                       "Wait until then; it renews by itself meanwhile.")  # fmt: skip
    return refused


def why_only_by_program(facts: CertificateFacts) -> Verdict:
    """Why people don't delete this certificate on a page: what was issued without being paid for leaves no trace in any
    bill, so only programs, which name it by its id, delete it before it is over."""
    paid = facts.purchase is not None and facts.purchase.paid
    if facts.uploaded or paid or facts.state is not State.ISSUED:
        return None
    return _refuse(Operation.DELETE, facts, "an issued certificate that was not paid for is deleted through the API or "
                   "the command line only", "Revoke it first, or use `certwright certificates delete`.")  # fmt: skip


def why_bound_to_ca(*, bought: bool, vouched: bool) -> Refused | None:
    """Why a certificate can't get its versions from another CA."""
    if bought:
        return Refused(
            "ca_of_product", "It was bought from its CA, and no other one delivers it.",
            fix="Order a certificate of the other CA, or apply for a free one.",
        )  # fmt: skip
    if vouched:
        return Refused(
            "ca_vouched", "It was issued without proof of its names, and another CA asks for one.",
            fix="Apply at the other CA for a certificate with these names.",
        )  # fmt: skip
    return None


def judge_renewal(facts: CertificateFacts) -> Verdict:
    """Whether a version that fell due may be replaced by a reissue of ours: also of products people can't reissue, as
    long as their coverage lasts."""
    if facts.purchase is not None and not facts.purchase.coverage_left:
        return _refuse(Operation.REISSUE, facts, "the time paid for is over", "Order its renewal.")
    return judge_operation(Operation.REISSUE, replace(facts, purchase=None))


_RENEWAL_ORDER_DAYS = 30
_NO_REVOCATION = timedelta(days=30)


def purchase(
    *,
    paid: bool,
    quota: int,
    names: int,
    reissue_days: int | None,
    years: int,
    issued_at: datetime | None,
    not_after: datetime | None,
    coverage_ends_at: datetime | None,
    now: datetime,
) -> Purchase:
    """What a bought certificate's facts come to today. `issued_at` is the current version's."""
    ends = coverage_ends_at or not_after
    window = None if reissue_days is None or issued_at is None else issued_at + timedelta(days=reissue_days)
    return Purchase(
        paid=paid,
        names_left=max(0, quota - names),
        reissue_open=window is None or now < window,
        # Before the first issue the whole of it is left.
        coverage_left=coverage_ends_at is None or now < coverage_ends_at,
        # Calendar days, as the billing room counts them.
        renewal_open=ends is not None and now < ends and (ends.date() - now.date()).days <= _RENEWAL_ORDER_DAYS,
        revocation_closed=paid and years == 1 and ends is not None and now >= ends - _NO_REVOCATION,
    )


def judge_revocation(facts: CertificateFacts, earlier: int | None, reason: RevocationReason) -> Verdict:
    """Of the current version (`earlier` None) or of an earlier one by its number.

    A key known to others can always be revoked (BR 4.9.1.1); else not in the last 30 days of a paid year.
    """
    closed = facts.purchase is not None and facts.purchase.revocation_closed
    if closed and reason is not RevocationReason.KEY_COMPROMISE and facts.state is not State.REFUND_REVIEW:
        return _refuse(Operation.REVOKE, facts, "these are the last 30 days of a paid one-year certificate",
                       "Let it run out; if its key is known to others, give that as the reason.")  # fmt: skip
    if earlier is None:
        return judge_operation(Operation.REVOKE, facts)
    refused = judge_operation(Operation.REVOKE_EARLIER, facts)
    if refused is None and earlier not in facts.earlier:
        return _refuse(Operation.REVOKE_EARLIER, facts, f"version {earlier} has expired or is revoked",
                       f"These can be: {', '.join(map(str, facts.earlier))}.")  # fmt: skip
    return refused


def needs_confirmation(*, certificate_type: str, reason: str | None, asks_itself: bool, has_applicant: bool) -> bool:
    """Whether the applicant confirms by a mailed link before the CA hears of a revocation: OV and EV, unless the key is
    known to others."""
    if not CertificateType(certificate_type).names_organisation or asks_itself or not has_applicant:
        return False
    return reason != RevocationReason.KEY_COMPROMISE


LINK_GOOD_FOR = timedelta(days=30)
"""How long a link mailed to an applicant can be followed."""

_MAIL_AGAIN = timedelta(minutes=5)


def why_not_mail_again(*, waits: bool, mailed_at: datetime | None, now: datetime) -> Problem | None:
    """Whether the applicant may be written to once more about a revocation."""
    if not waits or mailed_at is None:
        return Refused(
            "no_confirmation_awaited", "No revocation of this certificate waits for a mailed link.",
            fix="Look at what the certificate waits for.",
        )  # fmt: skip
    if now - mailed_at < _MAIL_AGAIN:
        return TooMany(
            "mailing_too_soon", "The applicant was written to less than five minutes ago.",
            fix="Wait a moment; mail takes its time.",
        )  # fmt: skip
    return None


def masked(address: str) -> str:
    """An e-mail address as those see it who need not know it: `a…@example.com`."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}…{at}{domain}"


def after_reissue(*, revocation_asked: bool, revoked: bool) -> State:
    """Where a certificate falls back to when a reissue ends without a new version."""
    if revoked:
        return State.REVOKED
    return State.VERIFYING_REVOCATION if revocation_asked else State.ISSUED


_NEXT_STEP: Mapping[State, str] = {
    State.PENDING_APPLICATION: "Apply first.",
    State.PENDING_DOMAIN_VALIDATION: "Finish the domain validation, or withdraw the application.",
    State.PENDING_ORGANIZATION_VALIDATION: "Wait for the organization's verification, or withdraw the application.",
    State.TO_BE_ISSUED: "Wait until the certificate is issued.",
    State.ISSUED: "Use one of the allowed operations.",
    State.APPROVAL_FAILED: "Correct the application and apply again.",
    State.VERIFYING_REISSUE: "Wait for the reissue, or withdraw it.",
    State.VERIFYING_DOMAIN_ADDITION: "Wait until the names are added, or withdraw the addition.",
    State.VERIFYING_WITHDRAWAL: "Wait for the CA's answer to the withdrawal.",
    State.REVOCATION_PENDING_DOMAIN_VALIDATION: "Show the CA that the names are yours; then it is revoked.",
    State.REVOKED: "Apply for a new certificate.",
    State.EXPIRED: "It can't be renewed any more: apply for a new certificate.",
    State.HOSTED: "Use one of the allowed operations.",
}


def _in_state(operation: Operation, facts: CertificateFacts, states: Sequence[State]) -> Verdict:
    if facts.state in states:
        return None
    return Refused(
        "operation_not_allowed",
        f"{operation.replace('_', ' ').capitalize()} is not possible in state {facts.state}, only in "
        f"{' or '.join(states)}.",
        fix=_NEXT_STEP.get(facts.state, "Wait until the pending operation is finished."),
        extra=_context(operation, facts),
    )


def _refuse(operation: Operation, facts: CertificateFacts, reason: str, fix: str) -> Refused:
    return Refused(
        "operation_not_allowed",
        f"{operation.replace('_', ' ').capitalize()} is not possible: {reason}.",
        fix=fix,
        extra=_context(operation, facts),
    )


def _context(operation: Operation, facts: CertificateFacts) -> dict[str, object]:
    return {"operation": operation.value, "state": facts.state.value}


def with_allowed(refused: Refused, facts: CertificateFacts) -> Refused:
    """The refusal, with what *can* be done listed for the caller."""
    refused.extra["allowed_operations"] = [
        o.value for o, verdict in allowed_operations(facts).items() if verdict is None
    ]
    return refused


# --- names and descriptions -----------------------------------------------------------------------------------------


def judge_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise Invalid(
            "certificate_name_invalid",
            "The certificate's name must have 3 to 63 letters, digits, hyphens, underscores or dots.",
            field="name",
            fix="Choose a name such as shop-2026.",
        )
    return name


def judge_description(text: str) -> str:
    if len(text) > LONGEST_DESCRIPTION:
        raise Invalid(
            "description_too_long", "The description is longer than 255 characters.", field="description",
            fix="Shorten it.",
        )  # fmt: skip
    return text


def judge_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """At most 20 tags; keys of 1–36 characters, values up to 43, no control characters."""
    if len(tags) > 20:
        raise Invalid("too_many_tags", "A certificate can have at most 20 tags.", field="tags", fix="Remove some tags.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 36 or len(value) > 43 or not (key + value).isprintable():
            raise Invalid(
                "tag_invalid",
                f"The tag {key[:40]!r} is not usable: keys have 1 to 36 printable characters, values up to 43.",
                field="tags",
                fix="Shorten the tag.",
            )
    return dict(tags)


# --- applications ---------------------------------------------------------------------------------------------------


def judge_application(
    application: Application,
    *,
    public_ca: bool,
    types: Sequence[CertificateType] = (CertificateType.DV,),
    methods: Sequence[str] = METHODS,
    ip_addresses: bool = False,
    root_hashes: Sequence[str] = ROOT_HASHES,
    applicant_needed: bool = True,
    statement: str | None = None,
) -> JudgedApplication:
    """Check everything typed against spec *Application*; raises InvalidFields with one problem per wrong field.

    `types` are those the CA issues, `methods` those it validates by, `root_hashes` those it lets people choose. Without
    `applicant_needed` nobody need be named: it was agreed on before. `statement` is today's privacy statement, which
    somebody who agrees now agrees to.
    """
    problems: list[Problem] = []
    certificate_type = _certificate_type(application, types, problems)

    csr: CsrFacts | None = None
    if application.csr is not None:
        try:
            csr = read_csr(application.csr.encode(), public=public_ca)
        except Problem as problem:
            problems.append(problem.at("csr"))
    key_algorithm = _key_algorithm(application.key_algorithm, problems) if application.csr is None else None

    typed = list(application.names)
    if csr is not None:
        csr_names = list(csr.dns_names)
        if csr.ip_addresses and public_ca and not ip_addresses:
            problems.append(_ip_refused(str(csr.ip_addresses[0]), "csr"))
        elif csr.ip_addresses:
            csr_names += [str(address) for address in csr.ip_addresses]
        if typed and {_ascii_or_text(n) for n in typed} != set(csr_names):
            problems.append(
                Invalid(
                    "csr_names_differ",
                    "The names typed and the names in the CSR are not the same.",
                    field="names",
                    fix="Leave the names empty to use the CSR's, or make a CSR for exactly these names.",
                )
            )
        typed = typed or csr_names
    no_addresses = public_ca and not ip_addresses
    places = _names(typed, problems, no_addresses=no_addresses) if typed or not problems else {}
    names = list(places)
    domain_type = (
        _domain_type(application.domain_type, certificate_type, places, problems, public_ca=public_ca)
        if names
        else None
    )
    chosen_methods = _methods(application, places, methods, problems)
    applicant = None
    if applicant_needed or application.applicant is not None:
        applicant = _applicant(application.applicant, problems)
    technical = None
    if application.technical_contact is not None:
        found: list[Problem] = []
        technical = _applicant(application.technical_contact, found)
        problems += [_of_technical_contact(problem) for problem in found]
    _judge_root_hash(application.root_hash, root_hashes, problems)
    if not application.consent:
        problems.append(
            Invalid(
                "consent_required",
                "The privacy statement has not been agreed to.",
                field="consent",
                fix="Read the statement and set consent.",
            )
        )
    elif application.consent_version and len(application.consent_version) > 40:
        problems.append(
            Invalid("consent_version_invalid", "That is no version of the privacy statement.", field="consent_version",
                    fix="Leave it out to agree to the current version.")
        )  # fmt: skip
    elif statement is not None and application.consent_version not in ("", statement):
        problems.append(
            Invalid("privacy_statement_outdated", "The privacy statement was changed since it was read.",
                    field="consent_version", fix=f"Read version {statement} and agree to that.")
        )  # fmt: skip
    if problems:
        raise InvalidFields(problems)
    assert domain_type is not None
    assert applicant is not None or not applicant_needed
    return JudgedApplication(
        names=tuple(name.ascii for name in names),
        unicode_names=tuple(name.unicode for name in names),
        domain_type=domain_type,
        validation_method=application.validation_method,
        per_name_methods=chosen_methods,
        key_algorithm=csr.key_algorithm if csr is not None else str(key_algorithm),
        csr_der=csr.der if csr is not None else None,
        applicant=applicant,
        consent_version=application.consent_version,
        certificate_type=certificate_type,
        organisation_id=application.organisation_id,
        technical_contact=technical,
        root_hash=application.root_hash,
    )


def _judge_root_hash(root_hash: str, offered: Sequence[str], problems: list[Problem]) -> None:
    if root_hash not in ROOT_HASHES:
        problems.append(
            Invalid("root_hash_unknown", f"There is no root hash {root_hash[:40]!r}.", field="root_hash",
                    fix="Use default or sha256.")
        )  # fmt: skip
    elif root_hash not in offered:
        problems.append(
            Invalid("root_hash_not_offered", "This CA doesn't let the hash of its root be chosen.", field="root_hash",
                    fix="Use default.")
        )  # fmt: skip


def _spoken(certificate_type: str) -> str:
    return certificate_type.replace("_", " ").upper()


def _certificate_type(
    application: Application, types: Sequence[CertificateType], problems: list[Problem]
) -> CertificateType:
    """The type asked for; DV where it is wrong, so that the other fields are judged all the same."""
    text = application.certificate_type or CertificateType.DV
    try:
        asked = CertificateType(text)
    except ValueError:
        problems.append(
            Invalid("certificate_type_unknown", f"There is no certificate type {text[:40]!r}.",
                    field="certificate_type", fix=f"Use one of {', '.join(CertificateType)}.")
        )  # fmt: skip
        return CertificateType.DV
    if asked not in types and asked is not CertificateType.DV_BASIC:
        problems.append(
            Invalid("certificate_type_not_offered", f"This CA issues no {_spoken(asked)} certificates.",
                    field="certificate_type", fix=f"Choose one of {', '.join(types)}, or another CA.")
        )  # fmt: skip
    if asked.names_organisation and application.organisation_id is None:
        problems.append(
            Invalid("organisation_missing", "OV and EV certificates name an organization, and none is given.",
                    field="organisation_id", fix="Add your organization, then name it in the application.")
        )  # fmt: skip
    if not asked.names_organisation and application.organisation_id is not None:
        problems.append(
            Invalid("organisation_not_in_dv", "A DV certificate names no organization.", field="organisation_id",
                    fix="Leave it out, or choose OV or EV.")
        )  # fmt: skip
    return asked


# What an ACME CA calls the methods an applicant knows.
_ACME_METHODS = {"dns-01": "dns", "http-01": "file"}
_RESPONDER = "; tls-alpn-01 takes a CA that speaks ACME and the setting tls_alpn_listen"


def judge_against_purchase(
    judged: JudgedApplication,
    *,
    certificate_type: str,
    domain_type: str,
    quota: int,
    wildcard_quota: int,
    methods: Sequence[str],
) -> None:
    """Whether an application stays within what was bought: type, domain type, quota and methods of the product.

    Raises InvalidFields.
    """
    problems: list[Problem] = []
    if judged.certificate_type != certificate_type:
        problems.append(
            Invalid("other_than_bought", f"This certificate was bought as {_spoken(certificate_type)}.",
                    field="certificate_type", fix=f"Apply for {certificate_type}, or order another product.")
        )  # fmt: skip
    if judged.domain_type != domain_type:
        problems.append(
            Invalid("other_than_bought", f"This certificate was bought for the domain type {domain_type}.",
                    field="domain_type", fix="Apply for names of that type, or order another product.")
        )  # fmt: skip
    wildcards = sum(name.startswith("*.") for name in judged.names)
    for used, limit, what in (
        (len(judged.names) - wildcards, quota, "names"),
        (wildcards, wildcard_quota, "wildcards"),
    ):
        if used > limit:
            problems.append(
                Invalid("domain_quota_exceeded", f"{used} {what} are given, and {limit} were bought.", field="names",
                        fix="Leave some out; a quota can't be raised after the purchase.")
            )  # fmt: skip
    offered = {_ACME_METHODS.get(method, method) for method in methods}
    for method in sorted({judged.validation_method, *judged.per_name_methods.values()} - offered):
        problems.append(
            Invalid("method_not_offered", f"This product's CA doesn't validate by {method}.",
                    field="validation_method", fix=f"Use one of {', '.join(sorted(offered))}.")
        )  # fmt: skip
    if problems:
        raise InvalidFields(problems)


def years_left(years: int | None, ends_at: datetime | None, now: datetime) -> int | None:
    """How many years a CA is to be asked for: what was bought before the first issue, later what is left of it, begun
    years whole. None when nothing was bought."""
    if years is None or ends_at is None:
        return years
    return max(1, min(years, -(-(ends_at - now) // timedelta(days=366))))


def judge_company(before: str | None, now: str) -> None:
    """A renewed certificate keeps its company; `before` is its predecessor's, None if that named none or is gone.

    Capitals and spaces don't tell companies apart. Raises Refused `renewal_company_fixed`.
    """
    if before is not None and " ".join(before.casefold().split()) != " ".join(now.casefold().split()):
        raise Refused(
            "renewal_company_fixed", f"This certificate renews one of {before[:100]}, and a renewal keeps its company.",
            field="organisation_id", fix="Apply with that organization, or order a new certificate for the other one.",
        )  # fmt: skip


def _ascii_or_text(name: str) -> str:
    try:
        return str(parse_ip(name)) if looks_like_ip(name) else parse_dns_name(name).ascii
    except Invalid:
        return name


def _ip_refused(text: str, field: str) -> Problem:
    return Invalid(
        "ip_not_supported",
        f"{text} is an IP address, and this CA certifies none.",
        field=field,
        fix="Use a DNS name that points to this address, or choose a private CA or one that speaks ACME.",
    )


def _names(typed: Sequence[str], problems: list[Problem], *, no_addresses: bool) -> dict[DnsName, int]:
    """The good names in the order typed, each with its place, so that later rules can point at it.

    Private CAs and some public ones certify IP addresses too (RFC 8738): here one is a name whose two forms are alike.
    """
    if not typed:
        problems.append(
            Invalid("names_missing", "No domain name is given.", field="names", fix="Enter at least one name.")
        )
    if len(typed) > MOST_NAMES:
        problems.append(
            Invalid(
                "too_many_names",
                f"A certificate holds at most {MOST_NAMES} names; {len(typed)} are given.",
                field="names",
                fix="Split the names over several certificates.",
            )
        )
        return {}
    names: dict[DnsName, int] = {}
    for index, text in enumerate(typed):
        field = f"names[{index}]"
        is_ip = looks_like_ip(text)
        if is_ip and no_addresses:
            problems.append(_ip_refused(text, field))
            continue
        try:
            name = DnsName(str(parse_ip(text)), str(parse_ip(text))) if is_ip else parse_dns_name(text, field=field)
        except Invalid as problem:
            problems.append(problem)
            continue
        if name in names:
            problems.append(
                Invalid("name_repeated", f"The name {name.unicode} is given twice.", field=field, fix="Remove one.")
            )
            continue
        names[name] = index
    return names


def _domain_type(
    asked: str | None,
    certificate_type: CertificateType,
    names: Mapping[DnsName, int],
    problems: list[Problem],
    *,
    public_ca: bool,
) -> DomainType | None:
    wildcards = [name for name in names if name.is_wildcard]
    for name, index in names.items():
        if looks_like_ip(name.ascii):
            if public_ca and not parse_ip(name.ascii).is_global:
                problems.append(
                    Invalid("internal_name", f"No public CA certifies {name.ascii}: it is not a public address.",
                            field=f"names[{index}]", fix="Use a public address, or choose the private CA.")
                )  # fmt: skip
            continue
        if public_ca and is_internal(name):
            problems.append(
                Invalid(
                    "internal_name",
                    f"No public CA certifies {name.unicode}: it is an internal or reserved name.",
                    field=f"names[{index}]",
                    fix="Use a name below a public domain you own, or choose the private CA.",
                )
            )
        if name.is_wildcard and is_public_suffix(name):
            problems.append(
                Invalid(
                    "wildcard_on_public_suffix",
                    f"{name.unicode} would cover everybody's names below {name.base}.",
                    field=f"names[{index}]",
                    fix="Put the wildcard below a domain you own: *.example.com.",
                )
            )
    natural = (
        DomainType.MULTI if len(names) > 1 else DomainType.WILDCARD if wildcards else DomainType.SINGLE
    )  # fmt: skip
    try:
        domain_type = DomainType(asked) if asked else natural
    except ValueError:
        problems.append(
            Invalid("domain_type_unknown", f"There is no domain type {str(asked)[:40]!r}.", field="domain_type",
                    fix="Use single, multi or wildcard.")
        )  # fmt: skip
        return None
    match domain_type:
        case DomainType.SINGLE if len(names) != 1 or wildcards:
            problems.append(
                Invalid("single_takes_one_name", "A single-domain certificate has exactly one name and no wildcard.",
                        field="domain_type", fix="Choose multi or wildcard, or leave the type out.")
            )  # fmt: skip
        case DomainType.WILDCARD if len(names) != 1 or not wildcards:
            problems.append(
                Invalid("wildcard_takes_one_wildcard", "A wildcard certificate has exactly one name: *.example.com.",
                        field="domain_type", fix="Enter one wildcard name, or choose multi.")
            )  # fmt: skip
        case DomainType.MULTI if len(names) < 2:
            problems.append(
                Invalid("multi_takes_two_names", "A multi-domain certificate needs at least one additional name.",
                        field="domain_type", fix="Add a name, or choose single.")
            )  # fmt: skip
        case _ if wildcards and certificate_type in (CertificateType.EV, CertificateType.EV_PRO):
            problems.append(
                Invalid("wildcard_in_ev", "EV certificates hold no wildcards.", field="names",
                        fix="List the names one by one, or choose OV.")
            )  # fmt: skip
        case DomainType.MULTI if (
            wildcards and public_ca and certificate_type not in (CertificateType.OV, CertificateType.OV_PRO)
        ):
            problems.append(
                Invalid("wildcard_in_dv_multi", "Wildcards in multi-domain certificates are for OV and OV Pro only.",
                        field="names", fix="Apply for a wildcard certificate of its own.")
            )  # fmt: skip
    return domain_type


def _methods(
    application: Application, names: Mapping[DnsName, int], offered: Sequence[str], problems: list[Problem]
) -> dict[str, str]:
    for field, method in [("validation_method", application.validation_method)] + [
        (f"per_name_methods.{name[:80]}", method) for name, method in application.per_name_methods.items()
    ]:
        if method not in METHODS:
            problems.append(
                Invalid("validation_method_unknown", f"There is no validation method {method[:40]!r}.", field=field,
                        fix=f"Use one of {', '.join(offered)}.")
            )  # fmt: skip
        elif method not in offered:
            problems.append(
                Invalid("method_not_offered", f"This CA doesn't validate by {method}.", field=field,
                        fix=f"Use one of {', '.join(offered)}{_RESPONDER if method == 'tls-alpn-01' else ''}.")
            )  # fmt: skip
    known = {name.ascii: name for name in names}
    chosen: dict[str, str] = {}
    for typed, method in application.per_name_methods.items():
        ascii_name = _ascii_or_text(typed)
        if names and ascii_name not in known:
            problems.append(
                Invalid("method_for_unknown_name", f"{typed[:80]} is not among the names of this application.",
                        field="per_name_methods", fix="Remove it, or add the name.")
            )  # fmt: skip
        chosen[ascii_name] = method
    for name, index in names.items():
        method = chosen.get(name.ascii, application.validation_method)
        if name.is_wildcard and method in _OF_EXACT_NAMES:
            problems.append(
                Invalid(
                    "wildcard_needs_dns",
                    f"{name.unicode} can't be validated by {method}: that proves one exact name only.",
                    field=f"names[{index}]",
                    fix="Choose dns for this name.",
                )
            )
        if looks_like_ip(name.ascii) and method not in _OF_ADDRESSES:
            problems.append(
                Invalid(
                    "ip_needs_file",
                    f"{name.ascii} is an IP address: it has no zone and no mailboxes, so {method} can't show it.",
                    field=f"names[{index}]",
                    fix="Choose file for this address.",
                )
            )
    return chosen


def _key_algorithm(text: str, problems: list[Problem]) -> KeyAlgorithm | None:
    try:
        return KeyAlgorithm(text)
    except ValueError:
        problems.append(
            Invalid(
                "key_algorithm_unknown",
                f"There is no key algorithm {text[:40]!r}.",
                field="key_algorithm",
                fix=f"Use one of {', '.join(KeyAlgorithm)}.",
            )
        )
        return None


def _applicant(applicant: Applicant | None, problems: list[Problem]) -> Applicant | None:
    if applicant is None:
        problems.append(
            Invalid("applicant_missing", "The applicant's name, e-mail and phone are missing.", field="applicant",
                    fix="Say whom to ask about this application.")
        )  # fmt: skip
        return None
    name = applicant.name.strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        problems.append(
            Invalid("applicant_name_invalid", "The applicant's name must have 1 to 100 printable characters.",
                    field="applicant.name", fix="Enter the name of a person.")
        )  # fmt: skip
    if not _EMAIL.fullmatch(applicant.email):
        problems.append(
            Invalid("email_invalid", "The applicant's e-mail is not an address.", field="applicant.email",
                    fix="Write it as name@example.com.")
        )  # fmt: skip
    if not _PHONE.fullmatch(applicant.phone):
        problems.append(
            Invalid("phone_invalid", "The applicant's phone number is missing or is not a telephone number.",
                    field="applicant.phone", fix="Write it with the country code, like +49 30 123456.")
        )  # fmt: skip
    return Applicant(name, applicant.email, applicant.phone)


def _of_technical_contact(problem: Problem) -> Problem:
    message = problem.message.replace("applicant's", "technical contact's")
    return Invalid(
        problem.code, message, fix=problem.fix, field=str(problem.field).replace("applicant", "technical_contact")
    )  # fmt: skip


def judge_private_names(typed: Sequence[str]) -> tuple[str, ...]:
    """Names for a private CA: DNS names (wildcards and internal ones too) and IP addresses, each once, at most 250."""
    problems: list[Problem] = []
    names: list[str] = []
    if not typed:
        problems.append(
            Invalid("names_missing", "No name is given.", field="names", fix="Enter at least one name or address.")
        )
    if len(typed) > MOST_NAMES:
        raise Invalid("too_many_names", f"A certificate holds at most {MOST_NAMES} names.", field="names",
                      fix="Split the names over several certificates.")  # fmt: skip
    for index, text in enumerate(typed):
        field = f"names[{index}]"
        try:
            name = str(parse_ip(text)) if looks_like_ip(text) else parse_dns_name(text, field=field).ascii
        except Invalid as problem:
            problems.append(problem)
            continue
        if name not in names:
            names.append(name)
    if problems:
        raise InvalidFields(problems)
    return tuple(names)


def algorithm_of_new_key(text: str) -> str:
    """A KeyAlgorithm for the key that follows one described like this ("EC_P384", or "EC P-384" as CSRs are described);
    the default where none like it is made here."""
    code = text.replace(" ", "_").replace("-", "")
    return code if code in set(KeyAlgorithm) else KeyAlgorithm.EC_P256.value


def judge_key_algorithm(text: str) -> KeyAlgorithm:
    problems: list[Problem] = []
    algorithm = _key_algorithm(text, problems)
    if algorithm is None:
        raise problems[0]
    return algorithm


# --- what came back -------------------------------------------------------------------------------------------------


def why_not_ours(
    *,
    asked_names: Sequence[str],
    got_names: Sequence[str],
    asked_spki: str,
    got_spki: str,
    not_after: datetime,
    now: datetime,
    chain_fits: bool = True,
) -> Refused | None:
    """Check a certificate a CA hands over before believing it: our names, our key, signed by the chain that comes with
    it (`chain_fits`), still valid."""
    if set(asked_names) != set(got_names):
        return Refused(
            "issued_other_names",
            f"The CA returned a certificate for {', '.join(sorted(got_names))[:200]} instead of the names asked for.",
            fix="Nothing was deployed. Ask the CA to revoke it, then apply again.",
        )
    if asked_spki != got_spki:
        return Refused(
            "issued_other_key",
            "The CA returned a certificate for another public key.",
            fix="Nothing was deployed. Ask the CA to revoke it, then apply again.",
        )
    if not chain_fits:
        return Refused(
            "issued_other_chain", "The CA returned a chain that doesn't belong to the certificate.",
            fix="Nothing was deployed. Apply again; if it lasts, ask the CA.",
        )  # fmt: skip
    if not_after <= now:
        return Refused("issued_expired", "The CA returned a certificate that has already expired.", fix="Apply again.")
    return None


# --- renewal --------------------------------------------------------------------------------------------------------

_SHORT_LIFE = timedelta(days=10)


_MOST_SPREAD = timedelta(hours=12)


def renew_at(
    not_before: datetime, not_after: datetime, version_id: str = "", fallback: RenewalFallback | None = None
) -> datetime:
    """When a version is due without ARI: at 2/3 of its life, at 1/2 if it lives less than 10 days (rules-2026).

    Versions issued together don't fall due together: by its id each is up to 1 % of its life later, at most 12 hours.
    """
    life = not_after - not_before
    long, short = (2 / 3, 1 / 2) if fallback is None else (
        fallback.fraction_of_life, fallback.fraction_if_life_under_10_days
    )  # fmt: skip
    due = not_before + (life * short if life < _SHORT_LIFE else life * long)
    if not version_id:
        return due
    digest = hashlib.sha256(version_id.encode()).digest()
    return due + min(life / 100, _MOST_SPREAD) * (int.from_bytes(digest[:6]) / 2**48)
