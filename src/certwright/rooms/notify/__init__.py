"""Telling people: recipients, the outbox, reminders before expiry and messages about alarms."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.services import Services
from certwright.rooms.notify import jobs, tables
from certwright.rooms.notify.actions import (
    SEND_STEP,
    audience,
    create_recipient,
    delete_recipient,
    get_recipient,
    list_messages,
    list_recipients,
    resend_code,
    state_of,
    tell_everybody,
    update_recipient,
    verify_recipient,
)
from certwright.rooms.notify.applicants import ApplicantMail
from certwright.rooms.notify.mailboxes import MailboxMail
from certwright.rooms.notify.ports import Channel
from certwright.rooms.notify.revocations import KIND as REVOCATION_LETTER
from certwright.rooms.notify.revocations import RevocationMail
from certwright.rooms.notify.words import Addressee, Letter, MessageState, NotSentError, Receipt, Text

__all__ = [
    "REVOCATION_LETTER",
    "SEND_STEP",
    "Addressee",
    "ApplicantMail",
    "Channel",
    "Letter",
    "MailboxMail",
    "MessageState",
    "NotSentError",
    "Receipt",
    "RevocationMail",
    "Text",
    "audience",
    "create_recipient",
    "delete_recipient",
    "get_recipient",
    "list_messages",
    "list_recipients",
    "register",
    "resend_code",
    "state_of",
    "tables",
    "tell_everybody",
    "update_recipient",
    "verify_recipient",
]


def register(services: Services) -> None:
    services.jobs.register(SEND_STEP, tables.messages, jobs.send_step)
    services.jobs.register(jobs.EXPIRY_STEP, tables.expiring_versions, jobs.expiry_step)
    services.jobs.every("notify.forget", timedelta(hours=1), jobs.forget)
    for kind, listener in (
        ("alarm.raised", jobs.alarm_raised),
        ("alarm.changed", jobs.alarm_changed),
        ("alarm.cleared", jobs.alarm_cleared),
        ("certificate.revoked", jobs.reminding_over),
        ("certificate.deleted", jobs.reminding_over),
        ("certificate.moved", jobs.certificate_moved),
    ):
        services.events.subscribe(kind, "notify", listener)
    services.events.subscribe_batch("certificate.version_issued", "notify", jobs.version_issued)
