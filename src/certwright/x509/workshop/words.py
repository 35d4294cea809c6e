"""What the workshop says: findings with place and remedy, repairs, and the catalogue of every code of both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from certwright.kernel.problems import Problem


class Severity(StrEnum):
    """An error blocks an upload, a warning doesn't, a note is only good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in what was given: the input's name, its block (or entry of a container) and line, both from 1."""

    input: str
    block: int | None = None
    line: int | None = None

    def __str__(self) -> str:
        parts = [self.input]
        if self.block is not None:
            parts.append(f"block {self.block}")
        if self.line is not None:
            parts.append(f"line {self.line}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: stable code, one sentence for a person, and what to do about it."""

    code: str
    severity: Severity
    message: str
    fix: str
    where: Place

    def as_dict(self) -> dict[str, str]:
        return {
            "code": self.code,
            "severity": self.severity.value,
            "where": str(self.where),
            "message": self.message,
            "fix": self.fix,
        }


def error(code: str, message: str, fix: str, where: Place) -> Finding:
    return Finding(code, Severity.ERROR, message, fix, where)


def warning(code: str, message: str, fix: str, where: Place) -> Finding:
    return Finding(code, Severity.WARNING, message, fix, where)


def note(code: str, message: str, fix: str, where: Place) -> Finding:
    return Finding(code, Severity.NOTE, message, fix, where)


# The readers' own codes that the catalogue doesn't tell apart.
_SAME: Final = {
    "unsupported_key": "unsupported_curve",
    "key_too_large": "unsupported_curve",
    "too_many_blocks": "too_large",
    "eku_not_allowed": "chain_broken",
}


def from_problem(problem: Problem, where: Place, severity: Severity = Severity.ERROR) -> Finding:
    """A refusal of one of the readers as a finding at this place; a line it knows is kept."""
    line = problem.extra.get("line")
    place = Place(where.input, where.block, line) if isinstance(line, int) else where
    return Finding(_SAME.get(problem.code, problem.code), severity, problem.message, problem.fix, place)


@dataclass(frozen=True, slots=True)
class Repair:
    """Something safely put right: its code, and where it was seen first."""

    code: str
    where: Place


REPAIRS: Final = {
    "bom": "a byte order mark at the beginning was dropped",
    "utf16": "UTF-16 (or UTF-32) text became plain text",
    "crlf": "line ends of Windows or of old Macs became plain ones",
    "blank_lines": "blank lines inside a block were dropped",
    "trailing_spaces": "spaces at line ends were dropped",
    "indentation": "spaces or mail quotation marks before lines were dropped",
    "line_width": "lines were brought to 64 characters",
    "one_line": "a block on a single line was put on lines of 64 characters",
    "literal_newlines": r"the two characters \n became line ends",
    "invisible_characters": "characters nobody sees (zero-width and no-break spaces) were dropped",
    "dashes": "the dashes of BEGIN and END lines, changed by an editor, became five plain ones again",
    "glued_blocks": "an END and a BEGIN on one line were separated",
    "text_around": "text before, between or after the blocks was dropped",
    "trusted_certificate": "trust settings of a TRUSTED CERTIFICATE block were dropped",
    "label": "the word on the BEGIN line was corrected to what the block holds",
    "base64_wrapped": "base64 around the file, or base64 without BEGIN and END lines, was unwrapped",
    "trailing_bytes": "line ends or zero bytes after a binary file were dropped",
    "container": "the contents of a binary file (DER, P7B, PFX or JKS) became PEM",
    "chain_order": "the certificates were put in order: the server's first, each signed by the next",
    "chain_missing": "missing intermediate certificates were added",
    "duplicate_block": "a certificate that was there twice is there once",
    "root_included": "the root was left out; clients have their own copy",
}
"""Every code of a report's `repaired`, with what it means."""


_E, _W, _N, _EW = (
    (Severity.ERROR,),
    (Severity.WARNING,),
    (Severity.NOTE,),
    (Severity.ERROR, Severity.WARNING),
)

CODES: Final[dict[str, tuple[Severity, ...]]] = {
    # reading
    "empty": _E,
    "too_large": _E,
    "not_pem": _E,
    "bad_base64": _E,
    "bad_der": _E,
    "wrong_block": _E,
    # the key
    "key_missing": _E,
    "key_format": _E,
    "key_encrypted": _E,
    "wrong_passphrase": _E,
    "ec_parameters_only": _E,
    "key_mismatch": _E,
    # the chain
    "chain_missing": _EW,
    "chain_broken": _E,
    "chain_stranger": _W,
    "chain_too_complex": _E,
    "not_a_ca": _E,
    "path_too_long": _E,
    "name_constraint": _E,
    # time and strength
    "expired": _E,
    "not_yet_valid": _W,
    "weak_key": _EW,
    "weak_signature": _E,
    "unsupported_curve": _E,
    "unknown_critical_extension": _E,
    # names and purpose
    "no_san": _E,
    "cn_not_in_san": _W,
    "bad_wildcard": _E,
    "bad_name": _W,
    "internal_name": _W,
    "no_server_auth": _EW,
    "client_auth_public": _W,
    "too_long_lived": _W,
    "self_signed": _N,
    # this account
    "duplicate": _EW,
    "key_reused": _W,
    "revoked": _E,
    "revocation_unknown": _N,
    "issuer_not_fetched": _N,
    "names_missing": _EW,
    "expires_earlier": _W,
    # pkilint
    "lint": _N,
}
"""Every code a report's findings can hold, with the severities it comes in. Cause and fix of each: the guide."""
