"""Puts the parts together: platform services, the rooms' registrations, and implementations into the rooms' ports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from certwright.connectors import payment
from certwright.connectors.ca.acme import AcmeAccounts
from certwright.connectors.ca.builtin import BuiltinCa
from certwright.connectors.ca.certcentral import CertCentralShop
from certwright.connectors.ca.outside import OutsideCas
from certwright.connectors.channel.smtp import SmtpChannel
from certwright.connectors.dns.huawei import HuaweiProvider
from certwright.connectors.dns.lexicon import LexiconProvider
from certwright.connectors.dns.rfc2136 import Rfc2136Provider
from certwright.connectors.storage import S3Storage
from certwright.connectors.target import Targets
from certwright.entry import checks
from certwright.entry.signing import plug_keys
from certwright.kernel.clock import Clock, SystemClock
from certwright.kernel.problems import Invalid
from certwright.platform import idempotency
from certwright.platform.addresses import AddressGuard
from certwright.platform.config import Settings
from certwright.platform.db import Database, Tx, is_one_of
from certwright.platform.egress import Egress
from certwright.platform.events import Events, forget_delivered
from certwright.platform.jobs import Jobs
from certwright.platform.limits import CheckLimit
from certwright.platform.processes import Processes
from certwright.platform.queue_log import forget_queue_log
from certwright.platform.resolver import Resolver
from certwright.platform.services import Services
from certwright.platform.vault import FileKeyKeeper, Vault
from certwright.rooms import (
    access,
    accounts,
    acme_server,
    audit,
    authorities,
    billing,
    cas,
    certificates,
    csrs,
    deployment,
    keys,
    notify,
    organisations,
    renewal,
    uploads,
    validation,
    watch,
)

ROOMS = (
    audit, accounts, access, keys, csrs, authorities, cas, validation, organisations, billing, certificates,
    acme_server, renewal, deployment, uploads, watch, notify,
)  # fmt: skip


async def build(
    settings: Settings, *, clock: Clock | None = None, database_url: str | None = None, signs: bool | None = None
) -> Services:
    """Services on the database of `database_url` or of the settings, with every room registered. `signs` says whether
    CA keys are opened here; by default they are where the settings name no signing process.

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
    resolver = Resolver(
        settings.dns_servers, guard=guard, authoritative_port=settings.dns_authoritative_port,
        public=settings.public_resolvers,
    )  # fmt: skip
    ports: dict[type, Any] = {access.AuthCache: access.AuthCache(), CheckLimit: CheckLimit()}
    services = Services(
        settings=settings,
        clock=clock,
        db=Database(url, pool_size=settings.database_pool),
        jobs=jobs,
        events=Events(clock, jobs),
        vault=Vault(FileKeyKeeper(checks.keyring_path(settings))),
        egress=Egress(resolver, guard),
        resolver=resolver,
        ports=ports,
    )
    ports |= _plugs(services)
    if settings.signer_socket is not None and signs is not True:
        ports[authorities.Signer] = authorities.RemoteSigner(settings.signer_socket, patience=settings.hsm_timeout)
    else:
        plug_keys(services, ports)
    jobs.every("idempotency.forget", timedelta(hours=1), idempotency.forget)
    jobs.every("events.forget_delivered", timedelta(hours=1), forget_delivered)
    jobs.every("queue.forget_log", timedelta(hours=1), forget_queue_log)
    for room in ROOMS:
        room.register(services)
    return services


def _plugs(services: Services) -> dict[type, Any]:
    """What stands behind each port the rooms declare."""
    bought = certificates.BoughtCertificates()
    plugs: dict[type, Any] = {
        acme_server.Nonces: acme_server.Nonces(services),
        acme_server.KnownDirectories: acme_server.KnownDirectories(services),
        acme_server.KnownClients: acme_server.KnownClients(),
        acme_server.Prover: acme_server.Prover(services),
        authorities.ObjectStorage: S3Storage(),
        authorities.StatusAnswers: authorities.StatusAnswers(services),
        authorities.LeafIssuance: authorities.LeafIssuance(services),
        certificates.AuthorityDirectory: certificates.AuthorityDirectory(
            {certificates.BUILTIN_CA: BuiltinCa(services)}, OutsideCas(services)
        ),
        cas.AccountKeeper: AcmeAccounts(services),
        cas.Storefront: CertCentralShop(services),
        cas.Dependents: certificates.CaDependents(),
        csrs.Users: certificates.CsrUsers(),
        billing.Fulfilment: bought,
        billing.Withdrawal: bought,
        billing.Predecessors: bought,
        billing.PaymentProviders: payment.installed(services),
        organisations.Mail: notify.ApplicantMail(),
        certificates.Mail: notify.RevocationMail(),
        validation.Mail: notify.MailboxMail(),
        organisations.ReuseRules: OrganizationReuse(),
        certificates.PrivateIssuance: certificates.PrivateIssuance(services),
        certificates.Usage: deployment.Bindings(),
        renewal.Serving: ServingCertificates(),
        deployment.TargetKinds: Targets(),
        validation.DnsProviders: validation.DnsProviders(
            {"rfc2136": Rfc2136Provider(), "lexicon": LexiconProvider(), "huawei": HuaweiProvider()}
        ),
        watch.TrustedRoots: OwnRoots(),
        uploads.Fetches: uploads.Fetches(),
        Processes: Processes(),
    }
    channel = SmtpChannel.of(services.settings)
    if channel is not None:
        plugs[notify.Channel] = channel
    return plugs


class ServingCertificates:
    """Which certificates are bound to a listener, for the renewal room to know what is urgent."""

    async def serving(self, tx: Tx, certificate_ids: Sequence[str]) -> frozenset[str]:
        column = deployment.bindings.c.certificate_id
        query = sa.select(column).where(is_one_of(column, certificate_ids)).distinct()
        return frozenset((await tx.scalars(query)).all())


class OwnRoots:
    """The roots of the private CA, for the watch room to judge chains by."""

    async def roots(self, services: Services) -> Sequence[bytes]:
        async with services.db.begin() as tx:
            return await authorities.root_ders(tx)


class OrganizationReuse:
    """The dated rule of public trust, for the organisations room."""

    def organization_reuse(self, at: datetime) -> timedelta:
        return validation.organization_reuse(validation.rule_pack(), at)


async def aclose(services: Services) -> None:
    """Give back what `build` opened."""
    await services.port(Processes).close()
    signer = services.port(authorities.Signer)
    if isinstance(signer, authorities.RemoteSigner):
        signer.close()
    else:
        await services.port(authorities.Token).close()
    await services.db.close()
