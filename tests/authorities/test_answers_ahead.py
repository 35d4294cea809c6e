"""Answers signed before anybody asks: kept in step with the certificates' state, renewed, forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.x509 import ocsp as library

from certwright.rooms import authorities
from certwright.rooms.authorities import status
from certwright.rooms.authorities.signer import Signer
from certwright.rooms.authorities.status import StatusAnswers
from certwright.rooms.authorities.tables import ca_keys, issued_certificates, ocsp_answers, ocsp_responders
from certwright.x509 import ocsp
from certwright.x509.csr import make_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, generate
from certwright.x509.ocsp import Question, Status
from tests.authorities.test_hierarchy import BELOW, do, leaf, make
from tests.authorities.test_leaves_and_status import asked_by_sha1, state_of
from tests.conftest import World


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True)


def signed(world: World) -> dict[str, Any]:
    """Rows of the table by serial, for the usual digest."""

    async def go() -> dict[str, Any]:
        async with world.services.db.begin() as tx:
            rows = (await tx.execute(sa.select(ocsp_answers).where(ocsp_answers.c.hash_name == "sha1"))).all()
        return {row.serial: row for row in rows}

    return world.run(go())


def write(world: World, statement: Any) -> None:
    async def go() -> None:
        async with world.services.db.begin() as tx:
            await tx.execute(statement)

    world.run(go())


def ahead(world: World) -> None:
    """As time goes by: the CA's step looks every five minutes."""
    world.later(minutes=5)
    world.drain()


def usual(ca: authorities.Authority, serial: str) -> Question:
    return ocsp.read_question(asked_by_sha1(ca, int(serial, 16)))


def ask(world: World, ca: authorities.Authority, serial: str) -> Status:
    der = world.run(authorities.answer(world.services, ca.id, usual(ca, serial))).der
    return Status(library.load_der_ocsp_response(der).certificate_status.name.lower())


def test_what_was_issued_is_answered_for_without_the_key(
    world: World, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [leaf(world, low.id, f"h{n}.example.com") for n in range(3)]
    ahead(world)

    async def refuses(*_: object) -> bytes:
        raise AssertionError("it was signed again")

    monkeypatch.setattr(world.services.port(Signer), "sign", refuses)  # type: ignore[type-abstract]
    for one in made:
        assert ask(world, low, one.serial) is Status.GOOD
        row = signed(world)[one.serial]
        assert world.run(authorities.answer(world.services, low.id, usual(low, one.serial))).der == row.der


@pytest.mark.parametrize(("together", "written"), [(2, 1000), (4, 3), (1000, 2)])
def test_thousands_are_signed_in_parts_by_one_step(
    world: World, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch, together: int, written: int
) -> None:
    monkeypatch.setattr(status, "TOGETHER", together)
    monkeypatch.setattr(status, "_WRITTEN_TOGETHER", written)
    made = {leaf(world, low.id, f"h{n}.example.com").serial for n in range(5)}
    ahead(world)
    assert made <= signed(world).keys()


def test_the_step_that_lists_a_revocation_replaces_the_answer(world: World, low: authorities.Authority) -> None:
    made = leaf(world, low.id)
    ahead(world)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id, "superseded"))
    world.drain()
    row = signed(world)[made.serial]
    response = library.load_der_ocsp_response(row.der)
    assert (response.certificate_status, row.revoked_at) == (library.OCSPCertStatus.REVOKED, world.clock.now())


def test_an_answer_that_says_otherwise_than_the_certificates_row_is_not_given(
    world: World, low: authorities.Authority
) -> None:
    made = leaf(world, low.id)
    ahead(world)
    assert ask(world, low, made.serial) is Status.GOOD
    i, now = issued_certificates.c, world.clock.now()
    write(world, sa.update(issued_certificates).where(i.serial == made.serial).values(revoked_at=now))
    # As another process finds it, which has heard of nothing.
    world.services.ports[StatusAnswers] = StatusAnswers(world.services)  # type: ignore[index]  # a plain dict, in tests
    assert ask(world, low, made.serial) is Status.REVOKED
    assert signed(world)[made.serial].revoked_at == now


def test_an_answer_signed_before_the_revocation_comes_too_late_to_be_kept(
    world: World, low: authorities.Authority
) -> None:
    made = leaf(world, low.id)
    ahead(world)
    before = signed(world)[made.serial]
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.drain()
    now = world.clock.now() + timedelta(seconds=5)
    good = status._Signed("sha1", before, status._Fresh(before.der, now, now + timedelta(days=1)))

    async def keep() -> None:
        async with world.services.db.begin() as tx:
            await status._keep(tx, low.id, [good])

    world.run(keep())
    assert signed(world)[made.serial].revoked_at is not None


