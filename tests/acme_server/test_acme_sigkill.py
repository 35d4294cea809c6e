"""A running ACME server dies of SIGKILL among its clients, again and again, and its clients go on.

`certwright serve` with its own data directory and embedded PostgreSQL; several clients at once register with keys for
one account each, order, show control, renew, revoke: see `subscriber`. A life ends at a chosen place (see `mortal`), or
somewhere between a request and its answer; of two web processes one may have died before, at the same place, and the
clients went on with the other. After each death it is looked at what lies in the database; after each start
at what the clients were answered before, and at challenges nobody is told of any more. `CERTWRIGHT_WALKS` buys more
deaths, at places drawn by lot.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from certwright.entry.cli.client import Api
from certwright.entry.cli.session import sign_in
from certwright.entry.cli.settings import Connection
from certwright.platform.db import Database
from certwright.rooms import audit
from tests.acme_server.mortal import PATIENCE, Installation, Site, until
from tests.acme_server.subscriber import NoAnswer, Subscriber

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loopback has one address elsewhere")

PASSWORD = "a long enough passphrase 7"  # of a throw-away product
LANES = 3
"""How many clients are at work at any time."""


@dataclass(frozen=True)
class End:
    """Where a life ends: `place` as in `mortal`, "a look", or "on the way"; at the `n`th time it comes to that."""

    place: str
    n: int
    with_database: bool = False
    delay: float = 0.0
    """On the way: seconds after the request left."""
    policed: bool = False
    """In this life a policy judges certificates: finalizing is a transaction then, and else a single statement."""
    looked: bool = False
    """A challenge is being looked at when it ends: the first look of this life isn't answered."""
    sibling: bool = False
    """There are two web processes, and before it ends the other one dies at the same place."""
    orphaned: bool = False
    """Of two web processes the first dies, and the other one finishes what it is at."""

    @property
    def processes(self) -> int:
        return 2 if self.sibling or self.orphaned else 1


ALWAYS = (
    # A certificate was issued, unheard; in one statement, and in a transaction.
    End("at the commit of insert issued_certificates", 3, looked=True),
    End("at the commit of insert issued_certificates", 3, policed=True),
    # A certificate was written, and not all else that goes with it.
    End("after insert issued_certificates", 2, policed=True),
    # A renewal was ordered, unheard.
    End("at the commit of insert acme_orders % replacing", 2, policed=True, looked=True),
    # Somebody is registered, the key for binding used, and nobody heard of it; twice, if it was the other process.
    End("at the commit of insert acme_accounts", 2, sibling=True),
    # One was revoked, in no list yet; and the database dies with it.
    End("at the commit of update issued_certificates revoked", 1, with_database=True),
)
BY_LOT = (
    *((f"{when} {what}", 6) for when in ("after", "at the commit of") for what in (
        "insert acme_accounts", "update acme_eab_keys", "insert acme_orders", "insert acme_orders % replacing",
        "update acme_orders", "insert acme_authorizations", "update acme_authorizations pending",
        "update acme_authorizations valid", "insert acme_used_nonces", "insert issued_certificates",
        "update issued_certificates revoked", "insert audit_events", "update crl_shards", "%",
    )), ("a look", 12), ("on the way", 120), ("on the way", 120),
)  # fmt: skip
WALKS = int(os.environ.get("CERTWRIGHT_WALKS") or 0)
MORE = WALKS // 25


def ends() -> Iterator[End]:
    yield from ALWAYS
    # The same number buys the same deaths; who stands where when they come differs.
    lot = random.Random(WALKS)
    for _ in range(MORE):
        place, most = lot.choice(BY_LOT)
        with_database = lot.random() < 0.25
        yield End(
            place, lot.randint(1, most), with_database=with_database, delay=lot.random() / 50,
            policed=lot.random() < 0.5, looked=lot.random() < 0.5, sibling=place != "a look" and lot.random() < 0.5,
            orphaned=not with_database and lot.random() < 0.25,
        )  # fmt: skip


