"""The workshop for processes of a pool: plain values in, plain values out, nothing that can't be pickled.

Randomness is the machine's own here: these functions are where work ends, not rules.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
from certwright.kernel.problems import Invalid, Problem
from certwright.x509 import _pem, bundles, keys
from certwright.x509.certificates import CertificateFacts, load, load_with_facts, signed_by
from certwright.x509.csr import make_csr
from certwright.x509.workshop import chains, containers, convert, decode, lint, revocation, upload
from certwright.x509.workshop.chains import Link, Pool
from certwright.x509.workshop.containers import Contents, Kind
from certwright.x509.workshop.policy import Blocklist
from certwright.x509.workshop.revocation import Sources
from certwright.x509.workshop.upload import Known, Options, Purpose
from certwright.x509.workshop.words import Finding, Place, Repair


@dataclass(frozen=True, slots=True)
class Upload:
    """What somebody gives: files as they came. Its repr shows none of it."""

    certificate: bytes = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    chain: bytes | None = field(default=None, repr=False)
    passphrase: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Around:
    """What is known beyond the upload, as `upload.Known` means it, in plain values.

    `pool`: intermediates and roots, DER. `neighbours`: certificates (DER) whose RSA moduli are compared. `lint`: ask
    pkilint, too. `blocklist`: a file of keys known to be weak.
    """

    pool: tuple[bytes, ...] = ()
    certificates: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    neighbours: tuple[bytes, ...] = ()
    revoked: dict[str, str] = field(default_factory=dict)
    blocklist: str | None = None
    lint: bool = False


@dataclass(frozen=True, slots=True)
class SealableKey:
    """The key of an upload on its way to where it is sealed."""

    pkcs8: bytes = field(repr=False)
    algorithm: str
    spki_sha256: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of an upload: as `upload.Report`, in plain values.

    `issuer`: the certificate (DER) that signed the leaf, if it is there. `missing`: the name of the issuer that isn't
    there, "" where the chain is complete. `issuer_urls`: where that can be fetched. `sources`: where to ask whether the
    leaf was revoked.
    """

    repaired: tuple[Repair, ...]
    findings: tuple[Finding, ...]
    leaf: CertificateFacts | None
    chain: tuple[CertificateFacts, ...]
    added: tuple[str, ...]
    key: SealableKey | None
    issuer: bytes | None
    missing: str
    issuer_urls: tuple[str, ...]
    sources: Sources


def judge(given: Upload, options: Options, around: Around) -> Judged:
    """Judges an upload. Raises nothing for what it is given; ValueError or OSError for a blocklist that is none."""
    known = Known(
        pool=Pool(around.pool), certificates=around.certificates, keys=around.keys,
        moduli=tuple(_moduli(around.neighbours)), revoked=around.revoked,
        blocklist=_blocklist(around.blocklist) if around.blocklist else None,
    )  # fmt: skip
    report = upload.check(
        given.certificate, options=options, key=given.key, chain=given.chain, passphrase=given.passphrase, known=known
    )
    leaf, findings = report.leaf, report.findings
    is_public = options.policy is not None and options.purpose is Purpose.SERVER
    if around.lint and is_public and leaf is not None and not leaf.self_signed:
        findings += lint.findings(leaf.der, Place(upload.CERTIFICATE))
    issuer, missing = None, ""
    # What stands beside a client CA are other CAs: servers build the chains of their clients themselves.
    if leaf is not None and options.purpose is Purpose.SERVER:
        issuer, missing = _above(leaf, report.chain, known.pool)
    key = None
    if report.key is not None:
        public = report.key.public_key()
        key = SealableKey(
            keys.to_pkcs8_der(report.key), keys.describe_public_key(public), keys.spki_sha256(public)
        )  # fmt: skip
    return Judged(
        report.repaired, findings, leaf, report.chain, tuple(facts.sha256 for facts in report.added), key, issuer,
        missing, report.issuer_urls, Sources() if leaf is None else revocation.sources(leaf),
    )  # fmt: skip


