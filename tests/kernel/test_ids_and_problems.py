"""Ids sort by age; problems say what is wrong, where and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.ids import first_id, is_id, new_id
from certwright.kernel.problems import Invalid, InvalidFields, NotFound, not_found

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@given(st.integers(min_value=1, max_value=10**9))
def test_a_later_id_sorts_after_an_earlier_one(milliseconds: int) -> None:
    later = NOW + timedelta(milliseconds=milliseconds)
    assert new_id("cert", NOW) < new_id("cert", later)


@given(st.integers(min_value=1, max_value=10**9))
def test_the_first_id_of_a_moment_parts_what_was_made_before_from_the_rest(milliseconds: int) -> None:
    then = NOW + timedelta(milliseconds=milliseconds)
    assert new_id("cert", NOW) < first_id("cert", then) <= new_id("cert", then)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id("cert", NOW) for _ in range(1000)}) == 1000


def test_an_id_tells_its_kind() -> None:
    made = new_id("cert", NOW)
    assert is_id(made, "cert")
    assert not is_id(made, "app")
    assert not is_id("cert_" + "!" * 26, "cert")
    assert not is_id("cert", "cert")


def test_one_problem_in_a_form_is_told_as_itself() -> None:
    refused = InvalidFields([Invalid("a", "A is wrong.", field="a", fix="Fix a.")])
    assert (refused.code, refused.field, refused.fix) == ("a", "a", "Fix a.")


def test_several_problems_are_listed() -> None:
    refused = InvalidFields([Invalid("a", "A.", field="a", fix="x"), Invalid("b", "B.", field="b", fix="y")])
    assert refused.code == "invalid_fields"
    assert [e["field"] for e in refused.as_dict()["errors"]] == ["a", "b"]


def test_a_problem_can_be_said_of_another_field() -> None:
    assert Invalid("a", "A.", field="name").at("names[2]").field == "names[2]"


def test_what_is_not_there_and_what_may_not_be_seen_read_the_same() -> None:
    assert isinstance(not_found("certificate", "cert_x"), NotFound)
    assert "that you may see" in not_found("certificate", "cert_x").message


def test_ids_of_one_moment_are_in_the_order_of_making() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    made = [new_id("cert", at) for _ in range(1000)]
    assert made == sorted(set(made))
    assert new_id("cert", at + timedelta(milliseconds=1)) > made[-1] > new_id("cert", at - timedelta(milliseconds=1))
