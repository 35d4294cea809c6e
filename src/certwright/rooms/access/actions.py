"""May they? Asking, filtering, and finding out who asks."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.ids import is_id
from certwright.kernel.problems import Forbidden, Unauthenticated, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import accounts
from certwright.rooms.access import store
from certwright.rooms.access.rules import allowed_somewhere, decide, matches, narrowed
from certwright.rooms.access.system import SYSTEM_POLICIES
from certwright.rooms.access.words import ACTIONS

_CACHE_LIFETIME = timedelta(seconds=1)
_CACHE_SIZE = 10_000
_TOUCH_EVERY = timedelta(minutes=1)


def forbidden(action: str, *, reason: str = "") -> Forbidden:
    sentence = ACTIONS.get(action)
    return Forbidden(
        "not_permitted",
        f"You may not do this ({action}).{' ' + reason if reason else ''}",
        fix=f"Ask an administrator for a policy that allows {action}{f': {sentence}' if sentence else '.'}",
        extra={"action": action},
    )


def require(actor: Actor, action: str, *, project_id: str | None = None, resource: str | None = None) -> None:
    """Raises Forbidden `not_permitted` unless a statement allows it and none denies it."""
    decision = decide(actor.grants, action, resource, project_id)
    if not decision.allowed:
        raise forbidden(action, reason=decision.reason if decision.policy else "")


def require_somewhere(actor: Actor, action: str) -> None:
    """The coarse check of a route; what object it is about is checked by the action behind it."""
    if not allowed_somewhere(actor.grants, action):
        raise forbidden(action)


def kind_of(table: sa.Table) -> str:
    """The kind by which policies name the table's rows: `table.info["resource"]`, or its name without the s."""
    return str(table.info.get("resource") or table.name.removesuffix("s"))


def visible(
    table: sa.Table, actor: Actor, action: str, *, besides: sa.ColumnElement[bool] | None = None
) -> sa.ColumnElement[bool]:
    """THE tenant filter: rows of the actor's account on which they may do `action`.

    Plain equality on account_id for whoever is allowed account-wide. Rows `besides` need no statement that allows
    them (one's own tokens, say), but a Deny hides them, too. `table.info` names the columns that hold the row's project
    ("project"; else project_id) and the id of the object that policies speak of ("resource_id"; else id).
    """
    return _allowed_rows(table, actor, action, table.c.account_id == actor.account_id, besides)


async def visible_to_operator(tx: Tx, table: sa.Table, actor: Actor, action: str) -> sa.ColumnElement[bool]:
    """The filter of work that the operator of the server does for every account: rows of all accounts on which people
    of the operator's account, the first one, may do `action`; no rows for anybody else."""
    operator = await accounts.store.first_account(tx)
    if operator is None or operator.id != actor.account_id:
        return sa.false()
    return _allowed_rows(table, actor, action, sa.true(), None)


def _allowed_rows(
    table: sa.Table,
    actor: Actor,
    action: str,
    own: sa.ColumnElement[bool],
    besides: sa.ColumnElement[bool] | None,
) -> sa.ColumnElement[bool]:
    allows: list[sa.ColumnElement[bool]] = [] if besides is None else [besides]
    denies: list[sa.ColumnElement[bool]] = []
    wide = False
    for grant in actor.grants:
        for statement in grant.statements:
            if not any(matches(pattern, action) for pattern in statement.actions):
                continue
            condition = _rows_of(table, grant, statement)
            if statement.effect == "Deny":
                denies.append(sa.true() if condition is None else condition)
            elif condition is None:
                wide = True
            else:
                allows.append(condition)
    if not wide:
        if not allows:
            return sa.false()
        own = sa.and_(own, sa.or_(*allows))
    return sa.and_(own, *(sa.not_(sa.func.coalesce(deny, sa.false())) for deny in denies)) if denies else own


def _rows_of(table: sa.Table, grant: Grant, statement: Statement) -> sa.ColumnElement[bool] | None:
    """The condition for the rows a statement speaks of; None for all of them."""
    parts: list[sa.ColumnElement[bool]] = []
    if grant.project_id is not None:
        project = table.c.get(table.info.get("project", "project_id"))
        parts.append(sa.false() if project is None else project == grant.project_id)
    kind = kind_of(table)
    if "*" not in statement.resources and f"{kind}:*" not in statement.resources:
        name = sa.literal(f"{kind}:", sa.Text) + table.c[table.info.get("resource_id", "id")]
        parts.append(sa.or_(*(name.like(_like(pattern), escape="\\") for pattern in statement.resources)))
    return sa.and_(*parts) if parts else None


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


