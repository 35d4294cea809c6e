"""What a replacement must keep, what is named and what is hidden, and how many there may be: facts in, words out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certwright.rooms.certificates import Held
from certwright.rooms.uploads import Purpose, rules
from certwright.x509.certificates import read_certificate
from certwright.x509.workshop.words import CODES
from tests.uploads.material import ca

LEAF = read_certificate(ca().leaf("www.example.com", "*.shop.example.com", days=30))

REPLACEMENTS = [
    ("the same names", ("www.example.com",), False, []),
    ("a name below the wildcard", ("a.shop.example.com",), False, []),
    ("two labels below the wildcard", ("a.b.shop.example.com",), False, ["names_missing error"]),
    ("the wildcard itself", ("*.shop.example.com",), False, []),
    ("a wildcard by a name", ("*.example.com",), False, ["names_missing error"]),
    ("fewer, as meant", ("mail.example.com",), True, ["names_missing warning"]),
    ("without names", (), False, []),
]


@pytest.mark.parametrize(("case", "before", "fewer", "expected"), REPLACEMENTS, ids=[case[0] for case in REPLACEMENTS])
def test_a_replacement_keeps_the_names_in_use(
    case: str, before: tuple[str, ...], fewer: bool, expected: list[str]
) -> None:
    found = rules.judge_replacement(LEAF, before=before, ends=LEAF.not_after, allow_fewer_names=fewer)
    assert [f"{finding.code} {finding.severity}" for finding in found] == expected, case
    assert all(finding.severity in CODES[finding.code] for finding in found)


def test_many_lost_names_are_counted_and_an_earlier_end_is_told() -> None:
    before = [f"n{n}.example.org" for n in range(9)]
    found = rules.judge_replacement(
        LEAF, before=before, ends=LEAF.not_after + timedelta(seconds=1), allow_fewer_names=False
    )
    assert [finding.code for finding in found] == ["names_missing", "expires_earlier"]
    assert "n2.example.org and 6 more" in found[0].message


def test_the_one_the_caller_may_see_is_named_and_the_others_are_not() -> None:
    hidden, old = Held("cert_h", "hidden", 1, True, False), Held("cert_o", "old", 3, False, True)
    now = Held("cert_n", "now", 2, True, True)
    assert rules.known_certificates([hidden, old, now], "f")["f"] == "now (cert_n)"
    assert rules.known_certificates([hidden, old], "f")["f"] == "old (cert_o, its earlier version 3)"
    assert rules.known_keys([hidden], "k")["k"] == "one in a project that you may not see"
    assert rules.known_keys([now], "k", "cert_n")["k"] == "now (cert_n, its present version 2)"
    assert rules.known_certificates([], "f") == {}


@pytest.mark.parametrize(("used", "limit", "fits"), [(0, 1, True), (1, 1, False), (2, 1, False), (0, 0, False)])
def test_a_quota_is_full_when_it_is_reached(used: int, limit: int, fits: bool) -> None:
    refused = rules.over_quota(Purpose.CLIENT_CA, used, limit)
    assert (refused is None) == fits
    if refused is not None:
        assert "client CA certificates" in refused.message
