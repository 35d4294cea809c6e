"""Pure decisions about signing requests: what one may say, whether a key belongs to it, whether it may be deleted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace

from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Refused
from certwright.rooms.csrs.words import UsedBy
from certwright.x509.csr import Subject
from certwright.x509.keys import KeyAlgorithm

MOST_NAMES = 250
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.\-]{3,63}")
LONGEST_PASSPHRASE = 1023
"""Octets; what the library that encrypts takes."""

# X.520's upper bounds (RFC 5280 appendix A.1), with the words people know.
_LONGEST = {
    "common_name": (64, "common name"),
    "organization": (64, "organization"),
    "organizational_unit": (64, "organizational unit"),
    "province": (128, "province"),
    "locality": (128, "locality"),
}
_COUNTRY = re.compile(r"[A-Za-z]{2}")


def judge_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise Invalid(
            "csr_name_invalid",
            "The CSR's name must have 3 to 63 letters, digits, hyphens, underscores or dots.",
            field="name",
            fix="Choose a name such as shop-2026.",
        )
    return name


def judge_subject(asked: Subject) -> Subject:
    """The subject as it goes into the request: trimmed, the country in capitals. Raises InvalidFields."""
    said = Subject(**{field.name: getattr(asked, field.name).strip() for field in fields(Subject)})
    problems: list[Problem] = []
    for field, (longest, words) in _LONGEST.items():
        text = getattr(said, field)
        if len(text) > longest or not text.isprintable():
            problems.append(
                Invalid(
                    "subject_field_invalid",
                    f"The {words} must have at most {longest} printable characters.",
                    field=f"subject.{field}",
                    fix="Shorten it, or leave it empty.",
                )
            )
    if said.country and not _COUNTRY.fullmatch(said.country):
        problems.append(
            Invalid(
                "country_invalid", "The country isn't a code of two letters.", field="subject.country",
                fix="Write it as ISO 3166 does: DE, FR, US.",
            )
        )  # fmt: skip
    if problems:
        raise InvalidFields(problems)
    return replace(said, country=said.country.upper())


def judge_names(typed: Sequence[str], common_name: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Host names as A-labels and addresses, each once; a common name that is a name comes first (BR 7.1.4.3).

    Wildcards and internal names are welcome: who may certify them is judged where somebody applies. Raises
    InvalidFields with one problem per wrong name.
    """
    problems: list[Problem] = []
    dns: dict[str, None] = {}
    ips: dict[str, None] = {}
    if len(typed) > MOST_NAMES:
        raise Invalid(
            "too_many_names", f"A certificate holds at most {MOST_NAMES} names; {len(typed)} are given.", field="names",
            fix="Split the names over several requests.",
        )  # fmt: skip
    wanted = [(text, f"names[{index}]") for index, text in enumerate(typed)]
    # "My server" is a common name but no name; "shop.example..com" is a mistake.
    if looks_like_ip(common_name) or ("." in common_name and " " not in common_name):
        wanted.insert(0, (common_name, "subject.common_name"))
    for text, field in wanted:
        try:
            if looks_like_ip(text):
                ips[str(parse_ip(text, field=field))] = None
            else:
                dns[parse_dns_name(text, field=field).ascii] = None
        except Invalid as problem:
            problems.append(problem)
    if not wanted:
        problems.append(
            Invalid("names_missing", "No name is given.", field="names", fix="Enter at least one name or address.")
        )
    if problems:
        raise InvalidFields(problems)
    return tuple(dns), tuple(ips)


def judge_key_algorithm(text: str) -> KeyAlgorithm:
    try:
        return KeyAlgorithm(text)
    except ValueError as error:
        raise Invalid(
            "key_algorithm_unknown", f"There is no key algorithm {text[:40]!r}.", field="key_algorithm",
            fix=f"Use one of {', '.join(KeyAlgorithm)}.",
        ) from error  # fmt: skip


def judge_match(*, csr_spki: str, key_spki: str) -> None:
    """Both are SHA-256 of the SubjectPublicKeyInfo. Raises Invalid `key_mismatch`."""
    if csr_spki != key_spki:
        raise Invalid(
            "key_mismatch", "The private key isn't the one this request was made with.", field="private_key",
            fix="Give the key that was made together with the request, or upload the request alone.",
        )  # fmt: skip


def judge_passphrase(text: str | None) -> bytes | None:
    """UTF-8, for encrypting an exported key; None and "" both ask for a key that isn't encrypted."""
    if not text:
        return None
    octets = text.encode()
    if len(octets) > LONGEST_PASSPHRASE:
        raise Invalid(
            "passphrase_too_long", f"The passphrase has more than {LONGEST_PASSPHRASE} octets.", field="passphrase",
            fix="Choose a shorter one.",
        )  # fmt: skip
    return octets


def why_not_delete(used: UsedBy) -> Refused | None:
    if not used.open_applications:
        return None
    return Refused(
        "csr_in_use",
        "The CSR can't be deleted: an application that uses it is still open.",
        fix="Wait until the certificate is issued, or withdraw the application.",
        extra={"open_applications": used.open_applications},
    )
