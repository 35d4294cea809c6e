"""Managing who there is and what they may do: users, groups, projects, policies, attachments, tokens, sessions.

Two rules guard every change here: nobody gives away what they don't hold themselves (unless they hold all of iam),
and an account keeps at least one enabled administrator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Refused, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import accounts, audit
from certwright.rooms.access import store
from certwright.rooms.access.actions import AuthCache, require, visible
from certwright.rooms.access.rules import checked_document, covers, decide, statements_of
from certwright.rooms.access.system import SYSTEM_POLICIES, TENANT_ADMINISTRATOR
from certwright.rooms.access.tables import policies, policy_attachments
from certwright.rooms.access.words import Attachment, Decision, Policy
from certwright.rooms.accounts import Account, Group, OneTimeLink, Project, Session, Token, User

_t = accounts.tables
_ALL_OF_IAM = (Grant("", (Statement("Allow", ("iam:*",)),)),)


@asynccontextmanager
async def _changing(services: Services, actor: Actor) -> AsyncIterator[Tx]:
    """A transaction that changes who may do what: one at a time per account; remembered callers are forgotten after."""
    async with services.db.begin() as tx:
        await accounts.store.lock_account(tx, actor.account_id)
        yield tx
    services.port(AuthCache).clear()


async def _keep_an_administrator(tx: Tx, account_id: str) -> None:
    """Raises Refused `last_administrator` if nobody could undo what this transaction does."""
    for grants in await store.grants_of_administrators(tx, account_id):
        if all(decide(grants, action, None, None).allowed for action in ("iam:policy:update", "iam:user:update")):
            return
    raise Refused(
        "last_administrator", "This would leave the account without an enabled administrator.",
        fix="Make somebody else administrator first.",
    )  # fmt: skip


def _may_grant(actor: Actor, wanted: Sequence[Grant]) -> None:
    """Raises Forbidden `more_than_held`."""
    if covers(actor.grants, _ALL_OF_IAM) or covers(actor.grants, wanted):
        return
    raise Forbidden(
        "more_than_held", "You can't give, or take over, permissions that you don't hold yourself.",
        fix="Ask an administrator who holds all of iam.",
    )  # fmt: skip


def _may_lift(actor: Actor, held: Sequence[Grant]) -> None:
    """Raises Forbidden `more_than_held`: taking a Deny off anybody, oneself too, gives what it kept back."""
    given = [
        Grant(
            grant.policy, tuple(Statement("Allow", s.actions, s.resources) for s in grant.statements), grant.project_id
        )
        for grant in held
    ]
    _may_grant(actor, given)


# Set-up


async def set_up(services: Services, secret: str, *, email: str, name: str, password: str, account_name: str) -> User:
    """Use the one-time set-up link: names the account and makes its first user, its administrator.

    Raises InvalidFields with every wrong field, NotFound `link_invalid` for a link used, expired or unknown.
    """
    email, name, account_name = accounts.check_person(email, name, password, account_name)
    if not await accounts.setup_is_open(services, secret):
        raise accounts.link_invalid()
    hashed = await accounts.hash_password(password)
    async with services.db.begin() as tx:
        user = await accounts.claim_setup(
            tx, services, secret, email=email, name=name, password_hash=hashed, account_name=account_name
        )
        await make_administrator(tx, services, user)
        actor = Actor("user", user.id, user.email, user.account_id, user_id=user.id)
        await audit.record(
            tx, services, actor, "iam:account:update", "account", user.account_id,
            after={"name": account_name, "first_user": user.id}, reason="set-up",
        )  # fmt: skip
    services.port(AuthCache).clear()
    return user


async def make_administrator(tx: Tx, services: Services, user: User) -> Group:
    """The group "Administrators" with Tenant Administrator, and `user` in it."""
    now = services.clock.now()
    group = Group(new_id("grp", now), user.account_id, "Administrators", "May do everything.", 1, now)
    await accounts.store.insert_row(
        tx, _t.groups, id=group.id, account_id=group.account_id, name=group.name, description=group.description,
        created_at=now,
    )  # fmt: skip
    await accounts.store.add_member(tx, group.id, user.id)
    await store.attach(
        tx, attachment_id=new_id("att", now), account_id=user.account_id,
        policy=SYSTEM_POLICIES[TENANT_ADMINISTRATOR], user_id=None, group_id=group.id, project_id=None, at=now,
    )  # fmt: skip
    return group


# The account


async def get_account(services: Services, actor: Actor) -> Account:
    require(actor, "iam:account:get")
    async with services.db.begin() as tx:
        found = await accounts.store.get_account(tx, actor.account_id)
    if found is None:
        raise not_found("account", actor.account_id)
    return found


async def rename_account(services: Services, actor: Actor, name: str, *, revision: int | None) -> Account:
    require(actor, "iam:account:update")
    name = accounts.rules.normal_name(name)
    async with services.db.begin() as tx:
        before = await accounts.store.get_account(tx, actor.account_id)
        await accounts.store.update_revised(tx, _t.accounts, actor.account_id, revision, name=name)
        await audit.record(
            tx, services, actor, "iam:account:update", "account", actor.account_id,
            before={"name": before.name if before else None}, after={"name": name},
        )  # fmt: skip
    return await get_account(services, _reading(actor, "iam:account:get"))


def _reading(actor: Actor, action: str) -> Actor:
    """The actor, allowed to see what their change resulted in."""
    return Actor(
        actor.kind, actor.id, actor.name, actor.account_id,
        (Grant("result", (Statement("Allow", (action,)),)),), actor.user_id, actor.request_id,
    )  # fmt: skip


# Projects


async def list_projects(services: Services, actor: Actor, *, limit: int, after: str | None = None) -> list[Project]:
    """Of the account; someone whose grants are narrowed to projects sees those."""
    async with services.db.begin() as tx:
        return await accounts.store.list_projects(
            tx, visible(_t.projects, actor, "iam:project:list"), limit=limit, after=after
        )


async def get_project(services: Services, actor: Actor, project_id: str) -> Project:
    async with services.db.begin() as tx:
        return await _project(tx, actor, "iam:project:get", project_id)


async def _project(tx: Tx, actor: Actor, action: str, project_id: str) -> Project:
    found = await accounts.store.get_project(tx, visible(_t.projects, actor, action), project_id)
    if found is None:
        raise not_found("project", project_id)
    return found


async def create_project(services: Services, actor: Actor, *, name: str, description: str = "") -> Project:
    require(actor, "iam:project:create")
    name, description = accounts.rules.normal_name(name), accounts.rules.normal_description(description)
    now = services.clock.now()
    project = Project(new_id("prj", now), actor.account_id, name, description, False, 1, now)
    async with _changing(services, actor) as tx:
        await accounts.store.name_is_free(tx, _t.projects, actor.account_id, name)
        await accounts.store.insert_row(
            tx, _t.projects, id=project.id, account_id=project.account_id, name=name, description=description,
            created_at=now,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "iam:project:create", "project", project.id, project_id=project.id,
            after={"name": name},
        )  # fmt: skip
    return project


async def update_project(
    services: Services, actor: Actor, project_id: str, *, revision: int | None, changes: Mapping[str, str]
) -> Project:
    async with _changing(services, actor) as tx:
        before = await _project(tx, actor, "iam:project:update", project_id)
        values = await _named(tx, _t.projects, actor.account_id, project_id, changes)
        await accounts.store.update_revised(tx, _t.projects, project_id, revision, **values)
        await _audit_change(tx, services, actor, "iam:project:update", "project", before, values, project_id=project_id)
        return await _project(tx, actor, "iam:project:update", project_id)


async def delete_project(services: Services, actor: Actor, project_id: str) -> None:
    """Raises Refused `project_is_default` or, while anything belongs to it, `project_in_use`."""
    try:
        async with _changing(services, actor) as tx:
            found = await _project(tx, actor, "iam:project:delete", project_id)
            if found.is_default:
                raise Refused(
                    "project_is_default", "The default project can't be deleted.",
                    fix="Delete another project, or rename this one.",
                )  # fmt: skip
            await accounts.store.delete_row(tx, _t.projects, project_id)
            await audit.record(
                tx, services, actor, "iam:project:delete", "project", project_id, before={"name": found.name}
            )
    except IntegrityError as error:
        raise _in_use("project", "Move or delete what belongs to it first.") from error


def _in_use(what: str, fix: str) -> Refused:
    return Refused(f"{what}_in_use", f"The {what} is still in use.", fix=fix)


async def _named(
    tx: Tx, table: sa.Table, account_id: str, object_id: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The checked columns of a change of name and description."""
    values: dict[str, Any] = {}
    if "name" in changes:
        values["name"] = accounts.rules.normal_name(changes["name"])
        await accounts.store.name_is_free(tx, table, account_id, values["name"], apart_from=object_id)
    if "description" in changes:
        values["description"] = accounts.rules.normal_description(changes["description"])
    return values


