"""All SQL of the access room, with the one query that reads who is asking and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Grant
from certwright.platform.db import Tx
from certwright.rooms import accounts
from certwright.rooms.access.rules import statements_of
from certwright.rooms.access.system import SYSTEM_POLICIES, TENANT_ADMINISTRATOR
from certwright.rooms.access.tables import policies, policy_attachments
from certwright.rooms.access.words import Attachment, Policy

_P, _A = policies.c, policy_attachments.c
_users, _members = accounts.tables.users, accounts.tables.group_members
_sessions, _tokens = accounts.tables.sessions, accounts.tables.api_tokens

POLICY_COLUMNS = tuple(_P[n] for n in Policy.__slots__)
_POLICY_REF = sa.func.coalesce(_A.policy_id, _A.system_policy).label("policy")
ATTACHMENT_COLUMNS = (
    _A.id, _A.account_id, _POLICY_REF, _A.user_id, _A.group_id, _A.scope_project_id.label("project_id"), _A.created_at,
)  # fmt: skip


def _held(holder: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    """The attached policies as JSON: [[system policy, name, document, project], …]."""
    return (
        sa.select(
            sa.func.json_agg(sa.func.json_build_array(_A.system_policy, _P.name, _P.document, _A.scope_project_id))
        )
        .select_from(policy_attachments.outerjoin(policies, _P.id == _A.policy_id))
        .where(holder)
        .scalar_subquery()
    )


def _groups_of_user() -> sa.Select[Any]:
    return sa.select(_members.c.group_id).where(_members.c.user_id == _users.c.id).correlate(_users)


_HELD_BY_USER = _held(sa.or_(_A.user_id == _users.c.id, _A.group_id.in_(_groups_of_user())))

_SESSION = (
    sa.select(
        _sessions.c.id, _sessions.c.created_at, _sessions.c.last_seen_at, _sessions.c.expires_at,
        _users.c.id.label("user_id"), _users.c.email, _users.c.account_id, _users.c.disabled_at,
        _HELD_BY_USER.label("held"),
    )
    .join(_users, _users.c.id == _sessions.c.user_id)
    .where(_sessions.c.secret_hash == sa.bindparam("secret_hash"))
)  # fmt: skip

_NAMED = (
    sa.select(sa.func.json_agg(sa.func.json_build_array(None, _P.name, _P.document, None)))
    .where(_P.id == sa.any_(_tokens.c.policies), _P.account_id == _users.c.account_id)
    .scalar_subquery()
)
_TOKEN = (
    sa.select(
        _tokens.c.id, _tokens.c.name, _tokens.c.secret_hash, _tokens.c.policies, _tokens.c.expires_at,
        _tokens.c.revoked_at, _tokens.c.last_used_at, _tokens.c.created_at,
        _users.c.id.label("user_id"), _users.c.email, _users.c.account_id, _users.c.disabled_at,
        _HELD_BY_USER.label("held"), _NAMED.label("named"),
    )
    .join(_users, _users.c.id == _tokens.c.user_id)
    .where(_tokens.c.id == sa.bindparam("token_id"))
)  # fmt: skip


async def session_with_grants(tx: Tx, secret_hash: bytes) -> Any:
    """The session's row with its user and `held`, or None."""
    return (await tx.execute(_SESSION, {"secret_hash": secret_hash})).one_or_none()


async def token_with_grants(tx: Tx, token_id: str) -> Any:
    """The token's row with its user, `held`, and the `named` policies that narrow it, or None."""
    return (await tx.execute(_TOKEN, {"token_id": token_id})).one_or_none()


def grants_from(held: Iterable[Sequence[Any]] | None) -> tuple[Grant, ...]:
    """Grants of a `held` column. A system policy that this release doesn't know any more grants nothing."""
    out = []
    for system, name, document, project_id in held or ():
        if system is not None:
            policy = SYSTEM_POLICIES.get(system)
            if policy is None:
                continue
            name, document = policy.name, policy.document
        out.append(Grant(name, statements_of(document), project_id))
    return tuple(out)


async def grants_of_user(tx: Tx, user_id: str) -> tuple[Grant, ...]:
    return grants_from(await tx.scalar(sa.select(_HELD_BY_USER).select_from(_users).where(_users.c.id == user_id)))


