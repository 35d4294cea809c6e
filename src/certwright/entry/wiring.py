"""Puts the parts together: platform services, the rooms' registrations, and implementations into the rooms' ports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from certwright.connectors.ca.builtin import BuiltinCa
from certwright.connectors.channel.smtp import SmtpChannel
from certwright.connectors.dns.rfc2136 import Rfc2136Provider
from certwright.connectors.target import Targets
from certwright.kernel.clock import Clock, SystemClock
from certwright.kernel.problems import Invalid
from certwright.platform import idempotency
from certwright.platform.addresses import AddressGuard
from certwright.platform.config import Settings
from certwright.platform.db import Database
from certwright.platform.egress import Egress
from certwright.platform.events import Events, forget_delivered
from certwright.platform.jobs import Jobs
from certwright.platform.queue_log import forget_queue_log
from certwright.platform.resolver import Resolver
from certwright.platform.services import Services
from certwright.platform.vault import FileKeyKeeper, Vault
from certwright.rooms import (
    access,
    accounts,
    audit,
    authorities,
    certificates,
    deployment,
    keys,
    notify,
    renewal,
    validation,
    watch,
)

ROOMS = (
    audit, accounts, access, keys, authorities, validation, certificates, renewal, deployment, watch, notify,
)  # fmt: skip


def keyring_path(settings: Settings) -> Path:
    return settings.data_dir / "keys" / "keyring.json"


async def build(settings: Settings, *, clock: Clock | None = None, database_url: str | None = None) -> Services:
    """Services on the database of `database_url` or of the settings, with every room registered.

    Neither starts a server nor migrates. Close with `aclose`.
    """
    clock = clock or SystemClock()
    url = database_url or (settings.database_url.get_secret_value() if settings.database_url else None)
    if url is None:
        raise Invalid(
            "database_url_missing", "No database was given.", field="CERTWRIGHT_DATABASE_URL",
            fix="Set it, or start the embedded database first.",
        )  # fmt: skip
    jobs = Jobs(clock, lease=timedelta(seconds=settings.step_lease))
    guard = AddressGuard(tuple(settings.allowed_networks))
    resolver = Resolver(settings.dns_servers, guard=guard, authoritative_port=settings.dns_authoritative_port)
    ports: dict[type, Any] = {access.AuthCache: access.AuthCache()}
    services = Services(
        settings=settings,
        clock=clock,
        db=Database(url, pool_size=settings.database_pool),
        jobs=jobs,
        events=Events(clock, jobs),
        vault=Vault(FileKeyKeeper(keyring_path(settings))),
        egress=Egress(resolver, guard),
        resolver=resolver,
        ports=ports,
    )
    ports |= _plugs(services)
    jobs.every("idempotency.forget", timedelta(hours=1), idempotency.forget)
    jobs.every("events.forget_delivered", timedelta(hours=1), forget_delivered)
    jobs.every("queue.forget_log", timedelta(hours=1), forget_queue_log)
    for room in ROOMS:
        room.register(services)
    return services


def _plugs(services: Services) -> dict[type, Any]:
    """What stands behind each port the rooms declare."""
    plugs: dict[type, Any] = {
        authorities.Signer: authorities.SoftwareSigner(services),
        certificates.AuthorityDirectory: certificates.AuthorityDirectory(
            {certificates.BUILTIN_CA: BuiltinCa(services)}
        ),
        certificates.PrivateIssuance: certificates.PrivateIssuance(services),
        certificates.Usage: deployment.Bindings(),
        deployment.TargetKinds: Targets(),
        validation.DnsProviders: validation.DnsProviders({"rfc2136": Rfc2136Provider()}),
        watch.TrustedRoots: OwnRoots(),
    }
    channel = SmtpChannel.of(services.settings)
    if channel is not None:
        plugs[notify.Channel] = channel
    return plugs


class OwnRoots:
    """The roots of the private CA, for the watch room to judge chains by."""

    async def roots(self, services: Services) -> Sequence[bytes]:
        async with services.db.begin() as tx:
            return await authorities.root_ders(tx)


async def aclose(services: Services) -> None:
    """Give back what `build` opened."""
    await services.db.close()
