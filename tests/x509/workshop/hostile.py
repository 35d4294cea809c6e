"""One mebibyte of the worst of each kind, made here so that nothing large lies in the repository."""

from __future__ import annotations

import base64
import ipaddress
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.x509 import _der
from certwright.x509.certificates import to_pem
from certwright.x509.workshop.containers import MAX_CERTIFICATE, MAX_INPUT
from tests.x509.factory import NOW, hierarchy, key, name


def _filled(unit: bytes) -> bytes:
    return (unit * (MAX_INPUT // len(unit) + 1))[:MAX_INPUT]


def _noise() -> bytes:
    return random.Random(7).randbytes(MAX_INPUT)


def _tlv(tag: int, *parts: bytes) -> bytes:
    return _der.tlv(tag, b"".join(parts))


def certificate_with(*extensions: x509.ExtensionType, subject: x509.Name | None = None) -> bytes:
    own = key()
    builder = (
        x509.CertificateBuilder(name("Hostile"), subject or name("Hostile"), own.public_key(), 7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, False)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    return builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _pem(der: bytes, label: bytes = b"CERTIFICATE") -> bytes:
    return b"-----BEGIN %s-----\n" % label + base64.encodebytes(der) + b"-----END %s-----\n" % label


def _block(inside: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + inside + b"\n-----END CERTIFICATE-----\n"


def _mebibyte_certificate() -> bytes:
    return _tlv(0x30, _tlv(0x30, _tlv(0xA0, _tlv(2, b"\2")), bytes(900_000)), _tlv(0x30), _tlv(3))


def _many_names() -> bytes:
    """As many names as a certificate may hold that is just read, eight such certificates."""
    names: list[x509.GeneralName] = [x509.DNSName(f"{n:x}.a") for n in range(13_000)]
    der = certificate_with(x509.SubjectAlternativeName(names))
    assert MAX_CERTIFICATE * 0.7 < len(der) <= MAX_CERTIFICATE
    return b"".join(_pem(der[:-1] + bytes([n])) for n in range(5))


def _many_addresses() -> bytes:
    addresses: list[x509.GeneralName] = [x509.IPAddress(ipaddress.IPv4Address(n)) for n in range(20_000)]
    return _pem(certificate_with(x509.SubjectAlternativeName(addresses))) * 5


def _long_name() -> bytes:
    parts = [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"{n:060}") for n in range(1500)]
    return _pem(certificate_with(subject=x509.Name(parts))) * 6


def _thousand_namesakes() -> bytes:
    """CAs of one name and without key identifiers: each could be the issuer of each."""
    made = []
    hostile = key(which="hostile")
    assert isinstance(hostile, ec.EllipticCurvePrivateKey)
    for serial in range(1, 999):
        builder = (
            x509.CertificateBuilder(name("Same"), name("Same"), hostile.public_key(), serial)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=30))
            .add_extension(x509.BasicConstraints(True, None), True)
        )
        made.append(builder.sign(key(which="nobody"), hashes.SHA256()).public_bytes(serialization.Encoding.DER))  # type: ignore[arg-type]
    return "".join(to_pem(der) for der in made).encode()


def _thousand_good() -> bytes:
    """A thousand copies of a chain's certificates."""
    good = hierarchy()
    return (to_pem(good.leaf) + to_pem(good.issuing)).encode() * 450


def _constraints() -> bytes:
    trees: list[x509.GeneralName] = [x509.DNSName(f"{n:x}.b") for n in range(12_000)]
    return _pem(certificate_with(x509.NameConstraints(trees, None), x509.BasicConstraints(True, None))) * 5


def _huge_exponent() -> bytes:
    """An RSA key whose every verification is as slow as it can be, named as its own issuer."""
    modulus = (1 << 16383) + 1
    numbers = _tlv(0x30, _tlv(2, b"\0" + modulus.to_bytes(2048, "big")), _tlv(2, b"\x7f" + b"\xff" * 1000))
    rsa = _tlv(0x30, bytes.fromhex("06092a864886f70d010101"), b"\x05\x00")
    spki = _tlv(0x30, rsa, _tlv(3, b"\0" + numbers))
    good = certificate_with(x509.BasicConstraints(True, None))
    tbs, algorithm, signature = _der.elements(good)
    fields = list(_der.elements(tbs))
    fields[6] = spki
    return _pem(_tlv(0x30, _tlv(0x30, *fields), algorithm, signature)) * 100


def _pkcs12(*safes: bytes, mac: bytes = b"") -> bytes:
    data = bytes.fromhex("06092a864886f70d010701")
    whole = _tlv(0x30, data, _tlv(0xA0, _tlv(4, _tlv(0x30, *safes))))
    return _tlv(0x30, _tlv(2, b"\3"), whole, mac)


def _slow_mac() -> bytes:
    digest = _tlv(0x30, _tlv(0x30, bytes.fromhex("06052b0e03021a0500")), _tlv(4, bytes(20)))
    return _pkcs12(mac=_tlv(0x30, digest, _tlv(4, b"saltsalt"), _tlv(2, b"\x7f\xff\xff\xff")))


def _many_slow_bags() -> bytes:
    """Each bag asks for just as much work as one may, none is checked before it is paid for."""
    rounds = _tlv(2, (390_000).to_bytes(4, "big"))
    scheme = _tlv(0x30, bytes.fromhex("060a2a864886f70d010c0103"), _tlv(0x30, _tlv(4, b"saltsalt"), rounds))
    info = _tlv(0x30, scheme, _tlv(4, bytes(48)))
    bag = _tlv(0x30, bytes.fromhex("060b2a864886f70d010c0a0102"), _tlv(0xA0, info))
    data = bytes.fromhex("06092a864886f70d010701")
    safe = _tlv(0x30, data, _tlv(0xA0, _tlv(4, _tlv(0x30, *[bag] * 500))))
    return _pkcs12(safe)


def _slow_rc2() -> bytes:
    scheme = _tlv(
        0x30, bytes.fromhex("060a2a864886f70d010c0106"), _tlv(0x30, _tlv(4, b"saltsalt"), _tlv(2, b"\1"))
    )  # fmt: skip
    inner = _tlv(0x30, bytes.fromhex("06092a864886f70d010701"), scheme, _tlv(0x80, bytes(64 * 1024)))
    encrypted = bytes.fromhex("06092a864886f70d010706")
    safe = _tlv(0x30, encrypted, _tlv(0xA0, _tlv(0x30, _tlv(2, b"\0"), inner)))
    return _pkcs12(*[safe] * 15)


def _jks(count: int) -> bytes:
    body = bytes.fromhex("feedfeed00000002") + count.to_bytes(4, "big")
    return body + (b"\0\0\0\2\0\1a" + bytes(8) + b"\0\5X.509\0\0\0\1A") * 36_000


KINDS: dict[str, Callable[[], bytes]] = {
    "noise": _noise,
    "zeros": lambda: bytes(MAX_INPUT),
    "letters": lambda: b"A" * MAX_INPUT,
    "dashes": lambda: b"-" * MAX_INPUT,
    "line ends": lambda: b"\n" * MAX_INPUT,
    "carriage returns": lambda: b"\r" * MAX_INPUT,
    "backslash-n": lambda: b"-----BEGIN " + _filled(b"\\n")[11:],
    "begins": lambda: _filled(b"-----BEGIN CERTIFICATE-----\n"),
    "ends": lambda: _filled(b"-----END CERTIFICATE-----\n"),
    "begins and ends": lambda: _filled(b"-----BEGIN A-----\n-----END A-----\n"),
    "begins of long labels": lambda: _filled(b"-----BEGIN " + b"A" * 60),
    "word begin": lambda: _filled(b"BEGIN "),
    "word begin with dashes": lambda: _filled("\u2013\u2013BEGIN A ".encode()),
    "spaces between dashes": lambda: _filled(b"----- "),
    "one open block": lambda: b"-----BEGIN CERTIFICATE-----\n" + _filled(b"A" * 64 + b"\n")[: MAX_INPUT - 100],
    "a block of short lines": lambda: _block(b"A\n" * 500_000),
    "a block of blank lines": lambda: _block(b"\n" * 1_000_000 + b"AAAA"),
    "a block of headers": lambda: _block(b"a: b\n" * 200_000),
    "a block with a colon line": lambda: _block(b"a" * 1_000_000 + b":"),
    "padding": lambda: _block(b"=" * 1_000_000),
    "UTF-16 noise": lambda: b"\xff\xfe" + _noise()[2:],
    "letters beyond ASCII": lambda: _filled("\U0001f512".encode()),
    "open sequences": lambda: _filled(b"\x30\x80"),
    "sequences inside sequences": lambda: _nested(60_000),
    "sequences of nothing": lambda: _tlv(0x30, b"\x30\x00" * 500_000),
    "integers": lambda: _tlv(0x30, b"\x02\x01\x00" * 349_000),
    "a PKCS#7 of nothing": lambda: _p7b(b"\x30\x00" * 500_000),
    "a PKCS#7 of lengths of eight octets": lambda: b"\x30\x80" + _filled(b"\x30\x88" + bytes(8))[: MAX_INPUT - 10],
    "a certificate of a mebibyte": lambda: _mebibyte_certificate(),
    "names": _many_names,
    "addresses": _many_addresses,
    "a long subject": _long_name,
    "a thousand namesakes": _thousand_namesakes,
    "a thousand copies": _thousand_good,
    "name constraints": _constraints,
    "huge RSA keys": _huge_exponent,
    "a PKCS#12 with a slow MAC": _slow_mac,
    "a PKCS#12 of slow bags": _many_slow_bags,
    "a PKCS#12 of RC2": _slow_rc2,
    "a JKS of trusted certificates": lambda: _jks(999),
    "a JKS that claims too many": lambda: _jks(2**31),
    "base64 of letters": lambda: base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + b"A" * 780_000),
    "base64 of base64": lambda: base64.b64encode(base64.b64encode(bytes(589_000))),
    "ten mebibytes": lambda: random.Random(8).randbytes(10 * 1024 * 1024),
}  # fmt: skip


def _nested(levels: int) -> bytes:
    """Built from the inside without copying the whole again at each level."""
    heads: list[bytes] = []
    size = 0
    for _ in range(levels):
        head = _der.tlv(0x30, b"")[:1] + _length(size)
        heads.append(head)
        size += len(head)
    return b"".join(reversed(heads))


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def _p7b(inside: bytes) -> bytes:
    data = _tlv(0x30, bytes.fromhex("06092a864886f70d010701"))
    signed = _tlv(0x30, _tlv(2, b"\1"), _tlv(0x31), data, _tlv(0xA0, inside), _tlv(0x31))
    return _tlv(0x30, bytes.fromhex("06092a864886f70d010702"), _tlv(0xA0, signed))


@cache
def made(kind: str) -> bytes:
    return KINDS[kind]()


def all_kinds() -> Iterator[tuple[str, bytes]]:
    for kind in KINDS:
        yield kind, made(kind)
