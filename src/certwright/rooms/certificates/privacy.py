"""The statement applicants agree to. Whoever runs this installation may replace the shipped text by one of their own.

The version of a replaced text is made of the text itself, so that no two texts share one; every text somebody agreed to
is kept, and can be read by the version that is stored with the consent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.kernel.problems import Unavailable, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms.certificates.tables import privacy_statements

SHIPPED_VERSION = "2026-11"
LONGEST = 100_000

SHIPPED = """\
# What is kept
With an application for a certificate: the applicant's name, e-mail address and phone number, the same of a technical
contact if one is named, and when and to which version of this statement the applicant agreed. With applications for OV
and EV certificates: what the organization told about itself for its verification.

# What for
To ask back about the application, to mail the links by which the applicant confirms something, and to show the CA whom
to ask. None of it becomes part of a DV certificate. OV and EV certificates show the registered name and seat of the
organization, never the name of a person.

# Who sees it
Those of this account whose permissions let them see the certificate, and those who run this installation. A CA that
verifies organizations itself is told the contact it has to ask. Nobody else is told; nothing is used for advertising.

# How long
Until the certificate is deleted, or until somebody withdraws this authorization on the page of the certificate: then
all of it is erased for good. While an application is under way that has to wait until it is decided or withdrawn. The
audit log keeps that the authorization was withdrawn, when and by whom.

# Your rights
You may ask those who run this installation what is kept about you, have it corrected, and have it erased.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """`text`: paragraphs parted by empty lines; a line that begins with "# " is a heading."""

    version: str
    text: str

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """("heading", text) and ("paragraph", text) in order, each on one line."""
        found: list[tuple[str, str]] = []
        lines: list[str] = []
        for line in [*self.text.splitlines(), ""]:
            heading = line.startswith("# ")
            if lines and (heading or not line.strip()):
                found.append(("paragraph", " ".join(lines)))
                lines = []
            if heading:
                found.append(("heading", line[2:].strip()))
            elif line.strip():
                lines.append(line.strip())
        return tuple(found)


def current(services: Services) -> Statement:
    """What applicants agree to today. Raises Unavailable `privacy_statement_unreadable`."""
    path = services.settings.privacy_statement_file
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
        "privacy_statement_unreadable", f"The privacy statement {path.name} can't be read.",
        fix="Have the operator name a UTF-8 text of at most 100,000 bytes in CERTWRIGHT_PRIVACY_STATEMENT_FILE.",
    )  # fmt: skip


async def statement(services: Services, version: str | None = None) -> Statement:
    """Today's text, or the one of a version somebody agreed to. Raises NotFound, Unavailable."""
    now = current(services)
    if version is None or version == now.version:
        return now
    if version == SHIPPED_VERSION:
        return Statement(SHIPPED_VERSION, SHIPPED)
    table = privacy_statements.c
    async with services.db.read() as tx:
        text = await tx.scalar(sa.select(table.text).where(table.version == version))
    if text is None:
        raise not_found("privacy statement", version[:40])
    return Statement(version, text)


async def remember(tx: Tx, agreed: Statement, now: datetime) -> None:
    """Keep the text somebody agrees to, once."""
    await tx.execute(
        insert(privacy_statements)
        .values(version=agreed.version, text=agreed.text, first_agreed_at=now)
        .on_conflict_do_nothing()
    )
