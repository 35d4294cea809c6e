"""Keys in an open session of a token: made, found, signed with, destroyed. All of this runs in the module's thread.

Tokens differ in what they know and what they insist on; each difference met is a branch here and a test.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from certwright.connectors.keykeeper import refusals
from certwright.kernel.problems import Refused
from certwright.x509.keys import KeyAlgorithm, PublicKey

if TYPE_CHECKING:
    import pkcs11

HANDLE_OCTETS: Final = 16

_RSA_BITS: Final[dict[KeyAlgorithm, int]] = {
    KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096,
}  # fmt: skip
_CURVES: Final[dict[KeyAlgorithm, ec.EllipticCurve]] = {
    KeyAlgorithm.EC_P256: ec.SECP256R1(), KeyAlgorithm.EC_P384: ec.SECP384R1(),
}  # fmt: skip

# CKA_EC_PARAMS: the curve's OID in DER (RFC 5480 section 2.1.1.1) is what we say; a token may answer with the
# curve's name, a PrintableString (PKCS#11 3.0).
_OIDS: Final[dict[str, bytes]] = {
    "secp256r1": bytes.fromhex("06082a8648ce3d030107"), "secp384r1": bytes.fromhex("06052b81040022"),
}  # fmt: skip
_COORDINATES: Final[dict[bytes, int]] = {
    _OIDS["secp256r1"]: 32, b"\x13\x09secp256r1": 32, b"\x13\x0aprime256v1": 32,
    _OIDS["secp384r1"]: 48, b"\x13\x09secp384r1": 48,
}  # fmt: skip
# Points: both coordinates after an octet that says so (SEC 1 section 2.3.3).
_BY_POINT: Final = {1 + 2 * 32: 32, 1 + 2 * 48: 48}

# DigestInfo up to the digest (RFC 8017 section 9.2, note 1): CKM_RSA_PKCS pads, and leaves this to us.
_DIGEST_INFOS: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A private key of the open session; `coordinate` is the octets of a coordinate of its curve, 0 for RSA."""

    found: Any
    coordinate: int


class KeyMissingError(Exception):
    """The session sees no such key: it isn't there, or the token went away."""


# --- making ----------------------------------------------------------------------------------------------------------


def make(
    session: pkcs11.Session, mechanisms: frozenset[int], handle: str, name: str, algorithm: KeyAlgorithm
) -> PublicKey:
    """A pair that signs and does nothing else, tried once. Raises Refused `hsm_key_kind`, `hsm_key_extractable`,
    `hsm_key_unusable`."""
    from pkcs11 import Attribute
    from pkcs11.exceptions import PKCS11Error

    destroy(session, handle)
    _judge_kind(session, mechanisms, algorithm)
    try:
        public, private = _generate(session, handle, name, algorithm, bare=True)
    except PKCS11Error as error:
        if not refusals.is_of_template(error):
            raise
        # Some tokens want to be told what a key shall not do, and others don't want to hear of it.
        public, private = _generate(session, handle, name, algorithm, bare=False)
    usable = False
    try:
        if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
            raise Refused(
                "hsm_key_extractable", "The token made a key that could be taken out of it; the key was destroyed.",
                fix="Change the token's policy so that keys are sensitive and not extractable.",
            )  # fmt: skip
        _take_rights(private)
        half = _public(public, algorithm)
        _try_once(session, mechanisms, handle, half)
        usable = True
    finally:
        # Whatever is wrong with it, nobody shall rely on this key.
        if not usable:
            with suppress(PKCS11Error):
                destroy(session, handle)
    return half


def _judge_kind(session: pkcs11.Session, mechanisms: frozenset[int], algorithm: KeyAlgorithm) -> None:
    from pkcs11 import Mechanism
    from pkcs11.exceptions import PKCS11Error

    bits = _RSA_BITS.get(algorithm, 0)
    kind = Mechanism.RSA_PKCS_KEY_PAIR_GEN if bits else Mechanism.EC_KEY_PAIR_GEN
    if mechanisms and kind not in mechanisms:
        raise refusals.other_kind(f"{algorithm} keys")
    longest = 0
    if bits:
        # Not all tokens say it, and some in octets.
        with suppress(PKCS11Error):
            longest = session.token.slot.get_mechanism_info(kind).max_key_length or 0
    if 1024 <= longest < bits:
        raise refusals.other_kind(f"{algorithm} keys", f"it makes at most {longest} bits")