async def grants_of_group(tx: Tx, group_id: str) -> tuple[Grant, ...]:
    return grants_from(await tx.scalar(sa.select(_held(_A.group_id == group_id))))


def _is_administrator(account_id: str) -> sa.ColumnElement[bool]:
    """An enabled user with a password who holds Tenant Administrator account-wide."""
    return sa.and_(
        _users.c.account_id == account_id,
        _users.c.disabled_at.is_(None),
        _users.c.password_hash.is_not(None),
        sa.exists().where(
            _A.system_policy == TENANT_ADMINISTRATOR,
            _A.scope_project_id.is_(None),
            sa.or_(_A.user_id == _users.c.id, _A.group_id.in_(_groups_of_user())),
        ),
    )


async def grants_of_administrators(tx: Tx, account_id: str) -> list[tuple[Grant, ...]]:
    rows = await tx.scalars(
        sa.select(_HELD_BY_USER).select_from(_users).where(_is_administrator(account_id)).limit(100)
    )
    return [grants_from(held) for held in rows]


async def administrators(tx: Tx, account_id: str) -> list[tuple[str, str]]:
    """(e-mail, name) of the account's administrators, oldest first: who is told when nobody else is named."""
    rows = await tx.execute(
        sa.select(_users.c.email, _users.c.name).where(_is_administrator(account_id)).order_by(_users.c.id).limit(100)
    )
    return [(row.email, row.name) for row in rows]


async def get_policy(tx: Tx, visible: sa.ColumnElement[bool], policy_id: str) -> Policy | None:
    row = (await tx.execute(sa.select(*POLICY_COLUMNS).where(visible, _P.id == policy_id))).one_or_none()
    return Policy(*row) if row else None


async def list_policies(tx: Tx, visible: sa.ColumnElement[bool], *, limit: int, after: str | None) -> list[Policy]:
    query = sa.select(*POLICY_COLUMNS).where(visible).order_by(_P.id).limit(limit)
    if after is not None:
        query = query.where(_P.id > after)
    return [Policy(*row) for row in await tx.execute(query)]


async def policy_is_attached(tx: Tx, policy_id: str) -> bool:
    attached = sa.exists().where(_A.policy_id == policy_id)
    named = sa.exists().where(sa.literal(policy_id) == sa.any_(_tokens.c.policies), _tokens.c.revoked_at.is_(None))
    return bool(await tx.scalar(sa.select(sa.or_(attached, named))))


async def attach(
    tx: Tx,
    *,
    attachment_id: str,
    account_id: str,
    policy: Policy,
    user_id: str | None,
    group_id: str | None,
    project_id: str | None,
    at: datetime,
) -> None:
    await tx.execute(
        sa.insert(policy_attachments).values(
            id=attachment_id, account_id=account_id, policy_id=None if policy.is_system else policy.id,
            system_policy=policy.id if policy.is_system else None, user_id=user_id, group_id=group_id,
            scope_project_id=project_id, created_at=at,
        )
    )  # fmt: skip


async def get_attachment(tx: Tx, visible: sa.ColumnElement[bool], attachment_id: str) -> Attachment | None:
    row = (await tx.execute(sa.select(*ATTACHMENT_COLUMNS).where(visible, _A.id == attachment_id))).one_or_none()
    return Attachment(*row) if row else None


async def list_attachments(
    tx: Tx,
    visible: sa.ColumnElement[bool],
    *,
    limit: int,
    after: str | None,
    user_id: str | None = None,
    group_id: str | None = None,
    policy: str | None = None,
) -> list[Attachment]:
    query = sa.select(*ATTACHMENT_COLUMNS).where(visible).order_by(_A.id).limit(limit)
    if after is not None:
        query = query.where(_A.id > after)
    if user_id is not None:
        query = query.where(_A.user_id == user_id)
    if group_id is not None:
        query = query.where(_A.group_id == group_id)
    if policy is not None:
        query = query.where(sa.or_(_A.policy_id == policy, _A.system_policy == policy))
    return [Attachment(*row) for row in await tx.execute(query)]
