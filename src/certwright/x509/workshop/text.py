r"""PEM text as it arrives: repaired where that is safe, with every repair told, and its blocks with their lines.

What is repaired is what editors, mail programs, shells, JSON, YAML and consoles do to text; nothing is guessed inside
the base64 itself. Lines are counted as an editor shows the text that came; a literal \n doesn't count.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from certwright.x509 import _pem
from certwright.x509.workshop.words import Finding, Place, Repair, error

# The usual case, nothing to repair: recognised in one step each, so that good files cost next to nothing.
_CANONICAL: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----\n"
    rb"((?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{1,64}={0,2}\n)"
    rb"-----END \1-----(?:\n|\Z)"
)
# Hyphens, dashes and minus signs: what word processors make of "-----".
_DASH: Final = "[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
_EDGE: Final = re.compile(
    rf"({_DASH}{{2,5}})[ \t]?(BEGIN|END)[ \t]+([A-Z0-9](?:[A-Z0-9 ]{{0,60}}?[A-Z0-9])?)[ \t]?({_DASH}{{2,5}})"
)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,40}:.*")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_INVISIBLE: Final = {0x00A0: " ", 0x200B: None, 0x200C: None, 0x200D: None, 0x2060: None, 0xFEFF: None}
# Stands for a literal \n: it ends a line but isn't one an editor counts.
_SOFT: Final = "\x0b"
_WIDTH: Final = 64


@dataclass(frozen=True, slots=True)
class TextBlock:
    """One block in canonical form, its number in the text, and the line of its BEGIN."""

    block: _pem.Block
    number: int
    line: int


@dataclass(slots=True)
class Scan:
    """What a text holds."""

    blocks: list[TextBlock] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def scan(data: bytes, name: str) -> Scan:
    """The blocks of `data` (at most 1 MiB, not empty), which is called `name` where it is spoken of. Linear in size."""
    found = Scan()
    if not _fast(data, found):
        found = _Slow(data, name).run()
    return found


def _fast(data: bytes, found: Scan) -> bool:
    at, line = 0, 1
    while at < len(data):
        match = _CANONICAL.match(data, at)
        if match is None or len(found.blocks) == _pem.MAX_BLOCKS:
            return False
        try:
            body = binascii.a2b_base64(match[2])
        except binascii.Error:
            return False
        found.blocks.append(TextBlock(_pem.Block(match[1].decode(), body), len(found.blocks) + 1, line))
        at, line = match.end(), line + match[0].count(b"\n")
    return bool(found.blocks)


class _Slow:
    """One pass over a text that isn't in canonical form."""

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        self._found = Scan()
        self._seen: set[str] = set()
        self._text = self._plain(data)
        self._counted_to, self._line = 0, 1

    def run(self) -> Scan:
        text, at = self._text, 0
        # Every block has at most two; more are never looked at.
        edges = list(islice(_EDGE.finditer(text), 2 * _pem.MAX_BLOCKS + 2))
        if not edges:
            self._none()
            return self._found
        number, position = 0, 0
        while position < len(edges):
            begin = edges[position]
            position += 1
            if text[at : begin.start()].strip() and begin[2] == "BEGIN":
                self._repair("text_around", begin.start())
            line = self._line_at(begin.start())
            number += 1
            if number > _pem.MAX_BLOCKS:
                self._error(
                    "too_large", f"The text holds more than {_pem.MAX_BLOCKS} blocks.",
                    "Upload one certificate with its chain at a time.", None, line,
                )  # fmt: skip
                return self._found
            at = begin.end()
            label = " ".join(begin[3].split())
            if begin[2] == "END":
                self._error(
                    "not_pem", f"The {label} block has an END but no BEGIN line.",
                    f"Copy the whole block, from -----BEGIN {label}----- on.", number, line,
                )  # fmt: skip
                continue
            end = edges[position] if position < len(edges) else None
            if end is None or end[2] != "END" or " ".join(end[3].split()) != label:
                self._error(
                    "not_pem", f"The {label} block has no matching END line.",
                    f"Copy the whole block, down to and including -----END {label}-----.", number, line,
                )  # fmt: skip
                if end is not None and end[2] == "END":
                    position += 1
                    at = end.end()
                else:
                    at = end.start() if end is not None else len(text)
                continue
            position += 1
            self._look_at_edges(begin, end)
            self._block(label, number, line, text[begin.end() : end.start()])
            at = end.end()
        if text[at:].strip():
            self._repair("text_around", at)
        return self._found

    # --- the text as a whole ---

    def _plain(self, data: bytes) -> str:
        text = self._decoded(data)
        if "\r" in text:
            self._note("crlf")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        if "\\n" in text and "BEGIN" in text:
            self._note("literal_newlines")
            text = text.replace("\\r", "").replace("\\n", _SOFT)
        if not text.isascii():
            cleaned = text.translate(_INVISIBLE)
            if cleaned != text:
                self._note("invisible_characters")
            text = cleaned
        return text

    def _decoded(self, data: bytes) -> str:
        for mark, encoding, code in (
            (codecs.BOM_UTF8, "utf-8", "bom"),
            (codecs.BOM_UTF32_LE, "utf-32", "utf16"),
            (codecs.BOM_UTF16_LE, "utf-16", "utf16"),
            (codecs.BOM_UTF16_BE, "utf-16", "utf16"),
        ):
            if data.startswith(mark):
                self._note(code)
                return data.decode(encoding, errors="replace").removeprefix("\ufeff")
        # Without a mark, ASCII in UTF-16 has a zero byte at every other place.
        for encoding, zeros in (("utf-16-le", data[1:64:2]), ("utf-16-be", data[0:64:2])):
            if len(zeros) > 3 and not zeros.strip(b"\x00"):
                self._note("utf16")
                return data.decode(encoding, errors="replace")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("cp1252", errors="replace")

    def _line_at(self, position: int) -> int:
        # Asked in rising order only, so that counting stays linear.
        if position > self._counted_to:
            self._line += self._text.count("\n", self._counted_to, position)
            self._counted_to = position
        return self._line

    def _note(self, code: str, block: int | None = None, line: int | None = None) -> None:
        if code not in self._seen:
            self._seen.add(code)
            self._found.repairs.append(Repair(code, Place(self._name, block, line)))

    def _repair(self, code: str, position: int) -> None:
        if code not in self._seen:
            self._note(code, None, self._text.count("\n", 0, position) + 1)

    def _error(self, code: str, message: str, fix: str, block: int | None, line: int | None) -> None:
        self._found.findings.append(error(code, message, fix, Place(self._name, block, line)))

    # --- one block ---

    def _look_at_edges(self, begin: re.Match[str], end: re.Match[str]) -> None:
        for edge in (begin, end):
            if edge[1] != "-----" or edge[4] != "-----" or edge[0] != f"-----{edge[2]} {edge[3]}-----":
                self._repair("dashes", edge.start())
        after = self._text[end.end() : end.end() + 1]
        if after and after in "-\u2013\u2014":
            self._repair("glued_blocks", end.start())
        start = begin.start()
        before = self._text[max(self._text.rfind("\n", 0, start) + 1, start - 40) : start]
        if before and not before.strip(" \t>"):
            self._repair("indentation", start)

    def _block(self, label: str, number: int, line: int, inside: str) -> None:
        headers: list[str] = []
        parts: list[str] = []
        blank_at: int | None = None
        widths: list[int] = []
        padded = False
        for raw, here in _lines(inside, line):
            stripped = raw.strip(" \t\f")
            if stripped.startswith(">"):
                stripped = stripped.lstrip("> \t")
            if not stripped:
                blank_at = blank_at or (here if here > line and parts else None)
                continue
            if not parts and _HEADER.fullmatch(stripped):
                headers.append(stripped)
                continue
            if blank_at is not None:
                self._note("blank_lines", number, blank_at)
            if raw != stripped:
                left = raw[: len(raw) - len(raw.lstrip(" \t>"))]
                if left and here > line:
                    self._note("indentation", number, here)
                if raw.endswith((" ", "\t", "\f")) and here > line:
                    self._note("trailing_spaces", number, here)
            squeezed = "".join(stripped.split())
            # "=" ends base64 and nothing but another one may follow it.
            if (padded and squeezed.strip("=")) or _BASE64.fullmatch(squeezed) is None:
                self._bad_base64(label, number, here)
                return
            padded = squeezed.endswith("=")
            parts.append(squeezed)
            widths.append(len(stripped))
        if not parts:
            self._error(
                "not_pem", f"The {label} block is empty.", "Copy the block with the lines between BEGIN and END.",
                number, line,
            )  # fmt: skip
            return
        if len(parts) == 1 and widths[0] > _WIDTH + 12:
            self._note("one_line", number, line)
        elif any(width != _WIDTH for width in widths[:-1]) or widths[-1] > _WIDTH:
            self._note("line_width", number, line)
        try:
            body = base64.b64decode("".join(parts), validate=True)
        except binascii.Error:
            # Every character is in the alphabet, so the count is wrong: something is missing at the end.
            self._bad_base64(label, number, line + inside.count("\n"))
            return
        if any("ENCRYPTED" in head for head in headers) or not headers:
            block = _pem.Block(label, body, tuple(headers))
        else:
            block = _pem.Block(label, body)
        self._found.blocks.append(TextBlock(block, number, line))

    def _bad_base64(self, label: str, number: int, line: int) -> None:
        self._error(
            "bad_base64", f"The {label} block isn't valid base64 on line {line}.",
            "Copy the block again from its source; a character was lost or changed.", number, line,
        )  # fmt: skip

    # --- no block at all ---

    def _none(self) -> None:
        message, fix = _what_else(self._text)
        self._error("not_pem", message, fix, None, None)


