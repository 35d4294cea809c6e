"""May they? Policies, decisions, the tenant filter, and who is asking."""

from __future__ import annotations

from certwright.platform.services import Services
from certwright.rooms.access import people
from certwright.rooms.access.actions import (
    AuthCache,
    authenticate_session,
    authenticate_token,
    project_for,
    require,
    require_somewhere,
    visible,
    visible_to_operator,
)
from certwright.rooms.access.rules import allowed_somewhere, covers, decide
from certwright.rooms.access.store import administrators
from certwright.rooms.access.system import SYSTEM_POLICIES
from certwright.rooms.access.words import ACTIONS, Attachment, Decision, Policy

__all__ = [
    "ACTIONS",
    "SYSTEM_POLICIES",
    "Attachment",
    "AuthCache",
    "Decision",
    "Policy",
    "administrators",
    "allowed_somewhere",
    "authenticate_session",
    "authenticate_token",
    "covers",
    "decide",
    "people",
    "project_for",
    "register",
    "require",
    "require_somewhere",
    "visible",
    "visible_to_operator",
]


def register(services: Services) -> None:
    """Nothing of this room runs by itself; its cache is a port."""
