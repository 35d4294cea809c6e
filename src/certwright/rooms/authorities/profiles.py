"""Kinds of certificates: the built-in ones, and those people described as data."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem, Refused, Stale, not_found
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit
from certwright.rooms.authorities.tables import ca_profiles
from certwright.rooms.authorities.words import CaProfile
from certwright.x509.issue import CLIENT, SERVER, SERVER_EV, SERVER_OV, SERVER_SHORT, Profile
from certwright.x509.profiles import describe, read_profile

BUILT_IN: Mapping[str, Profile] = {p.name: p for p in (SERVER, SERVER_SHORT, SERVER_OV, SERVER_EV, CLIENT)}


async def leaf_profiles(tx: Tx, account_id: str, names: Set[str]) -> dict[str, Profile | Problem]:
    """Those of `names` that exist, or why nothing can be issued as one; the database is asked for what isn't built in
    only."""
    found: dict[str, Profile | Problem] = {name: BUILT_IN[name] for name in names if name in BUILT_IN}
    if rest := names - found.keys():
        p = ca_profiles.c
        rows = await tx.execute(sa.select(p.name, p.body).where(p.account_id == account_id, p.name.in_(rest)))
        found |= {row.name: _read(row) for row in rows}
    return found


def _read(row: Any) -> Profile | Problem:
    """What was good when it was saved may be refused by now: an extension or a name profiles can't have any more."""
    try:
        return read_profile(row.name, row.body)
    except Invalid as problem:
        why = problem.message[:1].lower() + problem.message[1:]
        return Invalid("profile_unusable", f"Nothing is issued as {row.name!r} any more: {why}", field="profile",
                       fix="Change that profile, or describe another one and use that.")  # fmt: skip


async def list_profiles(services: Services, actor: Actor) -> list[CaProfile]:
    """Built-in ones first. Needs `ccm:profile:list`."""
    access.require(actor, "ccm:profile:list")
    p = ca_profiles.c
    async with services.db.begin() as tx:
        rows = (await tx.execute(sa.select(ca_profiles).where(p.account_id == actor.account_id).order_by(p.name))).all()
    return [CaProfile(name, describe(profile)) for name, profile in BUILT_IN.items()] + [_shown(row) for row in rows]


def _shown(row: Any) -> CaProfile:
    read = _read(row)
    return CaProfile(row.name, dict(row.body), row.id, row.revision, read if isinstance(read, Problem) else None)


async def create_profile(services: Services, actor: Actor, name: str, body: Mapping[str, Any]) -> CaProfile:
    """Needs `ccm:profile:create`. Raises what `x509.profiles.read_profile` says, Refused `profile_name_taken`."""
    access.require(actor, "ccm:profile:create")
    said = describe(read_profile(name, body))
    now = services.clock.now()
    try:
        async with services.db.begin() as tx:
            row = (
                await tx.execute(
                    sa.insert(ca_profiles)
                    .values(
                        id=new_id("prf", now), account_id=actor.account_id, name=name, body=said, created_at=now,
                        updated_at=now,
                    )
                    .returning(ca_profiles)
                )
            ).one()  # fmt: skip
            await audit.record(tx, services, actor, "ccm:profile:create", "profile", row.id,
                               after={"name": name, "body": said})  # fmt: skip
    except IntegrityError:
        raise Refused("profile_name_taken", f"There is already a profile called {name!r}.",
                      fix="Choose another name, or change that profile.") from None  # fmt: skip
    return _shown(row)


async def update_profile(
    services: Services, actor: Actor, name: str, body: Mapping[str, Any], *, revision: int | None = None
) -> CaProfile:
    """What is issued from now on follows it. Needs `ccm:profile:update`."""
    access.require(actor, "ccm:profile:update")
    said = describe(read_profile(name, body))
    p = ca_profiles.c
    async with services.db.begin() as tx:
        old = await _own(tx, actor, name)
        if revision is not None and revision != old.revision:
            raise Stale("stale", "Somebody changed this profile meanwhile.", fix="Load it again and repeat the change.")
        row = (
            await tx.execute(
                sa.update(ca_profiles)
                .where(p.id == old.id)
                .values(body=said, updated_at=services.clock.now(), revision=p.revision + 1)
                .returning(ca_profiles)
            )
        ).one()
        await audit.record(tx, services, actor, "ccm:profile:update", "profile", row.id,
                           before={"body": old.body}, after={"body": said})  # fmt: skip
    return _shown(row)


async def delete_profile(services: Services, actor: Actor, name: str) -> None:
    """What was issued by it stays. Needs `ccm:profile:delete`."""
    access.require(actor, "ccm:profile:delete")
    async with services.db.begin() as tx:
        old = await _own(tx, actor, name)
        await tx.execute(sa.delete(ca_profiles).where(ca_profiles.c.id == old.id))
        await audit.record(tx, services, actor, "ccm:profile:delete", "profile", old.id,
                           before={"name": name, "body": old.body})  # fmt: skip


async def _own(tx: Tx, actor: Actor, name: str) -> Any:
    p = ca_profiles.c
    row = (
        await tx.execute(
            sa.select(ca_profiles).where(p.account_id == actor.account_id, p.name == name).with_for_update()
        )
    ).one_or_none()
    if row is None:
        raise not_found("profile", name)
    return row
