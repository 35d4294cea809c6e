"""What this room needs from others: mail written to applicants, and how old a verification may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from certwright.platform.db import Tx
from certwright.platform.services import Services


class Occasion(StrEnum):
    """Why an applicant is written to."""

    CHOOSE = "choose"
    REMINDER = "reminder"
    DOCUMENTS = "documents"
    VERIFIED = "verified"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to an applicant. `key` names the occasion: the same key is written once.

    `link` leads to the page where they choose; it holds a secret, so whoever keeps the text wipes it once it was sent.
    `words` are what is asked for, or the reasons of a refusal.
    """

    account_id: str
    case_id: str
    key: str
    occasion: Occasion
    to_address: str
    to_name: str
    locale: str
    organisation: str
    type: str
    words: tuple[str, ...] = ()
    link: str | None = None
    until: datetime | None = None


class Mail(Protocol):
    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        """Put the letter into the outbox, in the caller's transaction."""
        ...

    async def forget(self, tx: Tx, account_id: str, case_id: str) -> None:
        """Erase every letter about the case with the address it went to; one not sent yet is never sent."""
        ...


class ReuseRules(Protocol):
    def organization_reuse(self, at: datetime) -> timedelta:
        """How old an organisation's verification may be when a certificate is issued at `at` (BR 4.2.1)."""
        ...
