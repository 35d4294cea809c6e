"""What a server must refuse of a signed request, and that it reads what our own client signs."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from certwright.acme import jose, requests
from certwright.acme.requests import AcmeProblem, account_key, read_jws, read_request, required_members, verify
from tests.acme.test_jose import ED25519, KEYS, P256, RSA

URL = "https://ca.example/acme/new-order"
NONCE = "bm9uY2U"
Change = Callable[[dict[str, Any]], object]


def signed(header: dict[str, Any], payload: bytes = b"{}", key: Any = P256) -> dict[str, Any]:
    """A JWS with whatever header a hostile client likes, properly signed."""
    jws = {"protected": jose.b64url(json.dumps(header).encode()), "payload": jose.b64url(payload)}
    signature = jose.signature_of(key, f"{jws['protected']}.{jws['payload']}".encode())
    return jws | {"signature": jose.b64url(signature)}


def header(**changes: Any) -> dict[str, Any]:
    said = {"alg": "ES256", "nonce": NONCE, "url": URL, "jwk": jose.public_jwk(P256)} | changes
    return {name: value for name, value in said.items() if value is not None}


def body(jws: object) -> bytes:
    return json.dumps(jws).encode()


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_request_our_client_signs_is_read_and_verified_with_its_own_key(algorithm: str) -> None:
    key = KEYS[algorithm]
    request = read_request(jose.signed_request({"a": 1}, url=URL, nonce=NONCE, key=key))
    assert (request.algorithm, request.url, request.nonce, request.kid) == (algorithm, URL, NONCE, None)
    assert request.payload == {"a": 1}
    assert request.jwk is not None
    verify(request, account_key(request.jwk))


def test_a_request_of_a_p521_key_is_verified() -> None:
    """Our own client makes no such keys; acme.sh and others do."""
    key = ec.generate_private_key(ec.SECP521R1())
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-521",
        "x": jose.b64url(numbers.x.to_bytes(66)),
        "y": jose.b64url(numbers.y.to_bytes(66)),
    }
    unsigned = signed(header(alg="ES512", jwk=jwk))
    given_ = f"{unsigned['protected']}.{unsigned['payload']}".encode()
    r, s = decode_dss_signature(key.sign(given_, ec.ECDSA(hashes.SHA512())))
    signature = r.to_bytes(66) + s.to_bytes(66)
    request = read_request(body(unsigned | {"signature": jose.b64url(signature)}))
    assert request.jwk is not None
    verify(request, account_key(request.jwk))
    changed = read_request(body(unsigned | {"signature": jose.b64url(signature[:-1] + bytes([signature[-1] ^ 1]))}))
    with pytest.raises(AcmeProblem):
        verify(changed, account_key(request.jwk))


def test_a_request_by_account_url_carries_no_key_and_an_empty_payload_is_a_post_as_get() -> None:
    request = read_request(jose.signed_request(None, url=URL, nonce=NONCE, key=P256, kid=URL + "/1"))
    assert (request.jwk, request.kid, request.payload) == (None, URL + "/1", None)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_request_changed_in_one_place_does_not_verify(algorithm: str) -> None:
    key = KEYS[algorithm]
    jws = json.loads(jose.signed_request({"a": 1}, url=URL, nonce=NONCE, key=key))
    jws["payload"] = jose.b64url(b'{"a":2}')
    with pytest.raises(AcmeProblem) as refusal:
        verify(read_request(body(jws)), account_key(jose.public_jwk(key)))
    assert refusal.value.kind == "malformed"


def test_a_signature_of_another_key_does_not_verify() -> None:
    request = read_request(jose.signed_request({}, url=URL, nonce=NONCE, key=P256))
    with pytest.raises(AcmeProblem):
        verify(request, ec.generate_private_key(ec.SECP256R1()).public_key())


def test_an_algorithm_that_is_not_the_keys_own_is_refused() -> None:
    request = read_request(jose.signed_request({}, url=URL, nonce=NONCE, key=P256))
    with pytest.raises(AcmeProblem) as refusal:
        verify(request, RSA.public_key())
    assert refusal.value.document()["algorithms"] == list(requests.ALGORITHMS)


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "no signature at all": (header(alg="none"), "badSignatureAlgorithm"),
    "a MAC": (header(alg="HS256"), "badSignatureAlgorithm"),
    "an algorithm of another family": (header(alg="PS256"), "badSignatureAlgorithm"),
    "no algorithm": (header(alg=None), "badSignatureAlgorithm"),
    "an algorithm that is a list": (header(alg=["ES256"]), "badSignatureAlgorithm"),
    "no nonce": (header(nonce=None), "badNonce"),
    "a nonce outside base 64 for URLs": (header(nonce="a+b="), "badNonce"),
    "a nonce that is a number": (header(nonce=7), "badNonce"),
    "no url": (header(url=None), "malformed"),
    "neither key nor account": (header(jwk=None), "malformed"),
    "both key and account": (header(kid=URL), "malformed"),
    "an account that is a list": (header(jwk=None, kid=[URL]), "malformed"),
    "critical extensions": (header(crit=["exp"], exp=1), "malformed"),
    "an unencoded payload": (header(b64=False), "malformed"),
    "a key of an unknown kind": (header(jwk={"kty": "oct", "k": "AA"}), "badPublicKey"),
    "a private key": (header(jwk=jose.public_jwk(P256) | {"d": "AA"}), "badPublicKey"),
    "a key without a member": (header(jwk={"kty": "EC", "crv": "P-256", "x": "AA"}), "badPublicKey"),
    "a key that is text": (header(jwk="key"), "badPublicKey"),
}  # fmt: skip


@pytest.mark.parametrize("what", HEADERS)
def test_a_protected_header_is_refused_with(what: str) -> None:
    said, kind = HEADERS[what]
    with pytest.raises(AcmeProblem) as refusal:
        read_request(body(signed(said)))
    assert refusal.value.kind == kind
    assert refusal.value.document()["type"] == f"urn:ietf:params:acme:error:{kind}"


SHAPES: dict[str, Change] = {
    "an unprotected header": lambda jws: jws | {"header": {"alg": "ES256"}},
    "several signatures": lambda jws: jws | {"signatures": []},
    "a signature missing": lambda jws: {"protected": jws["protected"], "payload": jws["payload"]},
    "padding": lambda jws: jws | {"signature": jws["signature"] + "=="},
    "plain base 64": lambda jws: jws | {"signature": "+/" + jws["signature"][2:]},
    "one character too many": lambda jws: jws | {"payload": "A"},
    "a line break": lambda jws: jws | {"payload": jws["payload"] + "\n"},
    "a payload that is a number": lambda jws: jws | {"payload": 1},
    "a payload that is a list": lambda jws: jws | {"payload": jose.b64url(b"[]")},
    "a payload with a member twice": lambda jws: jws | {"payload": jose.b64url(b'{"a":1,"a":2}')},
    "a payload with NaN": lambda jws: jws | {"payload": jose.b64url(b'{"a":NaN}')},
    "a payload that isn't UTF-8": lambda jws: jws | {"payload": jose.b64url(b"\xff")},
    "a compact JWS": lambda jws: ".".join(jws.values()),
    "a list": lambda jws: [jws],
}


@pytest.mark.parametrize("what", SHAPES)
def test_a_body_is_refused_with(what: str) -> None:
    with pytest.raises(AcmeProblem) as refusal:
        read_request(body(SHAPES[what](signed(header()))))
    assert (refusal.value.kind, refusal.value.status) == ("malformed", 400)


def test_a_protected_header_with_a_member_twice_is_refused() -> None:
    twice = json.dumps(header())[:-1] + ', "url": "https://other.example/"}'
    with pytest.raises(AcmeProblem):
        read_request(body(signed(header()) | {"protected": jose.b64url(twice.encode())}))


def test_a_body_of_more_than_64_kib_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(AcmeProblem) as refusal:
        read_request(b"[" * (64 * 1024 + 1))
    assert refusal.value.status == 413


def test_deeply_nested_json_is_refused_and_not_a_crash() -> None:
    with pytest.raises(AcmeProblem):
        read_request(b"[" * 60_000)


@given(st.binary(max_size=400))
def test_no_body_raises_anything_but_an_acme_problem(data: bytes) -> None:
    with pytest.raises(AcmeProblem):
        read_request(data)


KEYS_REFUSED: dict[str, dict[str, str]] = {
    "RSA of 1024 bits": {"kty": "RSA", "n": jose.b64url((1 << 1023 | 1).to_bytes(128)), "e": "AQAB"},
    "RSA of 8192 bits": {"kty": "RSA", "n": jose.b64url((1 << 8191 | 1).to_bytes(1024)), "e": "AQAB"},
    "an even exponent": jose.public_jwk(RSA) | {"e": "Ag"},
    "an exponent of one": jose.public_jwk(RSA) | {"e": "AQ"},
    "an unknown curve": {"kty": "EC", "crv": "P-192", "x": "AA", "y": "AA"},
    "a point off its curve": {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
    "an agreement key": {"kty": "OKP", "crv": "X25519", "x": jose.public_jwk(ED25519)["x"]},
    "a short Ed25519 key": {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
    "padding in a number": jose.public_jwk(RSA) | {"e": "AQAB=="},
}


@pytest.mark.parametrize("what", KEYS_REFUSED)
def test_an_account_key_is_refused_that_is(what: str) -> None:
    with pytest.raises(AcmeProblem) as refusal:
        account_key(required_members(KEYS_REFUSED[what]))
    assert refusal.value.kind == "badPublicKey"


def test_only_the_members_that_make_the_key_are_kept() -> None:
    assert required_members(jose.public_jwk(P256) | {"use": "sig", "kid": "mine"}) == jose.public_jwk(P256)


# --- external account binding ---------------------------------------------------------------------------------------

MAC = bytes(range(32))


def binding(**changes: Any) -> dict[str, str]:
    given_ = {"url": URL, "kid": "key-1", "mac_key": MAC} | changes
    return jose.external_account_binding(P256, **given_)


def test_a_binding_our_client_makes_names_its_key_and_is_accepted() -> None:
    assert requests.binding_key_id(binding()) == "key-1"
    requests.check_binding(binding(), url=URL, jwk=jose.public_jwk(P256), mac_key=MAC)


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
def test_a_binding_with_a_longer_mac_is_accepted(algorithm: str, digest: str) -> None:
    protected = jose.b64url(json.dumps({"alg": algorithm, "kid": "key-1", "url": URL}).encode())
    payload = jose.b64url(json.dumps(jose.public_jwk(P256)).encode())
    mac = hmac.digest(MAC, f"{protected}.{payload}".encode(), digest)
    bound = {"protected": protected, "payload": payload, "signature": jose.b64url(mac)}
    requests.check_binding(bound, url=URL, jwk=jose.public_jwk(P256), mac_key=MAC)
    with pytest.raises(AcmeProblem) as refusal:
        requests.check_binding(bound, url=URL, jwk=jose.public_jwk(P256), mac_key=bytes(32))
    assert refusal.value.kind == "unauthorized"


BINDINGS: dict[str, tuple[Any, str]] = {
    "another MAC key": (binding(mac_key=bytes(32)), "unauthorized"),
    "another url": (binding(url="https://other.example/"), "malformed"),
    "no JWS": ("text", "malformed"),
    "an unprotected header": (binding() | {"header": {}}, "malformed"),
    "another algorithm": (signed({"alg": "ES256", "kid": "key-1", "url": URL}), "malformed"),
    "a nonce": (signed({"alg": "HS256", "kid": "key-1", "url": URL, "nonce": NONCE}), "malformed"),
    "another account key": (jose.external_account_binding(RSA, url=URL, kid="key-1", mac_key=MAC), "malformed"),
}


@pytest.mark.parametrize("what", BINDINGS)
def test_a_binding_is_refused_with(what: str) -> None:
    given_, kind = BINDINGS[what]
    with pytest.raises(AcmeProblem) as refusal:
        requests.check_binding(given_, url=URL, jwk=jose.public_jwk(P256), mac_key=MAC)
    assert refusal.value.kind == kind


def test_a_binding_without_a_key_name_is_refused() -> None:
    with pytest.raises(AcmeProblem):
        requests.binding_key_id(signed({"alg": "HS256", "url": URL}))


# --- key change -----------------------------------------------------------------------------------------------------

ACCOUNT = "https://ca.example/acme/account/1"


def change(**changes: Any) -> requests.SignedRequest:
    """The inner JWS of a roll-over from P-256 to RSA, with parts exchanged."""
    said = {"old": P256, "new": RSA, "account_url": ACCOUNT, "url": URL} | changes
    inner = jose.key_change(said["old"], said["new"], account_url=said["account_url"], url=said["url"])
    return read_jws(inner, nonce_needed=False)


def test_a_key_change_our_client_makes_yields_the_new_key() -> None:
    jwk, key = requests.check_key_change(change(), url=URL, account_url=ACCOUNT, old=jose.public_jwk(P256))
    assert jwk == jose.public_jwk(RSA)
    assert isinstance(key, rsa.RSAPublicKey)


@pytest.mark.parametrize(
    "inner",
    [change(url="https://other.example/"), change(account_url=ACCOUNT + "2"), change(old=ED25519)],
    ids=["another url", "another account", "another old key"],
)
def test_a_key_change_is_refused_for(inner: requests.SignedRequest) -> None:
    with pytest.raises(AcmeProblem) as refusal:
        requests.check_key_change(inner, url=URL, account_url=ACCOUNT, old=jose.public_jwk(P256))
    assert refusal.value.kind == "malformed"


def test_the_inner_jws_of_a_key_change_must_carry_its_key_and_no_nonce() -> None:
    with pytest.raises(AcmeProblem):
        read_jws(signed(header()), nonce_needed=False)
    by_account = read_jws(signed(header(nonce=None, jwk=None, kid=ACCOUNT)), nonce_needed=False)
    with pytest.raises(AcmeProblem):
        requests.check_key_change(by_account, url=URL, account_url=ACCOUNT, old=jose.public_jwk(P256))


def test_a_subproblem_names_its_identifier_and_has_no_status() -> None:
    sub = AcmeProblem(
        "caa", "CAA of example.com forbids this CA.", identifier=requests.Identifier("dns", "example.com")
    )
    document = AcmeProblem("rejectedIdentifier", "One name can't be ordered.", subproblems=(sub,)).document()
    assert document["status"] == 400
    assert document["subproblems"] == [
        {
            "type": "urn:ietf:params:acme:error:caa",
            "detail": "CAA of example.com forbids this CA.",
            "identifier": {"type": "dns", "value": "example.com"},
        }
    ]
