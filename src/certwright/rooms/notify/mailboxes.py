"""Letters to the mailboxes of a domain whose control is to be shown: the validation room's port `Mail`."""

from __future__ import annotations

from certwright.platform.db import Tx
from certwright.platform.i18n import _
from certwright.platform.services import Services
from certwright.rooms.notify import actions, letters
from certwright.rooms.notify.words import Addressee, Text
from certwright.rooms.validation import Letter

KIND = "validation.confirm"
"""Its link holds a token, which isn't kept once it was sent."""
_NAMES_SHOWN = 20


class MailboxMail:
    """Implements `validation.Mail` on the outbox. Nobody knows who reads these mailboxes: they are written to in
    English."""

    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        await actions.write(
            tx, services, letter.account_id, Addressee(letter.to_address, ""), dedupe_key=letter.key, kind=KIND,
            object_id=letter.subject_id, make=lambda: letter_text(letter),
        )  # fmt: skip


def letter_text(letter: Letter) -> Text:
    """What the mailbox gets, in the current locale."""
    names = ", ".join(letter.names[:_NAMES_SHOWN]) + (" …" if len(letter.names) > _NAMES_SHOWN else "")
    return Text(
        subject=_("Confirm a certificate for {domain}").format(domain=letter.domain),
        severity="info",
        heading=_("Do you agree to a certificate for {domain}?").format(domain=letter.domain),
        lead=_(
            "{account} applied for a TLS certificate for names of your domain. Follow the link and confirm only if you "
            "know of this and may speak for the domain. If not, do nothing: without a confirmation no certificate is "
            "issued."
        ).format(account=letter.account_name),
        facts=(
            (_("Asked by"), letter.account_name),
            (_("Domain"), letter.domain),
            (_("Names"), names),
            (_("Good until"), letters.minute(letter.until.isoformat())),
        ),
        link=(_("Look at it and confirm"), letter.link),
    )
