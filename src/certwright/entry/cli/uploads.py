"""`certwright upload` and `certwright uploads …`: certificates that were issued elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.certificates import Certificate, find, path_of
from certwright.entry.cli.common import Json, Project, group, key_values, open_api, present, project_id
from certwright.entry.cli.errors import FAILED, USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

app = group("uploads", "Certificates issued elsewhere: what was found at each upload, and what the account admits.")

# More than the server reads says that there is more.
_MOST = 1024 * 1024 + 1


def upload(
    file: Annotated[
        str, typer.Argument(help="File with the certificate (PEM, DER, P7B, PFX, JKS), or - for standard input.")
    ],
    key: Annotated[str | None, typer.Option("--key", help="File with its private key, if it is another one.")] = None,
    chain: Annotated[str | None, typer.Option("--chain", help="File with the intermediates.")] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="The key or store has a passphrase: ask for it.")
    ] = False,
    passphrase_stdin: Annotated[
        bool, typer.Option("--passphrase-stdin", help="Read the passphrase from standard input.")
    ] = False,
    passphrase_file: Annotated[
        str | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what it would come to; nothing is stored.")] = False,
    replace: Annotated[
        str | None, typer.Option("--replace", help="Id or name of the uploaded certificate it is a newer version of.")
    ] = None,
    client_ca: Annotated[
        bool, typer.Option("--client-ca", help="It is a CA's certificate, for checking clients by.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="PEM only, key without passphrase, chain complete.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Leave out what only public CAs must keep to.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Don't ask the CA for intermediates, nor whether it was revoked.")
    ] = False,
    allow_duplicate: Annotated[
        bool, typer.Option("--allow-duplicate", help="Even if this very certificate is there already.")
    ] = False,
    allow_fewer_names: Annotated[
        bool, typer.Option("--allow-fewer-names", help="With --replace: even if it lacks names of the present one.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call it; default cert-xxxxxxxxxx.")] = None,
    description: Annotated[str, typer.Option(help="A description.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be repeated.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Upload a certificate that was issued elsewhere, with its key.

    What is safely repaired is repaired and told. Exit code 1 if something must be put right first.
    """
    if replace is not None and (name or description or tag or project or client_ca):
        raise CliError(
            "usage", "--replace keeps the certificate's name, description, tags, project and purpose.",
            "Leave those options out.", exit_code=USAGE,
        )  # fmt: skip
    if [file, key, chain].count("-") + passphrase_stdin > 1:
        raise CliError("usage", "Standard input can't be two things at once.", "Name files.", exit_code=USAGE)
    body: dict[str, Any] = {
        "certificate": _read(file), "key": _read(key) if key else None, "chain": _read(chain) if chain else None,
        "passphrase": _passphrase(passphrase, passphrase_stdin, passphrase_file), "encoding": "base64",
        "strict": strict, "private": private, "online": not offline, "allow_duplicate": allow_duplicate,
    }  # fmt: skip
    purpose = {"purpose": "client_ca" if client_ca else "server"}
    labels = {"name": name, "description": description, "tags": key_values(tag or [], "--tag")}
    with open_api() as api:
        old = None if replace is None else find(api, replace)
        if check:
            more = {"replaces": old, "allow_fewer_names": allow_fewer_names} if old else {}
            found = api.post("/uploads/check", body | purpose | more)
            if as_json:
                output.document(found)
            else:
                _show(found)
            if not found["ok"]:
                raise typer.Exit(FAILED)
            return
        try:
            if old is not None:
                made = api.post(path_of(old, "replace"), body | {"allow_fewer_names": allow_fewer_names})
            else:
                made = api.post("/uploads", body | purpose | labels | {"project_id": project_id(api, project)})
        except CliError as error:
            report = (error.document or {}).get("report")
            if report and not as_json:
                _show(report, to_stderr=True)
                # Said with their places already.
                error.document.pop("errors", None)
            raise
    if as_json:
        output.document(made)
        return
    _show(made["report"])
    cert = made["certificate"]
    output.say(f"{cert['name']} ({cert['id']}) is stored, version {made['version']}.")


