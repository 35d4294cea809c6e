"""No key material, no passphrase in any message, any document, any repr, any log, whatever is wrong with the input."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certwright.kernel.problems import Problem
from certwright.x509 import keys
from certwright.x509.workshop import containers, convert, decode, upload
from certwright.x509.workshop.upload import Options
from tests.x509.factory import NOW, key

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
SECRET = "Tr0ub4dor&3-in-no-message"  # a passphrase that stands nowhere else
OPTIONS = [Options(at=NOW), Options(at=NOW, strict=True, key_required=True)]


def secrets_of(private: object) -> set[str]:
    """Windows of a key's numbers in every notation somebody might print them."""
    assert isinstance(private, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey))
    numbers = private.private_numbers()
    if isinstance(numbers, rsa.RSAPrivateNumbers):
        values = [numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp]
    else:
        values = [numbers.private_value]
    found = set()
    for value in values:
        octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
        found |= {octets.hex()[8:28], str(value)[5:25], repr(octets[3:11])[2:-1]}
        for shift in range(3):
            found.add(base64.b64encode(octets[shift:])[4:20].decode())
    return {window for window in found if len(window) >= 12}


def lines_of(private: keys.PrivateKey) -> set[str]:
    """Every line of every text form of a key."""
    found = set()
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        text = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
        found |= {line[:16] for line in text.splitlines() if not line.startswith("-") and len(line) > 20}
    return found


def inputs(private: keys.PrivateKey) -> Iterator[bytes]:
    """A key whole, damaged in every way, and in every container."""
    pem = keys.to_pkcs8_pem(private)
    yield pem
    yield keys.to_pkcs8_pem(private, SECRET.encode())
    yield convert.key_form(private, convert.Format.PKCS8, SECRET.encode())
    der = keys.to_pkcs8_der(private)
    yield der
    for cut in (10, 60, len(der) // 2, len(der) - 3):
        yield der[:cut]
        yield der[cut:]
    for at in range(0, len(der), 9):
        yield der[:at] + bytes([der[at] ^ 0x55]) + der[at + 1 :]
    lines = pem.splitlines()
    for at in range(len(lines)):
        yield b"\n".join(lines[:at] + lines[at + 1 :])
        yield b"\n".join([*lines[:at], lines[at][:10] + b"!" + lines[at][10:], *lines[at + 1 :]])
        yield b"\n".join([*lines[:at], b"word: " + lines[at], *lines[at + 1 :]])
    yield pem.replace(b"PRIVATE KEY", b"CERTIFICATE")
    yield pem.replace(b"PRIVATE KEY", b"CERTIFICATE REQUEST")
    yield pem.replace(b"-----BEGIN PRIVATE KEY-----\n", b"")
    yield pem.replace(b"\n", b"")
    yield b"password = " + SECRET.encode() + b"\n" + pem


@pytest.mark.parametrize("kind", [keys.KeyAlgorithm.EC_P256, keys.KeyAlgorithm.RSA_2048])
def test_no_part_of_a_key_or_a_passphrase_is_said_anywhere(
    kind: keys.KeyAlgorithm, caplog: pytest.LogCaptureFixture
) -> None:
    private = key(kind, "secret")
    forbidden = secrets_of(private) | lines_of(private) | {SECRET}
    vectors = [path.read_bytes() for path in sorted(VECTORS.iterdir()) if path.is_file()]
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for data in [*inputs(private), *vectors]:
            for options in OPTIONS:
                for report in (
                    upload.check(data, options=options, key=data, chain=data, passphrase=SECRET.encode()),
                    upload.check(data, options=options, key=keys.to_pkcs8_pem(private)),
                ):
                    said += [json.dumps(report.as_dict()), repr(report), str(report.findings)]
            contents = containers.open_input(data, "certificate", SECRET.encode())
            said += [repr(contents), json.dumps(decode.describe(contents))]
            try:
                made = convert.material([contents])
                said.append(repr(made))
            except Problem as problem:
                said += [repr(problem), str(problem), json.dumps(problem.as_dict()), str(problem.__cause__)]
    whole = "\n".join(said) + caplog.text
    assert len(whole) > 100_000
    assert [window for window in forbidden if window in whole] == []
    assert not re.search(r"PRIVATE KEY-----\\?n?[A-Za-z0-9+/]{16}", whole)
