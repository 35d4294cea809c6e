"""`certwright validation …` and `certwright dns …`: proving that names are ours, and who writes the records."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from certwright.entry.cli import certificates, output
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Yes,
    confirm,
    group,
    key_values,
    open_api,
    present,
    project_id,
    show_list,
    the_one,
)
from certwright.entry.cli.errors import FAILED, USAGE, CliError

app = group("validation", "Look records and files up the way a CA would, and what was validated so far.")
dns = group("dns", "Connections to DNS servers that records are written to automatically.")

CONNECTIONS = (
    ("ID", "id"), ("NAME", "name"), ("KIND", "kind"), ("ZONES", "zones"), ("TESTED", "checked_at"),
    ("PROBLEM", "problem.message"),
)  # fmt: skip
OPERATORS = (("OPERATOR", "title"), ("KIND", "kind"), ("SETTINGS", "asked"), ("SECRET", "secret"))
EVIDENCE = (
    ("DOMAIN", "domain"), ("SCOPE", "scope"), ("METHOD", "method"), ("VALIDATED", "validated_at"),
    ("GOOD UNTIL", "reuse_until"), ("ID", "id"),
)  # fmt: skip

Connection = Annotated[str, typer.Argument(help="Id or name of the connection.")]


def _told(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(found)
    else:
        output.say(found["message"])
        if found.get("fix"):
            output.say(found["fix"])
    if not found.get("ok", found.get("allowed")):
        raise typer.Exit(FAILED)


@app.command()
def show(certificate: certificates.Certificate, as_json: Json = False) -> None:
    """Show what each domain of a certificate still needs."""
    with open_api() as api:
        document = api.get(certificates.path_of(certificates.find(api, certificate)))
    if as_json:
        output.document(document["validation"])
    elif document["validation"]:
        certificates.show_domains(document["validation"])
    else:
        output.say("Nothing is being validated.")


@app.command(name="check-dns")
def check_dns(
    name: Annotated[str, typer.Argument(help="Where the record should be.")],
    value: Annotated[str, typer.Argument(help="What it should say.")],
    type: Annotated[str, typer.Option(help="TXT or CNAME.")] = "TXT",
    as_json: Json = False,
) -> None:
    """Does a record take effect? Asks every authoritative server and the resolvers. Exit code 1 when it doesn't."""
    with open_api() as api:
        _told(api.post("/tools/check-dns", {"name": name, "type": type, "value": value}), as_json)


@app.command(name="check-file")
def check_file(
    host: Annotated[str, typer.Argument(help="The site.")],
    file_name: Annotated[str, typer.Argument(help="Name of the file below /.well-known/pki-validation/.")],
    content: Annotated[str, typer.Argument(help="What it should hold.")],
    as_json: Json = False,
) -> None:
    """Does a site serve this file? Exit code 1 when it doesn't."""
    with open_api() as api:
        _told(api.post("/tools/check-file", {"host": host, "file_name": file_name, "content": content}), as_json)


@app.command(name="check-caa")
def check_caa(
    name: Annotated[str, typer.Argument(help="The domain name.")],
    ca: Annotated[list[str], typer.Argument(help="CAA domain names of the CA, such as letsencrypt.org.")],
    method: Annotated[list[str] | None, typer.Option(help="As CAA calls it, such as dns-01; may be repeated.")] = None,
    account: Annotated[str | None, typer.Option(help="URI of your account at the CA.")] = None,
    as_json: Json = False,
) -> None:
    """May this CA issue for the name, as far as its CAA records say? Exit code 1 when it may not."""
    with open_api() as api:
        asked = {"name": name, "ca_identifiers": ca, "methods": method or [], "account_uri": account}
        found = api.post("/tools/check-caa", asked)
        if not as_json:
            for line in found["found"]:
                output.say(line)
        _told(found, as_json)


@app.command()
def resend(
    certificate: certificates.Certificate,
    domain: Annotated[str | None, typer.Option(help="Only the mailboxes of this domain.")] = None,
    as_json: Json = False,
) -> None:
    """Write once more to the mailboxes of names that are shown by mail."""
    with open_api() as api:
        document = api.get(certificates.path_of(certificates.find(api, certificate)))
        domains = (document.get("validation") or {}).get("domains", [])
        waiting = {
            todo["domain"]: one["challenge_id"]
            for one in domains
            if (todo := one.get("instructions") or {}).get("kind") == "mail" and domain in (None, todo["domain"])
        }
        if not waiting:
            said = "No name of it waits for a mail to be confirmed."
            raise CliError("nothing_by_mail", said, "See what it waits for.")
        sent = [api.post(f"/validations/{challenge_id}/mail") for challenge_id in waiting.values()]
    if as_json:
        output.document({"items": sent})
    else:
        for one in sent:
            output.say(f"Sent to {', '.join(one['addresses'])}.")