def _read(path: str) -> str:
    """The octets of a file or of standard input, as base64."""
    import base64
    from pathlib import Path

    if path == "-":
        data = sys.stdin.buffer.read(_MOST) if hasattr(sys.stdin, "buffer") else sys.stdin.read(_MOST).encode()
    else:
        try:
            with Path(path).open("rb") as opened:
                data = opened.read(_MOST)
        except OSError as error:
            raise CliError("file_unreadable", f"{path} can't be read: {error.strerror}.", exit_code=USAGE) from error
    return base64.b64encode(data).decode()


def _passphrase(wanted: bool, from_stdin: bool, file: str | None) -> str | None:
    """Never from the command line, which other people of the machine can read."""
    from pathlib import Path

    if [wanted, from_stdin, file is not None].count(True) > 1:
        raise CliError("usage", "The passphrase can come from one place only.", exit_code=USAGE)
    if file is not None:
        try:
            return Path(file).read_text().partition("\n")[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise CliError("file_unreadable", f"{file} can't be read: {error}.", exit_code=USAGE) from error
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not wanted:
        return None
    if not sys.stdin.isatty():
        raise CliError(
            "no_terminal", "Nobody can be asked for the passphrase.", "Add --passphrase-stdin.", exit_code=USAGE
        )
    return str(typer.prompt("Passphrase", hide_input=True))


def _clean(text: str) -> str:
    """Names come out of certificates: nothing a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _show(report: Mapping[str, Any], *, to_stderr: bool = False) -> None:
    say = output.note if to_stderr else output.say
    leaf = report["leaf"]
    if leaf:
        names = ", ".join(leaf["names"][:5]) or leaf["subject"] or "no names"
        say(_clean(f"{names} ({leaf['key_algorithm']}, until {leaf['not_after'][:10]})"))
    for repair in report["repairs"]:
        say(f"  repaired: {repair['message']} [{repair['code']}]")
    for link in report["links"][1:]:
        if link["source"] != "given":
            say(_clean(f"  added to the chain ({link['source']}): {link['subject']}"))
    _show_findings(report["findings"], say)
    for other in report["successor_of"]:
        say(_clean(f"  {other['name']} ({other['id']}) has the same names: --replace {other['name']} makes it newer."))


def _show_findings(findings: Sequence[Mapping[str, str]], say: Callable[[str], None]) -> None:
    """Errors first. pkilint's notes on one line: they are many, and nothing needs to be done about them here."""
    order = ("error", "warning", "note")
    for finding in sorted(findings, key=lambda one: order.index(one["severity"])):
        if finding["code"] != "lint":
            say(_clean(f"  {finding['severity']}: {finding['message']} [{finding['code']}]"))
            say(_clean(f"      {finding['where']}. {finding['fix']}"))
    notes = sum(finding["code"] == "lint" for finding in findings)
    if notes:
        say(f"  note: pkilint would have made it differently in {notes} respects (--json shows them). [lint]")


@app.command()
def show(certificate: Certificate, as_json: Json = False) -> None:
    """Show what was found at each upload of a certificate."""
    with open_api() as api:
        found = api.get(path_of(find(api, certificate), "uploads"))
    if as_json:
        output.document(found)
        return
    for record in found["items"]:
        output.say(f"version {record['version']}, {record['at']}, by {record['by']}")
        if record["repaired"]:
            output.say(f"  repaired: {', '.join(record['repaired'])}")
        _show_findings(record["findings"], output.say)


@app.command()
def quotas(as_json: Json = False) -> None:
    """Show how many uploaded certificates there are, and how many there may be."""
    with open_api() as api:
        found = api.get("/uploads/quotas")
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], (("PURPOSE", "purpose"), ("USED", "used"), ("LIMIT", "limit")))


@app.command()
def policy(
    legacy_rsa: Annotated[
        bool | None,
        typer.Option("--legacy-rsa/--no-legacy-rsa", help="Admit RSA keys of 1024 bits for devices that need them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the account admits in uploads, or change it."""
    with open_api() as api:
        if legacy_rsa is None:
            document = api.get("/uploads/policy")
        else:
            document = api.patch("/uploads/policy", {"legacy_rsa": legacy_rsa})
    present(document, as_json=as_json)
