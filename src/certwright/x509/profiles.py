"""Certificate profiles as data: what people write about a kind of certificate becomes a `Profile`, or a refusal."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from certwright.kernel.problems import Invalid
from certwright.x509 import _der
from certwright.x509.issue import BUILT_IN, DAY, EXTENDED_USAGES, KEY_USAGES, OCSP_SIGNING, CustomExtension, Profile

MAX_DAYS: Final = 3653
MAX_EXTENSIONS: Final = 16
_MAX_VALUE: Final = 4096
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{1,39}")
_OID: Final = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]{0,18})){2,20}")
# A profile's words decide these; as custom extensions they would contradict them.
_OURS: Final = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY, ExtensionOID.PRECERT_POISON,
        ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS, ExtensionOID.FRESHEST_CRL,
        # Of CAs, responders and revocation lists alone.
        ExtensionOID.POLICY_MAPPINGS, ExtensionOID.OCSP_NO_CHECK, ExtensionOID.CRL_NUMBER,
        ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        # What Netscape had before there were basic constraints and extended key usages; OpenSSL still reads it.
        x509.ObjectIdentifier("2.16.840.1.113730.1.1"),
    )
)  # fmt: skip


def read_profile(name: str, body: Mapping[str, Any]) -> Profile:
    """A leaf profile from its description; members as `describe` writes them, what is left out has its plain default.

    Raises Invalid `profile_name`, `profile_invalid` (with the member as field) or `profile_extension`.
    """
    if not _NAME.fullmatch(name) or name in BUILT_IN:
        raise Invalid(
            "profile_name", f"A profile can't be called {name[:40]!r}.", field="name",
            fix="Use 2 to 40 small letters, digits, - and _, beginning with a letter, and no built-in profile's name.",
        )  # fmt: skip
    unknown = body.keys() - {
        "key_usage", "rsa_key_usage", "extended_key_usage", "max_days", "names", "policies", "extensions", "crl_url",
        "aia_url",
    }  # fmt: skip
    if unknown:
        raise _wrong(min(unknown), "isn't a member of a profile")
    usage = _usages(body, "key_usage") or frozenset({"digital_signature"})
    max_days = body.get("max_days", 90)
    if not isinstance(max_days, int) or isinstance(max_days, bool) or not 1 <= max_days <= MAX_DAYS:
        raise _wrong("max_days", f"must be from 1 to {MAX_DAYS}")
    names = body.get("names", "any")
    if names not in ("server", "any", "none"):
        raise _wrong("names", "must be server, any or none")
    for flag in ("crl_url", "aia_url"):
        if not isinstance(body.get(flag, True), bool):
            raise _wrong(flag, "must be true or false")
    return Profile(
        name=name,
        key_usage=usage,
        eku=read_extended_usages(_list(body, "extended_key_usage")),
        max_seconds=max_days * DAY,
        rsa_key_usage=_usages(body, "rsa_key_usage"),
        san=names,
        crl_url=body.get("crl_url", True),
        aia_url=body.get("aia_url", True),
        policy_oids=tuple(_oid(item, "policies") for item in _list(body, "policies")),
        extensions=_extensions(body),
    )


def describe(profile: Profile) -> dict[str, Any]:
    """The description that `read_profile` reads."""
    return {
        "key_usage": sorted(profile.key_usage),
        "rsa_key_usage": sorted(profile.rsa_key_usage),
        "extended_key_usage": list(purpose_words(profile.eku)),
        "max_days": profile.max_seconds // DAY,
        "names": profile.san,
        "policies": list(profile.policy_oids),
        "extensions": [
            {"oid": e.oid, "value": base64.b64encode(e.value).decode(), "critical": e.critical}
            for e in profile.extensions
        ],
        "crl_url": profile.crl_url,
        "aia_url": profile.aia_url,
    }


def read_extended_usages(words: Sequence[object]) -> tuple[str, ...]:
    """Extended key usages as words or dotted OIDs, for a CA's own constraint. Raises Invalid `profile_invalid`."""
    return tuple(dict.fromkeys(_extended(word) for word in words))


def purpose_words(oids: Sequence[str]) -> tuple[str, ...]:
    """Extended key usages in the words `read_extended_usages` takes; dotted where there is none."""
    words = {oid: word for word, oid in EXTENDED_USAGES.items()}
    return tuple(words.get(oid, oid) for oid in oids)


