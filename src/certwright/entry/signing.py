"""`certwright serve --role signer`: the process that opens CA keys. It has no web server, no connectors but the HSM's,
and no rooms but the one it signs for and those that one needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from certwright.connectors.keykeeper import Pkcs11Token
from certwright.entry import checks
from certwright.entry.lifeline import loop_factory, stop_event
from certwright.kernel.clock import SystemClock
from certwright.kernel.problems import Invalid
from certwright.platform import confinement
from certwright.platform.addresses import AddressGuard
from certwright.platform.config import Settings
from certwright.platform.db import Database
from certwright.platform.egress import Egress
from certwright.platform.events import Events
from certwright.platform.jobs import Jobs
from certwright.platform.memory import give_back_large_blocks
from certwright.platform.resolver import Resolver
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging
from certwright.platform.vault import FileKeyKeeper, Vault
from certwright.rooms import authorities

log = structlog.get_logger(__name__)

# What is known of a key is kept, so that few questions need the database; but each holds a connection.
_POOL = 8


def socket_path(settings: Settings) -> Path:
    return settings.signer_socket or settings.data_dir / "signing" / "socket"


def plug_keys(services: Services, ports: dict[type, Any]) -> None:
    """What opens CA keys, for a process that may."""
    ports[authorities.Token] = Pkcs11Token(services.settings)
    ports[authorities.CaVault] = authorities.CaVault(FileKeyKeeper(checks.ca_keyring_path(services.settings)))
    ports[authorities.Signer] = authorities.LocalSigner(services, services.port(authorities.CaVault))


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    if settings.database_url is None:
        raise Invalid(
            "database_url_missing", "No database was given.", field="CERTWRIGHT_DATABASE_URL",
            fix="Set it to the address with the role of the signing process.",
        )  # fmt: skip
    clock = SystemClock()
    jobs = Jobs(clock, lease=timedelta(seconds=settings.step_lease))
    guard = AddressGuard(())
    resolver = Resolver((), guard=guard)
    ports: dict[type, Any] = {}
    services = Services(
        settings=settings, clock=clock, db=Database(settings.database_url.get_secret_value(), pool_size=_POOL),
        jobs=jobs, events=Events(clock, jobs), vault=Vault(FileKeyKeeper(checks.keyring_path(settings))),
        egress=Egress(resolver, guard), resolver=resolver, ports=ports,
    )  # fmt: skip
    plug_keys(services, ports)
    try:
        yield services
    finally:
        await services.port(authorities.Token).close()
        await services.db.close()


def main(settings: Settings, lifeline: int | None) -> None:
    """Run until told to stop. Raises Invalid `database_url_missing`, Unavailable `schema_outdated`, `keyring_missing`,
    and as `SigningServer.listen` does."""
    confinement.hide_memory()
    configure_logging(format=settings.log_format, level=settings.log_level)
    give_back_large_blocks()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_sign(settings, lifeline))


async def _sign(settings: Settings, lifeline: int | None) -> None:
    stopping = stop_event(lifeline, quiet=True)
    async with _services(settings) as services:
        await checks.require_schema(services)
        await checks.check_ca_keyring(services)
        signer = services.port(authorities.Signer)
        assert isinstance(signer, authorities.LocalSigner)
        server = authorities.SigningServer(services, signer)
        await server.listen(socket_path(settings), settings.signer_group)
        log.info("signing process ready", socket=str(socket_path(settings)))
        try:
            await stopping.wait()
        finally:
            await server.close()