async def _audit_change(
    tx: Tx,
    services: Services,
    actor: Actor,
    action: str,
    kind: str,
    before: Any,
    values: Mapping[str, Any],
    *,
    project_id: str | None = None,
) -> None:
    await audit.record(
        tx, services, actor, action, kind, before.id, project_id=project_id,
        before={name: getattr(before, name) for name in values}, after=dict(values),
    )  # fmt: skip


# Users


async def list_users(
    services: Services, actor: Actor, *, limit: int, after: str | None = None, group_id: str | None = None
) -> list[User]:
    async with services.db.begin() as tx:
        return await accounts.store.list_users(
            tx, visible(_t.users, actor, "iam:user:list"), limit=limit, after=after, group_id=group_id
        )


async def get_user(services: Services, actor: Actor, user_id: str) -> User:
    async with services.db.begin() as tx:
        return await _user(tx, actor, "iam:user:get", user_id)


async def _user(tx: Tx, actor: Actor, action: str, user_id: str) -> User:
    found = await accounts.store.get_user(tx, visible(_t.users, actor, action), user_id)
    if found is None:
        raise not_found("user", user_id)
    return found


async def invite_user(
    services: Services, actor: Actor, *, email: str, name: str, group_ids: Sequence[str] = ()
) -> tuple[User, OneTimeLink]:
    """Make a user without a password, and the one-time link with which they set one (7 days)."""
    require(actor, "iam:user:create")
    email, name = accounts.rules.normal_email(email), accounts.rules.normal_name(name)
    async with _changing(services, actor) as tx:
        user = await accounts.insert_user(tx, services, actor.account_id, email=email, name=name, password_hash=None)
        for group_id in group_ids:
            await _join(tx, services, actor, group_id, user)
        link = await accounts.new_link(
            tx, services, actor.account_id, "password", user.id, accounts.rules.INVITE_LIFETIME
        )
        await audit.record(
            tx, services, actor, "iam:user:create", "user", user.id, after={"email": email, "name": name}
        )
    return user, link


