"""Reading signed requests, for the server side of ACME (RFC 8555 section 6). Nothing here trusts the client: whatever
isn't exactly one flattened JWS as the RFC asks for raises `AcmeProblem`, and nothing else is ever raised."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from certwright.acme.jose import from_b64url, thumbprint
from certwright.acme.objects import ERROR_PREFIX, Identifier

AccountKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# What a client may sign with; MACs and "none" never (section 6.2).
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "RS256")
# A CSR of a few hundred names fits; nothing a client sends is larger.
MAX_OCTETS: Final = 64 * 1024
_B64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, str]]] = {
    "P-256": (ec.SECP256R1(), hashes.SHA256(), "ES256"),
    "P-384": (ec.SECP384R1(), hashes.SHA384(), "ES384"),
    "P-521": (ec.SECP521R1(), hashes.SHA512(), "ES512"),
}
# For binding an account (section 7.3.4: a MAC-based algorithm); clients let people choose.
_MACS: Final[Mapping[str, str]] = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_STATUS: Final = {
    "accountDoesNotExist": 400,
    "alreadyRevoked": 400,
    "alreadyReplaced": 409,
    "badNonce": 400,
    "badPublicKey": 400,
    "externalAccountRequired": 403,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "unauthorized": 403,
}


class AcmeProblem(Exception):
    """A refusal as an ACME client reads it (RFC 8555 section 6.7): `kind` is the last part of the error type, `detail`
    one sentence the person behind the client can act on. Never carries a key, a token or a MAC. `location` and
    `retry_after` (seconds) go into the headers of the same names."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        status: int | None = None,
        identifier: Identifier | None = None,
        subproblems: tuple[AcmeProblem, ...] = (),
        location: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status or _STATUS.get(kind, 400)
        self.identifier = identifier
        self.subproblems = subproblems
        self.location = location
        self.retry_after = retry_after

    def document(self, *, top: bool = True) -> dict[str, Any]:
        """RFC 7807 with ACME's members; `status` only at the top, as a subproblem has none of its own."""
        said: dict[str, Any] = {"type": ERROR_PREFIX + self.kind, "detail": self.detail}
        if top:
            said["status"] = self.status
        if self.identifier is not None:
            said["identifier"] = {"type": self.identifier.type, "value": self.identifier.value}
        if self.kind == "badSignatureAlgorithm":
            said["algorithms"] = list(ALGORITHMS)
        if self.subproblems:
            said["subproblems"] = [sub.document(top=False) for sub in self.subproblems]
        return said


def malformed(detail: str) -> AcmeProblem:
    return AcmeProblem("malformed", detail)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """One request, read but not yet verified. Exactly one of `jwk` and `kid` is there; `payload` is None for a
    POST-as-GET (section 6.3)."""

    algorithm: str
    url: str
    nonce: str | None
    jwk: Mapping[str, str] | None
    kid: str | None
    payload: Mapping[str, Any] | None
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_request(body: bytes, *, nonce_needed: bool = True) -> SignedRequest:
    """Reads the body of one POST. `nonce_needed` is False for JWSs inside a payload, which must carry none.

    Raises AcmeProblem `malformed`, `badSignatureAlgorithm` or `badPublicKey`.
    """
    if len(body) > MAX_OCTETS:
        raise AcmeProblem("malformed", f"The request is larger than {MAX_OCTETS // 1024} KiB.", status=413)
    return read_jws(_object(body, "The request"), nonce_needed=nonce_needed)


