"""The two response headers ACME speaks through: Link (RFC 8288) and Retry-After (RFC 9110 section 10.2.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

LONGEST_WAIT = timedelta(days=30)
_MAX_LINKS = 50
_LINK = re.compile(
    r"\s*,*\s*<([^<>]{0,2048})>((?:\s*;\s*[^\s=;,\"<>]{1,100}(?:\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s;,\"<>]*))?)*)"
)
_PARAMETER = re.compile(r";\s*([^\s=;,\"<>]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"<>]*))")


@dataclass(frozen=True, slots=True)
class Link:
    """`url` is absolute; `relations` are lower case."""

    url: str
    relations: tuple[str, ...]


def parse_links(header: str | None, base: str) -> tuple[Link, ...]:
    """The links of a Link header (several header lines joined by commas); what isn't a link ends the reading."""
    found: list[Link] = []
    text, at = (header or "")[:16_384], 0
    while len(found) < _MAX_LINKS and (match := _LINK.match(text, at)):
        at = match.end()
        relations: tuple[str, ...] = ()
        for name, quoted, plain in _PARAMETER.findall(match[2]):
            if name.lower() == "rel" and not relations:
                relations = tuple((quoted or plain).lower().split())
        try:
            found.append(Link(urljoin(base, match[1]), relations))
        except ValueError:
            continue
    return tuple(found)


def alternates(header: str | None, base: str) -> tuple[str, ...]:
    """URLs of the other chains of a certificate (RFC 8555 section 7.4.2), each once, in the CA's order."""
    return tuple(dict.fromkeys(link.url for link in parse_links(header, base) if "alternate" in link.relations))


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """How long the server asks us to wait: seconds or an HTTP date, never negative, at most 30 days. None when it says
    nothing that can be read."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,12}", text):
        return min(timedelta(seconds=int(text)), LONGEST_WAIT)
    if not text or len(text) > 100:
        return None
    try:
        moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return min(max(moment - now, timedelta(0)), LONGEST_WAIT)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
