"""What public trust asks of a server certificate, as dated data handed in; blocklists of keys known to be weak."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

_RECORD = 16
_KEPT = 15


@dataclass(frozen=True, slots=True)
class PublicPolicy:
    """`validity`: from when, how many days at most; `server_auth_only`: when clientAuth ends in browsers."""

    validity: tuple[tuple[datetime, int], ...]
    server_auth_only: date

    def max_days(self, issued: datetime) -> int | None:
        """The longest life of a certificate issued at this moment; None before the oldest rule we hold."""
        found = None
        for begins, days in self.validity:
            if begins <= issued:
                found = days
        return found


def from_document(document: Mapping[str, Any]) -> PublicPolicy:
    """The part of the shipped rule file (`rules-2026.yaml`, parsed) that judges a certificate.

    Raises KeyError, TypeError or ValueError for a file of another shape.
    """
    rules = document["public_tls"]
    steps = [
        (datetime(s["from"].year, s["from"].month, s["from"].day, tzinfo=UTC), int(s["max"]))
        for s in rules["validity_days"]
    ]
    end = rules["server_auth_only_eku"]
    if not isinstance(end, date):
        raise TypeError("server_auth_only_eku is no date")
    return PublicPolicy(tuple(sorted(steps)), end)


class Blocklist:
    """Keys whose private half is public: Debian's of 2006 to 2008 (CVE-2008-0166), firmware's, test suites'.

    The lists are too large to ship; an operator brings one. Two formats: the sorted 16-octet records of the badkeys
    project (15 octets of SHA-256 of the modulus or of x, one of the list's number), and the text of Debian's
    openssl-blacklist (last 20 hex digits of the SHA-1 of "Modulus=…"). The buffer may be a memory map.
    """

    def __init__(self, data: bytes) -> None:
        """Raises ValueError for data in neither format."""
        self._records: bytes | None = None
        self._lines: frozenset[bytes] = frozenset()
        sample = bytes(data[:4096])
        if sample.isascii() and sample.strip():
            lines = (line.strip().lower() for line in bytes(data).splitlines())
            self._lines = frozenset(line for line in lines if line and not line.startswith(b"#"))
            if any(len(line) != 20 for line in self._lines):
                raise ValueError("not a list of 20 hexadecimal digits a line")
        elif len(data) and len(data) % _RECORD == 0:
            self._records = data
        else:
            raise ValueError("not a blocklist: neither 16-octet records nor lines of 20 hexadecimal digits")

    def holds(self, public: object) -> bool:
        """Whether this key is on the list. Kinds other than RSA and EC never are."""
        if isinstance(public, rsa.RSAPublicKey):
            number = public.public_numbers().n
        elif isinstance(public, ec.EllipticCurvePublicKey):
            number = public.public_numbers().x
        else:
            return False
        if self._records is None:
            said = f"Modulus={number:X}\n".encode()
            return hashlib.sha1(said, usedforsecurity=False).hexdigest()[20:].encode() in self._lines
        wanted = hashlib.sha256(number.to_bytes((number.bit_length() + 7) // 8, "big")).digest()[:_KEPT]
        low, high = 0, len(self._records) // _RECORD
        while low < high:
            middle = (low + high) // 2
            found = self._records[middle * _RECORD : middle * _RECORD + _KEPT]
            if found == wanted:
                return True
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return False
