"""BER as older programs write it (indefinite lengths, strings in pieces), turned into DER's lengths before it is read.

X.690 section 8.1.3.6 and 8.7: Java before 9, NSS and Windows write PKCS#7 and PKCS#12 so. Order and values stay as they
are; signed parts inside are DER already and come out octet for octet.
"""

from __future__ import annotations

from certwright.x509 import _der

MAX_DEPTH = 32
_CONSTRUCTED = 0x20
_CONSTRUCTED_OCTETS = 0x24


def to_der(data: bytes) -> bytes:
    """`data` with definite, shortest lengths. Raises BadDerError for anything that isn't one element, or too deep."""
    out, end = _element(data, 0, len(data), 0)
    if end != len(data):
        raise _der.BadDerError("more than one element")
    return out


def _header(data: bytes, at: int, limit: int) -> tuple[int, int | None, int]:
    """Tag, size (None if indefinite) and where the body begins."""
    if at + 2 > limit:
        raise _der.BadDerError("ends inside a header")
    tag, size, body = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise _der.BadDerError("multi-byte tag")
    if size == 0x80:
        if not tag & _CONSTRUCTED:
            raise _der.BadDerError("primitive of indefinite length")
        return tag, None, body
    if size > 0x80:
        octets = size & 0x7F
        if octets > 8 or body + octets > limit:
            raise _der.BadDerError("bad length")
        size = int.from_bytes(data[body : body + octets], "big")
        body += octets
    if body + size > limit:
        raise _der.BadDerError("ends inside a value")
    return tag, size, body


def _element(data: bytes, at: int, limit: int, depth: int) -> tuple[bytes, int]:
    """One element as DER, and where it ends."""
    if depth > MAX_DEPTH:
        raise _der.BadDerError("nested too deeply")
    tag, size, body = _header(data, at, limit)
    if not tag & _CONSTRUCTED:
        assert size is not None
        return _der.tlv(tag, data[body : body + size]), body + size
    parts: list[bytes] = []
    inner = limit if size is None else body + size
    position = body
    while True:
        if size is None:
            if data[position : position + 2] == b"\x00\x00" and position + 2 <= limit:
                end = position + 2
                break
        elif position == inner:
            end = inner
            break
        part, position = _element(data, position, inner, depth + 1)
        parts.append(part)
    if tag == _CONSTRUCTED_OCTETS:
        pieces = []
        for part in parts:
            inner_tag, start, stop = _der.read(part)
            if inner_tag != _der.OCTET_STRING:
                raise _der.BadDerError("a string of other things")
            pieces.append(part[start:stop])
        return _der.tlv(_der.OCTET_STRING, b"".join(pieces)), end
    return _der.tlv(tag, b"".join(parts)), end