def _above(leaf: CertificateFacts, chain: Sequence[CertificateFacts], pool: Pool) -> tuple[bytes | None, str]:
    """The leaf's issuer, and the name of the one where the path of intermediates stops short.

    A path is complete with one intermediate: which root it ends at is the client's affair.
    """
    if leaf.self_signed:
        return leaf.der, ""
    if chain:
        return chain[0].der, ""
    cert = load(leaf.der)
    root = next((link for link in pool.named(leaf.issuer) if signed_by(cert, link.cert)), None)
    return (root.facts.der, "") if root else (None, leaf.issuer)


def _moduli(ders: Sequence[bytes]) -> list[int]:
    found = []
    for der in ders:
        public = load(der).public_key()
        if isinstance(public, rsa.RSAPublicKey):
            found.append(public.public_numbers().n)
    return found


@lru_cache(maxsize=1)
def _blocklist(path: str) -> Blocklist:
    with Path(path).open("rb") as file:
        # Mapped, not read: the badkeys list has 60 MB.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Blocklist(mapped)  # type: ignore[arg-type]  # read like bytes


def authorities_in(data: bytes) -> tuple[CertificateFacts, ...]:
    """The CA certificates of what an AIA address served: DER, PKCS#7 or PEM. At most five."""
    found = []
    for item in containers.open_input(data, "fetched").of(Kind.CERTIFICATE)[:20]:
        try:
            _, facts = load_with_facts(item.der)
        except Problem:
            continue
        if facts.is_ca or facts.self_signed:
            found.append(facts)
    return tuple(found[:5])


# --- the tools ----------------------------------------------------------------------------------------------------


def inspect(data: bytes, passphrase: bytes | None) -> dict[str, Any]:
    """What a file holds, as `decode.describe` says it."""
    return decode.describe(containers.open_input(data, "content", passphrase))


def _material(inputs: Sequence[bytes], passphrase: bytes | None) -> convert.Material:
    return convert.material(_opened(inputs, passphrase))


def _opened(inputs: Sequence[bytes], passphrase: bytes | None) -> list[Contents]:
    return [containers.open_input(data, f"input {n}", passphrase) for n, data in enumerate(inputs, 1)]


def converted(
    inputs: Sequence[bytes], passphrase: bytes | None, to: convert.Format, wish: convert.Wish, at: datetime
) -> tuple[bytes, str]:
    """All inputs as one file of the format `to`, and what to call it without an ending. Raises Invalid."""
    source = _material(inputs, passphrase)
    return convert.convert(source, to, wish, at=at, random=os.urandom), _title(source)


def _title(source: convert.Material) -> str:
    if not source.certificates:
        return "converted"
    leaf = source.certificates[0]
    return bundles.safe_file_name((*leaf.dns_names, *leaf.ip_addresses, leaf.common_name or "certificate")[0])


def joined(inputs: Sequence[bytes], passphrase: bytes | None) -> tuple[bytes, str]:
    """All inputs as one PEM, and what to call it. Raises Invalid."""
    source = _material(inputs, passphrase)
    return convert.join(source), _title(source)


def parts(inputs: Sequence[bytes], passphrase: bytes | None) -> dict[str, bytes]:
    """Each part as a PEM of its own, by file name. Raises Invalid."""
    return convert.split(_material(inputs, passphrase))


