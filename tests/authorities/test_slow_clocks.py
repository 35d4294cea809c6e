"""Lists and answers just made, read by programs whose clocks are behind: believed, and what was revoked is known."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from cryptography.x509 import ocsp as library

from certwright.rooms import authorities
from certwright.x509.certificates import facts_of
from certwright.x509.crl import to_pem as crl_to_pem
from certwright.x509.ocsp import read_question
from tests.authorities.test_hierarchy import BELOW, leaf, look, make, pem_files
from tests.authorities.test_leaves_and_status import asked_by_sha1
from tests.authorities.test_lists import newest
from tests.conftest import Api, World
from tests.servers.programs import find, require

SLOW = [timedelta(0), timedelta(minutes=3), timedelta(minutes=59)]


@pytest.fixture
def low(world: World) -> authorities.Authority:
    return make(world, BELOW, parent_id=make(world).id, ocsp_enabled=True)


def say(world: World, folder: Path, behind: timedelta, *command: str) -> str:
    """What a program says whose clock is so far behind ours."""
    require("faketime")
    at = world.clock.now() - behind
    done = subprocess.run(
        [find("faketime") or "", "-f", at.strftime("@%Y-%m-%d %H:%M:%S"), *command],
        cwd=folder, capture_output=True, text=True, check=False, env={"TZ": "UTC"},
    )  # fmt: skip
    return done.stdout + done.stderr


def files(world: World, folder: Path, low: authorities.Authority, made: authorities.Leaf) -> None:
    root = look(world, low.parent_id or "")
    assert low.certificate_der is not None
    assert root.certificate_der is not None
    pem_files(folder, root=root.certificate_der, low=low.certificate_der, leaf=made.der)
    lists = [world.run(authorities.newest_crl(world.services, ca.id)).der for ca in (low, root)]
    (folder / "lists.pem").write_text("".join(crl_to_pem(one) for one in lists))


VERIFY = ("openssl", "verify", "-crl_check_all", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "low.pem",
          "-CRLfile", "lists.pem", "leaf.pem")  # fmt: skip
# Without the five minutes it forgives unless told not to.
ASK = ("openssl", "ocsp", "-issuer", "low.pem", "-CAfile", "root.pem", "-cert", "leaf.pem", "-respin", "answer",
       "-no_nonce", "-validity_period", "0")  # fmt: skip


def test_what_was_just_made_is_believed(world: World, api: Api, low: authorities.Authority, tmp_path: Path) -> None:
    made = leaf(world, low.id)
    files(world, tmp_path, low, made)
    asked = asked_by_sha1(low, int(made.serial, 16))
    (tmp_path / "answer").write_bytes(api.request("POST", f"/ocsp/{low.id}", content=asked).content)
    for behind in SLOW:
        assert "leaf.pem: OK" in say(world, tmp_path, behind, *VERIFY)
        said = say(world, tmp_path, behind, *ASK)
        assert "Response verify OK" in said
        assert "leaf.pem: good" in said
        assert "WARNING" not in said


def test_a_revocation_of_this_moment_is_known_though_it_is_younger_than_the_list_says(
    world: World, api: Api, low: authorities.Authority, tmp_path: Path
) -> None:
    made = leaf(world, low.id)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id, "superseded"))
    world.drain()
    listed = newest(world, low)
    assert listed.entries[made.serial] == (world.clock.now(), "superseded")
    assert listed.this_update < world.clock.now()
    files(world, tmp_path, low, made)
    asked = asked_by_sha1(low, int(made.serial, 16))
    (tmp_path / "answer").write_bytes(api.request("POST", f"/ocsp/{low.id}", content=asked).content)
    for behind in SLOW:
        assert "certificate revoked" in say(world, tmp_path, behind, *VERIFY)
        said = say(world, tmp_path, behind, *ASK)
        assert "leaf.pem: revoked" in said
        assert "Response verify OK" in said
        assert "WARNING" not in said


def test_lists_of_one_second_rise_and_the_newest_is_shown_to_caches(
    world: World, api: Api, low: authorities.Authority
) -> None:
    seen = []
    for _ in range(3):
        made = leaf(world, low.id)
        world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
        world.drain()
        answer = api.get(f"/crl/{low.id}.crl")
        assert made.serial in newest(world, low).entries
        # What asks "changed since I fetched it?" by its own watch is told of lists made since.
        assert parsedate_to_datetime(answer.headers["last-modified"]) == world.clock.now()
        seen.append((newest(world, low).number, answer.headers["etag"]))
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers))
    assert len({etag for _, etag in seen}) == 3


def test_nothing_says_it_is_older_than_its_signer(world: World) -> None:
    root = make(world)
    assert root.not_before is not None
    # As with a CA brought along whose certificate was made somewhere else a moment ago.
    world.clock.set(root.not_before + timedelta(minutes=20))
    low = make(world, BELOW, parent_id=root.id, ocsp_enabled=True)
    made = leaf(world, low.id)
    assert newest(world, low).this_update == root.not_before
    asked = read_question(asked_by_sha1(low, int(made.serial, 16)))
    answer = library.load_der_ocsp_response(world.run(authorities.answer(world.services, low.id, asked)).der)
    (responder,) = answer.certificates
    assert responder.not_valid_before_utc == answer.produced_at_utc == answer.this_update_utc == root.not_before
    assert facts_of(made.der).not_before == root.not_before


def test_a_list_late_by_less_than_the_hour_still_counts_as_made_before_the_end(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id, crl_days=1)
    made = leaf(world, low.id, days=2)
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, made.id))
    world.clock.set(facts_of(made.der).not_after + timedelta(minutes=30))
    world.drain()
    assert newest(world, low).this_update < facts_of(made.der).not_after
    # Nothing ran for two days: this is the first that says it was made after the end (RFC 5280 section 3.3).
    world.later(days=2)
    world.drain()
    assert made.serial in newest(world, low).entries
    world.later(days=2)
    world.drain()
    assert made.serial not in newest(world, low).entries
