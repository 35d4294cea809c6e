"""All SQL of the ACME server's room that more than one part needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.kernel.actor import Actor
from certwright.kernel.problems import NotFound, not_found
from certwright.platform.db import Database, Said, Tx
from certwright.platform.services import Services
from certwright.rooms import access, authorities
from certwright.rooms.acme_server import nonces, rules
from certwright.rooms.acme_server.tables import (
    acme_accounts,
    acme_authorizations,
    acme_directories,
    acme_eab_keys,
    acme_orders,
)
from certwright.rooms.acme_server.words import CHALLENGES, Client, Served

# How long a process may go by what it knows of a directory: changes are obeyed at most so much later.
_FRESH = timedelta(seconds=1)
_MOST_KNOWN = 1000


def directory_url(services: Services, slug: str, *rest: str) -> str:
    return "/".join((services.settings.base_url, "acme", slug, *rest))


# --- the directory, for clients ---------------------------------------------------------------------------------------


class KnownDirectories:
    """The directories one process has looked up; plugged into Services.ports by the entry."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, tuple[datetime, Served | None]] = {}

    async def get(self, slug: str) -> Served:
        """An open directory. Raises NotFound, also for one that is disabled."""
        now = self._services.clock.now()
        at, served = self._known.get(slug, (None, None))
        if at is None or not at <= now < at + _FRESH:
            async with self._services.db.read() as tx:
                served = await _served(tx, slug)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[slug] = (now, served)
        if served is None:
            # For clients, which can list nothing here.
            raise NotFound("acme_closed", "There is no ACME service at this address, or it is closed.",
                           fix="Ask whoever runs this CA for the address of one that is open.")  # fmt: skip
        return served


async def _served(tx: Tx, slug: str) -> Served | None:
    if "\0" in slug:
        return None  # which no database takes
    d = acme_directories.c
    query = sa.select(acme_directories).where(d.slug == slug, d.disabled_at.is_(None))
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    return Served(
        row.id, row.slug, row.account_id, row.project_id, row.authority_id, row.eab_required, tuple(row.allowed_names),
        tuple(row.profiles), tuple(row.challenges), row.days, row.reuse_days, row.terms_url, row.website,
        await authorities.has_policies(tx, row.account_id),
    )  # fmt: skip


# --- accounts ---------------------------------------------------------------------------------------------------------

# A certificate takes a handful of requests, each with one or two of the statements below: they are built once.

_a, _e, _o, _z = acme_accounts.c, acme_eab_keys.c, acme_orders.c, acme_authorizations.c


def _use_nonce(account: sa.ColumnElement[bool]) -> sa.Select[Any]:
    used = nonces.used()
    found = (
        sa.select(
            _a.id, _a.account_id, _a.project_id, _a.jwk, _a.thumbprint, _a.deactivated_at, _a.revoked, _a.eab_key_id,
            _e.allowed_names,
        )
        .select_from(acme_accounts.outerjoin(acme_eab_keys, _e.id == _a.eab_key_id))
        .where(_a.directory_id == sa.bindparam("directory"), account)
        .subquery("found")
    )  # fmt: skip
    good = sa.select(sa.func.count().label("good")).select_from(used).subquery("taken")
    return sa.select(good.c.good, found).select_from(good.outerjoin(found, sa.true()))


_BY_ID = Said(_use_nonce(_a.id == sa.bindparam("account")))
_BY_KEY = Said(_use_nonce(_a.thumbprint == sa.bindparam("account")))


async def use_nonce(
    db: Database, nonce: tuple[str, str], now: datetime, directory_id: str, account: str, *, by_key: bool
) -> tuple[bool, Any]:
    """Whether the nonce was good, and the row of the account with this id or thumbprint, if there is one."""
    statement = _BY_KEY if by_key else _BY_ID
    row = await statement.row(
        db, nonce=nonce[0], nonce_key=nonce[1], now=now, directory=directory_id, account=account
    )  # fmt: skip
    return row.good > 0, row if row.id is not None else None


def client_of(row: Any) -> Client:
    allowed = None if row.eab_key_id is None else tuple(row.allowed_names)
    return Client(row.id, row.account_id, row.project_id, row.jwk, row.thumbprint, allowed)


# --- orders and authorizations ----------------------------------------------------------------------------------------


def facts_of(row: Any) -> rules.AuthorizationFacts:
    return rules.AuthorizationFacts(row.status, row.expires_at, row.challenge)


_ORDER = (
    sa.select(
        acme_orders, _z.id.label("z_id"), _z.status.label("z_status"), _z.expires_at.label("z_expires_at"),
        _z.challenge.label("z_challenge"), _z.error.label("z_error"),
    )
    .outerjoin(acme_authorizations, _z.id == sa.any_(_o.authorization_ids))
    .where(_o.id == sa.bindparam("order"), _o.acme_account_id == sa.bindparam("client"))
)  # fmt: skip
_ORDER_HELD = _ORDER.with_for_update(of=acme_orders)