def matched(inputs: Sequence[bytes], passphrase: bytes | None) -> tuple[bool, tuple[dict[str, str], ...]]:
    """Whether the keys of all inputs are one: of certificates only the first of each input is meant, because the
    intermediates beside it have keys of their own. Raises Invalid `match_one_only`."""
    found: list[dict[str, str]] = []
    meant: list[str] = []
    for contents in _opened(inputs, passphrase):
        if contents.findings:
            first = contents.findings[0]
            raise Invalid(first.code, first.message, fix=first.fix, field=first.where.input)
        seen = False
        for half in convert.halves(contents):
            is_certificate = half.kind is Kind.CERTIFICATE
            if not (is_certificate and seen):
                meant.append(half.spki_sha256)
                found.append(
                    {"kind": half.kind.value, "where": half.where, "key_algorithm": half.key_algorithm,
                     "spki_sha256": half.spki_sha256}
                )  # fmt: skip
            seen = seen or is_certificate
    if len(meant) < 2:
        raise Invalid(
            "match_one_only", "There are not two things with a key in it.", field="inputs",
            fix="Give a certificate and a key, or a request and a key.",
        )  # fmt: skip
    return len(set(meant)) == 1, tuple(found)


def request(
    names: Sequence[str], algorithm: str, key: bytes | None, passphrase: bytes | None, *, common_name: bool
) -> tuple[str, str | None]:
    """A signing request (PEM) and the key made for it (PEM), None where one was given. Raises Invalid."""
    dns = [parse_dns_name(name).ascii for name in names if not looks_like_ip(name)]
    ips = [str(parse_ip(name)) for name in names if looks_like_ip(name)]
    if key is not None:
        private = _only_key(key, passphrase)
    else:
        try:
            private = keys.generate(keys.KeyAlgorithm(algorithm))
        except ValueError:
            raise Invalid(
                "key_algorithm_unknown", f"There is no key algorithm {algorithm[:40]!r}.", field="key_algorithm",
                fix=f"Use one of: {', '.join(keys.KeyAlgorithm)}.",
            ) from None  # fmt: skip
    subject = (dns or ips)[0] if common_name and (dns or ips) else None
    der = make_csr(private, dns, ips, common_name=subject)
    pem = _pem.Block("CERTIFICATE REQUEST", der).text().decode()
    return pem, None if key is not None else keys.to_pkcs8_pem(private, passphrase).decode()


def _only_key(data: bytes, passphrase: bytes | None) -> keys.PrivateKey:
    found = _material([data], passphrase).key
    if found is None:
        raise Invalid(
            "convert_key_needed", "There is no single private key in it.", field="key",
            fix="Give a file with exactly one private key.",
        )  # fmt: skip
    return found


def key_as(data: bytes, passphrase: bytes | None, new: bytes | None, form: convert.Format) -> bytes:
    """A key as PEM of another form, encrypted if there is a new passphrase. Raises Invalid."""
    return convert.key_form(_only_key(data, passphrase), form, new)


def certificates_of(inputs: Sequence[bytes], passphrase: bytes | None) -> bytes:
    """The certificates of all inputs as PEM, the leaf first. Raises Invalid `convert_nothing`."""
    return convert.join(replace(_material(inputs, passphrase), keys=(), requests=(), lists=()))


def archive(
    inputs: Sequence[bytes],
    passphrase: bytes | None,
    server: bundles.Server,
    name: str,
    pool: Sequence[bytes],
    at: datetime,
    *,
    legacy: bool,
) -> tuple[bytes, str]:
    """The zip for a server, and the name in its files; the chain is completed from `pool`. Raises Invalid."""
    source = _material(inputs, passphrase)
    if not source.certificates:
        raise Invalid(
            "convert_nothing", "There is no certificate in it.", field="inputs",
            fix="Give the certificate, its chain and its key.",
        )  # fmt: skip
    if source.keys and source.key is None:
        raise Invalid(
            "key_mismatch", "The private key isn't the one this certificate was made for.", field="inputs",
            fix="Use the key made with the certificate's request.",
        )  # fmt: skip
    links = [Link(*load_with_facts(facts.der), Place("certificate")) for facts in source.certificates]
    chain = chains.build(links[0], links[1:], Pool(pool))
    title = name or _title(source)
    contents = bundles.Contents(
        title, [link.facts.der for link in chain.path], source.key, chain.root.facts.der if chain.root else None
    )
    octets = bundles.archive(server, contents, at=at, random=os.urandom, legacy=legacy)
    return octets, bundles.safe_file_name(title)