async def new_password_link(services: Services, actor: Actor, user_id: str) -> tuple[User, OneTimeLink]:
    """A link for someone who lost theirs or forgot the password (24 hours); earlier ones stop working.

    Whoever holds it can become that user, so the actor must hold what the user holds.
    """
    async with _changing(services, actor) as tx:
        user = await _user(tx, actor, "iam:user:update", user_id)
        _may_grant(actor, await store.grants_of_user(tx, user_id))
        await accounts.store.delete_links(tx, kind="password", user_id=user_id)
        link = await accounts.new_link(
            tx, services, actor.account_id, "password", user_id, accounts.rules.LINK_LIFETIME
        )
        await audit.record(tx, services, actor, "iam:user:update", "user", user_id, reason="new password link")
    return user, link


async def update_user(
    services: Services, actor: Actor, user_id: str, *, revision: int | None, changes: Mapping[str, Any]
) -> User:
    """Change `name`, `email` or `disabled`. Disabling ends their sessions; their tokens stop working."""
    now = services.clock.now()
    async with _changing(services, actor) as tx:
        before = await _user(tx, actor, "iam:user:update", user_id)
        values: dict[str, Any] = {}
        if "name" in changes:
            values["name"] = accounts.rules.normal_name(changes["name"])
        if "email" in changes:
            values["email"] = accounts.rules.normal_email(changes["email"])
            if not await accounts.store.email_is_free(tx, values["email"], apart_from=user_id):
                raise accounts.email_taken()
        if "disabled" in changes:
            values["disabled_at"] = (before.disabled_at or now) if changes["disabled"] else None
        if values.keys() - {"name"}:
            _may_grant(actor, await store.grants_of_user(tx, user_id))
        await accounts.store.update_revised(tx, _t.users, user_id, revision, **values)
        if values.get("disabled_at"):
            await accounts.store.delete_sessions(tx, user_id)
            await _keep_an_administrator(tx, actor.account_id)
        await _audit_change(tx, services, actor, "iam:user:update", "user", before, values)
        return await _user(tx, actor, "iam:user:update", user_id)


async def delete_user(services: Services, actor: Actor, user_id: str) -> None:
    """With their sessions, tokens and memberships; what they did stays in the audit log."""
    async with _changing(services, actor) as tx:
        user = await _user(tx, actor, "iam:user:delete", user_id)
        _may_grant(actor, await store.grants_of_user(tx, user_id))
        await accounts.store.delete_row(tx, _t.users, user_id)
        await _keep_an_administrator(tx, actor.account_id)
        await audit.record(tx, services, actor, "iam:user:delete", "user", user_id, before={"email": user.email})


# Groups


