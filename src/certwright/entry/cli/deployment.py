"""`certwright targets|sites|rollouts …` and `certwright deploy`: putting certificates to work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import certificates, output
from certwright.entry.cli.common import (
    Everything,
    Json,
    Limit,
    Project,
    Timeout,
    Wait,
    Yes,
    confirm,
    group,
    key_values,
    open_api,
    present,
    project_id,
    show_list,
    show_one,
    the_one,
)
from certwright.entry.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

targets = group("targets", "Servers that certificates are deployed to.")
sites = group("sites", "What the servers serve, and with which certificate.")
rollouts = group("rollouts", "Deployments under way and past.")

TARGETS = (
    ("ID", "id"), ("NAME", "name"), ("KIND", "kind"), ("HEALTH", "health"), ("SOFTWARE", "software"),
    ("LOOKED AT", "discovered_at"),
)  # fmt: skip
SITES = (("ID", "id"), ("SITE", "label"), ("NAMES", "names"), ("EXPIRES", "expires"), ("CERTIFICATE", "certificate"))
ROLLOUTS = (("ID", "id"), ("TARGET", "target"), ("STATE", "state"), ("STEP", "next_step"), ("BEGUN", "created_at"))

Target = Annotated[str, typer.Argument(help="Id or name of the server.")]

_FINISHED = ("deployed", "undone", "failed")


def _target(api: Api, text: str) -> str:
    return the_one(api, "/targets", "tgt", text, "name")


@targets.command(name="list")
def list_targets(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the servers."""
    show_list("/targets", TARGETS, as_json=as_json, limit=limit, everything=everything)


@targets.command(name="show")
def show_target(target: Target, as_json: Json = False) -> None:
    """Show one server."""
    with open_api() as api:
        present(api.get(f"/targets/{_target(api, target)}"), as_json=as_json)


@targets.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    kind: Annotated[str, typer.Option(help="What it is.")] = "nginx",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of its configuration; may be repeated.")
    ] = None,
    region: Annotated[str, typer.Option(help="Where it stands.")] = "",
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Add a server, and look at what it serves. One that can't be looked at is not kept."""
    config = {key: _value(text) for key, text in key_values(setting or [], "--set").items()}
    with open_api() as api:
        body = {"name": name, "kind": kind, "config": config, "region": region, "project_id": project_id(api, project)}
        made = api.post("/targets", body)
        try:
            found = api.post(f"/targets/{made['id']}/discover")
        except CliError as error:
            _take_back(api, made, error)
            raise
    if as_json:
        output.document({"target": made, "sites": found["items"]})
        return
    output.say(f"{made['id']} {made['name']}")
    _show_sites(found["items"])


def _take_back(api: Api, made: dict[str, Any], why: CliError) -> None:
    """Delete the server just added, so that the same command works once it can be looked at; say how it went."""
    try:
        api.delete(f"/targets/{made['id']}")
    except CliError as kept:
        why.fix += (
            f" {made['name']} was added and stays, because {kept.message[:1].lower()}{kept.message[1:]} Go on with "
            f"certwright targets discover {made['id']}."
        )
    else:
        why.fix += f" {made['name']} was not added."
    why.fix = why.document["fix"] = why.fix.strip()


