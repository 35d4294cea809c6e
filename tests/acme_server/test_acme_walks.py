"""Random walks of three accounts through the ACME server, compared with a model that knows only RFC 8555.

Each step is tried in every state, with whatever account, order and key comes up: what the model allows must be done,
all else refused without leaving a trace. In the end each certificate there is belongs to an order that is valid, and
every name in it was shown by the account of that order before.

As many walks as CERTWRIGHT_WALKS says.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import hypothesis
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from certwright.acme import jose
from certwright.acme.jose import b64url
from certwright.entry.app import create_app
from tests.acme_server.support import Client, Outside, csr, open_directory, problem
from tests.conftest import START, World

WALKS = int(os.environ.get("CERTWRIGHT_WALKS") or 0) or 12

NAMES = ("a.example", "b.example", "*.a.example", "127.0.0.1")
ORDER_LIFE, PROOF_LIFE = timedelta(days=7), timedelta(days=30)
DONE: Counter[str] = Counter()


@dataclass
class Proof:
    url: str
    name: str
    expires: datetime
    status: str = "pending"
    begun: bool = False
    shown_at: datetime | None = None

    def state(self, now: datetime) -> str:
        if self.expires <= now and self.status in ("pending", "valid"):
            return {"pending": "invalid", "valid": "expired"}[self.status]
        return self.status


@dataclass
class Order:
    owner: int
    url: str
    names: tuple[str, ...]
    proofs: list[Proof]
    expires: datetime
    status: str = "pending"
    leaf: x509.Certificate | None = None
    key: Any = None
    revoked: bool = False

    def state(self, now: datetime) -> str:
        if self.status != "pending":
            return self.status
        states = {proof.state(now) for proof in self.proofs}
        if self.expires <= now or states - {"pending", "valid"}:
            return "invalid"
        return "ready" if states == {"valid"} else "pending"


@dataclass
class Person:
    client: Client
    alive: bool = True
    # What was ever shown, by whichever key the account had.
    shown: list[Proof] = field(default_factory=list)


class Walk:
    def __init__(self, world: World, net: Outside, app: Any, reuse_days: int) -> None:
        world.clock.set(START)
        net.clear()
        self.world, self.net, self.reuse = world, net, timedelta(days=reuse_days)
        Walk.number += 1
        self.directory = open_directory(world, name=f"Walk {Walk.number}", reuse_days=reuse_days)
        self.people = [Person(Client(world, self.directory, net, app).register()) for _ in range(3)]
        self.orders: list[Order] = []
        self.trail: list[str] = []

    number = 0

    @property
    def now(self) -> datetime:
        return self.world.clock.now()

    def pick(self, who: int, number: int) -> tuple[Order | None, int]:
        """An order, and who does something with it: mostly whoever ordered it."""
        if not self.orders:
            return None, who
        order = self.orders[number % len(self.orders)]
        return order, order.owner if number % 4 else who

    def refused(self, response: Any, *kinds: str, status: int | None = None) -> None:
        assert response.status_code >= 400, f"{self.trail}: {response.text}"
        assert problem(response) in kinds, f"{self.trail}: {response.text}"
        assert status in (None, response.status_code), f"{self.trail}: {response.text}"

    def closed(self, person: Person, response: Any) -> bool:
        """Of an account that is gone nothing is heard any more."""
        if not person.alive:
            self.refused(response, "unauthorized", status=403)
        return not person.alive

    # --- steps --------------------------------------------------------------------------------------------------------

    def order(self, who: int, number: int) -> None:
        person = self.people[who]
        names = tuple(name for at, name in enumerate(NAMES) if (number % 15 + 1) >> at & 1)
        response = person.client.order(*names)
        if self.closed(person, response):
            return
        assert response.status_code == 201, response.text
        said, reused = response.json(), {}
        for proof in person.shown:
            fresh = proof.shown_at is not None and proof.shown_at > self.now - self.reuse
            lasts = proof.state(self.now) == "valid" and proof.expires > self.now + ORDER_LIFE / 7
            if self.reuse and fresh and lasts:
                reused[proof.name] = proof
        expires = min([self.now + ORDER_LIFE, *(reused[name].expires for name in names if name in reused)])
        proofs = []
        for name, url in zip(names, said["authorizations"], strict=True):
            assert name not in reused or reused[name].url == url, f"{self.trail}: {name}"
            assert name in reused or url not in {proof.url for order in self.orders for proof in order.proofs}
            proofs.append(reused.get(name) or Proof(url, name, expires))
        self.orders.append(Order(who, response.headers["location"], names, proofs, expires))
        DONE["ordered with a proof used again" if reused else "ordered"] += 1

    def show(self, who: int, number: int, *, honest: bool) -> None:
        """One account asks to have a challenge of an order looked at: honest, what was published is right for it."""
        order, who = self.pick(who, number)
        if order is None:
            return
        self.show_one(who, order, order.proofs[number // 7 % len(order.proofs)], honest=honest)

    def show_one(self, who: int, order: Order, proof: Proof, *, honest: bool) -> None:
        person, owner = self.people[who], self.people[order.owner]
        kind = "dns-01" if proof.name.startswith("*.") else "http-01"
        url = proof.url.replace("/authz/", "/challenge/") + f"/{kind}"
        if owner.alive and honest and who == order.owner:
            owner.client.show(self.said(owner, proof.url), kind)
        elif owner.alive and who == order.owner:
            # Another account's answer is published for this one's token.
            stranger = self.people[(who + 1) % 3]
            said = self.said(owner, proof.url)
            owner.client.key, mine = stranger.client.key, owner.client.key
            owner.client.show(said, kind)
            owner.client.key = mine
        response = person.client.post(url, {})
        person.client.settle()
        if self.closed(person, response):
            return
        if who != order.owner:
            self.refused(response, "malformed", status=404)
            return
        assert response.status_code == 200, f"{self.trail}: {response.text}"
        if proof.state(self.now) != "pending" or proof.begun:
            return
        proof.begun = True
        for _ in range(0 if honest or kind == "http-01" else 2):
            self.world.later(seconds=10)
            self.world.drain()
        if honest:
            proof.status, proof.shown_at, proof.expires = "valid", self.now, self.now + PROOF_LIFE
            person.shown.append(proof)
        else:
            self.lose(who, proof, "invalid")
        DONE["shown" if honest else "not shown"] += 1
        assert self.said(owner, proof.url)["status"] == proof.state(self.now), self.trail

    def said(self, person: Person, url: str) -> Any:
        return person.client.read(url)

    def lose(self, who: int, proof: Proof, status: str) -> None:
        proof.status = status
        for order in self.orders:
            if order.owner == who and order.status == "pending" and proof in order.proofs:
                order.status = "invalid"

    def finalize(self, who: int, number: int) -> None:
        order, who = self.pick(who, number)
        if order is None:
            return
        self.finalize_one(who, order, wrong=number // 11 % 4 == 0)

    def finalize_one(self, who: int, order: Order, *, wrong: bool) -> None:
        person, key = self.people[who], ec.generate_private_key(ec.SECP256R1())
        names = (*order.names, "c.example") if wrong else order.names
        response = person.client.post(f"{order.url}/finalize", {"csr": csr(*names, key=key)})
        if self.closed(person, response):
            return
        if who != order.owner:
            self.refused(response, "malformed", status=404)
        elif order.state(self.now) != "ready":
            self.refused(response, "orderNotReady", status=403)
        elif wrong:
            self.refused(response, "badCSR", status=400)
        else:
            assert response.status_code == 200, f"{self.trail}: {response.text}"
            chain = person.client.post(response.json()["certificate"], None)
            order.leaf, order.status, order.key = x509.load_pem_x509_certificates(chain.content)[0], "valid", key
            DONE["issued"] += 1

    def give_up_proof(self, who: int, number: int) -> None:
        order, who = self.pick(who, number)
        if order is None:
            return
        person, proof = self.people[who], order.proofs[number // 7 % len(order.proofs)]
        response = person.client.post(proof.url, {"status": "deactivated"})
        if self.closed(person, response):
            return
        if who != order.owner:
            self.refused(response, "malformed", status=404)
            return
        assert response.status_code == 200, response.text
        if proof.status in ("pending", "valid"):
            self.lose(who, proof, "deactivated")
            DONE["a proof given up"] += 1

    def leave(self, who: int, number: int) -> None:
        # Not each time: of those who have left nothing more is learnt.
        if number % 3:
            return
        person = self.people[who]
        response = person.client.post(person.client.kid or "", {"status": "deactivated"})
        if not self.closed(person, response):
            assert response.json()["status"] == "deactivated"
            person.alive = False
            DONE["left"] += 1

    def change_key(self, who: int, number: int) -> None:
        person, url = self.people[who], self.people[who].client.at("key-change")
        other = self.people[(who + 1) % 3]
        taken = number % 3 == 0
        new = other.client.key if taken else ec.generate_private_key(ec.SECP256R1())
        inner = jose.key_change(person.client.key, new, account_url=person.client.kid or "", url=url)
        response = person.client.post(url, inner)
        if self.closed(person, response):
            return
        if taken:
            self.refused(response, "malformed", status=409)
            assert response.headers["location"] == other.client.kid
            return
        assert response.status_code == 200, response.text
        self.refused(person.client.post(person.client.kid or "", None), "malformed", status=400)
        person.client.key = new
        DONE["a key changed"] += 1

    def revoke(self, who: int, number: int) -> None:
        order, who = self.pick(who, number)
        if order is None or order.leaf is None:
            return
        person, by_key = self.people[who], number // 5 % 3 == 0
        payload = {"certificate": b64url(order.leaf.public_bytes(Encoding.DER))}
        url = person.client.at("revoke-cert")
        if by_key:
            mine, person.client.key = person.client.key, order.key
            response = person.client.post(url, payload, by_key=True)
            person.client.key = mine
        else:
            response = person.client.post(url, payload)
            if self.closed(person, response):
                return
            shown = {proof.name for proof in person.shown if proof.state(self.now) == "valid"}
            if who != order.owner and not set(order.names) <= shown:
                self.refused(response, "unauthorized", status=403)
                return
        if order.revoked:
            self.refused(response, "alreadyRevoked")
            return
        assert response.status_code == 200, f"{self.trail}: {response.text}"
        order.revoked = True
        by = "its account" if who == order.owner else "another that showed control"
        DONE[f"revoked by {'its key' if by_key else by}"] += 1

    def days(self, who: int, number: int) -> None:
        self.world.later(days=(1, 6, 8, 25)[number % 4])

    def obtain(self, who: int, number: int) -> None:
        """The good way, with all its steps."""
        before = len(self.orders)
        self.order(who, number)
        if len(self.orders) > before:
            order = self.orders[before]
            for proof in order.proofs:
                self.show_one(who, order, proof, honest=True)
            self.finalize_one(who, order, wrong=False)

    # --- what must be true --------------------------------------------------------------------------------------------

    def check(self) -> None:
        for order in self.orders:
            for who, person in enumerate(self.people):
                if not person.alive:
                    continue
                response = person.client.post(order.url, None)
                if who == order.owner:
                    assert response.json()["status"] == order.state(self.now), f"{self.trail}: {response.text}"
                    assert ("certificate" in response.json()) == (order.leaf is not None), self.trail
                    continue
                places = (order.url, order.url.replace("/order/", "/cert/"), *(proof.url for proof in order.proofs))
                for place in places:
                    self.refused(person.client.post(place, None), "malformed", status=404)
        self.world.run(self._check_issued())

    async def _check_issued(self) -> None:
        query = sa.text(
            "SELECT i.serial, i.names, i.revoked_at IS NOT NULL AS revoked, i.not_before FROM issued_certificates i "
            "JOIN acme_orders o ON o.id = i.reference WHERE o.directory_id = :directory AND i.id = o.issued_id "
            "AND o.status = 'valid'"
        )
        loose = sa.text(
            "SELECT count(*) FROM issued_certificates i LEFT JOIN acme_orders o ON o.issued_id = i.id "
            "WHERE i.reference LIKE 'aco\\_%' AND o.id IS NULL"
        )
        async with self.world.services.db.read() as tx:
            rows = (await tx.execute(query, {"directory": self.directory.id})).all()
            assert await tx.scalar(loose) == 0, self.trail
        model = {f"{order.leaf.serial_number:x}": order for order in self.orders if order.leaf is not None}
        assert {row.serial: row.revoked for row in rows} == {
            serial: order.revoked for serial, order in model.items()
        }, self.trail  # fmt: skip
        for row in rows:
            order = model[row.serial]
            shown = {proof.name for proof in self.people[order.owner].shown if proof in order.proofs}
            assert set(row.names) == set(order.names) == shown, self.trail


STEPS: dict[str, Callable[[Walk, int, int], None]] = {
    "obtain": Walk.obtain,
    "order": Walk.order,
    "show": lambda walk, who, number: walk.show(who, number, honest=True),
    "show something else": lambda walk, who, number: walk.show(who, number, honest=False),
    "finalize": Walk.finalize,
    "give up a proof": Walk.give_up_proof,
    "leave": Walk.leave,
    "change the key": Walk.change_key,
    "revoke": Walk.revoke,
    "days pass": Walk.days,
}
SCRIPTS: tuple[tuple[int, list[tuple[str, int, int]]], ...] = (
    (0, [("obtain", 0, 0), ("obtain", 1, 0), ("revoke", 1, 8), ("revoke", 0, 5), ("revoke", 2, 0), ("obtain", 0, 2),
         ("change the key", 0, 1), ("change the key", 0, 0), ("give up a proof", 0, 2), ("revoke", 0, 2),
         ("leave", 0, 0), ("order", 0, 0), ("revoke", 0, 0)]),
    (0, [("order", 1, 0), ("show something else", 1, 1), ("order", 1, 3), ("show something else", 1, 1),
         ("order", 2, 2), ("show", 2, 2), ("finalize", 2, 2), ("days pass", 0, 1), ("show", 2, 9), ("finalize", 2, 11),
         ("days pass", 0, 1), ("finalize", 2, 11)]),
    (10, [("obtain", 0, 0), ("order", 0, 2), ("order", 1, 0), ("days pass", 0, 1), ("order", 0, 0), ("finalize", 0, 3),
          ("give up a proof", 0, 3), ("order", 0, 0), ("days pass", 0, 2), ("order", 0, 2)]),
)  # fmt: skip
"""Walks that see what random ones don't each time: (days a proof is used again, steps)."""

