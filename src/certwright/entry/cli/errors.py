"""How a command ends when it doesn't succeed: an exit code, and a sentence with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK, FAILED, USAGE, NOT_SIGNED_IN, NOT_REACHABLE = range(5)


class CliError(Exception):
    """Printed as sentence, what to do, and code; `field` is the input it is about. Ends with `exit_code`."""

    def __init__(
        self,
        code: str,
        message: str,
        fix: str = "",
        *,
        exit_code: int = FAILED,
        field: str | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix
        self.field = field
        self.exit_code = exit_code
        self.document: dict[str, Any] = dict(document or {"code": code, "message": message, "fix": fix})


def from_answer(status: int, document: Any) -> CliError:
    """The error of an RFC 9457 answer; whatever else a server or a proxy said is shown by its status alone."""
    known = document if isinstance(document, Mapping) else {}
    message = known.get("message") or known.get("detail") or known.get("title") or f"The server answered {status}."
    return CliError(
        str(known.get("code") or f"http_{status}"),
        str(message),
        str(known.get("fix") or ""),
        exit_code=NOT_SIGNED_IN if status == 401 else NOT_REACHABLE if status in (502, 503, 504) else FAILED,
        field=known.get("field"),
        document=known or {"code": f"http_{status}", "message": str(message), "status": status},
    )
