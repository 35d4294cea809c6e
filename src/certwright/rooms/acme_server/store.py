"""All SQL of the ACME server's room that more than one part needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from certwright.acme.requests import AcmeProblem
from certwright.kernel.actor import Actor
from certwright.kernel.problems import NotFound, not_found
from certwright.platform.db import Database, Said, Tx, is_one_of
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
from certwright.rooms.acme_server.words import CHALLENGES, Client, Served, Ticket

# How long a process may go by what it knows of a directory: changes are obeyed at most so much later.
_FRESH = timedelta(seconds=1)
_MOST_KNOWN = 2000


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


async def served_authorities(tx: Tx, ids: Collection[str]) -> set[str]:
    """Which of these CAs ACME clients are sent to: those with a directory that is open."""
    if not ids:
        return set()
    d = acme_directories.c
    query = sa.select(d.authority_id).where(is_one_of(d.authority_id, list(ids)), d.disabled_at.is_(None))
    return set(await tx.scalars(query))


class KnownClients:
    """The ACME accounts one process has looked up; plugged into Services.ports by the entry. What is kept here may be
    out of date: it is good for verifying a signature, and the statement that follows sees whether it still holds."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Client] = {}

    def get(self, directory_id: str, client_id: str) -> Client | None:
        return self._known.get((directory_id, client_id))

    def keep(self, directory_id: str, client: Client) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[directory_id, client.id] = client

    def forget(self, directory_id: str, client_id: str) -> None:
        self._known.pop((directory_id, client_id), None)


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
_CLIENTS = acme_accounts.outerjoin(acme_eab_keys, _e.id == _a.eab_key_id)
_ACCOUNT = sa.select(
    _a.id, _a.account_id, _a.project_id, _a.jwk, _a.thumbprint, _a.deactivated_at, _a.revoked, _a.eab_key_id,
    _e.allowed_names,
).select_from(_CLIENTS).where(_a.directory_id == sa.bindparam("directory"))  # fmt: skip
_ACCOUNT_ALONE = Said(_ACCOUNT.where(_a.id == sa.bindparam("account")))


def _use_nonce(account: sa.ColumnElement[bool]) -> sa.Select[Any]:
    found = _ACCOUNT.where(account).subquery("found")
    good = sa.select(sa.func.count().label("good")).select_from(nonces.used()).subquery("taken")
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


async def account_of(db: Database, directory_id: str, client_id: str) -> Any:
    """The row of an account, without using up a nonce."""
    return await _ACCOUNT_ALONE.row(db, directory=directory_id, account=client_id)


def client_of(row: Any) -> Client:
    allowed = None if row.eab_key_id is None else tuple(row.allowed_names)
    return Client(row.id, row.account_id, row.project_id, row.jwk, row.thumbprint, allowed)


def no_such_account() -> AcmeProblem:
    return AcmeProblem("accountDoesNotExist", "There is no such account here; register again.")


def still_there(row: Any) -> Any:
    """The row of an account that may ask for something. Raises AcmeProblem."""
    if row is None:
        raise no_such_account()
    if row.deactivated_at is not None:
        raise AcmeProblem("unauthorized", "The account was " + ("revoked" if row.revoked else "deactivated")
                          + "; register with another key.")  # fmt: skip
    return row


# --- one statement a request ------------------------------------------------------------------------------------------


def _gate() -> sa.CTE:
    """One row: whether the nonce was good, and is used up with this, and whether the account is as it was known when
    the signature was verified. What follows in the statement is done, or read, only if both are so."""
    as_known = sa.and_(
        _a.id == sa.bindparam("client"), _a.directory_id == sa.bindparam("directory"),
        _a.thumbprint == sa.bindparam("mark"), _a.deactivated_at.is_(None),
        _e.allowed_names.is_not_distinct_from(sa.bindparam("allowed", type_=ARRAY(sa.Text))),
    )  # fmt: skip
    good = sa.select(sa.func.count()).select_from(nonces.used()).scalar_subquery()
    current = sa.select(sa.func.count()).select_from(_CLIENTS).where(as_known).scalar_subquery()
    return sa.select(good.label("good"), current.label("current")).cte("gate")


