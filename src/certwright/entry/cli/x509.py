"""`certwright x509 …`: the workshop on this machine, without a server: check, look into, match, convert, pack."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import ending, group
from certwright.entry.cli.errors import FAILED, USAGE, CliError

if TYPE_CHECKING:
    from certwright.x509.workshop.convert import Material
    from certwright.x509.workshop.upload import Report

app = group("x509", "Check, repair, look into and convert certificates and keys; no server is needed.")
app.pretty_exceptions_enable = False

Json = Annotated[bool, typer.Option("--json", help="Print a JSON document instead of text.")]
File = Annotated[str, typer.Argument(help="File, or - for standard input; any format, told by its content.")]
Files = Annotated[list[str], typer.Argument(help="Files, patterns such as '*.pem', or - for standard input.")]
KeyFile = Annotated[str | None, typer.Option("--key", help="File with the private key.")]
PassphraseFile = Annotated[
    str | None, typer.Option("--passphrase-file", help="File whose first line opens keys and stores.")
]
NewPassphraseFile = Annotated[
    str | None, typer.Option("--out-passphrase-file", help="File whose first line protects what is written.")
]
Out = Annotated[str, typer.Option("--out", "-o", help="File to write; - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
Pools = Annotated[
    list[str] | None, typer.Option("--pool", help="File or directory of known CA certificates; may be repeated.")
]
Legacy = Annotated[bool, typer.Option("--legacy", help="Older encryption, for programs of before 2019.")]


class Format(StrEnum):
    """What `convert` writes."""

    PEM = "pem"
    DER = "der"
    P7B = "p7b"
    PFX = "pfx"
    JKS = "jks"
    PKCS8 = "pkcs8"
    PKCS1 = "pkcs1"
    SEC1 = "sec1"


class For(StrEnum):
    """What `bundle` packs for."""

    NGINX = "nginx"
    APACHE = "apache"
    TOMCAT = "tomcat"
    IIS = "iis"
    WEBLOGIC = "weblogic"
    RESIN = "resin"
    HAPROXY = "haproxy"
    KUBERNETES = "kubernetes"
    PEM = "pem"
    DER = "der"
    P7B = "p7b"
    CHAIN = "chain"


class NewKey(StrEnum):
    """The keys `csr` makes."""

    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"


class Purpose(StrEnum):
    """What `check` judges a file for."""

    AUTO = "auto"
    CLIENT_CA = "client-ca"


def run(arguments: Sequence[str]) -> None:
    """These commands alone, without loading the others."""
    ending(lambda: app(args=list(arguments), prog_name="certwright x509"))


# --- check -------------------------------------------------------------------------------------------------------


@app.command()
def check(
    files: Files,
    key: KeyFile = None,
    chain: Annotated[str | None, typer.Option("--chain", help="File with the intermediates.")] = None,
    passphrase_file: PassphraseFile = None,
    strict: Annotated[bool, typer.Option("--strict", help="PEM only, key without passphrase, chain complete.")] = False,
    at: Annotated[str | None, typer.Option("--at", help="Judge for this moment (RFC 3339); default now.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Leave out what only public CAs must keep to.")] = False,
    purpose: Annotated[
        Purpose, typer.Option(help="auto: a server's, or CAs where there are only such; client-ca: CAs.")
    ] = Purpose.AUTO,
    pool: Pools = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Other certificates: tells duplicates, equal keys and shared primes."),
    ] = None,
    crl: Annotated[list[str] | None, typer.Option("--crl", help="Revocation list to look into.")] = None,
    blocklist: Annotated[
        str | None, typer.Option("--blocklist", help="List of weak keys (badkeys or openssl-blacklist format).")
    ] = None,
    lint: Annotated[bool, typer.Option("--lint", help="Ask pkilint, too; takes a second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each file.")] = False,
) -> None:
    """Say what is wrong with certificates, what could be repaired, and how to fix the rest.

    Exit code 0: nothing at error severity; 1: an error; 2: used wrongly.
    """
    from certwright.entry.cli import x509_work as work

    task = work.Task(
        at=_moment(at), key=key, chain=chain, passphrase=work.read_passphrase(passphrase_file), strict=strict,
        private=private, client_ca=purpose is Purpose.CLIENT_CA, lint=lint, pool=tuple(pool or ()),
        against=tuple(against or ()), crls=tuple(crl or ()), blocklist=blocklist,
    )  # fmt: skip
    paths = _expanded(files)
    failed = 0
    for document in _with_progress(work.check_all(task, paths), len(paths)):
        failed += not document["ok"]
        if as_json:
            _line(document)
        else:
            _show_check(document)
    if len(paths) > 1 and not as_json:
        output.note(f"{len(paths)} files, {failed} with errors.")
    if failed and not as_json:
        output.note("More about a finding: certwright x509 explain CODE")
    if failed:
        raise typer.Exit(FAILED)


def _show_check(document: Mapping[str, Any]) -> None:
    findings = document["findings"]
    said = "usable" if document["ok"] else "not usable"
    output.say(f"{document['file']}: {said}")
    leaf = document["leaf"]
    if leaf:
        names = ", ".join(leaf["names"][:5]) or leaf["subject"] or "no names"
        output.say(f"  {_clean(names)} ({leaf['key_algorithm']}, until {leaf['not_after'][:10]})")
    if document["repaired"]:
        output.say(f"  repaired: {', '.join(document['repaired'])}")
    for finding in findings:
        output.say(f"  {finding['severity']}: {finding['message']} [{finding['code']}]")
        output.say(f"      {finding['where']}. {finding['fix']}")


@app.command()
def explain(code: Annotated[str, typer.Argument(help="Code of a finding or a repair, such as chain_missing.")]) -> None:
    """Print the guide's page about a finding: how it comes about, how to see it, how to mend it."""
    from certwright.entry.guide import guide_pages
    from certwright.x509.workshop.words import CODES, REPAIRS

    page = guide_pages().get(f"findings/{code}") if code in CODES or code in REPAIRS else None
    if page is not None:
        output.say(page.read_text(encoding="utf-8").rstrip())
    elif code in REPAIRS:
        output.say(f"{code}: {REPAIRS[code]}.")
    else:
        raise CliError(
            "finding_unknown", f"There is no finding {code[:40]!r}.", "Codes stand in brackets behind each finding.",
            exit_code=USAGE,
        )  # fmt: skip


