"""The server side of ACME (RFC 8555, 8737, 8738, 9773) on private CAs: directories, keys for binding, accounts,
orders, proofs of control."""

from __future__ import annotations

from datetime import timedelta

from certwright.platform.services import Services
from certwright.rooms.acme_server import cleaning, nonces, proofs, protocol
from certwright.rooms.acme_server.manage import (
    create_directory,
    create_eab_key,
    deactivate_account,
    delete_directory,
    get_account,
    get_directory,
    get_order,
    list_accounts,
    list_directories,
    list_eab_keys,
    list_orders,
    revoke_eab_key,
    update_directory,
)
from certwright.rooms.acme_server.nonces import Nonces
from certwright.rooms.acme_server.proofs import Prover
from certwright.rooms.acme_server.store import KnownClients, KnownDirectories, directory_url, served_authorities
from certwright.rooms.acme_server.tables import acme_authorizations, acme_eab_keys
from certwright.rooms.acme_server.words import (
    CHALLENGES,
    VALIDATE_STEP,
    AccountState,
    AcmeAccount,
    AcmeDirectory,
    AcmeOrder,
    AuthorizationState,
    DirectoryRequest,
    EabKey,
    NewEabKey,
    OrderState,
    Reply,
    SeenAuthorization,
    Served,
)

__all__ = [
    "CHALLENGES",
    "AccountState",
    "AcmeAccount",
    "AcmeDirectory",
    "AcmeOrder",
    "AuthorizationState",
    "DirectoryRequest",
    "EabKey",
    "KnownClients",
    "KnownDirectories",
    "NewEabKey",
    "Nonces",
    "OrderState",
    "Prover",
    "Reply",
    "SeenAuthorization",
    "Served",
    "create_directory",
    "create_eab_key",
    "deactivate_account",
    "delete_directory",
    "directory_url",
    "get_account",
    "get_directory",
    "get_order",
    "list_accounts",
    "list_directories",
    "list_eab_keys",
    "list_orders",
    "protocol",
    "register",
    "revoke_eab_key",
    "served_authorities",
    "update_directory",
]


def register(services: Services) -> None:
    services.vault.register(acme_eab_keys.c.sealed, protocol.secret_context)
    services.jobs.register(VALIDATE_STEP, acme_authorizations, proofs.step)
    services.jobs.every("acme_server.forget_nonces", timedelta(minutes=5), nonces.forget_old)
    services.jobs.every("acme_server.forget_orders", timedelta(hours=1), cleaning.forget_orders)
