"""`certwright users|groups|policies|projects|tokens …`: who may do what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certwright.entry.cli import output
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
from certwright.entry.cli.errors import FAILED, USAGE, CliError

if TYPE_CHECKING:
    from certwright.entry.cli.client import Api

users = group("users", "People of the account.")
groups = group("groups", "Groups of people, who carry permissions together.")
policies = group("policies", "Who may do what: policies, and whom they are given to.")
projects = group("projects", "Partitions of certificates, servers and permissions.")
tokens = group("tokens", "API tokens for programs.")

USERS = (("ID", "id"), ("E-MAIL", "email"), ("NAME", "name"), ("LAST SEEN", "last_sign_in_at"),
         ("DISABLED", "disabled_at"))  # fmt: skip
NAMED = (("ID", "id"), ("NAME", "name"), ("DESCRIPTION", "description"))
POLICIES = (("ID", "id"), ("NAME", "name"), ("SYSTEM", "system"), ("DESCRIPTION", "description"))
TOKENS = (("ID", "id"), ("NAME", "name"), ("USER", "user_id"), ("EXPIRES", "expires_at"), ("LAST USED", "last_used_at"),
          ("REVOKED", "revoked_at"))  # fmt: skip
ATTACHMENTS = (("ID", "id"), ("POLICY", "policy"), ("USER", "user_id"), ("GROUP", "group_id"),
               ("PROJECT", "project_id"))  # fmt: skip

User = Annotated[str, typer.Argument(help="Id or e-mail address.")]
Group = Annotated[str, typer.Argument(help="Id or name of the group.")]
Policy = Annotated[str, typer.Argument(help="Id or name of the policy.")]
Name = Annotated[str, typer.Argument(help="What to call it.")]
Description = Annotated[str, typer.Option(help="For you to remember.")]


def _user(api: Api, text: str) -> str:
    return the_one(api, "/users", "usr", text, "email")


def _group(api: Api, text: str) -> str:
    return the_one(api, "/groups", "grp", text, "name")


def _policy(api: Api, text: str) -> str:
    system = api.get("/system-policies")["items"]
    found = [policy["id"] for policy in system if text in (policy["id"], policy["name"])]
    return str(found[0]) if found else the_one(api, "/policies", "pol", text, "name")


def _project(api: Api, text: str) -> str:
    return the_one(api, "/projects", "prj", text, "name")


# --- users ----------------------------------------------------------------------------------------------------------


@users.command(name="list")
def list_users(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the people of the account."""
    show_list("/users", USERS, as_json=as_json, limit=limit, everything=everything)


@users.command(name="show")
def show_user(user: User, as_json: Json = False) -> None:
    """Show one person."""
    with open_api() as api:
        present(api.get(f"/users/{_user(api, user)}"), as_json=as_json)


