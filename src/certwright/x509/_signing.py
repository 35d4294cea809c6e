"""What certificates and revocation lists share when they are signed: algorithm by key, trial key, seal, check.

The real signature comes from wherever the CA key lives: a file, an HSM, another process. The library can only build a
to-be-signed list by signing it; so it signs with a throw-away key of the issuer's kind, and that signature is dropped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa

from certwright.kernel.problems import Invalid
from certwright.x509 import _der
from certwright.x509.keys import CaPublicKey, MlDsaPublicKey, describe_public_key

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class NoHash:
    """ML-DSA signs the octets themselves (RFC 9881 section 3): there is no hash to choose."""

    name: Final = "none"


# BR 7.1.3.2.2 ties the hash to the curve.
_HASHES: Final[dict[str, Hash]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


_NAMED: Final[dict[str, Hash]] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
HASH_NAMES: Final = tuple(_NAMED)


def hash_for(public: object, name: str | None = None) -> Hash | NoHash:
    """The hash a CA key signs with: `name` ("sha256", "sha384", "sha512"), or by default SHA-256 for RSA and the
    curve's own for EC; "none" for ML-DSA and for it alone. Raises Invalid `unsupported_key` for keys that can't be a
    CA's here, `unsupported_hash`."""
    # EC first, here and below: each question costs as much as the rest of the call, and this is asked often.
    if isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name in _HASHES and (name is None or name in _NAMED):
            return _HASHES[public.curve.name] if name is None else _NAMED[name]
    elif isinstance(public, MlDsaPublicKey):
        if name not in (None, NoHash.name):
            raise Invalid(
                "unsupported_hash", f"{describe_public_key(public)} signs without a hash.", field="signature_hash",
                fix="Leave the hash out.",
            )  # fmt: skip
        return NoHash()
    if name is not None and name not in _NAMED:
        raise Invalid(
            "unsupported_hash", f"CAs don't sign with the hash {name[:20]!r} here.", field="signature_hash",
            fix="Use sha256, sha384 or sha512.",
        )  # fmt: skip
    if isinstance(public, rsa.RSAPublicKey):
        return _NAMED[name or "sha256"]
    raise Invalid(
        "unsupported_key", f"A CA can't sign with a key of kind {describe_public_key(public)} here.", field="key",
        fix="Use EC P-256, EC P-384 or RSA for the CA.",
    )  # fmt: skip


def for_library(algorithm: Hash | NoHash) -> Hash | None:
    """As the library's builders take it."""
    return None if isinstance(algorithm, NoHash) else algorithm


# AlgorithmIdentifiers of RFC 5758 section 3.2 and RFC 4055 section 5.
_EC_SIGNATURES: Final = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
    "sha512": bytes.fromhex("300a06082a8648ce3d040304"),
}
_RSA_SIGNATURES: Final = {
    "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "sha384": bytes.fromhex("300d06092a864886f70d01010c0500"),
    "sha512": bytes.fromhex("300d06092a864886f70d01010d0500"),
}


# RFC 9881 section 2: without parameters.
_ML_DSA_SIGNATURES: Final[dict[str, bytes]] = {
    "ML-DSA-65": bytes.fromhex("300b0609608648016503040312"),
    "ML-DSA-87": bytes.fromhex("300b0609608648016503040313"),
}


def algorithm_identifier(public: CaPublicKey, algorithm: Hash | NoHash) -> bytes:
    """The AlgorithmIdentifier (DER) of this key's signatures, for structures the library can't build for us."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _EC_SIGNATURES[algorithm.name]
    if isinstance(public, rsa.RSAPublicKey):
        return _RSA_SIGNATURES[algorithm.name]
    return _ML_DSA_SIGNATURES[describe_public_key(public)]


_TRUE: Final = b"\x01\x01\xff"


def extension_der(value: x509.ExtensionType, *, critical: bool) -> bytes:
    """The Extension (RFC 5280 section 4.1), DER."""
    octets = _der.tlv(_der.OCTET_STRING, value.public_bytes())
    return _der.sequence(_der.object_identifier(value.oid.dotted_string), _TRUE if critical else b"", octets)


_Scratch = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey


def scratch_key(public: CaPublicKey) -> _Scratch:
    """A throw-away key whose signatures carry the same AlgorithmIdentifier as those of `public`'s owner."""
    if isinstance(public, MlDsaPublicKey):
        return _scratch(describe_public_key(public))
    return _scratch(public.curve.name if isinstance(public, ec.EllipticCurvePublicKey) else "rsa")


@lru_cache(maxsize=8)
def _scratch(kind: str) -> _Scratch:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ML-DSA-65":
        return mldsa.MLDSA65PrivateKey.generate()
    if kind == "ML-DSA-87":
        return mldsa.MLDSA87PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {c.name: c for c in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())}
    return ec.generate_private_key(curves[kind])


def outer_algorithm(signed: bytes) -> bytes:
    """The AlgorithmIdentifier of a signed structure { tbs, algorithm, signature }, DER."""
    return list(_der.elements(signed))[1]


def seal(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """The signed structure (RFC 5280 section 4.1.1), DER."""
    return _der.sequence(tbs, algorithm, _der.bit_string(signature))


def check_signature(public: CaPublicKey, signature: bytes, data: bytes, hash_name: str | None = None) -> None:
    """Raises Invalid `signature_mismatch` unless `public`'s owner made `signature` over `data` with that hash."""
    algorithm = hash_for(public, hash_name)
    try:
        if isinstance(algorithm, NoHash):
            assert isinstance(public, MlDsaPublicKey)  # of these alone
            public.verify(signature, data)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, data, ec.ECDSA(algorithm))
        else:
            assert isinstance(public, rsa.RSAPublicKey)  # hash_for refuses every other kind
            public.verify(signature, data, padding.PKCS1v15(), algorithm)
    except InvalidSignature as error:
        raise Invalid(
            "signature_mismatch",
            "The signature wasn't made by the issuer's key over what was checked; nothing was issued.",
            fix="Check that the signing component holds the key of this very CA certificate.",
        ) from error
