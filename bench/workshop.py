"""The workshop on one core: checks with and without lint, archives, and how long a command takes that just started."""

from __future__ import annotations

import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certwright.entry.cli.x509_work import Checker, Task
from certwright.x509.bundles import Contents, Server, archive

_SERVER_AUTH = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")


class Authority:
    """A root and an intermediate with P-256 keys, and leaves as a public CA would make them."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=0)
        root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = self._ca("Bench Root", root_key, "Bench Root", root_key, None)
        self.intermediate = self._ca("Bench Issuing CA", self._key, "Bench Root", root_key, 0)

    def _begun(
        self, subject: x509.Name, issuer: str, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(_name(issuer)).public_key(key)
            .serial_number(secrets.randbits(128) | 1 << 126)
            .not_valid_before(self._now - timedelta(hours=1)).not_valid_after(self._now + timedelta(days=days))
        )  # fmt: skip

    def _ca(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        by: ec.EllipticCurvePrivateKey,
        length: int | None,
    ) -> x509.Certificate:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        return (
            self._begun(_name(name), issuer, key.public_key(), 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .sign(by, hashes.SHA256())
        )  # fmt: skip

    def leaf(self, host: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        policy = x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)
        made = (
            self._begun(x509.Name([]), "Bench Issuing CA", key.public_key(), 90)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([_SERVER_AUTH]), critical=False)
            .add_extension(x509.CertificatePolicies([policy]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip
        return made, key


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@dataclass(frozen=True)
class Workshop:
    """Per second of one core, one value a run; `cold` in milliseconds until a command that just started has ended."""

    check: list[float]
    check_lint: list[float]
    check_openssl: list[float]
    bundle: dict[str, list[float]]
    cold: list[float]
    cold_openssl: list[float]


def workshop(home: Path, runs: int, seconds: float) -> Workshop:
    authority = Authority()
    leaf, key = authority.leaf("shop.example.com")
    files = {"leaf.pem": pem(leaf), "chain.pem": pem(authority.intermediate), "root.pem": pem(authority.root),
             "key.pem": key_pem(key)}  # fmt: skip
    for name, text in files.items():
        (home / name).write_text(text)
    whole = (files["leaf.pem"] + files["chain.pem"] + files["key.pem"]).encode()
    (home / "all.pem").write_bytes(whole)
    now = datetime.now(UTC)
    plain, linted = (Checker(Task(at=now, lint=lint)) for lint in (False, True))
    for checker in (plain, linted):
        report = checker.report(whole)
        assert report.ok, [finding.code for finding in report.findings]
    contents = Contents(
        "shop", [one.public_bytes(serialization.Encoding.DER) for one in (leaf, authority.intermediate)], key
    )
    found = Workshop([], [], [], {server.value: [] for server in Server}, [], [])
    for _ in range(runs):
        found.check.append(_per_core_second(lambda: plain.report(whole), seconds))
        found.check_lint.append(_per_core_second(lambda: linted.report(whole), seconds))
        found.check_openssl.append(_openssl_checks(home, seconds))
        for server in Server:
            root = authority.root.public_bytes(serialization.Encoding.DER) if server is Server.CHAIN else None
            made = Contents(contents.name, contents.chain, key, root)
            pack = partial(archive, server, made, at=now, random=secrets.token_bytes)
            found.bundle[server.value].append(_per_core_second(pack, seconds / 6))
    for _ in range(max(runs, 7)):
        found.cold.append(_until_ended([sys.executable, "-m", "certwright", "x509", "check", str(home / "all.pem")]))
        found.cold_openssl.append(_until_ended(_verify(home)))
    return found


def _per_core_second(act: Callable[[], object], seconds: float) -> float:
    """By the CPU time of this process, so that other work on the machine counts little."""
    act()
    done, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        act()
        done += 1
    return done / spent


def _verify(home: Path) -> list[str]:
    return ["openssl", "verify", "-CAfile", str(home / "root.pem"), "-untrusted", str(home / "chain.pem"),
            str(home / "leaf.pem")]  # fmt: skip


def _openssl_checks(home: Path, seconds: float) -> float:
    """What a careful script does: verify the chain, read the certificate's and the key's public half. Three processes
    each time."""
    commands = [
        _verify(home),
        ["openssl", "x509", "-in", str(home / "leaf.pem"), "-noout", "-pubkey"],
        ["openssl", "pkey", "-in", str(home / "key.pem"), "-check", "-pubout"],
    ]
    done, begun = 0, _children()
    while (spent := _children() - begun) < seconds:
        for command in commands:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done += 1
    return done / spent


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _until_ended(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"}
    )
    return (time.perf_counter() - begun) * 1000
