"""`certwright authorities policies …`: what private CAs may issue, for which projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import (
    Json,
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

policies = group("policies", "Limits on what private CAs issue: names, kinds, lives, numbers.")

COLUMNS = (
    ("ID", "id"), ("NAME", "name"), ("PROJECT", "project_id"), ("CA", "authority_id"), ("ALLOWED", "allowed"),
    ("REFUSED", "refused"), ("KINDS", "profiles"), ("DAYS", "max_days"), ("QUOTA", "quota"),
)  # fmt: skip

Policy = Annotated[str, typer.Argument(help="Id or name of the policy.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="Name it allows: www.example.internal, *.example.internal (one label), .example.internal (all below), "
        "10.0.0.0/8, @example.com, https://example.com. Again for more; without any, all are."
    ),
]
Refuse = Annotated[list[str] | None, typer.Option(help="Name it refuses, whatever is allowed. Again for more.")]
Wildcards = Annotated[bool | None, typer.Option(help="Whether wildcards may be certified.")]
Profile = Annotated[
    list[str] | None, typer.Option(help="Kind it allows: server, client, … Again for more; without any, all are.")
]
MaxDays = Annotated[int | None, typer.Option(help="Longest life in days; 0: no limit.")]
Quota = Annotated[
    int | None,
    typer.Option(help="How many certificates that are good a project may have from a CA; -1: no limit."),
]
Ca = Annotated[str | None, typer.Option("--ca", help="Id or name of the CA; without it: every CA.")]


def _find(api: Api, text: str) -> str:
    return f"/ca-policies/{the_one(api, '/ca-policies', 'cpl', text, 'name')}"


def _limits(
    allow: list[str] | None, refuse: list[str] | None, wildcards: bool | None, profile: list[str] | None,
    max_days: int | None, quota: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What was said on the command line; 0 days and a quota of -1 take the limit away."""
    said: dict[str, Any] = {
        "allowed": allow, "refused": refuse, "wildcards": wildcards, "profiles": profile, "max_days": max_days,
        "quota": quota,
    }  # fmt: skip
    found = {key: value for key, value in said.items() if value is not None}
    if max_days == 0:
        found["max_days"] = None
    if quota == -1:
        found["quota"] = None
    return found


@policies.command(name="list")
def list_policies(as_json: Json = False) -> None:
    """List the policies."""
    show_list("/ca-policies", COLUMNS, as_json=as_json, limit=1000)


@policies.command(name="show")
def show_policy(policy: Policy, as_json: Json = False) -> None:
    """Show one policy."""
    with open_api() as api:
        present(api.get(_find(api, policy)), as_json=as_json)


@policies.command(name="create")
def create_policy(
    name: Annotated[str, typer.Argument(help="What to call it; refusals name it.")],
    allow: Allow = None,
    refuse: Refuse = None,
    wildcards: Wildcards = None,
    profile: Profile = None,
    max_days: MaxDays = None,
    quota: Quota = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Id or name of the project it binds; without it: all.")
    ] = None,
    authority: Ca = None,
    as_json: Json = False,
) -> None:
    """Limit what a project may have from a CA, or all from all. Every policy that applies must allow a certificate."""
    with open_api() as api:
        ca = the_one(api, "/authorities", "ca", authority, "name") if authority is not None else None
        body = _limits(allow, refuse, wildcards, profile, max_days, quota)
        made = api.post(
            "/ca-policies", body | {"name": name, "project_id": project_id(api, project), "authority_id": ca}
        )
    present(made, as_json=as_json)


@policies.command(name="edit")
def edit_policy(
    policy: Policy,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    allow: Allow = None,
    refuse: Refuse = None,
    wildcards: Wildcards = None,
    profile: Profile = None,
    max_days: MaxDays = None,
    quota: Quota = None,
    clear: Annotated[
        list[str] | None, typer.Option(help="Empty a list: allowed, refused or profiles. Again for more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a policy: a list that is given replaces the one before. Counts for what is issued from then on."""
    changes = _limits(allow, refuse, wildcards, profile, max_days, quota)
    for field in clear or ():
        if field not in ("allowed", "refused", "profiles"):
            raise CliError("usage", f"--clear takes allowed, refused or profiles, not {field!r}.", exit_code=USAGE)
        changes[field] = []
    if name is not None:
        changes["name"] = name
    if not changes:
        raise CliError("usage", "Say what to change.", "See certwright authorities policies edit --help.",
                       exit_code=USAGE)  # fmt: skip
    with open_api() as api:
        present(api.patch(_find(api, policy), changes), as_json=as_json)


@policies.command(name="delete")
def delete_policy(policy: Policy, yes: Yes = False) -> None:
    """Delete a policy; the others go on deciding."""
    confirm(f"Delete the policy {policy}? What it refused may be issued then.", yes=yes)
    with open_api() as api:
        api.delete(_find(api, policy))


@policies.command(name="try")
def try_names(
    names: Annotated[list[str] | None, typer.Argument(help="Names as a certificate would carry them.")] = None,
    authority: Annotated[str, typer.Option("--ca", help="Id or name of the CA.")] = "",
    profile: Annotated[str, typer.Option(help="Kind of the certificate.")] = "server",
    days: Annotated[int | None, typer.Option(help="Life in days.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Say which rule allows or refuses each name, without issuing anything. Exits with 1 where it would be refused."""
    if not authority:
        raise CliError("usage", "Say which CA: --ca NAME.", exit_code=USAGE)
    with open_api() as api:
        found = api.post("/ca-policies/try", {
            "authority_id": the_one(api, "/authorities", "ca", authority, "name"), "names": names or [],
            "profile": profile, "days": days, "project_id": project_id(api, project),
        })  # fmt: skip
    if as_json:
        output.document(found)
    else:
        output.rows(found["names"], (("NAME", "name"), ("ALLOWED", "allowed"), ("WHY", "why"), ("RULE", "rule")))
        if found["problem"] is not None:
            output.note(f"{found['problem']['message']} ({found['problem']['code']})")
    if found["problem"] is not None:
        raise typer.Exit(1)
