"""People and access: users, groups, policies, the simulator, projects, everybody's tokens; and one's own profile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from certwright.entry.api.base import SIGNED_IN
from certwright.entry.console.forms import Form
from certwright.entry.console.web import (
    FORM_PROBLEMS,
    PAGE,
    Call,
    Pages,
    changed,
    page,
    paged,
    revision_of,
    safe_next,
    see,
    whole_number,
)
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem
from certwright.platform.i18n import _
from certwright.rooms import access, accounts
from certwright.rooms.access import people

pages = Pages()

_MANY = 100
_EVERYTHING = "everything"
# Giving more than one holds is refused with Forbidden: said on the page, because choosing less helps.
_MET = (*FORM_PROBLEMS, Forbidden, NotFound)


def _typed(call: Call, problem: Problem | None, stored: Mapping[str, str]) -> Mapping[str, str]:
    """What a form shows: what is stored, or what was just refused."""
    return {**stored, **call.form.values()} if problem else stored


async def _change(
    call: Call, doing: Awaitable[object], again: Callable[[Call, Problem], Awaitable[Response]], to: str, said: str
) -> Response:
    return await changed(call, doing, again, to, said, _MET)


def _named(form: Form) -> dict[str, str]:
    """The two fields that groups, projects and policies have in common."""
    return {"name": form.text("name"), "description": form.text("description")}


async def _page_of(call: Call, path: str, fetch: Callable[..., Awaitable[Sequence[Any]]]) -> tuple[Sequence[Any], str]:
    """The page that was asked for of the list at `path`, and where the next one is."""
    return paged(await fetch(call.services, call.actor, limit=PAGE + 1, after=call.query.optional("after")), path)


# --- users ----------------------------------------------------------------------------------------------------------


@pages.get("/access", action="iam:user:list")
async def users(call: Call) -> Response:
    return await _users(call)


async def _users(call: Call, problem: Problem | None = None, link: Mapping[str, Any] | None = None) -> Response:
    lines, next_href = await _page_of(call, "/access", people.list_users)
    view = {
        "users": lines,
        "groups": await _groups_of(call),
        "values": _typed(call, problem, {}),
        "chosen": set(call.form.many("group_ids")) if problem else set(),
        "link": link,
        "next_href": next_href,
    }
    return page(call, "access/users.html", view, problem)


async def _groups_of(call: Call, user_id: str | None = None) -> Sequence[accounts.Group]:
    """Those of one user, or all there are; none for people who may not see groups."""
    if not call.allowed("iam:group:list"):
        return ()
    return await people.list_groups(call.services, call.actor, limit=_MANY, user_id=user_id)


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
        return await _users(call, problem)
    # Shown in the answer itself: an address or a cookie is no place for a secret.
    return await _users(call, link=_link_view(call, user, link))


@pages.get("/access/users/{id}", action="iam:user:get")
async def user(call: Call) -> Response:
    return await _user(call)


async def _user(call: Call, problem: Problem | None = None, link: Mapping[str, Any] | None = None) -> Response:
    found = await people.get_user(call.services, call.actor, call.param("id"))
    view = {
        "user": found,
        "groups": await _groups_of(call, found.id),
        "link": link,
        "values": _typed(call, problem, {"name": found.name, "email": found.email}),
        **await _attachment_view(call, problem, user_id=found.id),
    }
    return page(call, "access/user.html", view, problem)


@pages.post("/access/users/{id}", action="iam:user:update")
async def update_user(call: Call) -> Response:
    user_id, changes = call.param("id"), {"name": call.form.text("name"), "email": call.form.text("email")}
    before = await people.get_user(call.services, call.actor, user_id)
    if changes["email"].lower() == before.email:
        del changes["email"]
    doing = people.update_user(
        call.services, call.actor, user_id, revision=revision_of(call.form), changes=changes
    )  # fmt: skip
    return await _change(call, doing, _user, f"/access/users/{user_id}", "saved")


@pages.post("/access/users/{id}/disabled", action="iam:user:update", ask="disable_user")
async def disable_user(call: Call) -> Response:
    user_id, off = call.param("id"), call.form.checked("disabled")
    doing = people.update_user(
        call.services, call.actor, user_id, revision=revision_of(call.form), changes={"disabled": off}
    )
    return await _change(call, doing, _user, f"/access/users/{user_id}", "disabled" if off else "enabled")


@pages.post("/access/users/{id}/link", action="iam:user:update")
async def password_link(call: Call) -> Response:
    try:
        found, link = await people.new_password_link(call.services, call.actor, call.param("id"))
    except _MET as problem:
        return await _user(call, problem)
    return await _user(call, link=_link_view(call, found, link))


@pages.post("/access/users/{id}/delete", action="iam:user:delete", ask="delete_user")
async def delete_user(call: Call) -> Response:
    doing = people.delete_user(call.services, call.actor, call.param("id"))
    return await _change(call, doing, _user, "/access", "deleted")


# --- attachments ----------------------------------------------------------------------------------------------------


async def _attachment_view(
    call: Call, problem: Problem | None, *, user_id: str | None = None, group_id: str | None = None
) -> dict[str, Any]:
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
    return {
        "items": items,
        # Nothing is chosen until somebody chooses: the first policy of the list is the strongest.
        "policies": [("", _("Choose a policy")), *policies],
        "projects": projects,
        "chosen": _typed(call, problem, {}),
    }


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


@pages.post("/access/users/{id}/attach", action="iam:policy:update")
async def attach_to_user(call: Call) -> Response:
    return await _attach(call, _user, f"/access/users/{call.param('id')}", user_id=call.param("id"))


@pages.post("/access/groups/{id}/attach", action="iam:policy:update")
async def attach_to_group(call: Call) -> Response:
    return await _attach(call, _group, f"/access/groups/{call.param('id')}", group_id=call.param("id"))


async def _attach(
    call: Call, again: Callable[[Call, Problem], Awaitable[Response]], to: str, *, user_id: str | None = None,
    group_id: str | None = None,
) -> Response:  # fmt: skip
    policy = call.form.text("policy")
    if not policy:
        missing = Invalid(
            "policy_missing", "No policy is chosen.", field="policy", fix="Choose the policy to attach, then attach it."
        )
        return await again(call, missing)
    doing = people.attach_policy(
        call.services, call.actor, policy=policy, user_id=user_id, group_id=group_id,
        project_id=call.form.optional("project_id"),
    )  # fmt: skip
    return await _change(call, doing, again, to, "added")


@pages.post("/access/attachments/{id}/detach", action="iam:policy:update", ask="detach_policy")
async def detach(call: Call) -> Response:
    await people.detach_policy(call.services, call.actor, call.param("id"))
    return see(safe_next(call.form.text("back")), said="removed", call=call)


# --- groups ---------------------------------------------------------------------------------------------------------


@pages.get("/access/groups", action="iam:group:list")
async def groups(call: Call) -> Response:
    return await _groups(call)


async def _groups(call: Call, problem: Problem | None = None) -> Response:
    lines, next_href = await _page_of(call, "/access/groups", people.list_groups)
    view = {
        "lines": lines,
        "here": "groups",
        "title": _("Groups"),
        "empty_title": _("No groups yet"),
        "empty_text": _("Give policies to groups and put people into them."),
        "new_title": _("Make a group"),
        "can_create": call.allowed("iam:group:create"),
        "values": _typed(call, problem, {}),
        "next_href": next_href,
    }
    return page(call, "access/groups.html", view, problem)


@pages.post("/access/groups", action="iam:group:create")
async def create_group(call: Call) -> Response:
    try:
        made = await people.create_group(call.services, call.actor, **_named(call.form))
    except _MET as problem:
        return await _groups(call, problem)
    return see(f"/access/groups/{made.id}", said="created", call=call)


@pages.get("/access/groups/{id}", action="iam:group:get")
async def group(call: Call) -> Response:
    return await _group(call)


async def _group(call: Call, problem: Problem | None = None) -> Response:
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
        "candidates": [("", _("Choose somebody")), *candidates] if candidates else [],
        "values": _typed(call, problem, {"name": found.name, "description": found.description}),
        **await _attachment_view(call, problem, group_id=found.id),
    }
    return page(call, "access/group.html", view, problem)


@pages.post("/access/groups/{id}", action="iam:group:update")
async def update_group(call: Call) -> Response:
    group_id = call.param("id")
    doing = people.update_group(
        call.services, call.actor, group_id, revision=revision_of(call.form), changes=_named(call.form)
    )
    return await _change(call, doing, _group, f"/access/groups/{group_id}", "saved")


@pages.post("/access/groups/{id}/add", action="iam:group:update")
async def add_member(call: Call) -> Response:
    group_id, user_id = call.param("id"), call.form.text("user_id")
    if not user_id:
        missing = Invalid("member_missing", "Nobody is chosen.", field="user_id", fix="Choose whom to add, then add.")
        return await _group(call, missing)
    doing = people.add_member(call.services, call.actor, group_id, user_id)
    return await _change(call, doing, _group, f"/access/groups/{group_id}", "added")


@pages.post("/access/groups/{id}/remove", action="iam:group:update", ask="remove_member")
async def remove_member(call: Call) -> Response:
    group_id = call.param("id")
    doing = people.remove_member(call.services, call.actor, group_id, call.form.text("user_id"))
    return await _change(call, doing, _group, f"/access/groups/{group_id}", "removed")


@pages.post("/access/groups/{id}/delete", action="iam:group:delete", ask="delete_group")
async def delete_group(call: Call) -> Response:
    doing = people.delete_group(call.services, call.actor, call.param("id"))
    return await _change(call, doing, _group, "/access/groups", "deleted")


# --- policies -------------------------------------------------------------------------------------------------------

_EXAMPLE = {
    "Version": "1.1",
    "Statement": [{"Effect": "Allow", "Action": ["scm:cert:list", "scm:cert:get"], "Resource": ["*"]}],
}


def _pretty(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


@pages.get("/access/policies", action="iam:policy:list")
async def policies(call: Call) -> Response:
    lines, next_href = await _page_of(call, "/access/policies", people.list_policies)
    # Those of the product stand on the first page only.
    system = () if call.query.optional("after") else tuple(access.SYSTEM_POLICIES.values())
    return page(call, "access/policies.html", {"lines": [*lines, *system], "next_href": next_href})


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
        made = await people.create_policy(call.services, call.actor, **_named(form), document=_document(form))
    except _MET as problem:
        view = _policy_view(call, None, form.values(), "/access/policies/new")
        return page(call, "access/policy.html", view, problem)
    return see(f"/access/policies/{made.id}", said="created", call=call)


@pages.get("/access/policies/{id}", action="iam:policy:get")
async def policy(call: Call) -> Response:
    return await _policy(call)


async def _policy(call: Call, problem: Problem | None = None) -> Response:
    found = await people.get_policy(call.services, call.actor, call.param("id"))
    stored = {
        "name": found.name, "description": found.description, "document": _pretty(dict(found.document)),
        "revision": str(found.revision),
    }  # fmt: skip
    view = _policy_view(call, found, _typed(call, problem, stored), f"/access/policies/{found.id}")
    return page(call, "access/policy.html", view, problem)


@pages.post("/access/policies/{id}", action="iam:policy:update")
async def update_policy(call: Call) -> Response:
    form, policy_id = call.form, call.param("id")
    try:
        await people.update_policy(
            call.services, call.actor, policy_id, revision=revision_of(form),
            changes={**_named(form), "document": _document(form)},
        )  # fmt: skip
    except _MET as problem:
        return await _policy(call, problem)
    return see(f"/access/policies/{policy_id}", said="saved", call=call)


@pages.post("/access/policies/{id}/delete", action="iam:policy:delete", ask="delete_policy")
async def delete_policy(call: Call) -> Response:
    doing = people.delete_policy(call.services, call.actor, call.param("id"))
    return await _change(call, doing, _policy, "/access/policies", "deleted")


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
    return page(call, "access/simulator.html", view, problem)


# --- projects -------------------------------------------------------------------------------------------------------


@pages.get("/access/projects", action="iam:project:list")
async def projects(call: Call) -> Response:
    return await _projects(call)


async def _projects(call: Call, problem: Problem | None = None) -> Response:
    lines, next_href = await _page_of(call, "/access/projects", people.list_projects)
    view = {
        "lines": lines,
        "here": "projects",
        "title": _("Projects"),
        "empty_title": _("No project you may see"),
        "empty_text": _("Projects part certificates and targets, and narrow policies."),
        "new_title": _("Make a project"),
        "can_create": call.allowed("iam:project:create"),
        "values": _typed(call, problem, {}),
        "next_href": next_href,
    }
    return page(call, "access/groups.html", view, problem)


@pages.post("/access/projects", action="iam:project:create")
async def create_project(call: Call) -> Response:
    doing = people.create_project(call.services, call.actor, **_named(call.form))
    return await _change(call, doing, _projects, "/access/projects", "created")


@pages.get("/access/projects/{id}", action="iam:project:get")
async def project(call: Call) -> Response:
    return await _project(call)


async def _project(call: Call, problem: Problem | None = None) -> Response:
    found = await people.get_project(call.services, call.actor, call.param("id"))
    values = _typed(call, problem, {"name": found.name, "description": found.description})
    return page(call, "access/project.html", {"project": found, "values": values}, problem)


@pages.post("/access/projects/{id}", action="iam:project:update")
async def update_project(call: Call) -> Response:
    project_id = call.param("id")
    doing = people.update_project(
        call.services, call.actor, project_id, revision=revision_of(call.form), changes=_named(call.form)
    )
    return await _change(call, doing, _project, f"/access/projects/{project_id}", "saved")


@pages.post("/access/projects/{id}/delete", action="iam:project:delete", ask="delete_project")
async def delete_project(call: Call) -> Response:
    doing = people.delete_project(call.services, call.actor, call.param("id"))
    return await _change(call, doing, _project, "/access/projects", "deleted")


# --- tokens ---------------------------------------------------------------------------------------------------------


@pages.get("/access/tokens", action="iam:token:list")
async def tokens(call: Call) -> Response:
    lines, next_href = await _page_of(call, "/access/tokens", people.list_tokens)
    owners = {}
    if call.allowed("iam:user:list"):
        owners = {u.id: u.email for u in await people.list_users(call.services, call.actor, limit=_MANY)}
    return page(call, "access/tokens.html", {"tokens": lines, "owners": owners, "next_href": next_href})


@pages.post("/tokens/{id}/revoke", action=SIGNED_IN, ask="revoke_token")
async def revoke_token(call: Call) -> Response:
    """One's own needs no permission; the room judges whose it is."""
    await people.revoke_token(call.services, call.actor, call.param("id"))
    return see(safe_next(call.form.text("back")), said="token_revoked", call=call)