async def list_groups(
    services: Services, actor: Actor, *, limit: int, after: str | None = None, user_id: str | None = None
) -> list[Group]:
    async with services.db.begin() as tx:
        return await accounts.store.list_groups(
            tx, visible(_t.groups, actor, "iam:group:list"), limit=limit, after=after, user_id=user_id
        )


async def get_group(services: Services, actor: Actor, group_id: str) -> Group:
    async with services.db.begin() as tx:
        return await _group(tx, actor, "iam:group:get", group_id)


async def _group(tx: Tx, actor: Actor, action: str, group_id: str) -> Group:
    found = await accounts.store.get_group(tx, visible(_t.groups, actor, action), group_id)
    if found is None:
        raise not_found("group", group_id)
    return found


async def create_group(services: Services, actor: Actor, *, name: str, description: str = "") -> Group:
    require(actor, "iam:group:create")
    name, description = accounts.rules.normal_name(name), accounts.rules.normal_description(description)
    now = services.clock.now()
    group = Group(new_id("grp", now), actor.account_id, name, description, 1, now)
    async with _changing(services, actor) as tx:
        await accounts.store.name_is_free(tx, _t.groups, actor.account_id, name)
        await accounts.store.insert_row(
            tx, _t.groups, id=group.id, account_id=group.account_id, name=name, description=description, created_at=now
        )
        await audit.record(tx, services, actor, "iam:group:create", "group", group.id, after={"name": name})
    return group


async def update_group(
    services: Services, actor: Actor, group_id: str, *, revision: int | None, changes: Mapping[str, str]
) -> Group:
    async with _changing(services, actor) as tx:
        before = await _group(tx, actor, "iam:group:update", group_id)
        values = await _named(tx, _t.groups, actor.account_id, group_id, changes)
        await accounts.store.update_revised(tx, _t.groups, group_id, revision, **values)
        await _audit_change(tx, services, actor, "iam:group:update", "group", before, values)
        return await _group(tx, actor, "iam:group:update", group_id)


async def delete_group(services: Services, actor: Actor, group_id: str) -> None:
    async with _changing(services, actor) as tx:
        group = await _group(tx, actor, "iam:group:delete", group_id)
        _may_lift(actor, await store.grants_of_group(tx, group_id))
        await accounts.store.delete_row(tx, _t.groups, group_id)
        await _keep_an_administrator(tx, actor.account_id)
        await audit.record(tx, services, actor, "iam:group:delete", "group", group_id, before={"name": group.name})


async def list_members(
    services: Services, actor: Actor, group_id: str, *, limit: int, after: str | None = None
) -> list[User]:
    async with services.db.begin() as tx:
        await _group(tx, actor, "iam:group:get", group_id)
        own = _t.users.c.account_id == actor.account_id
        return await accounts.store.list_users(tx, own, limit=limit, after=after, group_id=group_id)


async def add_member(services: Services, actor: Actor, group_id: str, user_id: str) -> None:
    async with _changing(services, actor) as tx:
        user = await accounts.store.get_user(tx, _t.users.c.account_id == actor.account_id, user_id)
        if user is None:
            raise not_found("user", user_id)
        await _join(tx, services, actor, group_id, user)
        # A Deny of the group may bind the last administrator.
        await _keep_an_administrator_if_there_was(tx, actor.account_id, user_id)


async def _keep_an_administrator_if_there_was(tx: Tx, account_id: str, user_id: str) -> None:
    grants = await store.grants_of_user(tx, user_id)
    if any(statement.effect == "Deny" for grant in grants for statement in grant.statements):
        await _keep_an_administrator(tx, account_id)


async def _join(tx: Tx, services: Services, actor: Actor, group_id: str, user: User) -> None:
    group = await _group(tx, actor, "iam:group:update", group_id)
    _may_grant(actor, await store.grants_of_group(tx, group_id))
    if await accounts.store.add_member(tx, group_id, user.id):
        await audit.record(tx, services, actor, "iam:group:update", "group", group.id, after={"member_added": user.id})


async def remove_member(services: Services, actor: Actor, group_id: str, user_id: str) -> None:
    async with _changing(services, actor) as tx:
        await _group(tx, actor, "iam:group:update", group_id)
        _may_lift(actor, await store.grants_of_group(tx, group_id))
        if not await accounts.store.remove_member(tx, group_id, user_id):
            raise not_found("member", user_id)
        await _keep_an_administrator(tx, actor.account_id)
        await audit.record(
            tx, services, actor, "iam:group:update", "group", group_id, before={"member_removed": user_id}
        )


# Policies


