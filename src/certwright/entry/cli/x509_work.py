"""The work behind `certwright x509`: files in, documents out. Imported when a command runs, also by its processes."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import rsa

from certwright.entry.cli.errors import USAGE, CliError
from certwright.entry.public_policy import public_policy
from certwright.kernel.problems import Problem
from certwright.x509.certificates import load_with_facts
from certwright.x509.workshop import containers, upload
from certwright.x509.workshop.chains import Link, Pool, build
from certwright.x509.workshop.containers import Contents, Kind
from certwright.x509.workshop.policy import Blocklist
from certwright.x509.workshop.upload import Known, Options, Purpose, Report
from certwright.x509.workshop.words import Place

if TYPE_CHECKING:
    from certwright.x509.bundles import Contents as BundleContents
    from certwright.x509.crl import CrlFacts
    from certwright.x509.workshop.convert import Material

STDIN = "-"
# One byte more than is read says that there is more.
_READ = containers.MAX_INPUT + 1
# Starting processes costs about what checking this many files does.
PARALLEL_FROM = 64


def read_input(path: str) -> bytes:
    """The first mebibyte of a file, or of standard input for `-`. Raises CliError `file_unreadable`."""
    if path == STDIN:
        return sys.stdin.buffer.read(_READ) if hasattr(sys.stdin, "buffer") else sys.stdin.read(_READ).encode()
    try:
        with Path(path).open("rb") as file:
            return file.read(_READ)
    except OSError as error:
        raise CliError("file_unreadable", f"{path} can't be read: {error.strerror}.", exit_code=USAGE) from error


def read_passphrase(path: str | None) -> bytes | None:
    """The first line of a file, without its end."""
    if path is None:
        return None
    return read_input(path).split(b"\n", 1)[0].removesuffix(b"\r")


def opened(path: str, passphrase: bytes | None = None) -> Contents:
    """What is in a file, called by the file's name."""
    return containers.open_input(read_input(path), "standard input" if path == STDIN else Path(path).name, passphrase)


def certificates_in(paths: Sequence[str], passphrase: bytes | None = None) -> Iterator[tuple[str, bytes]]:
    """Every certificate (DER) of files and of the files in directories; files that hold none are passed over."""
    for path in paths:
        inside = sorted(str(p) for p in Path(path).iterdir() if p.is_file()) if Path(path).is_dir() else [path]
        for file in inside:
            for item in opened(file, passphrase).of(Kind.CERTIFICATE):
                yield file, item.der


@dataclass(frozen=True, slots=True)
class Task:
    """What a `check` was asked for; sent to each process, which reads the files named here once."""

    at: datetime
    key: str | None = None
    chain: str | None = None
    passphrase: bytes | None = field(default=None, repr=False)
    strict: bool = False
    private: bool = False
    client_ca: bool = False
    lint: bool = False
    pool: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    crls: tuple[str, ...] = ()
    blocklist: str | None = None


class Checker:
    """A task with everything read that is the same for all files."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._key = read_input(task.key) if task.key else None
        self._chain = read_input(task.chain) if task.chain else None
        self._pool = Pool(der for _, der in certificates_in(task.pool))
        self._options = Options(at=task.at, policy=None if task.private else public_policy(), strict=task.strict)
        self._certificates: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._moduli: list[int] = []
        for file, der in certificates_in(task.against):
            self._remember(file, der)
        self._crls = [self._read_crl(path) for path in task.crls]
        self._blocklist = _blocklist(task.blocklist)

    def _remember(self, file: str, der: bytes) -> None:
        try:
            cert, facts = load_with_facts(der)
        except Problem:
            return
        self._certificates.setdefault(facts.sha256, file)
        self._keys.setdefault(facts.spki_sha256, file)
        public = cert.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            self._moduli.append(public.public_numbers().n)

    def _read_crl(self, path: str) -> CrlFacts:
        from certwright.x509 import crl

        try:
            return crl.read_crl(read_input(path))
        except Problem as problem:
            raise CliError(problem.code, f"{path}: {problem.message}", problem.fix, exit_code=USAGE) from problem

    def check(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        """The document of one file. Raises CliError `file_unreadable`."""
        report = self.report(read_input(path) if data is None else data)
        return {"file": path, **report.as_dict()}

    def report(self, data: bytes) -> Report:
        first = self._judged(data, self._known({}))
        revoked = self._revoked(first)
        report = self._judged(data, self._known(revoked)) if revoked else first
        return _with_lint(report) if self._task.lint else report

    def _known(self, revoked: dict[str, str]) -> Known:
        return Known(
            self._pool, self._certificates, self._keys, tuple(self._moduli), revoked=revoked, blocklist=self._blocklist
        )

    def _judged(self, data: bytes, known: Known) -> Report:
        return upload.check(
            data,
            options=self._options_for(data),
            key=self._key,
            chain=self._chain,
            passphrase=self._task.passphrase,
            known=known,
        )

    def _options_for(self, data: bytes) -> Options:
        """A file of CA certificates alone is judged as such, not as a server's."""
        from dataclasses import replace

        if self._task.client_ca or (self._key is None and _only_authorities(data, self._task.passphrase)):
            return replace(self._options, purpose=Purpose.CLIENT_CA)
        return self._options

    def _revoked(self, report: Report) -> dict[str, str]:
        leaf = report.leaf
        if leaf is None:
            return {}
        for listed in self._crls:
            if listed.issuer == leaf.issuer and leaf.serial in listed.entries:
                at, reason = listed.entries[leaf.serial]
                return {leaf.sha256: f"on {at:%Y-%m-%d %H:%M} UTC ({reason.replace('_', ' ')})"}
        return {}


