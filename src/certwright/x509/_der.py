"""The little of DER (X.690) that the certificate library doesn't do for us: wrap, split and count elements."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

SEQUENCE = 0x30
OCTET_STRING = 0x04
INTEGER = 0x02
BIT_STRING = 0x03
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18


class BadDerError(ValueError):
    """The bytes aren't DER of the shape looked for; callers turn it into a problem of their own."""


def tlv(tag: int, body: bytes) -> bytes:
    """One element with a definite, shortest length."""
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + body


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, b"".join(parts))


def bit_string(octets: bytes) -> bytes:
    """A BIT STRING of whole octets, as signatures are."""
    return tlv(BIT_STRING, b"\x00" + octets)


def integer(value: int) -> bytes:
    """In as few octets as it takes (X.690 section 8.3.2); -128 takes one, as 127 does."""
    bits = (value if value >= 0 else ~value).bit_length()
    return tlv(INTEGER, value.to_bytes(bits // 8 + 1, signed=True))


def time(at: datetime) -> bytes:
    """A Time (RFC 5280 section 4.1.2.5), whole seconds: UTCTime until 2049, GeneralizedTime from then on. Raises
    ValueError for years before 1950."""
    at = at.astimezone(UTC)
    if at.year < 1950:
        raise ValueError("a time before 1950")
    written = f"{at:%Y%m%d%H%M%S}Z".encode("ascii")
    return tlv(UTC_TIME, written[2:]) if at.year < 2050 else tlv(GENERALIZED_TIME, written)


@lru_cache(maxsize=1024)
def object_identifier(dotted: str) -> bytes:
    """Of a well-formed dotted OID. Raises ValueError."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = b""
    for arc in (40 * first + second, *rest):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | arc & 0x7F)
        body += bytes(reversed(octets))
    return tlv(OBJECT_IDENTIFIER, body)


def read(data: bytes, start: int = 0) -> tuple[int, int, int]:
    """The element at `start`: its tag, where its body begins and where it ends. Raises BadDerError."""
    if start + 2 > len(data):
        raise BadDerError("ends inside a header")
    tag, size, body = data[start], data[start + 1], start + 2
    if tag & 0x1F == 0x1F:
        raise BadDerError("multi-byte tag")
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 4 or body + octets > len(data):
            raise BadDerError("bad length")
        size = int.from_bytes(data[body : body + octets], "big")
        body += octets
    if body + size > len(data):
        raise BadDerError("ends inside a value")
    return tag, body, body + size


def children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each element inside the one element that `data` is. Raises BadDerError."""
    _, at, end = read(data)
    while at < end:
        tag, body, after = read(data, at)
        if after > end:
            raise BadDerError("element runs out of its parent")
        yield tag, data[body:after]
        at = after


def elements(data: bytes) -> Iterator[bytes]:
    """Each element inside the one element that `data` is, with its header. Raises BadDerError."""
    _, at, end = read(data)
    while at < end:
        after = read(data, at)[2]
        if after > end:
            raise BadDerError("element runs out of its parent")
        yield data[at:after]
        at = after


def is_whole_sequence(data: bytes) -> bool:
    """Whether `data` is exactly one SEQUENCE, which every certificate, request, key and list is."""
    try:
        tag, _, end = read(data)
    except BadDerError:
        return False
    return tag == SEQUENCE and end == len(data)
