"""The ACME server with a process that dies, a database that goes away, and a rival that is asked the same at once.

A client registers with a key for one account, orders, shows control, finalizes, fetches, revokes. At each moment (see
tests/flows/stage) the process dies or its connections end; the client then does what RFC 8555 lets it do: it knows its
keys and the addresses it was told, and says again what nobody answered. Afterwards there is one account, the key for
binding is used by it, one order has become one certificate, that is revoked and in the list, and the audit log tells
each of it once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import Response

from certwright.acme import jose
from certwright.acme.challenges import dns_value, key_authorization
from certwright.acme.jose import b64url, from_b64url
from certwright.entry.acme import AcmeDoor
from certwright.kernel.problems import Unavailable
from certwright.rooms import acme_server, authorities
from certwright.rooms.acme_server import DirectoryRequest, Prover
from tests.acme_server.support import JOSE, csr
from tests.conftest import database_for
from tests.flows.promises import check_audit, check_rest, take_notes
from tests.flows.stage import Death, Fate, Process, Stage
from tests.flows.test_every_operation import THOROUGH

_MOST_MOMENTS = 200


class NoAnswer(Exception):
    """The server couldn't answer; the client comes again later."""


@dataclass
class Subscriber:
    """What one client keeps on its disk: its keys, its key for binding, and what it was told."""

    stage: Stage
    base: str
    key_id: str
    secret: str
    names: tuple[str, ...]
    kinds: tuple[str, ...] = ("http-01",)
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    request: str = ""
    kid: str | None = None
    order: str | None = None
    leaf: x509.Certificate | None = None
    revoked: bool = False
    nonce: str | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.request = csr(*self.names)

    async def post(self, http: Any, url: str, payload: Any, *, by_key: bool = False) -> Any:
        for _ in range(3):
            if self.nonce is None:
                self.nonce = (await http.head(f"{self.base}/new-nonce")).headers.get("replay-nonce")
                if self.nonce is None:
                    raise NoAnswer
            nonce, self.nonce = self.nonce, None
            body = jose.signed_request(payload, url=url, nonce=nonce, key=self.key, kid=None if by_key else self.kid)
            answer = await http.post(url, content=body, headers={"content-type": JOSE})
            self.nonce = answer.headers.get("replay-nonce")
            if b":badNonce" not in answer.content:
                break
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            raise NoAnswer
        self.said.append(f"{url.removeprefix(self.base)} {answer.status_code} {answer.text[:300]}")
        return answer

    async def ask(self, http: Any, url: str) -> Any:
        answer = await self.post(http, url, None)
        assert answer.status_code == 200, self.said
        return answer.json()

    # --- what is still missing ----------------------------------------------------------------------------------------

    async def go_on(self, process: Process) -> None:
        async with door(process) as http:
            await self._register(http)
            if self.leaf is None:
                await self._obtain(process, http)
            await self._revoke(http)

    async def _register(self, http: Any) -> None:
        if self.kid is not None:
            return
        url = f"{self.base}/new-account"
        binding = jose.external_account_binding(self.key, url=url, kid=self.key_id, mac_key=from_b64url(self.secret))
        answer = await self.post(http, url, {"externalAccountBinding": binding}, by_key=True)
        assert answer.status_code in (200, 201), self.said
        self.kid = answer.headers["location"]

    async def _obtain(self, process: Process, http: Any) -> None:
        if self.order is None:
            identifiers = [{"type": "dns", "value": name} for name in self.names]
            answer = await self.post(http, f"{self.base}/new-order", {"identifiers": identifiers})
            assert answer.status_code == 201, self.said
            self.order = answer.headers["location"]
        order = await self.ask(http, self.order)
        for url, kind in zip(order["authorizations"], self.kinds, strict=True):
            await self._show(process, http, url, kind)
        order = await self.ask(http, self.order)
        if order["status"] == "ready":
            answer = await self.post(http, order["finalize"], {"csr": self.request})
            assert answer.status_code == 200, self.said
            order = answer.json()
        assert order["status"] == "valid", self.said
        answer = await self.post(http, order["certificate"], None)
        assert answer.status_code == 200, self.said
        self.leaf = x509.load_pem_x509_certificates(answer.content)[0]

    async def _show(self, process: Process, http: Any, url: str, kind: str) -> None:
        for _ in range(10):
            proof = await self.ask(http, url)
            if proof["status"] == "valid":
                return
            assert proof["status"] == "pending", self.said
            challenge = next(one for one in proof["challenges"] if one["type"] == kind)
            said = key_authorization(challenge["token"], self.key)
            name = proof["identifier"]["value"]
            if kind == "http-01":
                self.stage.files[name, f"/.well-known/acme-challenge/{challenge['token']}"] = said.encode()
            else:
                self.stage.records[f"_acme-challenge.{name}", "TXT"] = [dns_value(said)]
            await self.post(http, challenge["url"], {})
            await process.services.port(Prover).idle()
            if (await self.ask(http, url))["status"] == "pending":
                # It was begun by a process that died: the worker looks, once it is sure of that.
                await process.work(2)
        pytest.fail(f"nobody looks: {self.said}")

    async def _revoke(self, http: Any) -> None:
        if self.revoked:
            return
        assert self.leaf is not None
        payload = {"certificate": b64url(self.leaf.public_bytes(Encoding.DER)), "reason": 4}
        answer = await self.post(http, f"{self.base}/revoke-cert", payload)
        assert answer.status_code == 200 or b":alreadyRevoked" in answer.content, self.said
        self.revoked = True


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


