"""`certwright acme …`: ACME services on private CAs, keys for their clients, accounts and orders."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.authorities import issuing
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
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

app = group("acme", "ACME services on private CAs: certbot, lego, Caddy and others get certificates from them.")
keys = group("keys", "Keys that bind clients to a project (EAB): make, list, revoke them.")
accounts = group("accounts", "Clients that registered: list, show, turn away.")
orders = group("orders", "What clients ordered, and why it failed.")
for part in (keys, accounts, orders):
    app.add_typer(part)

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("URL", "url"), ("KEY NEEDED", "eab_required"), ("NAMES", "allowed_names"),
    ("OPEN", "enabled"),
)  # fmt: skip
KEY_COLUMNS = (
    ("KEY ID", "id"), ("NAME", "name"), ("NAMES", "allowed_names"), ("REUSABLE", "reusable"), ("EXPIRES", "expires_at"),
    ("USED", "used_at"), ("REVOKED", "revoked_at"),
)  # fmt: skip
ACCOUNT_COLUMNS = (
    ("ID", "id"), ("STATE", "state"), ("CONTACTS", "contacts"), ("KEY ID", "eab_key_id"), ("CREATED", "created_at"),
)  # fmt: skip
ORDER_COLUMNS = (
    ("ID", "id"), ("STATE", "state"), ("NAMES", "names"), ("CREATED", "created_at"), ("SERIAL", "serial"),
    ("ERROR", "error"),
)  # fmt: skip

Service = Annotated[str, typer.Argument(help="Id, name or address part of the ACME service.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Name clients may order, as in policies: .shop.internal, 10.0.0.0/8. Again for more."),
]
Profile = Annotated[list[str] | None, typer.Option(help="Kind clients may name, the usual one first. Again for more.")]
Challenge = Annotated[list[str] | None, typer.Option(help="http-01, dns-01, tls-alpn-01. Again for more.")]
EabRequired = Annotated[bool | None, typer.Option("--key-needed/--open-to-all", help="Whether clients need a key.")]
Days = Annotated[int | None, typer.Option(help="Life of its certificates; 0: the usual one of their kind.")]
ReuseDays = Annotated[
    int | None, typer.Option(help="How long a proof is good for further orders; 0: each proves anew.")
]
Terms = Annotated[str | None, typer.Option("--terms", help="Address of terms clients have to agree to.")]
Website = Annotated[str | None, typer.Option(help="Address that tells people about the service.")]


def _find(api: Api, text: str) -> str:
    return f"/acme-directories/{the_one(api, '/acme-directories', 'acd', text, 'name', 'slug')}"


def _settings(
    allow: list[str] | None, profile: list[str] | None, challenge: list[str] | None, eab_required: bool | None,
    days: int | None, reuse_days: int | None, terms: str | None, website: str | None,
) -> dict[str, Any]:  # fmt: skip
    """What was said on the command line; 0 days and empty addresses take away what was there."""
    said: dict[str, Any] = {
        "allowed_names": allow, "profiles": profile, "challenges": challenge, "eab_required": eab_required,
        "days": days, "reuse_days": reuse_days, "terms_url": terms, "website": website,
    }  # fmt: skip
    found = {key: value for key, value in said.items() if value is not None}
    return found | {key: None for key in ("days", "terms_url", "website") if key in found and not found[key]}


@app.command(name="list")
def list_services(as_json: Json = False) -> None:
    """List the ACME services."""
    show_list("/acme-directories", COLUMNS, as_json=as_json, limit=1000)


@app.command(name="show")
def show_service(service: Service, as_json: Json = False) -> None:
    """Show one ACME service."""
    with open_api() as api:
        present(api.get(_find(api, service)), as_json=as_json)


@app.command(name="create")
def create_service(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    authority: Annotated[
        str | None, typer.Option("--ca", help="Id or name of the CA that issues; default the built-in one.")
    ] = None,
    slug: Annotated[str | None, typer.Option(help="Part of its address, for good; made of the name.")] = None,
    allow: Allow = None,
    profile: Profile = None,
    challenge: Challenge = None,
    eab_required: EabRequired = None,
    days: Days = None,
    reuse_days: ReuseDays = None,
    terms: Terms = None,
    website: Website = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Open an ACME service on a CA. Clients need a key of it unless --open-to-all is given."""
    with open_api() as api:
        body = _settings(allow, profile, challenge, eab_required, days, reuse_days, terms, website) | {
            "name": name, "slug": slug, "authority_id": issuing(api, authority).rpartition("/")[2],
            "project_id": project_id(api, project),
        }  # fmt: skip
        present(api.post("/acme-directories", body), as_json=as_json)


