"""JWS, thumbprints and account requests against the vectors of RFC 7515, 7638, 8037 and by verifying what we sign."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from certwright.acme import jose

# RFC 8037, appendix A.
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(jose.from_b64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
# RFC 7515, appendix A.3.
P256 = ec.derive_private_key(
    int.from_bytes(jose.from_b64url("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI")), ec.SECP256R1()
)
# Fixed keys of the suite; a fresh RSA key costs more than all these tests together.
RSA = rsa.generate_private_key(65537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())
KEYS = {"RS256": RSA, "ES256": P256, "ES384": P384, "EdDSA": ED25519}


def verify(jws: dict[str, str], key: Any) -> tuple[dict[str, Any], bytes]:
    """Protected header and payload, after checking the signature with the public half of `key`."""
    signing_input = f"{jws['protected']}.{jws['payload']}".encode()
    signature = jose.from_b64url(jws["signature"])
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, signing_input, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(signature, signing_input)
    else:
        half = len(signature) // 2
        assert half == (key.key_size + 7) // 8
        der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        digest = hashes.SHA256() if key.key_size == 256 else hashes.SHA384()
        key.public_key().verify(der, signing_input, ec.ECDSA(digest))
    return json.loads(jose.from_b64url(jws["protected"])), jose.from_b64url(jws["payload"])


def test_an_ed25519_signature_is_the_one_of_rfc_8037() -> None:
    signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert jose.b64url(jose.signature_of(ED25519, signing_input)) == expected


def test_the_public_ed25519_key_and_its_thumbprint_are_those_of_rfc_8037() -> None:
    jwk = jose.public_jwk(ED25519)
    assert jwk == {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert jose.thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_public_p256_key_is_the_one_of_rfc_7515() -> None:
    assert jose.public_jwk(P256) == {
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }  # fmt: skip


def test_the_thumbprint_of_an_rsa_key_is_the_one_of_rfc_7638() -> None:
    jwk = {
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV"
        "4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6q"
        "MQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw",
    }  # fmt: skip
    assert jose.thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_request_verifies_and_says_its_url_nonce_and_account(algorithm: str) -> None:
    key = KEYS[algorithm]
    body = jose.signed_request({"a": 1}, url="https://ca.test/x", nonce="n1", key=key, kid="https://ca.test/acct/1")
    header, payload = verify(json.loads(body), key)
    assert header == {"alg": algorithm, "nonce": "n1", "url": "https://ca.test/x", "kid": "https://ca.test/acct/1"}
    assert json.loads(payload) == {"a": 1}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_request_without_account_carries_the_public_key_and_only_that(algorithm: str) -> None:
    key = KEYS[algorithm]
    header, _ = verify(json.loads(jose.signed_request({}, url="https://ca.test/x", nonce="n", key=key)), key)
    assert "kid" not in header
    assert header["jwk"] == jose.public_jwk(key)
    assert not {"d", "p", "q"} & set(header["jwk"])


def test_a_post_as_get_has_an_empty_payload_and_an_empty_object_is_not_that() -> None:
    empty = json.loads(jose.signed_request(None, url="https://ca.test/x", nonce="n", key=P256))
    answer = json.loads(jose.signed_request({}, url="https://ca.test/x", nonce="n", key=P256))
    assert empty["payload"] == ""
    assert answer["payload"] == jose.b64url(b"{}")


def test_an_external_binding_holds_the_account_key_under_the_cas_secret() -> None:
    jws = jose.external_account_binding(P256, url="https://ca.test/new", kid="kid-1", mac_key=b"secret" * 6)
    header = json.loads(jose.from_b64url(jws["protected"]))
    assert header == {"alg": "HS256", "kid": "kid-1", "url": "https://ca.test/new"}
    assert json.loads(jose.from_b64url(jws["payload"])) == jose.public_jwk(P256)
    expected = hmac.new(b"secret" * 6, f"{jws['protected']}.{jws['payload']}".encode(), hashlib.sha256).digest()
    assert jose.from_b64url(jws["signature"]) == expected


def test_a_key_change_is_signed_by_the_new_key_and_names_the_old_one() -> None:
    inner = jose.key_change(P256, ED25519, account_url="https://ca.test/acct/1", url="https://ca.test/key-change")
    header, payload = verify(inner, ED25519)
    assert header == {"alg": "EdDSA", "jwk": jose.public_jwk(ED25519), "url": "https://ca.test/key-change"}
    assert json.loads(payload) == {"account": "https://ca.test/acct/1", "oldKey": jose.public_jwk(P256)}


def test_a_curve_no_acme_server_takes_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(ValueError, match="secp521r1"):
        jose.algorithm_of(key)


@given(st.binary(max_size=200))
def test_base_64_for_urls_comes_back_with_and_without_padding(data: bytes) -> None:
    text = jose.b64url(data)
    assert "=" not in text
    assert jose.from_b64url(text) == data
    assert jose.from_b64url(text + "=" * (-len(text) % 4)) == data


@given(st.text(max_size=60))
def test_any_text_is_either_base_64_or_a_value_error(text: str) -> None:
    try:
        jose.from_b64url(text)
    except ValueError:
        return
    assert text.isascii()
