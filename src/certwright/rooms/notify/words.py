"""The words of telling people: letters, who gets them, and how handing one over may end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from certwright.kernel.problems import Problem


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who a message goes to. `recipient_id` is None for an administrator who gets it by default."""

    address: str
    name: str
    locale: str = "en"
    recipient_id: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as a channel sends it. `id` is the same at every attempt, so that a doubled one is recognised."""

    id: str
    to_address: str
    to_name: str
    subject: str
    text: str
    html: str
    locale: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the channel said when it took the letter."""

    reply: str


class NotSentError(Exception):
    """The letter was not taken. `permanent`: it never will be; else trying later may help."""

    def __init__(self, problem: Problem, *, permanent: bool) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Text:
    """What a message says, in one language, before it is laid out as text and HTML."""

    subject: str
    severity: str
    """`critical`, `major`, `minor`, `warning`, `cleared` or `info`; decides the colour of the heading."""
    heading: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    link: tuple[str, str] | None = None
    """Label and address."""


@dataclass(frozen=True, slots=True)
class NoticeStep:
    """One reminder in a version's life. `name` is kept with the row that says it was sent: never rename one."""

    name: str
    at: datetime
    first_of_short_life: bool = False


@dataclass(frozen=True, slots=True)
class NoticePlan:
    """`send` is the reminder to send now; `skip` those it stands for; `wait` until the next, None if none is left."""

    send: NoticeStep | None
    skip: tuple[NoticeStep, ...]
    wait: timedelta | None


@dataclass(frozen=True, slots=True)
class MessageState:
    """Computed from stored facts: `queued`, `sent` or `failed`, with the reason it isn't sent yet."""

    name: str
    problem: Mapping[str, Any] | None = field(default=None)