@users.command()
def invite(
    email: Annotated[str, typer.Argument(help="E-mail address.")],
    name: Annotated[str, typer.Argument(help="Name of the person.")],
    groups: Annotated[list[str] | None, typer.Option("--group", help="Id or name; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Make a user, and print the link with which they set their password."""
    with open_api() as api:
        body = {"email": email, "name": name, "group_ids": [_group(api, text) for text in groups or []]}
        _link(api.post("/users", body), as_json)


@users.command(name="password-link")
def password_link(user: User, as_json: Json = False) -> None:
    """Print a fresh password link for someone who lost theirs."""
    with open_api() as api:
        _link(api.post(f"/users/{_user(api, user)}/password-link"), as_json)


def _link(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(made)
    else:
        output.say(f"{made['id']} {made['email']}\nGive them this link, good until {made['link_expires_at']}:")
        output.say(f"  {made['password_link']}")


@users.command()
def disable(user: User) -> None:
    """Keep someone out: ends their sessions, and their tokens stop working."""
    _set_disabled(user, True)


@users.command()
def enable(user: User) -> None:
    """Let someone in again."""
    _set_disabled(user, False)


def _set_disabled(user: str, disabled: bool) -> None:
    with open_api() as api:
        changed = api.patch(f"/users/{_user(api, user)}", {"disabled": disabled})
    output.say(f"{changed['email']} is {'disabled' if changed['disabled_at'] else 'enabled'}.")


@users.command(name="delete")
def delete_user(user: User, yes: Yes = False) -> None:
    """Delete a person with their sessions and tokens."""
    with open_api() as api:
        _delete(api, f"/users/{_user(api, user)}", user, yes)


def _delete(api: Api, path: str, called: str, yes: bool) -> None:
    confirm(f"Delete {called}?", yes=yes)
    api.delete(path)
    output.say(f"{called} is deleted.")


# --- groups ---------------------------------------------------------------------------------------------------------


@groups.command(name="list")
def list_groups(limit: Limit = 20, everything: Everything = False, as_json: Json = False) -> None:
    """List the groups."""
    show_list("/groups", NAMED, as_json=as_json, limit=limit, everything=everything)


@groups.command(name="create")
def create_group(name: Name, description: Description = "", as_json: Json = False) -> None:
    """Make a group."""
    with open_api() as api:
        present(api.post("/groups", {"name": name, "description": description}), as_json=as_json)


@groups.command()
def members(group: Group, limit: Limit = 100, as_json: Json = False) -> None:
    """List who is in a group."""
    with open_api() as api:
        chosen = _group(api, group)
    show_list(f"/groups/{chosen}/members", USERS, as_json=as_json, limit=limit)


@groups.command(name="add-member")
def add_member(group: Group, user: User) -> None:
    """Put someone into a group."""
    with open_api() as api:
        api.call("PUT", f"/groups/{_group(api, group)}/members/{_user(api, user)}")
    output.say(f"{user} is in {group}.")


@groups.command(name="remove-member")
def remove_member(group: Group, user: User) -> None:
    """Take someone out of a group."""
    with open_api() as api:
        api.delete(f"/groups/{_group(api, group)}/members/{_user(api, user)}")
    output.say(f"{user} is no longer in {group}.")


@groups.command(name="delete")
def delete_group(group: Group, yes: Yes = False) -> None:
    """Delete a group."""
    with open_api() as api:
        _delete(api, f"/groups/{_group(api, group)}", group, yes)


# --- policies -------------------------------------------------------------------------------------------------------


@policies.command(name="list")
def list_policies(limit: Limit = 100, as_json: Json = False) -> None:
    """List the system policies and the account's own."""
    with open_api() as api:
        found = [*api.get("/system-policies")["items"], *api.pages("/policies", limit=limit)]
    if as_json:
        output.document({"items": found})
    else:
        output.rows(found, POLICIES)


@policies.command(name="show")
def show_policy(policy: Policy, as_json: Json = False) -> None:
    """Show a policy with its document."""
    with open_api() as api:
        found = api.get(f"/policies/{_policy(api, policy)}")
    present(found, as_json=as_json, skip=("document",))
    if not as_json:
        output.say("")
        output.document(found["document"])


@policies.command(name="create")
def create_policy(
    name: Name,
    file: Annotated[str, typer.Argument(help="File with the document (JSON); - for standard input.")],
    description: Description = "",
    as_json: Json = False,
) -> None:
    """Make a policy from a document."""
    try:
        document = json.loads(read_file(file))
    except ValueError as error:
        raise CliError("json_invalid", f"{file} is not JSON: {error}.", exit_code=USAGE) from error
    body = {"name": name, "description": description, "document": document}
    with open_api() as api:
        present(api.post("/policies", body), as_json=as_json, skip=("document",))


@policies.command()
def attach(
    policy: Policy,
    user: Annotated[str | None, typer.Option(help="Id or e-mail address.")] = None,
    group: Annotated[str | None, typer.Option(help="Id or name.")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Give a policy to a user or a group, perhaps for one project only."""
    if (user is None) == (group is None):
        raise CliError("usage", "Give either --user or --group.", exit_code=USAGE)
    with open_api() as api:
        body = {
            "policy": _policy(api, policy), "user_id": _user(api, user) if user else None,
            "group_id": _group(api, group) if group else None,
            "project_id": project_id(api, project),
        }  # fmt: skip
        present(api.post("/policy-attachments", body), as_json=as_json)


@policies.command()
def attachments(limit: Limit = 100, as_json: Json = False) -> None:
    """List whom policies are given to."""
    show_list("/policy-attachments", ATTACHMENTS, as_json=as_json, limit=limit)


@policies.command()
def detach(attachment: Annotated[str, typer.Argument(help="Id of the attachment.")]) -> None:
    """Take a policy back."""
    with open_api() as api:
        api.delete(f"/policy-attachments/{attachment}")
    output.say(f"{attachment} is gone.")


@policies.command()
def simulate(
    user: User,
    action: Annotated[str, typer.Argument(help="Such as scm:cert:delete.")],
    resource: Annotated[str | None, typer.Option(help="KIND:ID, such as certificate:cert_….")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """May that user do it, and because of which statement? Exit code 1 when not."""
    with open_api() as api:
        body = {
            "user_id": _user(api, user), "action": action, "resource": resource, "project_id": project_id(api, project),
        }  # fmt: skip
        found = api.post("/policies/simulate", body)
    present(found, as_json=as_json)
    if not found["allowed"]:
        raise typer.Exit(FAILED)


@policies.command(name="delete")
def delete_policy(policy: Policy, yes: Yes = False) -> None:
    """Delete a policy that is given to nobody."""
    with open_api() as api:
        _delete(api, f"/policies/{_policy(api, policy)}", policy, yes)


# --- projects -------------------------------------------------------------------------------------------------------


@projects.command(name="list")
def list_projects(limit: Limit = 100, as_json: Json = False) -> None:
    """List the projects."""
    show_list("/projects", NAMED, as_json=as_json, limit=limit)


@projects.command(name="create")
def create_project(name: Name, description: Description = "", as_json: Json = False) -> None:
    """Make a project."""
    with open_api() as api:
        present(api.post("/projects", {"name": name, "description": description}), as_json=as_json)


@projects.command(name="delete")
def delete_project(
    project: Annotated[str, typer.Argument(help="Id or name of the project.")], yes: Yes = False
) -> None:
    """Delete an empty project."""
    with open_api() as api:
        _delete(api, f"/projects/{_project(api, project)}", project, yes)


# --- tokens ---------------------------------------------------------------------------------------------------------


@tokens.command(name="list")
def list_tokens(limit: Limit = 100, as_json: Json = False) -> None:
    """List tokens: yours, and with permission everybody's."""
    show_list("/tokens", TOKENS, as_json=as_json, limit=limit)


@tokens.command(name="create")
def create_token(
    name: Name,
    days: Annotated[
        int | None, typer.Option(min=1, max=365, help="How long it is good; default 90, or what is left of your own.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Narrow it to this policy; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is printed once, alone on standard output."""
    with open_api() as api:
        chosen = [_policy(api, text) for text in policy] if policy else None
        made = api.post("/tokens", {"name": name, "days": days, "policies": chosen})
    if as_json:
        output.document(made)
    else:
        output.note(f"{made['id']}, good until {made['expires_at']}. It is shown this once:")
        output.say(made["token"])


@tokens.command(name="revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(help="Id (tok_…) or name of the token.")], yes: Yes = False
) -> None:
    """Make a token useless."""
    with open_api() as api:
        token_id = the_one(api, "/tokens", "tok", token, "name")
        confirm(f"Revoke {token}?", yes=yes)
        api.delete(f"/tokens/{token_id}")
    output.say(f"{token_id} is revoked.")
