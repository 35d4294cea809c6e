"""What people do with ACME services: open and close them, hand out keys for binding, look at accounts and orders."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from certwright.acme.jose import b64url
from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Refused, Stale, not_found
from certwright.platform.db import Tx, is_one_of
from certwright.platform.services import Services
from certwright.rooms import access, audit, authorities
from certwright.rooms.acme_server import rules, store
from certwright.rooms.acme_server.protocol import secret_context
from certwright.rooms.acme_server.tables import (
    acme_accounts,
    acme_authorizations,
    acme_directories,
    acme_eab_keys,
    acme_orders,
    acme_slugs,
)
from certwright.rooms.acme_server.words import (
    AccountState,
    AcmeAccount,
    AcmeDirectory,
    AcmeOrder,
    DirectoryRequest,
    EabKey,
    NewEabKey,
    OrderState,
    SeenAuthorization,
)
from certwright.rooms.authorities import name_rules

_SECRET_OCTETS = 32

# --- directories ------------------------------------------------------------------------------------------------------


def _shown(services: Services, row: Any) -> AcmeDirectory:
    return AcmeDirectory(
        id=row.id, project_id=row.project_id, authority_id=row.authority_id, slug=row.slug, name=row.name,
        url=store.directory_url(services, row.slug, "directory"), eab_required=row.eab_required,
        allowed_names=tuple(row.allowed_names), profiles=tuple(row.profiles), challenges=tuple(row.challenges),
        days=row.days, reuse_days=row.reuse_days, terms_url=row.terms_url, website=row.website,
        enabled=row.disabled_at is None, created_at=row.created_at, revision=row.revision,
    )  # fmt: skip


async def create_directory(
    services: Services, actor: Actor, request: DirectoryRequest, *, project_id: str | None = None
) -> AcmeDirectory:
    """Opens an ACME service on a CA that issues. Needs `ccm:acme:create`, and `ccm:cert:issue` on the CA.

    Raises Invalid naming the field, `profile_unknown`, Refused `acme_slug_taken`, `ca_is_root`,
    `ca_not_active`, NotFound for the CA.
    """
    access.require_somewhere(actor, "ccm:acme:create")
    name = rules.judge_label(request.name)
    values: dict[str, Any] = {
        "eab_required": request.eab_required, "profiles": _once(request.profiles),
        "challenges": _once(request.challenges), "days": request.days, "reuse_days": request.reuse_days,
        "terms_url": request.terms_url or None, "website": request.website or None,
        "allowed_names": list(name_rules.read_rules(request.allowed_names, "allowed_names")),
    }  # fmt: skip
    rules.judge_directory(values)
    slug = rules.judge_slug(request.slug) if request.slug else rules.slug_of(name)
    now = services.clock.now()
    directory_id = new_id("acd", now)
    try:
        async with services.db.begin() as tx:
            project = await access.project_for(tx, actor, "ccm:acme:create", project_id)
            await _judge_ca(tx, actor, request.authority_id, now)
            await _judge_profiles(tx, actor.account_id, values["profiles"])
            await _take_slug(tx, actor.account_id, slug, now)
            row = (
                await tx.execute(
                    sa.insert(acme_directories)
                    .values(
                        values
                        | {"id": directory_id, "account_id": actor.account_id, "project_id": project, "slug": slug,
                           "name": name, "authority_id": request.authority_id, "created_at": now}
                    )
                    .returning(acme_directories)
                )
            ).one()  # fmt: skip
            await audit.record(
                tx, services, actor, "ccm:acme:create", "acme-directory", directory_id, project_id=project,
                after=values | {"slug": slug, "name": name, "authority": request.authority_id},
            )  # fmt: skip
    except IntegrityError:
        raise _slug_taken(slug) from None
    return _shown(services, row)


async def _take_slug(tx: Tx, account_id: str, slug: str, now: datetime) -> None:
    """An address part stays its first account's, also when the service is gone."""
    await tx.execute(
        postgresql.insert(acme_slugs).values(slug=slug, account_id=account_id, created_at=now).on_conflict_do_nothing()
    )
    if await tx.scalar(sa.select(acme_slugs.c.account_id).where(acme_slugs.c.slug == slug)) != account_id:
        raise _slug_taken(slug)