@app.command(name="edit")
def edit_service(
    service: Service,
    name: Annotated[str | None, typer.Option(help="A new name; the address stays.")] = None,
    allow: Allow = None,
    any_name: Annotated[bool, typer.Option("--any-name", help="Let clients order any name.")] = False,
    profile: Profile = None,
    challenge: Challenge = None,
    eab_required: EabRequired = None,
    days: Days = None,
    reuse_days: ReuseDays = None,
    terms: Terms = None,
    website: Website = None,
    as_json: Json = False,
) -> None:
    """Change an ACME service; a list that is given replaces the one before. Counts for new orders."""
    changes = _settings(allow, profile, challenge, eab_required, days, reuse_days, terms, website)
    if any_name:
        changes["allowed_names"] = []
    if name is not None:
        changes["name"] = name
    if not changes:
        raise CliError("usage", "Say what to change.", "See certwright acme edit --help.", exit_code=USAGE)
    with open_api() as api:
        present(api.patch(_find(api, service), changes), as_json=as_json)


@app.command(name="disable")
def disable_service(service: Service, as_json: Json = False) -> None:
    """Have an ACME service refuse its clients; they can't renew either."""
    with open_api() as api:
        present(api.patch(_find(api, service), {"enabled": False}), as_json=as_json)


@app.command(name="enable")
def enable_service(service: Service, as_json: Json = False) -> None:
    """Have a disabled ACME service answer again."""
    with open_api() as api:
        present(api.patch(_find(api, service), {"enabled": True}), as_json=as_json)


@app.command(name="delete")
def delete_service(service: Service, yes: Yes = False) -> None:
    """Close a disabled ACME service for good. What was issued stays; its clients can't renew or revoke it."""
    confirm(f"Delete the ACME service {service} with its accounts and orders?", yes=yes)
    with open_api() as api:
        api.delete(_find(api, service))


@app.command(name="commands")
def commands(
    service: Service,
    names: Annotated[list[str] | None, typer.Argument(help="Names to order.")] = None,
    client: Annotated[
        str | None, typer.Option(help="certbot, lego, caddy, apache, acme.sh, dehydrated or cert-manager alone.")
    ] = None,
    key_id: Annotated[str, typer.Option("--key", help="Id of a key from `acme keys new`.")] = "",
    email: Annotated[str, typer.Option(help="Contact of the account.")] = "admin@example.internal",
    as_json: Json = False,
) -> None:
    """Print what to type into clients, ready to copy. The key's secret has to be filled in."""
    from certwright.entry.acme_clients import Asked, recipes

    with open_api() as api:
        found = api.get(_find(api, service))
    bound = bool(key_id or found["eab_required"])
    asked = Asked(
        found["url"], tuple(names or ("www.example.internal",)), email, (key_id or "…") if bound else "",
        "…" if bound else "",
    )  # fmt: skip
    made = [recipe for recipe in recipes(asked) if client in (None, recipe.client)]
    if not made:
        known = ", ".join(recipe.client for recipe in recipes(asked))
        raise CliError("usage", f"There are no commands for {client!r}.", f"Known are: {known}.", exit_code=USAGE)
    if as_json:
        items = [{"client": recipe.client, "file": recipe.file, "text": recipe.text} for recipe in made]
        output.document({"items": items})
        return
    for recipe in made:
        if len(made) > 1:
            output.say(f"# {recipe.name}" + (f": {recipe.file}" if recipe.file else ""))
        output.say(recipe.text + ("\n" if len(made) > 1 else ""))


