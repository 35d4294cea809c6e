"""`certwright endpoints|alarms …`: what is really served, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    open_api,
    present,
    project_id,
    show_list,
    show_one,
)
from certwright.entry.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

endpoints = group("endpoints", "Addresses that are watched.")
alarms = group("alarms", "What is wrong, or was.")

ENDPOINTS = (
    ("ID", "id"), ("HOST", "host"), ("PORT", "port"), ("SERVES", "subject"), ("EXPIRES", "not_after"),
    ("REACHABLE", "reachable"), ("LOOKED AT", "last_probe_at"),
)  # fmt: skip
ALARMS = (
    ("ID", "id"), ("SEVERITY", "severity"), ("ALARM", "kind"), ("OBJECT", "object_name"), ("WHAT", "message"),
    ("RAISED", "raised_at"), ("CLEARED", "cleared_at"),
)  # fmt: skip

Endpoint = Annotated[str, typer.Argument(help="Id, or host[:port] of the endpoint.")]


def _endpoint(api: Api, text: str) -> str:
    from certwright.kernel.ids import is_id

    if is_id(text, "endp"):
        return text
    host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    found = [
        item
        for item in api.pages("/endpoints", limit=None, search=host)
        if item["host"] == host.lower() and (not port or str(item["port"]) == port)
    ]
    if len(found) != 1:
        what = "nothing" if not found else f"{len(found)} endpoints"
        raise CliError("endpoint_unclear", f"{text!r} names {what}.", "See certwright endpoints list.", exit_code=USAGE)
    return str(found[0]["id"])


@endpoints.command(name="list")
def list_endpoints(
    search: Annotated[str | None, typer.Option(help="Part of the host.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List what is watched."""
    show_list("/endpoints", ENDPOINTS, as_json=as_json, limit=limit, everything=everything, search=search)


@endpoints.command(name="show")
def show_endpoint(endpoint: Endpoint, as_json: Json = False) -> None:
    """Show an endpoint: what each of its addresses serves, and its alarms."""
    with open_api() as api:
        present(api.get(f"/endpoints/{_endpoint(api, endpoint)}"), as_json=as_json)


@endpoints.command()
def add(
    host: Annotated[str, typer.Argument(help="Host name or address.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 443,
    sni: Annotated[str | None, typer.Option(help="Name to ask for, if not the host.")] = None,
    starttls: Annotated[str, typer.Option(help="none, smtp, imap or postgres.")] = "none",
    certificate: Annotated[str | None, typer.Option(help="The certificate that should be there.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Watch an address."""
    with open_api() as api:
        body = {
            "host": host, "port": port, "sni": sni, "starttls": starttls,
            "project_id": project_id(api, project),
            "certificate_id": certificates.find(api, certificate) if certificate else None,
        }  # fmt: skip
        present(api.post("/endpoints", body), as_json=as_json)


@endpoints.command()
def probe(endpoint: Endpoint, as_json: Json = False) -> None:
    """Have it looked at now."""
    with open_api() as api:
        present(api.post(f"/endpoints/{_endpoint(api, endpoint)}/probe"), as_json=as_json)


@endpoints.command()
def history(endpoint: Endpoint, limit: Limit = 20, as_json: Json = False) -> None:
    """List what was served there, newest first."""
    columns = (("ADDRESS", "address"), ("FROM", "first_seen"), ("TO", "last_seen"), ("SERVED", "fingerprint"),
               ("EXPIRES", "not_after"), ("PROBLEM", "detail"))  # fmt: skip
    with open_api() as api:
        chosen = _endpoint(api, endpoint)
    show_list(f"/endpoints/{chosen}/observations", columns, as_json=as_json, limit=limit)


@endpoints.command(name="delete")
def delete_endpoint(endpoint: Endpoint, yes: Yes = False) -> None:
    """Stop watching."""
    with open_api() as api:
        endpoint_id = _endpoint(api, endpoint)
        confirm(f"Stop watching {endpoint}?", yes=yes)
        api.delete(f"/endpoints/{endpoint_id}")
    output.say(f"{endpoint_id} is no longer watched.")


@alarms.command(name="list")
def list_alarms(
    cleared: Annotated[bool, typer.Option("--cleared", help="Those that are over instead.")] = False,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List the alarms that stand, newest first."""
    state = "cleared" if cleared else "open"
    show_list("/alarms", ALARMS, as_json=as_json, limit=limit, everything=everything, state=state)


@alarms.command(name="show")
def show_alarm(alarm: Annotated[str, typer.Argument(help="Id of the alarm.")], as_json: Json = False) -> None:
    """Show an alarm: what it means, why it may be, and what to do."""
    show_one(f"/alarms/{alarm}", as_json=as_json)


@alarms.command()
def acknowledge(alarm: Annotated[str, typer.Argument(help="Id of the alarm.")], as_json: Json = False) -> None:
    """Say that somebody is on it."""
    with open_api() as api:
        present(api.post(f"/alarms/{alarm}/acknowledge"), as_json=as_json)
