"""A product with its CA, many certificates in a moment, and a CA that says when to renew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.ids import new_id
from certwright.kernel.problems import Problem
from certwright.rooms import authorities, certificates
from certwright.rooms.certificates import State
from certwright.rooms.certificates.tables import certificates as certificates_table
from certwright.rooms.certificates.tables import versions
from certwright.rooms.renewal.tables import renewal_queues, renewals
from tests.conftest import World

LIFE = timedelta(days=90)


@pytest.fixture
def product(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def rows(world: World, query: Any) -> list[Any]:
    async def read() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list(await tx.execute(query))

    return world.run(read())


def write(world: World, statement: Any) -> None:
    async def do() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(statement)

    world.run(do())


def issued(world: World, *names: str, **more: Any) -> str:
    """A certificate with a version, renewed without new proof."""
    made = world.run(
        certificates.issue_private(world.services, world.actor, names=list(names or ["a.example"]), **more)
    )
    world.drain()
    return made.id


def detail(world: World, certificate_id: str) -> certificates.Detail:
    return world.run(certificates.get_certificate(world.services, world.actor, certificate_id))


def numbers(world: World, certificate_id: str) -> list[int]:
    return [version.number for version in detail(world, certificate_id).versions]


def plan(world: World, certificate_id: str) -> Any:
    (row,) = rows(world, sa.select(renewals).where(renewals.c.certificate_id == certificate_id))
    return row


def queue_id(world: World, ca: str = "builtin") -> str:
    """The queue of the first account at this CA."""
    query = sa.select(renewal_queues.c.id).where(
        renewal_queues.c.account_id == world.account.id, renewal_queues.c.ca == ca
    )
    (row,) = rows(world, query)
    return str(row.id)


def run_queue(world: World, ca: str = "builtin") -> datetime:
    """One look of the queue; answers when it wants to look again."""
    found = queue_id(world, ca)
    assert world.run(world.services.jobs.run_step(world.services, "renewal.admit", found))
    (row,) = rows(world, sa.select(renewal_queues.c.next_step_at).where(renewal_queues.c.id == found))
    at: datetime = row.next_step_at
    return at


def plant(
    world: World,
    count: int,
    *,
    due: Callable[[int], datetime],
    ends: Callable[[int], datetime],
    project_id: str | None = None,
    **fields: Any,
) -> list[str]:
    """So many issued certificates with a version and a plan each, straight into the tables; their ids."""
    now, project = world.clock.now(), project_id or world.project_id
    made = []
    for number in range(count):
        certificate_id, version_id = new_id("cert", now), new_id("ver", now)
        made.append((certificate_id, version_id, due(number), ends(number), f"n{number}.example"))

    async def insert() -> None:
        tenant = {"account_id": world.account.id, "project_id": project}
        async with world.services.db.begin() as tx:
            for start in range(0, count, 1000):
                part = made[start : start + 1000]
                await tx.execute(
                    sa.insert(certificates_table),
                    [
                        {"id": c, **tenant, "name": name, "ca": "builtin", "stage": State.ISSUED.value,
                         "primary_name": name, "names": [name], "current_version_id": v, "not_before": now,
                         "not_after": end, "key_id": "key_x", "created_at": now, "updated_at": now} | fields
                        for c, v, _, end, name in part
                    ],
                )  # fmt: skip
                await tx.execute(
                    sa.insert(versions),
                    [
                        {"id": v, "certificate_id": c, **tenant, "number": 1, "leaf_der": b"", "chain_ders": [],
                         "names": [name], "subject": "", "issuer": "CN=Root", "serial": "1", "sha256": "", "sha1": "",
                         "spki_sha256": "", "key_algorithm": "EC_P256", "signature_algorithm": "", "not_before": now,
                         "not_after": end, "issued_at": now}
                        for c, v, _, end, name in part
                    ],
                )  # fmt: skip
                await tx.execute(
                    sa.insert(renewals),
                    [
                        {"id": new_id("rnw", now), "certificate_id": c, **tenant, "version_id": v, "ca": "builtin",
                         "fraction_at": at, "renew_at": at, "need_by": at + (end - at) / 2, "not_after": end}
                        for c, v, at, end, _ in part
                    ],
                )  # fmt: skip
            await tx.execute(
                sa.dialects.postgresql.insert(renewal_queues)
                .values(
                    id=new_id("rnq", now), account_id=world.account.id, ca="builtin", per_minute=600,
                    reserve_percent=20, tokens=600 / 7, filled_at=now, next_step_at=now,
                )
                .on_conflict_do_nothing()
            )  # fmt: skip
        # Otherwise nothing is known of the new rows, and thousands of them are read one by one for each other.
        async with world.services.db.begin() as tx:
            await tx.execute(sa.text("ANALYZE certificates, versions, renewals"))

    world.run(insert())
    return [one[0] for one in made]


@dataclass
class AskedCa:
    """A CA that issues nothing and answers for renewal windows what the test put here."""

    window: certificates.RenewalWindow | None = None
    problem: Problem | None = None
    asked: list[bytes] = field(default_factory=list)

    async def renewal_window(self, leaf_der: bytes) -> certificates.RenewalWindow | None:
        self.asked.append(leaf_der)
        if self.problem is not None:
            raise self.problem
        return self.window
