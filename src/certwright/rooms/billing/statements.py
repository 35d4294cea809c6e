"""The service statement buyers agree to. Whoever runs this installation may replace the shipped text by a file of their
own.

The version of a replaced text is made of the text itself, so that no two texts share one; every text somebody agreed to
is kept, and can be read by the version that is stored with the order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from certwright.kernel.problems import Unavailable, not_found
from certwright.platform.services import Services
from certwright.rooms.billing import store

SHIPPED_VERSION = "2026-11"
LONGEST = 100_000

SHIPPED = """\
# What is bought
A certificate of the product that was chosen, for the years of coverage and the number of names that were chosen.
Coverage begins with the first issue. It is served by as many certificates as the limits of public trust require, at
no further price. The number of names can't be raised afterwards.

# Who decides
The CA decides on issuing by its own rules, and may revoke what breaks them. What it asks for (proof of the domain
names, of the organization, of the applicant) the buyer provides.

# What it costs
The price shown with its breakdown before the order is placed. An order that is not paid in time lapses and costs
nothing.

# Giving it back
Within seven times 24 hours of paying, an order can be unsubscribed from, as long as each of its certificates was
never applied for, had its application withdrawn, or was revoked with the revocation completed in that time. Its
certificates are then deleted and can't be restored. What was actually paid goes back to where it came from; what
vouchers and coupons covered does not.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """`text`: paragraphs parted by empty lines; a line that begins with "# " is a heading."""

    version: str
    text: str


def current(services: Services) -> Statement:
    """What buyers agree to today. Raises Unavailable `service_statement_unreadable`."""
    path = services.settings.service_statement_file
    return Statement(SHIPPED_VERSION, SHIPPED) if path is None else _of_file(path)


@lru_cache(maxsize=4)
def _of_file(path: Path) -> Statement:
    # Read once a process: what is agreed to does not change between the page and the button.
    try:
        octets = path.read_bytes()[: LONGEST + 1]
        text = octets.decode().replace("\r\n", "\n").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path) from error
    if not text or len(octets) > LONGEST or "\x00" in text:
        raise _unreadable(path)
    return Statement(hashlib.sha256(text.encode()).hexdigest()[:12], text + "\n")


def _unreadable(path: Path) -> Unavailable:
    return Unavailable(
        "service_statement_unreadable", f"The service statement {path.name} can't be read.",
        fix="Have the operator name a UTF-8 text of at most 100,000 bytes in CERTWRIGHT_SERVICE_STATEMENT_FILE.",
    )  # fmt: skip


async def service_statement(services: Services, version: str | None = None) -> Statement:
    """Today's text, or the one of a version somebody agreed to. Raises NotFound, Unavailable."""
    if version == SHIPPED_VERSION:
        return Statement(SHIPPED_VERSION, SHIPPED)
    now = current(services)
    if version is None or version == now.version:
        return now
    async with services.db.read() as tx:
        text = await store.statement_text(tx, version)
    if text is None:
        raise not_found("service statement", version[:40])
    return Statement(version, text)