def read_jws(jws: object, *, nonce_needed: bool) -> SignedRequest:
    """The same for a JWS that has been parsed already, such as the inner one of a key change."""
    if not isinstance(jws, dict) or set(jws) != {"protected", "payload", "signature"}:
        # An unprotected "header" or several "signatures" would be members nobody signed (section 6.2).
        raise malformed("A request is one flattened JWS with exactly protected, payload and signature.")
    protected, payload, signature = (_octets(jws[name], name) for name in ("protected", "payload", "signature"))
    header = _object(protected, "The protected header")
    if "crit" in header or "b64" in header:
        raise malformed("The protected header asks for extensions this server doesn't know (crit, b64).")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise AcmeProblem("badSignatureAlgorithm", f"Sign with one of {', '.join(ALGORITHMS)}.")
    url, nonce, jwk, kid = (header.get(name) for name in ("url", "nonce", "jwk", "kid"))
    if not isinstance(url, str):
        raise malformed("The protected header has no url.")
    if nonce_needed and (not isinstance(nonce, str) or not nonce or not _B64URL.fullmatch(nonce)):
        raise AcmeProblem("badNonce", "The protected header has no nonce of this server.")
    if not nonce_needed and nonce is not None:
        raise malformed("The inner JWS must not have a nonce.")
    if (jwk is None) == (kid is None):
        raise malformed("The protected header must have exactly one of jwk and kid.")
    if kid is not None and not isinstance(kid, str):
        raise malformed("The kid is no account URL.")
    return SignedRequest(
        algorithm=str(algorithm),
        url=url,
        nonce=nonce,
        jwk=None if jwk is None else required_members(jwk),
        kid=kid,
        payload=_object(payload, "The payload") if payload else None,
        signing_input=f"{jws['protected']}.{jws['payload']}".encode("ascii"),
        signature=signature,
    )


def _octets(value: object, name: str) -> bytes:
    """Section 6.1: base 64 for URLs, and padding is an error."""
    if not isinstance(value, str) or not _B64URL.fullmatch(value):
        raise malformed(f"The member {name} must be base 64 for URLs, without padding.")
    try:
        return from_b64url(value)
    except ValueError:
        raise malformed(f"The member {name} must be base 64 for URLs, without padding.") from None


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_no_twins, parse_constant=_no_constant)
        if b"\\u" in data:
            _is_text(found)
    except (ValueError, RecursionError):
        raise malformed(f"{what} isn't a JSON object, or has a member twice.") from None
    if not isinstance(found, dict):
        raise malformed(f"{what} isn't a JSON object.")
    return found


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # With a member twice, two readers may see two different requests under one signature (RFC 7515 section 4).
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member twice")
    return found


def _is_text(found: Any) -> None:
    # Half of a surrogate pair stands in no UTF-8, and no text in the database holds a zero: escapes can say both.
    said = json.dumps(found, ensure_ascii=False)
    said.encode("utf-8")
    if "\\u0000" in said:
        raise ValueError("a zero in a text")


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} isn't JSON")


# --- keys ---------------------------------------------------------------------------------------------------------


def required_members(jwk: object) -> dict[str, str]:
    """The members that make a public key, without any others, as they are stored and compared. Raises AcmeProblem
    `badPublicKey`, also for a JWK that carries a private key."""
    if not isinstance(jwk, dict):
        raise _bad_key("The jwk isn't a JSON object")
    names = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}.get(
        str(jwk.get("kty"))
    )
    if names is None:
        raise _bad_key("The account key must be RSA, EC or Ed25519")
    if "d" in jwk:
        raise _bad_key("The jwk carries the private key: replace it, whoever saw the request knows it")
    found = {name: jwk.get(name) for name in names}
    if not all(isinstance(value, str) and 0 < len(value) <= 2048 for value in found.values()):
        raise _bad_key("The jwk lacks a member of its key")
    return {name: str(value) for name, value in found.items()}


def account_key(jwk: Mapping[str, str]) -> AccountKey:
    """The key of a JWK: RSA of 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519. Raises AcmeProblem `badPublicKey`."""
    try:
        if jwk["kty"] == "RSA":
            return _rsa(_number(jwk["n"]), _number(jwk["e"]))
        if jwk["kty"] == "OKP":
            if jwk["crv"] != "Ed25519":
                raise _bad_key("Of the OKP keys only Ed25519 is taken")
            return ed25519.Ed25519PublicKey.from_public_bytes(from_b64url(jwk["x"]))
        if jwk["crv"] not in _CURVES:
            raise _bad_key("Of the EC keys only P-256, P-384 and P-521 are taken")
        curve = _CURVES[jwk["crv"]][0]
        return ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve).public_key()
    except (ValueError, KeyError):
        raise _bad_key("The jwk isn't a valid public key") from None


def _rsa(modulus: int, exponent: int) -> rsa.RSAPublicKey:
    if not 2048 <= modulus.bit_length() <= 4096:
        raise _bad_key("RSA account keys must have 2048 to 4096 bits")
    if not 3 <= exponent < 1 << 32 or exponent % 2 == 0:
        raise _bad_key("The exponent of the RSA account key can't be used")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _number(text: str) -> int:
    if not _B64URL.fullmatch(text):
        raise ValueError("not base 64 for URLs")
    return int.from_bytes(from_b64url(text))


