"""Who is doing it: a person, a token acting for one, or the product itself on an account's behalf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy document (spec: identity and access). Patterns use `*` as wildcard."""

    effect: Literal["Allow", "Deny"]
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Grant:
    """A policy as attached to someone; `project_id` narrows it to one project's objects."""

    policy: str
    statements: tuple[Statement, ...]
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """The authenticated caller. `grants` were read together with the session or token, in one query."""

    kind: Literal["user", "token", "system"]
    id: str
    name: str
    account_id: str
    grants: tuple[Grant, ...] = ()
    user_id: str | None = None
    request_id: str | None = None


def system_actor(account_id: str, what: str) -> Actor:
    """The product acting by itself (`what` names the part: "renewal", "watch"); allowed everything in its account."""
    everything = Grant("system", (Statement("Allow", ("*",)),))
    return Actor("system", what, what, account_id, (everything,))
