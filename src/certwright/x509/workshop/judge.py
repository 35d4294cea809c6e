"""Rules for one certificate: strength, time, names, purpose. Each yields what it finds."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from certwright.kernel.names import covers, is_internal, is_public_suffix, looks_like_ip, parse_dns_name
from certwright.kernel.problems import Problem
from certwright.x509.certificates import (
    ANY_EKU,
    CLIENT_AUTH,
    SERVER_AUTH,
    STRONG_HASHES,
    UNDERSTOOD,
    CertificateFacts,
    hash_name,
    signature_word,
    who,
)
from certwright.x509.keys import RSA_MIN_BITS, judge_public_key
from certwright.x509.workshop.policy import Blocklist, PublicPolicy
from certwright.x509.workshop.words import Finding, Place, Severity, error, from_problem, note, warning

# Judging one name costs up to 0.1 ms; certificates of more names than this aren't made (CAs stop at 100 to 1000).
MAX_NAMES: Final = 1000
LEGACY_RSA_BITS: Final = 1024
_POISON: Final = "1.3.6.1.4.1.11129.2.4.3"


def strength(
    cert: x509.Certificate,
    place: Place,
    *,
    public: bool,
    legacy_rsa: bool = False,
    blocklist: Blocklist | None = None,
    moduli: Sequence[int] = (),
) -> Iterator[Finding]:
    """The key of `cert`. `legacy_rsa`: RSA of 1024 to 2047 bits is a warning; `moduli`: those of other keys."""
    key = cert.public_key()
    try:
        judge_public_key(key, public=public)
    except Problem as problem:
        old = isinstance(key, rsa.RSAPublicKey) and LEGACY_RSA_BITS <= key.key_size < RSA_MIN_BITS
        severity = Severity.WARNING if old and legacy_rsa else Severity.ERROR
        yield from_problem(problem, place, severity)
    if blocklist is not None and blocklist.holds(key):
        yield error(
            "weak_key", "The key is on a list of keys whose private half is public.",
            "Make a new key on an up-to-date system and have a certificate issued for it.", place,
        )  # fmt: skip
    if isinstance(key, rsa.RSAPublicKey) and moduli:
        n = key.public_numbers().n
        if any(other != n and math.gcd(n, other) != 1 for other in moduli):
            yield error(
                "weak_key", "The RSA key shares a prime with another key, so anyone can compute both private keys.",
                "Make new keys for both, on a machine with good randomness.", place,
            )  # fmt: skip


def signature(
    cert: x509.Certificate, facts: CertificateFacts, place: Place, *, is_root: bool = False
) -> Iterator[Finding]:
    """The hash it is signed with. A root's own signature counts for nothing."""
    name = hash_name(cert)
    if name and name not in STRONG_HASHES and not is_root:
        yield error(
            "weak_signature",
            f"The certificate {who(cert)} is signed with {signature_word(cert)}, which can be forged.",
            "Have it issued again with SHA-256.", place,
        )  # fmt: skip
    if facts.self_signed and not facts.is_ca and not is_root:
        yield note(
            "self_signed", f"The certificate {who(cert)} is signed by its own key; clients don't know it.",
            "Use a certificate of a CA, or install this one on every client.", place,
        )  # fmt: skip


def times(cert: x509.Certificate, place: Place, *, at: datetime, is_leaf: bool) -> Iterator[Finding]:
    what = "The certificate" if is_leaf else "The CA certificate"
    if at > cert.not_valid_after_utc:
        yield error(
            "expired", f"{what} {who(cert)} expired on {cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
            "Use a renewed certificate." if is_leaf else "Use the issuer's current CA certificate.", place,
        )  # fmt: skip
    if at < cert.not_valid_before_utc:
        yield warning(
            "not_yet_valid", f"{what} {who(cert)} isn't valid before {cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.",
            "Wait until then, or check that this machine's clock is right.", place,
        )  # fmt: skip


def extensions(cert: x509.Certificate, place: Place) -> Iterator[Finding]:
    for extension in cert.extensions:
        if extension.oid.dotted_string == _POISON:
            yield error(
                "unknown_critical_extension", "This is a precertificate, made for logs only; no client accepts it.",
                "Use the final certificate the CA sent.", place,
            )  # fmt: skip
        elif extension.critical and extension.oid not in UNDERSTOOD:
            yield error(
                "unknown_critical_extension",
                f"The certificate {who(cert)} has the critical extension {extension.oid.dotted_string}, unknown here.",
                "Ask the CA for a certificate without it.", place,
            )  # fmt: skip


def authority(cert: x509.Certificate, facts: CertificateFacts, place: Place) -> Iterator[Finding]:
    if not facts.is_ca:
        yield error(
            "not_a_ca", f"The certificate {who(cert)} isn't one of a CA (basicConstraints CA is missing).",
            "Upload the certificate of the CA that issues your clients' certificates.", place,
        )  # fmt: skip


# --- public trust ------------------------------------------------------------------------------------------------