async def project_for(tx: Tx, actor: Actor, action: str, project_id: str | None) -> str:
    """The project a new row goes to: the one named, else the default one, else the only one the actor may use.

    Raises NotFound for a project of another account and Forbidden if the actor may not do `action` there.
    """
    if project_id is not None:
        if not await accounts.store.project_exists(tx, actor.account_id, project_id):
            raise not_found("project", project_id).at("project_id")
        require(actor, action, project_id=project_id)
        return project_id
    default = await accounts.store.default_project(tx, actor.account_id)
    if decide(actor.grants, action, None, default).allowed:
        return default
    usable = {
        grant.project_id
        for grant in actor.grants
        if grant.project_id is not None and decide(actor.grants, action, None, grant.project_id).allowed
    }
    if len(usable) == 1:
        return usable.pop()
    if usable:
        raise Forbidden(
            "project_needed", "You may do this in several projects but not in the default one.", field="project_id",
            fix="Name the project.", extra={"projects": sorted(usable)},
        )  # fmt: skip
    raise forbidden(action)


@dataclass
class AuthCache:
    """Who a secret belongs to, remembered for at most a second per process, so that a burst of requests costs one
    look-up. Changes made by this process empty it at once; those of another process show after that second."""

    entries: dict[bytes, tuple[datetime, Actor, str | None]] = field(default_factory=dict)

    def get(self, key: bytes, now: datetime) -> tuple[Actor, str | None] | None:
        entry = self.entries.get(key)
        if entry is not None and timedelta(0) <= now - entry[0] < _CACHE_LIFETIME:
            return entry[1], entry[2]
        return None

    def put(self, key: bytes, now: datetime, actor: Actor, session_id: str | None) -> None:
        if len(self.entries) >= _CACHE_SIZE:
            self.entries.clear()
        self.entries[key] = (now, actor, session_id)

    def clear(self) -> None:
        self.entries.clear()


def _unauthenticated(code: str, sentence: str) -> Unauthenticated:
    return Unauthenticated(code, sentence, fix="Sign in, or send a valid API token: Authorization: Bearer cwt_…")


async def authenticate_session(services: Services, cookie: str) -> tuple[Actor, str]:
    """The actor and the session's id. Raises Unauthenticated `session_invalid`."""
    key, now, cache = accounts.hash_secret(cookie), services.clock.now(), services.port(AuthCache)
    known = cache.get(key, now)
    if known is not None and known[1] is not None:
        return known[0], known[1]
    async with services.db.begin() as tx:
        row = await store.session_with_grants(tx, key)
        if (
            row is None
            or row.disabled_at is not None
            or accounts.rules.session_over(row.created_at, row.last_seen_at, row.expires_at, now)
        ):
            raise _unauthenticated("session_invalid", "You are signed out; the session ended or never was.")
        if now - row.last_seen_at >= _TOUCH_EVERY:
            await accounts.store.touch_session(tx, row.id, now)
    actor = Actor("user", row.user_id, row.email, row.account_id, store.grants_from(row.held), row.user_id)
    cache.put(key, now, actor, row.id)
    return actor, row.id


async def authenticate_token(services: Services, text: str) -> Actor:
    """The actor of an API token `cwt_<id>_<secret>`. Raises Unauthenticated `token_invalid` or `token_expired`."""
    key, now, cache = accounts.hash_secret(text), services.clock.now(), services.port(AuthCache)
    known = cache.get(key, now)
    if known is not None and known[1] is None:
        return known[0]
    head, _, rest = text.partition("_")
    tail, _, secret = rest.partition("_")
    token_id = f"tok_{tail}"
    invalid = _unauthenticated("token_invalid", "The API token is unknown, revoked, or its user is disabled.")
    if head != "cwt" or not is_id(token_id, "tok") or not secret:
        raise invalid
    async with services.db.begin() as tx:
        row = await store.token_with_grants(tx, token_id)
        if (
            row is None
            or not hmac.compare_digest(row.secret_hash, accounts.hash_secret(secret))
            or row.revoked_at is not None
            or row.disabled_at is not None
        ):
            raise invalid
        if now >= row.expires_at:
            raise _unauthenticated("token_expired", f"The API token {row.name!r} has expired.")
        if row.last_used_at is None or abs(now - row.last_used_at) >= _TOUCH_EVERY:
            await accounts.store.touch_token(tx, token_id, now)
    # What a token does, its person does: whoever reads the audit log must see both.
    shown = f"{row.email} via token {row.name}"
    actor = Actor("token", row.id, shown, row.account_id, _token_grants(row), row.user_id)
    cache.put(key, now, actor, None)
    return actor


def _token_grants(row: Any) -> tuple[Grant, ...]:
    held = store.grants_from(row.held)
    if row.policies is None:
        return held
    named = [*(row.named or ()), *([ref, None, None, None] for ref in row.policies if ref in SYSTEM_POLICIES)]
    return narrowed(held, store.grants_from(named))
