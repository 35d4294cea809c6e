"""DNS connections: keeping them, testing them, and opening one for a write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import is_public_suffix, parse_dns_name
from certwright.kernel.problems import Invalid, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.limits import CheckLimit
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.validation import store
from certwright.rooms.validation.ports import DnsOperator, DnsProviders, DnsWriter
from certwright.rooms.validation.tables import dns_connections
from certwright.rooms.validation.words import DnsConnection

STEP = "validation.challenge"
"""The step that writes, checks and removes."""

_MAX_ZONES = 200
_MAX_NAME = 63


def secret_context(connection_id: str) -> str:
    """What the vault binds the secret to."""
    return f"dns_connections:{connection_id}"


async def create_connection(
    services: Services,
    actor: Actor,
    *,
    name: str,
    kind: str,
    zones: Sequence[str],
    settings: Mapping[str, Any],
    secret: str,
    project_id: str | None = None,
) -> DnsConnection:
    """Keep a connection; `secret` is sealed and never shown again. Nothing is contacted: see `check_connection`."""
    provider = services.port(DnsProviders).get(kind)
    plain = _zones(zones)
    checked = provider.settings(settings)
    provider.check_secret(secret, checked)
    wanted = _name(name)
    now = services.clock.now()
    connection_id = new_id("dns", now)
    async with services.db.begin() as tx:
        project = await access.project_for(tx, actor, "dns:connection:create", project_id)
        fresh = await store.insert_connection(
            tx, id=connection_id, account_id=actor.account_id, project_id=project, name=wanted, kind=kind,
            zones=plain, settings=checked, created_at=now, updated_at=now,
            secret=services.vault.seal(secret.encode(), secret_context(connection_id)),
        )  # fmt: skip
        if not fresh:
            raise _name_taken(wanted)
        await audit.record(
            tx, services, actor, "dns:connection:create", "dns-connection", connection_id, project_id=project,
            after={"name": wanted, "kind": kind, "zones": plain, "settings": checked},
        )  # fmt: skip
        return _shown(await store.connection(tx, connection_id), connection_id)


def operators(services: Services, actor: Actor) -> tuple[DnsOperator, ...]:
    """Whom a connection can be made to."""
    access.require_somewhere(actor, "dns:connection:list")
    return services.port(DnsProviders).operators()


async def get_connection(services: Services, actor: Actor, connection_id: str) -> DnsConnection:
    async with services.db.begin() as tx:
        return await _visible(tx, actor, "dns:connection:get", connection_id)


async def list_connections(
    services: Services, actor: Actor, *, after: str | None = None, limit: int = 20
) -> tuple[DnsConnection, ...]:
    """Newest first; `after` is the id of the last one seen."""
    visible = access.visible(dns_connections, actor, "dns:connection:list")
    async with services.db.begin() as tx:
        rows = await store.list_connections(tx, visible, after=after, limit=limit)
    return tuple(_shown(row, row.id) for row in rows)


async def update_connection(
    services: Services,
    actor: Actor,
    connection_id: str,
    *,
    revision: int,
    name: str | None = None,
    zones: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    secret: str | None = None,
) -> DnsConnection:
    """Change what is given; None leaves as it is. Raises Stale when `revision` has moved on."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        before = await _visible(tx, actor, "dns:connection:update", connection_id)
        provider = services.port(DnsProviders).get(before.kind)
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = _name(name)
            if await store.connection_name_taken(
                tx, actor.account_id, before.project_id, values["name"], connection_id
            ):
                raise _name_taken(values["name"])
        if zones is not None:
            values["zones"] = _zones(zones)
        if settings is not None:
            values["settings"] = provider.settings(settings)
        shown = dict(values)
        if secret is not None:
            provider.check_secret(secret, values.get("settings", before.settings))
            values["secret"] = services.vault.seal(secret.encode(), secret_context(connection_id))
            shown["secret_replaced"] = True
        if set(values) & {"zones", "settings", "secret"}:
            values |= {"checked_at": None, "problem": None}
        if not await store.update_connection(tx, connection_id, revision, values | {"updated_at": now}):
            raise Stale(
                "changed_meanwhile", "The DNS connection was changed by someone else since you read it.",
                fix="Read it again and repeat your change on what you find.",
            )  # fmt: skip
        await audit.record(
            tx, services, actor, "dns:connection:update", "dns-connection", connection_id,
            project_id=before.project_id, after=shown,
            before={"name": before.name, "zones": list(before.zones), "settings": dict(before.settings)},
        )  # fmt: skip
        return _shown(await store.connection(tx, connection_id), connection_id)


