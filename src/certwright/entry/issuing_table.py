"""Many certificates asked for at once: a table with one a line, or requests (PKCS#10, PEM) one behind the other."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from certwright.kernel.problems import Invalid, Problem

if TYPE_CHECKING:
    from cryptography import x509

COLUMNS: Final = ("names", "common_name", "organization", "country", "profile", "key_algorithm", "days", "csr")

_PARTS: Final = re.compile(r"[\s,;]+")
_REQUEST: Final = re.compile(
    r"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----.*?-----END (?:NEW )?CERTIFICATE REQUEST-----", re.DOTALL
)
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
# X.520: commonName, organizationName, countryName.
_SUBJECT: Final = {"common_name": "2.5.4.3", "organization": "2.5.4.10", "country": "2.5.4.6"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One certificate as it was asked for. `number` is the line of the table, or which request it is, from 1; `profile`
    and `key_algorithm` are "" where nothing is said. `problem`: what is wrong with this one alone."""

    number: int
    names: tuple[str, ...] = ()
    subject: Mapping[str, str | None] = field(default_factory=dict)
    profile: str = ""
    key_algorithm: str = ""
    days: int | None = None
    csr: str | None = None
    problem: Problem | None = None


def read_batch(text: str) -> list[Asked]:
    """A table (CSV, with commas, or the semicolons or tabs some spreadsheets write) whose first line names its COLUMNS,
    names in one cell parted by spaces; or requests, whose names and subject are those asked for.

    Raises Invalid `table_empty`, `table_column`, `table_unreadable`, `batch_other_block`.
    """
    text = text.removeprefix("\ufeff")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise Invalid("table_empty", "There is nothing to issue.", field="table",
                      fix="Give a table with a first line, or requests.")  # fmt: skip
    cells = [cell.strip().strip('"').lower() for cell in re.split("[,;\t]", first)]
    if _REQUEST.search(text) and not set(cells) & set(COLUMNS):
        return _requests(text)
    return _table(text, next((mark for mark in ";\t" if mark in first and "," not in first), ","))


# --- a table ---------------------------------------------------------------------------------------------------------


def _table(text: str, delimiter: str) -> list[Asked]:
    reader = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    skipped = text[: len(text) - len(text.lstrip("\r\n"))].count("\n")
    found: list[Asked] = []
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        unknown = next((name for name in columns if name not in COLUMNS), None)
        if unknown is not None or len(set(columns)) != len(columns):
            said = f"The table has a column that isn't known: {unknown[:40]!r}." if unknown is not None else (
                "The table has a column twice."
            )  # fmt: skip
            raise Invalid("table_column", said, field="table",
                          fix=f"Its first line names columns, each once: {', '.join(COLUMNS)}.")  # fmt: skip
        reader.fieldnames = columns
        for row in reader:
            if not any((cell if isinstance(cell, str) else "".join(cell or ())).strip() for cell in row.values()):
                continue  # spreadsheets write lines that were emptied as nothing but delimiters
            within = sum(cell.count("\n") for cell in row.values() if isinstance(cell, str))
            found.append(_line(skipped + reader.line_num - within, row))
    except csv.Error as error:
        raise Invalid("table_unreadable", f"Line {skipped + reader.line_num} can't be read: {error}.", field="table",
                      fix="Save the table as CSV, in UTF-8.") from None  # fmt: skip
    if not found:
        raise Invalid("table_empty", "The table has no line but the first.", field="table",
                      fix="Add a line for each certificate.")  # fmt: skip
    return found


def _line(number: int, row: Mapping[Any, Any]) -> Asked:
    if None in row:
        problem = Invalid("table_line", "The line has more cells than the table has columns.", field="table",
                          fix="Part names in one cell by spaces.")  # fmt: skip
        return Asked(number, problem=problem)
    said = {column: (row.get(column) or "").strip() for column in COLUMNS}
    names = tuple(name for name in _PARTS.split(said["names"]) if name)
    days = said["days"]
    if days and not (days.isascii() and days.isdigit() and len(days) < 7):
        problem = Invalid("number_invalid", f"{days[:20]!r} isn't a number of days.", field="days",
                          fix="Write digits only.")  # fmt: skip
        return Asked(number, names, problem=problem)
    return Asked(
        number, names, {part: said[part] or None for part in _SUBJECT}, said["profile"], said["key_algorithm"],
        int(days) if days else None, said["csr"] or None,
    )  # fmt: skip


# --- requests --------------------------------------------------------------------------------------------------------


def _requests(text: str) -> list[Asked]:
    other = next((label for label in _BLOCK.findall(text) if not label.endswith("CERTIFICATE REQUEST")), None)
    if other is not None:
        raise Invalid("batch_other_block", f"Besides requests the text holds a block {other!r}.", field="table",
                      fix="Give the requests alone; a private key stays with its owner.")  # fmt: skip
    return [_request(number, pem) for number, pem in enumerate(_REQUEST.findall(text), 1)]


def _request(number: int, pem: str) -> Asked:
    from cryptography import x509  # not for tables: a command that reads one starts sooner

    from certwright.x509.reading import UNREADABLE

    try:
        csr = x509.load_pem_x509_csr(pem.encode("ascii", "replace"))
        names, subject = _alternative(csr), _said(csr.subject)
    except UNREADABLE:
        problem = Invalid("csr_format", "The request can't be read, or asks for names of a kind that can't be issued.",
                          field="csr", fix="Make it anew, as PKCS#10 in PEM, with host names, addresses, e-mail "
                          "addresses and URIs alone.")  # fmt: skip
        return Asked(number, problem=problem)
    common = subject["common_name"] or ""
    if not names and "." in common and " " not in common:
        names = (common,)  # a host by its look, as requests were made before there were alternative names
    return Asked(number, names, subject, csr=pem)


def _alternative(csr: x509.CertificateSigningRequest) -> tuple[str, ...]:
    from cryptography import x509

    try:
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    known = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    if not all(isinstance(name, known) for name in san):
        raise ValueError("a name of a kind that can't be issued")
    return tuple(str(name.value) for name in san)


def _said(subject: x509.Name) -> dict[str, str | None]:
    """The first of each; what isn't text is left out."""
    values = {one.oid.dotted_string: one.value for one in reversed(list(subject))}
    return {part: value if isinstance(value := values.get(oid), str) else None for part, oid in _SUBJECT.items()}
