"""Pure rules: what makes a good password, an e-mail address, a name; when a session ends; when sign-in is throttled."""

from __future__ import annotations

import ipaddress
import itertools
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.resources import files

from certwright.kernel.names import parse_dns_name
from certwright.kernel.problems import Invalid, Problem

MIN_PASSWORD = 12
MAX_PASSWORD = 256
MAX_NAME = 100
MAX_DESCRIPTION = 500
SESSION_IDLE = timedelta(hours=2)
LINK_LIFETIME = timedelta(hours=24)
INVITE_LIFETIME = timedelta(days=7)
TOKEN_DAYS_DEFAULT = 90
TOKEN_DAYS_MAX = 365

# RFC 5322 atext, and the dot between atoms. Quoted local parts are left out on purpose: nobody has one, and every
# quoting rule is a way to smuggle something into a header.
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-")

_LEET = str.maketrans("013457@$!", "oieastasi")


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    text = (files("certwright.rooms.accounts") / "common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def normal_password(password: str) -> str:
    """One spelling for what looks the same (NFKC), so that another keyboard types the same password."""
    return unicodedata.normalize("NFKC", password)


def why_bad_password(password: str, *, email: str = "", name: str = "", field: str = "password") -> Problem | None:
    """The reason to refuse a new password, or None."""
    password = normal_password(password)
    if len(password) < MIN_PASSWORD:
        return Invalid(
            "password_too_short", f"The password has fewer than {MIN_PASSWORD} characters.", field=field,
            fix="Use a longer one; a few unrelated words are easy to remember.",
        )  # fmt: skip
    if len(password) > MAX_PASSWORD:
        return Invalid(
            "password_too_long", f"The password has more than {MAX_PASSWORD} characters.", field=field,
            fix="Use a shorter one.",
        )  # fmt: skip
    lower = password.lower()
    local = email.lower().partition("@")[0]
    personal = [part for part in (email.lower(), local, *name.lower().split()) if len(part) >= 4]
    if any(part in lower for part in personal):
        return Invalid(
            "password_personal", "The password contains your name or e-mail address.", field=field,
            fix="Use words that have nothing to do with you.",
        )  # fmt: skip
    if _is_common(lower):
        return Invalid(
            "password_common", "The password is among those that are tried first.", field=field,
            fix="Use a few unrelated words, or let a password manager make one.",
        )  # fmt: skip
    return None


def _is_common(lower: str) -> bool:
    if len(set(lower)) <= 3 or _is_run(lower):
        return True
    common = _common()
    core = lower.strip("0123456789!?.,-_*#$&+@ ")
    for text in {lower, core, lower.translate(_LEET), core.translate(_LEET)}:
        if text in common:
            return True
        half, odd = divmod(len(text), 2)
        if not odd and half >= 3 and text[:half] == text[half:] and text[:half] in common:
            return True
    return False


def _is_run(text: str) -> bool:
    """Whether nearly every character follows its neighbour, as in abcdefghijkl or 987654321098."""
    steps = [
        (ord(b) - ord(a)) % 10 if a.isdigit() and b.isdigit() else ord(b) - ord(a) for a, b in itertools.pairwise(text)
    ]
    return bool(steps) and max(steps.count(1), steps.count(-1), steps.count(9), steps.count(0)) >= 0.8 * len(steps)


def deliverable_address(text: str) -> str | None:
    """The address as every mail server takes it: a dot-atom (RFC 5322 3.4.1), @, a domain in A-labels; or None.

    Only plain addresses are taken, so that none can carry anything but itself into a header or a command.
    """
    typed = text.strip()
    local, _, domain = typed.rpartition("@")
    plain = 0 < len(local) <= 64 and len(typed) <= 254 and all(a and set(a) <= _ATEXT for a in local.split("."))
    if not plain or domain != domain.strip() or domain.endswith("."):
        return None
    try:
        name = parse_dns_name(domain)
    except Invalid:
        return None
    address = f"{local}@{name.ascii}"
    return address if "." in name.ascii and not name.is_wildcard and len(address) <= 254 else None


def normal_email(text: str, *, field: str = "email") -> str:
    """A deliverable address in lower case. Raises Invalid `email_invalid`; what only delivering can tell isn't judged.

    Users are written to, so what can't stand in a message is refused here and not at every attempt to send one.
    """
    address = deliverable_address(text)
    if address is None:
        raise Invalid(
            "email_invalid", "That is not an e-mail address that messages can be sent to.", field=field,
            fix="Write it like ann@example.com.",
        )  # fmt: skip
    return address.lower()


def sought_email(text: str) -> str:
    """What somebody typed to sign in, spelled as `normal_email` keeps it; something that is nobody's stays as it is."""
    return (deliverable_address(text) or text.strip()).lower()[:254]


def normal_name(text: str, *, field: str = "name") -> str:
    """A display name: 1 to 100 printable characters. Raises Invalid `name_invalid`."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise Invalid(
            "name_invalid", f"The name must have 1 to {MAX_NAME} printable characters.", field=field,
            fix="Choose another name.",
        )  # fmt: skip
    return name


def normal_description(text: str, *, field: str = "description") -> str:
    description = text.strip()
    if len(description) > MAX_DESCRIPTION or "\x00" in description:
        raise Invalid(
            "description_invalid", f"The description may have up to {MAX_DESCRIPTION} characters.", field=field,
            fix="Shorten it.",
        )  # fmt: skip
    return description


def session_over(created_at: datetime, last_seen_at: datetime, expires_at: datetime, now: datetime) -> bool:
    """Whether a session has ended: at its fixed end, by idleness, or as the clock was set back before its start."""
    return now >= expires_at or now - last_seen_at >= SESSION_IDLE or now < created_at - timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Limit:
    """After `free` failures within `window`, each further one blocks for `first`, doubling up to `longest`."""

    free: int
    window: timedelta
    first: timedelta
    longest: timedelta

    def block(self, failures: int) -> timedelta | None:
        if failures < self.free:
            return None
        return min(self.first * (1 << min(failures - self.free, 16)), self.longest)


PAIR_LIMIT = Limit(5, timedelta(minutes=15), timedelta(seconds=30), timedelta(minutes=15))
ADDRESS_LIMIT = Limit(50, timedelta(minutes=15), timedelta(seconds=30), timedelta(minutes=15))
# Anybody may fail in another's name; this limit stays short, so that it slows guessing without locking the person out.
EMAIL_LIMIT = Limit(50, timedelta(minutes=15), timedelta(seconds=10), timedelta(minutes=1))


def throttle_address(address: str) -> str:
    """The unit one guesser holds: an IPv4 address, or an IPv6 /64."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip.packed[:8] + bytes(8), 64)))
    return str(ip)