def _value(text: str) -> Any:
    """Lists and numbers as JSON, everything else as it stands."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if not isinstance(found, str) else text


@targets.command()
def discover(target: Target, as_json: Json = False) -> None:
    """Look at the server now."""
    with open_api() as api:
        found = api.post(f"/targets/{_target(api, target)}/discover")
    if as_json:
        output.document(found)
    else:
        _show_sites(found["items"])


@targets.command(name="delete")
def delete_target(target: Target, yes: Yes = False) -> None:
    """Forget a server; it goes on serving what it has."""
    with open_api() as api:
        target_id = _target(api, target)
        confirm(f"Forget {target}?", yes=yes)
        api.delete(f"/targets/{target_id}")
    output.say(f"{target_id} is forgotten.")


@sites.command(name="list")
def list_sites(
    target: Annotated[str | None, typer.Option(help="Only of this server.")] = None, as_json: Json = False
) -> None:
    """List what the servers serve, as last looked at."""
    with open_api() as api:
        chosen = [_target(api, target)] if target else [t["id"] for t in api.pages("/targets", limit=None)]
        found = [site for target_id in chosen for site in api.get(f"/targets/{target_id}/sites")["items"]]
    if as_json:
        output.document({"items": found})
    else:
        _show_sites(found)


def _show_sites(found: list[dict[str, Any]]) -> None:
    output.rows([site | _served(site) for site in found], SITES)


def _served(site: dict[str, Any]) -> dict[str, Any]:
    installed = [slot["installed"] for slot in site["slots"] if slot.get("installed")]
    bound = [binding["certificate_id"] for binding in site["bindings"]]
    expires = min((one["not_after"] for one in installed), default=None)
    return {"expires": expires, "certificate": bound or (None if site["managed"] else site["unmanaged_reason"])}


@sites.command()
def unbind(binding: Annotated[str, typer.Argument(help="Id of the binding.")], yes: Yes = False) -> None:
    """Stop deploying new versions to a site; it goes on serving what it has."""
    confirm(f"Unbind {binding}?", yes=yes)
    with open_api() as api:
        api.delete(f"/bindings/{binding}")
    output.say(f"{binding} is unbound.")


@sites.command()
def bindings(
    certificate: Annotated[str | None, typer.Option(help="Only of this certificate.")] = None,
    as_json: Json = False,
) -> None:
    """List which certificate serves where."""
    columns = (("ID", "id"), ("TARGET", "target"), ("SITE", "site"), ("CERTIFICATE", "certificate_id"),
               ("CURRENT", "current"), ("SINCE", "deployed_at"))  # fmt: skip
    with open_api() as api:
        chosen = certificates.find(api, certificate) if certificate else None
        found = api.get("/bindings", certificate_id=chosen)
    if as_json:
        output.document(found)
    else:
        output.rows(found["items"], columns)


def deploy(
    certificate: certificates.Certificate,
    sites: Annotated[
        list[str] | None, typer.Argument(help="Ids or labels of sites; none means all sites of --target.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only look for sites on this server.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of other certificates there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    wait: Wait = False,
    timeout: Timeout = 300,
    as_json: Json = False,
) -> None:
    """Put a certificate on sites, with a test before and a look from outside after; undone if that fails."""
    with open_api() as api:
        body = {"certificate_id": certificates.find(api, certificate), "site_ids": _site_ids(api, sites or [], target)}
        if dry_run:
            plan = api.post("/deployments/preview", body)
            if as_json:
                output.document(plan)
            else:
                for one in plan["items"]:
                    output.details(one)
            return
        started = api.post("/deployments", body | {"replace": replace})["rollouts"]
        for caution in [c for rollout in started for c in rollout["cautions"]]:
            output.note(f"Note: {caution['message']}")
        if wait:
            started = [wait_for_rollout(api, rollout["id"], timeout) for rollout in started]
    if as_json:
        output.document({"rollouts": started})
    else:
        output.rows(started, ROLLOUTS)
    for rollout in started:
        if wait and rollout["state"] != "deployed":
            raise not_deployed(rollout)


def _site_ids(api: Api, wanted: list[str], target: str | None) -> list[str]:
    chosen = [_target(api, target)] if target else [t["id"] for t in api.pages("/targets", limit=None)]
    known = [site for target_id in chosen for site in api.get(f"/targets/{target_id}/sites")["items"]]
    if not wanted:
        if target is None:
            raise CliError("usage", "Say which sites.", "Name them, or all of a server with --target.", exit_code=USAGE)
        return [site["id"] for site in known]
    ids = []
    for text in wanted:
        found = [s["id"] for s in known if text in (s["id"], s["label"]) or text in s["names"]]
        if len(found) != 1:
            what = "no site" if not found else f"{len(found)} sites: {', '.join(found)}"
            raise CliError("site_unclear", f"{text!r} names {what}.", "See certwright sites list.", exit_code=USAGE)
        ids += found
    return ids


def wait_for_rollout(api: Api, rollout_id: str, timeout: float) -> dict[str, Any]:
    """The rollout once it is finished, with progress. Raises CliError when that takes longer than `timeout`."""
    from certwright.entry.cli.client import polled

    progress = output.Progress()
    rollout: dict[str, Any] = {}
    try:
        for rollout in polled(lambda: api.get(f"/rollouts/{rollout_id}"), seconds=timeout, first=0.05):
            if rollout["state"] in _FINISHED:
                return rollout
            held = (rollout.get("waiting_for") or {}).get("message", "")
            progress.show(" · ".join(part for part in (rollout["target"], rollout["next_step"], held) if part))
    finally:
        progress.stop()
    raise CliError(
        "still_waiting", f"After {timeout:.0f} s it is still at {rollout['next_step']}; it goes on without us.",
        f"Look again: certwright rollouts show {rollout_id}", document=rollout,
    )  # fmt: skip


def not_deployed(rollout: dict[str, Any]) -> CliError:
    said = rollout.get("problem") or {}
    return CliError(
        str(said.get("code", "not_deployed")),
        f"{rollout['target']}: the rollout is {rollout['state']}. {said.get('message', '')}".strip(),
        str(said.get("fix", "")),
        document=rollout,
    )


@rollouts.command(name="list")
def list_rollouts(
    certificate: Annotated[str | None, typer.Option(help="Only of this certificate.")] = None,
    state: Annotated[str | None, typer.Option(help="running, undoing, deployed, undone or failed.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List rollouts, newest first."""
    with open_api() as api:
        chosen = certificates.find(api, certificate) if certificate else None
    show_list("/rollouts", ROLLOUTS, as_json=as_json, limit=limit, certificate_id=chosen, state=state)


@rollouts.command(name="show")
def show_rollout(
    rollout: Annotated[str, typer.Argument(help="Id of the rollout.")],
    wait: Wait = False,
    timeout: Timeout = 300,
    as_json: Json = False,
) -> None:
    """Show a rollout with every step run so far."""
    if not wait:
        show_one(f"/rollouts/{rollout}", as_json=as_json)
        return
    with open_api() as api:
        present(wait_for_rollout(api, rollout, timeout), as_json=as_json)


@rollouts.command()
def undo(
    rollout: Annotated[str, typer.Argument(help="Id of the rollout.")],
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = 300,
    as_json: Json = False,
) -> None:
    """Put back what was there before."""
    confirm(f"Undo {rollout}?", yes=yes)
    with open_api() as api:
        document = api.post(f"/rollouts/{rollout}/undo")
        if wait:
            document = wait_for_rollout(api, rollout, timeout)
    present(document, as_json=as_json)
