"""What lists say over the years: whom they leave out, and when they stop being the only one."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from certwright.platform.config import Settings
from certwright.rooms import authorities
from certwright.x509.certificates import facts_of
from certwright.x509.crl import CrlFacts, read_crl
from certwright.x509.crl import to_pem as crl_to_pem
from tests.authorities.test_hierarchy import BELOW, do, leaf, look, make, pem_files
from tests.conftest import World


def newest(world: World, ca: authorities.Authority, shard: int = 0) -> CrlFacts:
    return read_crl(world.run(authorities.newest_crl(world.services, ca.id, shard)).der)


@pytest.mark.parametrize("crl_days", [1, 7, 30])
def test_a_revoked_certificate_is_in_lists_by_the_calendar_made_after_its_end(world: World, crl_days: int) -> None:
    low = make(world, BELOW, parent_id=make(world).id, crl_days=crl_days)
    made = leaf(world, low.id, days=2 if crl_days == 1 else 12)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.drain()
    ends = facts_of(made.der).not_after
    told: dict[datetime, bool] = {}
    for _ in range(50):
        listed = newest(world, low)
        told[listed.this_update] = made.serial in listed.entries
        if not told[listed.this_update]:
            break
        world.later(hours=8 * crl_days)
        world.drain()
    after_its_end = [there for made_at, there in told.items() if made_at > ends]
    # RFC 5280 section 3.3.
    assert after_its_end[:1] == [True]
    assert after_its_end[-1:] == [False]


def test_a_list_made_late_still_has_who_was_never_listed_after_the_end(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id, crl_days=1)
    made = leaf(world, low.id, days=2)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.drain()
    # As if nothing ran for a month.
    world.later(days=30)
    world.drain()
    assert made.serial in newest(world, low).entries
    world.later(days=1)
    world.drain()
    assert made.serial not in newest(world, low).entries


def test_the_only_list_says_so_no_more_once_there_are_others(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id)
    assert newest(world, low).idp_url is None
    low = do(world, "update", low.id, crl_shards=3)
    # Who has it must not take it for the whole (RFC 5280 section 5.2.5).
    assert (newest(world, low).idp_url, newest(world, low).number) == (low.crl_url, 2)
    do(world, "update", low.id, crl_shards=2, name="New")
    assert [newest(world, low, shard).number for shard in range(3)] == [2, 1, 1]


def openssl_checks(world: World, folder: Path, low: authorities.Authority, der: bytes) -> str:
    """What openssl says of a certificate, given every list of its CA."""
    root = look(world, low.parent_id or "")
    assert root.certificate_der is not None
    assert low.certificate_der is not None
    pem_files(folder, root=root.certificate_der, low=low.certificate_der, leaf=der)
    lists = [world.run(authorities.newest_crl(world.services, low.id, shard)).der for shard in range(2)]
    (folder / "lists.pem").write_text("".join(crl_to_pem(one) for one in lists))
    done = subprocess.run(
        ["openssl", "verify", "-crl_check", "-attime", str(int(world.clock.now().timestamp())), "-CAfile", "root.pem",
         "-untrusted", "low.pem", "-CRLfile", "lists.pem", "leaf.pem"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_lists_know_their_new_address_from_the_start_with_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(world)
    low = make(world, BELOW, parent_id=root.id, crl_shards=2)
    before = leaf(world, low.id)
    monkeypatch.setattr(Settings, "status_base_url", "http://status.example")
    after = leaf(world, low.id)
    assert facts_of(after.der).crl_urls[0].startswith("http://status.example/crl/")
    assert "different CRL scope" in openssl_checks(world, tmp_path, low, after.der)
    for _ in range(2):
        world.run(authorities.follow_address(world.services))
        world.drain()
        assert [newest(world, low, shard).number for shard in range(2)] == [2, 2]
    assert newest(world, root).number == 1  # the only one of its CA names no address
    for one in (before, after):
        assert "leaf.pem: OK" in openssl_checks(world, tmp_path, low, one.der)