def _lines(inside: str, line: int) -> list[tuple[str, int]]:
    """The lines of a block's inside with their numbers; the rest of the BEGIN line comes first."""
    numbered = []
    for offset, hard in enumerate(inside.split("\n")):
        numbered += [(soft, line + offset) for soft in hard.split(_SOFT)]
    return numbered


_SSH = ("This is an SSH public key, not a certificate.", "Upload the certificate the CA sent.")
_PAGE = ("This is a web page, not a certificate.", "Save the file itself, not the page that links to it.")
_ELSE: Final = (
    (
        "PuTTY-User-Key-File",
        "This is a key in PuTTY's format.",
        "Export it in PuTTYgen (Conversions, Export OpenSSH key), then: ssh-keygen -p -m PEM -f <copy>.",
    ),
    ("ssh-rsa ", *_SSH),
    ("ssh-ed25519 ", *_SSH),
    ("<html", *_PAGE),
    ("<!doctype", *_PAGE),
    (
        "Certificate:\n    Data:",
        "This is the printed form of a certificate, without the certificate itself.",
        "Upload the part from -----BEGIN CERTIFICATE----- on; openssl x509 -in <file> prints it.",
    ),
)


def _what_else(text: str) -> tuple[str, str]:
    head = text[:4096]
    lower = head.lower()
    for mark, message, fix in _ELSE:
        if mark.lower() in lower:
            return message, fix
    if "BEGIN" in text:
        return "The text has no whole BEGIN line.", "Copy the block with its first line: -----BEGIN CERTIFICATE-----."
    if "\n" not in head.strip() and len(head) < 300 and ("/" in head or "\\" in head):
        return "This is the name of a file, not its content.", "Paste the file's content, or upload the file."
    return (
        "The input is neither PEM nor a binary format that is known here.",
        "Paste the text of a .pem or .crt file, or upload the file itself.",
    )
