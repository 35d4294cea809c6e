"""A letter as an Internet message (RFC 5322): headers that can't be injected into, a text and an HTML body. Pure."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from certwright.rooms.notify import Letter


def as_email(letter: Letter, *, sender: str, sender_name: str = "Certwright") -> bytes:
    """The message as sent in DATA, lines ended by CRLF and in ASCII, so that no server needs 8BITMIME or SMTPUTF8.

    Message-ID and Date come from the letter and are the same at every attempt. Raises ValueError for an address or
    header that holds more than itself; both were checked when they were entered.
    """
    for value in (letter.id, letter.to_address, sender):
        if not value.isascii() or not value.isprintable() or any(c in value for c in ' <>,;:"()[]\\'):
            raise ValueError("an address or id holds a character it must not have")
    message = EmailMessage(policy=SMTP)
    message["Message-ID"] = f"<{letter.id}@{sender.rpartition('@')[2]}>"
    message["Date"] = format_datetime(letter.written_at)
    message["From"] = _address(sender_name, sender)
    message["To"] = _address(letter.to_name, letter.to_address)
    message["Subject"] = letter.subject
    # RFC 3834: no vacation notes in answer, please.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text, cte="quoted-printable")
    message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    # After the content, which takes the headers that begin with Content- along into its parts.
    message["Content-Language"] = letter.locale.replace("_", "-")
    return message.as_bytes()


def _address(name: str, address: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)
