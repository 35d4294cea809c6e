"""Starting and stopping, without the web server: what `serve` does around the services."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from certwright.entry import wiring
from certwright.entry.serve import first_start, running_services
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings
from certwright.rooms import accounts, authorities, certificates
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


def test_a_lost_keyring_is_said_at_start_and_not_replaced_by_an_empty_one(tmp_path: Path, fresh_database: str) -> None:
    ours = settings(tmp_path, fresh_database)

    async def start() -> None:
        async with running_services(ours) as services:
            await first_start(services)

    asyncio.run(start())
    wiring.keyring_path(ours).unlink()
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            asyncio.run(start())
        assert caught.value.code == "keyring_missing"
    assert not wiring.keyring_path(ours).exists()


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