# Statements that have a row where a promise is broken, whenever the database is looked at.
PROMISES = {
    "an order is valid, or has a certificate, and not both": (
        "SELECT o.id, o.status, o.issued_id, i.id AS issued, i.reference FROM acme_orders o FULL JOIN "
        "(SELECT * FROM issued_certificates WHERE NOT internal) i ON i.reference = o.id WHERE o.id IS NULL "
        "OR (o.status = 'valid') <> (i.id IS NOT NULL) OR o.issued_id IS DISTINCT FROM i.id"
    ),
    "a certificate of which the audit log doesn't tell once": (
        "SELECT i.id, i.serial, count(e.id) FROM issued_certificates i LEFT JOIN audit_events e "
        "ON e.action = 'ccm:cert:issue' AND e.after->>'certificate' = i.id AND e.after->>'serial' = i.serial "
        "AND e.after->>'sha256' = encode(sha256(i.der), 'hex') WHERE NOT i.internal "
        "GROUP BY i.id HAVING count(e.id) <> 1"
    ),
    "a certificate there isn't, and the audit log tells of it": (
        "SELECT e.after FROM audit_events e WHERE e.action = 'ccm:cert:issue' AND e.actor_name LIKE 'ACME %' "
        "AND NOT EXISTS (SELECT FROM issued_certificates i WHERE i.id = e.after->>'certificate')"
    ),
    "a revocation of which the audit log doesn't tell once": (
        "SELECT coalesce(i.id, e.after->>'certificate'), count(e.id) FROM "
        "(SELECT * FROM issued_certificates WHERE revoked_at IS NOT NULL) i FULL JOIN "
        "(SELECT * FROM audit_events WHERE action = 'ccm:cert:revoke') e ON e.after->>'certificate' = i.id "
        "GROUP BY 1, i.id HAVING i.id IS NULL OR count(e.id) <> 1"
    ),
    "an account of which the audit log doesn't tell once": (
        "SELECT coalesce(a.id, e.after->>'acme_account'), count(e.id) FROM acme_accounts a FULL JOIN "
        "(SELECT * FROM audit_events WHERE action = 'ccm:acme:register') e ON e.after->>'acme_account' = a.id "
        "GROUP BY 1, a.id HAVING a.id IS NULL OR count(e.id) <> 1"
    ),
    "an event that was never sealed, nor waits for it": (
        "SELECT id, action FROM audit_events e WHERE NOT EXISTS (SELECT FROM audit_unsealed u WHERE u.event_id = e.id) "
        "AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.event_id = e.id)"
    ),
    "a key that is used without an account, or by more than one": (
        "SELECT e.id, e.used_at, count(a.id) FROM acme_eab_keys e LEFT JOIN acme_accounts a ON a.eab_key_id = e.id "
        "GROUP BY e.id HAVING count(a.id) <> (e.used_at IS NOT NULL)::int"
    ),
    "a certificate that more than one order replaces": (
        "SELECT replaces, count(*) FROM acme_orders WHERE replaces IS NOT NULL GROUP BY replaces HAVING count(*) > 1"
    ),
    "an order with a certificate for a name nobody showed": (
        "SELECT o.id, z.id, z.status FROM acme_orders o JOIN acme_authorizations z ON z.id = ANY (o.authorization_ids) "
        "WHERE o.issued_id IS NOT NULL AND z.status <> 'valid'"
    ),
    "something that failed": (
        "SELECT id, error FROM acme_orders WHERE status = 'invalid' UNION ALL "
        "SELECT id, error FROM acme_authorizations WHERE status = 'invalid'"
    ),
}  # fmt: skip
UNDER_WAY = "SELECT id FROM acme_authorizations WHERE status = 'pending' AND challenge IS NOT NULL"
SHOWN = "SELECT id FROM acme_authorizations WHERE status = 'valid' AND id = ANY ($1)"
STUCK = (
    "SELECT id, next_step_at, step_problem FROM acme_authorizations "
    "WHERE next_step_at IS NOT NULL OR step_lease_until IS NOT NULL OR step_problem IS NOT NULL"
)
FULFILLED = (
    "SELECT o.id, i.der FROM acme_orders o JOIN issued_certificates i ON i.id = o.issued_id ORDER BY o.id"
)  # fmt: skip


