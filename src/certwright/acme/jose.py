"""JSON Web Signatures as ACME uses them (RFC 7515, RFC 8555 section 6.2): always flattened, always with a URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_FROM_URL = bytes.maketrans(b"-_", b"+/")
# RFC 7518 section 3.4: each curve has its own hash and algorithm name.
_CURVES: Mapping[str, tuple[str, str, hashes.HashAlgorithm]] = {
    "secp256r1": ("P-256", "ES256", hashes.SHA256()),
    "secp384r1": ("P-384", "ES384", hashes.SHA384()),
}


def b64url(data: bytes) -> str:
    """Base 64 for URLs, without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def from_b64url(text: str) -> bytes:
    """Reads `b64url`, with padding or without; raises ValueError."""
    plain = text.rstrip("=").encode("ascii")
    if len(plain) % 4 == 1:
        raise ValueError("not base 64 for URLs")
    return binascii.a2b_base64(plain.translate(_FROM_URL) + b"=" * (-len(plain) % 4), strict_mode=True)


def _number(value: int, length: int | None = None) -> str:
    return b64url(value.to_bytes(length or (value.bit_length() + 7) // 8 or 1))


def public_jwk(key: SigningKey) -> dict[str, str]:
    """The public half as a JWK with just its required members (RFC 7517, RFC 8037). Raises ValueError for a curve
    that ACME servers don't take."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": b64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
        }
    name, _, _ = _curve(key)
    point, length = key.public_key().public_numbers(), (key.key_size + 7) // 8
    return {"kty": "EC", "crv": name, "x": _number(point.x, length), "y": _number(point.y, length)}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638: SHA-256 over the required members in lexical order, in base 64 for URLs."""
    members = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    canonical = orjson.dumps({name: jwk[name] for name in members})
    return b64url(hashlib.sha256(canonical).digest())


def _curve(key: ec.EllipticCurvePrivateKey) -> tuple[str, str, hashes.HashAlgorithm]:
    try:
        return _CURVES[key.curve.name]
    except KeyError:
        raise ValueError(f"keys on the curve {key.curve.name} don't sign ACME requests") from None


def algorithm_of(key: SigningKey) -> str:
    """The `alg` this key signs with: RS256, ES256, ES384 or EdDSA."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else _curve(key)[1]


def signature_of(key: SigningKey, signing_input: bytes) -> bytes:
    """The raw JWS signature (RFC 7518 sections 3.3 and 3.4, RFC 8037)."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signing_input)
    r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(_curve(key)[2])))
    length = (key.key_size + 7) // 8
    return r.to_bytes(length) + s.to_bytes(length)


def _flattened(protected: Mapping[str, Any], payload: bytes) -> tuple[dict[str, str], bytes]:
    jws = {"protected": b64url(orjson.dumps(protected)), "payload": b64url(payload)}
    return jws, f"{jws['protected']}.{jws['payload']}".encode()


def _sign(protected: Mapping[str, Any], payload: bytes, key: SigningKey) -> dict[str, str]:
    jws, signing_input = _flattened(protected, payload)
    return jws | {"signature": b64url(signature_of(key, signing_input))}


def signed_request(
    payload: Mapping[str, Any] | None, *, url: str, nonce: str, key: SigningKey, kid: str | None = None
) -> bytes:
    """The body of one ACME request. `payload` None is a POST-as-GET (RFC 8555 section 6.3).

    `kid` is the account's URL; without it the request carries the public key itself, which is right for newAccount
    and for a revocation signed by the certificate's key only.
    """
    protected: dict[str, Any] = {"alg": algorithm_of(key), "nonce": nonce, "url": url}
    protected |= {"kid": kid} if kid is not None else {"jwk": public_jwk(key)}
    return orjson.dumps(_sign(protected, b"" if payload is None else orjson.dumps(payload), key))


def external_account_binding(key: SigningKey, *, url: str, kid: str, mac_key: bytes) -> dict[str, str]:
    """The account key under the MAC key the CA gave out (RFC 8555 section 7.3.4), HS256."""
    protected = {"alg": "HS256", "kid": kid, "url": url}
    jws, signing_input = _flattened(protected, orjson.dumps(public_jwk(key)))
    return jws | {"signature": b64url(hmac.digest(mac_key, signing_input, "sha256"))}


def key_change(old: SigningKey, new: SigningKey, *, account_url: str, url: str) -> dict[str, str]:
    """The inner JWS of an account key roll-over (RFC 8555 section 7.3.5), signed by the new key; the outer one is an
    ordinary request by the old key with this as its payload."""
    payload = orjson.dumps({"account": account_url, "oldKey": public_jwk(old)})
    return _sign({"alg": algorithm_of(new), "jwk": public_jwk(new), "url": url}, payload, new)
