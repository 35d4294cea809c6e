"""The built-in CA against a real database, with OpenSSL as the second opinion."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509

from certwright.kernel.problems import Invalid, NotFound, Refused, Unavailable
from certwright.platform.db import Tx
from certwright.rooms import authorities
from certwright.rooms.authorities.tables import ca_keys, crls, issued_certificates
from certwright.x509.certificates import read_certificate, to_pem, verify_chain
from certwright.x509.crl import read_crl
from certwright.x509.keys import KeyAlgorithm, generate
from tests.conftest import World

# The issuing CA's own certificate is on its root's books.
LEAVES = sa.select(sa.func.count()).select_from(issued_certificates).where(issued_certificates.c.profile == "server")


@pytest.fixture
def ca(world: World) -> World:
    world.run(authorities.ensure_builtin(world.services, world.account.id, world.project_id))
    return world


def request(world: World, *names: str, reference: str = "app_1", **changes: object) -> authorities.IssueRequest:
    fields: dict[str, object] = {
        "reference": reference,
        "account_id": world.account.id,
        "project_id": world.project_id,
        "names": names or ("a.example.com",),
        "public_key": generate(KeyAlgorithm.EC_P256).public_key(),
    } | changes
    return authorities.IssueRequest(**fields)  # type: ignore[arg-type]


async def issue(world: World, asked: authorities.IssueRequest) -> authorities.IssuedCertificate:
    async with world.services.db.begin() as tx:
        ca_id = await authorities.builtin_issuing_id(tx, world.account.id)
    return await authorities.issue(world.services, ca_id, asked)


async def roots(world: World) -> tuple[bytes, ...]:
    async with world.services.db.begin() as tx:
        return await authorities.root_ders(tx)


def test_the_first_start_makes_a_root_and_an_issuing_ca_and_later_starts_find_them(ca: World) -> None:
    ca.run(authorities.ensure_builtin(ca.services, ca.account.id, ca.project_id))
    found = ca.run(authorities.list_authorities(ca.services, ca.actor))
    assert [(a.kind, a.state) for a in found] == [("root", "active"), ("issuing", "active")]
    assert found[1].parent_id == found[0].id
    assert {a.key_algorithm for a in found} == {"EC P-256"}


def test_starts_racing_each_other_make_one_hierarchy(world: World) -> None:
    async def six() -> None:
        await asyncio.gather(
            *(authorities.ensure_builtin(world.services, world.account.id, world.project_id) for _ in range(6))
        )

    world.run(six())
    assert len(world.run(authorities.list_authorities(world.services, world.actor))) == 2


def test_openssl_accepts_what_the_ca_issues(ca: World, tmp_path: Path) -> None:
    issued = ca.run(issue(ca, request(ca, "a.example.com", "*.b.example.com", "192.0.2.7")))
    (root,) = ca.run(roots(ca))
    for name, ders in (("leaf", [issued.der]), ("chain", issued.chain_ders), ("root", [root])):
        (tmp_path / f"{name}.pem").write_text("".join(to_pem(der) for der in ders))
    verdict = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", str(int(ca.clock.now().timestamp())), "-verify_hostname",
         "x.b.example.com", "-purpose", "sslserver", "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verdict.stdout.strip() == "leaf.pem: OK", verdict.stderr
    verify_chain(issued.der, issued.chain_ders, [root], at=ca.clock.now(), name="a.example.com")


def test_serials_have_at_least_128_random_bits_and_differ(ca: World) -> None:
    serials = {ca.run(issue(ca, request(ca, reference=f"app_{i}"))).serial for i in range(20)}
    assert len(serials) == 20
    assert all(int(serial, 16).bit_length() > 128 for serial in serials)


def test_the_same_reference_never_yields_two_certificates(ca: World) -> None:
    first = ca.run(issue(ca, request(ca)))
    again = ca.run(issue(ca, request(ca)))
    assert again == first


def test_workers_racing_with_one_reference_get_one_certificate(ca: World) -> None:
    async def race() -> list[authorities.IssuedCertificate]:
        return list(await asyncio.gather(*(issue(ca, request(ca)) for _ in range(6))))

    assert len({i.der for i in ca.run(race())}) == 1

    async def count(tx: Tx) -> int:
        return int(await tx.scalar(LEAVES) or 0)

    async def counted() -> int:
        async with ca.services.db.begin() as tx:
            return await count(tx)

    assert ca.run(counted()) == 1


def test_a_leaf_lives_90_days_unless_asked_otherwise_and_never_longer_than_its_ca(ca: World) -> None:
    leaf = read_certificate(ca.run(issue(ca, request(ca))).der)
    assert leaf.not_after - leaf.not_before == timedelta(days=90) - timedelta(seconds=1)
    ca.later(days=5 * 365 - 10)
    late = read_certificate(ca.run(issue(ca, request(ca, reference="late"))).der)
    issuing = ca.run(authorities.list_authorities(ca.services, ca.actor))[1]
    assert late.not_after == issuing.not_after


def test_an_expired_ca_does_not_issue(ca: World) -> None:
    ca.later(days=6 * 365)
    with pytest.raises(Refused) as caught:
        ca.run(issue(ca, request(ca)))
    assert caught.value.code == "ca_not_active"


def test_a_ca_profile_can_not_be_asked_for_as_a_leaf(ca: World) -> None:
    with pytest.raises(Invalid) as caught:
        ca.run(issue(ca, request(ca, profile="issuing")))
    assert (caught.value.code, caught.value.field) == ("profile_unknown", "profile")


def test_what_the_lint_refuses_is_neither_signed_nor_recorded(ca: World) -> None:
    with pytest.raises(Invalid) as caught:
        ca.run(issue(ca, request(ca, "UPPER.example.com")))
    assert caught.value.code == "lint_failed"

    async def count() -> int:
        async with ca.services.db.begin() as tx:
            return int(await tx.scalar(LEAVES) or 0)

    assert ca.run(count()) == 0


def test_another_account_can_not_use_the_ca(ca: World) -> None:
    with pytest.raises(NotFound):
        ca.run(issue(ca, request(ca, account_id=ca.other_account.id)))
    authority_id = ca.run(authorities.list_authorities(ca.services, ca.actor))[0].id
    with pytest.raises(NotFound):
        ca.run(authorities.get_authority(ca.services, ca.other_actor, authority_id))


def test_a_root_signs_no_leaf_of_any_kind(ca: World) -> None:
    root = ca.run(authorities.list_authorities(ca.services, ca.actor))[0]
    assert root.kind == "root"
    for profile in ("server", "client"):
        with pytest.raises(Refused) as caught:
            ca.run(authorities.issue(ca.services, root.id, request(ca, profile=profile)))
        assert caught.value.code == "ca_is_root"


def test_an_account_without_a_ca_is_told_so(world: World) -> None:
    async def look() -> None:
        async with world.services.db.begin() as tx:
            await authorities.builtin_issuing_id(tx, world.account.id)

    with pytest.raises(Unavailable) as caught:
        world.run(look())
    assert caught.value.code == "ca_missing"


def test_ca_keys_lie_sealed_and_no_certificate_row_holds_them(ca: World) -> None:
    async def sealed() -> list[bytes]:
        async with ca.services.db.begin() as tx:
            return list((await tx.scalars(sa.select(ca_keys.c.sealed))).all())

    values = ca.run(sealed())
    assert len(values) == 2
    assert all(value.startswith(b"CW1") and b"PRIVATE" not in value for value in values)


# --- revocation lists -----------------------------------------------------------------------------------------------


def issuing_id(world: World) -> str:
    return world.run(authorities.list_authorities(world.services, world.actor))[1].id


def newest(world: World) -> authorities.Crl:
    return world.run(authorities.newest_crl(world.services, issuing_id(world)))


def test_every_ca_publishes_an_empty_list_at_once(ca: World) -> None:
    ca.drain()
    for authority in ca.run(authorities.list_authorities(ca.services, ca.actor)):
        crl = read_crl(ca.run(authorities.newest_crl(ca.services, authority.id)).der)
        assert (crl.number, crl.entries) == (1, {})


def test_a_revocation_is_on_the_next_list_with_its_reason(ca: World) -> None:
    ca.drain()
    issued = ca.run(issue(ca, request(ca)))
    ca.run(authorities.revoke(ca.services, ca.account.id, issued.serial, "key_compromise"))
    ca.drain()
    crl = read_crl(newest(ca).der)
    assert crl.number == 2
    assert {serial: reason for serial, (_, reason) in crl.entries.items()} == {issued.serial: "key_compromise"}


def test_revoking_twice_changes_nothing(ca: World) -> None:
    issued = ca.run(issue(ca, request(ca)))
    ca.run(authorities.revoke(ca.services, ca.account.id, issued.serial, "superseded"))
    ca.drain()
    before = newest(ca)
    ca.run(authorities.revoke(ca.services, ca.account.id, issued.serial, "key_compromise"))
    ca.drain()
    assert newest(ca) == before


def test_a_list_is_renewed_at_a_third_of_its_life(ca: World) -> None:
    ca.drain()
    ca.later(days=2, hours=7)
    ca.drain()
    assert newest(ca).number == 1
    ca.later(hours=2)
    ca.drain()
    assert newest(ca).number == 2


def test_openssl_accepts_the_list_and_refuses_the_revoked_leaf(ca: World, tmp_path: Path) -> None:
    good, bad = ca.run(issue(ca, request(ca))), ca.run(issue(ca, request(ca, reference="bad")))
    ca.run(authorities.revoke(ca.services, ca.account.id, bad.serial, "superseded"))
    ca.drain()
    (root,) = ca.run(roots(ca))
    (tmp_path / "root.pem").write_text(to_pem(root))
    (tmp_path / "chain.pem").write_text("".join(to_pem(der) for der in good.chain_ders))
    crl = x509.load_der_x509_crl(newest(ca).der)
    from cryptography.hazmat.primitives.serialization import Encoding

    (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    verdicts = {}
    for name, issued in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.pem").write_text(to_pem(issued.der))
        done = subprocess.run(
            ["openssl", "verify", "-crl_check", "-attime", str(int(ca.clock.now().timestamp())), "-CAfile", "root.pem",
             "-untrusted", "chain.pem", "-CRLfile", "crl.pem", f"{name}.pem"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        verdicts[name] = done.returncode == 0, done.stdout + done.stderr
    assert verdicts["good"][0], verdicts["good"][1]
    assert not verdicts["bad"][0]
    assert "certificate revoked" in verdicts["bad"][1]


def test_only_the_newest_lists_are_kept(ca: World) -> None:
    ca.drain()
    for i in range(5):
        issued = ca.run(issue(ca, request(ca, reference=f"app_{i}")))
        ca.run(authorities.revoke(ca.services, ca.account.id, issued.serial, "superseded"))
        ca.drain()

    async def numbers() -> list[int]:
        async with ca.services.db.begin() as tx:
            query = sa.select(crls.c.number).where(crls.c.authority_id == issuing_id_value).order_by(crls.c.number)
            return list((await tx.scalars(query)).all())

    issuing_id_value = issuing_id(ca)
    assert ca.run(numbers()) == [4, 5, 6]