def public_policy(facts: CertificateFacts, place: Place, policy: PublicPolicy) -> Iterator[Finding]:
    """What public CAs and browsers ask of a server certificate beyond strength (BR 6.3.2, 7.1.2.7)."""
    yield from _names(facts, place)
    yield from _purpose(facts, place, policy)
    yield from _life(facts, place, policy)


def _names(facts: CertificateFacts, place: Place) -> Iterator[Finding]:
    names = facts.dns_names + facts.ip_addresses
    if not names:
        yield error(
            "no_san", "The certificate holds no subject alternative names; clients ignore the common name.",
            "Have it issued again with its names as subject alternative names (-addext subjectAltName=DNS:<name>).",
            place,
        )  # fmt: skip
    elif facts.common_name and not _holds(facts, facts.common_name):
        yield warning(
            "cn_not_in_san",
            f"The common name {_said(facts.common_name)} isn't among the subject alternative names.",
            "Have it issued again with this name among the subject alternative names, or without a common name.", place,
        )  # fmt: skip
    if len(names) > MAX_NAMES:
        yield warning(
            "bad_name", f"The certificate holds {len(names)} names; only the first {MAX_NAMES} were looked at.",
            "Spread the names over several certificates.", place,
        )  # fmt: skip
    stars, odd, internal = _sorted_names(facts.dns_names[:MAX_NAMES])
    internal += [ip for ip in facts.ip_addresses[:MAX_NAMES] if not _is_public_address(ip)]
    if stars:
        yield error(
            "bad_wildcard", f"No client accepts the wildcard {_list(stars)}.",
            "Use *.example.com: the star alone as the leftmost label, above a domain of your own.", place,
        )  # fmt: skip
    if odd:
        yield warning(
            "bad_name", f"No client's host name can match {_list(odd)}.",
            "Have it issued again; names hold letters, digits and hyphens, other alphabets as xn-- (Punycode).", place,
        )  # fmt: skip
    if internal:
        yield warning(
            "internal_name", f"No public CA may certify {_list(internal)}.",
            "Fine with a CA of your own (--private); in public, use a registered domain.", place,
        )  # fmt: skip


def _sorted_names(names: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Those with a bad wildcard, those no host name can match, and the internal ones."""
    stars: list[str] = []
    odd: list[str] = []
    internal: list[str] = []
    for name in names:
        try:
            parsed = parse_dns_name(name)
        except Problem as problem:
            (stars if problem.code == "bad_wildcard" or "*" in name else odd).append(name)
            continue
        # Most names end so, and below these nothing but the ending itself is a public suffix: the whole list, 20 ms to
        # load, isn't needed for them.
        plain = parsed.base.endswith((".com", ".net", ".org"))
        if parsed.is_wildcard and ("." not in parsed.base or (not plain and is_public_suffix(parsed))):
            stars.append(name)
        elif name.endswith(".") or parsed.ascii != name:
            odd.append(name)
        elif not plain and is_internal(parsed):
            internal.append(name)
    return stars, odd, internal


def _holds(facts: CertificateFacts, common: str) -> bool:
    text = common.strip().lower()
    if looks_like_ip(text):
        return str(ipaddress.ip_address(text)) in facts.ip_addresses
    if text in facts.dns_names or any(covers(pattern, text) for pattern in facts.dns_names[:MAX_NAMES]):
        return True
    try:
        return parse_dns_name(text).ascii in facts.dns_names
    except Problem:
        return False


def _is_public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _purpose(facts: CertificateFacts, place: Place, policy: PublicPolicy) -> Iterator[Finding]:
    if not facts.eku:
        yield warning(
            "no_server_auth", "The certificate doesn't say that it is for servers (no extended key usage).",
            "Have it issued again as a server certificate (serverAuth).", place,
        )  # fmt: skip
    elif not {SERVER_AUTH, ANY_EKU} & set(facts.eku):
        yield error(
            "no_server_auth", "The certificate isn't made for servers: its extended key usage lacks serverAuth.",
            "Have it issued again as a server certificate.", place,
        )  # fmt: skip
    if CLIENT_AUTH in facts.eku:
        yield warning(
            "client_auth_public",
            "The certificate is for clients, too (clientAuth); browsers refuse such public certificates issued from "
            f"{policy.server_auth_only:%Y-%m-%d} on.",
            "Have it issued for servers only, and take client certificates from a private CA.", place,
        )  # fmt: skip


def _life(facts: CertificateFacts, place: Place, policy: PublicPolicy) -> Iterator[Finding]:
    limit = policy.max_days(facts.not_before)
    # Both ends count (BR 6.3.2): from 00:00:00 to 23:59:59 is one day.
    life = facts.not_after - facts.not_before + timedelta(seconds=1)
    if limit is not None and life > timedelta(days=limit):
        days = -(-life // timedelta(days=1))
        yield warning(
            "too_long_lived",
            f"The certificate lives {days} days; public ones issued on {facts.not_before:%Y-%m-%d} may live {limit}.",
            f"Have it issued for at most {limit - 1} days; with a CA of your own longer is allowed (--private).", place,
        )  # fmt: skip


def _said(text: str) -> str:
    return repr(text[:80])


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(_said(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
