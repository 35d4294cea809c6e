"""PEM as people paste it (RFC 7468, and what survives mail programs, editors and JSON): found, unwrapped, named."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass

from certwright.kernel.problems import Invalid, TooLarge

MAX_INPUT = 1024 * 1024
MAX_BLOCKS = 1000

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----")
_HEADER = re.compile(rb"[A-Za-z0-9-]{1,40}:.*")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_PLAIN = re.compile(rb"\n(?:[A-Za-z0-9+/]+\n)*[A-Za-z0-9+/]*={0,2}\n?")


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block: `headers` are the RFC 1421 lines (`Proc-Type: …`) as written, `body` the decoded octets."""

    label: str
    body: bytes
    headers: tuple[str, ...] = ()

    def text(self) -> bytes:
        """The block in canonical form: 64 columns, LF, headers kept."""
        head = "".join(line + "\n" for line in self.headers)
        lines = base64.b64encode(self.body)
        wrapped = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
        label = self.label.encode()
        return b"-----BEGIN %s-----\n%s%s\n-----END %s-----\n" % (
            label,
            (head + "\n").encode() if head else b"",
            wrapped,
            label,
        )


def normalise(data: bytes) -> bytes:
    """The same text without what editors and JSON add: byte order mark, UTF-16, CR, a literal backslash-n."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", errors="replace").encode("utf-8", errors="replace")
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\\n" in data and b"-----BEGIN" in data:
        data = data.replace(b"\\r", b"").replace(b"\\n", b"\n")
    return data


def refuse_too_large(data: bytes, field: str) -> None:
    if len(data) > MAX_INPUT:
        raise TooLarge(
            "too_large",
            f"The input has {len(data)} bytes; at most 1 MiB is read.",
            field=field,
            fix="Upload only the certificate, key or request itself.",
        )


def blocks(data: bytes, *, field: str) -> tuple[Block, ...]:
    """Every PEM block in `data`, in order; none if there is no BEGIN line.

    Raises Invalid `not_pem` (a block that doesn't end), `bad_base64` (with its line) and `too_many_blocks`,
    TooLarge `too_large` above 1 MiB. Nothing of a block's body enters a message.
    """
    refuse_too_large(data, field)
    data = normalise(data)
    found: list[Block] = []
    at = 0
    while begin := _BEGIN.search(data, at):
        if len(found) == MAX_BLOCKS:
            raise Invalid(
                "too_many_blocks", f"The text holds more than {MAX_BLOCKS} PEM blocks.", field=field,
                fix="Upload one certificate with its chain at a time.",
            )  # fmt: skip
        label = begin[1]
        end_line = b"-----END " + label + b"-----"
        end = data.find(end_line, begin.end())
        following = data.find(b"-----BEGIN ", begin.end())
        if end < 0 or 0 <= following < end:
            raise Invalid(
                "not_pem",
                f"The {label.decode()} block on line {_line(data, begin.start())} has no matching END line.",
                field=field,
                fix=f"Copy the whole block, down to and including -----END {label.decode()}-----.",
            )
        found.append(_block(data, label.decode(), begin.end(), end, field))
        at = end + len(end_line)
    return tuple(found)


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _block(data: bytes, label: str, start: int, end: int, field: str) -> Block:
    if _PLAIN.fullmatch(data, start, end) is not None:
        # Nearly every block; what else there is, is looked at line by line.
        with contextlib.suppress(binascii.Error):
            return Block(label, base64.b64decode(data[start:end].replace(b"\n", b""), validate=True))
    headers: list[str] = []
    body: list[bytes] = []
    number = _line(data, start)
    for offset, raw in enumerate(data[start:end].split(b"\n")):
        line = b"".join(raw.split())
        # "=" ends base64 and nothing may follow it; a colon never occurs in base64, so such a line is a header.
        if not body and _HEADER.fullmatch(raw.strip()):
            headers.append(raw.strip().decode("ascii", errors="replace"))
        elif line and (_BASE64.fullmatch(line) is None or (body and body[-1].endswith(b"="))):
            raise _bad_base64(label, number + offset, field)
        elif line:
            body.append(line)
    try:
        decoded = base64.b64decode(b"".join(body), validate=True)
    except binascii.Error:
        # Every character is in the alphabet, so the count is wrong: something is missing at the end.
        raise _bad_base64(label, _line(data, end), field) from None
    return Block(label, decoded, tuple(headers))


def _bad_base64(label: str, line: int, field: str) -> Invalid:
    return Invalid(
        "bad_base64",
        f"The {label} block isn't valid base64 on line {line}.",
        field=field,
        fix="Copy the block again from its source; a character was lost or changed.",
        extra={"line": line},
    )


_WORDS = {
    "CERTIFICATE": "a certificate",
    "TRUSTED CERTIFICATE": "a certificate",
    "X509 CERTIFICATE": "a certificate",
    "CERTIFICATE REQUEST": "a certificate signing request (CSR)",
    "NEW CERTIFICATE REQUEST": "a certificate signing request (CSR)",
    "PKCS7": "a PKCS#7 bundle",
    "CMS": "a PKCS#7 bundle",
    "X509 CRL": "a certificate revocation list",
    "PUBLIC KEY": "a public key",
    "RSA PUBLIC KEY": "a public key",
    "EC PARAMETERS": "curve parameters",
    "OPENSSH PRIVATE KEY": "an OpenSSH private key",
}


def in_words(label: str) -> str:
    """What a PEM label stands for, in words for a message."""
    if label in _WORDS:
        return _WORDS[label]
    return "a private key" if label.endswith("PRIVATE KEY") else f"a {label} block"
