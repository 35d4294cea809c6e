"""DNS names, wildcards, internationalised names and IP addresses, judged once for every room.

Names are held as A-labels in lower case (RFC 5890); what the person typed is kept only for display.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna
from publicsuffixlist import PublicSuffixList

from certwright.kernel.problems import Invalid

MAX_NAME_OCTETS = 253
MAX_LABEL_OCTETS = 63

# RFC 6761, 6762, 7686, 8375, 9476 and ICANN's .internal: names no public CA may certify (BR 4.2.2).
_SPECIAL_USE_SUFFIXES = (
    "local", "localhost", "internal", "intranet", "lan", "home", "corp", "private", "test", "example", "invalid",
    "onion", "alt", "home.arpa", "in-addr.arpa", "ip6.arpa",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DnsName:
    """`ascii` is the A-label form with a leading `*.` for wildcards; `unicode` the U-label form for people."""

    ascii: str
    unicode: str

    @property
    def is_wildcard(self) -> bool:
        return self.ascii.startswith("*.")

    @property
    def base(self) -> str:
        """The name without its wildcard label."""
        return self.ascii[2:] if self.is_wildcard else self.ascii

    def __str__(self) -> str:
        return self.ascii


IpName = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    # Only the ICANN section counts for certificates (BR 3.2.2.6); unknown suffixes are not public.
    return PublicSuffixList(accept_unknown=False, only_icann=True)


def parse_dns_name(text: str, *, field: str = "name") -> DnsName:
    """Read one name as a person types it: case, a trailing dot and U-labels are accepted.

    Raises Invalid with a code of its own for every rule broken (RFC 1035 lengths, RFC 5890 labels, RFC 6125 wildcards).
    """
    return _read(text, field)


# Labels as nearly everybody writes them: no capitals, nothing international, no Punycode.
_LABEL = r"(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLAIN = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")


# A name is judged when it comes, when it is drafted and when the draft is read back.
@lru_cache(maxsize=4096)
def _read(text: str, field: str) -> DnsName:
    if len(text) <= MAX_NAME_OCTETS and _PLAIN.fullmatch(text) is not None:
        return DnsName(text, text)
    return _read_whatever(text, field)


def _read_whatever(text: str, field: str) -> DnsName:
    typed = text.strip()
    if not typed:
        raise Invalid("name_empty", "The name is empty.", field=field, fix="Enter a name such as www.example.com.")
    if len(typed) > 4 * MAX_NAME_OCTETS:
        raise Invalid(
            "name_too_long", "The name is longer than 253 characters.", field=field, fix="Use a shorter name."
        )
    if "://" in typed or "/" in typed:
        raise Invalid(
            "name_is_url",
            f"{typed[:80]!r} is a web address, not a host name.",
            field=field,
            fix="Leave out the scheme and the path: www.example.com.",
        )
    if "@" in typed or ":" in typed or any(c.isspace() for c in typed):
        raise Invalid(
            "name_bad_character",
            f"{typed[:80]!r} holds a character that no host name has.",
            field=field,
            fix="Use letters, digits, hyphens and dots only; enter one name per line.",
        )
    dotted = typed.replace("\u3002", ".").removesuffix(".")
    wildcard = dotted.startswith("*.")
    base = dotted[2:] if wildcard else dotted
    if "*" in base:
        raise Invalid(
            "bad_wildcard",
            f"{typed[:80]!r} is not a wildcard a certificate can hold: exactly one '*' and only as the whole leftmost "
            "label.",
            field=field,
            fix="Write *.example.com; it covers a.example.com but not a.b.example.com.",
        )
    labels = []
    for label in base.split("."):
        labels.append(_a_label(label, typed, field))
    ascii_name = ".".join(labels)
    if len(ascii_name) + (2 if wildcard else 0) > MAX_NAME_OCTETS:
        raise Invalid(
            "name_too_long", "The name is longer than 253 characters.", field=field, fix="Use a shorter name."
        )
    if labels[-1].isdigit():
        raise Invalid(
            "name_numeric_tld",
            f"{typed[:80]!r} ends in a number: it is neither a host name nor a whole IP address.",
            field=field,
            fix="Enter the full host name or the full IP address.",
        )
    prefix = "*." if wildcard else ""
    return DnsName(prefix + ascii_name, prefix + ".".join(_u_label(label) for label in labels))


def _a_label(label: str, typed: str, field: str) -> str:
    if not label:
        raise Invalid(
            "name_empty_label", f"{typed[:80]!r} has two dots in a row or begins with a dot.", field=field,
            fix="Remove the extra dot.",
        )  # fmt: skip
    if label.isascii():
        lower = label.lower()
        if len(lower) > MAX_LABEL_OCTETS:
            raise Invalid(
                "label_too_long", f"The label {label[:63]!r}… is longer than 63 characters.", field=field,
                fix="Shorten that part of the name.",
            )  # fmt: skip
        if lower.startswith("-") or lower.endswith("-"):
            raise Invalid(
                "label_hyphen", f"The label {label!r} begins or ends with a hyphen.", field=field,
                fix="Remove the hyphen at that end.",
            )  # fmt: skip
        if not all(c.isalnum() or c == "-" for c in lower):
            raise Invalid(
                "label_bad_character",
                f"The label {label!r} holds a character other than letters, digits and hyphens.",
                field=field,
                fix="Certificates allow letters, digits and hyphens only; an underscore can't be certified.",
            )
        if not lower.startswith("xn--"):
            if lower[2:4] == "--":
                raise Invalid(
                    "idna_invalid", f"The label {label!r} has hyphens in places 3 and 4 but is not Punycode.",
                    field=field, fix="Only labels beginning with xn-- may have hyphens there.",
                )  # fmt: skip
            return lower
        label = lower
    try:
        return idna.encode(label, uts46=not label.startswith("xn--"), std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise Invalid(
            "idna_invalid",
            f"The label {label[:63]!r} is not valid in internationalised names (IDNA 2008): {error}.",
            field=field,
            fix="Check the spelling of that part of the name.",
        ) from error


def _u_label(label: str) -> str:
    return idna.decode(label) if label.startswith("xn--") else label


def parse_ip(text: str, *, field: str = "name") -> IpName:
    """Read an IP address, without a zone (fe80::1%eth0), which means something on one machine only. Raises Invalid
    `ip_invalid`."""
    try:
        if "%" in text:
            raise ValueError("it has a zone")
        return ipaddress.ip_address(text.strip())
    except ValueError as error:
        raise Invalid(
            "ip_invalid",
            f"{text.strip()[:80]!r} is not an IP address.",
            field=field,
            fix="Write 192.0.2.7 or 2001:db8::7.",
        ) from error


def looks_like_ip(text: str) -> bool:
    text = text.strip()
    if ":" not in text and not text[-1:].isdigit():
        return False  # nearly every name, without the price of an exception
    if "%" in text:
        return False  # a zone may be any text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAIL_HOST = re.compile(r"(?!.{254})[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                        r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")  # fmt: skip
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?"
)


def is_mailbox(text: str) -> bool:
    """Whether it is a mailbox as certificates hold it (RFC 5280 section 4.2.1.6): words without quotes, @, a host."""
    box, _, host = text.rpartition("@")
    return len(box) <= 64 and _LOCAL_PART.fullmatch(box) is not None and _MAIL_HOST.fullmatch(host) is not None


def is_host_uri(text: str) -> bool:
    """Whether it is a URI with a host and without a user (RFC 3986), as certificates hold it; at most 2,048
    characters."""
    return len(text) <= 2048 and _URI.fullmatch(text) is not None


def is_internal(name: DnsName) -> bool:
    """Whether no public CA may certify this name: a single label, no public suffix, or a
    special-use suffix (BR 4.2.2, RFC 6761)."""
    base = name.base
    if any(base == s or base.endswith("." + s) for s in _SPECIAL_USE_SUFFIXES):
        return True
    return "." not in base or _suffixes().publicsuffix(base) is None


def is_public_suffix(name: DnsName) -> bool:
    """Whether the name without its wildcard is itself a public suffix, such as `*.co.uk` (BR 3.2.2.6)."""
    return bool(_suffixes().publicsuffix(name.base) == name.base)


def registrable_domain(name: DnsName) -> str | None:
    """`example.co.uk` for `a.b.example.co.uk`; None for internal names."""
    found = _suffixes().privatesuffix(name.base)
    return str(found) if found else None


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's SAN `pattern` is good for `name` (RFC 6125 6.4.3: `*` stands for exactly one label)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern == name:
        return True
    if not pattern.startswith("*.") or name.startswith("*."):
        return False
    head, _, tail = name.partition(".")
    return bool(head) and tail == pattern[2:]
