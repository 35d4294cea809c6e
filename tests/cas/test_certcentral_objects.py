"""Reading what a CA that sells answers: the published shapes, and whatever else may come."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.connectors.ca.certcentral import objects
from certwright.connectors.ca.certcentral.objects import OrderStatus
from certwright.kernel.shapes import MOST_ENTRIES, Malformed

READERS: list[Callable[[bytes], Any]] = [
    objects.read_placed, objects.read_order, objects.read_listed, objects.read_reissues, objects.read_token,
    objects.read_validation, objects.read_organisations, objects.read_organisation_number,
    objects.read_organisation_validations, objects.read_products, objects.read_revocation, objects.read_faults,
]  # fmt: skip
MEMBERS = st.sampled_from([
    "id", "status", "certificate", "certificate_id", "orders", "order_id", "certificates", "csr", "serial_number",
    "dcv_random_value", "expiration_date", "dns_name_validations", "dns_names", "dns_name", "organizations", "name",
    "is_active", "validations", "type", "verification_details", "products", "name_id", "errors", "code", "message",
    "requests", "order_valid_till", "organization_validations", "note",
])  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["issued", "pending", "2026-03-01", "2026-03-01T00:00:00+00:00", "12345", "\x00", "x" * 5000])
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS, inner, max_size=6), max_leaves=25
)


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(ANYTHING)
def test_whatever_json_comes_it_is_read_or_malformed(value: Any) -> None:
    for read in READERS:
        try:
            read(body(value))
        except Malformed:
            continue


@given(st.binary(max_size=200))
def test_whatever_octets_come_they_are_read_or_malformed(octets: bytes) -> None:
    for read in READERS:
        try:
            read(octets)
        except Malformed:
            continue


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "12a", "../7", "١٢", "", "9" * 19, None, [7]])
def test_only_digits_become_part_of_an_address(number: Any) -> None:
    with pytest.raises(Malformed):
        objects.read_placed(body({"id": number}))


def test_numbers_are_taken_as_numbers_and_as_text() -> None:
    assert objects.read_placed(body({"id": 7, "certificate_id": "8"})) == objects.Placed("7", "8")
    assert objects.read_placed(body({"id": "7"})) == objects.Placed("7", None)


@pytest.mark.parametrize("status", ["ISSUED", "shipped", 3, None, ["issued"]])
def test_a_state_nobody_published_is_malformed(status: Any) -> None:
    with pytest.raises(Malformed, match="status"):
        objects.read_order(body({"id": 1, "status": status, "certificate": {}}))


def test_an_order_is_read_with_what_is_left_out_left_out() -> None:
    found = objects.read_order(
        body({
            "id": 1, "status": "reissue_pending", "certificate": {"id": 2, "serial_number": "00AB"},
            "order_valid_till": "2027-03-01",
            "requests": [
                {"type": "revoke", "status": "rejected", "processor_comment": "no\nno", "certificate": {"id": 2}},
            ],
        })
    )  # fmt: skip
    assert (found.status, found.certificate, found.serial) == (OrderStatus.REISSUE_PENDING, "2", "ab")
    assert found.valid_till == datetime(2027, 3, 1, tzinfo=UTC)
    assert found.requests == (objects.Request("revoke", "rejected", "no no", "2"),)


@pytest.mark.parametrize("value", ["short", "has blank in it", "ünïcödë-value", "x" * 256, 12345678])
def test_a_value_that_can_not_be_published_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed, match="dcv_random_value"):
        objects.read_token(body({"dcv_random_value": value, "expiration_date": "2026-03-01T00:00:00Z"}))


def test_more_entries_than_anybody_needs_are_malformed() -> None:
    one = {"order_id": 1, "status": "pending"}
    assert len(objects.read_listed(body({"orders": [one] * MOST_ENTRIES}))) == MOST_ENTRIES
    with pytest.raises(Malformed, match="more than"):
        objects.read_listed(body({"orders": [one] * (MOST_ENTRIES + 1)}))


def test_faults_are_read_as_far_as_they_can_be() -> None:
    assert objects.read_faults(body({"errors": [{"code": "a|b", "message": "c\nd"}]})) == (objects.Fault("a|b", "c d"),)
    assert objects.read_faults(b"<html>") == ()
    assert objects.read_faults(body({"errors": "no"})) == ()