async def order_with_proofs(
    tx: Tx, client_id: str, order_id: str, *, lock: bool = False
) -> tuple[Any, list[Any]] | None:
    """An order of this very account with what its state depends on of its authorizations; None for another's."""
    rows = (await tx.execute(_ORDER_HELD if lock else _ORDER, {"order": order_id, "client": client_id})).all()
    return (rows[0], [row for row in rows if row.z_id is not None]) if rows else None


def proof_facts(rows: Sequence[Any]) -> list[rules.AuthorizationFacts]:
    """Of the rows of `order_with_proofs`."""
    return [rules.AuthorizationFacts(row.z_status, row.z_expires_at, row.z_challenge) for row in rows]


_ORDER_FULFILLED = (
    sa.update(acme_orders)
    .where(_o.id == sa.bindparam("order"), _o.status == "pending")
    .values(status="valid", issued_id=sa.bindparam("issued"))
)


async def fulfil(tx: Tx, order_id: str, issued_id: str) -> None:
    """Of an order whose row is held."""
    await tx.execute(_ORDER_FULFILLED, {"order": order_id, "issued": issued_id})


def _new_order() -> sa.Select[Any]:
    """An order with its authorizations, unless the account has too many that wait: one statement."""
    waiting = sa.select(sa.func.count().label("count")).where(
        _o.acme_account_id == sa.bindparam("client"), _o.status == "pending", _o.expires_at > sa.bindparam("now")
    )
    failed = sa.select(sa.func.count()).where(
        _o.acme_account_id == sa.bindparam("client"), _o.status == "invalid", _o.created_at > sa.bindparam("lately")
    )
    room = (
        sa.select(sa.literal(1))
        .where(
            waiting.scalar_subquery() < sa.bindparam("most"), failed.scalar_subquery() < sa.bindparam("most_failed")
        )
        .cte("room")
    )  # fmt: skip
    fresh = (
        sa.func.unnest(*(sa.bindparam(f"z_{name}", type_=ARRAY(kind)) for name, kind in _FRESH_AUTHORIZATION.items()))
        .table_valued(*_FRESH_AUTHORIZATION, name="fresh")
        .render_derived()
    )
    proofs = (
        sa.insert(acme_authorizations)
        .from_select(
            [*_FRESH_AUTHORIZATION, "acme_account_id", "created_at", "expires_at"],
            sa.select(
                *(fresh.c[name] for name in _FRESH_AUTHORIZATION),
                *(sa.bindparam(name, type_=kind) for name, kind in _SHARED.items()),
            ).select_from(room.join(fresh, sa.true())),
        )
        .returning(_z.id)
        .cte("proofs")
    )
    made = (
        sa.insert(acme_orders)
        .from_select(
            [*_ORDERED, "acme_account_id", "created_at", "expires_at"],
            sa.select(
                *(sa.bindparam(name, type_=_o[name].type) for name in _ORDERED),
                *(sa.bindparam(name, type_=kind) for name, kind in _SHARED.items()),
            ).select_from(room),
        )
        .returning(_o.id)
        .cte("made")
    )
    return sa.select(made.c.id).add_cte(proofs)


_FRESH_AUTHORIZATION: Mapping[str, Any] = {
    "id": sa.Text(), "type": sa.Text(), "value": sa.Text(), "wildcard": sa.Boolean(), "token": sa.Text(),
}  # fmt: skip
_SHARED = {"client": _o.id.type, "now": _o.created_at.type, "expires": _o.expires_at.type}
_ORDERED = ("id", "directory_id", "names", "authorization_ids", "profile", "profile_asked", "replaces")
_NEW_ORDER = _new_order()
_NEW_ORDER_ALONE = Said(_NEW_ORDER)


async def insert_order(
    db: Database, tx: Tx | None, order: Mapping[str, Any], fresh: Sequence[Mapping[str, Any]], *, now: datetime,
    most: int, failed: int,
) -> bool:  # fmt: skip
    """False where the account has `most` orders that wait already, or `failed` of the last hour. In the caller's
    transaction, if there is one."""
    values = {name: order[name] for name in _ORDERED} | {
        "client": order["acme_account_id"], "now": now, "expires": order["expires_at"], "most": most,
        "most_failed": failed, "lately": now - timedelta(hours=1),
    } | {f"z_{name}": [one[name] for one in fresh] for name in _FRESH_AUTHORIZATION}  # fmt: skip
    if tx is None:
        return await _NEW_ORDER_ALONE.row(db, **values) is not None
    return (await tx.execute(_NEW_ORDER, values)).one_or_none() is not None