def _generate(session: pkcs11.Session, handle: str, name: str, algorithm: KeyAlgorithm, *, bare: bool) -> Any:
    """`bare` names no right the key shall not have: some tokens don't know it, and TPMs take CKA_ENCRYPT FALSE of the
    public half for "doesn't sign"."""
    from pkcs11 import DEFAULT, Attribute, KeyType, MechanismFlag

    # To the library DEFAULT means: leave it out.
    rights = (Attribute.ENCRYPT, Attribute.WRAP, Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE)
    of_public: dict[Any, Any] = dict.fromkeys(rights[:2], DEFAULT) if bare else {}
    of_private: dict[Any, Any] = dict.fromkeys(rights[2:], DEFAULT) if bare else {}
    what: dict[str, Any] = {
        "id": bytes.fromhex(handle), "label": name, "store": True,
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY, "public_template": of_public,
        "private_template": of_private | {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    }  # fmt: skip
    if algorithm in _RSA_BITS:
        return session.generate_keypair(KeyType.RSA, _RSA_BITS[algorithm], **what)
    curve = {Attribute.EC_PARAMS: _OIDS[_CURVES[algorithm].name]}
    parameters: Any = session.create_domain_parameters(KeyType.EC, curve, local=True)
    return parameters.generate_keypair(**what)


def _take_rights(private: Any) -> None:
    """What it was given unasked; a token that doesn't let it be taken keeps it."""
    from pkcs11 import Attribute
    from pkcs11.exceptions import PKCS11Error

    for right in (Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE):
        with suppress(PKCS11Error):
            if private[right]:
                private[right] = False


def _public(public: Any, algorithm: KeyAlgorithm) -> PublicKey:
    from pkcs11 import Attribute

    try:
        if algorithm in _RSA_BITS:
            modulus, exponent = (int.from_bytes(public[a]) for a in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[algorithm], point(public[Attribute.EC_POINT]))
    except ValueError:
        raise _unusable("its public half can't be read") from None


def point(octets: bytes) -> bytes:
    """CKA_EC_POINT is an OCTET STRING in DER around the point; some tokens give the point itself. Both begin with 4,
    and after it one in 256 points has what looks like its length: only the length of all tells."""
    bare = len(octets) in _BY_POINT or octets[:1] in (b"\2", b"\3")
    return octets if bare else octets[2:]


def _try_once(session: pkcs11.Session, mechanisms: frozenset[int], handle: str, public: PublicKey) -> None:
    data = b"certwright " + handle.encode()
    signature = sign(find(session, handle), mechanisms, data, "sha256")
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _unusable("what it signs doesn't verify") from None


def _unusable(why: str) -> Refused:
    return Refused(
        "hsm_key_unusable", f"The token made a key that is of no use ({why}); the key was destroyed.",
        fix="Bring its firmware and its PKCS#11 library up to date, or keep this key in software.",
    )  # fmt: skip


# --- using -----------------------------------------------------------------------------------------------------------


def find(session: pkcs11.Session, handle: str) -> Key:
    """Raises KeyMissingError."""
    from pkcs11 import Attribute, KeyType, ObjectClass

    private = _first(session, {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: bytes.fromhex(handle)})
    if private is None:
        raise KeyMissingError
    if private[Attribute.KEY_TYPE] == KeyType.RSA:
        return Key(private, 0)
    public = _first(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: bytes.fromhex(handle)})
    for half in (private, public):
        coordinate = _COORDINATES.get(_value(half, Attribute.EC_PARAMS), 0)
        coordinate = coordinate or _BY_POINT.get(len(point(_value(half, Attribute.EC_POINT))), 0)
        if coordinate:
            return Key(private, coordinate)
    raise _unusable("it doesn't say of which curve it is")


def _first(session: pkcs11.Session, wanted: dict[Any, Any]) -> Any:
    return next(iter(list(session.get_objects(wanted))), None)


def _value(half: Any, attribute: pkcs11.Attribute) -> bytes:
    """Empty where the token has none."""
    from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid

    with suppress(AttributeSensitive, AttributeTypeInvalid):
        return bytes(half[attribute]) if half is not None else b""
    return b""


def sign(key: Key, mechanisms: frozenset[int], data: bytes, hash_name: str) -> bytes:
    """ECDSA (DER) or RSA with PKCS#1 v1.5. The digest is made here, and by a token that only signs what it digested."""
    from pkcs11 import Mechanism

    if key.coordinate:
        raw, whole = Mechanism.ECDSA, Mechanism[f"ECDSA_{hash_name.upper()}"]
    else:
        raw, whole = Mechanism.RSA_PKCS, Mechanism[f"{hash_name.upper()}_RSA_PKCS"]
    if raw not in mechanisms and whole in mechanisms:
        # In one piece however long: what tpm2-pkcs11 1.9 signs in parts with ECDSA doesn't verify.
        signature: bytes = key.found.sign(data, mechanism=whole)
    else:
        digest = hashlib.new(hash_name, data).digest()
        # A digest longer than the curve's order counts with its leftmost bits (FIPS 186-5 section 6.4.1).
        said = digest[: key.coordinate] if key.coordinate else _DIGEST_INFOS[hash_name] + digest
        signature = key.found.sign(said, mechanism=raw)
    if not key.coordinate:
        return signature
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def destroy(session: pkcs11.Session, handle: str) -> int:
    """How many halves there were."""
    from pkcs11 import Attribute

    halves = list(session.get_objects({Attribute.ID: bytes.fromhex(handle)}))
    for half in halves:
        half.destroy()
    return len(halves)


def handles(session: pkcs11.Session) -> tuple[str, ...]:
    """Of private keys that could be ours, sorted."""
    from pkcs11 import Attribute, ObjectClass

    found = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    # Keys of other programs may have none.
    ids = [_value(key, Attribute.ID) for key in found]
    return tuple(sorted(i.hex() for i in ids if len(i) == HANDLE_OCTETS))
