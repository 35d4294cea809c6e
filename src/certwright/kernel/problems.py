"""Refusals as values: stable code, the field, one sentence a person can act on, and how to fix it.

Every door translates the same objects: the API to RFC 9457 documents, the console to messages beside the field, the
CLI to a line and an exit code. A problem never carries key material, passwords or tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Problem(Exception):
    """A refusal somebody can act on.

    `code` never changes once released; `field` is the input's name as the API spells it; `extra` holds machine-readable
    facts (state, allowed operations, findings).
    """

    status = 400
    title = "Request refused"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fix: str = "",
        field: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix
        self.field = field
        self.extra: dict[str, Any] = dict(extra or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Problems come back from processes of our own (pickle would call the constructor with the message alone)."""
        return _rebuilt, (type(self), self.message, dict(vars(self)))

    def at(self, field: str) -> Problem:
        """The same problem, said of another field (used when a value sits inside a list)."""
        self.field = field
        return self

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.field is not None:
            out["field"] = self.field
        if self.fix:
            out["fix"] = self.fix
        return out | self.extra


def _rebuilt(kind: type[Problem], message: str, facts: dict[str, Any]) -> Problem:
    problem = kind.__new__(kind, message)
    vars(problem).update(facts)
    return problem


class Invalid(Problem):
    """The input breaks a rule; the same input will always be refused."""

    status = 422
    title = "Invalid input"


class InvalidFields(Invalid):
    """Several fields at once, so that a person corrects a form in one go."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(
            first.code if len(self.problems) == 1 else "invalid_fields",
            first.message if len(self.problems) == 1 else f"{len(self.problems)} fields need correcting.",
            fix=first.fix if len(self.problems) == 1 else "Correct each field listed under errors.",
            field=first.field if len(self.problems) == 1 else None,
            extra={"errors": [p.as_dict() for p in self.problems]},
        )


class Refused(Problem):
    """The input is well-formed but the object's state doesn't allow it now."""

    status = 409
    title = "Not possible in the present state"


class Stale(Problem):
    """The object changed since the caller read it (If-Match)."""

    status = 412
    title = "Changed meanwhile"


class Unauthenticated(Problem):
    status = 401
    title = "Sign in first"


class Forbidden(Problem):
    status = 403
    title = "Not permitted"


class NotFound(Problem):
    """Also the answer for objects of other tenants, so that ids can't be probed."""

    status = 404
    title = "Not found"


class TooLarge(Problem):
    status = 413
    title = "Too large"


class TooMany(Problem):
    status = 429
    title = "Too many attempts"


class Unavailable(Problem):
    """Something outside (database, DNS server, CA, target) doesn't answer; trying later may work."""

    status = 503
    title = "Not available now"


def not_found(what: str, object_id: str) -> NotFound:
    return NotFound(
        "not_found",
        f"There is no {what} {object_id!r} that you may see.",
        fix=f"List the {what}s to find its id, or ask for access to its project.",
    )
