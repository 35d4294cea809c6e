"""Rows for the figures, written straight to the database: the API would need minutes for that many certificates."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from certwright.kernel.ids import new_id

_TEAMS = ("shop", "mail", "svc", "edge", "intranet", "payments", "media", "auth")
_PATIENCE = 120.0


async def certificates(connection: asyncpg.Connection[Any], account_id: str, project_id: str, count: int) -> None:
    """Issued certificates as the list shows them; content when they are there already."""
    have = await connection.fetchval("SELECT count(*) FROM certificates WHERE description = 'seeded'")
    if have >= count:
        return
    now = datetime.now(UTC)
    columns = (
        "id", "account_id", "project_id", "name", "description", "tags", "ca", "stage", "primary_name", "names",
        "search_text", "current_version_id", "key_algorithm", "sha256", "serial", "not_before", "not_after",
        "created_at", "updated_at",
    )  # fmt: skip

    def row(number: int) -> tuple[Any, ...]:
        created = now - timedelta(seconds=count - number)
        name = f"host{number:06d}.{_TEAMS[number % len(_TEAMS)]}.example.com"
        digest = hashlib.sha256(name.encode()).hexdigest()
        serial = digest[:32]
        return (
            new_id("cert", created), account_id, project_id, f"cert-{number:06d}", "seeded", "{}", "builtin", "issued",
            name, [name, f"www.{name}"], f"cert-{number:06d} {name} www.{name} {digest} {serial}",
            new_id("ver", created), "EC_P256", digest, serial, created, created + timedelta(days=30 + number % 60),
            created, created,
        )  # fmt: skip

    await connection.copy_records_to_table(
        "certificates", records=(row(number) for number in range(count)), columns=columns
    )
    await connection.execute("VACUUM ANALYZE certificates")


async def probed(
    connection: asyncpg.Connection[Any], account_id: str, project_id: str, host: str, port: int, name: str, count: int
) -> float:
    """Endpoints per second, from making `count` of them due until the last one is recorded."""
    now = datetime.now(UTC)
    records = [
        (new_id("endp", now), account_id, project_id, host, port, f"p{number}.{name}", "none", "manual", now)
        for number in range(count)
    ]
    columns = ("id", "account_id", "project_id", "host", "port", "sni", "starttls", "origin", "created_at")
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM endpoints WHERE sni = $1)", f"p0.{name}"):
        await connection.copy_records_to_table("endpoints", records=records, columns=columns)
        # The first look raises an alarm for each, as the certificate there has expired, and writes to people about it:
        # that isn't what is measured.
        await _look(connection)
        await _all_told(connection)
    return count / await _look(connection)


async def _all_told(connection: asyncpg.Connection[Any]) -> None:
    begun = time.perf_counter()
    while await connection.fetchval("SELECT EXISTS (SELECT FROM events WHERE delivered_at IS NULL)"):
        if time.perf_counter() - begun > _PATIENCE:
            raise TimeoutError("the events were not all delivered")
        await asyncio.sleep(0.1)


async def _look(connection: asyncpg.Connection[Any]) -> float:
    asked = datetime.now(UTC)
    begun = time.perf_counter()
    await connection.execute("UPDATE endpoints SET next_probe_at = $1", asked)
    while await connection.fetchval(
        "SELECT EXISTS (SELECT FROM endpoints WHERE last_probe_at IS NULL OR last_probe_at < $1)", asked
    ):
        if time.perf_counter() - begun > _PATIENCE:
            raise TimeoutError("the endpoints were not all looked at")
        await asyncio.sleep(0.02)
    return time.perf_counter() - begun