def _only_authorities(data: bytes, passphrase: bytes | None) -> bool:
    """Whether it is nothing but CAs: each says so twice, which a server's own self-signed certificate hardly does."""
    if b"PRIVATE KEY" in data:
        return False
    contents = containers.open_input(data, upload.CERTIFICATE, passphrase)
    return not contents.of(Kind.KEY) and upload.is_authorities(contents)


def _with_lint(report: Report) -> Report:
    from dataclasses import replace

    from certwright.x509.workshop import lint

    if report.leaf is None:
        return report
    found = lint.findings(report.leaf.der, Place(upload.CERTIFICATE))
    return replace(report, findings=(*report.findings, *found))


def _blocklist(path: str | None) -> Blocklist | None:
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            # Mapped, not read: the badkeys list has 60 MB.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # A memory map is read like bytes, but is none to the type checker.
        return Blocklist(mapped)  # type: ignore[arg-type]  # read like bytes
    except (OSError, ValueError) as error:
        raise CliError("file_unreadable", f"{path} is no blocklist: {error}.", exit_code=USAGE) from error


# --- many files --------------------------------------------------------------------------------------------------

_checker: Checker | None = None


def _start(task: Task) -> None:
    global _checker
    _checker = Checker(task)


def _work(path: str) -> dict[str, Any]:
    assert _checker is not None
    return _checker.check(path)


def check_all(task: Task, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The documents of all files, in the order of the paths; many of them on all cores."""
    cores = os.cpu_count() or 1
    if len(paths) < PARALLEL_FROM or cores == 1 or STDIN in paths:
        checker = Checker(task)
        for path in paths:
            yield checker.check(path)
        return
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(cores, initializer=_start, initargs=(task,)) as pool:
        yield from pool.map(_work, paths, chunksize=16)


# --- chains and bundles ------------------------------------------------------------------------------------------

_MAX_FETCHES = 4
_MAX_FETCHED = 256 * 1024


def complete_chain(
    path: str, pool: Sequence[str], passphrase: bytes | None, at: datetime, *, fetch: bool, networks: Sequence[str]
) -> tuple[Report, str]:
    """The report on a certificate whose chain was completed, and the name of the issuer still missing ("" if none).

    Addresses are fetched through the guarded client: no private addresses unless `networks` opens them.
    """
    data = read_input(path)
    known = [der for _, der in certificates_in(pool)]
    options = Options(at=at)
    report = upload.check(data, options=options, passphrase=passphrase, known=Known(Pool(known)))
    for _ in range(_MAX_FETCHES if fetch else 0):
        if not report.issuer_urls:
            break
        found = _fetched(report.issuer_urls[0], networks)
        if not found:
            break
        known += found
        report = upload.check(data, options=options, passphrase=passphrase, known=Known(Pool(known)))
    is_missing = any(f.code in ("chain_missing", "chain_broken") for f in report.findings)
    return report, report.leaf.issuer if is_missing and report.leaf else ""


def _fetched(url: str, networks: Sequence[str]) -> list[bytes]:
    """The certificates at an address: DER, PKCS#7 or PEM, at most 256 KiB, within ten seconds."""
    import asyncio

    from certwright.entry.cli import output
    from certwright.platform.addresses import AddressGuard
    from certwright.platform.egress import Egress, EgressProblem
    from certwright.platform.resolver import Resolver

    try:
        guard = AddressGuard.of(networks)
    except ValueError as error:
        raise CliError("usage", f"--allow-network: {error}.", exit_code=USAGE) from error
    egress = Egress(Resolver(guard=guard), guard)
    try:
        answer = asyncio.run(egress.fetch(url, max_bytes=_MAX_FETCHED, max_redirects=2))
    except EgressProblem as problem:
        output.note(f"{url}: {problem.message}")
        return []
    if answer.status != 200:
        output.note(f"{url}: the server answered {answer.status}.")
        return []
    return [item.der for item in containers.open_input(answer.body, "fetched").of(Kind.CERTIFICATE)]


def chain_document(path: str, report: Report, missing: str) -> dict[str, Any]:
    """What `chain --json` prints."""
    assert report.leaf is not None
    added = {facts.sha256 for facts in report.added}
    return {
        "file": path,
        "complete": not missing,
        "missing": missing or None,
        "chain": [{**upload.summary(facts), "added": facts.sha256 in added} for facts in (report.leaf, *report.chain)],
        "pem": report.certificate_pem + report.chain_pem,
    }


def bundle_contents(source: Material, name: str, pool: Sequence[str]) -> BundleContents:
    """What goes into an archive: the leaf, its chain completed from the pool, its root apart, its key."""
    from certwright.x509 import bundles

    if not source.certificates:
        raise CliError("convert_nothing", "There is no certificate in these files.")
    if source.keys and source.key is None:
        raise CliError("key_mismatch", "The private key isn't the one this certificate was made for.")
    links = [Link(*load_with_facts(facts.der), Place("certificate")) for facts in source.certificates]
    chain = build(links[0], links[1:], Pool(der for _, der in certificates_in(pool)))
    leaf = source.certificates[0]
    title = name or (leaf.dns_names + leaf.ip_addresses + (leaf.common_name or "certificate",))[0]
    return bundles.Contents(
        title, [link.facts.der for link in chain.path], source.key, chain.root.facts.der if chain.root else None
    )
