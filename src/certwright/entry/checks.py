"""What must be in order before a process of ours begins: the schema, and the keyrings that belong to the database."""

from __future__ import annotations

from pathlib import Path

import structlog

from certwright.kernel.problems import Unavailable
from certwright.platform.config import Settings
from certwright.platform.migrations import is_current
from certwright.platform.services import Services
from certwright.rooms import authorities

log = structlog.get_logger(__name__)


def keyring_path(settings: Settings) -> Path:
    """Of all secrets but the keys of CAs."""
    return settings.data_dir / "keys" / "keyring.json"


def ca_keyring_path(settings: Settings) -> Path:
    return settings.ca_keyring_file or settings.data_dir / "signing" / "keyring.json"


async def require_schema(services: Services) -> None:
    """For a process that may not migrate. Raises Unavailable `schema_outdated`."""
    if not await is_current(services.db):
        raise Unavailable(
            "schema_outdated", "The database doesn't have this release's schema.",
            fix="Run certwright migrate with CERTWRIGHT_DATABASE_URL of the database's owner.",
        )  # fmt: skip


async def check_keyring(services: Services) -> None:
    """Secrets without the keyring that opens them are said now and not when one is needed. Raises Unavailable
    `keyring_missing`."""
    keyring = keyring_path(services.settings)
    # In this order: whoever seals the first secret meanwhile made the keyring before.
    if await services.vault.anything_sealed(services.db) and not keyring.exists():
        raise _missing(keyring)


async def check_ca_keyring(services: Services) -> None:
    """The same for CA keys; those of releases that had one keyring for all are brought under their own. Raises
    Unavailable `keyring_missing`, `keyring_key_missing`."""
    keyring = ca_keyring_path(services.settings)
    was_there = keyring.exists()
    try:
        brought = await services.port(authorities.CaVault).adopt(services.db, services.vault)
    except Unavailable as problem:
        raise problem if was_there else _missing(keyring) from None
    if brought:
        log.info("CA keys were put under a keyring of their own", keys=brought)


def _missing(keyring: Path) -> Unavailable:
    return Unavailable(
        "keyring_missing",
        f"The keyring {keyring} is gone, and this database holds secrets sealed with its keys.",
        fix="Put it back from the backup that belongs to this database.",
    )
