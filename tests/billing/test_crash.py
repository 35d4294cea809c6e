"""Buying, paying outside, giving back and topping up by a process that is killed before and after every commit.

Before each kill the database and the provider's memory are put back to where the phase began. After it a fresh process
does what a careful buyer does (look, then do what is missing), workers finish, and everything was paid, delivered and
given back exactly once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from certwright.platform.db import Database
from certwright.rooms.billing.tables import ledger_accounts, orders
from tests.flows.test_crash import Harness

from .conftest import check_books

ROOT = Path(__file__).parents[2]


class BuyersHarness(Harness):
    """The same, with the commands of billing."""

    def __init__(self) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
        environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.billing.crash_harness"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, env=environ, text=True,
        )  # fmt: skip


class Scene:
    """Database and data directory, which can be kept and put back."""

    def __init__(self, directory: Path, server: str, harness: Harness, method: str) -> None:
        self._server, self._harness, self._directory = server, harness, directory
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self._database, self._kept = f"bcrash_{worker}", f"bcrash_{worker}_kept"
        self.data = directory / "data"
        self.facts: dict[str, Any] = {"now": datetime(2026, 3, 1, 12, tzinfo=UTC).isoformat(), "method": method}
        self._admin(f"CREATE DATABASE {self._database} TEMPLATE template_certwright STRATEGY FILE_COPY")

    @property
    def url(self) -> str:
        return self._server.replace("/postgres?", f"/{self._database}?")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        fixed = {"url": self.url, "data_dir": str(self.data), "http_port": 1, "seconds": 900}
        answer = self._harness.ask(do=do, **fixed, **(self.facts | more))
        self.facts |= {key: answer[key] for key in answer if key not in ("killed", "moments")}
        return answer

    def keep(self) -> None:
        self._admin(f"CREATE DATABASE {self._kept} TEMPLATE {self._database} STRATEGY FILE_COPY")
        shutil.copytree(self.data, self._directory / "kept") if self.data.exists() else None
        self._facts = dict(self.facts)

    def put_back(self) -> None:
        self._admin(
            f"DROP DATABASE {self._database} WITH (FORCE)",
            f"CREATE DATABASE {self._database} TEMPLATE {self._kept} STRATEGY FILE_COPY",
        )
        shutil.rmtree(self.data, ignore_errors=True)
        if (self._directory / "kept").exists():
            shutil.copytree(self._directory / "kept", self.data)
        self.facts = dict(self._facts)

    def close(self) -> None:
        self._admin(
            f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)",
            f"DROP DATABASE IF EXISTS {self._kept} WITH (FORCE)",
        )

    def rows(self, query: Any) -> Sequence[Any]:
        async def read() -> Sequence[Any]:
            db = Database(self.url, pool_size=3)
            try:
                async with db.begin() as tx:
                    return (await tx.execute(query)).all()
            finally:
                await db.close()

        return asyncio.run(read())

    def balances(self) -> dict[str, str]:
        a = ledger_accounts.c
        return {row.kind: format(row.balance.normalize(), "f") for row in self.rows(sa.select(a.kind, a.balance))}

    def _admin(self, *statements: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self._server)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


@pytest.fixture(scope="module")
def harness() -> Iterator[BuyersHarness]:
    made = BuyersHarness()
    yield made
    made.close()


PHASES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], dict[str, str]]] = {
    # name: (method, what comes before, what is killed, balances in the end)
    "buy from balance and voucher": (
        "balance", (), ("buy",),
        {"balance": "830", "paid_in": "-1000", "voucher": "0", "granted": "-30", "purchases": "200"},
    ),
    "buy through a provider": (
        "card", (), ("buy", "work"),
        {"balance": "1000", "paid_in": "-1000", "voucher": "30", "granted": "-30", "purchases": "200",
         "external": "-200"},
    ),
    "give back to the balance": (
        "balance", ("buy",), ("give_back",),
        {"balance": "1000", "paid_in": "-1000", "voucher": "0", "granted": "-30", "purchases": "30"},
    ),
    "give back through a provider": (
        "card", ("buy", "work"), ("give_back", "work"),
        {"balance": "1000", "paid_in": "-1000", "voucher": "30", "granted": "-30", "purchases": "0",
         "external": "0"},
    ),
    "top up": (
        "balance", (), ("top_up",),
        {"balance": "1050", "paid_in": "-1050", "voucher": "30", "granted": "-30"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
def test_killed_anywhere_it_is_paid_delivered_and_given_back_once(
    phase: str, tmp_path: Path, database_server: str, harness: BuyersHarness
) -> None:
    method, before, killed, expected = PHASES[phase]
    scene = Scene(tmp_path, database_server, harness, method)
    try:
        scene.ask("prepare")
        for command in before:
            scene.ask(command)
        scene.keep()
        kills = 0
        for number, command in enumerate(killed):
            # Only workers call the provider: elsewhere a kill after one commit leaves what one before the next does.
            for when in ("before", "after") if command == "work" else ("before",):
                for at in range(1, 40):
                    scene.put_back()
                    for earlier in killed[:number]:
                        scene.ask(earlier)
                    died = scene.ask(command, when=when, at=at)["killed"]
                    # A fresh process: the buyer looks and finishes, workers run what is due.
                    for again in killed:
                        assert scene.ask(again).get("audit", "") == ""
                    scene.ask("work")
                    check_books(scene.rows)
                    assert scene.balances() == expected, f"{command} killed {when} commit {at}"
                    if not died:
                        break
                    kills += 1
                else:
                    pytest.fail("there was always another commit")
        assert kills >= len(killed) + killed.count("work")
        statuses = {row.refunded_at is not None for row in scene.rows(sa.select(orders.c.refunded_at))}
        assert statuses == ({"give_back" in killed} if "buy" in (*before, *killed) else set())
        charged = (scene.data / "provider.json").exists()
        assert charged is (method == "card")
    finally:
        scene.close()