async def delete_connection(
    services: Services, actor: Actor, connection_id: str, *, leave_records: bool = False
) -> None:
    """Forget a connection and its secret; with it goes the means to remove what was written through it.

    Raises Refused `dns_connection_in_use` while names wait to be validated through it, and, unless `leave_records`,
    `dns_records_out` naming the records that still stand; those no longer needed are then removed at once.
    """
    now = services.clock.now()
    async with services.db.begin() as tx:
        before = await _visible(tx, actor, "dns:connection:delete", connection_id)
        waiting = await store.connection_in_use(tx, connection_id, now)
        if waiting:
            raise Refused(
                "dns_connection_in_use", f"{waiting} names wait to be validated through this DNS connection.",
                fix="Wait until they are validated, or withdraw their applications.", extra={"waiting": waiting},
            )  # fmt: skip
        out = await store.records_out(tx, connection_id)
        names = list(dict.fromkeys(row.at for row in out))
        if not out or leave_records:
            await store.delete_connection(tx, connection_id)
            await audit.record(
                tx, services, actor, "dns:connection:delete", "dns-connection", connection_id,
                project_id=before.project_id,
                before={"name": before.name, "zones": list(before.zones), "records_left": names},
            )  # fmt: skip
            return
        needless = [row.id for row in out if row.released_at or row.cancelled_at or row.expires_at <= now]
        await services.jobs.start(tx, STEP, *needless)
    raise _records_out(names, being_removed=len(needless) == len(out))


def _records_out(names: Sequence[str], *, being_removed: bool) -> Refused:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    first = (
        "They are being removed now: repeat this in a moment."
        if being_removed
        else "They are removed when their certificates are issued or the applications withdrawn."
    )
    return Refused(
        "dns_records_out", f"Records written through this DNS connection still stand: {shown}.",
        fix=f"{first} If the DNS server is gone, delete with --leave-records (the API's leave_records=true) and remove "
        "them at the DNS operator yourself.",
        extra={"records": list(names)},
    )  # fmt: skip


async def check_connection(services: Services, actor: Actor, connection_id: str) -> DnsConnection:
    """Prove at the operator that every zone could be updated, and keep the answer on the connection."""
    async with services.db.begin() as tx:
        before = await _visible(tx, actor, "dns:connection:update", connection_id)
    services.port(CheckLimit).take(actor.account_id, services.clock.now())
    problem: Problem | None = None
    try:
        writer = await open_writer(services, connection_id)
        await writer.check_credentials()
    except Problem as found:
        problem = found
    async with services.db.begin() as tx:
        said = problem.as_dict() if problem else None
        await store.connection_tested(tx, connection_id, services.clock.now(), said)
        await audit.record(
            tx, services, actor, "dns:connection:test", "dns-connection", connection_id,
            project_id=before.project_id, after={"problem": problem.code if problem else None},
        )  # fmt: skip
        return _shown(await store.connection(tx, connection_id), connection_id)


async def open_writer(services: Services, connection_id: str) -> DnsWriter:
    """The connection ready for use; call outside any transaction. Raises NotFound if it was deleted."""
    async with services.db.begin() as tx:
        row = await store.connection(tx, connection_id)
        sealed = await store.connection_secret(tx, connection_id)
    if row is None or sealed is None:
        raise not_found("DNS connection", connection_id)
    secret = services.vault.open(sealed, secret_context(connection_id)).decode()
    return services.port(DnsProviders).get(row.kind).writer(services.egress, row.zones, row.settings, secret)


async def _visible(tx: Tx, actor: Actor, action: str, connection_id: str) -> DnsConnection:
    row = await store.connection(tx, connection_id, access.visible(dns_connections, actor, action))
    if row is None:
        raise not_found("DNS connection", connection_id)
    return _shown(row, connection_id)


def _shown(row: store.Row | None, connection_id: str) -> DnsConnection:
    if row is None:
        raise not_found("DNS connection", connection_id)
    return DnsConnection(
        row.id, row.project_id, row.name, row.kind, tuple(row.zones), row.settings, row.revision, row.created_at,
        row.updated_at, row.checked_at, row.problem,
    )  # fmt: skip


def _zones(zones: Sequence[str]) -> list[str]:
    if not 1 <= len(zones) <= _MAX_ZONES:
        raise Invalid(
            "dns_zones_count", f"A DNS connection has 1 to {_MAX_ZONES} zones, not {len(zones)}.", field="zones",
            fix="Name the zones that the server may be asked to update.",
        )  # fmt: skip
    plain: list[str] = []
    for index, text in enumerate(zones):
        field = f"zones.{index}"
        zone = parse_dns_name(text, field=field)
        if zone.is_wildcard:
            raise Invalid("dns_zone_wildcard", f"{text!r} is not the name of a zone.", field=field,
                          fix=f"Enter {zone.base}.")  # fmt: skip
        if is_public_suffix(zone):
            raise Invalid("dns_zone_public_suffix", f"{text!r} is a registry's zone, not one of yours.", field=field,
                          fix="Enter the zone of your own domain.")  # fmt: skip
        if zone.ascii in plain:
            raise Invalid("dns_zone_twice", f"The zone {zone.ascii} is named twice.", field=field,
                          fix="Name each zone once.")  # fmt: skip
        plain.append(zone.ascii)
    return plain


def _name(text: str) -> str:
    name = text.strip()
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise Invalid(
            "dns_connection_name_invalid", f"The name must have 1 to {_MAX_NAME} printable characters.", field="name",
            fix="Choose a short name, such as the DNS operator's.",
        )  # fmt: skip
    return name


def _name_taken(name: str) -> Refused:
    return Refused(
        "dns_connection_name_taken", f"Another DNS connection of this project is called {name!r}.", field="name",
        fix="Choose another name.",
    )  # fmt: skip
