"""Pure decisions: what a CA's entry may say, and whether its limits leave room for another order."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from certwright.kernel.names import looks_like_ip, parse_dns_name, registrable_domain
from certwright.kernel.problems import Invalid, InvalidFields, Problem, Unavailable
from certwright.rooms.cas.words import CaKind, Limit, Limits, ShopSettings, Use
from certwright.x509.certificates import read_certificates

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.\-]{1,63}")
RESERVED_NAMES = ("builtin",)
MOST_CONTACTS = 10
LONGEST_PERIOD = timedelta(days=31)
_EMAIL = re.compile(r"[^@\s<>\"',;:\\?&]{1,64}@[^@\s<>\"',;:\\?&]{1,253}")
_PROFILE = re.compile(r"[A-Za-z0-9_.:\-]{1,100}")

# Let's Encrypt's limits of 2026-08, of which failures are cut from 5 to 3: ours stop before theirs do. Other CAs
# publish none, or higher ones; whoever knows better edits them.
DEFAULT_LIMITS: Limits = {
    Use.ORDER: Limit(300, timedelta(hours=3)),
    Use.CERTIFICATE: Limit(50, timedelta(days=7)),
    Use.DUPLICATE: Limit(5, timedelta(days=7)),
    Use.FAILURE: Limit(3, timedelta(hours=1)),
}


# --- what an entry may say -------------------------------------------------------------------------------------------


def judge_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name) or name.lower() in RESERVED_NAMES:
        raise Invalid(
            "ca_name_invalid", "The CA's name must have 1 to 63 letters, digits, hyphens, underscores or dots.",
            field="name", fix="Choose a name such as letsencrypt; builtin is taken.",
        )  # fmt: skip
    return name


def judge_directory_url(url: str) -> str:
    """RFC 8555 section 6.1 has everything over https; no user part, no query that could hold a secret."""
    try:
        split = urlsplit(url)
        good = (
            split.scheme == "https" and bool(split.hostname) and split.username is None and not split.fragment
            and (split.port is None or split.port > 0) and len(url) <= 500 and url.isascii() and url.isprintable()
            and " " not in url
        )  # fmt: skip
    except ValueError:
        good = False
    if not good:
        raise Invalid(
            "ca_directory_invalid", "The directory is not an https address.", field="directory_url",
            fix="Copy it from the CA's documentation, such as https://acme.example.com/directory.",
        )  # fmt: skip
    return url


def judge_contacts(contacts: Sequence[str]) -> list[str]:
    """Plain e-mail addresses, each once; RFC 8555 section 7.3 forbids more than one in a mailto."""
    if len(contacts) > MOST_CONTACTS:
        raise Invalid("ca_contacts_count", f"A CA takes at most {MOST_CONTACTS} contacts.", field="contacts",
                      fix="Name the few people it should write to.")  # fmt: skip
    plain: list[str] = []
    for index, text in enumerate(contacts):
        address = text.strip().removeprefix("mailto:")
        if not _EMAIL.fullmatch(address) or not address.isascii():
            raise Invalid("email_invalid", "A contact is not an e-mail address.", field=f"contacts.{index}",
                          fix="Write it as name@example.com.")  # fmt: skip
        if address not in plain:
            plain.append(address)
    return plain


def judge_profile(profile: str | None, offered: Mapping[str, str] | None = None) -> str | None:
    """`offered` are the profiles of the directory, once it was read; an empty text means none."""
    if not profile:
        return None
    if not _PROFILE.fullmatch(profile):
        raise Invalid("ca_profile_invalid", "That is not the name of a profile.", field="profile",
                      fix="Leave it out to use the CA's usual one.")  # fmt: skip
    if offered is not None and profile not in offered:
        raise Invalid(
            "ca_profile_unknown", f"The CA has no profile called {profile!r}.", field="profile",
            fix=f"Choose one of: {', '.join(sorted(offered))[:300]}." if offered else "It has none: leave it out.",
        )  # fmt: skip
    return profile


def judge_preferred_chain(name: str | None) -> str | None:
    if not name:
        return None
    if len(name) > 200 or not name.isprintable():
        raise Invalid(
            "ca_chain_invalid", "The preferred chain is not the common name of a root.", field="preferred_chain",
            fix="Enter it as it stands in the root, such as ISRG Root X1.",
        )  # fmt: skip
    return name


def judge_root(pem: str | None) -> str | None:
    """The roots that vouch for the directory's own TLS certificate, in PEM; only certificates are kept."""
    if not pem or not pem.strip():
        return None
    try:
        found = read_certificates(pem.encode())
    except Problem as problem:
        raise problem.at("root_pem") from None
    if not found or not all(one.is_ca for one in found):
        raise Invalid("ca_root_invalid", "The trusted root is not the certificate of a CA.", field="root_pem",
                      fix="Paste the root that issued the certificate of the CA's own web server.")  # fmt: skip
    return "".join(_pem(one.der) for one in found)


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def judge_eab(kid: str | None, key: str | None) -> tuple[str, bytes] | None:
    """The external account binding as CAs hand it out: a key id and a MAC key in base 64 (for URLs or not)."""
    if not kid and not key:
        return None
    if not kid or not key:
        raise Invalid("ca_eab_incomplete", "An external account binding needs both its key id and its key.",
                      field="eab_key" if kid else "eab_kid", fix="Copy both from the CA's website.")  # fmt: skip
    if len(kid) > 500 or not kid.isprintable() or not kid.isascii():
        raise Invalid("ca_eab_kid_invalid", "The key id of the external account binding is not usable.",
                      field="eab_kid", fix="Copy it again from the CA's website.")  # fmt: skip
    text = key.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not 16 <= len(secret) <= 512:
        raise Invalid("ca_eab_key_invalid", "The key of the external account binding is not base 64 of 16 octets or "
                      "more.", field="eab_key", fix="Copy it again from the CA's website.")  # fmt: skip
    return kid, secret


