"""What somebody pasted, with its line numbers and what was found on each line; private keys are never shown again."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MOST_ROWS: Final = 400
_NEAR: Final = 2
_WIDEST: Final = 120
_PUBLIC: Final = frozenset(
    {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST",
     "PKCS7", "CMS", "PUBLIC KEY", "X509 CRL", "OCSP RESPONSE"}
)  # fmt: skip
# Dashes of every kind: editors change them, and the label is what counts here.
_EDGE: Final = re.compile(
    r"(BEGIN|END)[ \t]+([A-Z0-9][A-Z0-9 ]{0,60}?)[ \t]?[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]{2,}"
)
_WHOLE_EDGE: Final = re.compile(r"[>\s]*-{5}(BEGIN|END) [A-Z0-9 ]{1,61}-{5}\s*")
_DENSE: Final = re.compile(r"[A-Za-z0-9+/=_-]{40,}")


@dataclass(frozen=True, slots=True)
class Mark:
    """A finding on a line: its code and severity."""

    code: str
    severity: str


@dataclass(slots=True)
class Row:
    """One line, or with `skipped` above 0 so many that are left out. `hidden`: part of a secret."""

    number: int
    text: str
    hidden: bool = False
    skipped: int = 0
    marks: list[Mark] = field(default_factory=list)

    @property
    def tone(self) -> str:
        found = {mark.severity for mark in self.marks}
        return "bad" if "error" in found else "warn" if "warning" in found else "info" if found else ""


def decoded(octets: bytes) -> str | None:
    """The octets as text, None where they are none; the way the workshop reads them."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if octets.startswith(mark):
            return octets.decode(encoding, errors="replace").removeprefix("\ufeff")
    for encoding, zeros in (("utf-16-le", octets[1:64:2]), ("utf-16-be", octets[0:64:2])):
        if len(zeros) > 3 and not zeros.strip(b"\x00"):
            return octets.decode(encoding, errors="replace")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        text = octets.decode("cp1252", errors="replace")
    odd = sum(not (c.isprintable() or c in "\r\n\t\f") for c in text[:4096])
    return text if odd * 50 <= len(text[:4096]) else None


def rows(octets: bytes | None, found: Iterable[tuple[int, Mark]]) -> list[Row]:
    """The lines worth seeing: those with something on them, the edges of blocks, and what is around. Empty for binary.

    `found`: line (from 1) and what is there. Of what may be a secret only the edges of its block are shown.
    """
    text = decoded(octets) if octets else None
    if text is None:
        return []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines and not lines[-1].strip():
        lines.pop()
    marks: dict[int, list[Mark]] = {}
    for number, mark in found:
        if mark not in marks.setdefault(number, []):
            marks[number].append(mark)
    all_rows = [
        Row(number, line[:_WIDEST] + ("…" if len(line) > _WIDEST else ""), hidden, marks=marks.get(number, []))
        for number, (line, hidden) in enumerate(zip(lines, _hidden(lines), strict=True), 1)
    ]
    for row in all_rows:
        if row.hidden:
            row.text = ""
    return _worth_seeing(all_rows)


def _hidden(lines: list[str]) -> list[bool]:
    """Whether each line may be of a secret: whatever is in no block that is public by its label."""
    found, inside = [], ""
    for line in lines:
        edges = _EDGE.findall(line)
        if _WHOLE_EDGE.fullmatch(line):
            found.append(False)
        elif inside == "secret" or "PRIVATE" in line.upper():
            found.append(True)
        else:
            one_liner = any(edge == "BEGIN" and label in _PUBLIC for edge, label in edges)
            found.append(inside != "public" and not one_liner and _DENSE.search(line) is not None)
        for edge, label in edges:
            inside = ("public" if label.strip() in _PUBLIC else "secret") if edge == "BEGIN" else ""
    return found


def is_public(text: str) -> bool:
    """Whether nothing in it may be a secret, so that it may stand in its field again."""
    return not any(_hidden(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))) and not _holds_secret(text)


def _holds_secret(text: str) -> bool:
    return any(edge == "BEGIN" and label.strip() not in _PUBLIC for edge, label in _EDGE.findall(text))


def _worth_seeing(all_rows: list[Row]) -> list[Row]:
    wanted: set[int] = set()
    for at, row in enumerate(all_rows):
        if row.marks:
            wanted |= set(range(at - _NEAR, at + _NEAR + 1))
        elif _EDGE.search(row.text) or at in (0, len(all_rows) - 1):
            wanted |= {at}
    shown: list[Row] = []
    for at, row in enumerate(all_rows):
        if at in wanted and len(shown) < MOST_ROWS:
            shown.append(row)
        elif shown and shown[-1].skipped:
            shown[-1].skipped += 1
        else:
            shown.append(Row(row.number, "", skipped=1))
    return shown
