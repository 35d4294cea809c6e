"""Starting and stopping, without the web server: what `serve` does around the services."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from certwright.entry import checks
from certwright.entry.serve import first_start, running_services
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings
from certwright.rooms import accounts, authorities, certificates
from certwright.rooms.authorities.tables import ca_keys
from tests.conftest import World


def settings(tmp_path: Path, url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=url, database_pool=4, public_url="https://cw.example")


def test_a_second_start_finds_the_account_and_the_ca_of_the_first(tmp_path: Path, fresh_database: str) -> None:
    async def start() -> tuple[str, list[str]]:
        async with running_services(settings(tmp_path, fresh_database)) as services:
            await first_start(services)
            account = await accounts.ensure_account(services)
            return account.id, [ca.id for ca in await authorities.public_authorities(services)]

    first, second = asyncio.run(start()), asyncio.run(start())
    assert first == second
    assert len(first[1]) == 2
    assert (tmp_path / "data" / "root.pem").read_text().count("BEGIN CERTIFICATE") == 1


def test_a_process_started_in_the_place_of_another_migrates_nothing(tmp_path: Path, fresh_database: str) -> None:
    """Programs that were exchanged meanwhile would change the schema below the running ones."""
    ours = settings(tmp_path, fresh_database)

    async def start(prepared: bool) -> None:
        async with running_services(ours, prepared=prepared):
            pass

    async def behind() -> None:
        async with running_services(ours) as services, services.db.begin() as tx:
            await tx.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

    asyncio.run(start(prepared=False))
    asyncio.run(start(prepared=True))
    asyncio.run(behind())
    with pytest.raises(Unavailable) as caught:
        asyncio.run(start(prepared=True))
    assert caught.value.code == "schema_outdated"


def test_a_lost_keyring_is_said_at_start_and_not_replaced_by_an_empty_one(tmp_path: Path, fresh_database: str) -> None:
    ours = settings(tmp_path, fresh_database)

    async def start() -> None:
        async with running_services(ours) as services:
            await first_start(services)
            await WebCertificate(services).load()

    asyncio.run(start())
    for path in (checks.keyring_path(ours), checks.ca_keyring_path(ours)):
        aside = path.rename(path.with_suffix(".aside"))
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                asyncio.run(start())
            assert caught.value.code == "keyring_missing"
            assert str(path) in caught.value.message
        assert not path.exists()
        aside.rename(path)
    asyncio.run(start())


def test_ca_keys_of_a_release_with_one_keyring_are_brought_under_their_own(tmp_path: Path, fresh_database: str) -> None:
    """Killed in the middle, it goes on where it was; nothing is sealed by the old key afterwards."""
    ours = settings(tmp_path, fresh_database)

    async def as_before() -> None:
        async with running_services(ours) as services:
            await first_start(services)
            await WebCertificate(services).load()
            async with services.db.begin() as tx:
                k = ca_keys.c
                # One of the two only: as after a kill between them.
                row = (await tx.execute(sa.select(k.id, k.sealed).order_by(k.id).limit(1))).one()
                context = f"ca_keys:{row.id}"
                opened = services.port(authorities.CaVault).open(row.sealed, context)
                old = services.vault.seal(opened, context)
                await tx.execute(sa.update(ca_keys).where(k.id == row.id).values(sealed=old))

    async def now() -> None:
        async with running_services(ours) as services:
            own = services.port(authorities.CaVault)
            async with services.db.begin() as tx:
                rows = (await tx.execute(sa.select(ca_keys.c.id, ca_keys.c.sealed))).all()
            assert len(rows) == 2
            for row in rows:
                assert own.open(row.sealed, f"ca_keys:{row.id}")
                with pytest.raises(Unavailable) as caught:
                    services.vault.open(row.sealed, f"ca_keys:{row.id}")
                assert caught.value.code == "keyring_key_missing"

    asyncio.run(as_before())
    asyncio.run(now())


def test_the_console_does_not_serve_a_certificate_that_begins_in_the_future(world: World) -> None:
    """As one does that was issued while the clock ran ahead."""
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    world.services.settings.data_dir.mkdir(parents=True, exist_ok=True)
    served = WebCertificate(world.services)
    note = world.services.settings.data_dir / "console-certificate"
    world.run(served.load())
    early = note.read_text()
    world.later(days=366)
    world.run(served.load())
    ahead = note.read_text()
    assert ahead != early, "the first one has expired by that clock"
    world.later(days=-366)
    world.run(served.load())
    now_served = world.run(certificates.get_certificate(world.services, world.actor, note.read_text())).summary
    assert now_served.id != ahead
    assert now_served.not_before is not None
    assert now_served.not_before <= world.clock.now()