def constraint_words(limits: x509.NameConstraints | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What name constraints permit and exclude, each in words for people."""
    if limits is None:
        return (), ()
    permitted, excluded = limits.permitted_subtrees or (), limits.excluded_subtrees or ()
    return tuple(map(_tree_words, permitted)), tuple(map(_tree_words, excluded))


def _tree_words(tree: x509.GeneralName) -> str:
    """Hosts of e-mail and URIs would read like DNS names."""
    value = tree.value.rfc4514_string() if isinstance(tree.value, x509.Name) else str(tree.value)
    kind = {x509.RFC822Name: "email:", x509.UniformResourceIdentifier: "uri:"}.get(type(tree), "")
    return kind + value


def _list(body: Mapping[str, Any], member: str) -> list[Any]:
    found = body.get(member, [])
    if not isinstance(found, list) or len(found) > 32 or len({str(item) for item in found}) != len(found):
        raise _wrong(member, "must be a list of at most 32 different values")
    return found


def _usages(body: Mapping[str, Any], member: str) -> frozenset[str]:
    found = _list(body, member)
    for word in found:
        if word not in KEY_USAGES:
            raise _wrong(member, f"doesn't know {str(word)[:40]!r}; it knows {', '.join(KEY_USAGES)}")
        if word in ("key_cert_sign", "crl_sign"):
            raise _wrong(member, f"can't hold {word}: only CAs sign certificates and lists; make a subordinate CA")
    if {"encipher_only", "decipher_only"} & set(found) and "key_agreement" not in found:
        raise _wrong(member, "needs key_agreement where it has encipher_only or decipher_only (RFC 5280 4.2.1.3)")
    return frozenset(found)


def _extended(item: object) -> str:
    words = f"write {', '.join(EXTENDED_USAGES)}, or a dotted number such as 1.3.6.1.4.1.99999.1"
    oid = EXTENDED_USAGES.get(str(item)) or _oid(item, "extended_key_usage", words)
    if oid == OCSP_SIGNING:
        raise _wrong("extended_key_usage", "can't hold OCSP signing: whoever has it could answer for the CA")
    return oid


def _oid(item: object, member: str, words: str = "write a dotted number such as 1.3.6.1.4.1.99999.1") -> str:
    if not isinstance(item, str) or not _OID.fullmatch(item) or (item[0] in "01" and int(item.split(".")[1]) > 39):
        raise _wrong(member, f"can't hold {str(item)[:40]!r}: {words}")
    return item


def _extensions(body: Mapping[str, Any]) -> tuple[CustomExtension, ...]:
    found: dict[str, CustomExtension] = {}
    items = _list(body, "extensions")
    if len(items) > MAX_EXTENSIONS:
        raise _wrong("extensions", f"holds at most {MAX_EXTENSIONS}")
    for item in items:
        if not isinstance(item, dict) or item.keys() - {"oid", "value", "critical"}:
            raise _wrong("extensions", "are objects with oid, value (base 64 of DER) and critical")
        oid = _oid(item.get("oid"), "extensions")
        if oid in _OURS:
            raise _extension(oid, "is one that the profile's own members decide")
        if oid in found:
            raise _extension(oid, "occurs twice")
        if not isinstance(item.get("critical", False), bool):
            raise _extension(oid, "must be critical or not: true or false")
        found[oid] = CustomExtension(oid, _value(oid, item.get("value")), item.get("critical", False))
    return tuple(found.values())


def _value(oid: str, text: object) -> bytes:
    try:
        value = base64.b64decode(text if isinstance(text, str) else "!", validate=True)
        _, _, end = _der.read(value)
    except (binascii.Error, ValueError):
        raise _extension(oid, "has a value that isn't the base 64 of DER") from None
    if end != len(value) or len(value) > _MAX_VALUE:
        raise _extension(oid, f"must have one DER value of at most {_MAX_VALUE} octets")
    return value


def _extension(oid: str, why: str) -> Invalid:
    return Invalid(
        "profile_extension", f"The extension {oid} {why}.", field="extensions",
        fix="Correct or remove it; to make DER by hand: openssl asn1parse -genstr UTF8:text -noout -out value.der.",
    )  # fmt: skip


def _wrong(member: str, why: str) -> Invalid:
    return Invalid("profile_invalid", f"The profile's {member[:40]} {why}.", field=member[:40],
                   fix="Correct that member of the profile.")  # fmt: skip
