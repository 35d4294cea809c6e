"""Letters to applicants whose organisation is verified: the organisations room's port `Mail`."""

from __future__ import annotations

from certwright.platform.db import Tx
from certwright.platform.i18n import _
from certwright.platform.services import Services
from certwright.rooms.notify import actions, letters, store
from certwright.rooms.notify.words import Addressee, Text
from certwright.rooms.organisations import Letter, Occasion

SECRET_KINDS = frozenset(("organisation.choose", "organisation.reminder"))
"""Their links hold a token, which isn't kept once they were sent."""


class ApplicantMail:
    """Implements `organisations.Mail` on the outbox."""

    async def write(self, tx: Tx, services: Services, letter: Letter) -> None:
        await actions.write(
            tx, services, letter.account_id, Addressee(letter.to_address, letter.to_name, letter.locale),
            dedupe_key=letter.key, kind=f"organisation.{letter.occasion.value}", object_id=letter.case_id,
            make=lambda: letter_text(letter),
        )  # fmt: skip

    async def forget(self, tx: Tx, account_id: str, case_id: str) -> None:
        await store.delete_messages(tx, account_id, case_id)


def letter_text(letter: Letter) -> Text:
    """What the applicant reads, in the current locale."""
    name = letter.organisation
    facts = [(_("Organisation"), name), (_("Certificate type"), letter.type.replace("_", " ").upper())]
    if letter.until is not None and letter.occasion not in (Occasion.VERIFIED, Occasion.REFUSED):
        facts.append((_("Answer by"), letters.minute(letter.until.isoformat())))
    match letter.occasion:
        case Occasion.CHOOSE:
            heading = _("Choose how {name} is verified").format(name=name)
            lead = _(
                "{person}, a certificate was applied for in the name of {name}, and you were named as the applicant. "
                "Choose whether a specialist calls the organization, reads documents you send, or writes a letter to "
                "its registered address. If you know nothing of this, do nothing."
            ).format(person=letter.to_name, name=name)
        case Occasion.REMINDER:
            heading = _("The verification of {name} waits for you").format(name=name)
            lead = _("{person}, we have not heard from you yet.").format(person=letter.to_name)
        case Occasion.DOCUMENTS:
            heading = _("Documents are needed to verify {name}").format(name=name)
            lead = _("{person}, sign in and send them as PDF, PNG or JPEG with the application.").format(
                person=letter.to_name
            )
        case Occasion.VERIFIED:
            heading = _("{name} is verified").format(name=name)
            lead = _("{person}, the certificate is issued next. Nothing is left for you to do.").format(
                person=letter.to_name
            )
        case Occasion.REFUSED:
            heading = _("{name} was not verified").format(name=name)
            lead = _("{person}, the certificate can't be issued. Mend what is named below and apply again.").format(
                person=letter.to_name
            )
    title = _("Why") if letter.occasion is Occasion.REFUSED else _("What is asked for")
    return Text(
        subject=heading,
        severity="info",
        heading=heading,
        lead=lead,
        facts=tuple(facts),
        lists=((title, letter.words),) if letter.words else (),
        link=(_("Choose"), letter.link) if letter.link else None,
    )
