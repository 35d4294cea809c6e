"""The places where foreign bytes are read, and inputs to begin with.

Whatever comes, an entry may only return, or raise a `Problem`; anything else is a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from certwright.acme.requests import AcmeProblem, account_key, read_request, verify
from certwright.kernel.problems import Problem
from certwright.x509 import certificates, crl, csr, keys, ocsp
from certwright.x509.workshop import (
    containers,
    convert,
    decode,
    jks,
    pkcs7,
    pkcs12,
    revocation,
    text,
    toolbox,
    upload,
)
from certwright.x509.workshop.policy import PublicPolicy
from certwright.x509.workshop.words import CODES

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
VECTORS = HERE.parent / "vectors"
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
PUBLIC = upload.Options(
    at=AT, policy=PublicPolicy(((datetime(2026, 3, 15, tzinfo=UTC), 200),), datetime(2027, 3, 15, tzinfo=UTC).date())
)
PASSPHRASE = b"correct-horse-7"


def inspect(data: bytes) -> None:
    decode.describe(containers.open_input(data, "x", PASSPHRASE))


def turn(data: bytes) -> None:
    convert.split(convert.material([containers.open_input(data, "x", PASSPHRASE)]))


_GOOD = [item.der for item in containers.open_input((VECTORS / "good.pem").read_bytes(), "x").items]


def check(data: bytes) -> None:
    """An upload as the server judges it: the file as all three inputs, beside others it knows."""
    around = toolbox.Around(pool=(*_GOOD, data), certificates={}, neighbours=tuple(_GOOD))
    judged = toolbox.judge(toolbox.Upload(data, data, data, PASSPHRASE), PUBLIC, around)
    assert all(finding.code in CODES for finding in judged.findings)
    toolbox.authorities_in(data)


def lists(data: bytes) -> None:
    """What a stranger's server answers when it is asked whether a certificate was revoked."""
    for read in (revocation.read_ocsp, revocation.read_list):
        assert not read(data, _GOOD[0], _GOOD[1], AT).revoked
    crl.read_crl(data)


def request(data: bytes) -> None:
    """What a client of our ACME server sends."""
    with contextlib.suppress(AcmeProblem):
        asked = read_request(data)
        verify(asked, account_key(asked.jwk or {}))


ENTRIES: dict[str, Callable[[bytes], object]] = {
    "check": check,
    "inspect": inspect,
    "convert": turn,
    "text": lambda data: text.scan(data, "x") if data else None,
    "pkcs12": lambda data: pkcs12.read(data, PASSPHRASE),
    "pkcs7": pkcs7.read,
    "jks": lambda data: jks.read(data, PASSPHRASE),
    "key": lambda data: keys.read_private_key(data, PASSPHRASE),
    "certificate": certificates.read_certificates,
    "csr": csr.read_csr,
    "crl": lists,
    "ocsp": ocsp.read_question,
    "acme": request,
}


def guarded(entry: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        with contextlib.suppress(Problem):
            entry(data)

    return one


def seeds(name: str) -> list[Path]:
    """In an order that doesn't depend on the file system: what broke this entry or any, then what people send."""
    places = (CORPUS / name, CORPUS / "any", VECTORS)
    return [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