# --- oneself --------------------------------------------------------------------------------------------------------


@pages.get("/profile", action=SIGNED_IN)
async def profile(call: Call) -> Response:
    return await _profile(call)


# What browsers say of themselves; most also name those they descend from, so the youngest stand first.
_BROWSERS = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"),
    ("curl/", "curl"), ("certwright/", "certwright"),
)  # fmt: skip
_SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)  # fmt: skip


def browser_of(user_agent: str) -> str:
    """`Firefox, Linux`; what it says in full where neither is known."""
    words = [next((name for mark, name in known if mark in user_agent), "") for known in (_BROWSERS, _SYSTEMS)]
    return ", ".join(word for word in words if word) or user_agent[:60]


async def _profile(call: Call, problem: Problem | None = None, new_token: str | None = None) -> Response:
    services, actor = call.services, call.actor
    me = await people.me(services, actor)
    mine = [t for t in await people.list_tokens(services, actor, limit=_MANY) if t.user_id == actor.user_id]
    view = {
        "me": me,
        "tokens": mine,
        "new_token": new_token,
        "sessions": await people.own_sessions(services, actor) if actor.kind == "user" else [],
        "browser": browser_of,
        # A token does what its owner may: that must be chosen, not overlooked.
        "policies": [
            ("", _("Choose what it may do")), (_EVERYTHING, _("everything I may do")), *await _policy_options(call)
        ],
        "values": _typed(call, problem, {"days": "90"}),
    }  # fmt: skip
    return page(call, "profile.html", view, problem, renamed={"policies": "policy"})


@pages.post("/profile/tokens", action="iam:token:create")
async def create_token(call: Call) -> Response:
    form, policy = call.form, call.form.text("policy")
    try:
        if not policy:
            raise Invalid(
                "policy_missing", "What the token may do is not chosen.", field="policy",
                fix="Choose a policy, or everything you may do yourself.",
            )  # fmt: skip
        made = await people.create_token(
            call.services, call.actor, name=form.text("name"), days=whole_number(form, "days"),
            policies=None if policy == _EVERYTHING else [policy],
        )  # fmt: skip
    except _MET as problem:
        return await _profile(call, problem)
    return await _profile(call, new_token=made.text)


@pages.post("/profile/sessions/{id}/end", action=SIGNED_IN, ask="end_session")
async def end_session(call: Call) -> Response:
    await people.end_session(call.services, call.actor, call.param("id"))
    return see("/profile", said="session_ended", call=call)


@pages.post("/profile/password", action=SIGNED_IN)
async def change_password(call: Call) -> Response:
    keep = call.who.session_id if call.who else None
    doing = people.change_password(
        call.services, call.actor, current=call.form.raw("current"), new=call.form.raw("new"), keep_session=keep
    )
    return await _change(call, doing, _profile, "/profile", "password_changed")
