"""What a signing request may say, as tables."""

from __future__ import annotations

import pytest

from certwright.kernel.problems import Invalid, InvalidFields
from certwright.rooms.certificates.rules import algorithm_of_new_key
from certwright.rooms.csrs import rules
from certwright.rooms.csrs.words import UsedBy
from certwright.x509.csr import Subject

NAMES = [
    ("one name", ["www.example.com"], "", ("www.example.com",), ()),
    ("case and dot", ["WWW.Example.com."], "", ("www.example.com",), ()),
    ("an umlaut", ["bücher.example"], "", ("xn--bcher-kva.example",), ()),
    ("an address beside", ["a.example", "192.0.2.1"], "", ("a.example",), ("192.0.2.1",)),
    ("twice is once", ["a.example", "A.example"], "", ("a.example",), ()),
    ("a host name as CN comes first", ["b.example"], "a.example", ("a.example", "b.example"), ()),
    ("a CN that is there already", ["b.example", "a.example"], "a.example", ("a.example", "b.example"), ()),
    ("a CN alone", [], "a.example", ("a.example",), ()),
    ("an address as CN", ["a.example"], "192.0.2.1", ("a.example",), ("192.0.2.1",)),
    ("a CN in prose", ["a.example"], "My server No. 1", ("a.example",), ()),
    ("wildcards and internal names", ["*.example.com", "db.local"], "", ("*.example.com", "db.local"), ()),
]


@pytest.mark.parametrize(("typed", "cn", "dns", "ips"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
def test_names(typed: list[str], cn: str, dns: tuple[str, ...], ips: tuple[str, ...]) -> None:
    assert rules.judge_names(typed, cn) == (dns, ips)


@pytest.mark.parametrize(
    ("typed", "cn", "field"),
    [
        (["a..example"], "", "names[0]"),
        (["a.example", "b_.ex ample"], "", "names[1]"),
        (["a.example"], "a..example", "subject.common_name"),
        ([], "", "names"),
        ([], "My server", "names"),
        (["a.example"] * 251, "", "names"),
    ],
    ids=["empty label", "second of two", "wrong CN", "none", "prose alone", "too many"],
)
def test_names_that_are_refused_say_where(typed: list[str], cn: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        rules.judge_names(typed, cn)
    assert refused.value.field == field


SUBJECTS = [
    ("spaces go, the country is in capitals", Subject(organization=" Ex Ltd ", country="de"), "Ex Ltd", "DE"),
    ("as long as X.520 allows", Subject(organization="x" * 64), "x" * 64, ""),
]


@pytest.mark.parametrize(("asked", "organization", "country"), [s[1:] for s in SUBJECTS], ids=[s[0] for s in SUBJECTS])
def test_subjects(asked: Subject, organization: str, country: str) -> None:
    judged = rules.judge_subject(asked)
    assert (judged.organization, judged.country) == (organization, country)


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        (Subject(common_name="x" * 65), "subject_field_invalid", "subject.common_name"),
        (Subject(organization="x" * 65), "subject_field_invalid", "subject.organization"),
        (Subject(organizational_unit="a\nb"), "subject_field_invalid", "subject.organizational_unit"),
        (Subject(locality="x" * 129), "subject_field_invalid", "subject.locality"),
        (Subject(country="DEU"), "country_invalid", "subject.country"),
        (Subject(country="ß"), "country_invalid", "subject.country"),
        (Subject(country="1A"), "country_invalid", "subject.country"),
    ],
)
def test_subjects_that_are_refused(asked: Subject, code: str, field: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        rules.judge_subject(asked)
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize("name", ["ab", "x" * 64, "with space", "ümlaut", "a/b", ""])
def test_names_of_requests_that_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="3 to 63"):
        rules.judge_name(name)


def test_a_passphrase_is_utf_8_and_has_an_upper_bound() -> None:
    assert rules.judge_passphrase("pässword") == "pässword".encode()
    assert rules.judge_passphrase("") is None
    assert rules.judge_passphrase(None) is None
    with pytest.raises(Invalid, match="1023") as refused:
        rules.judge_passphrase("ä" * 512)
    assert "ä" not in refused.value.message


def test_deleting_is_refused_while_an_application_is_open_and_only_then() -> None:
    assert rules.why_not_delete(UsedBy(certificates=3)) is None
    refused = rules.why_not_delete(UsedBy(certificates=1, open_applications=1))
    assert refused is not None
    assert refused.code == "csr_in_use"


@pytest.mark.parametrize(
    ("was", "next_one"),
    [
        ("EC_P384", "EC_P384"), ("EC P-384", "EC_P384"), ("RSA 3072", "RSA_3072"), ("RSA_4096", "RSA_4096"),
        ("EC P-521", "EC_P256"), ("Ed25519", "EC_P256"), ("RSA 8192", "EC_P256"),
    ],
)  # fmt: skip
def test_the_key_after_the_one_of_a_request_is_like_it_where_such_are_made_here(was: str, next_one: str) -> None:
    assert algorithm_of_new_key(was) == next_one