async def list_policies(services: Services, actor: Actor, *, limit: int, after: str | None = None) -> list[Policy]:
    """The account's own policies, by id; system policies are `SYSTEM_POLICIES`."""
    async with services.db.begin() as tx:
        return await store.list_policies(tx, visible(policies, actor, "iam:policy:list"), limit=limit, after=after)


async def get_policy(services: Services, actor: Actor, policy_id: str) -> Policy:
    """By id; a system policy too."""
    system = SYSTEM_POLICIES.get(policy_id)
    if system is not None:
        require(actor, "iam:policy:get")
        return system
    async with services.db.begin() as tx:
        return await _policy(tx, actor, "iam:policy:get", policy_id)


async def _policy(tx: Tx, actor: Actor, action: str, policy_id: str) -> Policy:
    found = await store.get_policy(tx, visible(policies, actor, action), policy_id)
    if found is None:
        raise not_found("policy", policy_id)
    return found


async def _policy_or_system(tx: Tx, account_id: str, policy_id: str) -> Policy:
    found = SYSTEM_POLICIES.get(policy_id) or await store.get_policy(tx, policies.c.account_id == account_id, policy_id)
    if found is None:
        raise not_found("policy", policy_id).at("policy")
    return found


async def create_policy(services: Services, actor: Actor, *, name: str, document: Any, description: str = "") -> Policy:
    """Raises InvalidFields with every mistake in the document, and Forbidden `more_than_held`."""
    require(actor, "iam:policy:create")
    name, description = accounts.rules.normal_name(name), accounts.rules.normal_description(description)
    checked = checked_document(document)
    _may_grant(actor, [Grant(name, statements_of(checked))])
    now = services.clock.now()
    policy = Policy(new_id("pol", now), actor.account_id, name, description, checked, 1, now)
    async with _changing(services, actor) as tx:
        await _policy_name_is_free(tx, actor.account_id, name)
        await accounts.store.insert_row(
            tx, policies, id=policy.id, account_id=policy.account_id, name=name, description=description,
            document=checked, created_at=now,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "iam:policy:create", "policy", policy.id, after={"name": name, "document": checked}
        )
    return policy


async def _policy_name_is_free(tx: Tx, account_id: str, name: str, *, apart_from: str | None = None) -> None:
    if any(name.lower() == policy.name.lower() for policy in SYSTEM_POLICIES.values()):
        raise accounts.store.name_taken(name)
    await accounts.store.name_is_free(tx, policies, account_id, name, apart_from=apart_from)


def _not_system(policy_id: str) -> None:
    if policy_id in SYSTEM_POLICIES:
        raise Refused(
            "policy_is_system",
            "System policies can't be changed.",
            fix="Create a policy of your own from its document.",
        )


async def update_policy(
    services: Services, actor: Actor, policy_id: str, *, revision: int | None, changes: Mapping[str, Any]
) -> Policy:
    require(actor, "iam:policy:update", resource=f"policy:{policy_id}")
    _not_system(policy_id)
    async with _changing(services, actor) as tx:
        before = await _policy(tx, actor, "iam:policy:update", policy_id)
        values: dict[str, Any] = {}
        if "name" in changes:
            values["name"] = accounts.rules.normal_name(changes["name"])
            await _policy_name_is_free(tx, actor.account_id, values["name"], apart_from=policy_id)
        if "description" in changes:
            values["description"] = accounts.rules.normal_description(changes["description"])
        if "document" in changes:
            values["document"] = checked_document(changes["document"])
            after = statements_of(values["document"])
            _may_grant(actor, [Grant("", after)])
            # What stays denied gives nothing; whoever narrows what others may do must hold it, too.
            changed = tuple(s for s in statements_of(before.document) if s.effect == "Allow" or s not in after)
            _may_lift(actor, [Grant("", changed)])
        await accounts.store.update_revised(tx, policies, policy_id, revision, **values)
        if "document" in values:
            await _keep_an_administrator(tx, actor.account_id)
        await _audit_change(tx, services, actor, "iam:policy:update", "policy", before, values)
        return await _policy(tx, actor, "iam:policy:update", policy_id)


async def delete_policy(services: Services, actor: Actor, policy_id: str) -> None:
    """Raises Refused `policy_in_use` while it is attached or narrows a token."""
    require(actor, "iam:policy:delete", resource=f"policy:{policy_id}")
    _not_system(policy_id)
    async with _changing(services, actor) as tx:
        policy = await _policy(tx, actor, "iam:policy:delete", policy_id)
        if await store.policy_is_attached(tx, policy_id):
            raise _in_use("policy", "Detach it and revoke the tokens it narrows first.")
        await accounts.store.delete_row(tx, policies, policy_id)
        await audit.record(tx, services, actor, "iam:policy:delete", "policy", policy_id, before={"name": policy.name})


