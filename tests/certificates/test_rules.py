"""The rules of certificates as tables; each test's name and id is the rule's sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.certificates import rules
from certwright.rooms.certificates.words import Applicant, Application, CertificateFacts, DomainType, Operation, State
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
        pytest.param(application("192.0.2.7"), False, "ip_not_supported", "names[0]", id="an IP address"),
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
    Operation.REVOKE: {_S.ISSUED},
    Operation.DOWNLOAD: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.EXPORT_KEY: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.DEPLOY: {_S.ISSUED, _S.HOSTED, _S.VERIFYING_REISSUE, _S.VERIFYING_DOMAIN_ADDITION},
    Operation.SET_AUTO_RENEW: set(_S) - {_S.EXPIRED, _S.REVOKED},
    Operation.UPDATE: set(_S),
    Operation.DELETE: {
        _S.PENDING_APPLICATION, _S.APPROVAL_FAILED, _S.ISSUED, _S.REVOKED, _S.EXPIRED, _S.HOSTED,
    },
}  # fmt: skip


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("state", list(State))
def test_operation_is_allowed_in_exactly_the_states_of_the_table(operation: Operation, state: State) -> None:
    facts = CertificateFacts(state=state, has_version=True, has_key=True)
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


@pytest.mark.parametrize("operation", [Operation.REVOKE, Operation.REISSUE, Operation.SET_AUTO_RENEW])
def test_what_needs_the_ca_is_refused_for_uploaded_certificates(operation: Operation) -> None:
    facts = CertificateFacts(State.HOSTED, has_version=True, has_key=True, uploaded=True)
    verdict = rules.judge_operation(operation, facts)
    assert verdict is not None
    assert "uploaded" in verdict.message


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