_GATE = _gate()
_OPEN = sa.and_(_GATE.c.good > 0, _GATE.c.current > 0)


def _through_the_gate(*columns: Any, of: sa.FromClause, on: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """At least one row, with what is found if the gate is open."""
    return sa.select(_GATE.c.good, _GATE.c.current, *columns).select_from(_GATE.outerjoin(of, sa.and_(_OPEN, on)))


def _known(ticket: Ticket) -> dict[str, Any]:
    client = ticket.client
    return {
        "nonce": ticket.nonce, "nonce_key": ticket.nonce_key, "now": ticket.now, "directory": ticket.directory_id,
        "client": client.id, "mark": client.thumbprint, "allowed": client.allowed_names,
    }  # fmt: skip


async def at_once(services: Services, statement: Said, ticket: Ticket, **values: Any) -> list[Any]:
    """The rows of a statement with a gate. Raises AcmeProblem `badNonce`, `accountDoesNotExist`, `unauthorized`."""
    client = ticket.client
    rows = await statement.rows(services.db, **_known(ticket) | values)
    if not rows[0].good:
        services.port(nonces.Nonces).forget()
        raise nonces.bad_nonce()
    if not rows[0].current:
        services.port(KnownClients).forget(ticket.directory_id, client.id)
        still_there(await account_of(services.db, ticket.directory_id, client.id))
        # Its key or what it may order was changed just now: asked again, the request is judged by that.
        raise nonces.bad_nonce()
    return rows


_GATE_ALONE = Said(sa.select(_GATE.c.good, _GATE.c.current))


async def use_up(services: Services, ticket: Ticket) -> None:
    """The nonce, for what takes more than one statement. Raises what `at_once` does."""
    await at_once(services, _GATE_ALONE, ticket)


async def spend(services: Services, ticket: Ticket) -> None:
    """The nonce of a request that was refused, if it wasn't before."""
    await _GATE_ALONE.rows(services.db, **_known(ticket))


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
_ORDER_AT_ONCE = Said(
    _through_the_gate(
        acme_orders, _z.id.label("z_id"), _z.status.label("z_status"), _z.expires_at.label("z_expires_at"),
        _z.challenge.label("z_challenge"), _z.error.label("z_error"),
        of=acme_orders.outerjoin(acme_authorizations, _z.id == sa.any_(_o.authorization_ids)),
        on=sa.and_(_o.id == sa.bindparam("order"), _o.acme_account_id == sa.bindparam("client")),
    )
)  # fmt: skip


async def order_with_proofs(
    tx: Tx, client_id: str, order_id: str, *, lock: bool = False
) -> tuple[Any, list[Any]] | None:
    """An order of this very account with what its state depends on of its authorizations; None for another's."""
    rows = (await tx.execute(_ORDER_HELD if lock else _ORDER, {"order": order_id, "client": client_id})).all()
    return (rows[0], [row for row in rows if row.z_id is not None]) if rows else None


async def order_at_once(services: Services, ticket: Ticket, order_id: str) -> tuple[Any, list[Any]] | None:
    """The same with the nonce of a request. Raises what `at_once` does."""
    rows = await at_once(services, _ORDER_AT_ONCE, ticket, order=order_id)
    return (rows[0], [row for row in rows if row.z_id is not None]) if rows[0].id is not None else None


def proof_facts(rows: Sequence[Any]) -> list[rules.AuthorizationFacts]:
    """Of the rows of `order_with_proofs`."""
    return [rules.AuthorizationFacts(row.z_status, row.z_expires_at, row.z_challenge) for row in rows]


_ORDER_FULFILLED = (
    sa.update(acme_orders)
    .where(_o.id == sa.bindparam("order"), _o.status == "pending")
    .values(status="valid", issued_id=sa.bindparam("issued"))
)


def _fulfil() -> Said:
    """Waits for nobody: what is judged here is judged at the moment the statement begins."""
    mine = sa.and_(_o.id == sa.bindparam("order"), _o.acme_account_id == sa.bindparam("client"))
    free = sa.select(_o.id).where(mine).with_for_update(key_share=True, skip_locked=True).scalar_subquery()
    there = sa.exists().where(_a.id == sa.bindparam("client"), _a.deactivated_at.is_(None))
    fulfilled = (
        sa.update(acme_orders)
        .where(
            _o.id == free, _o.status == "pending", _o.expires_at > sa.bindparam("now"), there, authorities.unchanged()
        )
        .values(status="valid", issued_id=sa.bindparam("i_id"))
        .returning(_o.id)
        .cte("fulfilled")
    )  # fmt: skip
    return Said(sa.select(fulfilled.c.id).add_cte(*authorities.recorded(fulfilled)))


_FULFIL = _fulfil()


async def fulfil_at_once(
    db: Database, client_id: str, order_id: str, signed: authorities.SignedLeaf, now: datetime
) -> bool:
    """Records the certificate and makes the order valid, in one statement. False, and nothing done, where the order
    isn't open any more or somebody is at it, the account was turned away, or the CA isn't as it was."""
    return await _FULFIL.row(db, order=order_id, client=client_id, now=now, **signed.values) is not None


async def note_refusal(db: Database, client_id: str, order_id: str, error: dict[str, Any]) -> None:
    """Why the CA signed nothing for an order that goes on waiting."""
    o = acme_orders.c
    async with db.begin() as tx:
        await tx.execute(
            sa.update(acme_orders)
            .where(o.id == order_id, o.acme_account_id == client_id, o.status == "pending")
            .values(error=error)
        )


async def require_account(tx: Tx, client: Client) -> None:
    """Raises AcmeProblem for an account that was turned away meanwhile."""
    still_there((await tx.execute(sa.select(_a.deactivated_at, _a.revoked).where(_a.id == client.id))).one_or_none())


async def fulfil(tx: Tx, order_id: str, issued_id: str) -> None:
    """Of an order whose row is held."""
    await tx.execute(_ORDER_FULFILLED, {"order": order_id, "issued": issued_id})


def _new_order(*conditions: sa.ColumnElement[bool]) -> tuple[sa.CTE, sa.CTE]:
    """An order with its authorizations, unless the account has too many that wait."""
    waiting = sa.select(sa.func.count().label("count")).where(
        _o.acme_account_id == sa.bindparam("client"), _o.status == "pending", _o.expires_at > sa.bindparam("now")
    )
    failed = sa.select(sa.func.count()).where(
        _o.acme_account_id == sa.bindparam("client"), _o.status == "invalid", _o.created_at > sa.bindparam("lately")
    )
    room = (
        sa.select(sa.literal(1))
        .where(
            waiting.scalar_subquery() < sa.bindparam("most"), failed.scalar_subquery() < sa.bindparam("most_failed"),
            *conditions,
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
    return made, proofs


_FRESH_AUTHORIZATION: Mapping[str, Any] = {
    "id": sa.Text(), "type": sa.Text(), "value": sa.Text(), "wildcard": sa.Boolean(), "token": sa.Text(),
}  # fmt: skip
_SHARED = {"client": _o.id.type, "now": _o.created_at.type, "expires": _o.expires_at.type}
_ORDERED = ("id", "directory_id", "names", "authorization_ids", "profile", "profile_asked", "replaces")
_made, _proofs = _new_order()
_NEW_ORDER = sa.select(_made.c.id).add_cte(_proofs)
_made, _proofs = _new_order(_OPEN)
_NEW_ORDER_AT_ONCE = Said(_through_the_gate(_made.c.id, of=_made, on=sa.true()).add_cte(_proofs))


async def insert_order(
    services: Services, ticket: Ticket, tx: Tx | None, order: Mapping[str, Any], fresh: Sequence[Mapping[str, Any]], *,
    most: int, failed: int,
) -> bool:  # fmt: skip
    """False where the account has `most` orders that wait already, or `failed` of the last hour. In the caller's
    transaction, if there is one; otherwise with the nonce of the request, raising what `at_once` does."""
    now = ticket.now
    values = {name: order[name] for name in _ORDERED} | {
        "client": order["acme_account_id"], "now": now, "expires": order["expires_at"], "most": most,
        "most_failed": failed, "lately": now - timedelta(hours=1),
    } | {f"z_{name}": [one[name] for one in fresh] for name in _FRESH_AUTHORIZATION}  # fmt: skip
    if tx is None:
        return (await at_once(services, _NEW_ORDER_AT_ONCE, ticket, **values))[0].id is not None
    return (await tx.execute(_NEW_ORDER, values)).one_or_none() is not None


_ISSUED = Said(
    _through_the_gate(
        authorities.LEAF, of=acme_orders.join(authorities.LEAF, authorities.LEAF.c.id == _o.issued_id),
        on=sa.and_(_o.id == sa.bindparam("order"), _o.acme_account_id == sa.bindparam("client")),
    )
)  # fmt: skip


async def issued_at_once(services: Services, ticket: Ticket, order_id: str) -> Any:
    """What was issued for an order of this very account, a row of `authorities.LEAF`, with the nonce of the request.
    Raises what `at_once` does."""
    row = (await at_once(services, _ISSUED, ticket, order=order_id))[0]
    return row if row.id is not None else None


_MINE = sa.and_(_z.id == sa.bindparam("authorization"), _z.acme_account_id == sa.bindparam("client"))
_AUTHORIZATION = Said(sa.select(acme_authorizations).where(_MINE))
_AUTHORIZATION_AT_ONCE = Said(_through_the_gate(acme_authorizations, of=acme_authorizations, on=_MINE))


async def authorization_of(db: Database, client_id: str, authorization_id: str) -> Any:
    return await _AUTHORIZATION.row(db, authorization=authorization_id, client=client_id)


async def authorization_at_once(services: Services, ticket: Ticket, authorization_id: str) -> Any:
    """The same with the nonce of a request. Raises what `at_once` does."""
    row = (await at_once(services, _AUTHORIZATION_AT_ONCE, ticket, authorization=authorization_id))[0]
    return row if row.id is not None else None


def _begin(kind: str) -> Said:
    # What `rules.challenges_for` says of names, for the database.
    fits = _z.type == "dns" if kind == "dns-01" else _z.wildcard.is_(False)
    other = acme_authorizations.alias("other")
    under_way = (
        sa.select(sa.func.count())
        .where(other.c.acme_account_id == sa.bindparam("client"), other.c.next_step_at.is_not(None))
        .scalar_subquery()
    )
    begun = (
        sa.update(acme_authorizations)
        .where(
            _OPEN, _MINE, _z.status == "pending", _z.challenge.is_(None), _z.expires_at > sa.bindparam("now"), fits,
            under_way < sa.bindparam("most", type_=sa.Integer),
        )
        .values(challenge=kind, next_step_at=sa.bindparam("due"))
        .returning(acme_authorizations)
        .cte("begun")
    )  # fmt: skip
    return Said(_through_the_gate(begun, of=begun, on=sa.true()))


_BEGIN = {kind: _begin(kind) for kind in CHALLENGES}


async def begin_challenge(
    services: Services, ticket: Ticket, authorization_id: str, kind: str, *, due: datetime
) -> Any:
    """The authorization with its challenge begun; None where it can't be, or was before, or where as many of this
    account are under way as may be. `due` is when the worker looks, should this process die. Raises what `at_once`
    does."""
    values = {"authorization": authorization_id, "due": due, "most": rules.MOST_UNDER_WAY}
    row = (await at_once(services, _BEGIN[kind], ticket, **values))[0]
    return row if row.id is not None else None


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
    .returning(acme_authorizations)
)  # fmt: skip


async def proven(db: Database, authorization_id: str, *, now: datetime, until: datetime) -> Any:
    """The authorization as it is now; None where it was decided meanwhile."""
    return await _PROVEN.row(db, authorization=authorization_id, now=now, until=until)


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
