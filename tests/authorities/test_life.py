"""Random walks of CAs through their lives on a real database, beside a table of what is possible typed in by hand.

Every operation is tried on every CA in whatever state it is: what worked must be in the table, what was refused must
not. After each step every CA is in the state it should be in, issues just if it may, has its key as long as it could be
restored, and is on its parent's list once it is revoked. A tenth of the walks that CERTWRIGHT_WALKS asks for
(`make walks`).
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from certwright.kernel.problems import NotFound, Refused
from certwright.rooms import authorities
from certwright.rooms.authorities.tables import authorities as table
from certwright.rooms.authorities.tables import ca_keys, issued_certificates
from certwright.rooms.authorities.words import CaState
from certwright.x509.crl import read_crl
from tests.authorities.test_hierarchy import BELOW, ROOT, leaf, make
from tests.conftest import START, World

WALKS = int(os.environ.get("CERTWRIGHT_WALKS") or 0) // 10 or 6

S = CaState
FROM = {
    "issue": {S.ACTIVE},
    "certify a CA": {S.ACTIVE},
    "update": {S.PENDING, S.ACTIVE, S.DISABLED, S.REVOKED},
    "disable": {S.ACTIVE},
    "enable": {S.DISABLED},
    "revoke": {S.ACTIVE, S.DISABLED},
    "delete": {S.PENDING, S.DISABLED, S.EXPIRED, S.REVOKED},
    "restore": {S.DELETED},
    "renew": {S.ACTIVE, S.EXPIRED},
}
"""In which states an operation is possible at all."""


@dataclass(eq=False)
class Kept:
    """What should be true of one CA."""

    id: str
    parent: Kept | None
    serial: str | None
    not_before: datetime | None
    not_after: datetime | None
    disabled: bool = False
    revoked: bool = False
    delete_at: datetime | None = None
    erased: bool = False

    def above(self) -> list[Kept]:
        return [] if self.parent is None else [self.parent, *self.parent.above()]

    def state(self, now: datetime) -> CaState:
        if self.delete_at is not None:
            return S.DELETED
        if self.not_after is None:
            return S.PENDING
        if self.revoked:
            return S.REVOKED
        return S.EXPIRED if self.not_after <= now else S.DISABLED if self.disabled else S.ACTIVE

    def usable(self, now: datetime) -> bool:
        """Whether it is or may become of use again."""
        return not (self.erased or self.revoked) and (self.not_after is None or self.not_after > now)


class Walk:
    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.names = world, number, count()
        world.clock.set(START)
        self.cas: list[Kept] = []
        top = self._make(None)
        self._make(top, days=100)
        self._made(make(world, BELOW, name=self._name(), outside=True), None)

    def _name(self) -> str:
        return f"{self.number}.{next(self.names)}"

    def _made(self, ca: authorities.Authority, parent: Kept | None) -> Kept:
        kept = Kept(ca.id, parent, ca.serial, ca.not_before, ca.not_after)
        self.cas.append(kept)
        return kept

    def _make(self, parent: Kept | None, days: int = 300) -> Kept:
        asked = replace(ROOT if parent is None else BELOW, path_len=None, days=days, name=self._name())
        return self._made(make(self.world, asked, parent_id=parent.id if parent else None), parent)

    def possible(self, what: str, ca: Kept, days: int) -> bool:
        now = self.world.clock.now()
        if ca.erased or ca.state(now) not in FROM[what]:
            return False
        below = [one for one in self.cas if one.parent is ca and one.usable(now)]
        match what:
            case "issue" | "revoke":
                return ca.parent is not None
            case "delete":
                until = now + timedelta(days=days)
                return all(one.delete_at is not None and one.delete_at <= until for one in below)
            case "restore":
                return ca.parent is None or ca.parent.delete_at is None
            case "renew":
                return self._gains(ca, now)
            case "enable":
                return not any(upper.revoked for upper in ca.above())
        return True

    def _gains(self, ca: Kept, now: datetime) -> bool:
        """Whether a certificate for 400 days would end later by more than nothing."""
        if ca.parent is not None and (ca.parent.erased or ca.parent.state(now) is not S.ACTIVE):
            return False
        ends = [now + timedelta(days=400, hours=-1, seconds=-1)]
        ends += [ca.parent.not_after] if ca.parent is not None and ca.parent.not_after is not None else []
        assert ca.not_before is not None
        assert ca.not_after is not None
        return min(ends) - ca.not_after >= min(timedelta(days=1), (ca.not_after - ca.not_before) / 10)

    def step(self, what: str, ca: Kept, days: int) -> None:
        possible = self.possible(what, ca, days)
        with nullcontext() if possible else pytest.raises((Refused, NotFound)):
            self._do(what, ca, days)
        if possible:
            self._note(what, ca, days)

    def _do(self, what: str, ca: Kept, days: int) -> None:
        services, actor = self.world.services, self.world.actor
        if what == "issue":
            leaf(self.world, ca.id)
        elif what == "certify a CA":
            self._make(ca, days=50)
        elif what == "update":
            self.world.run(authorities.update_authority(services, actor, ca.id, name=self._name()))
        elif what == "renew":
            made = self.world.run(authorities.renew_authority(services, actor, ca.id, days=400))
            ca.serial, ca.not_before, ca.not_after = made.serial, made.not_before, made.not_after
        elif what == "delete":
            self.world.run(authorities.delete_authority(services, actor, ca.id, days=days))
        else:
            self.world.run(getattr(authorities, f"{what}_authority")(services, actor, ca.id))

    def _note(self, what: str, ca: Kept, days: int) -> None:
        match what:
            case "disable" | "enable":
                ca.disabled = what == "disable"
            case "revoke":
                ca.revoked = True
                for one in self.cas:
                    if ca in one.above() and one.state(self.world.clock.now()) is S.ACTIVE:
                        one.disabled = True
            case "delete":
                ca.delete_at = self.world.clock.now() + timedelta(days=days)
            case "restore":
                ca.delete_at = None

    def rest(self, days: int) -> None:
        """Time passes, and what is due is done."""
        now = self.world.later(days=days)
        self.world.drain()
        for ca in self.cas:
            ca.erased = ca.erased or (ca.delete_at is not None and ca.delete_at <= now)

    def check(self) -> None:
        self.world.drain()
        now = self.world.clock.now()
        has_key = self.world.run(self._keys())
        for ca in self.cas:
            assert has_key[ca.id] is not ca.erased
            try:
                seen = self.world.run(authorities.get_authority(self.world.services, self.world.actor, ca.id)).state
                assert (seen, ca.erased) == (ca.state(now), False)
            except NotFound:
                assert ca.erased
            above = ca.parent
            if above is not None and not above.erased and ca.not_after is not None and ca.not_after > now:
                assert (ca.serial in self.listed(above)) is ca.revoked

    def listed(self, ca: Kept) -> set[str]:
        return set(read_crl(self.world.run(authorities.newest_crl(self.world.services, ca.id)).der).entries)

    async def _keys(self) -> dict[str, bool]:
        query = sa.select(table.c.id, ca_keys.c.sealed.is_not(None).label("held")).join(
            ca_keys, ca_keys.c.id == table.c.ca_key_id
        )
        async with self.world.services.db.read() as tx:
            return {row.id: row.held for row in await tx.execute(query)}

    def end(self) -> None:
        """Whatever became of them: none of them has work to do in the next walk."""

        async def forget() -> None:
            async with self.world.services.db.begin() as tx:
                await tx.execute(sa.update(table).values(next_step_at=None, delete_at=None, erased_at=START))
                await tx.execute(sa.delete(issued_certificates))

        self.world.run(forget())


_numbers = count()
_step = st.tuples(st.sampled_from([*FROM, "rest"]), st.integers(0, 3), st.sampled_from([7, 8, 30]))


# Walks that chance seldom takes: a parent and its child deleted and restored; what is below a revoked CA; an end.
@example([
    ("disable", 1, 7), ("delete", 1, 30), ("disable", 0, 7), ("delete", 0, 8), ("delete", 0, 30), ("restore", 1, 7),
    ("restore", 0, 7), ("restore", 1, 7), ("enable", 1, 7), ("enable", 0, 7),
])  # fmt: skip
@example([("certify a CA", 1, 7), ("revoke", 1, 7), ("enable", 3, 7), ("issue", 3, 7), ("delete", 3, 7)])
@example([("renew", 1, 7), ("renew", 0, 7), ("renew", 1, 7), ("issue", 1, 7), ("revoke", 1, 7), ("renew", 1, 7)])
@example([("delete", 2, 7), ("rest", 0, 7), ("restore", 2, 7), ("disable", 1, 7), ("delete", 1, 8), ("rest", 0, 30)])
@settings(max_examples=WALKS, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_step, min_size=6, max_size=16))
def test_a_ca_does_in_each_state_what_it_may_and_nothing_else(world: World, steps: list[tuple[str, int, int]]) -> None:
    walk = Walk(world, next(_numbers))
    try:
        for what, which, days in steps:
            if what == "rest":
                walk.rest(days)
            else:
                walk.step(what, walk.cas[which % len(walk.cas)], days)
            walk.check()
    finally:
        walk.end()