async def list_attachments(
    services: Services,
    actor: Actor,
    *,
    limit: int,
    after: str | None = None,
    user_id: str | None = None,
    group_id: str | None = None,
    policy: str | None = None,
) -> list[Attachment]:
    async with services.db.begin() as tx:
        return await store.list_attachments(
            tx, visible(policy_attachments, actor, "iam:policy:list"), limit=limit, after=after, user_id=user_id,
            group_id=group_id, policy=policy,
        )  # fmt: skip


async def get_attachment(services: Services, actor: Actor, attachment_id: str) -> Attachment:
    async with services.db.begin() as tx:
        found = await store.get_attachment(tx, visible(policy_attachments, actor, "iam:policy:get"), attachment_id)
    if found is None:
        raise not_found("attachment", attachment_id)
    return found


async def attach_policy(
    services: Services,
    actor: Actor,
    *,
    policy: str,
    user_id: str | None = None,
    group_id: str | None = None,
    project_id: str | None = None,
) -> Attachment:
    """Give a policy (id, or id of a system policy) to a user or a group, perhaps for one project only."""
    require(actor, "iam:policy:update", resource=f"policy:{policy}")
    if (user_id is None) == (group_id is None):
        raise Invalid(
            "holder_needed", "A policy is attached to either a user or a group.", field="user_id",
            fix="Give user_id or group_id, not both.",
        )  # fmt: skip
    now = services.clock.now()
    try:
        async with _changing(services, actor) as tx:
            found = await _policy_or_system(tx, actor.account_id, policy)
            await _holder_exists(tx, actor, user_id, group_id, project_id)
            _may_grant(actor, [Grant(found.name, statements_of(found.document), project_id)])
            attachment = Attachment(new_id("att", now), actor.account_id, policy, user_id, group_id, project_id, now)
            await store.attach(
                tx, attachment_id=attachment.id, account_id=actor.account_id, policy=found, user_id=user_id,
                group_id=group_id, project_id=project_id, at=now,
            )  # fmt: skip
            if any(statement.effect == "Deny" for statement in statements_of(found.document)):
                await _keep_an_administrator(tx, actor.account_id)
            await audit.record(
                tx, services, actor, "iam:policy:update", "attachment", attachment.id, project_id=project_id,
                after={"policy": policy, "user_id": user_id, "group_id": group_id},
            )  # fmt: skip
    except IntegrityError as error:
        raise Refused(
            "already_attached", "The policy is attached there already.", field="policy", fix="Nothing needs doing."
        ) from error
    return attachment


async def _holder_exists(
    tx: Tx, actor: Actor, user_id: str | None, group_id: str | None, project_id: str | None
) -> None:
    own = actor.account_id
    if user_id and await accounts.store.get_user(tx, _t.users.c.account_id == own, user_id) is None:
        raise not_found("user", user_id).at("user_id")
    if group_id and await accounts.store.get_group(tx, _t.groups.c.account_id == own, group_id) is None:
        raise not_found("group", group_id).at("group_id")
    if project_id and not await accounts.store.project_exists(tx, own, project_id):
        raise not_found("project", project_id).at("project_id")


async def detach_policy(services: Services, actor: Actor, attachment_id: str) -> None:
    async with _changing(services, actor) as tx:
        found = await store.get_attachment(tx, visible(policy_attachments, actor, "iam:policy:update"), attachment_id)
        if found is None:
            raise not_found("attachment", attachment_id)
        policy = await _policy_or_system(tx, actor.account_id, found.policy)
        _may_lift(actor, [Grant(policy.name, statements_of(policy.document), found.project_id)])
        await accounts.store.delete_row(tx, policy_attachments, attachment_id)
        await _keep_an_administrator(tx, actor.account_id)
        await audit.record(
            tx, services, actor, "iam:policy:update", "attachment", attachment_id, project_id=found.project_id,
            before={"policy": found.policy, "user_id": found.user_id, "group_id": found.group_id},
        )  # fmt: skip


async def simulate(
    services: Services, actor: Actor, *, user_id: str, action: str, resource: str | None, project_id: str | None
) -> Decision:
    """May that user do it, and because of which statement? Disabled users may nothing."""
    require(actor, "iam:policy:list")
    async with services.db.begin() as tx:
        user = await accounts.store.get_user(tx, _t.users.c.account_id == actor.account_id, user_id)
        if user is None:
            raise not_found("user", user_id).at("user_id")
        grants = await store.grants_of_user(tx, user_id)
    if user.disabled_at is not None:
        return Decision(False, "The user is disabled.")
    return decide(grants, action, resource, project_id)


