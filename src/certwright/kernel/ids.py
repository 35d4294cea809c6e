"""Ids: a prefix that says what the thing is, and 26 characters that sort by the time of making.

`cert_01k9p2…`: lower-case Crockford base 32 of a UUIDv7 (RFC 9562 section 5.7), so that keyset paging by id is
paging by age and an id pasted into a ticket names its kind.
"""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
# Two digits at a time: an id is made for every row, half a dozen for a certificate.
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = tuple(range(5 * (_LENGTH - 2), -1, -10))
_RANDOM_BITS = 74
# How far apart ids of one millisecond are at most: 2^32 of them fit, and nobody guesses the next.
_STEP_BITS = 40

# The newest millisecond this process made an id of, and that id's randomness.
_newest = (0, 0)


def new_id(prefix: str, at: datetime) -> str:
    """A fresh id of kind `prefix`, ordered by `at` (milliseconds); those of one process and millisecond are in the
    order of making (RFC 9562 section 6.2, method 2), so that the newest of two is the newest."""
    global _newest
    milliseconds, last = int(at.timestamp() * 1000), _newest
    following = last[1] + 1 + secrets.randbits(_STEP_BITS) if milliseconds == last[0] else 1 << _RANDOM_BITS
    if following >= 1 << _RANDOM_BITS:
        following = secrets.randbits(_RANDOM_BITS - 1)  # room above for those that follow
    _newest = (milliseconds, following)
    return _id(prefix, milliseconds, following)


def first_id(prefix: str, at: datetime) -> str:
    """The least id of kind `prefix` that `at` can have: everything made before sorts before it."""
    return _id(prefix, int(at.timestamp() * 1000), 0)


def _id(prefix: str, milliseconds: int, randomness: int) -> str:
    rand_a, rand_b = randomness >> 62, randomness & ((1 << 62) - 1)
    number = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of an id of this kind; says nothing about whether it exists."""
    head, _, tail = text.partition("_")
    return head == prefix and len(tail) == _LENGTH and all(c in _ALPHABET for c in tail)
