"""All SQL of the accounts room. Reads take the tenant filter as `visible`, made by the access room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from certwright.kernel.problems import Refused, Stale
from certwright.platform.db import Tx
from certwright.rooms.accounts.rules import Limit
from certwright.rooms.accounts.tables import (
    accounts,
    api_tokens,
    group_members,
    groups,
    one_time_links,
    projects,
    sessions,
    sign_in_failures,
    users,
)
from certwright.rooms.accounts.words import Account, Group, Project, Session, Token, User

Visible = sa.ColumnElement[bool]

ACCOUNT_COLUMNS = tuple(accounts.c[n] for n in Account.__slots__)
PROJECT_COLUMNS = tuple(projects.c[n] for n in Project.__slots__)
GROUP_COLUMNS = tuple(groups.c[n] for n in Group.__slots__)
SESSION_COLUMNS = tuple(sessions.c[n] for n in Session.__slots__)
TOKEN_COLUMNS = tuple(api_tokens.c[n] for n in Token.__slots__)
USER_COLUMNS = tuple(
    users.c.password_hash.is_not(None).label(n) if n == "has_password" else users.c[n] for n in User.__slots__
)


def _token(row: Any) -> Token:
    token = Token(*row)
    return token if token.policies is None else replace(token, policies=tuple(token.policies))


# Accounts and projects


async def first_account(tx: Tx) -> Account | None:
    row = (await tx.execute(sa.select(*ACCOUNT_COLUMNS).order_by(accounts.c.id).limit(1))).one_or_none()
    return Account(*row) if row else None


async def get_account(tx: Tx, account_id: str) -> Account | None:
    row = (await tx.execute(sa.select(*ACCOUNT_COLUMNS).where(accounts.c.id == account_id))).one_or_none()
    return Account(*row) if row else None


async def lock_account(tx: Tx, account_id: str) -> None:
    """One change of who may do what at a time in an account."""
    await tx.execute(sa.select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())


async def insert_row(tx: Tx, table: sa.Table, **values: Any) -> None:
    await tx.execute(sa.insert(table).values(**values))


async def update_revised(tx: Tx, table: sa.Table, object_id: str, revision: int | None, **values: Any) -> int:
    """Guarded update of a row with a revision; returns the new one. Raises Stale `changed_meanwhile`."""
    guard = table.c.id == object_id
    if revision is not None:
        guard = sa.and_(guard, table.c.revision == revision)
    found = await tx.scalar(
        sa.update(table).where(guard).values(revision=table.c.revision + 1, **values).returning(table.c.revision)
    )
    if found is None:
        raise Stale(
            "changed_meanwhile", "It was changed by someone else since you read it.",
            fix="Read it again and repeat your change on what you find.",
        )  # fmt: skip
    return int(found)


# It is made with the account and neither changes nor goes.
_default_projects: dict[str, str] = {}
_MOST_ACCOUNTS = 10_000


async def default_project(tx: Tx, account_id: str) -> str:
    found = _default_projects.get(account_id)
    if found is None:
        query = sa.select(projects.c.id).where(projects.c.account_id == account_id, projects.c.is_default)
        found = str((await tx.scalars(query)).one())
        if len(_default_projects) >= _MOST_ACCOUNTS:
            _default_projects.clear()
        _default_projects[account_id] = found
    return found


async def project_exists(tx: Tx, account_id: str, project_id: str) -> bool:
    found = sa.exists().where(projects.c.account_id == account_id, projects.c.id == project_id)
    return bool(await tx.scalar(sa.select(found)))


async def get_project(tx: Tx, visible: Visible, project_id: str) -> Project | None:
    row = (await tx.execute(sa.select(*PROJECT_COLUMNS).where(visible, projects.c.id == project_id))).one_or_none()
    return Project(*row) if row else None


async def list_projects(tx: Tx, visible: Visible, *, limit: int, after: str | None) -> list[Project]:
    query = sa.select(*PROJECT_COLUMNS).where(visible).order_by(projects.c.id).limit(limit)
    if after is not None:
        query = query.where(projects.c.id > after)
    return [Project(*row) for row in await tx.execute(query)]


async def delete_row(tx: Tx, table: sa.Table, object_id: str) -> None:
    await tx.execute(sa.delete(table).where(table.c.id == object_id))


async def name_is_free(
    tx: Tx, table: sa.Table, account_id: str, name: str, *, apart_from: str | None = None, field: str = "name"
) -> None:
    """Raises Refused `name_taken`. The unique index still decides between two at once."""
    query = sa.exists().where(table.c.account_id == account_id, sa.func.lower(table.c.name) == name.lower())
    if apart_from is not None:
        query = query.where(table.c.id != apart_from)
    if await tx.scalar(sa.select(query)):
        raise name_taken(name, field=field)


def name_taken(name: str, *, field: str = "name") -> Refused:
    return Refused("name_taken", f"The name {name!r} is in use already.", field=field, fix="Choose another name.")


# Users


async def any_user(tx: Tx, account_id: str | None = None) -> bool:
    query = sa.exists().where(users.c.account_id == account_id) if account_id else sa.exists(sa.select(users.c.id))
    return bool(await tx.scalar(sa.select(query)))


async def get_user(tx: Tx, visible: Visible, user_id: str) -> User | None:
    row = (await tx.execute(sa.select(*USER_COLUMNS).where(visible, users.c.id == user_id))).one_or_none()
    return User(*row) if row else None


async def list_users(
    tx: Tx, visible: Visible, *, limit: int, after: str | None, group_id: str | None = None
) -> list[User]:
    query = sa.select(*USER_COLUMNS).where(visible).order_by(users.c.id).limit(limit)
    if after is not None:
        query = query.where(users.c.id > after)
    if group_id is not None:
        query = query.join(group_members, group_members.c.user_id == users.c.id).where(
            group_members.c.group_id == group_id
        )
    return [User(*row) for row in await tx.execute(query)]


async def email_is_free(tx: Tx, email: str, *, apart_from: str | None = None) -> bool:
    query = sa.exists().where(users.c.email == email)
    if apart_from is not None:
        query = query.where(users.c.id != apart_from)
    return not await tx.scalar(sa.select(query))


async def user_by_email(tx: Tx, email: str) -> tuple[User, str | None] | None:
    """The user and the stored password hash."""
    row = (
        await tx.execute(sa.select(users.c.password_hash, *USER_COLUMNS).where(users.c.email == email))
    ).one_or_none()
    return (User(*row[1:]), row[0]) if row else None


async def password_hash_of(tx: Tx, user_id: str) -> str | None:
    return await tx.scalar(sa.select(users.c.password_hash).where(users.c.id == user_id))


async def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    await tx.execute(sa.update(users).where(users.c.id == user_id).values(password_hash=password_hash))


async def set_signed_in(tx: Tx, user_id: str, now: datetime) -> None:
    await tx.execute(sa.update(users).where(users.c.id == user_id).values(last_sign_in_at=now))


# Groups


async def get_group(tx: Tx, visible: Visible, group_id: str) -> Group | None:
    row = (await tx.execute(sa.select(*GROUP_COLUMNS).where(visible, groups.c.id == group_id))).one_or_none()
    return Group(*row) if row else None


async def list_groups(
    tx: Tx, visible: Visible, *, limit: int, after: str | None, user_id: str | None = None
) -> list[Group]:
    query = sa.select(*GROUP_COLUMNS).where(visible).order_by(groups.c.id).limit(limit)
    if after is not None:
        query = query.where(groups.c.id > after)
    if user_id is not None:
        query = query.join(group_members, group_members.c.group_id == groups.c.id).where(
            group_members.c.user_id == user_id
        )
    return [Group(*row) for row in await tx.execute(query)]


async def add_member(tx: Tx, group_id: str, user_id: str) -> bool:
    """False if the user was a member already."""
    result = await tx.execute(insert(group_members).values(group_id=group_id, user_id=user_id).on_conflict_do_nothing())
    return bool(result.rowcount)


async def remove_member(tx: Tx, group_id: str, user_id: str) -> bool:
    result = await tx.execute(
        sa.delete(group_members).where(group_members.c.group_id == group_id, group_members.c.user_id == user_id)
    )
    return bool(result.rowcount)


# Sessions


async def get_session(tx: Tx, user_id: str, session_id: str) -> Session | None:
    row = (
        await tx.execute(sa.select(*SESSION_COLUMNS).where(sessions.c.user_id == user_id, sessions.c.id == session_id))
    ).one_or_none()
    return Session(*row) if row else None


async def list_sessions(tx: Tx, user_id: str, now: datetime, idle: timedelta) -> list[Session]:
    query = (
        sa.select(*SESSION_COLUMNS)
        .where(sessions.c.user_id == user_id, sessions.c.expires_at > now, sessions.c.last_seen_at > now - idle)
        .order_by(sessions.c.id.desc())
        .limit(200)
    )
    return [Session(*row) for row in await tx.execute(query)]


async def delete_sessions(tx: Tx, user_id: str, *, only: str | None = None, apart_from: str | None = None) -> int:
    query = sa.delete(sessions).where(sessions.c.user_id == user_id)
    if only is not None:
        query = query.where(sessions.c.id == only)
    if apart_from is not None:
        query = query.where(sessions.c.id != apart_from)
    return (await tx.execute(query)).rowcount


async def touch_session(tx: Tx, session_id: str, now: datetime) -> None:
    await tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(last_seen_at=now))


async def delete_over(tx: Tx, now: datetime, idle: timedelta) -> None:
    """Drop sessions that ended, links that expired, and failures nobody counts any more."""
    await tx.execute(
        sa.delete(sessions).where(sa.or_(sessions.c.expires_at < now, sessions.c.last_seen_at < now - idle))
    )
    await tx.execute(sa.delete(one_time_links).where(one_time_links.c.expires_at < now - timedelta(days=30)))
    await tx.execute(sa.delete(sign_in_failures).where(sign_in_failures.c.since < now - timedelta(days=1)))


# Tokens


async def get_token(tx: Tx, visible: Visible, token_id: str) -> Token | None:
    row = (await tx.execute(sa.select(*TOKEN_COLUMNS).where(visible, api_tokens.c.id == token_id))).one_or_none()
    return _token(row) if row else None


async def list_tokens(tx: Tx, visible: Visible, *, limit: int, after: str | None) -> list[Token]:
    query = sa.select(*TOKEN_COLUMNS).where(visible).order_by(api_tokens.c.id).limit(limit)
    if after is not None:
        query = query.where(api_tokens.c.id > after)
    return [_token(row) for row in await tx.execute(query)]


async def touch_token(tx: Tx, token_id: str, now: datetime) -> None:
    await tx.execute(sa.update(api_tokens).where(api_tokens.c.id == token_id).values(last_used_at=now))


async def revoke_token(tx: Tx, token_id: str, now: datetime) -> bool:
    """False if it was revoked before."""
    result = await tx.execute(
        sa.update(api_tokens)
        .where(api_tokens.c.id == token_id, api_tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return bool(result.rowcount)


# One-time links


async def claim_link(tx: Tx, secret_hash: bytes, kind: str, now: datetime) -> tuple[str, str, str | None] | None:
    """Use the link up: (link id, account id, user id). None if it is unknown, used or expired; one of two wins."""
    row = (
        await tx.execute(
            sa.update(one_time_links)
            .where(
                one_time_links.c.secret_hash == secret_hash,
                one_time_links.c.kind == kind,
                one_time_links.c.used_at.is_(None),
                one_time_links.c.expires_at > now,
            )
            .values(used_at=now)
            .returning(one_time_links.c.id, one_time_links.c.account_id, one_time_links.c.user_id)
        )
    ).one_or_none()
    return (row.id, row.account_id, row.user_id) if row else None


async def peek_link(tx: Tx, secret_hash: bytes, kind: str, now: datetime) -> User | bool:
    """Whether the link could be used now; for a password link the user it is for."""
    link = one_time_links.c
    row = (
        await tx.execute(
            sa.select(link.user_id).where(
                link.secret_hash == secret_hash, link.kind == kind, link.used_at.is_(None), link.expires_at > now
            )
        )
    ).one_or_none()
    if row is None or row.user_id is None:
        return row is not None
    return await get_user(tx, sa.true(), row.user_id) or False


async def delete_links(tx: Tx, *, kind: str, user_id: str | None = None) -> None:
    query = sa.delete(one_time_links).where(one_time_links.c.kind == kind, one_time_links.c.used_at.is_(None))
    if user_id is not None:
        query = query.where(one_time_links.c.user_id == user_id)
    await tx.execute(query)


# Throttle


async def count_failure(tx: Tx, key: str, limit: Limit, now: datetime) -> datetime | None:
    """Count one attempt as failed, in advance. Returns the time until which the key is blocked, without counting."""
    f = sign_in_failures.c
    # A block or count from "the future" was written before the clock was set back.
    blocked = sa.and_(f.blocked_until > now, f.blocked_until <= now + limit.longest)
    stale = sa.or_(f.since < now - limit.window, f.since > now + limit.longest)
    first = insert(sign_in_failures).values(key=key, failures=1, since=now)
    # The first statement locks the row, so that many at once are counted one after the other.
    row = (
        await tx.execute(
            first.on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "failures": sa.case((blocked, f.failures), (stale, 1), else_=f.failures + 1),
                    "since": sa.case((sa.or_(blocked, ~stale), f.since), else_=now),
                    "blocked_until": sa.case((blocked, f.blocked_until), else_=None),
                },
            ).returning(f.failures, f.blocked_until)
        )
    ).one()
    if row.blocked_until is not None:
        until: datetime = row.blocked_until
        return until
    block = limit.block(row.failures)
    if block is not None:
        # The window begins when the block ends; otherwise the longest block would clear the count.
        until = now + block
        await tx.execute(sa.update(sign_in_failures).where(f.key == key).values(blocked_until=until, since=until))
    return None


async def forget_failure(tx: Tx, keys: Sequence[str], wholly: str) -> None:
    """The attempt succeeded: take it off the counts, and clear the count of `wholly`."""
    await tx.execute(sa.delete(sign_in_failures).where(sign_in_failures.c.key == wholly))
    await tx.execute(
        sa.update(sign_in_failures)
        .where(sign_in_failures.c.key.in_(keys))
        .values(failures=sa.func.greatest(sign_in_failures.c.failures - 1, 0), blocked_until=None)
    )
