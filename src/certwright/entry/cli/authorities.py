"""`certwright authorities …`: the private CAs, and certificates issued from them at once."""

from __future__ import annotations

from typing import Annotated

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import (
    Json,
    Project,
    group,
    open_api,
    present,
    project_id,
    read_file,
    show_list,
    the_one,
)

app = group("authorities", "Private CAs: look at them, take their roots, issue from them.")

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("KIND", "kind"), ("STATE", "state"), ("KEY", "key_algorithm"),
    ("EXPIRES", "not_after"),
)  # fmt: skip

Authority = Annotated[str, typer.Argument(help="Id or name of the CA.")]


@app.command(name="list")
def list_authorities(as_json: Json = False) -> None:
    """List the CAs."""
    show_list("/authorities", COLUMNS, as_json=as_json, limit=100)


@app.command()
def show(
    authority: Authority,
    pem: Annotated[bool, typer.Option("--pem", help="Print its certificate alone.")] = False,
    as_json: Json = False,
) -> None:
    """Show one CA, or take its certificate."""
    with open_api() as api:
        document = api.get(f"/authorities/{the_one(api, '/authorities', 'ca', authority, 'name', 'kind')}")
    if pem:
        output.say(document["certificate_pem"].strip())
    else:
        present(document, as_json=as_json, skip=("certificate_pem",))


@app.command()
def issue(
    names: Annotated[
        list[str] | None, typer.Argument(help="Domain names and IP addresses, the primary one first.")
    ] = None,
    authority: Annotated[str, typer.Option("--ca", help="Id or name of the CA.")] = "issuing",
    key: Annotated[str, typer.Option(help="EC_P256, EC_P384, RSA_2048, RSA_3072 or RSA_4096.")] = "EC_P256",
    csr: Annotated[str | None, typer.Option(help="File with your own CSR (- for standard input).")] = None,
    days: Annotated[int | None, typer.Option(help="How long it is good; default 90.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    description: Annotated[str, typer.Option(help="For you to remember.")] = "",
    project: Project = None,
    auto_renew: Annotated[bool, typer.Option(help="Renew it in time, without anybody's doing.")] = True,
    as_json: Json = False,
) -> None:
    """Issue a certificate at once, without validation: you vouch for the names."""
    with open_api() as api:
        body = {
            "names": names or [], "key_algorithm": key, "csr": read_file(csr) if csr else None, "days": days,
            "name": name, "description": description, "project_id": project_id(api, project), "auto_renew": auto_renew,
        }  # fmt: skip
        chosen = the_one(api, "/authorities", "ca", authority, "name", "kind")
        document = api.post(f"/authorities/{chosen}/certificates", body)
    present(document, as_json=as_json)
