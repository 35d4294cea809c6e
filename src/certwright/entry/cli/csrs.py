"""`certwright csrs …`: signing requests kept on their own."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.certificates import save_reply
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Yes,
    confirm,
    group,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

app = group("csrs", "Signing requests with or without their keys: make, upload, export, delete them.")

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("NAMES", "names"), ("KEY", "key_algorithm"), ("KEY HELD", "has_key"),
    ("USED BY", "used_by.certificates"), ("CREATED", "created_at"),
)  # fmt: skip

Csr = Annotated[str, typer.Argument(help="Id or name of the CSR.")]
Called = Annotated[str | None, typer.Option("--name", help="What to call it; default csr-xxxxxxxxxx.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="File or directory; - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


class CsrFile(StrEnum):
    PEM = "pem"
    DER = "der"


def _find(api: Api, text: str) -> str:
    return f"/csrs/{the_one(api, '/csrs', 'csr', text, 'name')}"


def _passphrase(wanted: bool, from_stdin: bool, *, twice: bool) -> str | None:
    """Never from the command line, which other people of the machine can read."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not wanted:
        return None
    if not sys.stdin.isatty():
        raise CliError(
            "no_terminal", "Nobody can be asked for the passphrase.", "Add --passphrase-stdin.", exit_code=USAGE
        )
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice))


@app.command(name="list")
def list_csrs(
    name: Annotated[str | None, typer.Option(help="The whole name.")] = None,
    search: Annotated[str | None, typer.Option(help="Part of its name or of a name inside.")] = None,
    project: Project = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List signing requests, newest first."""
    with open_api() as api:
        chosen = project_id(api, project)
    show_list(
        "/csrs", COLUMNS, as_json=as_json, limit=limit, everything=everything, name=name, search=search,
        project_id=chosen,
    )  # fmt: skip


@app.command()
def show(csr: Csr, as_json: Json = False) -> None:
    """Show one signing request."""
    with open_api() as api:
        _present(api.get(_find(api, csr)), as_json)


def _present(document: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        subject = ", ".join(f"{field.replace('_', ' ')} {text}" for field, text in document["subject"].items() if text)
        used = document["used_by"]
        document = document | {
            "subject": subject,
            "used_by": f"{used['certificates']} certificates, {used['open_applications']} open applications",
        }
    present(document, as_json=as_json, skip=("pem",))


@app.command()
def create(
    names: Annotated[list[str] | None, typer.Argument(help="Host names and addresses, the primary one first.")] = None,
    name: Called = None,
    key: Annotated[str, typer.Option(help="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096.")] = "EC_P256",
    common_name: Annotated[str, typer.Option("--cn", help="Common name; a host name becomes the first name.")] = "",
    organization: Annotated[str, typer.Option("--organization", help="O")] = "",
    organizational_unit: Annotated[str, typer.Option("--unit", help="OU; public CAs refuse it.")] = "",
    country: Annotated[str, typer.Option("--country", help="C, two letters.")] = "",
    province: Annotated[str, typer.Option("--province", help="ST")] = "",
    locality: Annotated[str, typer.Option("--locality", help="L")] = "",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Make a key and a signing request with it. The key stays there, sealed."""
    body = {
        "names": names or [], "name": name, "key_algorithm": key,
        "subject": {
            "common_name": common_name, "organization": organization, "organizational_unit": organizational_unit,
            "country": country, "province": province, "locality": locality,
        },
    }  # fmt: skip
    with open_api() as api:
        _present(api.post("/csrs", body | {"project_id": project_id(api, project)}), as_json)


@app.command()
def upload(
    csr: Annotated[str, typer.Argument(help="PEM file of the request (- for standard input).")],
    key: Annotated[str | None, typer.Option("--key", help="PEM file of its private key.")] = None,
    encrypted: Annotated[bool, typer.Option("--encrypted", help="The key has a passphrase: ask for it.")] = False,
    passphrase_stdin: Annotated[
        bool, typer.Option("--passphrase-stdin", help="Read the key's passphrase from standard input.")
    ] = False,
    name: Called = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Keep a signing request made elsewhere, alone or with its private key."""
    if (encrypted or passphrase_stdin) and key is None:
        raise CliError("usage", "There is no key the passphrase could be for.", "Add --key FILE.", exit_code=USAGE)
    if passphrase_stdin and "-" in (csr, key):
        raise CliError("usage", "Standard input can't be both a file and the passphrase.", exit_code=USAGE)
    body = {
        "csr": read_file(csr), "private_key": read_file(key) if key else None,
        "passphrase": _passphrase(encrypted, passphrase_stdin, twice=False), "name": name,
    }  # fmt: skip
    with open_api() as api:
        _present(api.post("/csrs/upload", body | {"project_id": project_id(api, project)}), as_json)


@app.command()
def edit(
    csr: Csr,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    project: Annotated[str | None, typer.Option("--project", help="Move it to this project, with its key.")] = None,
    as_json: Json = False,
) -> None:
    """Rename a signing request, or move it to another project."""
    if name is None and project is None:
        raise CliError("usage", "Say what to change.", "See certwright csrs edit --help.", exit_code=USAGE)
    with open_api() as api:
        changes = {"name": name, "project_id": project_id(api, project)}
        _present(api.patch(_find(api, csr), changes), as_json)


@app.command()
def export(
    csr: Csr,
    format: Annotated[CsrFile, typer.Option(help="pem or der.")] = CsrFile.PEM,
    to: Output = None,
    force: Force = False,
) -> None:
    """Write a signing request to a file."""
    with open_api() as api:
        reply = api.call("GET", f"{_find(api, csr)}/download", params={"format": format.value})
    save_reply(reply, to, f"request.{format.value}", secret=False, force=force)


@app.command(name="export-key")
def export_key(
    csr: Csr,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Ask for a passphrase to encrypt it with.")] = False,
    passphrase_stdin: Annotated[
        bool, typer.Option("--passphrase-stdin", help="Encrypt it; read the passphrase from standard input.")
    ] = False,
    to: Output = None,
    force: Force = False,
) -> None:
    """Write the private key of a signing request to a file that you alone can read. Recorded in the audit log."""
    passphrase = _passphrase(encrypt, passphrase_stdin, twice=True)
    if passphrase == "":
        # An empty one would mean: not encrypted, which nobody asked for here.
        raise CliError("usage", "The passphrase is empty.", "Give one, or leave the option out.", exit_code=USAGE)
    with open_api() as api:
        reply = api.call("POST", f"{_find(api, csr)}/export-key", body={"passphrase": passphrase})
    save_reply(reply, to, "request.key", secret=True, force=force)


@app.command()
def delete(csr: Csr, yes: Yes = False) -> None:
    """Delete a signing request; its key is erased for good. Certificates made with it keep theirs."""
    with open_api() as api:
        path = _find(api, csr)
        confirm(f"Delete {csr} and erase its key?", yes=yes)
        api.delete(path)
    output.say(f"{path.rpartition('/')[2]} is deleted.")
