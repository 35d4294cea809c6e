"""Pure decisions of the ACME server: what may be ordered, in which state things are, what a request must say."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from certwright.acme.jose import from_b64url
from certwright.acme.objects import Identifier
from certwright.acme.requests import AcmeProblem, account_key, malformed
from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, Problem
from certwright.rooms.acme_server.words import (
    CHALLENGES,
    AuthorizationState,
    ChallengeState,
    OrderState,
)
from certwright.rooms.authorities import name_rules
from certwright.x509.certificates import load, to_pem
from certwright.x509.csr import read_csr
from certwright.x509.keys import PublicKey, spki_sha256

MOST_NAMES: Final = 100
MOST_CONTACTS: Final = 10
# Orders of one account that wait for proof at one time.
MOST_OPEN_ORDERS: Final = 300
# Challenges of one account that are being looked at, or wait for it; their hosts may answer as late as they can.
MOST_UNDER_WAY: Final = 200
# Orders of one account that fail within an hour: each leaves up to a hundred rows.
MOST_FAILED_ORDERS: Final = 100
# How long a client has to show control and finalize; a week, as some people publish by hand.
ORDER_LIFE: Final = timedelta(days=7)
# How long a proof of control stands for revoking (RFC 8555 section 7.6), and at most for further orders.
PROOF_LIFE: Final = timedelta(days=30)
# dns-01 may be looked at before every server has the record: so long after the first look come the others.
LOOK_AGAIN: Final[Mapping[str, tuple[timedelta, ...]]] = {"dns-01": (timedelta(seconds=2), timedelta(seconds=6))}

_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAIL: Final = re.compile(r"[A-Za-z0-9.!#$&'*+/=^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
# RFC 5280 section 5.3.1, as far as a subscriber may say so (RFC 8555 section 7.6).
_REASONS: Final[Mapping[int, str]] = {
    0: "unspecified", 1: "key_compromise", 3: "affiliation_changed", 4: "superseded", 5: "cessation_of_operation",
    9: "privilege_withdrawn",
}  # fmt: skip


# --- names ------------------------------------------------------------------------------------------------------------


def judge_identifiers(said: object) -> tuple[str, ...]:
    """The names of a newOrder: A-labels in lower case, wildcards with their star, addresses in their usual form; each
    once, in the order given. Raises AcmeProblem `malformed`, `unsupportedIdentifier` or `rejectedIdentifier`, with one
    subproblem a name where several are wrong."""
    if not isinstance(said, list) or not said:
        raise malformed("The order names no identifiers.")
    if len(said) > MOST_NAMES:
        raise AcmeProblem("rejectedIdentifier", f"An order names at most {MOST_NAMES} identifiers; split it.")
    wrong: list[AcmeProblem] = []
    names: list[str] = []
    for one in said:
        try:
            names.append(_identifier(one))
        except AcmeProblem as problem:
            wrong.append(problem)
    raise_all(wrong)
    return tuple(dict.fromkeys(names))


def _identifier(one: object) -> str:
    if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not isinstance(one.get("value"), str):
        raise malformed("Each identifier has a type and a value, both texts.")
    kind, value = one["type"], one["value"]
    shown = Identifier(kind[:20], value[:260])
    if kind == "ip":
        return _address(value, shown)
    if kind != "dns":
        raise AcmeProblem("unsupportedIdentifier", f"Identifiers of the type {kind[:20]!r} can't be certified here.",
                          identifier=shown)  # fmt: skip
    lower = value.lower()
    if looks_like_ip(value):
        raise _rejected("An address is ordered with the type ip (RFC 8738).", shown)
    try:
        name = parse_dns_name(lower).ascii
    except Problem as problem:
        raise _rejected(f"{problem.message} {problem.fix}".strip(), shown) from None
    if name != lower:
        # RFC 8555 section 7.1.3: exactly as it will stand in the certificate, so no U-labels, spaces or final dots.
        raise _rejected(f"Write this name as {name}.", shown)
    return name


def _address(value: str, shown: Identifier) -> str:
    try:
        address = str(ipaddress.ip_address(value))
    except ValueError:
        raise _rejected("This is no IP address.", shown) from None
    if "%" in address:
        raise _rejected("An address with a zone can't be certified.", shown)
    return address


def _rejected(detail: str, identifier: Identifier) -> AcmeProblem:
    return AcmeProblem("rejectedIdentifier", detail, identifier=identifier)


def raise_all(wrong: Sequence[AcmeProblem]) -> None:
    """Nothing; or the one problem; or one with all of them as subproblems (RFC 8555 section 6.7.1)."""
    if not wrong:
        return
    if len(wrong) == 1:
        raise wrong[0]
    kinds = {problem.kind for problem in wrong}
    kind = kinds.pop() if len(kinds) == 1 else "rejectedIdentifier"
    raise AcmeProblem(kind, f"{len(wrong)} of the identifiers can't be certified.", subproblems=tuple(wrong))


def as_ordered(text: str) -> str:
    """A name as people write it, in the form orders keep it in; what is no name at all is no order's either."""
    try:
        return str(parse_ip(text)) if looks_like_ip(text) else parse_dns_name(text).ascii
    except Invalid:
        return text.strip()


