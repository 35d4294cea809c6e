"""What a CA's entry may say, the mirror of its limits, and how often it is told to look."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, Problem
from certwright.rooms.cas import rules
from certwright.rooms.cas.rules import Answer, why_answer
from certwright.rooms.cas.words import Limit, Use
from tests.servers.tls import issue

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


# --- what an entry may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["le", "Let-s.Encrypt_2", "x" * 63])
def test_plain_names_are_taken(name: str) -> None:
    assert rules.judge_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "builtin", "BuiltIn", "x" * 64, "ü", "a/b", "a\n"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_name(name)
    assert (caught.value.code, caught.value.field) == ("ca_name_invalid", "name")


@pytest.mark.parametrize("url", ["https://ca.example/dir", "https://127.0.0.1:14000/dir", "https://[::1]/d?x=1"])
def test_https_directories_are_taken(url: str) -> None:
    assert rules.judge_directory_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "http://ca.example/dir", "https://", "https://me:secret@ca.example/", "https://ca.example/#x", "ftp://x/",
     "https://ca.example:0/", "https://ca.example:99999/", "https://cä.example/", "https://a b/", "https://[::1",
     "https://ca.example/" + "x" * 600],
)  # fmt: skip
def test_other_directories_are_not(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_directory_url(url)
    assert caught.value.code == "ca_directory_invalid"


@given(st.text(max_size=80))
def test_any_directory_is_judged(url: str) -> None:
    try:
        assert rules.judge_directory_url(url).startswith("https://")
    except Invalid:
        return


def test_contacts_are_addresses_each_once() -> None:
    assert rules.judge_contacts(["mailto:a@example.com", " a@example.com ", "b@example.com"]) == [
        "a@example.com", "b@example.com",
    ]  # fmt: skip


@pytest.mark.parametrize("contact", ["", "a", "a@b,c@d", "a@b?cc=c", "ü@example.com", "tel:+49"])
def test_a_contact_that_is_none_is_named_by_its_place(contact: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_contacts(["a@example.com", contact])
    assert caught.value.field == "contacts.1"


def test_a_root_must_be_a_ca_and_only_certificates_are_kept() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    root = issue("Root", ca=True)
    pem = root.certificate.public_bytes(Encoding.PEM).decode()
    kept = rules.judge_root("a note\n" + pem + "\nanother\n")
    assert kept is not None
    assert kept.strip() == pem.strip()
    leaf = issue("leaf.example", root).certificate.public_bytes(Encoding.PEM).decode()
    for wrong in (leaf, "nothing", pem + leaf):
        with pytest.raises(Problem) as caught:
            rules.judge_root(wrong)
        assert caught.value.field == "root_pem"
    assert rules.judge_root(" ") is None


@pytest.mark.parametrize("shape", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_key_of_a_binding_is_read_in_either_base_64_with_or_without_padding(shape: Any) -> None:
    secret = bytes(range(200, 232))
    text = shape(secret).decode()
    assert rules.judge_eab("kid", text) == ("kid", secret)
    assert rules.judge_eab("kid", text.rstrip("=")) == ("kid", secret)


@pytest.mark.parametrize(
    ("kid", "key", "field"),
    [("kid", None, "eab_key"), (None, "x", "eab_kid"), ("kid", "short", "eab_key"), ("kid", "ü" * 30, "eab_key"),
     ("k\u00fcd", "A" * 40, "eab_kid")],
)  # fmt: skip
def test_half_a_binding_is_none(kid: str | None, key: str | None, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_eab(kid, key)
    assert caught.value.field == field
    assert "ü" not in caught.value.message


def test_limits_given_replace_their_defaults_and_no_others() -> None:
    stored = rules.judge_limits({"orders": {"count": 10, "seconds": 60}})
    assert stored["orders"] == {"count": 10, "seconds": 60}
    assert stored["duplicates"] == {"count": 5, "seconds": 7 * 86_400}
    assert rules.limits_of(stored)[Use.ORDER] == Limit(10, timedelta(seconds=60))


@pytest.mark.parametrize(
    "given_limits",
    [{"nonsense": {"count": 1, "seconds": 1}}, {"orders": {"count": 0, "seconds": 1}}, {"orders": {"count": 1}},
     {"orders": {"count": 1, "seconds": 40 * 86_400}}, {"orders": {"count": "many", "seconds": 1}}],
)  # fmt: skip
def test_limits_that_are_none_are_refused(given_limits: Any) -> None:
    with pytest.raises(Invalid) as caught:
        rules.judge_limits(given_limits)
    assert str(caught.value.field).startswith("limits.")


# --- the mirror ------------------------------------------------------------------------------------------------------


def test_names_count_by_their_registered_domain() -> None:
    names = ["*.a.example.co.uk", "example.co.uk", "b.example.com", "shop.localhost", "192.0.2.7"]
    assert rules.domains_of(names) == ("example.co.uk", "example.com", "shop.localhost", "192.0.2.7")


def test_a_set_of_names_is_one_subject_in_any_order() -> None:
    assert rules.set_digest(["a", "b"]) == rules.set_digest(["b", "a", "b"]) != rules.set_digest(["a"])


def test_a_renewal_that_says_what_it_replaces_counts_for_failures_only() -> None:
    assert rules.subjects_of_order(["a.example"], replaces=True) == ((Use.FAILURE, "a.example"),)
    kinds = [use for use, _ in rules.subjects_of_order(["a.example"], replaces=False)]
    assert kinds == [Use.ORDER, Use.DUPLICATE, Use.CERTIFICATE, Use.FAILURE]


LIMITS = rules.DEFAULT_LIMITS | {Use.ORDER: Limit(3, timedelta(hours=1))}
ORDER = (Use.ORDER, "")


def test_the_last_free_place_is_given_and_then_none_until_the_oldest_use_is_over() -> None:
    used = {ORDER: [NOW - 50 * MINUTE, NOW - 20 * MINUTE]}
    assert rules.first_spent([ORDER], used, LIMITS, NOW) is None
    used[ORDER].append(NOW)
    spent = rules.first_spent([ORDER], used, LIMITS, NOW)
    assert spent is not None
    assert spent.free_at == NOW + 10 * MINUTE
    assert rules.first_spent([ORDER], used, LIMITS, spent.free_at - timedelta(seconds=1)) is not None
    assert rules.first_spent([ORDER], used, LIMITS, spent.free_at) is None


def test_after_a_limit_was_lowered_enough_uses_must_be_over() -> None:
    used = {ORDER: [NOW - n * MINUTE for n in (50, 40, 30, 20, 10)]}
    spent = rules.first_spent([ORDER], used, LIMITS, NOW)
    assert spent is not None
    assert spent.free_at == NOW - 30 * MINUTE + timedelta(hours=1)


def test_the_longest_wait_of_several_is_told_with_what_it_is_about() -> None:
    failures = (Use.FAILURE, "a.example")
    used = {ORDER: [NOW] * 3, failures: [NOW - 30 * MINUTE] * 3}
    spent = rules.first_spent([failures, ORDER], used, LIMITS, NOW)
    assert spent is not None
    assert spent.use is Use.ORDER
    said = rules.quota_spent(spent, "pebble", NOW)
    assert (said.code, said.extra["retry_after"]) == ("ca_quota_spent", 3601)
    assert "3 orders per hour" in said.message


@given(
    st.lists(st.integers(0, 7200), max_size=40), st.integers(1, 5), st.integers(60, 3600),
)  # fmt: skip
def test_orders_placed_when_there_is_room_never_exceed_the_limit(ticks: list[int], count: int, seconds: int) -> None:
    """Whoever asks at any moments, and orders only when told there is room, keeps to the limit in every window."""
    limits = LIMITS | {Use.ORDER: Limit(count, timedelta(seconds=seconds))}
    placed: list[datetime] = []
    for tick in sorted(ticks):
        at = NOW + timedelta(seconds=tick)
        spent = rules.first_spent([ORDER], {ORDER: placed}, limits, at)
        if spent is None:
            placed.append(at)
        else:
            assert at < spent.free_at <= at + timedelta(seconds=seconds)
            assert rules.first_spent([ORDER], {ORDER: placed}, limits, spent.free_at) is None
    for start in placed:
        window = [at for at in placed if start <= at < start + timedelta(seconds=seconds)]
        assert len(window) <= count


# --- telling the CA to look ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "minutes", "failed", "verdict"),
    [(0, None, False, Answer.TELL), (1, 0, False, Answer.WAIT), (1, 59, False, Answer.WAIT),
     (1, 60, False, Answer.TELL), (1, 4, True, Answer.WAIT), (1, 5, True, Answer.TELL),
     (2, 5, True, Answer.TELL), (3, 0, True, Answer.WAIT),
     (3, 1, True, Answer.GIVE_UP), (9, 60, False, Answer.TELL)],
)  # fmt: skip
def test_the_ca_is_told_at_once_then_rarely_and_at_most_three_times_after_failures(
    answers: int, minutes: int | None, failed: bool, verdict: Answer
) -> None:
    at = None if minutes is None else NOW - minutes * MINUTE
    assert why_answer(answers=answers, answered_at=at, failed=failed, now=NOW) is verdict