@app.command()
def methods(name: Annotated[str, typer.Argument(help="The domain name.")], as_json: Json = False) -> None:
    """How control of a name may be shown today."""
    with open_api() as api:
        found = api.get("/tools/validation-methods", name=name)
    if as_json:
        output.document(found)
    else:
        columns = (("METHOD", "method"), ("ALLOWED", "allowed"), ("REASON", "reason"), ("ENDS", "ends"))
        output.rows(found["items"], columns)


@app.command()
def evidence(
    domain: Annotated[str | None, typer.Option(help="Exactly this domain.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List what was validated, newest first."""
    show_list("/evidence", EVIDENCE, as_json=as_json, limit=limit, everything=everything, domain=domain)


# --- connections ----------------------------------------------------------------------------------------------------


@dns.command(name="list")
def list_connections(limit: Limit = 20, as_json: Json = False) -> None:
    """List the connections."""
    show_list("/dns-connections", CONNECTIONS, as_json=as_json, limit=limit)


@dns.command(name="show")
def show_connection(connection: Connection, as_json: Json = False) -> None:
    """Show one connection; its secret is never shown."""
    with open_api() as api:
        present(api.get(f"/dns-connections/{_connection(api, connection)}"), as_json=as_json)


def _connection(api: Any, text: str) -> str:
    return the_one(api, "/dns-connections", "dns", text, "name")


@dns.command(name="add")
def add_connection(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    zones: Annotated[list[str], typer.Argument(help="Zones that may be updated through it.")],
    kind: Annotated[str, typer.Option(help="rfc2136 (dynamic updates), huawei, or lexicon (others).")] = "rfc2136",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, may be repeated; the guide says which.")
    ] = None,
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Read the secret from standard input.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Add a connection and test it. Names of its zones validate by themselves from then on."""
    if secret_stdin:
        secret = sys.stdin.read().strip()
    elif sys.stdin.isatty():
        secret = typer.prompt("Secret", hide_input=True)
    else:
        raise CliError("no_terminal", "Nobody can be asked for the secret.", "Add --secret-stdin.", exit_code=USAGE)
    settings: dict[str, Any] = dict(key_values(setting or [], "--set"))
    if settings.get("port", "").isdigit():
        settings["port"] = int(settings["port"])
    with open_api() as api:
        body = {
            "name": name, "kind": kind, "zones": zones, "settings": settings, "secret": secret,
            "project_id": project_id(api, project),
        }  # fmt: skip
        made = api.post("/dns-connections", body)
        tested = api.post(f"/dns-connections/{made['id']}/test")
    _tested(tested, as_json)


@dns.command()
def operators(
    like: Annotated[str, typer.Argument(help="Part of the operator's name.")] = "", as_json: Json = False
) -> None:
    """List whom a connection can be made to, with the settings and the secret each needs."""
    with open_api() as api:
        found = api.get("/dns-operators")["items"]
    shown = [one for one in found if like.lower() in f"{one['key']} {one['title']}".lower()]
    if as_json:
        output.document({"items": shown})
        return
    rows = []
    for one in shown:
        given = [f"{name}={value}" for name, value in one["settings"].items()]
        asked = [f"{field['name']}=…" for field in one["fields"] if not field["secret"]]
        secret = [field["name"] for field in one["fields"] if field["secret"]]
        rows.append({**one, "asked": " ".join(given + asked), "secret": " ".join(secret)})
    output.rows(rows, OPERATORS)


def _tested(found: dict[str, Any], as_json: bool) -> None:
    present(found, as_json=as_json, skip=("problem",))
    said = found.get("problem")
    if said:
        raise CliError(said["code"], said["message"], said.get("fix", ""), document=said)


@dns.command(name="test")
def check_connection(connection: Connection, as_json: Json = False) -> None:
    """Ask the DNS server whether every zone could be updated, changing nothing. Exit code 1 when not."""
    with open_api() as api:
        _tested(api.post(f"/dns-connections/{_connection(api, connection)}/test"), as_json)


@dns.command(name="delete")
def delete_connection(
    connection: Connection,
    leave_records: Annotated[
        bool, typer.Option("--leave-records", help="Even if records written through it still stand.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Forget a connection and its secret."""
    with open_api() as api:
        connection_id = _connection(api, connection)
        confirm(f"Forget {connection}?", yes=yes)
        api.delete(f"/dns-connections/{connection_id}" + ("?leave_records=true" if leave_records else ""))
    output.say(f"{connection_id} is forgotten.")