_ISSUED_ID = Said(
    sa.select(_o.issued_id).where(_o.id == sa.bindparam("order"), _o.acme_account_id == sa.bindparam("client"))
)


async def issued_id_of(db: Database, client_id: str, order_id: str) -> str | None:
    row = await _ISSUED_ID.row(db, order=order_id, client=client_id)
    return None if row is None else row.issued_id


_AUTHORIZATION = Said(
    sa.select(acme_authorizations).where(
        _z.id == sa.bindparam("authorization"), _z.acme_account_id == sa.bindparam("client")
    )
)


async def authorization_of(db: Database, client_id: str, authorization_id: str) -> Any:
    return await _AUTHORIZATION.row(db, authorization=authorization_id, client=client_id)


def _begin(kind: str) -> Said:
    # What `rules.challenges_for` says of names, for the database.
    fits = _z.type == "dns" if kind == "dns-01" else _z.wildcard.is_(False)
    other = acme_authorizations.alias("other")
    under_way = (
        sa.select(sa.func.count())
        .where(other.c.acme_account_id == sa.bindparam("client"), other.c.next_step_at.is_not(None))
        .scalar_subquery()
    )
    return Said(
        sa.update(acme_authorizations)
        .where(
            _z.id == sa.bindparam("authorization"), _z.acme_account_id == sa.bindparam("client"),
            _z.status == "pending", _z.challenge.is_(None), _z.expires_at > sa.bindparam("now"), fits,
            under_way < sa.bindparam("most", type_=sa.Integer),
        )
        .values(challenge=kind, next_step_at=sa.bindparam("due"))
        .returning(acme_authorizations)
    )  # fmt: skip


_BEGIN = {kind: _begin(kind) for kind in CHALLENGES}


async def begin_challenge(
    db: Database, client_id: str, authorization_id: str, kind: str, *, now: datetime, due: datetime
) -> Any:
    """The authorization with its challenge begun; None where it can't be, or was before, or where as many of this
    account are under way as may be. `due` is when the worker looks, should this process die."""
    return await _BEGIN[kind].row(
        db, authorization=authorization_id, client=client_id, now=now, due=due, most=rules.MOST_UNDER_WAY
    )


_TO_PROVE = Said(
    sa.select(
        _z.id, _z.acme_account_id, _z.value, _z.token, _z.challenge, _z.looks, _z.expires_at, _a.jwk,
    )
    .join(acme_accounts, _a.id == _z.acme_account_id)
    .where(
        _z.id == sa.bindparam("authorization"), _z.status == "pending", _z.challenge.is_not(None),
        _a.deactivated_at.is_(None),
    )
)  # fmt: skip


async def to_prove(db: Database, authorization_id: str) -> Any:
    """What has to be looked at for an authorization; None where there is nothing any more."""
    return await _TO_PROVE.row(db, authorization=authorization_id)


# Nobody comes to give back what a killed worker held of an authorization that is decided.
DECIDED: dict[str, Any] = {
    "next_step_at": None, "step_lease_until": None, "step_attempts": 0, "step_problem": sa.null(),
}  # fmt: skip
_PROVEN = Said(
    sa.update(acme_authorizations)
    .where(_z.id == sa.bindparam("authorization"), _z.status == "pending")
    .values(
        status="valid", validated_at=sa.bindparam("now"), looks=_z.looks + 1, error=sa.null(),
        expires_at=sa.bindparam("until"), **DECIDED,
    )
)  # fmt: skip


async def proven(db: Database, authorization_id: str, *, now: datetime, until: datetime) -> None:
    await _PROVEN.rows(db, authorization=authorization_id, now=now, until=until)


async def fail_orders(tx: Tx, client_id: str, authorization_id: str, error: dict[str, Any]) -> None:
    """Orders that can't be fulfilled any more because of one authorization."""
    o = acme_orders.c
    await tx.execute(
        sa.update(acme_orders)
        .where(
            o.acme_account_id == client_id, o.status == "pending",
            sa.literal(authorization_id, acme_authorizations.c.id.type) == sa.any_(o.authorization_ids),
        )
        .values(status="invalid", error=error)
    )  # fmt: skip


# --- for people -------------------------------------------------------------------------------------------------------


async def visible_directory(tx: Tx, actor: Actor, action: str, directory_id: str, *, lock: bool = False) -> Any:
    """A directory the actor may do `action` with. Raises NotFound if they may not see it, Forbidden otherwise."""
    d = acme_directories.c
    query = sa.select(acme_directories).where(
        d.id == directory_id, access.visible(acme_directories, actor, "ccm:acme:get")
    )
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise not_found("ACME service", directory_id)
    access.require(actor, action, project_id=row.project_id, resource=f"acme-directory:{directory_id}")
    return row
