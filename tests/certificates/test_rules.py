"""The rules of certificates as tables; each test's name and id is the rule's sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.certificates import rules
from certwright.rooms.certificates.words import (
    Applicant,
    Application,
    CertificateFacts,
    CertificateType,
    DomainType,
    Operation,
    Purchase,
    RevocationReason,
    State,
)
from certwright.x509.csr import make_csr
from certwright.x509.keys import KeyAlgorithm, generate

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")


def application(*names: str, **changes: object) -> Application:
    fields: dict[str, object] = {"names": names, "applicant": APPLICANT, "consent": True} | changes
    return Application(**fields)  # type: ignore[arg-type]


def refusals(asked: Application, *, public: bool = False) -> dict[str, str | None]:
    """code → field of everything wrong with an application."""
    with pytest.raises(InvalidFields) as caught:
        rules.judge_application(asked, public_ca=public)
    for problem in caught.value.problems:
        assert problem.message.endswith(".")
        assert problem.fix
    return {problem.code: problem.field for problem in caught.value.problems}


# --- what an application must look like -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "public", "code", "field"),
    [
        pytest.param(application(), False, "names_missing", "names", id="no name at all"),
        pytest.param(application("a..example.com"), False, "name_empty_label", "names[0]", id="two dots in a row"),
        pytest.param(
            application("ok.example.com", "ex_ample.com"), False, "label_bad_character", "names[1]", id="an underscore"
        ),
        pytest.param(application("*.*.example.com"), False, "bad_wildcard", "names[0]", id="two wildcards"),
        pytest.param(application("a.*.example.com"), False, "bad_wildcard", "names[0]", id="a wildcard inside"),
        pytest.param(application("w*.example.com"), False, "bad_wildcard", "names[0]", id="half a label"),
        pytest.param(
            application("*.co.uk", validation_method="dns"), False, "wildcard_on_public_suffix", "names[0]",
            id="a wildcard over a public suffix",
        ),
        pytest.param(application("☃.example.com"), False, "idna_invalid", "names[0]", id="not in IDNA 2008"),
        pytest.param(application("192.0.2.7"), True, "ip_not_supported", "names[0]", id="an IP address at a public CA"),
        pytest.param(
            application("192.0.2.7", validation_method="dns"), False, "ip_needs_file", "names[0]",
            id="an IP address by DNS",
        ),
        pytest.param(
            application("2001:db8::7", validation_method="email"), False, "ip_needs_file", "names[0]",
            id="an IP address by mail",
        ),
        pytest.param(
            application("192.0.2.7", "192.0.2.7 ", validation_method="file"), False, "name_repeated", "names[1]",
            id="one address twice",
        ),
        pytest.param(
            application("a.example.com", "A.EXAMPLE.com."), False, "name_repeated", "names[1]",
            id="one name twice, in other letters",
        ),
        pytest.param(application("server.local"), True, "internal_name", "names[0]", id="a .local name at a public CA"),
        pytest.param(
            application("1.0.0.10.in-addr.arpa"), True, "internal_name", "names[0]", id="a reverse name at a public CA"
        ),
        pytest.param(
            application("intranet"), True, "internal_name", "names[0]", id="a name without public suffix at a public CA"
        ),
        pytest.param(
            application("a.example.com", "*.example.com"), True, "wildcard_in_dv_multi", "names",
            id="a wildcard in a DV multi-domain certificate of a public CA",
        ),
        pytest.param(
            application("a.example.com", "b.example.com", domain_type="single"), False, "single_takes_one_name",
            "domain_type", id="single with two names",
        ),
        pytest.param(
            application("*.example.com", domain_type="single"), False, "single_takes_one_name", "domain_type",
            id="single with a wildcard",
        ),
        pytest.param(
            application("a.example.com", domain_type="multi"), False, "multi_takes_two_names", "domain_type",
            id="multi without an additional name",
        ),
        pytest.param(
            application("a.example.com", domain_type="wildcard"), False, "wildcard_takes_one_wildcard", "domain_type",
            id="wildcard without a wildcard",
        ),
        pytest.param(
            application("a.example.com", domain_type="triple"), False, "domain_type_unknown", "domain_type",
            id="a domain type that is none",
        ),
        pytest.param(
            application("*.example.com", validation_method="file"), False, "wildcard_needs_dns", "names[0]",
            id="a wildcard by file",
        ),
        pytest.param(
            application("*.example.com", per_name_methods={"*.example.com": "file"}), False, "wildcard_needs_dns",
            "names[0]", id="a wildcard by file, by exception",
        ),
        pytest.param(
            application("a.example.com", validation_method="telepathy"), False, "validation_method_unknown",
            "validation_method", id="a validation method that is none",
        ),
        pytest.param(
            application("a.example.com", per_name_methods={"b.example.com": "dns"}), False, "method_for_unknown_name",
            "per_name_methods", id="a method for a name that isn't asked for",
        ),
        pytest.param(
            application("a.example.com", key_algorithm="RSA_1024"), False, "key_algorithm_unknown", "key_algorithm",
            id="RSA below 2048 bits",
        ),
        pytest.param(application("a.example.com", applicant=None), False, "applicant_missing", "applicant",
                     id="no applicant"),
        pytest.param(
            application("a.example.com", applicant=Applicant("", "a@b.example", "+4912345")), False,
            "applicant_name_invalid", "applicant.name", id="an applicant without name",
        ),
        pytest.param(
            application("a.example.com", applicant=Applicant("A", "nobody", "+4912345")), False, "email_invalid",
            "applicant.email", id="an e-mail that is none",
        ),
        pytest.param(
            application("a.example.com", applicant=Applicant("A", "a@b\r\nBcc: c@d", "+4912345")), False,
            "email_invalid", "applicant.email", id="an e-mail that smuggles a header",
        ),
        pytest.param(
            application("a.example.com", applicant=Applicant("A", "a@b.example", "call me")), False, "phone_invalid",
            "applicant.phone", id="a phone that is none",
        ),
        pytest.param(
            application("a.example.com", consent=False), False, "consent_required", "consent", id="no consent"
        ),
        pytest.param(application(csr="-----BEGIN"), False, "csr_format", "csr", id="a CSR that is none"),
    ],
)  # fmt: skip
def test_an_application_is_refused_for(asked: Application, public: bool, code: str, field: str) -> None:
    found = refusals(asked, public=public)
    assert code in found
    assert found[code] == field


def test_several_mistakes_are_told_at_once() -> None:
    found = refusals(application("a..b", consent=False, applicant=None, key_algorithm="DES"))
    assert set(found) == {"name_empty_label", "consent_required", "applicant_missing", "key_algorithm_unknown"}


def test_at_most_250_names_fit_into_a_certificate() -> None:
    names = [f"h{i}.example.com" for i in range(251)]
    assert "too_many_names" in refusals(application(*names))
    judged = rules.judge_application(application(*names[:250]), public_ca=True)
    assert len(judged.names) == 250


def test_a_name_as_typed_becomes_its_a_label_and_both_are_kept() -> None:
    judged = rules.judge_application(application("Bücher.Example.com."), public_ca=True)
    assert judged.names == ("xn--bcher-kva.example.com",)
    assert judged.unicode_names == ("bücher.example.com",)


def test_internal_names_are_welcome_at_a_private_ca() -> None:
    judged = rules.judge_application(application("db.corp", "server.local"), public_ca=False)
    assert judged.names == ("db.corp", "server.local")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.example.com",), DomainType.SINGLE),
        (("a.example.com", "b.example.com"), DomainType.MULTI),
        (("*.example.com",), DomainType.WILDCARD),
    ],
)
def test_the_domain_type_follows_from_the_names(names: tuple[str, ...], expected: DomainType) -> None:
    assert rules.judge_application(application(*names), public_ca=True).domain_type is expected


def csr_for(*names: str) -> str:
    import base64

    der = make_csr(generate(KeyAlgorithm.EC_P256), list(names))
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def test_names_are_read_from_an_uploaded_csr() -> None:
    judged = rules.judge_application(application(csr=csr_for("a.example.com", "b.example.com")), public_ca=True)
    assert judged.names == ("a.example.com", "b.example.com")
    assert judged.csr_der is not None


def test_names_typed_beside_a_csr_must_be_the_same() -> None:
    found = refusals(application("other.example.com", csr=csr_for("a.example.com")))
    assert found == {"csr_names_differ": "names"}


@given(st.text(max_size=300), st.booleans())
def test_whatever_is_typed_as_a_name_is_judged_or_refused_with_a_problem(text: str, public: bool) -> None:
    try:
        judged = rules.judge_application(application(text), public_ca=public)
    except InvalidFields as refused:
        problems = refused.problems
    else:
        problems = ()
        assert judged.names[0].isascii()
        again = rules.judge_application(application(judged.names[0]), public_ca=public)
        assert again.names == judged.names
    assert all(isinstance(p, Problem) for p in problems)


# --- names, descriptions, tags --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ab", "a" * 64, "with space", "emoji☃", "semi;colon", "", "line\nbreak"])
def test_a_certificates_name_has_3_to_63_plain_characters(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_name(name)
    assert (caught.value.code, caught.value.field) == ("certificate_name_invalid", "name")


@pytest.mark.parametrize("name", ["abc", "a" * 63, "Shop_2026.v1-b"])
def test_a_good_certificate_name_is_kept(name: str) -> None:
    assert rules.judge_name(name) == name


def test_a_description_has_at_most_255_characters() -> None:
    assert rules.judge_description("x" * 255)
    with pytest.raises(Invalid, match="longer than 255"):
        rules.judge_description("x" * 256)


# --- operations -----------------------------------------------------------------------------------------------------

_S = State
_ALLOWED: dict[Operation, set[State]] = {
    Operation.APPLY: {_S.PENDING_APPLICATION, _S.APPROVAL_FAILED},
    Operation.SAVE_DRAFT: {_S.PENDING_APPLICATION, _S.APPROVAL_FAILED},
    Operation.VERIFY_DOMAINS: {
        _S.PENDING_DOMAIN_VALIDATION, _S.VERIFYING_DOMAIN_ADDITION, _S.VERIFYING_REISSUE,
        _S.REVOCATION_PENDING_DOMAIN_VALIDATION,
    },
    Operation.WITHDRAW: {
        _S.PENDING_DOMAIN_VALIDATION, _S.PENDING_ORGANIZATION_VALIDATION, _S.VERIFYING_DOMAIN_ADDITION,
        _S.VERIFYING_REISSUE,
    },
    Operation.REISSUE: {_S.ISSUED},
    Operation.ADD_DOMAINS: {_S.ISSUED},
    Operation.RENEW: {_S.ISSUED},
    Operation.APPLY_AGAIN: {_S.REVOKED},
    Operation.WITHDRAW_PRIVACY: set(_S) - {
        _S.PENDING_DOMAIN_VALIDATION, _S.PENDING_ORGANIZATION_VALIDATION, _S.TO_BE_ISSUED,
        _S.VERIFYING_DOMAIN_ADDITION, _S.REFUND_REVIEW,
    },
    Operation.REVOKE: {_S.ISSUED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.REVOKE_EARLIER: set(_S) - {_S.REFUND_REVIEW},
    Operation.DOWNLOAD: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.EXPORT_KEY: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.DEPLOY: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.REPLACE: {_S.HOSTED, _S.EXPIRED},
    Operation.SET_AUTO_RENEW: set(_S) - {_S.EXPIRED, _S.REVOKED, _S.REFUND_REVIEW},
    Operation.UPDATE: set(_S) - {_S.REFUND_REVIEW},
    Operation.DELETE: {
        _S.PENDING_APPLICATION, _S.APPROVAL_FAILED, _S.ISSUED, _S.REVOKED, _S.EXPIRED, _S.HOSTED,
    },
}  # fmt: skip


def bought(**changes: object) -> Purchase:
    usual = Purchase(
        paid=True, names_left=2, reissue_open=True, coverage_left=True, renewal_open=False, revocation_closed=False
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # the tests name real fields


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("state", list(State))
def test_operation_is_allowed_in_exactly_the_states_of_the_table(operation: Operation, state: State) -> None:
    purchase = {
        Operation.RENEW: bought(renewal_open=True), Operation.APPLY_AGAIN: bought(), Operation.ADD_DOMAINS: bought(),
    }.get(operation)  # fmt: skip
    facts = CertificateFacts(
        state=state, has_version=True, has_key=True, earlier=(1,), holds_personal_data=True, purchase=purchase,
        domain_type=DomainType.MULTI if operation is Operation.ADD_DOMAINS else DomainType.SINGLE,
        uploaded=operation is Operation.REPLACE,
    )  # fmt: skip
    verdict = rules.judge_operation(operation, facts)
    assert (verdict is None) == (state in _ALLOWED[operation])
    if verdict is not None:
        assert verdict.status == 409
        assert verdict.extra["state"] == state.value
        assert verdict.extra["operation"] == operation.value
        assert verdict.message.endswith(".")
        assert verdict.fix


@pytest.mark.parametrize("operation", [Operation.DEPLOY, Operation.EXPORT_KEY])
def test_what_needs_the_private_key_is_refused_where_the_csr_was_uploaded(operation: Operation) -> None:
    verdict = rules.judge_operation(operation, CertificateFacts(State.ISSUED, has_version=True, has_key=False))
    assert verdict is not None
    assert "CSR was uploaded" in verdict.message


@pytest.mark.parametrize(
    "operation", [Operation.REVOKE, Operation.REVOKE_EARLIER, Operation.REISSUE, Operation.SET_AUTO_RENEW]
)
def test_what_needs_the_ca_is_refused_for_uploaded_certificates(operation: Operation) -> None:
    facts = CertificateFacts(State.HOSTED, has_version=True, has_key=True, uploaded=True, earlier=(1,))
    verdict = rules.judge_operation(operation, facts)
    assert verdict is not None
    assert "uploaded" in verdict.message


@pytest.mark.parametrize(
    ("earlier", "asked_for", "allowed"),
    [((1, 3), 1, True), ((1, 3), 3, True), ((1, 3), 2, False), ((), 1, False), ((), None, True)],
)
def test_of_earlier_versions_those_still_good_can_be_revoked(
    earlier: tuple[int, ...], asked_for: int | None, allowed: bool
) -> None:
    facts = CertificateFacts(State.ISSUED, True, True, earlier=earlier)
    verdict = rules.judge_revocation(facts, asked_for, RevocationReason.UNSPECIFIED)
    assert (verdict is None) == allowed
    if verdict is not None:
        assert (verdict.status, verdict.extra["operation"]) == (409, "revoke_earlier")


def test_the_current_version_is_revoked_once_even_during_a_reissue() -> None:
    facts = CertificateFacts(State.VERIFYING_REISSUE, True, True, revocation_asked=True, revoking=True)
    assert rules.judge_revocation(facts, None, RevocationReason.KEY_COMPROMISE) is not None


@pytest.mark.parametrize(
    ("operation", "facts", "reason"),
    [
        pytest.param(Operation.REISSUE, {"domain_type": DomainType.MULTI, "purchase": bought()},
                     "only single-domain and wildcard", id="a bought multi-domain certificate is not reissued"),
        pytest.param(Operation.REISSUE, {"purchase": bought(paid=False)}, "free product",
                     id="a free product is not reissued"),
        pytest.param(Operation.REISSUE, {"purchase": bought(reissue_open=False)}, "CA's time for reissuing",
                     id="after the CA's window nothing is reissued"),
        pytest.param(Operation.ADD_DOMAINS, {"domain_type": DomainType.SINGLE}, "only multi-domain",
                     id="a single-domain certificate takes no more names"),
        pytest.param(Operation.ADD_DOMAINS, {"domain_type": DomainType.MULTI, "purchase": bought(names_left=0)},
                     "quota is used up", id="a used up quota takes no more names"),
        pytest.param(Operation.ADD_DOMAINS, {"domain_type": DomainType.MULTI, "name_count": 250},
                     "quota is used up", id="250 names are the most even where nothing was bought"),
        pytest.param(Operation.ADD_DOMAINS, {"domain_type": DomainType.MULTI, "uploaded": True}, "uploaded",
                     id="an uploaded certificate takes no more names"),
        pytest.param(Operation.RENEW, {"purchase": bought()}, "last 30 days",
                     id="a renewal is ordered in the last 30 days only"),
        pytest.param(Operation.RENEW, {}, "not bought", id="what was not bought is not renewed by order"),
        pytest.param(Operation.RENEW, {"purchase": bought(paid=False, renewal_open=True)}, "not bought",
                     id="a free certificate is not renewed by order"),
        pytest.param(Operation.APPLY_AGAIN, {"state": State.REVOKED, "purchase": bought(coverage_left=False)},
                     "paid for is over", id="when the coverage is over nobody applies again"),
        pytest.param(Operation.APPLY_AGAIN, {"state": State.REVOKED}, "not bought",
                     id="what was not bought is not applied for again"),
        pytest.param(Operation.DELETE, {"state": State.PENDING_APPLICATION, "purchase": bought()}, "paid for",
                     id="what was paid for and not used is unsubscribed from, not deleted"),
        pytest.param(Operation.WITHDRAW_PRIVACY, {"holds_personal_data": False}, "no personal data",
                     id="where no personal data is kept none is withdrawn"),
    ],
)  # fmt: skip
def test_an_operation_is_refused(operation: Operation, facts: dict[str, Any], reason: str) -> None:
    usual = {"state": State.ISSUED, "has_version": True, "has_key": True, "holds_personal_data": True}
    verdict = rules.judge_operation(operation, CertificateFacts(**usual | facts))
    assert verdict is not None
    assert reason in verdict.message
    assert verdict.fix


def test_a_renewal_inside_the_coverage_asks_neither_for_the_window_nor_for_the_domain_type() -> None:
    purchase = bought(reissue_open=False)
    facts = CertificateFacts(State.ISSUED, True, True, domain_type=DomainType.MULTI, purchase=purchase)
    assert rules.judge_operation(Operation.REISSUE, facts) is not None
    assert rules.judge_renewal(facts) is None


def test_a_renewal_ends_with_the_coverage() -> None:
    facts = CertificateFacts(State.ISSUED, True, True, purchase=bought(coverage_left=False))
    verdict = rules.judge_renewal(facts)
    assert verdict is not None
    assert "paid for is over" in verdict.message


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [(reason, reason is RevocationReason.KEY_COMPROMISE) for reason in RevocationReason],
)
def test_in_the_last_30_days_of_a_paid_year_only_a_key_known_to_others_is_revoked(
    reason: RevocationReason, allowed: bool
) -> None:
    facts = CertificateFacts(State.ISSUED, True, True, purchase=bought(revocation_closed=True))
    assert (rules.judge_revocation(facts, None, reason) is None) == allowed


_NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def reach(now: datetime, *, years: int = 1, paid: bool = True, reissue_days: int | None = 25) -> Purchase:
    return rules.purchase(
        paid=paid, quota=3, names=2, reissue_days=reissue_days, years=years, issued_at=_NOON,
        not_after=_NOON + timedelta(days=199), coverage_ends_at=_NOON + timedelta(days=365 * years), now=now,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("after", "fact", "expected"),
    [
        (timedelta(days=25) - timedelta(seconds=1), "reissue_open", True),
        (timedelta(days=25), "reissue_open", False),
        (timedelta(days=334, hours=12) - timedelta(seconds=1), "renewal_open", False),
        (timedelta(days=334, hours=12), "renewal_open", True),
        (timedelta(days=365), "renewal_open", False),
        (timedelta(days=335) - timedelta(seconds=1), "revocation_closed", False),
        (timedelta(days=335), "revocation_closed", True),
        (timedelta(days=365) - timedelta(seconds=1), "coverage_left", True),
        (timedelta(days=365), "coverage_left", False),
    ],
)
def test_what_was_bought_reaches_to_the_second(after: timedelta, fact: str, expected: bool) -> None:
    assert getattr(reach(_NOON + after), fact) is expected


def test_where_the_ca_has_no_window_reissuing_ends_with_the_certificate() -> None:
    assert reach(_NOON + timedelta(days=198), reissue_days=None).reissue_open


def test_two_years_and_free_products_can_be_revoked_to_the_end() -> None:
    assert not reach(_NOON + timedelta(days=720), years=2).revocation_closed
    assert not reach(_NOON + timedelta(days=360), paid=False).revocation_closed


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        pytest.param({"certificate_type": "ov"}, "organisation_missing", "organisation_id",
                     id="OV names an organization"),
        pytest.param({"organisation_id": "org_x"}, "organisation_not_in_dv", "organisation_id",
                     id="DV names none"),
        pytest.param({"certificate_type": "gold"}, "certificate_type_unknown", "certificate_type",
                     id="a type nobody knows"),
        pytest.param({"certificate_type": "ev", "organisation_id": "org_x", "names": ("*.example.com",)},
                     "wildcard_in_ev", "names", id="EV holds no wildcard"),
    ],
)  # fmt: skip
def test_an_application_for_a_type_is_refused_for(given: dict[str, Any], code: str, field: str) -> None:
    names = given.pop("names", ("shop.example.com",))
    with pytest.raises(InvalidFields) as caught:
        rules.judge_application(application(*names, **given), public_ca=True, types=tuple(CertificateType))
    assert {p.code: p.field for p in caught.value.problems}.get(code) == field


def test_a_ca_that_issues_dv_only_says_so() -> None:
    wanted = application("shop.example.com", certificate_type="ev", organisation_id="org_x")
    with pytest.raises(InvalidFields) as caught:
        rules.judge_application(wanted, public_ca=True)
    assert [p.code for p in caught.value.problems] == ["certificate_type_not_offered"]


def test_ov_multi_domain_certificates_of_public_cas_may_hold_wildcards() -> None:
    wanted = application("shop.example.com", "*.example.com", certificate_type="ov", organisation_id="org_x")
    judged = rules.judge_application(wanted, public_ca=True, types=tuple(CertificateType))
    assert judged.domain_type is DomainType.MULTI


@pytest.mark.parametrize(
    ("names", "product", "code"),
    [
        (("a.example.com",), {"certificate_type": "ov"}, "other_than_bought"),
        (("a.example.com",), {"domain_type": "wildcard"}, "other_than_bought"),
        (("a.example.com", "b.example.com"), {"domain_type": "multi", "quota": 1}, "domain_quota_exceeded"),
        (("a.example.com", "*.example.com"), {"domain_type": "multi", "quota": 5}, "domain_quota_exceeded"),
        (("a.example.com",), {"methods": ("file", "email")}, "method_not_offered"),
        (("a.example.com",), {"methods": ("http-01",)}, "method_not_offered"),
    ],
)
def test_an_application_stays_within_what_was_bought(
    names: tuple[str, ...], product: dict[str, Any], code: str
) -> None:
    usual = {"certificate_type": "dv", "domain_type": "single", "quota": 1, "wildcard_quota": 0,
             "methods": ("dns", "file")}  # fmt: skip
    judged = rules.judge_application(application(*names), public_ca=False)
    with pytest.raises(InvalidFields) as caught:
        rules.judge_against_purchase(judged, **usual | product)
    assert [p.code for p in caught.value.problems] == [code]


def test_an_application_for_just_what_was_bought_passes() -> None:
    judged = rules.judge_application(application("a.example.com", "*.example.com"), public_ca=False)
    rules.judge_against_purchase(
        judged, certificate_type="dv", domain_type="multi", quota=1, wildcard_quota=1, methods=("dns-01",)
    )


def test_nothing_is_deleted_while_the_ca_has_yet_to_hear_of_a_revocation() -> None:
    verdict = rules.judge_operation(Operation.DELETE, CertificateFacts(State.ISSUED, True, True, revoking=True))
    assert verdict is not None
    assert "revocation" in verdict.message


@pytest.mark.parametrize(
    ("asked", "revoked", "state"),
    [(False, False, State.ISSUED), (True, False, State.VERIFYING_REVOCATION), (True, True, State.REVOKED)],
)
def test_a_reissue_that_ends_without_a_version_leaves_what_became_of_the_old_one(
    asked: bool, revoked: bool, state: State
) -> None:
    assert rules.after_reissue(revocation_asked=asked, revoked=revoked) is state


def test_a_bound_certificate_is_not_deleted_and_the_refusal_says_where_it_is_bound() -> None:
    facts = CertificateFacts(State.ISSUED, True, True, bound_to=("shop on web-1 (0.0.0.0:443)",))
    verdict = rules.judge_operation(Operation.DELETE, facts)
    assert verdict is not None
    assert verdict.code == "certificate_bound"
    assert "shop on web-1" in verdict.message


def test_a_refusal_lists_what_can_be_done_instead() -> None:
    facts = CertificateFacts(State.PENDING_DOMAIN_VALIDATION, False, False)
    verdict = rules.judge_operation(Operation.REVOKE, facts)
    assert verdict is not None
    allowed = rules.with_allowed(verdict, facts).extra["allowed_operations"]
    assert set(allowed) == {"verify_domains", "withdraw", "update", "set_auto_renew"}


# --- time -----------------------------------------------------------------------------------------------------------


def test_an_issued_certificate_is_expired_from_the_second_its_version_ends() -> None:
    assert rules.shown_state(State.ISSUED, NOW + timedelta(seconds=1), NOW) is State.ISSUED
    assert rules.shown_state(State.ISSUED, NOW, NOW) is State.EXPIRED


def test_a_revoked_certificate_stays_revoked_after_its_end() -> None:
    assert rules.shown_state(State.REVOKED, NOW - timedelta(days=1), NOW) is State.REVOKED


@pytest.mark.parametrize(
    ("life", "left", "soon"),
    [
        pytest.param(timedelta(days=199), timedelta(days=30), True, id="30 days left of 199"),
        pytest.param(timedelta(days=199), timedelta(days=30, seconds=1), False, id="a second more than 30 days"),
        pytest.param(timedelta(days=47), timedelta(days=30), False, id="30 days left of 47"),
        pytest.param(timedelta(days=47), timedelta(days=15), True, id="less than a third left of 47"),
        pytest.param(timedelta(days=6), timedelta(days=3), False, id="half left of six days"),
    ],
)
def test_expires_soon_is_30_days_or_a_third_of_a_short_life(life: timedelta, left: timedelta, soon: bool) -> None:
    assert rules.expires_soon(State.ISSUED, NOW + left - life, NOW + left, NOW) is soon


@pytest.mark.parametrize(
    ("life", "due_after"),
    [
        pytest.param(timedelta(days=90), timedelta(days=60), id="two thirds of 90 days"),
        pytest.param(timedelta(days=10), timedelta(days=10) * 2 / 3, id="two thirds of exactly ten days"),
        pytest.param(timedelta(days=9), timedelta(days=4, hours=12), id="half of less than ten days"),
    ],
)
def test_a_version_is_due_at_two_thirds_or_half_of_a_very_short_life(life: timedelta, due_after: timedelta) -> None:
    assert rules.renew_at(NOW, NOW + life) == NOW + due_after


# --- what came back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got_names", "got_spki", "not_after", "code"),
    [
        (("a.example.com", "evil.example.com"), "k1", NOW + timedelta(days=9), "issued_other_names"),
        (("a.example.com",), "k2", NOW + timedelta(days=9), "issued_other_key"),
        (("a.example.com",), "k1", NOW, "issued_expired"),
        (("a.example.com",), "k1", NOW + timedelta(days=9), None),
    ],
)
def test_a_certificate_is_believed_only_with_our_names_our_key_and_time_left(
    got_names: tuple[str, ...], got_spki: str, not_after: datetime, code: str | None
) -> None:
    verdict = rules.why_not_ours(
        asked_names=("a.example.com",), got_names=got_names, asked_spki="k1", got_spki=got_spki, not_after=not_after,
        now=NOW,
    )  # fmt: skip
    assert (verdict.code if verdict else None) == code