# --- looking -----------------------------------------------------------------------------------------------------


@app.command()
def inspect(files: Files, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Show what files hold: certificates, requests, keys, revocation lists, PKCS#7, PKCS#12, JKS, OCSP responses."""
    from certwright.entry.cli import x509_work as work
    from certwright.x509.workshop import decode

    passphrase = work.read_passphrase(passphrase_file)
    unreadable = False
    for path in _expanded(files):
        document = {"file": path, **decode.describe(work.opened(path, passphrase))}
        unreadable = unreadable or bool(document["findings"])
        if as_json:
            _line(document)
        else:
            _tree(document)
    if unreadable:
        raise typer.Exit(FAILED)


def _tree(document: Mapping[str, Any]) -> None:
    output.say(f"{document['file']} ({document['container']})")
    if document["repaired"]:
        output.say(f"├─ repaired: {', '.join(document['repaired'])}")
    for finding in document["findings"]:
        output.say(f"├─ {finding['severity']}: {finding['message']} [{finding['code']}] {finding['fix']}")
    for number, part in enumerate(document["parts"], 1):
        last = number == len(document["parts"])
        output.say(f"{'└─' if last else '├─'} {part['kind']} ({part['where']})")
        stem = "   " if last else "│  "
        for key, value in part.items():
            if key in ("kind", "where") or value in (None, "", [], {}, False, 0):
                continue
            if isinstance(value, list) and value and isinstance(value[0], dict):
                output.say(f"{stem}├─ {key}")
                for inner in value:
                    output.say(f"{stem}│  {output.cell(inner, full=True)}")
            elif isinstance(value, dict):
                output.say(f"{stem}├─ {key}: {output.cell(value, full=True)}")
            else:
                output.say(f"{stem}├─ {key}: {output.cell(value, full=True)}")


@app.command()
def match(files: Files, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Say whether certificates, requests and keys belong together. Exit code 1 if they don't."""
    from certwright.entry.cli import x509_work as work
    from certwright.x509.workshop import convert

    passphrase = work.read_passphrase(passphrase_file)
    parts = []
    for path in _expanded(files):
        contents = work.opened(path, passphrase)
        _refuse_findings(path, contents.findings)
        for half in convert.halves(contents):
            parts.append(
                {"file": path, "kind": half.kind.value, "where": half.where, "key_algorithm": half.key_algorithm,
                 "spki_sha256": half.spki_sha256}
            )  # fmt: skip
    # Intermediates beside a leaf have keys of their own: only the first certificate of a file is meant.
    meant = [p for n, p in enumerate(parts) if p["kind"] != "certificate" or _is_first_certificate(parts, n)]
    if len(meant) < 2:
        raise CliError("match_one_only", "There are not two things with a key in these files.", exit_code=USAGE)
    good = len({part["spki_sha256"] for part in meant}) == 1
    if as_json:
        _line({"match": good, "parts": meant})
    else:
        columns = (("FILE", "file"), ("KIND", "kind"), ("KEY", "key_algorithm"), ("PUBLIC KEY SHA-256", "spki_sha256"))
        output.rows(meant, columns)
        output.say("They belong together." if good else "They don't belong together.")
    if not good:
        raise typer.Exit(FAILED)


def _is_first_certificate(parts: Sequence[Mapping[str, Any]], number: int) -> bool:
    file = parts[number]["file"]
    return not any(p["file"] == file and p["kind"] == "certificate" for p in parts[:number])


# --- turning into ------------------------------------------------------------------------------------------------


@app.command()
def convert(
    file: File,
    to: Annotated[Format, typer.Option("--to", help="What to write; the last three are for keys.")],
    out: Out,
    key: KeyFile = None,
    chain: Annotated[str | None, typer.Option("--chain", help="File with the intermediates.")] = None,
    passphrase_file: PassphraseFile = None,
    out_passphrase_file: NewPassphraseFile = None,
    alias: Annotated[str, typer.Option("--alias", help="Name of the entry in a PFX or JKS.")] = "",
    legacy: Legacy = False,
    force: Force = False,
) -> None:
    """Turn certificates and keys into another format. PFX and JKS take their passphrase from --out-passphrase-file,
    else from --passphrase-file."""
    import os

    from certwright.entry.cli import x509_work as work
    from certwright.x509.workshop import convert as converting

    source = _material([file, key, chain], passphrase_file)
    wanted = converting.Format(to.value)
    new = work.read_passphrase(out_passphrase_file)
    if new is None and to in (Format.PFX, Format.JKS):
        new = work.read_passphrase(passphrase_file) or _asked()
    wish = converting.Wish(new, legacy, alias)
    octets = converting.convert(source, wanted, wish, at=_now(), random=os.urandom)
    _save(out, octets, secret=source.has_key and to is not Format.P7B, force=force)


@app.command()
def chain(
    file: File,
    pool: Pools = None,
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Fetch missing issuers from the addresses certificates name.")
    ] = True,
    allow_network: Annotated[
        list[str] | None, typer.Option("--allow-network", help="Private network to fetch from; may be repeated.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File to write; - for standard output.")] = "-",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Complete and order the chain of a server certificate: from the file, the pool, then the network.

    Writes the certificate and its intermediates, without the root. Exit code 1 if an issuer is still missing.
    """
    from certwright.entry.cli import x509_work as work

    report, missing = work.complete_chain(
        file, pool or (), work.read_passphrase(passphrase_file), _now(), fetch=fetch, networks=allow_network or ()
    )
    if report.leaf is None:
        raise _first_problem(report)
    if as_json:
        _line(work.chain_document(file, report, missing))
    else:
        for facts in report.added:
            output.note(f"Added: {_clean(facts.subject)}")
        _save(out, (report.certificate_pem + report.chain_pem).encode(), secret=False, force=force)
    if missing:
        output.note(f"Still missing: {_clean(missing)}")
        raise typer.Exit(FAILED)


@app.command()
def split(
    file: File,
    out: Annotated[str, typer.Option("--out", "-o", help="Directory to write into.")],
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write each certificate, key, request and list of a file into a PEM file of its own."""
    from pathlib import Path

    from certwright.x509.workshop import convert as converting

    files = converting.split(_material([file], passphrase_file))
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError("file_unwritable", f"{out} can't be made: {error.strerror}.", exit_code=USAGE) from error
    if not force:
        for name in files:
            _refuse_existing(Path(out) / name)
    for name, octets in files.items():
        _save(str(Path(out) / name), octets, secret=name.startswith("key"), force=force, quiet=as_json)
    if as_json:
        _line({"files": [str(Path(out) / name) for name in files]})


@app.command()
def csr(
    names: Annotated[list[str], typer.Argument(help="Domain names and IP addresses, the primary one first.")],
    out: Out = "-",
    key: Annotated[str | None, typer.Option("--key", help="File with the key to use; else a new one is made.")] = None,
    new_key: Annotated[NewKey, typer.Option("--new-key", help="Kind of the new key.")] = NewKey.EC_P256,
    key_out: Annotated[str | None, typer.Option("--key-out", help="Where to write the new key.")] = None,
    passphrase_file: PassphraseFile = None,
    common_name: Annotated[bool, typer.Option("--common-name", help="Put the primary name into the subject.")] = False,
    force: Force = False,
) -> None:
    """Make a certificate signing request, with a key of yours or a new one."""
    from certwright.kernel.names import looks_like_ip, parse_dns_name, parse_ip
    from certwright.x509 import _pem, keys
    from certwright.x509.csr import make_csr

    if key is None and key_out is None:
        raise CliError("usage", "A new key needs a place.", "Add --key-out FILE, or --key FILE.", exit_code=USAGE)
    dns = [parse_dns_name(name).ascii for name in names if not looks_like_ip(name)]
    ips = [str(parse_ip(name)) for name in names if looks_like_ip(name)]
    if key is not None:
        found = _material([key], passphrase_file).key
        if found is None:
            raise CliError("key_missing", f"There is no single private key in {key}.", exit_code=FAILED)
        private = found
    else:
        assert key_out is not None
        private = keys.generate(keys.KeyAlgorithm(new_key.value))
        _save(key_out, keys.to_pkcs8_pem(private), secret=True, force=force)
    subject = (dns or ips)[0] if common_name else None
    request = make_csr(private, dns, ips, common_name=subject)
    _save(out, _pem.Block("CERTIFICATE REQUEST", request).text(), secret=False, force=force)


@app.command()
def bundle(
    files: Files,
    server: Annotated[For, typer.Option("--for", help="Which server, or which format.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The zip to write.")],
    key: KeyFile = None,
    pool: Pools = None,
    passphrase_file: PassphraseFile = None,
    name: Annotated[str, typer.Option("--name", help="What the files are called; default the primary name.")] = "",
    legacy: Legacy = False,
    force: Force = False,
) -> None:
    """Pack what a server needs: its files, a passphrase file where one is needed, and a note how to install them."""
    import os

    from certwright.entry.cli import x509_work as work
    from certwright.x509 import bundles

    source = _material([*_expanded(files), key], passphrase_file)
    contents = work.bundle_contents(source, name, pool or ())
    octets = bundles.archive(bundles.Server(server.value), contents, at=_now(), random=os.urandom, legacy=legacy)
    _save(out, octets, secret=contents.key is not None, force=force)


@app.command(name="encrypt-key")
def encrypt_key(
    file: File, out: Out, out_passphrase_file: NewPassphraseFile = None, passphrase_file: PassphraseFile = None,
    force: Force = False,
) -> None:  # fmt: skip
    """Write a key as PKCS#8 under a passphrase (AES-256)."""
    from certwright.entry.cli import x509_work as work
    from certwright.x509.workshop import convert as converting

    new = work.read_passphrase(out_passphrase_file) or _asked()
    _save(
        out,
        converting.key_form(_only_key(file, passphrase_file), converting.Format.PKCS8, new),
        secret=True,
        force=force,
    )


@app.command(name="decrypt-key")
def decrypt_key(file: File, out: Out, passphrase_file: PassphraseFile = None, force: Force = False) -> None:
    """Write a key as PKCS#8 without a passphrase, readable by you alone."""
    from certwright.x509.workshop import convert as converting

    _save(
        out,
        converting.key_form(_only_key(file, passphrase_file), converting.Format.PKCS8, None),
        secret=True,
        force=force,
    )


# --- shared ------------------------------------------------------------------------------------------------------


def _now() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)


def _moment(text: str | None) -> datetime:
    if text is None:
        return _now()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CliError(
            "usage", f"--at takes a moment such as 2026-11-21T12:00:00Z, not {text[:40]!r}.", exit_code=USAGE
        )
    return moment


def _expanded(files: Sequence[str]) -> list[str]:
    """Patterns as files, for shells that leave them alone. Raises CliError where a file isn't there."""
    from glob import has_magic
    from pathlib import Path

    found: list[str] = []
    for name in files:
        if name == "-" or Path(name).is_file():
            found.append(name)
        elif has_magic(name) and (matches := _matches(name)):
            found += matches
        elif Path(name).is_dir():
            raise CliError("file_unreadable", f"{name} is a directory.", f"Name files: '{name}/*'.", exit_code=USAGE)
        elif Path(name).exists():
            found.append(name)  # a pipe, say
        else:
            raise CliError("file_unreadable", f"There is no file {name}.", exit_code=USAGE)
    return found


def _matches(pattern: str) -> list[str]:
    from glob import glob
    from pathlib import Path

    # Path.glob doesn't take absolute patterns.
    # Path.glob takes no absolute patterns.
    return sorted(path for path in glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207 - Path.glob takes no absolute pattern


def _with_progress(documents: Iterable[dict[str, Any]], total: int) -> Iterable[dict[str, Any]]:
    """A bar on standard error while many files are worked on and somebody watches."""
    if total < 20 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from documents
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Checking", total=total)
        for document in documents:
            yield document
            progress.advance(task)


def _line(document: Any) -> None:
    import json

    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def _clean(text: str) -> str:
    """Names come out of certificates: nothing a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _material(paths: Sequence[str | None], passphrase_file: str | None) -> Material:
    from certwright.entry.cli import x509_work as work
    from certwright.x509.workshop import convert as converting

    passphrase = work.read_passphrase(passphrase_file)
    return converting.material([work.opened(path, passphrase) for path in paths if path is not None])


def _only_key(file: str, passphrase_file: str | None) -> Any:
    found = _material([file], passphrase_file).key
    if found is None:
        raise CliError("convert_key_needed", f"There is no single private key in {file}.", exit_code=FAILED)
    return found


def _asked() -> bytes:
    """A passphrase from the person at the terminal, twice."""
    if not sys.stdin.isatty():
        raise CliError(
            "passphrase_needed", "A passphrase is needed and nobody can be asked here.",
            "Add --out-passphrase-file FILE.", exit_code=USAGE,
        )  # fmt: skip
    text: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return text.encode()


def _refuse_findings(path: str, findings: Sequence[Any]) -> None:
    if findings:
        raise CliError(findings[0].code, f"{path}: {findings[0].message}", findings[0].fix)


def _first_problem(report: Report) -> CliError:
    first = report.findings[0]
    return CliError(first.code, first.message, first.fix)


def _refuse_existing(path: Any) -> None:
    if path.exists():
        raise CliError(
            "file_exists", f"{path} is there already.", "Name another file, or add --force.", exit_code=USAGE
        )


def _save(out: str, octets: bytes, *, secret: bool, force: bool, quiet: bool = False) -> None:
    """Write a file whole or not at all; secrets readable by their owner alone."""
    import os
    from pathlib import Path

    if out == "-":
        sys.stdout.flush()
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()
        else:
            sys.stdout.write(octets.decode("latin-1"))
        return
    path = Path(out)
    if not force:
        _refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CliError("file_unwritable", f"{path} can't be written: {error.strerror}.", exit_code=USAGE) from error
    if not quiet:
        output.note(f"Wrote {path}")