async def opened(stage: Stage, names: tuple[str, ...], kinds: tuple[str, ...]) -> Subscriber:
    services = stage.main.services
    async with services.db.begin() as tx:
        ca = await authorities.builtin_issuing_id(tx, stage.account_id)
    directory = await acme_server.create_directory(
        services, stage.actor, DirectoryRequest(f"Servers {next(stage.number)}", ca)
    )
    key = await acme_server.create_eab_key(services, stage.actor, directory.id, name="shop")
    base = directory.url.removesuffix("/directory")
    return Subscriber(stage, base, key.key.id, key.secret, names, kinds)


async def check(stage: Stage, client: Subscriber, where: str) -> None:
    assert client.leaf is not None
    assert client.revoked
    slug = urlsplit(client.base).path.rpartition("/")[2]
    (account,) = await stage.rows(
        "SELECT a.id, a.eab_key_id, e.used_at FROM acme_accounts a JOIN acme_directories d ON d.id = a.directory_id "
        "JOIN acme_eab_keys e ON e.id = a.eab_key_id WHERE d.slug = :slug", slug=slug,
    )  # fmt: skip
    assert client.kid is not None
    assert (account.id, account.eab_key_id) == (client.kid.rpartition("/")[2], client.key_id), where
    assert account.used_at is not None, where
    # Orders nobody heard of wait until their time is over; one has become a certificate, and that is the client's.
    orders = await stage.rows(
        "SELECT o.id, o.status, i.id AS issued, i.serial, i.revoked_at, i.revocation_reason FROM acme_orders o "
        "LEFT JOIN issued_certificates i ON i.reference = o.id WHERE o.acme_account_id = :id ORDER BY o.id",
        id=account.id,
    )  # fmt: skip
    assert [row.status for row in orders if row.issued is not None] == ["valid"], f"{where}: {orders}"
    assert {row.status for row in orders if row.issued is None} <= {"pending"}, f"{where}: {orders}"
    (issued,) = [row for row in orders if row.issued is not None]
    assert client.order is not None
    assert issued.id == client.order.rpartition("/")[2], where
    assert int(issued.serial, 16) == client.leaf.serial_number, where
    assert issued.revocation_reason == "superseded", where
    (ca,) = await stage.rows("SELECT authority_id AS id FROM issued_certificates WHERE id = :id", id=issued.issued)
    newest = x509.load_der_x509_crl((await authorities.newest_crl(stage.main.services, ca.id)).der)
    assert newest.get_revoked_certificate_by_serial_number(client.leaf.serial_number) is not None, where
    told = await stage.rows(
        "SELECT action, count(*) AS n FROM audit_events WHERE action IN "
        "('ccm:acme:register', 'ccm:cert:issue', 'ccm:cert:revoke') AND actor_name = :who GROUP BY action",
        who=f"ACME account {account.id}",
    )  # fmt: skip
    assert {row.action: row.n for row in told} == {
        "ccm:acme:register": 1, "ccm:cert:issue": 1, "ccm:cert:revoke": 1
    }, where  # fmt: skip
    await check_audit(stage, where)
    await check_rest(stage, where)


SCENARIOS = {
    "by http-01": (("www.example.com",), ("http-01",)),
    "by dns-01 and http-01": (("*.example.com", "www.example.com"), ("dns-01", "http-01")),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_that_dies_at_every_moment_in_turn_is_followed_by_one_that_goes_on(stage: Stage, name: str) -> None:
    met = set[str]()

    async def strike(fate: Fate, where: str) -> None:
        if where not in met:
            met.add(where)
            fate.die(where)

    async def go() -> None:
        client = await opened(stage, *SCENARIOS[name])
        for _ in range(_MOST_MOMENTS):
            process, deaths = await stage.start(strike), len(met)
            try:
                await client.go_on(process)
                await process.work()
                break
            except Death:
                assert len(met) > deaths
                stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
            finally:
                await buried(process)
        else:
            pytest.fail(f"no process ever finished: {sorted(met)}")
        await check(stage, client, f"{name}, killed at {len(met)} moments")

    stage.run(go())
    assert {where.partition(" in ")[0] for where in met} >= {"before a commit", "after a commit"}
    assert len(met) > 20


@pytest.mark.skipif(not THOROUGH, reason="CERTWRIGHT_WALKS isn't set: every moment is met in turn, not each alone")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_that_dies_at_one_moment_is_followed_by_one_that_goes_on(stage: Stage, name: str) -> None:
    async def go(at: int) -> bool:
        seen, died = 0, ""

        async def strike(fate: Fate, where: str) -> None:
            nonlocal seen, died
            seen += 1
            if seen == at:
                died = where
                fate.die(where)

        client = await opened(stage, *SCENARIOS[name])
        process = await stage.start(strike)
        try:
            with suppress(Death):
                await client.go_on(process)
                await process.work()
        finally:
            await buried(process)
        stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
        await client.go_on(stage.main)
        await stage.main.work()
        await check(stage, client, f"{name}, killed {died or 'nowhere'}")
        return bool(died)

    assert next(at for at in range(1, _MOST_MOMENTS) if not stage.run(go(at))) > 20


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_whose_connections_are_ended_at_every_moment_in_turn_goes_on(stage: Stage, name: str) -> None:
    met = set[str]()

    async def strike(fate: Fate, where: str) -> None:
        if where not in met:
            met.add(where)
            await stage.cut_connections()

    async def go() -> None:
        client = await opened(stage, *SCENARIOS[name])
        process = await stage.start(strike)
        for _ in range(_MOST_MOMENTS):
            try:
                await client.go_on(process)
                await process.work()
                break
            except (NoAnswer, Unavailable):
                stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
        else:
            pytest.fail(f"it never got through: {sorted(met)}")
        process.fate.strike = None
        await process.work(120)
        await buried(process)
        await check(stage, client, f"{name}, cut at {len(met)} moments")

    stage.run(go())
    assert len(met) > 20