# Without some pushing hardly a walk would get far.
STEP = st.tuples(
    st.sampled_from([*STEPS, "obtain", "order", "show", "show", "finalize", "finalize", "revoke"]),
    st.integers(0, 2), st.integers(0, 10_000),
)  # fmt: skip


def test_no_walk_finds_a_certificate_for_what_was_not_shown(world: World, net: Outside) -> None:
    app = create_app(world.services)

    @hypothesis.settings(
        max_examples=WALKS, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )  # fmt: skip
    @given(reuse_days=st.sampled_from([0, 10]), steps=st.lists(STEP, min_size=5, max_size=14))
    def walks(reuse_days: int, steps: list[tuple[str, int, int]]) -> None:
        walk = Walk(world, net, app, reuse_days)
        for what, who, number in steps:
            walk.trail.append(f"{what} {who} {number}")
            STEPS[what](walk, who, number)
        walk.check()

    for reuse_days, steps in SCRIPTS:
        walks = hypothesis.example(reuse_days=reuse_days, steps=steps)(walks)
    walks()
    print(f"\n{DONE}")
    assert set(DONE) == {
        "ordered", "ordered with a proof used again", "shown", "not shown", "issued", "a proof given up", "left",
        "a key changed", "revoked by its account", "revoked by another that showed control", "revoked by its key",
    }  # fmt: skip
