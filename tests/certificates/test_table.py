"""The table of operations in the specification, a line a rule; each test's id is the rule's sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certwright.kernel.problems import Refused
from certwright.rooms import billing
from certwright.rooms.certificates import rules
from certwright.rooms.certificates.words import (
    CertificateFacts,
    CertificateType,
    DomainType,
    Operation,
    Purchase,
    RevocationReason,
    State,
)

S = State
Op = Operation
PAID = Purchase(
    paid=True, names_left=2, reissue_open=True, coverage_left=True, renewal_open=True, revocation_closed=False
)
FREE = replace(PAID, paid=False)
ISSUED = CertificateFacts(
    S.ISSUED, has_version=True, has_key=True, domain_type=DomainType.SINGLE, name_count=1, holds_personal_data=True
)


def facts(state: State = S.ISSUED, **changes: Any) -> CertificateFacts:
    return replace(ISSUED, state=state, **changes)


def bought(state: State = S.ISSUED, *, of: Purchase = PAID, **changes: Any) -> CertificateFacts:
    purchase = {name: changes.pop(name) for name in Purchase.__dataclass_fields__ if name in changes}
    return facts(state, purchase=replace(of, **purchase), **changes)


def uploaded(state: State = S.HOSTED, **changes: Any) -> CertificateFacts:
    return facts(state, uploaded=True, holds_personal_data=False, **changes)


def rule(sentence: str, operation: Operation, known: CertificateFacts, allowed: bool) -> Any:
    return pytest.param(operation, known, allowed, id=sentence)


_MULTI = {"domain_type": DomainType.MULTI, "name_count": 3}
_WAITING = (S.PENDING_DOMAIN_VALIDATION, S.PENDING_ORGANIZATION_VALIDATION, S.TO_BE_ISSUED,
            S.VERIFYING_DOMAIN_ADDITION)  # fmt: skip
TABLE = [
    rule("what was not applied for yet can be applied for", Op.APPLY, facts(S.PENDING_APPLICATION), True),
    rule("after a refusal it can be applied for once more", Op.APPLY, facts(S.APPROVAL_FAILED), True),
    rule("what is issued is not applied for again", Op.APPLY, facts(), False),
    rule("what was typed can be kept before anything is submitted", Op.SAVE_DRAFT, facts(S.PENDING_APPLICATION), True),
    rule("an issued certificate has no draft", Op.SAVE_DRAFT, facts(), False),
    rule("pending domains can be checked", Op.VERIFY_DOMAINS, facts(S.PENDING_DOMAIN_VALIDATION), True),
    rule("added domains can be checked", Op.VERIFY_DOMAINS, facts(S.VERIFYING_DOMAIN_ADDITION), True),
    rule("domains of a reissue can be checked", Op.VERIFY_DOMAINS, facts(S.VERIFYING_REISSUE), True),
    rule("domains a revocation waits for can be checked", Op.VERIFY_DOMAINS,
         facts(S.REVOCATION_PENDING_DOMAIN_VALIDATION), True),
    rule("where no domain waits nothing is checked", Op.VERIFY_DOMAINS, facts(S.TO_BE_ISSUED), False),
    rule("an application whose domains wait can be withdrawn", Op.WITHDRAW, facts(S.PENDING_DOMAIN_VALIDATION), True),
    rule("an application whose organization waits can be withdrawn", Op.WITHDRAW,
         facts(S.PENDING_ORGANIZATION_VALIDATION), True),
    rule("an addition can be withdrawn", Op.WITHDRAW, facts(S.VERIFYING_DOMAIN_ADDITION), True),
    rule("a submitted revocation can't be withdrawn", Op.WITHDRAW, facts(S.VERIFYING_REVOCATION), False),
    rule("a withdrawal can't be withdrawn", Op.WITHDRAW, facts(S.VERIFYING_WITHDRAWAL), False),
    rule("what the CA makes already can't be withdrawn", Op.WITHDRAW, facts(S.TO_BE_ISSUED), False),
    rule("a bought single-domain certificate is reissued", Op.REISSUE, bought(), True),
    rule("a bought wildcard certificate is reissued", Op.REISSUE, bought(domain_type=DomainType.WILDCARD), True),
    rule("a bought multi-domain certificate is not reissued", Op.REISSUE, bought(**_MULTI), False),
    rule("a free product is not reissued", Op.REISSUE, bought(of=FREE), False),
    rule("after the CA's window it is not reissued", Op.REISSUE, bought(reissue_open=False), False),
    rule("certificates of ACME and own CAs are reissued while they are valid", Op.REISSUE, facts(), True),
    rule("what expired is not reissued", Op.REISSUE, facts(S.EXPIRED), False),
    rule("an uploaded certificate is not reissued", Op.REISSUE, uploaded(), False),
    rule("without its key it is reissued only with a new CSR", Op.REISSUE, facts(has_key=False), False),
    rule("an issued multi-domain certificate with quota left takes more names", Op.ADD_DOMAINS, bought(**_MULTI), True),
    rule("a used up quota takes no more names", Op.ADD_DOMAINS, bought(names_left=0, **_MULTI), False),
    rule("a single-domain certificate takes no more names", Op.ADD_DOMAINS, bought(), False),
    rule("names are added only to what is issued", Op.ADD_DOMAINS, bought(S.VERIFYING_DOMAIN_ADDITION, **_MULTI),
         False),
    rule("a paid certificate is renewed by order in its last 30 days", Op.RENEW, bought(), True),
    rule("earlier than that no renewal is ordered", Op.RENEW, bought(renewal_open=False), False),
    rule("an uploaded certificate is not renewed by order", Op.RENEW, uploaded(), False),
    rule("a free certificate is not renewed by order", Op.RENEW, bought(of=FREE), False),
    rule("what was never bought is not renewed by order", Op.RENEW, facts(), False),
    rule("automatic renewal is switched on issued certificates", Op.SET_AUTO_RENEW, facts(), True),
    rule("what was uploaded has no CA here to renew it", Op.SET_AUTO_RENEW, uploaded(), False),
    rule("what expired is not renewed any more", Op.SET_AUTO_RENEW, facts(S.EXPIRED), False),
    rule("an issued certificate can be revoked", Op.REVOKE, facts(), True),
    rule("an uploaded certificate is never revoked from here", Op.REVOKE, uploaded(), False),
    rule("a revocation is not asked for twice", Op.REVOKE, facts(S.VERIFYING_REVOCATION), False),
    rule("a leaked key is revoked although names are being added", Op.REVOKE, facts(S.VERIFYING_DOMAIN_ADDITION), True),
    rule("what is revoked and paid for is applied for again", Op.APPLY_AGAIN, bought(S.REVOKED), True),
    rule("without coverage left nobody applies again", Op.APPLY_AGAIN, bought(S.REVOKED, coverage_left=False), False),
    rule("while its order is being given back nobody applies again", Op.APPLY_AGAIN, bought(S.REFUND_REVIEW), False),
    rule("only what is revoked is applied for again", Op.APPLY_AGAIN, bought(), False),
    *[rule(f"a paid certificate that is {state} can be deleted", Op.DELETE, bought(state), True)
      for state in (S.ISSUED, S.REVOKED, S.EXPIRED)],
    rule("a paid certificate that waits for its application is unsubscribed from instead", Op.DELETE,
         bought(S.PENDING_APPLICATION), False),
    *[rule(f"a free certificate that is {state} can be deleted", Op.DELETE, facts(state), True)
      for state in (S.PENDING_APPLICATION, S.REVOKED, S.EXPIRED)],
    *[rule(f"an uploaded certificate that is {state} can be deleted", Op.DELETE, uploaded(state), True)
      for state in (S.HOSTED, S.EXPIRED)],
    rule("what is bound to a listener is not deleted", Op.DELETE, facts(bound_to=("web-1: shop",)), False),
    rule("an application under way is not deleted", Op.DELETE, facts(S.PENDING_DOMAIN_VALIDATION), False),
    rule("the file of an uploaded certificate is replaced", Op.REPLACE, uploaded(), True),
    rule("what was issued here is not replaced by a file", Op.REPLACE, facts(), False),
    rule("while its order is under review nothing is allowed: not even a new name", Op.UPDATE,
         bought(S.REFUND_REVIEW), False),
    rule("what is issued can be downloaded", Op.DOWNLOAD, facts(), True),
    rule("what is hosted can be downloaded", Op.DOWNLOAD, uploaded(), True),
    rule("while names are added the version there is stays downloadable", Op.DOWNLOAD,
         facts(S.VERIFYING_DOMAIN_ADDITION), True),
    rule("what is revoked is not downloaded", Op.DOWNLOAD, facts(S.REVOKED), False),
    rule("what expired is not downloaded", Op.DOWNLOAD, facts(S.EXPIRED), False),
    rule("a private key is handed out only where it is held", Op.EXPORT_KEY, facts(has_key=False), False),
    rule("what is issued is deployed", Op.DEPLOY, facts(), True),
    rule("what is hosted is deployed", Op.DEPLOY, uploaded(), True),
    rule("what came with a CSR of its owner is not deployed: its key is not here", Op.DEPLOY,
         facts(has_key=False), False),
    *[rule(f"what is {state} can be renamed, described, tagged and moved", Op.UPDATE, facts(state), True)
      for state in S if state is not S.REFUND_REVIEW],
    *[rule(f"privacy is not withdrawn in {state}: somebody may still have to be asked", Op.WITHDRAW_PRIVACY,
           facts(state), False) for state in _WAITING],
    *[rule(f"privacy can be withdrawn in {state}", Op.WITHDRAW_PRIVACY, facts(state), True)
      for state in S if state not in (*_WAITING, S.REFUND_REVIEW)],
]  # fmt: skip


@pytest.mark.parametrize(("operation", "known", "allowed"), TABLE)
def test_rule(operation: Operation, known: CertificateFacts, allowed: bool) -> None:
    verdict = rules.allowed_operations(known)[operation]
    assert (verdict is None) == allowed
    if verdict is not None:
        told(verdict, operation, known)


def told(verdict: Refused, operation: Operation, known: CertificateFacts) -> None:
    """A refusal says the operation, the state and the reason in one sentence, and has a stable code."""
    assert (verdict.extra["operation"], verdict.extra["state"]) == (operation.value, known.state.value)
    assert verdict.code in ("operation_not_allowed", "certificate_bound", "reissue_needs_csr")
    assert verdict.message.count(". ") == 0
    assert verdict.message.endswith(".")


@pytest.mark.parametrize("operation", list(Operation))
def test_while_an_unsubscription_is_under_review_no_operation_is_allowed(operation: Operation) -> None:
    assert rules.judge_operation(operation, bought(S.REFUND_REVIEW)) is not None


def test_every_operation_has_a_rule_that_allows_it_and_one_that_refuses_it() -> None:
    known = {(entry.values[0], entry.values[2]) for entry in TABLE}
    # What only older versions have is shown beside its own rule.
    elsewhere = {Op.REVOKE_EARLIER}
    assert {operation for operation, allowed in known if not allowed} | elsewhere == set(Operation)
    assert {operation for operation, allowed in known if allowed} | elsewhere | {Op.EXPORT_KEY} == set(Operation)


@pytest.mark.parametrize(
    ("known", "allowed"),
    [
        pytest.param(facts(), False, id="a free certificate that is issued is deleted through the API only"),
        pytest.param(bought(of=FREE), False, id="so is one of a free product"),
        pytest.param(bought(), True, id="a paid one is deleted on its page, too"),
        pytest.param(uploaded(), True, id="so is an uploaded one"),
        pytest.param(facts(S.REVOKED), True, id="and what is over"),
    ],
)
def test_deleting_by_hand(known: CertificateFacts, allowed: bool) -> None:
    verdict = rules.why_only_by_program(known)
    assert (verdict is None) == allowed
    if verdict is not None:
        told(verdict, Op.DELETE, known)


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_in_the_last_30_days_of_a_paid_year_only_a_leaked_key_is_revoked(reason: RevocationReason) -> None:
    verdict = rules.judge_revocation(bought(revocation_closed=True), None, reason)
    assert (verdict is None) == (reason is RevocationReason.KEY_COMPROMISE)


@pytest.mark.parametrize(
    ("type", "reason", "asks_itself", "asked"),
    [
        pytest.param("dv", "superseded", False, False, id="nobody is asked about a DV certificate"),
        pytest.param("ov", "superseded", False, True, id="an OV applicant confirms by a mailed link"),
        pytest.param("ev_pro", "superseded", False, True, id="so does that of an EV certificate"),
        pytest.param("ov", "key_compromise", False, False, id="a leaked key waits for no mail"),
        pytest.param("ov", "superseded", True, False, id="a CA that asks by itself is left to it"),
    ],
)
def test_before_a_version_is_cancelled(type: str, reason: str, asks_itself: bool, asked: bool) -> None:
    assert rules.needs_confirmation(
        certificate_type=type, reason=reason, asks_itself=asks_itself, has_applicant=True
    ) == asked  # fmt: skip


@pytest.mark.parametrize("brand", ["DigiCert", "GeoTrust", "CFCA", "TrustAsia", "vTrus"])
def test_these_cas_reissue_up_to_25_days_after_issue(brand: str) -> None:
    assert windows(brand) == {25}


def test_globalsign_reissues_up_to_5_days_after_issue() -> None:
    assert windows("GlobalSign") == {5}


def windows(brand: str) -> set[int | None]:
    return {one.reissue_days for one in billing.shipped().values() if one.brand == brand and not one.free}


NOON = datetime(2026, 6, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        pytest.param(NOON - timedelta(days=31), False, id="31 calendar days before its end it is too early"),
        pytest.param(datetime(2026, 5, 31, 0, 0, tzinfo=UTC), True, id="30 calendar days before, from midnight on"),
        pytest.param(datetime(2026, 5, 30, 23, 59, 59, tzinfo=UTC), False, id="not a second sooner"),
        pytest.param(NOON - timedelta(seconds=1), True, id="up to its last second"),
        pytest.param(NOON, False, id="and not afterwards"),
    ],
)
def test_a_renewal_is_ordered(now: datetime, open_: bool) -> None:
    purchase = rules.purchase(
        paid=True, quota=1, names=1, reissue_days=25, years=1, issued_at=NOON - timedelta(days=365), not_after=NOON,
        coverage_ends_at=NOON, now=now,
    )  # fmt: skip
    assert purchase.renewal_open is open_


@pytest.mark.parametrize(
    ("state", "validated", "awaits", "percent"),
    [
        (S.PENDING_APPLICATION, False, False, 0),
        (S.PENDING_DOMAIN_VALIDATION, False, False, 40),
        (S.PENDING_ORGANIZATION_VALIDATION, True, True, 70),
        (S.TO_BE_ISSUED, True, False, 90),
        (S.ISSUED, True, False, 100),
        (S.VERIFYING_DOMAIN_ADDITION, False, False, 40),
        (S.VERIFYING_DOMAIN_ADDITION, True, False, 90),
        (S.VERIFYING_REISSUE, True, True, 70),
        (S.VERIFYING_REISSUE, True, False, 90),
        *[(state, True, False, None) for state in (
            S.APPROVAL_FAILED, S.VERIFYING_WITHDRAWAL, S.VERIFYING_REVOCATION, S.REVOKED, S.HOSTED, S.EXPIRED,
            S.REFUND_REVIEW, S.REVOCATION_PENDING_DOMAIN_VALIDATION,
        )],
    ],
)  # fmt: skip
def test_progress_is_that_of_the_table(state: State, validated: bool, awaits: bool, percent: int | None) -> None:
    assert rules.progress(state, validated=validated, awaits_organisation=awaits) == percent


def test_ov_and_ev_are_the_types_that_name_an_organization() -> None:
    assert {kind for kind in CertificateType if kind.names_organisation} == {"ov", "ov_pro", "ev", "ev_pro"}
