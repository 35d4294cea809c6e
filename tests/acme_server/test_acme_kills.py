"""The ACME server with a process that dies, a database that goes away, and a rival that is asked the same at once.

A client registers with a key for one account, orders, shows control, finalizes, fetches, renews, revokes: see
`subscriber`. At each moment (see tests/flows/stage) the process dies or its connections end. Afterwards there is one
account, the key for binding is used by it, one order has become one certificate and another the one that replaces it,
the first is revoked and in the list, and the audit log tells each of it once. With real processes and SIGKILL it is in
test_acme_sigkill.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import Response

from certwright.acme.challenges import dns_value
from certwright.acme.renewal import certificate_id
from certwright.entry.acme import AcmeDoor
from certwright.kernel.problems import Unavailable
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server import DirectoryRequest, Prover
from tests.acme_server.subscriber import NoAnswer, Subscriber
from tests.conftest import database_for
from tests.flows.promises import check_audit, check_rest, take_notes
from tests.flows.stage import Death, Fate, Process, Stage
from tests.flows.test_every_operation import THOROUGH

_MOST_MOMENTS = 200


@dataclass
class InProcess:
    """The outside of a stage, and a process on it whose looks are waited for."""

    stage: Stage
    process: Process

    def publish(self, kind: str, name: str, token: str, said: str) -> None:
        if kind == "http-01":
            self.stage.files[name, f"/.well-known/acme-challenge/{token}"] = said.encode()
        else:
            self.stage.records[f"_acme-challenge.{name}", "TXT"] = [dns_value(said)]

    async def passing(self, look: int) -> None:
        await self.process.services.port(Prover).idle()
        if look:
            # It was begun by a process that died: the worker looks, once it is sure of that.
            await self.process.work(2)


async def go_on(client: Subscriber, stage: Stage, process: Process) -> None:
    async with door(process) as http:
        await client.go_on(http, InProcess(stage, process))


@asynccontextmanager
async def door(process: Process) -> AsyncIterator[Any]:
    transport = httpx2.ASGITransport(AcmeDoor(Response(status_code=404), process.services))
    async with httpx2.AsyncClient(transport=transport, base_url="https://cw.example") as http:
        yield http


async def buried(process: Process) -> None:
    """With what it had begun: the dead do nothing more."""
    await process.services.port(Prover).idle()
    await process.bury()


@pytest.fixture(scope="module")
def stage(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with database_for(database_server, "acme_moments") as url:
        made = Stage(url, tmp_path_factory.mktemp("stage"))
        made.run(take_notes(made))
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Scenario:
    name: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    policed: bool = False


SCENARIOS = (
    Scenario("by http-01", ("www.example.com",), ("http-01",)),
    # Then ordering and finalizing go another way, in a transaction of several statements.
    Scenario(
        "by dns-01 and http-01, policed", ("*.example.com", "www.example.com"), ("dns-01", "http-01"), policed=True
    ),
)  # fmt: skip


@pytest.fixture(params=SCENARIOS, ids=lambda one: one.name)
def scenario(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scenario]:
    """With the policy there is in it, for as long as the test takes."""
    made: Scenario = request.param
    services, limits = stage.main.services, authorities.PolicyLimits(allowed=("example.com", ".example.com"))
    policy = None
    if made.policed:
        policy = stage.run(authorities.create_policy(services, stage.actor, "Ours", limits))
    yield made
    if policy is not None:
        stage.run(authorities.delete_policy(services, stage.actor, policy.id))


async def opened(stage: Stage, scenario: Scenario) -> Subscriber:
    services = stage.main.services
    async with services.db.begin() as tx:
        ca = await authorities.builtin_issuing_id(tx, stage.account_id)
    directory = await acme_server.create_directory(
        services, stage.actor, DirectoryRequest(f"Servers {next(stage.number)}", ca)
    )
    key = await acme_server.create_eab_key(services, stage.actor, directory.id, name="shop")
    base = directory.url.removesuffix("/directory")
    return Subscriber(base, key.key.id, key.secret, scenario.names, scenario.kinds)


async def check(stage: Stage, client: Subscriber, where: str) -> None:
    assert client.is_content
    slug = urlsplit(client.base).path.rpartition("/")[2]
    (account,) = await stage.rows(
        "SELECT a.id, a.eab_key_id, e.used_at FROM acme_accounts a JOIN acme_directories d ON d.id = a.directory_id "
        "JOIN acme_eab_keys e ON e.id = a.eab_key_id WHERE d.slug = :slug", slug=slug,
    )  # fmt: skip
    assert client.kid is not None
    assert (account.id, account.eab_key_id) == (client.kid.rpartition("/")[2], client.key_id), where
    assert account.used_at is not None, where
    # Orders nobody heard of wait until their time is over; two have become certificates, and those are the client's.
    orders = await stage.rows(
        "SELECT o.id, o.status, o.replaces, i.id AS issued, i.serial, i.authority_id, i.revocation_reason "
        "FROM acme_orders o LEFT JOIN issued_certificates i ON i.reference = o.id WHERE o.acme_account_id = :id "
        "ORDER BY o.id", id=account.id,
    )  # fmt: skip
    fulfilled = [row for row in orders if row.issued is not None]
    assert [row.status for row in fulfilled] == ["valid", "valid"], f"{where}: {orders}"
    assert {row.status for row in orders if row.issued is None} <= {"pending"}, f"{where}: {orders}"
    for row, wanted in zip(fulfilled, client.wanted, strict=True):
        assert wanted.order is not None
        assert row.id == wanted.order.rpartition("/")[2], where
        assert int(row.serial, 16) == wanted.leaf.serial_number, where
    first, second = (wanted.leaf for wanted in client.wanted)
    replacing = [(row.id, row.replaces) for row in orders if row.replaces is not None]
    assert replacing == [(fulfilled[1].id, certificate_id(first.public_bytes(Encoding.DER)))], f"{where}: {orders}"
    assert [row.revocation_reason for row in fulfilled] == ["superseded", None], where
    newest = await authorities.newest_crl(stage.main.services, fulfilled[0].authority_id)
    crl = x509.load_der_x509_crl(newest.der)
    assert crl.get_revoked_certificate_by_serial_number(first.serial_number) is not None, where
    assert crl.get_revoked_certificate_by_serial_number(second.serial_number) is None, where
    told = await stage.rows(
        "SELECT action, count(*) AS n FROM audit_events WHERE action IN "
        "('ccm:acme:register', 'ccm:cert:issue', 'ccm:cert:revoke') AND actor_name = :who GROUP BY action",
        who=f"ACME account {account.id}",
    )  # fmt: skip
    assert {row.action: row.n for row in told} == {
        "ccm:acme:register": 1, "ccm:cert:issue": 2, "ccm:cert:revoke": 1
    }, where  # fmt: skip
    async with door(stage.main) as http:
        await client.still_true(http)
    await check_audit(stage, where)
    await check_rest(stage, where)


def moment_of(client: Subscriber, where: str) -> str:
    """With one name the moments of the renewal are others than those of the first order; with two it would take long,
    and teach nothing."""
    return where if len(client.names) > 1 else f"{where}, with {client.in_hand} in hand"


def test_a_process_that_dies_at_every_moment_in_turn_is_followed_by_one_that_goes_on(
    stage: Stage, scenario: Scenario
) -> None:
    met = set[str]()

    async def go() -> None:
        client = await opened(stage, scenario)

        async def strike(fate: Fate, where: str) -> None:
            where = moment_of(client, where)
            if where not in met:
                met.add(where)
                fate.die(where)

        for _ in range(_MOST_MOMENTS):
            process, deaths = await stage.start(strike), len(met)
            try:
                await go_on(client, stage, process)
                await process.work()
                break
            except Death:
                assert len(met) > deaths
                stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
            finally:
                await buried(process)
        else:
            pytest.fail(f"no process ever finished: {sorted(met)}")
        await check(stage, client, f"{scenario.name}, killed at {len(met)} moments")

    stage.run(go())
    assert {where.partition(" in ")[0] for where in met} >= {"before a commit", "after a commit"}
    assert len(met) > 20


@pytest.mark.skipif(not THOROUGH, reason="CERTWRIGHT_WALKS isn't set: every moment is met in turn, not each alone")
def test_a_process_that_dies_at_one_moment_is_followed_by_one_that_goes_on(stage: Stage, scenario: Scenario) -> None:
    async def go(at: int) -> bool:
        seen, died = 0, ""

        async def strike(fate: Fate, where: str) -> None:
            nonlocal seen, died
            seen += 1
            if seen == at:
                died = where
                fate.die(where)

        client = await opened(stage, scenario)
        process = await stage.start(strike)
        try:
            with suppress(Death):
                await go_on(client, stage, process)
                await process.work()
        finally:
            await buried(process)
        stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
        await go_on(client, stage, stage.main)
        await stage.main.work()
        await check(stage, client, f"{scenario.name}, killed {died or 'nowhere'}")
        return bool(died)

    assert next(at for at in range(1, _MOST_MOMENTS) if not stage.run(go(at))) > 20


def test_a_process_whose_connections_are_ended_at_every_moment_in_turn_goes_on(
    stage: Stage, scenario: Scenario
) -> None:
    met = set[str]()

    async def go() -> None:
        client = await opened(stage, scenario)

        async def strike(fate: Fate, where: str) -> None:
            where = moment_of(client, where)
            if where not in met:
                met.add(where)
                await stage.cut_connections()

        process = await stage.start(strike)
        for _ in range(_MOST_MOMENTS):
            try:
                await go_on(client, stage, process)
                await process.work()
                break
            except (NoAnswer, Unavailable):
                stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
        else:
            pytest.fail(f"it never got through: {sorted(met)}")
        process.fate.strike = None
        await process.work(120)
        await buried(process)
        await check(stage, client, f"{scenario.name}, cut at {len(met)} moments")

    stage.run(go())
    assert len(met) > 20
