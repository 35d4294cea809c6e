"""People and access: users, groups, policies, the simulator, projects, everybody's tokens; and one's own profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console.forms import Faults, Form
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    Call,
    Pages,
    again,
    page,
    revision_of,
    safe_next,
    see,
    whole_number,
    with_query,
)
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem
from certwright.platform.i18n import _
from certwright.rooms import access, accounts
from certwright.rooms.access import people

pages = Pages()

_PAGE = 20
_MANY = 100
# Giving more than one holds is refused with Forbidden: said on the page, because choosing less helps.
_MET = (*FORM_PROBLEMS, Forbidden, NotFound)


# --- users ----------------------------------------------------------------------------------------------------------


@pages.get("/access", action="iam:user:list")
async def users(call: Call) -> Response:
    return await _users(call)


async def _users(
    call: Call,
    problem: Problem | None = None,
    values: Mapping[str, str] | None = None,
    link: Mapping[str, Any] | None = None,
) -> Response:
    found = await people.list_users(call.services, call.actor, limit=_PAGE + 1, after=call.query.optional("after"))
    more, found = len(found) > _PAGE, found[:_PAGE]
    groups: Sequence[accounts.Group] = ()
    if call.allowed("iam:group:list"):
        groups = await people.list_groups(call.services, call.actor, limit=_MANY)
    view = {
        "users": found,
        "groups": groups,
        "values": values or {},
        "chosen": set(call.form.many("group_ids")) if problem else set(),
        "link": link,
        "next_href": with_query("/access", after=found[-1].id) if more else "",
    }
    status = problem.status if problem else 200
    return page(call, "access/users.html", view, status=status, faults=Faults.of(problem))


def _link_view(call: Call, user: accounts.User, link: accounts.OneTimeLink) -> dict[str, Any]:
    address = f"{call.services.settings.base_url}/password?token={link.secret}"
    return {"email": user.email, "url": address, "expires_at": link.expires_at}


@pages.post("/access/users", action="iam:user:create")
async def invite(call: Call) -> Response:
    form = call.form
    try:
        user, link = await people.invite_user(
            call.services, call.actor, email=form.text("email"), name=form.text("name"),
            group_ids=form.many("group_ids"),
        )  # fmt: skip
    except _MET as problem:
        return await _users(call, problem, form.values())
    # Shown in the answer itself: an address or a cookie is no place for a secret.
    return await _users(call, link=_link_view(call, user, link))


@pages.get("/access/users/{id}", action="iam:user:get")
async def user(call: Call) -> Response:
    return await _user(call)


async def _user(
    call: Call,
    problem: Problem | None = None,
    values: Mapping[str, str] | None = None,
    link: Mapping[str, Any] | None = None,
) -> Response:
    services, actor = call.services, call.actor
    found = await people.get_user(services, actor, call.param("id"))
    groups: Sequence[accounts.Group] = ()
    if call.allowed("iam:group:list"):
        groups = await people.list_groups(services, actor, limit=_MANY, user_id=found.id)
    view = {
        "user": found,
        "groups": groups,
        "link": link,
        "values": values or {"name": found.name, "email": found.email},
        **await _attachment_view(call, user_id=found.id),
    }
    status = problem.status if problem else 200
    return page(call, "access/user.html", view, status=status, faults=Faults.of(problem))


async def _attachment_view(call: Call, *, user_id: str | None = None, group_id: str | None = None) -> dict[str, Any]:
    policies, projects = await _policy_options(call), await _project_options(call, _("Whole account"))
    items = []
    if call.allowed("iam:policy:list"):
        found = await people.list_attachments(
            call.services, call.actor, limit=_MANY, user_id=user_id, group_id=group_id
        )
        named, known = dict(policies), dict(projects)
        items = [
            {
                "id": item.id,
                "policy": item.policy,
                "policy_name": named.get(item.policy, item.policy),
                "project": known.get(item.project_id, item.project_id) if item.project_id else None,
            }
            for item in found
        ]
    return {"items": items, "policies": policies, "projects": projects}


async def _policy_options(call: Call) -> list[tuple[str, str]]:
    options = [(policy.id, policy.name) for policy in access.SYSTEM_POLICIES.values()]
    if call.allowed("iam:policy:list"):
        own = await people.list_policies(call.services, call.actor, limit=_MANY)
        options += [(policy.id, policy.name) for policy in own]
    return options


async def _project_options(call: Call, anywhere: str) -> list[tuple[str, str]]:
    options = [("", anywhere)]
    if call.allowed("iam:project:list"):
        options += [(p.id, p.name) for p in await people.list_projects(call.services, call.actor, limit=_MANY)]
    return options


@pages.post("/access/users/{id}", action="iam:user:update")
async def update_user(call: Call) -> Response:
    form = call.form
    try:
        changes = {"name": form.text("name"), "email": form.text("email")}
        before = await people.get_user(call.services, call.actor, call.param("id"))
        if changes["email"].lower() == before.email:
            del changes["email"]
        await people.update_user(
            call.services, call.actor, call.param("id"), revision=revision_of(form), changes=changes
        )
    except _MET as problem:
        return await _user(call, problem, form.values())
    return see(f"/access/users/{call.param('id')}", said="saved", call=call)


@pages.post("/access/users/{id}/disabled", action="iam:user:update")
async def disable_user(call: Call) -> Response:
    off = call.form.checked("disabled")
    try:
        await people.update_user(
            call.services, call.actor, call.param("id"), revision=revision_of(call.form), changes={"disabled": off}
        )
    except _MET as problem:
        return await _user(call, problem)
    return see(f"/access/users/{call.param('id')}", said="disabled" if off else "enabled", call=call)


@pages.post("/access/users/{id}/link", action="iam:user:update")
async def password_link(call: Call) -> Response:
    try:
        found, link = await people.new_password_link(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _user(call, problem)
    return await _user(call, link=_link_view(call, found, link))


@pages.post("/access/users/{id}/delete", action="iam:user:delete")
async def delete_user(call: Call) -> Response:
    try:
        await people.delete_user(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _user(call, problem)
    return see("/access", said="deleted", call=call)


# --- attachments ----------------------------------------------------------------------------------------------------


@pages.post("/access/attachments", action="iam:policy:update")
async def attach(call: Call) -> Response:
    form = call.form
    await people.attach_policy(
        call.services, call.actor, policy=form.text("policy"), user_id=form.optional("user_id"),
        group_id=form.optional("group_id"), project_id=form.optional("project_id"),
    )  # fmt: skip
    return see(safe_next(form.text("back")), said="added", call=call)


@pages.post("/access/attachments/{id}/detach", action="iam:policy:update")
async def detach(call: Call) -> Response:
    await people.detach_policy(call.services, call.actor, call.param("id"))
    return see(safe_next(call.form.text("back")), said="removed", call=call)


# --- groups ---------------------------------------------------------------------------------------------------------


@pages.get("/access/groups", action="iam:group:list")
async def groups(call: Call) -> Response:
    return await _groups(call)


async def _groups(call: Call, problem: Problem | None = None) -> Response:
    found = await people.list_groups(call.services, call.actor, limit=_PAGE + 1, after=call.query.optional("after"))
    more, found = len(found) > _PAGE, found[:_PAGE]
    view = {
        "lines": found,
        "here": "groups",
        "title": _("Groups"),
        "empty_title": _("No groups yet"),
        "empty_text": _("Give policies to groups and put people into them."),
        "new_title": _("Make a group"),
        "can_create": call.allowed("iam:group:create"),
        "values": call.form.values(),
        "next_href": with_query("/access/groups", after=found[-1].id) if more else "",
    }
    status = problem.status if problem else 200
    return page(call, "access/groups.html", view, status=status, faults=Faults.of(problem))


@pages.post("/access/groups", action="iam:group:create")
async def create_group(call: Call) -> Response:
    try:
        made = await people.create_group(
            call.services, call.actor, name=call.form.text("name"), description=call.form.text("description")
        )
    except _MET as problem:
        return await _groups(call, problem)
    return see(f"/access/groups/{made.id}", said="created", call=call)


@pages.get("/access/groups/{id}", action="iam:group:get")
async def group(call: Call) -> Response:
    return await _group(call)


async def _group(call: Call, problem: Problem | None = None, values: Mapping[str, str] | None = None) -> Response:
    services, actor = call.services, call.actor
    found = await people.get_group(services, actor, call.param("id"))
    members = await people.list_members(services, actor, found.id, limit=_MANY)
    candidates = []
    if call.allowed("iam:user:list"):
        inside = {member.id for member in members}
        everybody = await people.list_users(services, actor, limit=_MANY)
        candidates = [(u.id, f"{u.name} ({u.email})") for u in everybody if u.id not in inside]
    view = {
        "group": found,
        "members": members,
        "candidates": candidates,
        "values": values or {"name": found.name, "description": found.description},
        **await _attachment_view(call, group_id=found.id),
    }
    status = problem.status if problem else 200
    return page(call, "access/group.html", view, status=status, faults=Faults.of(problem))


@pages.post("/access/groups/{id}", action="iam:group:update")
async def update_group(call: Call) -> Response:
    form = call.form
    try:
        await people.update_group(
            call.services, call.actor, call.param("id"), revision=revision_of(form),
            changes={"name": form.text("name"), "description": form.text("description")},
        )  # fmt: skip
    except _MET as problem:
        return await _group(call, problem, form.values())
    return see(f"/access/groups/{call.param('id')}", said="saved", call=call)


@pages.post("/access/groups/{id}/add", action="iam:group:update")
async def add_member(call: Call) -> Response:
    try:
        await people.add_member(call.services, call.actor, call.param("id"), call.form.text("user_id"))
    except _MET as problem:
        return await _group(call, problem)
    return see(f"/access/groups/{call.param('id')}", said="added", call=call)


@pages.post("/access/groups/{id}/remove", action="iam:group:update")
async def remove_member(call: Call) -> Response:
    try:
        await people.remove_member(call.services, call.actor, call.param("id"), call.form.text("user_id"))
    except _MET as problem:
        return await _group(call, problem)
    return see(f"/access/groups/{call.param('id')}", said="removed", call=call)


@pages.post("/access/groups/{id}/delete", action="iam:group:delete")
async def delete_group(call: Call) -> Response:
    try:
        await people.delete_group(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _group(call, problem)
    return see("/access/groups", said="deleted", call=call)


# --- policies -------------------------------------------------------------------------------------------------------

_EXAMPLE = {
    "Version": "1.1",
    "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list", "scm:cert:get"], "Resource": ["*"]}],
}


def _pretty(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


@pages.get("/access/policies", action="iam:policy:list")
async def policies(call: Call) -> Response:
    after = call.query.optional("after")
    found = await people.list_policies(call.services, call.actor, limit=_PAGE + 1, after=after)
    more, found = len(found) > _PAGE, found[:_PAGE]
    system = () if after else tuple(access.SYSTEM_POLICIES.values())
    next_href = with_query("/access/policies", after=found[-1].id) if more else ""
    return page(call, "access/policies.html", {"lines": [*found, *system], "next_href": next_href})


def _policy_view(call: Call, policy: access.Policy | None, values: Mapping[str, str], action: str) -> dict[str, Any]:
    editable = policy is None or (not policy.is_system and call.allowed("iam:policy:update"))
    return {
        "policy": policy,
        "title": policy.name if policy else _("Write a policy"),
        "values": values,
        "action": action,
        "editable": editable,
        "actions": access.ACTIONS,
    }


@pages.get("/access/policies/new", action="iam:policy:create")
async def new_policy(call: Call) -> Response:
    values = {"document": _pretty(_EXAMPLE)}
    if call.query.text("copy"):
        copied = await people.get_policy(call.services, call.actor, call.query.text("copy"))
        values = {"document": _pretty(dict(copied.document)), "description": copied.description}
    return page(call, "access/policy.html", _policy_view(call, None, values, "/access/policies/new"))


def _document(form: Form) -> Any:
    try:
        return orjson.loads(form.text("document"))
    except orjson.JSONDecodeError as error:
        raise Invalid(
            "json_invalid", f"The document is not well-formed JSON: line {error.lineno}, column {error.colno}.",
            field="document", fix="Check quotes, commas and brackets there.",
        ) from error  # fmt: skip


@pages.post("/access/policies/new", action="iam:policy:create")
async def create_policy(call: Call) -> Response:
    form = call.form
    try:
        made = await people.create_policy(
            call.services, call.actor, name=form.text("name"), description=form.text("description"),
            document=_document(form),
        )  # fmt: skip
    except _MET as problem:
        view = _policy_view(call, None, form.values(), "/access/policies/new")
        return again(call, "access/policy.html", view, problem)
    return see(f"/access/policies/{made.id}", said="created", call=call)


@pages.get("/access/policies/{id}", action="iam:policy:get")
async def policy(call: Call) -> Response:
    return await _policy(call)


async def _policy(call: Call, problem: Problem | None = None, typed: Mapping[str, str] | None = None) -> Response:
    found = await people.get_policy(call.services, call.actor, call.param("id"))
    values = typed or {
        "name": found.name, "description": found.description, "document": _pretty(dict(found.document)),
        "revision": str(found.revision),
    }  # fmt: skip
    view = _policy_view(call, found, values, f"/access/policies/{found.id}")
    status = problem.status if problem else 200
    return page(call, "access/policy.html", view, status=status, faults=Faults.of(problem))


@pages.post("/access/policies/{id}", action="iam:policy:update")
async def update_policy(call: Call) -> Response:
    form = call.form
    try:
        await people.update_policy(
            call.services, call.actor, call.param("id"), revision=revision_of(form),
            changes={
                "name": form.text("name"), "description": form.text("description"), "document": _document(form)
            },
        )  # fmt: skip
    except _MET as problem:
        return await _policy(call, problem, form.values())
    return see(f"/access/policies/{call.param('id')}", said="saved", call=call)


@pages.post("/access/policies/{id}/delete", action="iam:policy:delete")
async def delete_policy(call: Call) -> Response:
    try:
        await people.delete_policy(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _policy(call, problem)
    return see("/access/policies", said="deleted", call=call)


@pages.get("/access/simulator", action="iam:policy:list")
async def simulator(call: Call) -> Response:
    services, actor, query = call.services, call.actor, call.query
    everybody = await people.list_users(services, actor, limit=_MANY) if call.allowed("iam:user:list") else []
    decision, problem = None, None
    if query.text("user_id") and query.text("action"):
        try:
            decision = await people.simulate(
                services, actor, user_id=query.text("user_id"), action=query.text("action"),
                resource=query.optional("resource"), project_id=query.optional("project_id"),
            )  # fmt: skip
        except _MET as met:
            problem = met
    view = {
        "decision": decision,
        "users": [(u.id, f"{u.name} ({u.email})") for u in everybody],
        "actions": [(name, name) for name in access.ACTIONS],
        "projects": await _project_options(call, _("none in particular")),
        "values": {name: query.text(name) for name in ("user_id", "action", "resource", "project_id")},
    }
    status = problem.status if problem else 200
    return page(call, "access/simulator.html", view, status=status, faults=Faults.of(problem))


# --- projects -------------------------------------------------------------------------------------------------------


@pages.get("/access/projects", action="iam:project:list")
async def projects(call: Call) -> Response:
    return await _projects(call)


async def _projects(call: Call, problem: Problem | None = None) -> Response:
    found = await people.list_projects(call.services, call.actor, limit=_PAGE + 1, after=call.query.optional("after"))
    more, found = len(found) > _PAGE, found[:_PAGE]
    view = {
        "lines": found,
        "here": "projects",
        "title": _("Projects"),
        "empty_title": _("No project you may see"),
        "empty_text": _("Projects part certificates and targets, and narrow policies."),
        "new_title": _("Make a project"),
        "can_create": call.allowed("iam:project:create"),
        "values": call.form.values(),
        "next_href": with_query("/access/projects", after=found[-1].id) if more else "",
    }
    status = problem.status if problem else 200
    return page(call, "access/groups.html", view, status=status, faults=Faults.of(problem))


@pages.post("/access/projects", action="iam:project:create")
async def create_project(call: Call) -> Response:
    try:
        await people.create_project(
            call.services, call.actor, name=call.form.text("name"), description=call.form.text("description")
        )
    except _MET as problem:
        return await _projects(call, problem)
    return see("/access/projects", said="created", call=call)


@pages.get("/access/projects/{id}", action="iam:project:get")
async def project(call: Call) -> Response:
    return await _project(call)


async def _project(call: Call, problem: Problem | None = None, typed: Mapping[str, str] | None = None) -> Response:
    found = await people.get_project(call.services, call.actor, call.param("id"))
    view = {"project": found, "values": typed or {"name": found.name, "description": found.description}}
    status = problem.status if problem else 200
    return page(call, "access/project.html", view, status=status, faults=Faults.of(problem))


@pages.post("/access/projects/{id}", action="iam:project:update")
async def update_project(call: Call) -> Response:
    form = call.form
    try:
        await people.update_project(
            call.services, call.actor, call.param("id"), revision=revision_of(form),
            changes={"name": form.text("name"), "description": form.text("description")},
        )  # fmt: skip
    except _MET as problem:
        return await _project(call, problem, form.values())
    return see(f"/access/projects/{call.param('id')}", said="saved", call=call)


@pages.post("/access/projects/{id}/delete", action="iam:project:delete")
async def delete_project(call: Call) -> Response:
    try:
        await people.delete_project(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _project(call, problem)
    return see("/access/projects", said="deleted", call=call)


# --- tokens ---------------------------------------------------------------------------------------------------------


@pages.get("/access/tokens", action="iam:token:list")
async def tokens(call: Call) -> Response:
    found = await people.list_tokens(call.services, call.actor, limit=_PAGE + 1, after=call.query.optional("after"))
    more, found = len(found) > _PAGE, found[:_PAGE]
    owners = {}
    if call.allowed("iam:user:list"):
        owners = {u.id: u.email for u in await people.list_users(call.services, call.actor, limit=_MANY)}
    next_href = with_query("/access/tokens", after=found[-1].id) if more else ""
    return page(call, "access/tokens.html", {"tokens": found, "owners": owners, "next_href": next_href})


@pages.post("/tokens/{id}/revoke", action=SIGNED_IN)
async def revoke_token(call: Call) -> Response:
    """One's own needs no permission; the room judges whose it is."""
    await people.revoke_token(call.services, call.actor, call.param("id"))
    return see(safe_next(call.form.text("back")), said="token_revoked", call=call)


