"""Reading what an ACME server sends: the examples of RFC 8555, and everything a hostile server may send instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certwright.acme import objects
from certwright.kernel.shapes import Malformed

DIRECTORY = {
    "newNonce": "https://example.com/acme/new-nonce",
    "newAccount": "https://example.com/acme/new-account",
    "newOrder": "https://example.com/acme/new-order",
    "newAuthz": "https://example.com/acme/new-authz",
    "revokeCert": "https://example.com/acme/revoke-cert",
    "keyChange": "https://example.com/acme/key-change",
    "renewalInfo": "https://example.com/acme/renewal-info",
    "meta": {
        "termsOfService": "https://example.com/acme/terms/2021-10-05",
        "website": "https://www.example.com/",
        "caaIdentities": ["example.com"],
        "externalAccountRequired": False,
        "profiles": {"classic": "The usual one", "shortlived": "https://example.com/profiles#shortlived"},
    },
}
ORDER = {
    "status": "valid",
    "expires": "2016-01-20T14:09:07.99Z",
    "identifiers": [{"type": "dns", "value": "www.example.org"}, {"type": "dns", "value": "example.org"}],
    "notBefore": "2016-01-01T00:00:00Z",
    "authorizations": ["https://example.com/acme/authz/PAniVnsZcis", "https://example.com/acme/authz/r4HqLzrSrpI"],
    "finalize": "https://example.com/acme/order/TOlocE8rfgo/finalize",
    "certificate": "https://example.com/acme/cert/mAt3xBGaobw",
}
AUTHORIZATION = {
    "status": "pending",
    "expires": "2016-01-02T14:09:30Z",
    "identifier": {"type": "dns", "value": "www.Example.org"},
    "challenges": [
        {"type": "http-01", "url": "https://example.com/acme/chall/prV_B7yEyA4", "token": "DGyRejmCefe7v4NfDGDKfA"},
        {"type": "dns-01", "url": "https://example.com/acme/chall/Rg5dV14Gh1Q", "status": "invalid", "token": "DGy",
         "error": {"type": "urn:ietf:params:acme:error:dns", "detail": "no such\nname"}},
    ],
}  # fmt: skip
READERS: dict[str, tuple[Callable[[bytes], Any], dict[str, Any]]] = {
    "directory": (objects.read_directory, DIRECTORY),
    "order": (objects.read_order, ORDER),
    "authorization": (objects.read_authorization, AUTHORIZATION),
    "account": (objects.read_account, {"status": "valid", "contact": ["mailto:a@example.com"], "orders": "https://x/y"}),
    "challenge": (objects.read_challenge, AUTHORIZATION["challenges"][0]),  # type: ignore[index]
    "renewal info": (
        objects.read_renewal_info,
        {"suggestedWindow": {"start": "2025-01-02T04:00:00Z", "end": "2025-01-03T04:00:00Z"},
         "explanationURL": "https://acme.example.com/docs/ari"},
    ),
}  # fmt: skip


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_the_directory_of_rfc_8555_is_read_with_its_later_members() -> None:
    found = objects.read_directory(dumps(DIRECTORY))
    assert found.new_order == "https://example.com/acme/new-order"
    assert found.renewal_info == "https://example.com/acme/renewal-info"
    assert found.caa_identities == ("example.com",)
    assert found.profiles["classic"] == "The usual one"
    assert found.external_account_required is False


def test_a_directory_needs_no_meta() -> None:
    bare = {k: v for k, v in DIRECTORY.items() if k in ("newNonce", "newAccount", "newOrder", "revokeCert")}
    found = objects.read_directory(dumps(bare))
    assert (found.key_change, found.renewal_info, dict(found.profiles)) == (None, None, {})


def test_the_order_of_rfc_8555_is_read() -> None:
    found = objects.read_order(dumps(ORDER))
    assert found.status is objects.OrderStatus.VALID
    assert [i.value for i in found.identifiers] == ["www.example.org", "example.org"]
    assert found.expires == datetime(2016, 1, 20, 14, 9, 7, 990000, tzinfo=UTC)
    assert found.certificate == ORDER["certificate"]


def test_an_authorization_keeps_what_the_ca_said_of_a_challenge() -> None:
    found = objects.read_authorization(dumps(AUTHORIZATION))
    assert found.name == "www.example.org"
    http, dns = found.challenges
    assert (http.status, http.token) == (objects.ChallengeStatus.PENDING, "DGyRejmCefe7v4NfDGDKfA")
    assert dns.error is not None
    assert (dns.error.kind, dns.error.words()) == ("dns", "no such name")


def test_a_wildcard_authorization_is_named_as_in_the_order() -> None:
    found = objects.read_authorization(dumps(AUTHORIZATION | {"wildcard": True}))
    assert found.name == "*.www.example.org"


def test_subproblems_name_their_identifiers() -> None:
    document = {
        "type": "urn:ietf:params:acme:error:malformed",
        "detail": "Some of the identifiers requested were rejected",
        "subproblems": [
            {"type": "urn:ietf:params:acme:error:malformed", "detail": "Invalid underscore in DNS name",
             "identifier": {"type": "dns", "value": "_example.org"}},
            {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "will not issue",
             "identifier": {"type": "dns", "value": "example.net"}},
        ],
    }  # fmt: skip
    said = objects.read_problem(dumps(document)).words()
    assert "_example.org: Invalid underscore" in said
    assert "example.net: will not issue" in said


def test_words_are_one_printable_line_of_bounded_length() -> None:
    said = objects.read_problem(dumps({"detail": "a\x1b[31m\nb " + "x" * 9000})).words()
    assert said.startswith("a[31m b ")
    assert len(said) <= 300


@pytest.mark.parametrize("token", ["", "a/b", "../x", "a b", "ü", "x" * 513, 7, None, "a\n"])
def test_a_token_outside_its_alphabet_is_refused_or_left_out(token: Any) -> None:
    challenge = {"type": "http-01", "url": "https://example.com/c", "token": token}
    if token in ("", None):
        assert objects.read_challenge(dumps(challenge)).token == ""
    else:
        with pytest.raises(Malformed, match="token"):
            objects.read_challenge(dumps(challenge))


@pytest.mark.parametrize(
    "url",
    ["http://example.com/x", "https://", "ftp://example.com", "//example.com", "https://a b/", "https://[::1", 5,
     "https://example.com/" + "x" * 3000, "https://example.com:99999/", "https://exämple.com/"],
)  # fmt: skip
def test_only_a_plain_https_url_is_a_resource(url: Any) -> None:
    with pytest.raises(Malformed, match="finalize"):
        objects.read_order(dumps(ORDER | {"finalize": url}))


@pytest.mark.parametrize("at", ["2016-13-01T00:00:00Z", "2016-01-01", "x", 5, "0001-01-01T00:00:00+23:59",
                                "9999-12-31T23:59:59-01:00", "2016-01-01T00:00:00"])  # fmt: skip
def test_a_moment_that_is_none_is_malformed(at: Any) -> None:
    with pytest.raises(Malformed, match="expires"):
        objects.read_order(dumps(ORDER | {"expires": at}))


def test_nanoseconds_as_go_writes_them_are_cut() -> None:
    found = objects.read_order(dumps(ORDER | {"expires": "2026-01-01T02:00:00.123456789+02:00"}))
    assert found.expires == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


def test_a_window_that_ends_before_it_starts_is_malformed() -> None:
    with pytest.raises(Malformed, match="ends before"):
        objects.read_renewal_info(
            dumps({"suggestedWindow": {"start": "2025-01-03T04:00:00Z", "end": "2025-01-03T04:00:00Z"}})
        )


# --- everything else a server may send -------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
    | st.sampled_from(["https://example.com/x", "valid", "pending", "dns", "2026-01-01T00:00:00Z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*at, index))
    return found


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(value[at[0]], at[1:], new)
    return copy


@pytest.mark.parametrize("kind", READERS)
def test_the_example_itself_is_read(kind: str) -> None:
    read, example = READERS[kind]
    assert read(dumps(example)) is not None


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_one_wrong_member_is_read_or_malformed_and_never_anything_else(kind: str, data: st.DataObject) -> None:
    read, example = READERS[kind]
    where = data.draw(st.sampled_from(places(example)))
    try:
        read(dumps(replaced(example, where, data.draw(anything))))
    except Malformed:
        return


@pytest.mark.parametrize("kind", READERS)
@given(body=st.binary(max_size=200) | anything.map(dumps))
def test_any_octets_are_read_or_malformed_and_never_anything_else(kind: str, body: bytes) -> None:
    try:
        READERS[kind][0](body)
    except Malformed:
        return


@given(body=st.binary(max_size=200) | anything.map(dumps))
def test_a_problem_document_is_always_read(body: bytes) -> None:
    found = objects.read_problem(body)
    assert len(found.words()) <= 300


def test_bottomless_json_is_malformed() -> None:
    with pytest.raises(Malformed):
        objects.read_order(b"[" * 100_000)


def test_no_list_is_longer_than_its_limit() -> None:
    many = [{"type": "dns", "value": f"n{i}.example"} for i in range(objects.MAX_NAMES + 1)]
    with pytest.raises(Malformed, match="more than 1000"):
        objects.read_order(dumps(ORDER | {"identifiers": many}))