# Tokens


@dataclass(frozen=True, slots=True)
class NewToken:
    """`text` is what a client sends; it is shown once and stored nowhere."""

    token: Token
    text: str = field(repr=False)


async def create_token(
    services: Services,
    actor: Actor,
    *,
    name: str,
    days: int | None = None,
    policies: Sequence[str] | None = None,
) -> NewToken:
    """An API token acting for the actor's user, narrowed to `policies` (ids) if given, for 1 to 365 days.

    Made with a token it ends with that one at the latest: a stolen token must not give itself a longer life. Without
    `days` that is 90 days or what is left; more than is left is refused, Forbidden `token_outlives`.
    """
    require(actor, "iam:token:create")
    name = accounts.rules.normal_name(name)
    if days is not None and not 1 <= days <= accounts.rules.TOKEN_DAYS_MAX:
        raise Invalid(
            "token_days", f"A token lives 1 to {accounts.rules.TOKEN_DAYS_MAX} days.", field="days",
            fix="Choose a number in that range.",
        )  # fmt: skip
    if actor.user_id is None:
        raise Forbidden("token_needs_user", "Only a person's tokens can be made.", fix="Sign in as a user.")
    now = services.clock.now()
    secret = accounts.new_secret()
    expires_at = now + timedelta(days=accounts.rules.TOKEN_DAYS_DEFAULT if days is None else days)
    async with services.db.begin() as tx:
        if actor.kind == "token":
            end = await _end_of_own_token(tx, actor)
            if days is not None and expires_at > end:
                raise _outlives(end, now)
            expires_at = min(expires_at, end)
        for at, policy in enumerate(policies or ()):
            try:
                found = await _policy_or_system(tx, actor.account_id, policy)
            except NotFound as problem:
                raise problem.at(f"policies.{at}") from None
            if not covers(actor.grants, [Grant(found.name, statements_of(found.document))]):
                raise Forbidden(
                    "more_than_held", f"The policy {found.name!r} allows more than you hold.", field=f"policies.{at}",
                    fix="Choose a policy within what you may do yourself.",
                )  # fmt: skip
        chosen = None if policies is None else tuple(dict.fromkeys(policies))
        token = Token(
            new_id("tok", now),
            actor.account_id,
            actor.user_id,
            name,
            chosen,
            expires_at,
            None,
            None,
            1,
            now,
        )
        await accounts.store.insert_row(
            tx, _t.api_tokens, id=token.id, account_id=token.account_id, user_id=token.user_id, name=name,
            secret_hash=accounts.hash_secret(secret), policies=None if chosen is None else list(chosen),
            expires_at=token.expires_at, created_at=now,
        )  # fmt: skip
        await audit.record(
            tx, services, actor, "iam:token:create", "token", token.id,
            after={"name": name, "policies": chosen, "expires_at": token.expires_at},
        )  # fmt: skip
    return NewToken(token, f"cwt_{token.id.removeprefix('tok_')}_{secret}")


async def _end_of_own_token(tx: Tx, actor: Actor) -> datetime:
    """When the token that acts ends. Raises Forbidden `token_narrowed`: it may not get rid of its narrowing."""
    own = await accounts.store.get_token(tx, _t.api_tokens.c.account_id == actor.account_id, actor.id)
    if own is None or own.policies is not None:
        raise Forbidden(
            "token_narrowed", "A narrowed token can't make tokens.", fix="Sign in, or use a token that isn't narrowed."
        )
    return own.expires_at


def _outlives(end: datetime, now: datetime) -> Forbidden:
    left = (end - now).days
    return Forbidden(
        "token_outlives", f"A token can't make one that outlives it: it ends at {end:%Y-%m-%d %H:%M} UTC.",
        field="days",
        fix=(f"Choose at most {left} days, or " if left else "Leave the days out, or ") + "sign in with a password.",
        extra={"days_left": left},
    )  # fmt: skip


def _tokens_visible(actor: Actor, action: str) -> sa.ColumnElement[bool]:
    """Everybody sees their own; others' with permission. A token doesn't act as its owner here."""
    is_person = actor.kind == "user" and actor.user_id is not None
    return visible(
        _t.api_tokens, actor, action, besides=_t.api_tokens.c.user_id == actor.user_id if is_person else None
    )


async def list_tokens(services: Services, actor: Actor, *, limit: int, after: str | None = None) -> list[Token]:
    async with services.db.begin() as tx:
        return await accounts.store.list_tokens(tx, _tokens_visible(actor, "iam:token:list"), limit=limit, after=after)