def test_answers_are_renewed_at_a_third_of_their_life_whatever_the_digest(
    world: World, low: authorities.Authority
) -> None:
    made = leaf(world, low.id)
    assert state_of(world, low, int(made.serial, 16)) is Status.GOOD  # asked for by SHA-256
    ahead(world)
    first = signed(world)[made.serial]
    # A third of the day without the hour it says it is older.
    world.later(hours=7, minutes=34)
    world.drain()
    assert signed(world)[made.serial] == first
    world.later(minutes=15)
    world.drain()

    async def all_of_it() -> list[Any]:
        async with world.services.db.begin() as tx:
            o = ocsp_answers.c
            return list((await tx.execute(sa.select(ocsp_answers).where(o.serial == made.serial))).all())

    renewed = world.run(all_of_it())
    assert {row.hash_name for row in renewed} == {"sha1", "sha256"}
    assert {row.this_update for row in renewed} == {world.clock.now()}


def test_a_new_responder_signs_everything_anew_before_the_old_one_ends(
    world: World, low: authorities.Authority
) -> None:
    made = leaf(world, low.id)
    ahead(world)

    def responders() -> list[Any]:
        async def go() -> list[Any]:
            async with world.services.db.begin() as tx:
                return list((await tx.execute(sa.select(ocsp_responders).order_by(ocsp_responders.c.not_after))).all())

        return world.run(go())

    old = responders()[-1]
    for _ in range(48):
        world.later(hours=8)
        world.drain()
        row = signed(world)[made.serial]
        assert row.this_update <= world.clock.now() < row.next_update
        # No answer says more than whoever signed it may.
        signer = next(one for one in (old, *responders()) if one.certificate_der in row.der)
        assert row.next_update <= signer.not_after
    assert old.certificate_der not in row.der
    assert old.not_after > world.clock.now()  # replaced long before its end


def test_answers_end_with_their_certificate(world: World, low: authorities.Authority) -> None:
    short, long = leaf(world, low.id, days=2), leaf(world, low.id, "b.example.com", days=20)
    ahead(world)
    world.later(days=3)
    world.drain()
    assert short.serial not in signed(world)
    assert long.serial in signed(world)
    # Asked about all the same, it is answered and not kept.
    assert ask(world, low, short.serial) is Status.GOOD
    assert short.serial not in signed(world)


@pytest.mark.parametrize("how", ["turned off", "deleted"])
def test_answers_go_with_the_cas_wish_to_answer(world: World, low: authorities.Authority, how: str) -> None:
    leaf(world, low.id)
    ahead(world)
    assert signed(world)
    if how == "deleted":
        do(world, "disable", low.id)
        do(world, "delete", low.id, days=7)
        world.later(days=8)
    else:
        change = authorities.update_authority(
            world.services, world.actor, low.id, revision=low.revision, ocsp_enabled=False
        )
        world.run(change)
        world.later(days=3)
    world.drain()
    assert signed(world) == {}


@pytest.mark.parametrize("how", ["turned off", "ended"])
def test_no_key_of_a_responder_outlives_its_certificate(world: World, how: str) -> None:
    low = make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True, days=20)

    async def keys() -> tuple[int, int]:
        """How many there are still, and how many responders."""
        async with world.services.db.begin() as tx:
            found = await tx.scalar(sa.select(sa.func.count(ca_keys.c.sealed)))
            return found or 0, await tx.scalar(sa.select(sa.func.count()).select_from(ocsp_responders)) or 0

    assert world.run(keys()) == (3, 1)
    if how == "turned off":
        change = authorities.update_authority(
            world.services, world.actor, low.id, revision=low.revision, ocsp_enabled=False
        )
        world.run(change)
    world.later(days=21)
    world.drain()
    # The root's key and that of the CA below.
    assert world.run(keys()) == (2, 0)


@pytest.mark.parametrize(("what", "most"), [("answers ahead", 1), ("a batch", 4)])
def test_whoever_else_has_requests_has_a_turn_between_signatures(
    world: World, low: authorities.Authority, monkeypatch: pytest.MonkeyPatch, what: str, most: int
) -> None:
    csr = to_pem(make_csr(generate(KeyAlgorithm.EC_P256), ["a.example.com"])).decode()
    batch = [authorities.LeafRequest("server", ("a.example.com",), csr=csr)] * 30
    turns, seen = 0, list[int]()
    signer = world.services.port(Signer)
    sign = signer.sign

    async def counted(*args: Any) -> bytes:
        seen.append(turns)
        return await sign(*args)

    async def meanwhile() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both(work: Coroutine[Any, Any, object]) -> None:
        others = asyncio.create_task(meanwhile())
        try:
            await work
        finally:
            others.cancel()

    issue = authorities.issue_leaves(world.services, world.actor, low.id, batch)
    if what == "a batch":
        monkeypatch.setattr(signer, "sign", counted)
        world.run(both(issue))
    else:
        world.run(issue)
        monkeypatch.setattr(signer, "sign", counted)
        world.run(both(status.sign_ahead(world.services, low.id)))
    assert len(seen) >= len(batch)
    assert max(Counter(seen).values()) <= most
