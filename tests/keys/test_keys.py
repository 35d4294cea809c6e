"""Private keys of certificates: sealed, opened with a reason on record, erased for good."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import NotFound, Refused
from certwright.rooms import audit, keys
from certwright.rooms.keys.tables import private_keys
from certwright.x509.keys import KeyAlgorithm, spki_sha256, to_pkcs8_der
from tests.conftest import World


async def store(world: World) -> tuple[str, keys.NewKey]:
    new = await keys.new_key(KeyAlgorithm.EC_P256)
    async with world.services.db.begin() as tx:
        key_id = await keys.store_key(tx, world.services, new, account_id=world.account.id, project_id=world.project_id)
    return key_id, new


async def erase(world: World, key_id: str, actor: object = None) -> None:
    async with world.services.db.begin() as tx:
        await keys.erase(tx, world.services, actor or world.actor, key_id, "a test")  # type: ignore[arg-type]


async def rows(world: World, query: sa.Select[tuple[object, ...]]) -> list[sa.Row[tuple[object, ...]]]:
    async with world.services.db.begin() as tx:
        return list((await tx.execute(query)).all())


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048])
def test_a_new_key_knows_its_fingerprint(world: World, algorithm: KeyAlgorithm) -> None:
    new = world.run(keys.new_key(algorithm))
    assert new.spki_sha256 == spki_sha256(new.key.public_key())


def test_a_key_is_stored_sealed_and_opens_to_itself(world: World) -> None:
    key_id, new = world.run(store(world))
    ((sealed,),) = world.run(rows(world, sa.select(private_keys.c.sealed)))
    assert to_pkcs8_der(new.key) not in sealed  # type: ignore[operator]
    opened = world.run(keys.open_key(world.services, world.actor, key_id, "to look"))
    assert spki_sha256(opened.public_key()) == new.spki_sha256


def test_every_opening_is_on_record_with_its_reason(world: World) -> None:
    key_id, _ = world.run(store(world))
    world.run(keys.open_key(world.services, world.actor, key_id, "to deploy shop"))
    events = audit.audit_events
    found = world.run(
        rows(world, sa.select(events.c.reason, events.c.object_id).where(events.c.action == "scm:key:read"))
    )
    assert [tuple(row) for row in found] == [("to deploy shop", key_id)]


def test_a_key_of_another_account_is_not_there(world: World) -> None:
    key_id, _ = world.run(store(world))
    with pytest.raises(NotFound):
        world.run(keys.open_key(world.services, world.other_actor, key_id, "to steal"))
    world.run(erase(world, key_id, world.other_actor))
    world.run(keys.open_key(world.services, world.actor, key_id, "still there"))


def test_an_erased_key_is_gone_and_says_so(world: World) -> None:
    key_id, _ = world.run(store(world))
    world.run(erase(world, key_id))
    with pytest.raises(Refused) as caught:
        world.run(keys.open_key(world.services, world.actor, key_id, "too late"))
    assert caught.value.code == "key_erased"


def test_rotation_re_wraps_every_stored_key(world: World) -> None:
    key_id, new = world.run(store(world))
    keeper = world.services.vault.keeper
    first = keeper.active()
    second = keeper.rotate()  # type: ignore[attr-defined]
    assert world.run(world.services.vault.rewrap(world.services.db)) >= 1
    keeper.forget(keep=second)  # type: ignore[attr-defined]
    assert first != second
    opened = world.run(keys.open_key(world.services, world.actor, key_id, "after rotation"))
    assert spki_sha256(opened.public_key()) == new.spki_sha256
    assert world.run(world.services.vault.rewrap(world.services.db)) == 0