def identifier_of(name: str) -> Identifier:
    """As orders write it: wildcards with their star."""
    return Identifier("ip" if looks_like_ip(name) else "dns", name)


def judge_challenges(names: Sequence[str], offered: Sequence[str]) -> None:
    """Raises AcmeProblem `rejectedIdentifier` for names that none of the directory's challenges can prove."""
    raise_all([
        _rejected(f"None of the challenges of this server ({', '.join(offered)}) can prove this name: "
                  f"it needs {' or '.join(challenges_for(name, CHALLENGES))}.", identifier_of(name))
        for name in names if not challenges_for(name, offered)
    ])  # fmt: skip


def challenges_for(name: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Wildcards by DNS alone (RFC 8555 section 7.1.3), addresses never by DNS (RFC 8738 section 5)."""
    if name.startswith("*."):
        return tuple(kind for kind in offered if kind == "dns-01")
    if looks_like_ip(name):
        return tuple(kind for kind in offered if kind != "dns-01")
    return tuple(offered)


def judge_allowed(names: Sequence[str], patterns: Sequence[str], whose: str) -> None:
    """Raises AcmeProblem `rejectedIdentifier` for names that none of the rules means; no rules allow every name."""
    if patterns:
        raise_all([
            _rejected(f"{name} isn't among the names {whose} may order.", identifier_of(name))
            for name in names if name_rules.which_allows(patterns, name) is None
        ])  # fmt: skip


# --- states -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuthorizationFacts:
    """What is stored of an authorization, as far as its state depends on it."""

    status: str
    expires_at: datetime
    challenge: str | None = None


def authorization_state(facts: AuthorizationFacts, now: datetime) -> AuthorizationState:
    """RFC 8555 section 7.1.6: one that was never shown and has run out is invalid, one that was is expired."""
    if facts.expires_at <= now:
        if facts.status == "pending":
            return AuthorizationState.INVALID
        if facts.status == "valid":
            return AuthorizationState.EXPIRED
    return AuthorizationState(facts.status)


def challenge_state(facts: AuthorizationFacts, kind: str, now: datetime) -> ChallengeState:
    if facts.challenge != kind:
        return ChallengeState.PENDING
    state = authorization_state(facts, now)
    if state is AuthorizationState.PENDING:
        return ChallengeState.PROCESSING
    good = state in (AuthorizationState.VALID, AuthorizationState.EXPIRED) or facts.status == "deactivated"
    return ChallengeState.VALID if good else ChallengeState.INVALID


def order_state(
    status: str, expires_at: datetime, authorizations: Sequence[AuthorizationFacts], now: datetime, *, promised: int
) -> OrderState:
    """What an order is follows from its proofs: nothing has to be written when the last of them comes in, so two that
    come in together can't miss each other. `promised` is how many authorizations it has: one that is gone counts as
    lost."""
    if status != "pending":
        return OrderState(status)
    states = [authorization_state(facts, now) for facts in authorizations]
    if (
        expires_at <= now
        or len(states) < promised
        or any(state not in (AuthorizationState.VALID, AuthorizationState.PENDING) for state in states)
    ):
        return OrderState.INVALID
    return OrderState.READY if all(state is AuthorizationState.VALID for state in states) else OrderState.PENDING


def next_look(kind: str, looks: int, problem: AcmeProblem) -> timedelta | None:
    """When a challenge that failed is looked at again; None: never, it has failed. What the operator doesn't allow
    isn't tried again."""
    waits = LOOK_AGAIN.get(kind, ())
    return waits[looks - 1] if looks <= len(waits) and problem.kind in ("dns", "unauthorized") else None


# --- renewal information ----------------------------------------------------------------------------------------------

WINDOW_POLL_SECONDS: Final = 6 * 3600


def renewal_window(not_before: datetime, not_after: datetime, revoked_at: datetime | None) -> tuple[datetime, datetime]:
    """When to renew (RFC 9773 section 4.2): from two thirds of the life on, from its half for lives under ten days,
    over a twelfth of the life, at most two days. One that was revoked should have been replaced by now: its window
    lies in the past."""
    if revoked_at is not None:
        return revoked_at - timedelta(hours=1), revoked_at
    life = not_after - not_before
    start = not_after - (life / 2 if life < timedelta(days=10) else life / 3)
    return start, start + min(life / 12, timedelta(days=2))


# --- what requests say ------------------------------------------------------------------------------------------------


def judge_contacts(said: object) -> tuple[str, ...]:
    """`mailto:` addresses. Raises AcmeProblem `malformed`, `unsupportedContact` or `invalidContact`."""
    if said is None:
        return ()
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise malformed("The contacts must be a list of URLs.")
    if len(said) > MOST_CONTACTS:
        raise AcmeProblem("invalidContact", f"An account has at most {MOST_CONTACTS} contacts.")
    for one in said:
        scheme, _, rest = one.partition(":")
        if scheme.lower() != "mailto":
            raise AcmeProblem("unsupportedContact", "Contacts must be mailto: addresses.")
        # RFC 8555 section 7.3: exactly one address, and no header fields behind it.
        if not _MAIL.fullmatch(rest):
            raise AcmeProblem("invalidContact", f"{rest[:80]!r} is no e-mail address.")
    return tuple(dict.fromkeys(said))


def judge_profile(said: object, profiles: Sequence[str]) -> str:
    """Raises AcmeProblem `invalidProfile` for a profile the directory doesn't offer."""
    if said is None:
        return profiles[0]
    if not isinstance(said, str) or said not in profiles:
        raise AcmeProblem("invalidProfile", f"This server offers the profiles {', '.join(profiles)}.")
    return said


def profile_words(name: str) -> str:
    """What the directory tells of a profile; of kinds people described, their name must say it."""
    known = {
        "server": "TLS servers", "server_short": "TLS servers, for a week at most, without revocation",
        "client": "TLS clients (mutual TLS)",
    }  # fmt: skip
    return known.get(name, f"certificates of the kind {name}")


def judge_reason(said: object) -> str:
    """The word for a reason code. Raises AcmeProblem `badRevocationReason`."""
    if said is None:
        return "unspecified"
    if not isinstance(said, int) or isinstance(said, bool) or said not in _REASONS:
        allowed = ", ".join(f"{code} ({word.replace('_', ' ')})" for code, word in _REASONS.items())
        raise AcmeProblem("badRevocationReason", f"The reasons taken here are {allowed}.")
    return _REASONS[said]


def judge_csr_names(ordered: Sequence[str], dns: Sequence[str], ips: Sequence[str]) -> None:
    """RFC 8555 section 7.4: the CSR names exactly what was ordered. Raises AcmeProblem `badCSR`."""
    wanted, asked = set(ordered), {*dns, *ips}
    if wanted == asked:
        return
    parts = []
    if asked - wanted:
        parts.append(f"names {', '.join(sorted(asked - wanted)[:5])}, which wasn't ordered")
    if wanted - asked:
        parts.append(f"lacks {', '.join(sorted(wanted - asked)[:5])}")
    raise AcmeProblem("badCSR", f"The CSR {' and '.join(parts)}.")


@dataclass(frozen=True, slots=True)
class OrderCsr:
    """What counts of a CSR: names were ordered, and all else the profile says. `must_staple`: it asks for it, so the
    profile has to say so."""

    public_key: PublicKey
    must_staple: bool = False


def read_order_csr(text: str, ordered: Sequence[str], account_jwk: Mapping[str, str]) -> OrderCsr:
    """Raises AcmeProblem `badCSR`, also for a CSR with the account's own key (RFC 8555 section 11.1), and
    `badPublicKey` for a key that can't be certified."""
    try:
        der = from_b64url(text)
    except ValueError:
        raise AcmeProblem("badCSR", "The CSR isn't base 64 for URLs.") from None
    try:
        facts = read_csr(der)
    except Problem as problem:
        kind = "badPublicKey" if "key" in problem.code else "badCSR"
        raise AcmeProblem(kind, f"{problem.message} {problem.fix}".strip()) from None
    judge_csr_names(ordered, facts.dns_names, facts.ip_addresses)
    if facts.spki_sha256 == key_mark(account_key(account_jwk)):
        raise AcmeProblem("badCSR", "The CSR has the account's own key; make another for the certificate.")
    return OrderCsr(facts.public_key, facts.must_staple)


def judge_must_staple(profile: str, *, has_it: bool) -> None:
    """Of a CSR that asks for it (RFC 8555 section 7.4); usages, which clients ask for by habit, are the profile's."""
    if not has_it:
        raise AcmeProblem("badCSR", f"The CSR asks for OCSP must-staple, which certificates of the profile {profile} "
                          "don't have; make it without.")  # fmt: skip


def key_mark(key: Any) -> str:
    """By which two public keys are compared."""
    return spki_sha256(key)


def leaf_key_mark(der: bytes) -> str:
    return spki_sha256(load(der).public_key())


def pem_chain(ders: Sequence[bytes]) -> str:
    return "".join(to_pem(der) for der in ders)


def days(number: int) -> timedelta:
    return timedelta(days=number)


# --- what people say --------------------------------------------------------------------------------------------------


def slug_of(name: str) -> str:
    """An address part made of a name, such as `shop-servers`, letters without their accents; "acme" where nothing is
    left of it."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    return re.sub(r"[^a-z0-9]+", "-", plain.casefold()).strip("-")[:50].strip("-") or "acme"


def judge_slug(slug: str) -> str:
    if not _SLUG.fullmatch(slug):
        raise Invalid(
            "acme_slug_invalid", "The address part has 1 to 63 small letters, digits and inner hyphens.", field="slug",
            fix="Choose one such as shop-servers; clients keep it in their configuration.",
        )  # fmt: skip
    return slug


def judge_label(name: str) -> str:
    plain = name.strip()
    if not 1 <= len(plain) <= 100 or not plain.isprintable():
        raise Invalid("acme_name_invalid", "The name has 1 to 100 printable characters.", field="name",
                      fix="Choose a short name, such as that of the servers it is for.")  # fmt: skip
    return plain


def judge_directory(values: Mapping[str, Any]) -> None:
    """The settings of a directory that don't need the database. Raises Invalid naming the field."""
    challenges = values.get("challenges")
    if challenges is not None and (not challenges or not set(challenges) <= set(CHALLENGES)):
        raise Invalid("acme_challenges_invalid", f"The challenges are some of {', '.join(CHALLENGES)}.",
                      field="challenges", fix="Name at least one of them.")  # fmt: skip
    profiles = values.get("profiles")
    if profiles is not None and not 1 <= len(profiles) <= 20:
        raise Invalid("acme_profiles_invalid", "An ACME service offers 1 to 20 profiles.", field="profiles",
                      fix="Name at least one, such as server.")  # fmt: skip
    days = values.get("days")
    if days is not None and not 1 <= days <= 3650:
        raise Invalid("acme_days_out_of_range", "Certificates over ACME live 1 to 3650 days.", field="days",
                      fix="Leave it out, or choose a short life: clients renew by themselves.")  # fmt: skip
    if not 0 <= values.get("reuse_days", 0) <= 30:
        raise Invalid("acme_reuse_out_of_range", "A proof of control is reused for 0 to 30 days.", field="reuse_days",
                      fix="Choose 0 to have each order proved anew.")  # fmt: skip
    for field in ("terms_url", "website"):
        url = values.get(field)
        if url and (not url.startswith(("https://", "http://")) or not url.isprintable() or " " in url
                    or len(url) > 500):  # fmt: skip
            raise Invalid("acme_url_invalid", "This must be a web address clients can show to people.", field=field,
                          fix="Write it like https://intranet.example/terms.")  # fmt: skip