def judge_limits(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """`{"orders": {"count": 300, "seconds": 10800}, …}`; what isn't given keeps its default."""
    problems: list[Problem] = []
    limits = dict(DEFAULT_LIMITS)
    for word, figures in given.items():
        field = f"limits.{word[:40]}"
        if word not in set(Use):
            problems.append(Invalid("ca_limit_unknown", f"There is no limit called {word[:40]!r}.", field=field,
                                    fix=f"Use one of: {', '.join(Use)}."))  # fmt: skip
            continue
        count, seconds = figures.get("count"), figures.get("seconds")
        good = isinstance(count, int) and isinstance(seconds, int) and 1 <= count <= 1_000_000
        if not good or not 1 <= int(seconds or 0) <= LONGEST_PERIOD.total_seconds():
            problems.append(Invalid("ca_limit_invalid", "A limit is a count of 1 or more in 1 second to 31 days.",
                                    field=field, fix="Write it as 300/3h."))  # fmt: skip
            continue
        limits[Use(word)] = Limit(int(count or 0), timedelta(seconds=int(seconds or 0)))
    if problems:
        raise InvalidFields(problems)
    return {use.value: limit.as_dict() for use, limit in limits.items()}


def limits_of(stored: Mapping[str, Mapping[str, int]]) -> dict[Use, Limit]:
    """Read back `judge_limits`."""
    return {Use(word): Limit(f["count"], timedelta(seconds=f["seconds"])) for word, f in stored.items()}


# --- CAs that sell ---------------------------------------------------------------------------------------------------

CERTIFICATE_TYPES = ("dv_basic", "dv", "ov", "ov_pro", "ev", "ev_pro")
DOMAIN_TYPES = ("single", "multi", "wildcard")
MOST_YEARS = 3
_PRODUCT = re.compile(r"[a-z0-9_]{1,64}")
_WORD = re.compile(r"[a-z_]{1,32}")

# DigiCert's own names (dev.digicert.com, product identifiers). The flexible OV and EV products take any names; EV has
# no wildcards (EV guidelines, 3.2.2.14).
DEFAULT_SHOP: Mapping[str, Any] = {
    "products": {
        "dv_basic/single": "ssl_dv_rapidssl", "dv_basic/wildcard": "wildcard_dv_rapidssl",
        "dv/single": "ssl_dv_geotrust", "dv/multi": "cloud_dv_geotrust", "dv/wildcard": "wildcard_dv_geotrust",
        "ov/single": "ssl_basic", "ov/multi": "ssl_basic", "ov/wildcard": "ssl_basic",
        "ov_pro/single": "ssl_securesite_flex", "ov_pro/multi": "ssl_securesite_flex",
        "ov_pro/wildcard": "ssl_securesite_flex",
        "ev/single": "ssl_ev_basic", "ev/multi": "ssl_ev_basic",
        "ev_pro/single": "ssl_ev_securesite_flex", "ev_pro/multi": "ssl_ev_securesite_flex",
    },
    "years": 1,
    "payment_method": "balance",
    "skip_approval": True,
    "dns_record": "TXT",
    "cname_target": "dcv.digicert.com",
    "caa_identifiers": ["digicert.com", "www.digicert.com", "geotrust.com", "rapidssl.com", "thawte.com"],
}  # fmt: skip


def judge_kind(kind: str, *, api_key: str | None, settings: Mapping[str, Any] | None, known: bool = False) -> CaKind:
    """Whether this kind of CA has what is given; a new one that sells needs a key (not so if it is `known`)."""
    if kind not in set(CaKind):
        raise Invalid("ca_kind_unknown", f"There is no kind of CA {kind[:40]!r}.", field="kind",
                      fix=f"Use one of: {', '.join(CaKind)}.")  # fmt: skip
    sells = kind == CaKind.CERTCENTRAL
    if sells and not api_key and not known:
        raise Invalid("ca_api_key_missing", "The CA takes orders only with an API key.", field="api_key",
                      fix="Make one in the CA's console, for a service user that may order, and enter it.")  # fmt: skip
    if not sells and (api_key is not None or settings is not None):
        raise Invalid("ca_setting_not_for_kind", "An ACME CA has neither an API key nor settings for products.",
                      field="settings" if settings is not None else "api_key",
                      fix="Leave it out, or add the CA as kind certcentral.")  # fmt: skip
    return CaKind(kind)


def judge_api_key(key: str | None) -> bytes:
    """It goes into a header as it is."""
    text = (key or "").strip()
    if not 8 <= len(text) <= 512 or not text.isascii() or not text.isprintable() or " " in text:
        raise Invalid(
            "ca_api_key_invalid", "That is not an API key: 8 to 512 letters, digits and signs without blanks.",
            field="api_key", fix="Copy it from the CA's console, where keys for its API are made.",
        )  # fmt: skip
    return text.encode()


def judge_shop_settings(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What isn't given stays as it was `before`, or is the default; a product given as an empty text is not sold."""
    settings = dict(before or DEFAULT_SHOP)
    products = dict(settings["products"])
    problems: list[Problem] = []
    for word, value in given.items():
        if word == "products" and isinstance(value, Mapping):
            for place, product in value.items():
                _judge_product(products, str(place), product, problems)
            continue
        if word not in _SHOP_SETTINGS:
            problems.append(
                _wrong_setting(
                    word, f"There is no setting called {str(word)[:40]!r}.", f"Use: {', '.join(DEFAULT_SHOP)}."
                )
            )
            continue
        good, sentence, fix = _SHOP_SETTINGS[word]
        if good(value):
            settings[word] = value
        else:
            problems.append(_wrong_setting(word, sentence, fix))
    if problems:
        raise InvalidFields(problems)
    return settings | {"products": products}


def _judge_product(products: dict[str, str], place: str, product: Any, problems: list[Problem]) -> None:
    kind, _, domains = place.partition("/")
    if kind not in CERTIFICATE_TYPES or domains not in DOMAIN_TYPES:
        problems.append(_wrong_setting(
            f"products.{place}", f"There is no type of certificate {place[:40]!r}.",
            f"Write TYPE/DOMAINS, such as ov/single, with {', '.join(CERTIFICATE_TYPES)} and "
            f"{', '.join(DOMAIN_TYPES)}.",
        ))  # fmt: skip
    elif product == "":
        products.pop(place, None)
    elif isinstance(product, str) and _PRODUCT.fullmatch(product):
        products[place] = product
    else:
        problems.append(_wrong_setting(
            f"products.{place}", f"{str(product)[:40]!r} is not the name of a product.",
            "Use the CA's own name, such as ssl_basic; testing the CA lists them.",
        ))  # fmt: skip


def _wrong_setting(word: str, sentence: str, fix: str) -> Invalid:
    return Invalid("ca_setting_invalid", sentence, field=f"settings.{word[:80]}", fix=fix)


def _is_dns_name(text: Any) -> bool:
    try:
        return isinstance(text, str) and not parse_dns_name(text).is_wildcard
    except Problem:
        return False


# Per setting: whether a value will do, what is wrong with any other, and what to do.
_SHOP_SETTINGS: Mapping[str, tuple[Callable[[Any], bool], str, str]] = {
    "products": (
        lambda value: False, "Products are given as pairs.", "Write TYPE/DOMAINS: name of the product.",
    ),
    "years": (
        lambda value: type(value) is int and 1 <= value <= MOST_YEARS,
        f"The coverage must be 1 to {MOST_YEARS} years.", "Use 1 unless your contract with the CA says more.",
    ),
    "payment_method": (
        lambda value: isinstance(value, str) and _WORD.fullmatch(value) is not None,
        "That is not a way of paying.", "Use balance, or what your contract with the CA says.",
    ),
    "skip_approval": (
        lambda value: isinstance(value, bool),
        "Whether the CA's approval step is skipped is said by true or false.", "Use true or false.",
    ),
    "dns_record": (
        lambda value: value in ("TXT", "CNAME"), "A DNS record for the CA is of type TXT or CNAME.",
        "Use TXT, or CNAME.",
    ),
    "cname_target": (
        _is_dns_name, "That is not a DNS name.", "Use the one of the CA's documentation, such as dcv.digicert.com.",
    ),
    "caa_identifiers": (
        lambda value: isinstance(value, list) and len(value) <= 20 and all(_is_dns_name(one) for one in value),
        "The CA's names in CAA records are at most 20 DNS names.", "Copy them from the CA's documentation.",
    ),
}  # fmt: skip


def shop_settings_of(stored: Mapping[str, Any]) -> ShopSettings:
    """Read back `judge_shop_settings`."""
    return ShopSettings(**stored)


def judge_offered(products: Mapping[str, str], offered: Mapping[str, str]) -> None:
    """Raises Invalid `ca_product_unknown` when the CA sells this account none of the `products` of the settings."""
    if not set(products.values()) & set(offered):
        raise Invalid(
            "ca_product_unknown", "The CA sells this account none of the products set for it here.",
            field="settings.products", fix=f"It sells: {', '.join(sorted(offered))[:300] or 'nothing'}.",
        )  # fmt: skip


# --- telling the CA to look -------------------------------------------------------------------------------------------

# Some CAs keep a name open after a look that failed (RFC 8555 section 8.2). Each look may count, so there are few.
MOST_ANSWERS = 3
_AFTER_FAILURE = timedelta(minutes=5)
_AFTER_SILENCE = timedelta(hours=1)
_LAST_LOOK = timedelta(minutes=1)


class Answer(StrEnum):
    """What to do about names that wait for the CA: tell it to look, wait, or give up."""

    TELL = "tell"
    WAIT = "wait"
    GIVE_UP = "give up"


def why_answer(*, answers: int, answered_at: datetime | None, failed: bool, now: datetime) -> Answer:
    """`failed`: the CA has looked at one of the names that wait, and says what it missed."""
    if answers == 0 or answered_at is None:
        return Answer.TELL
    passed = now - answered_at
    if failed and answers >= MOST_ANSWERS:
        return Answer.GIVE_UP if passed >= _LAST_LOOK else Answer.WAIT
    return Answer.TELL if passed >= (_AFTER_FAILURE if failed else _AFTER_SILENCE) else Answer.WAIT


# No CA keeps an order open for longer.
LONGEST_ORDER = timedelta(days=30)


def order_shared() -> Unavailable:
    return Unavailable(
        "ca_order_shared", "The CA answers with the order of another application for the same names, which isn't "
        "finished.", fix="It goes on by itself once that one is issued or withdrawn.", extra={"retry_after": 300},
    )  # fmt: skip


# --- the mirror of the CA's limits -----------------------------------------------------------------------------------


def set_digest(names: Sequence[str]) -> str:
    """One subject for one exact set of names, in whatever order."""
    return hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()


def domains_of(names: Sequence[str]) -> tuple[str, ...]:
    """The registered domains of these names, each once; an internal name or an address stands for itself."""
    found: dict[str, None] = {}
    for name in names:
        plain = name if looks_like_ip(name) else parse_dns_name(name)
        found[plain if isinstance(plain, str) else registrable_domain(plain) or plain.base] = None
    return tuple(found)


Subject = tuple[Use, str]


def subjects_of_order(names: Sequence[str], *, replaces: bool, issues: bool = True) -> tuple[Subject, ...]:
    """What must have room before this order is placed. A renewal announced by `replaces` is exempt at CAs with ARI
    from all but the failures; one that `issues` nothing uses up no certificates."""
    failures = tuple((Use.FAILURE, name) for name in names)
    if replaces:
        return failures
    if not issues:
        return ((Use.ORDER, ""), *failures)
    domains = tuple((Use.CERTIFICATE, domain) for domain in domains_of(names))
    return ((Use.ORDER, ""), (Use.DUPLICATE, set_digest(names)), *domains, *failures)


@dataclass(frozen=True, slots=True)
class Spent:
    """A limit without room: the subject, and when there will be some."""

    use: Use
    subject: str
    limit: Limit
    free_at: datetime


def first_spent(
    subjects: Sequence[Subject], used: Mapping[Subject, Sequence[datetime]], limits: Limits, now: datetime
) -> Spent | None:
    """The subject that has to wait longest, or None when there is room for one more of each.

    A sliding window is never more generous than the token bucket of the same size that CAs use.
    """
    worst: Spent | None = None
    for use, subject in subjects:
        limit = limits[use]
        recent = sorted(at for at in used.get((use, subject), ()) if at > now - limit.period)
        if len(recent) < limit.count:
            continue
        free_at = recent[len(recent) - limit.count] + limit.period
        if worst is None or free_at > worst.free_at:
            worst = Spent(use, subject, limit, free_at)
    return worst


def quota_spent(spent: Spent, ca_name: str, now: datetime) -> Unavailable:
    """The refusal to place an order that the CA would refuse."""
    hours = spent.limit.period.total_seconds() / 3600
    period = f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours" if hours != 1 else "hour"
    what = {
        Use.ORDER: f"{spent.limit.count} orders per {period}",
        Use.CERTIFICATE: f"{spent.limit.count} certificates below {spent.subject} per {period}",
        Use.DUPLICATE: f"{spent.limit.count} certificates for the same names per {period}",
        Use.FAILURE: f"{spent.limit.count} failed validations of {spent.subject} per {period}",
    }[spent.use]
    wait = max(1, int((spent.free_at - now).total_seconds()) + 1)
    return Unavailable(
        "ca_quota_spent", f"{ca_name} allows {what}, and these are used up until {spent.free_at:%Y-%m-%d %H:%M} UTC.",
        fix="It goes on by itself then; if the CA allows more, edit this CA's limits.",
        extra={"limit": spent.use.value, "subject": spent.subject, "retry_after": wait},
    )  # fmt: skip