async def get_token(services: Services, actor: Actor, token_id: str) -> Token:
    async with services.db.begin() as tx:
        found = await accounts.store.get_token(tx, _tokens_visible(actor, "iam:token:get"), token_id)
    if found is None:
        raise not_found("token", token_id)
    return found


async def rename_token(services: Services, actor: Actor, token_id: str, name: str, *, revision: int | None) -> Token:
    name = accounts.rules.normal_name(name)
    visible_tokens = _tokens_visible(actor, "iam:token:update")
    async with services.db.begin() as tx:
        before = await accounts.store.get_token(tx, visible_tokens, token_id)
        if before is None:
            raise not_found("token", token_id)
        await accounts.store.update_revised(tx, _t.api_tokens, token_id, revision, name=name)
        await _audit_change(tx, services, actor, "iam:token:update", "token", before, {"name": name})
        after = await accounts.store.get_token(tx, visible_tokens, token_id)
    services.port(AuthCache).clear()
    return after or before


async def revoke_token(services: Services, actor: Actor, token_id: str) -> None:
    """At once in this process, within a second in others. Revoking twice changes nothing."""
    async with services.db.begin() as tx:
        found = await accounts.store.get_token(tx, _tokens_visible(actor, "iam:token:delete"), token_id)
        if found is None:
            raise not_found("token", token_id)
        if await accounts.store.revoke_token(tx, token_id, services.clock.now()):
            await audit.record(tx, services, actor, "iam:token:delete", "token", token_id, before={"name": found.name})
    services.port(AuthCache).clear()


# One's own


@dataclass(frozen=True, slots=True)
class Me:
    """Who is signed in."""

    actor: Actor
    account: Account
    user: User | None


async def me(services: Services, actor: Actor) -> Me:
    async with services.db.begin() as tx:
        account = await accounts.store.get_account(tx, actor.account_id)
        user = await accounts.store.get_user(tx, sa.true(), actor.user_id) if actor.user_id else None
    if account is None:
        raise not_found("account", actor.account_id)
    return Me(actor, account, user)


def _person(actor: Actor) -> str:
    if actor.kind != "user" or actor.user_id is None:
        raise Forbidden("people_only", "Only a signed-in person can do this.", fix="Sign in with your password.")
    return actor.user_id


async def change_password(
    services: Services, actor: Actor, *, current: str, new: str, keep_session: str | None = None
) -> None:
    """Set one's own password; every other session ends. Raises Refused `password_wrong`."""
    user_id = _person(actor)
    async with services.db.begin() as tx:
        user = await accounts.store.get_user(tx, sa.true(), user_id)
    await accounts.check_current_password(services, user_id, current)
    if user is not None:
        accounts.check_new_password(new, email=user.email, name=user.name, field="new")
    hashed = await accounts.hash_password(new)
    async with services.db.begin() as tx:
        await accounts.store.set_password(tx, user_id, hashed)
        await accounts.store.delete_sessions(tx, user_id, apart_from=keep_session)
        await audit.record(tx, services, actor, "iam:user:update", "user", user_id, reason="password changed")
    services.port(AuthCache).clear()


async def own_sessions(services: Services, actor: Actor) -> list[Session]:
    user_id = _person(actor)
    async with services.db.begin() as tx:
        return await accounts.store.list_sessions(tx, user_id, services.clock.now(), accounts.rules.SESSION_IDLE)


async def end_session(services: Services, actor: Actor, session_id: str) -> None:
    """Sign out there. Raises NotFound for sessions of others."""
    user_id = _person(actor)
    async with services.db.begin() as tx:
        if not await accounts.store.delete_sessions(tx, user_id, only=session_id):
            raise not_found("session", session_id)
        await audit.record(tx, services, actor, "iam:session:delete", "session", session_id)
    services.port(AuthCache).clear()


async def audit_events(
    services: Services, actor: Actor, filter: audit.Filter, *, limit: int, before: str | None = None
) -> list[audit.AuditEvent]:
    """What was done in the account, newest first."""
    async with services.db.begin() as tx:
        return await audit.list_events(
            tx, visible(audit.audit_events, actor, "iam:audit:list"), filter, limit=limit, before_id=before
        )


async def audit_event(services: Services, actor: Actor, event_id: str) -> audit.AuditEvent:
    async with services.db.begin() as tx:
        found = await audit.get_event(tx, visible(audit.audit_events, actor, "iam:audit:list"), event_id)
    if found is None:
        raise not_found("audit event", event_id)
    return found