# --- oneself --------------------------------------------------------------------------------------------------------


@pages.get("/profile", action=SIGNED_IN)
async def profile(call: Call) -> Response:
    return await _profile(call)


async def _profile(call: Call, problem: Problem | None = None, new_token: str | None = None) -> Response:
    services, actor = call.services, call.actor
    me = await people.me(services, actor)
    mine = [t for t in await people.list_tokens(services, actor, limit=_MANY) if t.user_id == actor.user_id]
    view = {
        "me": me,
        "tokens": mine,
        "new_token": new_token,
        "sessions": await people.own_sessions(services, actor) if actor.kind == "user" else [],
        "policies": [("", _("everything I may do")), *await _policy_options(call)],
        "values": {"days": "90", **({} if problem is None else call.form.values())},
    }
    status = problem.status if problem else 200
    faults = Faults.of(problem, {"policies": "policy"})
    return page(call, "profile.html", view, status=status, faults=faults)


@pages.post("/profile/tokens", action="iam:token:create")
async def create_token(call: Call) -> Response:
    form = call.form
    narrowed = form.optional("policy")
    try:
        made = await people.create_token(
            call.services, call.actor, name=form.text("name"), days=whole_number(form, "days"),
            policies=[narrowed] if narrowed else None,
        )  # fmt: skip
    except _MET as problem:
        return await _profile(call, problem)
    return await _profile(call, new_token=made.text)


@pages.post("/profile/sessions/{id}/end", action=SIGNED_IN)
async def end_session(call: Call) -> Response:
    await people.end_session(call.services, call.actor, call.param("id"))
    return see("/profile", said="session_ended", call=call)


@pages.post("/profile/password", action=SIGNED_IN)
async def change_password(call: Call) -> Response:
    keep = call.who.session_id if call.who else None
    try:
        await people.change_password(
            call.services, call.actor, current=call.form.raw("current"), new=call.form.raw("new"), keep_session=keep
        )
    except _MET as problem:
        return await _profile(call, problem)
    return see("/profile", said="password_changed", call=call)