def _bad_key(why: str) -> AcmeProblem:
    return AcmeProblem("badPublicKey", f"{why}.")


def verify(request: SignedRequest, key: AccountKey) -> None:
    """Raises AcmeProblem `malformed` unless the owner of `key` signed the request with the algorithm it names, and
    `badSignatureAlgorithm` where that algorithm isn't this key's."""
    if request.algorithm != algorithm_for(key):
        raise AcmeProblem("badSignatureAlgorithm", f"This key signs with {algorithm_for(key)}.")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(request.signature, request.signing_input, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(request.signature, request.signing_input)
        else:
            half = (key.curve.key_size + 7) // 8
            if len(request.signature) != 2 * half:
                raise malformed("The signature doesn't verify.")
            r, s = request.signature[:half], request.signature[half:]
            der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
            key.verify(der, request.signing_input, ec.ECDSA(_curve(key)[1]))
    except InvalidSignature:
        raise malformed("The signature doesn't verify.") from None


def algorithm_for(key: AccountKey) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    return "EdDSA" if isinstance(key, ed25519.Ed25519PublicKey) else _curve(key)[2]


def _curve(key: ec.EllipticCurvePublicKey) -> tuple[ec.EllipticCurve, hashes.HashAlgorithm, str]:
    return next(known for known in _CURVES.values() if known[0].name == key.curve.name)


# --- what stands inside payloads ------------------------------------------------------------------------------------


def binding_key_id(binding: object) -> str:
    """The `kid` an external account binding names (section 7.3.4), before its MAC can be checked. Raises AcmeProblem
    `malformed`."""
    kid = _binding_header(binding).get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 200:
        raise malformed("The external account binding names no key (kid).")
    return kid


def check_binding(binding: object, *, url: str, jwk: Mapping[str, str], mac_key: bytes) -> None:
    """That the holder of `mac_key` bound the account key `jwk` for this newAccount `url`. Raises AcmeProblem
    `malformed` for another shape and `unauthorized` for another MAC."""
    header = _binding_header(binding)
    assert isinstance(binding, dict)
    digest = _MACS.get(str(header.get("alg")))
    if digest is None or "nonce" in header or "jwk" in header or "crit" in header:
        raise malformed(f"The external account binding must be signed with one of {', '.join(_MACS)} and have neither "
                        "nonce nor jwk.")  # fmt: skip
    if header.get("url") != url:
        raise malformed("The external account binding is for another url than the request.")
    said = required_members(_object(_octets(binding["payload"], "payload"), "The external account binding's payload"))
    if thumbprint(said) != thumbprint(jwk):
        raise malformed("The external account binding is for another account key than the request.")
    expected = hmac.digest(mac_key, f"{binding['protected']}.{binding['payload']}".encode("ascii"), digest)
    if not hmac.compare_digest(expected, _octets(binding["signature"], "signature")):
        raise AcmeProblem("unauthorized", "The external account binding wasn't made with this key's HMAC secret.")


def _binding_header(binding: object) -> dict[str, Any]:
    if not isinstance(binding, dict) or set(binding) != {"protected", "payload", "signature"}:
        raise malformed("The external account binding is no flattened JWS.")
    return _object(_octets(binding["protected"], "protected"), "The external account binding's header")


def check_key_change(
    inner: SignedRequest, *, url: str, account_url: str, old: Mapping[str, str]
) -> tuple[Mapping[str, str], AccountKey]:
    """The new key of a roll-over (section 7.3.5), after checking everything the inner JWS must say; whether another
    account has that key is the caller's to ask. Raises AcmeProblem `malformed` or `badPublicKey`."""
    if inner.jwk is None:
        raise malformed("The inner JWS of a key change must carry the new key as jwk.")
    if inner.url != url:
        raise malformed("The inner JWS is for another url than the outer one.")
    key = account_key(inner.jwk)
    verify(inner, key)
    payload = inner.payload or {}
    if payload.get("account") != account_url:
        raise malformed("The inner JWS is for another account.")
    if thumbprint(required_members(payload.get("oldKey"))) != thumbprint(old):
        raise malformed("The inner JWS names another old key than the account's.")
    return inner.jwk, key