@dataclass
class Town:
    """The installation, an ACME service on it, and everybody who ever was a client."""

    place: Installation
    site: Site
    token: str = ""
    directory: dict[str, Any] = field(default_factory=dict)
    authority_id: str = ""
    policy_id: str | None = None
    taken_up: int = 0
    """How many lives began with a challenge nobody looked at any more."""
    clients: list[Subscriber] = field(default_factory=list)
    to_leave: int = 0
    """How many requests leave before a life ends on the way of the last."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ends: bool = False
    """This life: who gets no answer needn't come again before the next."""
    forgiving: bool = False
    """In this life processes may die without its end."""
    numbers: Iterator[int] = field(default_factory=count)
    sealed: audit.Head | None = None
    trail: list[str] = field(default_factory=list)

    async def found(self) -> None:
        """The first start: an administrator, an ACME service that wants keys for binding."""
        setup = await self.place.start("/setup?token=")
        await self.place.make_stops()
        with Api(Connection(self.place.url, None, self.place.root)) as api:
            person = {"email": "ann@one.example", "name": "Ann", "password": PASSWORD, "account_name": "One"}
            api.call("POST", "/setup", body={"token": setup, **person})
            made, _ = sign_in(api, "ann@one.example", PASSWORD, name="tests", days=1)
        self.token = made["token"]
        with Api(Connection(self.place.url, self.token, self.place.root)) as api:
            (self.authority_id,) = [one["id"] for one in api.get("/authorities")["items"] if one["kind"] != "root"]
            self.directory = api.post("/acme-directories", {"name": "Servers", "authority_id": self.authority_id})

    @asynccontextmanager
    async def door(self) -> AsyncIterator[httpx2.AsyncClient]:
        async def tell(request: httpx2.Request) -> None:
            self.to_leave -= 1
            if self.to_leave == 0:
                self.left.set()

        context = ssl.create_default_context(cafile=str(self.place.root))
        async with httpx2.AsyncClient(
            verify=context, timeout=PATIENCE, trust_env=False, event_hooks={"request": [tell]}
        ) as http:
            yield http

    async def newcomer(self, http: httpx2.AsyncClient) -> Subscriber:
        """With a key somebody here has made for it."""
        name = f"host{next(self.numbers)}"
        try:
            answer = await self._manage(http, "POST", f"acme-directories/{self.directory['id']}/eab-keys", name=name)
        except httpx2.TransportError as error:
            raise NoAnswer from error
        base = self.directory["url"].removesuffix("/directory")
        made = Subscriber(base, answer.json()["id"], answer.json()["secret"], (f"{name}.localhost",))
        self.clients.append(made)
        return made

    async def _manage(self, http: httpx2.AsyncClient, method: str, path: str, **body: Any) -> httpx2.Response:
        """As somebody here does it."""
        headers = {"authorization": f"Bearer {self.token}"}
        answer = await http.request(method, f"{self.place.url}/api/v1/{path}", json=body or None, headers=headers)
        assert answer.status_code in (201, 204), answer.text
        return answer

    async def _police(self, http: httpx2.AsyncClient) -> None:
        answer = await self._manage(http, "POST", "ca-policies", name="Ours", quota=100_000)
        self.policy_id = answer.json()["id"]

    async def _police_no_more(self, http: httpx2.AsyncClient) -> None:
        await self._manage(http, "DELETE", f"ca-policies/{self.policy_id}")
        self.policy_id = None

    # --- a life -------------------------------------------------------------------------------------------------------

    async def live(self, end: End) -> None:
        async with self.door() as http:
            await self._awake(http)
            if end.policed and self.policy_id is None:
                await self._police(http)
            if not end.policed and self.policy_id is not None:
                await self._police_no_more(http)
            self.site.await_look(end.n if end.place == "a look" else 1 if end.looked else None)
            self.ends, self.forgiving = False, end.sibling
            striking = asyncio.create_task(self._strike(end))
            waiting = [client for client in self.clients if not client.is_content]
            lanes = [asyncio.create_task(self._keep_busy(http, waiting)) for _ in range(LANES)]
            done, _ = await asyncio.wait([striking, *lanes], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if striking not in done:
                striking.cancel()
                for lane in lanes:
                    lane.cancel()
                ended = await asyncio.gather(striking, *lanes, return_exceptions=True)
                raise AssertionError(f"{end} didn't come: {ended} {self.trail} {self.place.log()[-2000:]}")
            where = striking.result()
            self.ends = True
            await self.place.kill(with_database=end.with_database, only_first=end.orphaned)
            self.site.answer_all()
            # Each has lost its server in the middle of something.
            await asyncio.gather(*lanes)
        self.trail.append(f"{len(self.trail) + 1}: {where}{' with the database' if end.with_database else ''}")
        if not end.with_database:
            await self.check_database()
            if self.site.looked.is_set():
                assert await self.place.query(UNDER_WAY), self.trail
                self.taken_up += 1

    async def _strike(self, end: End) -> str:
        if end.sibling:
            where = await self._come_to(end)
            assert self.place.kill_siblings() == 1
            await self.place.let_go()
            self.trail.append(f"the other one, {where}")
        return await self._come_to(end)

    async def _come_to(self, end: End) -> str:
        """Returns where it stands; it is to be killed at once."""
        if end.place == "a look":
            await self.site.looked.wait()
        elif end.place == "on the way":
            self.to_leave = end.n
            self.left.clear()
            await self.left.wait()
            await asyncio.sleep(end.delay)
        else:
            await self.place.await_place(end.place, end.n)
            return await self.place.stands_at()
        return end.place

    async def _keep_busy(self, http: httpx2.AsyncClient, waiting: list[Subscriber]) -> None:
        while True:
            client = waiting.pop() if waiting else None
            try:
                client = client or await self.newcomer(http)
                await client.go_on(http, self.site)
            except NoAnswer:
                if self.ends or not self.forgiving:
                    return
                # Its process died; it comes again.
                if client is not None:
                    waiting.append(client)

    async def _awake(self, http: httpx2.AsyncClient) -> None:
        """After a start: what was under way goes on by itself, and whatever was answered is true."""
        under_way = [row["id"] for row in await self.place.query(UNDER_WAY)]

        async def all_shown() -> bool:
            return len(await self.place.query(SHOWN, under_way)) == len(under_way)

        await until(all_shown)
        await self.check_database()
        # Of those who have what they wanted only the last: all are asked at the end.
        asked = [client for client in self.clients[:-LANES] if not client.is_content] + self.clients[-LANES:]
        await asyncio.gather(*(client.still_true(http) for client in asked))
        await self._revoked_are_listed(http)
        await self._used_keys_bind_nobody_else(http)

    async def _revoked_are_listed(self, http: httpx2.AsyncClient) -> None:
        revoked = {client.wanted[0].leaf.serial_number for client in self.clients if client.revoked}

        async def listed() -> bool:
            answer = await http.get(f"{self.place.url}/crl/{self.authority_id}.crl")
            assert answer.status_code == 200, answer.text
            return revoked <= {one.serial_number for one in x509.load_der_x509_crl(answer.content)}

        await until(listed)

    async def _used_keys_bind_nobody_else(self, http: httpx2.AsyncClient) -> None:
        for client in [one for one in self.clients if one.kid is not None][-LANES:]:
            stranger = Subscriber(client.base, client.key_id, client.secret, client.names)
            with pytest.raises(AssertionError, match=r"new-account 40[13].*:unauthorized"):
                await stranger.go_on(http, self.site)

    async def last_life(self) -> None:
        async with self.door() as http:
            await self._awake(http)
            await asyncio.gather(*(client.go_on(http, self.site) for client in self.clients if not client.is_content))
            await asyncio.gather(*(client.still_true(http) for client in self.clients))
            await self._revoked_are_listed(http)
            await self.check_database()
            assert not await self.place.query(STUCK), self.trail
            await self._check_served()
        assert '"level": "error"' not in self.place.log(), self.place.log()

    # --- what must be true --------------------------------------------------------------------------------------------

    async def check_database(self) -> None:
        for promise, statement in PROMISES.items():
            broken = await self.place.query(statement)
            assert not broken, f"{promise}: {broken} {self.trail}"
        db = Database(self.place.database_url, pool_size=1)
        try:
            verdict = await audit.verify(db, noted=self.sealed)
        finally:
            await db.close()
        assert verdict.ok, f"{verdict.explanation} {self.trail}"
        self.sealed = verdict.head

    async def _check_served(self) -> None:
        """What clients have in hand is all there is, and what it should be."""
        served = {wanted.order or "": wanted for client in self.clients for wanted in client.wanted}
        kept = {row["id"]: x509.load_der_x509_certificate(row["der"]) for row in await self.place.query(FULFILLED)}
        assert kept == {url.rpartition("/")[2]: wanted.leaf for url, wanted in served.items()}, self.trail
        (root,) = x509.load_pem_x509_certificates(self.place.root.read_bytes())
        for wanted in served.values():
            assert wanted.chain is not None
            leaf, *chain = x509.load_pem_x509_certificates(wanted.chain)
            verifier = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName(wanted.names[0]))
            verifier.verify(leaf, chain)
            assert leaf.public_key() == wanted.key.public_key()
        assert len({leaf.public_bytes(Encoding.DER) for leaf in kept.values()}) == len(kept)


def test_clients_go_on_after_each_death_of_their_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def go(home: Path) -> None:
        site = Site()
        await site.open()
        place = Installation(home, site)
        town = Town(place, site)
        try:
            place.open()
            await town.found()
            lives = list(ends())
            for end, following in zip(lives, [*lives[1:], None], strict=True):
                await town.live(end)
                await place.start(processes=1 if following is None else following.processes)
            await town.last_life()
            await place.stop()
            assert town.taken_up, town.trail
        finally:
            await site.close()
            place.close()

    asyncio.run(go(tmp_path_factory.mktemp("sigkill")))
