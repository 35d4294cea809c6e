"""Letters to applicants whose OV or EV certificate is to be revoked: the certificates room's port `Mail`."""

from __future__ import annotations

from certwright.platform.db import Tx
from certwright.platform.i18n import _
from certwright.platform.services import Services
from certwright.rooms.certificates import Letter
from certwright.rooms.notify import actions, letters
from certwright.rooms.notify.words import Addressee, Text

KIND = "certificate.confirm_revocation"
"""Its link holds a token, which isn't kept once it was sent."""
_NAMES_SHOWN = 20


class RevocationMail:
    """Implements `certificates.Mail` on the outbox."""

    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        await actions.write(
            tx, services, letter.account_id, Addressee(letter.to_address, letter.to_name), dedupe_key=letter.key,
            kind=KIND, object_id=letter.certificate_id, make=lambda: letter_text(letter),
        )  # fmt: skip


def letter_text(letter: Letter) -> Text:
    """What the applicant reads, in the current locale."""
    names = ", ".join(letter.names[:_NAMES_SHOWN]) + (" …" if len(letter.names) > _NAMES_SHOWN else "")
    return Text(
        subject=_("Confirm that the certificate {name} is revoked").format(name=letter.certificate),
        severity="warning",
        heading=_("Do you agree that the certificate {name} is revoked?").format(name=letter.certificate),
        lead=_(
            "{person}, you applied for this certificate. It was asked for that the CA revokes the version below. Once "
            "it is revoked, browsers refuse it wherever it is still served. Without your confirmation nothing happens."
        ).format(person=letter.to_name),
        facts=(
            (_("Names"), names),
            (_("Serial number"), letter.serial),
            (_("Reason"), letter.reason.replace("_", " ")),
            (_("Good until"), letters.minute(letter.until.isoformat())),
        ),
        link=(_("Look at it and confirm"), letter.link),
    )
