"""What is read from served certificates, and when a chain counts as complete."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certwright.rooms.watch.chains import Roots, UnreadableError, examine
from certwright.rooms.watch.words import Chain
from tests.servers.tls import Issued, issue

MOST_BYTES = 400_000

ROOT = issue("Test Root", ca=True)
OTHER_ROOT = issue("Other Root", ca=True)
ISSUING = issue("Test Issuing CA", ROOT, ca=True)
LEAF = issue("www.example.test", ISSUING, names=("www.example.test", "*.shop.example.test", "192.0.2.7"))
DIRECT = issue("direct.example.test", ROOT)
SELF_SIGNED = issue("self.example.test")
IMPOSTOR = issue("Test Issuing CA", OTHER_ROOT, ca=True)
KNOWN = Roots([ROOT.der])
NONE = Roots([])


@pytest.mark.parametrize(
    ("served", "roots", "state", "trusted"),
    [
        pytest.param((LEAF, ISSUING), KNOWN, Chain.COMPLETE, True, id="up to a known root"),
        pytest.param((LEAF, ISSUING, ROOT), KNOWN, Chain.COMPLETE, True, id="the root is sent too"),
        pytest.param((LEAF, ROOT, ISSUING), KNOWN, Chain.COMPLETE, True, id="out of order"),
        pytest.param((LEAF, ISSUING, ROOT), NONE, Chain.COMPLETE, False, id="up to a self-signed one not known"),
        pytest.param((LEAF, ISSUING), NONE, Chain.UNKNOWN_ROOT, False, id="the root is not known"),
        pytest.param((LEAF,), KNOWN, Chain.INCOMPLETE, False, id="the issuer is missing"),
        pytest.param((LEAF, OTHER_ROOT), KNOWN, Chain.INCOMPLETE, False, id="a foreign certificate instead"),
        pytest.param((LEAF, IMPOSTOR), KNOWN, Chain.BROKEN, False, id="same name, other key"),
        pytest.param((LEAF, IMPOSTOR, ISSUING), KNOWN, Chain.COMPLETE, True, id="the right one beside a wrong one"),
        pytest.param((DIRECT,), KNOWN, Chain.COMPLETE, True, id="issued by the root itself"),
        pytest.param((SELF_SIGNED,), KNOWN, Chain.COMPLETE, False, id="self-signed"),
    ],
)
def test_chain_states(served: tuple[Issued, ...], roots: Roots, state: Chain, trusted: bool) -> None:
    found = examine(tuple(issued.der for issued in served), roots)
    assert (found.state, found.trusted) == (state, trusted)
    assert len(found.links) == len(served)


def test_the_leafs_facts_are_read() -> None:
    found = examine((LEAF.der, ISSUING.der), KNOWN)
    assert found.fingerprint == LEAF.fingerprint
    assert found.names == ("www.example.test", "*.shop.example.test", "192.0.2.7")
    assert found.subject == "www.example.test"
    assert found.not_after == LEAF.certificate.not_valid_after_utc


def test_the_earliest_expiry_may_be_an_intermediates() -> None:
    early = issue(
        "Early CA",
        ROOT,
        ca=True,
        not_after=datetime(2027, 1, 1, tzinfo=UTC),
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )
    leaf = issue(
        "x.test", early, not_before=datetime(2026, 1, 1, tzinfo=UTC), not_after=datetime(2030, 1, 1, tzinfo=UTC)
    )
    assert examine((leaf.der, early.der), KNOWN).earliest_not_after == datetime(2027, 1, 1, tzinfo=UTC)


@given(st.binary(max_size=300))
def test_garbage_is_unreadable_and_never_anything_else(junk: bytes) -> None:
    with pytest.raises(UnreadableError):
        examine((junk,), NONE)


@given(st.integers(0, len(LEAF.der) - 1), st.integers(1, 255))
def test_a_damaged_certificate_is_read_or_unreadable(at: int, flip: int) -> None:
    damaged = bytearray(LEAF.der)
    damaged[at] ^= flip
    try:
        found = examine((bytes(damaged), ISSUING.der), KNOWN)
    except UnreadableError:
        return
    assert found.fingerprint != LEAF.fingerprint
    if found.state is Chain.COMPLETE:
        # Then only something outside the signed part was damaged.
        signed = x509.load_der_x509_certificate(bytes(damaged)).tbs_certificate_bytes
        assert signed == LEAF.certificate.tbs_certificate_bytes


def test_a_broken_certificate_above_the_leaf_is_left_out() -> None:
    found = examine((LEAF.der, b"junk", ISSUING.der), KNOWN)
    assert (found.state, len(found.links)) == (Chain.COMPLETE, 2)


def test_what_was_seen_last_is_kept_within_a_bound_of_bytes() -> None:
    roots = Roots([ROOT.der], most_bytes=MOST_BYTES)
    first = (LEAF.der, ISSUING.der)
    said = examine(first, roots)
    assert examine(first, roots) is said
    many = [f"{number}.example.test" for number in range(1500)]
    for number in range(6):
        wide = issue(f"wide{number}.example.test", names=[f"{number}-{name}" for name in many])
        examine((wide.der,), roots)
        assert 0 < roots.kept.bytes <= MOST_BYTES
    again = examine(first, roots)
    assert again == said
    assert again is not said, "it had to go, and was read anew"


def test_one_chain_larger_than_the_bound_is_judged_and_not_kept() -> None:
    roots = Roots([ROOT.der], most_bytes=10)
    assert examine((LEAF.der, ISSUING.der), roots).trusted
    assert roots.kept.bytes == 0