# --- keys ------------------------------------------------------------------------------------------------------------


@keys.command(name="new")
def new_key(
    service: Service,
    name: Annotated[str, typer.Argument(help="Whose it is, for you to remember: web-1, team shop.")],
    allow: Allow = None,
    reusable: Annotated[bool, typer.Option("--reusable", help="Binds any number of accounts, not just one.")] = False,
    days: Annotated[int | None, typer.Option(min=1, help="After so many days it binds no more accounts.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown this once."""
    with open_api() as api:
        ends = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
        made = api.post(f"{_find(api, service)}/eab-keys", {
            "name": name, "allowed_names": allow or [], "reusable": reusable, "expires_at": ends,
            "project_id": project_id(api, project),
        })  # fmt: skip
    present(made, as_json=as_json)


@keys.command(name="list")
def list_keys(service: Service, limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the keys of an ACME service, newest first."""
    _list(service, "eab-keys", KEY_COLUMNS, limit, everything, as_json)


def _list(
    service: str, what: str, columns: output.Columns, limit: int, everything: bool, as_json: bool, **params: Any
) -> None:
    with open_api() as api:
        path = _find(api, service)
    show_list(f"{path}/{what}", columns, as_json=as_json, limit=limit, everything=everything, **params)


@keys.command(name="revoke")
def revoke_key(
    service: Service,
    key: Annotated[str, typer.Argument(help="Id of the key.")],
    with_accounts: Annotated[
        bool, typer.Option("--with-accounts", help="Turn away the clients it bound, too.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Have a key bind no more accounts."""
    confirm(f"Revoke the key {key}{' and turn its clients away' if with_accounts else ''}?", yes=yes)
    with open_api() as api:
        done = api.post(f"{_find(api, service)}/eab-keys/{key}/revoke", {"with_accounts": with_accounts})
    present(done, as_json=as_json)


# --- accounts and orders ---------------------------------------------------------------------------------------------


@accounts.command(name="list")
def list_accounts(service: Service, limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the clients of an ACME service, newest first."""
    _list(service, "accounts", ACCOUNT_COLUMNS, limit, everything, as_json)


@accounts.command(name="show")
def show_account(
    service: Service, account: Annotated[str, typer.Argument(help="Id of the account.")], as_json: Json = False
) -> None:
    """Show one client."""
    with open_api() as api:
        present(api.get(f"{_find(api, service)}/accounts/{account}"), as_json=as_json)


@accounts.command(name="deactivate")
def deactivate_account(
    service: Service,
    account: Annotated[str, typer.Argument(help="Id of the account.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Turn a client away for good. Its certificates stay."""
    confirm(f"Turn the client {account} away for good?", yes=yes)
    with open_api() as api:
        present(api.post(f"{_find(api, service)}/accounts/{account}/deactivate", {}), as_json=as_json)


@orders.command(name="list")
def list_orders(
    service: Service,
    account: Annotated[str | None, typer.Option(help="Of this client alone.")] = None,
    state: Annotated[str | None, typer.Option(help="pending, ready, valid or invalid.")] = None,
    search: Annotated[str | None, typer.Option(help="Those with this whole name.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List orders, newest first, with the reason of those that failed."""
    _list(service, "orders", ORDER_COLUMNS, limit, everything, as_json, account=account, state=state, search=search)


@orders.command(name="show")
def show_order(
    service: Service, order: Annotated[str, typer.Argument(help="Id of the order.")], as_json: Json = False
) -> None:
    """Show one order, with the proof of each name."""
    with open_api() as api:
        document = api.get(f"{_find(api, service)}/orders/{order}")
    if as_json:
        output.document(document)
        return
    output.details(document, skip=("authorizations",))
    output.rows(
        document["authorizations"],
        (("NAME", "name"), ("STATE", "state"), ("CHALLENGE", "challenge"), ("LOOKS", "looks"), ("ERROR", "error")),
    )