def _slug_taken(slug: str) -> Refused:
    return Refused("acme_slug_taken", f"Another ACME service has, or had, the address part {slug!r}.", field="slug",
                   fix="Choose another.")  # fmt: skip


def _once(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


async def _judge_ca(tx: Tx, actor: Actor, authority_id: str, now: datetime) -> None:
    if not await authorities.signs_for(tx, actor, authority_id, now):
        raise Refused("ca_is_root", "A root signs CAs and nothing else.", field="authority_id",
                      fix="Choose an issuing CA.")  # fmt: skip


async def _judge_profiles(tx: Tx, account_id: str, profiles: Sequence[str]) -> None:
    unknown = await authorities.unknown_profiles(tx, account_id, profiles)
    if unknown:
        raise Invalid("profile_unknown", f"There is no profile {unknown[0][:40]!r} for certificates.",
                      field="profiles", fix="Choose of the list of profiles.")  # fmt: skip


async def list_directories(services: Services, actor: Actor, *, authority_id: str | None = None) -> list[AcmeDirectory]:
    """By name. Needs `ccm:acme:list`."""
    d = acme_directories.c
    query = sa.select(acme_directories).where(access.visible(acme_directories, actor, "ccm:acme:list"))
    if authority_id is not None:
        query = query.where(d.authority_id == authority_id)
    async with services.db.read() as tx:
        rows = (await tx.execute(query.order_by(sa.func.lower(d.name), d.id))).all()
    return [_shown(services, row) for row in rows]


async def get_directory(services: Services, actor: Actor, directory_id: str) -> AcmeDirectory:
    async with services.db.read() as tx:
        return _shown(services, await store.visible_directory(tx, actor, "ccm:acme:get", directory_id))


async def update_directory(
    services: Services, actor: Actor, directory_id: str, changes: dict[str, Any], *, revision: int | None = None
) -> AcmeDirectory:
    """Any of name, eab_required, allowed_names, profiles, challenges, days, reuse_days, terms_url, website, enabled;
    obeyed within a second. Accounts and orders that are there stay. Needs `ccm:acme:update`.

    Raises Stale, and as `create_directory` does.
    """
    values = dict(changes)
    if "name" in values:
        values["name"] = rules.judge_label(values["name"])
    if "allowed_names" in values:
        values["allowed_names"] = list(name_rules.read_rules(values["allowed_names"], "allowed_names"))
    for key in ("profiles", "challenges"):
        if key in values:
            values[key] = _once(values[key])
    rules.judge_directory(values)
    d = acme_directories.c
    async with services.db.begin() as tx:
        row = await store.visible_directory(tx, actor, "ccm:acme:update", directory_id, lock=True)
        if revision is not None and revision != row.revision:
            raise Stale("stale", "Somebody changed this ACME service meanwhile.",
                        fix="Load it again and repeat the change.")  # fmt: skip
        if "profiles" in values:
            await _judge_profiles(tx, actor.account_id, values["profiles"])
        if (enabled := values.pop("enabled", None)) is not None:
            values["disabled_at"] = None if enabled else row.disabled_at or services.clock.now()
        values = {key: value for key, value in values.items() if value != getattr(row, key)}
        if values:
            before = {key: _told(getattr(row, key)) for key in values}
            row = (
                await tx.execute(
                    sa.update(acme_directories)
                    .where(d.id == directory_id)
                    .values(values | {"revision": d.revision + 1})
                    .returning(acme_directories)
                )
            ).one()
            await audit.record(
                tx, services, actor, "ccm:acme:update", "acme-directory", directory_id, project_id=row.project_id,
                before=before, after={key: _told(value) for key, value in values.items()},
            )  # fmt: skip
    return _shown(services, row)


def _told(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


async def delete_directory(services: Services, actor: Actor, directory_id: str) -> None:
    """Closes an ACME service for good, with its accounts and orders; what was issued stays with its CA, and clients
    can't renew or revoke it any more. Needs `ccm:acme:delete`. Raises Refused `acme_enabled` for one that is open."""
    async with services.db.begin() as tx:
        # In this order orders lock them, too, which point at both.
        await store.visible_directory(tx, actor, "ccm:acme:delete", directory_id)
        accounts = sa.select(acme_accounts.c.id).where(acme_accounts.c.directory_id == directory_id)
        await tx.execute(accounts.with_for_update())
        row = await store.visible_directory(tx, actor, "ccm:acme:delete", directory_id, lock=True)
        if row.disabled_at is None:
            raise Refused("acme_enabled", f"The ACME service {row.name!r} is open to its clients.",
                          fix="Disable it first; then it can be deleted.")  # fmt: skip
        for table in (acme_orders, acme_authorizations):
            await tx.execute(sa.delete(table).where(table.c.acme_account_id.in_(accounts)))
        for table in (acme_accounts, acme_eab_keys):
            await tx.execute(sa.delete(table).where(table.c.directory_id == directory_id))
        await tx.execute(sa.delete(acme_directories).where(acme_directories.c.id == directory_id))
        await audit.record(
            tx, services, actor, "ccm:acme:delete", "acme-directory", directory_id, project_id=row.project_id,
            before={"slug": row.slug, "name": row.name, "authority": row.authority_id},
        )  # fmt: skip


# --- keys for external account binding --------------------------------------------------------------------------------


def _key(row: Any) -> EabKey:
    return EabKey(
        row.id, row.directory_id, row.project_id, row.name, tuple(row.allowed_names), row.reusable, row.expires_at,
        row.used_at, row.revoked_at, row.created_at,
    )  # fmt: skip


def _new_secret() -> bytes:
    """Random octets; as people paste them behind an option, they don't begin with a dash: most programs would take
    them for another option."""
    while True:
        secret = secrets.token_bytes(_SECRET_OCTETS)
        if not b64url(secret).startswith("-"):
            return secret


async def create_eab_key(
    services: Services,
    actor: Actor,
    directory_id: str,
    *,
    name: str,
    project_id: str | None = None,
    allowed_names: Sequence[str] = (),
    reusable: bool = False,
    expires_at: datetime | None = None,
) -> NewEabKey:
    """A key id and a secret to give to a client. What its accounts order belongs to `project_id` (default: the
    directory's). Needs `ccm:acme:bind` on the directory and in that project. The secret is shown this once."""
    label = rules.judge_label(name)
    patterns = list(name_rules.read_rules(allowed_names, "allowed_names"))
    now = services.clock.now()
    if expires_at is not None and expires_at <= now:
        raise Invalid("acme_key_expires_invalid", "The key would have run out already.", field="expires_at",
                      fix="Choose a moment in the future, or leave it out.")  # fmt: skip
    secret = _new_secret()
    key_id = new_id("eab", now)
    async with services.db.begin() as tx:
        directory = await store.visible_directory(tx, actor, "ccm:acme:bind", directory_id)
        project = directory.project_id
        if project_id is not None and project_id != project:
            project = await access.project_for(tx, actor, "ccm:acme:bind", project_id)
        row = (
            await tx.execute(
                sa.insert(acme_eab_keys)
                .values(
                    id=key_id, account_id=actor.account_id, project_id=project, directory_id=directory_id, name=label,
                    sealed=services.vault.seal(secret, secret_context(key_id)), allowed_names=patterns,
                    reusable=reusable, expires_at=expires_at, created_at=now,
                )
                .returning(acme_eab_keys)
            )
        ).one()  # fmt: skip
        await audit.record(
            tx, services, actor, "ccm:acme:bind", "acme-directory", directory_id, project_id=project,
            after={"key": key_id, "name": label, "allowed_names": patterns, "reusable": reusable},
        )  # fmt: skip
    return NewEabKey(_key(row), b64url(secret))


async def list_eab_keys(
    services: Services, actor: Actor, directory_id: str, *, after: str | None = None, limit: int = 20
) -> list[EabKey]:
    """Newest first, without their secrets. Needs `ccm:acme:list`."""
    e = acme_eab_keys.c
    async with services.db.read() as tx:
        await store.visible_directory(tx, actor, "ccm:acme:list", directory_id)
        query = sa.select(acme_eab_keys).where(e.directory_id == directory_id)
        if after is not None:
            query = query.where(e.id < after)
        rows = (await tx.execute(query.order_by(e.id.desc()).limit(limit))).all()
    return [_key(row) for row in rows]


async def revoke_eab_key(
    services: Services, actor: Actor, directory_id: str, key_id: str, *, with_accounts: bool = False
) -> EabKey:
    """No more accounts are bound by it, and its secret is erased; `with_accounts`: those it bound are turned away, too.
    Content to find it revoked. Needs `ccm:acme:bind`."""
    e, now = acme_eab_keys.c, services.clock.now()
    async with services.db.begin() as tx:
        directory = await store.visible_directory(tx, actor, "ccm:acme:bind", directory_id)
        row = (
            await tx.execute(
                sa.select(acme_eab_keys).where(e.id == key_id, e.directory_id == directory_id).with_for_update()
            )
        ).one_or_none()
        if row is None:
            raise not_found("key for binding", key_id)
        if row.revoked_at is None:
            values = {"revoked_at": now, "sealed": None}
            row = (
                await tx.execute(sa.update(acme_eab_keys).where(e.id == key_id).values(values).returning(acme_eab_keys))
            ).one()
        turned = await _turn_away(tx, now, acme_accounts.c.eab_key_id == key_id) if with_accounts else []
        await audit.record(
            tx, services, actor, "ccm:acme:bind", "acme-directory", directory_id, project_id=directory.project_id,
            before={"key": key_id, "name": row.name}, after={"revoked": True, "accounts": turned},
        )  # fmt: skip
    return _key(row)


# --- accounts ---------------------------------------------------------------------------------------------------------


def _account(row: Any) -> AcmeAccount:
    state = AccountState.VALID
    if row.deactivated_at is not None:
        state = AccountState.REVOKED if row.revoked else AccountState.DEACTIVATED
    return AcmeAccount(
        row.id, row.directory_id, row.project_id, state, row.thumbprint, tuple(row.contacts), row.eab_key_id,
        row.created_at, row.deactivated_at,
    )  # fmt: skip


async def list_accounts(
    services: Services, actor: Actor, directory_id: str, *, after: str | None = None, limit: int = 20
) -> list[AcmeAccount]:
    """Newest first. Needs `ccm:acme:list`."""
    a = acme_accounts.c
    async with services.db.read() as tx:
        await store.visible_directory(tx, actor, "ccm:acme:list", directory_id)
        query = sa.select(acme_accounts).where(a.directory_id == directory_id)
        if after is not None:
            query = query.where(a.id < after)
        rows = (await tx.execute(query.order_by(a.id.desc()).limit(limit))).all()
    return [_account(row) for row in rows]


async def get_account(services: Services, actor: Actor, directory_id: str, acme_account_id: str) -> AcmeAccount:
    async with services.db.read() as tx:
        await store.visible_directory(tx, actor, "ccm:acme:get", directory_id)
        return _account(await _account_row(tx, directory_id, acme_account_id))


async def _account_row(tx: Tx, directory_id: str, acme_account_id: str) -> Any:
    a = acme_accounts.c
    query = sa.select(acme_accounts).where(a.id == acme_account_id, a.directory_id == directory_id)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        raise not_found("ACME account", acme_account_id)
    return row


async def deactivate_account(services: Services, actor: Actor, directory_id: str, acme_account_id: str) -> AcmeAccount:
    """Turns a client away for good (`revoked` in RFC 8555); its certificates stay. Content to find it done. Needs
    `ccm:acme:update`."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        directory = await store.visible_directory(tx, actor, "ccm:acme:update", directory_id)
        if await _turn_away(tx, now, sa.and_(
            acme_accounts.c.id == acme_account_id, acme_accounts.c.directory_id == directory_id
        )):  # fmt: skip
            await audit.record(
                tx, services, actor, "ccm:acme:update", "acme-directory", directory_id,
                project_id=directory.project_id, after={"acme_account": acme_account_id, "state": "revoked"},
            )  # fmt: skip
        return _account(await _account_row(tx, directory_id, acme_account_id))


async def _turn_away(tx: Tx, now: datetime, which: sa.ColumnElement[bool]) -> list[str]:
    a = acme_accounts.c
    turned = await tx.scalars(
        sa.update(acme_accounts)
        .where(which, a.deactivated_at.is_(None))
        .values(deactivated_at=now, revoked=True)
        .returning(a.id)
    )
    return list(turned.all())


# --- orders -----------------------------------------------------------------------------------------------------------


async def list_orders(
    services: Services,
    actor: Actor,
    directory_id: str,
    *,
    acme_account_id: str | None = None,
    state: OrderState | None = None,
    search: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[AcmeOrder]:
    """Newest first; `search` is a whole name as people write it. Needs `ccm:acme:list`. An order that waits is `ready`
    once all its names are shown, and `invalid` when its time is over."""
    o, now = acme_orders.c, services.clock.now()
    newest_first: sa.ColumnElement[str] = o.id
    async with services.db.read() as tx:
        await store.visible_directory(tx, actor, "ccm:acme:list", directory_id)
        query = sa.select(acme_orders).where(o.directory_id == directory_id)
        if acme_account_id is not None:
            query = query.where(o.acme_account_id == acme_account_id)
        if state is not None:
            query = query.where(_in_state(state, now))
        if search and search.strip():
            query = query.where(o.names.contains([rules.as_ordered(search)]))
            # Not an order that an index has: PostgreSQL would read all orders backwards until it has a page of this
            # name, and for most names that is all there are.
            newest_first = o.id.concat("")
        if after is not None:
            query = query.where(o.id < after)
        rows = (await tx.execute(query.order_by(newest_first.desc()).limit(limit))).all()
        proofs = await _proofs(tx, rows)
        serials = await authorities.serials_of(tx, [row.issued_id for row in rows if row.issued_id is not None])
    return [_order(row, proofs, serials, now) for row in rows]


def _in_state(state: OrderState, now: datetime) -> sa.ColumnElement[bool]:
    """As `rules.order_state` decides, for the database."""
    o, z = acme_orders.c, acme_authorizations.c
    if state is OrderState.VALID:
        return o.status == "valid"
    mine = z.id == sa.any_(o.authorization_ids)
    waits = sa.and_(o.status == "pending", o.expires_at > now)
    live = sa.or_(z.status == "valid", z.status == "pending") & (z.expires_at > now)
    lost = sa.exists().where(mine, sa.not_(live))
    open_ = sa.exists().where(mine, z.status != "valid")
    if state is OrderState.INVALID:
        return sa.or_(o.status == "invalid", sa.and_(o.status == "pending", sa.or_(o.expires_at <= now, lost)))
    return sa.and_(waits, sa.not_(lost), open_ if state is OrderState.PENDING else sa.not_(open_))


async def get_order(services: Services, actor: Actor, directory_id: str, order_id: str) -> AcmeOrder:
    """With its authorizations, and why those failed that did. Needs `ccm:acme:get`."""
    o, now = acme_orders.c, services.clock.now()
    async with services.db.read() as tx:
        await store.visible_directory(tx, actor, "ccm:acme:get", directory_id)
        query = sa.select(acme_orders).where(o.id == order_id, o.directory_id == directory_id)
        row = (await tx.execute(query)).one_or_none()
        if row is None:
            raise not_found("ACME order", order_id)
        proofs = await _proofs(tx, [row])
        serials = await authorities.serials_of(tx, [row.issued_id] if row.issued_id is not None else [])
    return _order(row, proofs, serials, now, whole=True)


async def _proofs(tx: Tx, orders: Sequence[Any]) -> dict[str, Any]:
    wanted = [one for row in orders for one in row.authorization_ids]
    if not wanted:
        return {}
    rows = await tx.execute(sa.select(acme_authorizations).where(is_one_of(acme_authorizations.c.id, wanted)))
    return {row.id: row for row in rows}


def _order(
    row: Any, proofs: dict[str, Any], serials: dict[str, str], now: datetime, *, whole: bool = False
) -> AcmeOrder:
    mine = [proofs[one] for one in row.authorization_ids if one in proofs]
    state = rules.order_state(
        row.status, row.expires_at, [store.facts_of(one) for one in mine], now, promised=len(row.authorization_ids)
    )
    failed = row.error or next((one.error for one in mine if one.error is not None), None)
    return AcmeOrder(
        row.id, row.directory_id, row.acme_account_id, state, tuple(row.names), row.profile, row.replaces,
        row.issued_id, serials.get(row.issued_id), None if failed is None or state is OrderState.VALID
        else str(failed["detail"]), row.created_at, row.expires_at,
        tuple(_seen(one, now) for one in mine) if whole else (),
    )  # fmt: skip


def _seen(row: Any, now: datetime) -> SeenAuthorization:
    return SeenAuthorization(
        ("*." if row.wildcard else "") + row.value, rules.authorization_state(store.facts_of(row), now), row.challenge,
        row.looks, None if row.error is None else str(row.error["detail"]), row.validated_at, row.expires_at,
    )  # fmt: skip
