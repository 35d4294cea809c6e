"""Reading what was typed, and putting problems beside the fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.entry.console.forms import Faults, Form, parse
from certwright.entry.console.web import safe_next
from certwright.kernel.problems import Invalid, InvalidFields, Problem


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("www.example.com", ("www.example.com",)),
        ("a.example\r\nb.example\r\n", ("a.example", "b.example")),
        (" a.example , b.example;c.example ", ("a.example", "b.example", "c.example")),
        ("\n\n", ()),
    ],
    ids=["one", "lines", "pasted list", "nothing"],
)
def test_a_list_may_be_parted_by_lines_commas_or_semicolons(typed: str, names: tuple[str, ...]) -> None:
    assert Form([("names", typed)]).lines("names") == names


def test_texts_are_trimmed_but_passwords_are_taken_as_typed() -> None:
    form = Form([("name", " Ada "), ("password", " two words ")])
    assert form.text("name") == "Ada"
    assert form.raw("password") == " two words "


def test_a_nul_character_is_refused_because_no_column_can_hold_it() -> None:
    with pytest.raises(Invalid) as refused:
        parse("name=a%00b")
    assert refused.value.code == "form_unreadable"


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(Invalid) as refused:
        parse("&".join(f"a{n}=1" for n in range(2000)))
    assert refused.value.code == "form_unreadable"


@given(st.text())
def test_whatever_is_sent_is_read_or_refused(text: str) -> None:
    try:
        form = parse(text)
    except Problem:
        return
    for key, _value in form:
        form.lines(key)
        form.many(key)


@pytest.mark.parametrize(
    ("field", "shown_at"),
    [
        ("names[3]", "names"),
        ("applicant.email", "applicant_email"),
        ("document.Statement.0.Action", "document"),
        ("name", "name"),
        (None, ""),
    ],
)
def test_a_problem_stands_beside_the_field_it_is_about(field: str | None, shown_at: str) -> None:
    problem = InvalidFields([Invalid("wrong", "It is wrong.", field=field), Invalid("other", "Too.", field="else")])
    faults = Faults.of(problem, {"applicant.email": "applicant_email"})
    assert [fault["code"] for fault in faults.at(shown_at)] == ["wrong"]


@pytest.mark.parametrize(
    ("asked", "goes_to"),
    [
        ("/certificates?q=a", "/certificates?q=a"),
        ("", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/a\\b", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_signing_in_never_sends_anybody_to_another_site(asked: str, goes_to: str) -> None:
    assert safe_next(asked) == goes_to
