"""Changes to an input that leave it well enough formed to get somewhere: DER is changed as the tree it is, also in PEM.

Octets changed anywhere rarely leave a length that fits, so that little behind the first look at an input is reached.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from certwright.x509._der import BadDerError, read, tlv

Octets = Callable[[bytes, int], bytes]
"""Changes octets that nobody knows a shape of; at most so many come out."""

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n(.*?)-----END \1-----", re.S)
_SEQUENCE, _OID, _OCTETS, _BITS = 0x30, 0x06, 0x04, 0x03
_CONSTRUCTED = 0x20
_DEEPEST = 40
_TAGS = bytes.fromhex("010203040506090a0c0d1213141516171e1c30318081828687a0a1a2a3a4")
# Algorithms, kinds of keys, of names, of extensions, of contents: what decides how the rest is read.
_OIDS = """
2a864886f70d010101 2a864886f70d01010a 2a864886f70d01010b 2a864886f70d010104 2a8648ce3d0201 2a8648ce3d030107
2b81040022 2b8104000a 2a8648ce3d040302 2b6570 2b6571 2b656e 2a8648ce380401 2a864886f70d010301 608648016503040312
2a864886f70d01050d 2a864886f70d01050c 2b06010401da47040b 2a864886f70d0209 60864801650304012a 2a864886f70d0307
2a864886f70d010c0103 2a864886f70d010c0106 2a864886f70d010503 2b0e03021a 608648016503040201 551d0e 551d0f 551d11
551d13 551d15 551d1c 551d1d 551d1e 551d1f 551d20 551d23 551d24 551d25 551d36 2b06010505070101 2b06010505070118
2b06010401d679020402 2b0601050507300102 2b0601050507300101 2a864886f70d01090e 2a864886f70d010907
2a864886f70d010701 2a864886f70d010702 2a864886f70d010706 2a864886f70d010c0a0102 550403 550406
"""
# Values on an edge: numbers, times, texts, names of odd kinds, sequences with nothing in them.
_EDGES = """
0200 020100 0201ff 020180 02050080000000 0209008000000000000000 0100 0101ff 010101 0500 0300 030100 030207ff
030208ff 0400 0600 060180 0a0100 0a01ff 0c00 0c02fffe 1e0100 1e02d800 1c03000000 1301ff 1601ff 3000 3100 a000 a100
a300 a400 a500 8000 8200 8102c340 8700 87050102030405 87080102030400ff00ff 8801ff
"""
_TIMES = [
    tlv(tag, text)
    for tag in (0x17, 0x18)
    for text in (b"000101000000Z", b"00000101000000Z", b"99991231235959Z", b"20260101000000.5Z", b"260101000000+0100")
]

_DECISIVE = [bytes.fromhex(text) for text in _OIDS.split()]
_ODD = [bytes.fromhex(text) for text in _EDGES.split()] + _TIMES


@dataclass(slots=True)
class Node:
    """One element: its children, or else its body. `before` are octets between its header and its children."""

    tag: int
    body: bytes = b""
    before: bytes = b""
    children: list[Node] | None = field(default=None)


def mutated(data: bytes, most: int, seed: int, octets: Octets | None = None) -> bytes:
    """Another input, of at most `most` octets; the same for the same arguments, if `octets` answers so."""
    lot = random.Random(seed)
    change = octets or (lambda some, size: _blind(some, size, lot))
    if lot.random() < 0.75:
        made = _der(data, lot, change) if data[:1] == b"\x30" else _pem(data, lot, change)
        if made is not None and len(made) <= most:
            return made
    return change(data, most)


def _blind(data: bytes, most: int, lot: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(lot.choice((1, 1, 2, 4))):
        at = lot.randrange(len(made) + 1)
        match lot.randrange(5):
            case 0:
                made[at:at] = lot.randbytes(lot.randrange(1, 5))
            case 1:
                del made[at : at + lot.randrange(1, 9)]
            case 2:
                made[at : at + 1] = lot.choice((b"\x00", b"\x7f", b"\x80", b"\xff", b"-", b"\n", b'"', b"0"))
            case 3:
                piece = lot.randrange(len(made) + 1)
                made[at:at] = made[piece : piece + lot.randrange(1, 65)]
            case _:
                made[at : at + 1] = bytes(octet ^ 1 << lot.randrange(8) for octet in made[at : at + 1])
    return bytes(made[:most])


def _pem(data: bytes, lot: random.Random, octets: Octets) -> bytes | None:
    blocks = list(_PEM.finditer(data))
    if not blocks:
        return None
    block = lot.choice(blocks)
    head, blank, text = block[2].rpartition(b"\n\n")
    try:
        made = _der(base64.b64decode(text), lot, octets)
    except ValueError:
        return None
    if made is None or lot.random() < 0.2:
        return made
    whole = b"-----BEGIN %s-----\n%s%s-----END %s-----\n" % (block[1], head + blank, base64.encodebytes(made), block[1])
    return whole if lot.random() < 0.3 else data[: block.start()] + whole + data[block.end() :]


def _der(data: bytes, lot: random.Random, octets: Octets) -> bytes | None:
    tree = _parsed(data, 0)
    if not tree:
        return None
    for _ in range(lot.choice((1, 1, 1, 2, 3))):
        places = _places(tree)
        if not places:
            break
        _change(*lot.choice(places), places, lot, octets)
    return _written(tree)


def _change(
    siblings: list[Node], at: int, places: list[tuple[list[Node], int]], lot: random.Random, octets: Octets
) -> None:
    node = siblings[at]
    match lot.randrange(9):
        case 0:
            del siblings[at]
        case 1:
            other, there = lot.choice(places)
            siblings.insert(at, _copied(other[there]))
        case 2:
            siblings[at] = _parsed(lot.choice(_ODD), 0)[0]
        case 3:
            siblings.insert(at, _parsed(lot.choice(_ODD), 0)[0])
        case 4:
            node.tag = lot.choice(_TAGS)
        case 5:
            siblings[at] = Node(lot.choice((_SEQUENCE, _OCTETS, 0xA0, 0xA1)), children=[node])
        case 6:
            named = [one[there] for one, there in places if one[there].tag == _OID]
            if named:
                lot.choice(named).body = lot.choice(_DECISIVE)
        case 7:
            node.body, node.before, node.children = b"", b"", None
        case _:
            body = node.body if node.children is None else _written(node.children)
            node.body, node.children = octets(body, len(body) + 20), None


def _parsed(data: bytes, depth: int) -> list[Node]:
    """Elements one after another; nothing where it isn't just that."""
    found, at = [], 0
    try:
        while at < len(data):
            tag, start, end = read(data, at)
            found.append(_node(tag, data[start:end], depth))
            at = end
    except BadDerError:
        return []
    return found


def _node(tag: int, body: bytes, depth: int) -> Node:
    before = b"\0" if tag == _BITS and body[:1] == b"\0" else b""
    if depth < _DEEPEST and (tag & _CONSTRUCTED or tag in (_OCTETS, _BITS)):
        children = _parsed(body[len(before) :], depth + 1)
        if children:
            return Node(tag, before=before, children=children)
    return Node(tag, body)


def _places(nodes: list[Node]) -> list[tuple[list[Node], int]]:
    found = []
    for at, node in enumerate(nodes):
        found.append((nodes, at))
        found += _places(node.children or [])
    return found


def _copied(node: Node) -> Node:
    return Node(node.tag, node.body, node.before, None if node.children is None else list(map(_copied, node.children)))


def _written(nodes: list[Node]) -> bytes:
    return b"".join(
        tlv(node.tag, node.body if node.children is None else node.before + _written(node.children)) for node in nodes
    )
