"""Roots, CAs below them, CAs of parents outside, CAs brought along: made, led through their states, ended."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale
from certwright.rooms import authorities
from certwright.rooms.audit.tables import audit_events
from certwright.rooms.authorities import rules, store
from certwright.rooms.authorities.jobs import step
from certwright.rooms.authorities.rules import CaFacts, CaOperation
from certwright.rooms.authorities.tables import ca_keys
from certwright.rooms.authorities.words import CaRequest, CaState, LeafRequest
from certwright.x509 import issue
from certwright.x509.certificates import facts_of, to_pem
from certwright.x509.crl import read_crl
from certwright.x509.csr import read_csr_key
from certwright.x509.issue import NameConstraints, Subject
from certwright.x509.keys import KeyAlgorithm, generate, to_pkcs8_pem
from tests.conftest import START, World

ROOT = CaRequest("Root", Subject(common_name="Test root", organization="Tests"))
BELOW = CaRequest("Below", Subject(common_name="Test issuing CA", organization="Tests"), path_len=0)


def make(world: World, request: CaRequest = ROOT, **changes: Any) -> authorities.Authority:
    made = world.run(authorities.create_authority(world.services, world.actor, replace(request, **changes)))
    world.drain()
    return look(world, made.id)


def look(world: World, authority_id: str) -> authorities.Authority:
    return world.run(authorities.get_authority(world.services, world.actor, authority_id))


def do(world: World, what: str, authority_id: str, *args: Any, **kwargs: Any) -> authorities.Authority:
    action = getattr(authorities, f"{what}_authority")
    done: authorities.Authority = world.run(action(world.services, world.actor, authority_id, *args, **kwargs))
    world.drain()
    return done


def leaf(world: World, authority_id: str, *names: str, **changes: Any) -> authorities.Leaf:
    request = replace(LeafRequest("server", names or ("a.example.com",)), **changes)
    (made,) = world.run(authorities.issue_leaves(world.services, world.actor, authority_id, [request]))
    if isinstance(made, Problem):
        raise made
    return made


def pem_files(folder: Path, **ders: bytes) -> None:
    for name, der in ders.items():
        (folder / f"{name}.pem").write_text(to_pem(der))


def openssl_verifies(folder: Path, world: World) -> str:
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", str(int(world.clock.now().timestamp())), "-CAfile", "root.pem",
         "-untrusted", "chain.pem", "leaf.pem"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


# --- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_algorithm", ["EC_P256", "EC_P384", "RSA_2048"])
@pytest.mark.parametrize("hash_name", [None, "sha512"])
def test_openssl_accepts_three_levels_with_any_key_and_hash(
    world: World, tmp_path: Path, key_algorithm: str, hash_name: str | None
) -> None:
    kind = {"key_algorithm": key_algorithm, "hash_name": hash_name}
    root = make(world, **kind)
    middle = make(world, BELOW, name="Middle", parent_id=root.id, path_len=1, **kind)
    low = make(world, BELOW, parent_id=middle.id, **kind)
    made = leaf(world, low.id)
    assert root.certificate_der
    assert middle.certificate_der
    assert low.certificate_der
    pem_files(tmp_path, root=root.certificate_der, leaf=made.der)
    (tmp_path / "chain.pem").write_text(to_pem(low.certificate_der) + to_pem(middle.certificate_der))
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    expected = hash_name or ("sha384" if key_algorithm == "EC_P384" else "sha256")
    assert expected.upper().replace("SHA", "SHA-") in facts_of(made.der).signature_algorithm
    assert low.hash_name == expected


def events_of(world: World, object_id: str) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            rows = await tx.execute(sa.select(audit_events).where(audit_events.c.object_id == object_id))
            return list(rows.all())

    return world.run(go())


def test_the_ceremony_is_on_record(world: World) -> None:
    made = make(world)
    assert made.certificate_der is not None
    facts = facts_of(made.certificate_der)
    created = next(e for e in events_of(world, made.id) if e.action == "ccm:ca:create")
    assert created.actor_id == world.actor.id
    assert created.after["sha256"] == facts.sha256
    assert created.after["spki_sha256"] == facts.spki_sha256


def test_a_path_length_of_a_parent_is_used_up_level_by_level(world: World) -> None:
    root = make(world, path_len=1)
    low = make(world, BELOW, parent_id=root.id, path_len=None)
    assert low.path_len == 0
    with pytest.raises(Refused) as refusal:
        make(world, BELOW, name="Lower", parent_id=low.id)
    assert refusal.value.code == "path_len_exhausted"
    with pytest.raises(Invalid) as too_long:
        make(world, BELOW, name="Other", parent_id=root.id, path_len=1)
    assert too_long.value.code == "path_len_out_of_range"


def test_a_ca_never_outlives_its_parent(world: World) -> None:
    root = make(world, days=100)
    low = make(world, BELOW, parent_id=root.id, days=1000)
    assert low.not_after == root.not_after


def test_time_that_passes_while_a_ca_is_made_does_not_count_against_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    began = world.clock.now()
    monkeypatch.setattr(world.clock, "now", lambda: began + 1.5 * timedelta(seconds=next(ticks)))

    made = world.run(authorities.create_authority(world.services, world.actor, ROOT))

    assert made.state is CaState.ACTIVE


def test_name_constraints_and_purposes_bind_what_is_issued_below(world: World, tmp_path: Path) -> None:
    root = make(world)
    limits = NameConstraints(permitted_dns=("shop.example",), excluded_dns=("old.shop.example",))
    low = make(world, BELOW, parent_id=root.id, constraints=limits, purposes=("server_auth",))
    assert low.permitted == ("shop.example",)
    assert "old.shop.example" in low.excluded
    assert low.purposes == ("server_auth",)
    made = leaf(world, low.id, "www.shop.example")
    assert root.certificate_der
    assert low.certificate_der
    pem_files(tmp_path, root=root.certificate_der, chain=low.certificate_der, leaf=made.der)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    for names, profile, code in (
        (("www.example.com",), "server", "name_constraint"),
        (("x.old.shop.example",), "server", "name_constraint"),
        (("10.0.0.1",), "server", "name_constraint"),
        (("a.shop.example",), "client", "purpose_not_issuers"),
    ):
        with pytest.raises(Invalid) as refusal:
            leaf(world, low.id, *names, profile=profile)
        assert code in [finding["code"] for finding in refusal.value.extra["findings"]]


def test_constraints_on_mail_and_uris_bind_what_is_issued_below_and_openssl_agrees(
    world: World, tmp_path: Path
) -> None:
    limits = NameConstraints(
        permitted_emails=("ann@one.example", "@two.example", ".three.example"), permitted_uris=(".svc.example",),
        excluded_emails=("old.three.example",), excluded_uris=("b\u00fccher.svc.example",),
    )  # fmt: skip
    root = make(world)
    low = make(world, BELOW, parent_id=root.id, constraints=limits)
    assert low.permitted == ("email:ann@one.example", "email:two.example", "email:.three.example", "uri:.svc.example")
    assert low.excluded == ("email:old.three.example", "uri:xn--bcher-kva.svc.example")
    assert root.certificate_der
    assert low.certificate_der
    allowed = ("ann@one.example", "bob@two.example", "bob@a.three.example", "spiffe://a.svc.example/x")
    made = leaf(world, low.id, *allowed, profile="client")
    pem_files(tmp_path, root=root.certificate_der, chain=low.certificate_der, leaf=made.der)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    for outside in (
        "bob@one.example", "bob@x.two.example", "bob@three.example", "bob@old.three.example",
        "spiffe://svc.example/x", "https://xn--bcher-kva.svc.example/",
    ):  # fmt: skip
        with pytest.raises(Invalid) as refusal:
            leaf(world, low.id, outside, profile="client")
        assert [one["code"] for one in refusal.value.extra["findings"]] == ["name_constraint"], outside


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": " "}, "ca_name_invalid"),
    "a line break in its name": ({"name": "a\nb"}, "ca_name_invalid"),
    "no common name": ({"subject": Subject(organization="Tests")}, "ca_subject_missing"),
    "a long country": ({"subject": Subject(common_name="x", country="DEU")}, "subject_invalid"),
    "an unknown key": ({"key_algorithm": "RSA_1024"}, "unsupported_key"),
    "an unknown hash": ({"hash_name": "sha1"}, "unsupported_hash"),
    "no day": ({"days": -1}, "ca_days_out_of_range"),
    "too many days": ({"days": 20_000}, "ca_days_out_of_range"),
    "a negative path": ({"path_len": -1}, "path_len_out_of_range"),
    "an unknown purpose": ({"purposes": ("everything",)}, "profile_invalid"),
    "a purpose that answers for the CA": ({"purposes": ("1.3.6.1.5.5.7.3.9",)}, "profile_invalid"),
    "lists that never end": ({"crl_days": 31}, "crl_days_out_of_range"),
    "no lists": ({"crl_shards": 0}, "crl_shards_out_of_range"),
    "a network that is none": (
        {"constraints": NameConstraints(permitted_ips=("10.0.0.1/8",))}, "name_constraint_invalid",
    ),
    "a mailbox that is none": (
        {"constraints": NameConstraints(permitted_emails=("a b@shop.example",))}, "name_constraint_invalid",
    ),
    "a star": ({"constraints": NameConstraints(permitted_uris=("*.shop.example",))}, "name_constraint_invalid"),
    "a URI where its host belongs": (
        {"constraints": NameConstraints(excluded_uris=("https://shop.example/",))}, "name_is_url",
    ),
    "two parents": ({"parent_id": "ca_1", "outside": True}, "ca_two_parents"),
}  # fmt: skip


def test_a_ca_is_not_made_of_what_breaks_a_rule(world: World) -> None:
    for what, (changes, code) in WRONG.items():
        with pytest.raises(Problem) as refusal:
            make(world, **changes)
        assert refusal.value.code == code, what
    assert world.run(authorities.list_authorities(world.services, world.actor)) == []


def test_two_cas_of_an_account_never_have_one_name(world: World) -> None:
    make(world)
    with pytest.raises(Refused) as refusal:
        make(world, name="ROOT")
    assert refusal.value.code == "ca_name_taken"


def test_the_quota_holds(world: World) -> None:
    small = replace(world.services, settings=world.services.settings.model_copy(update={"private_ca_quota": 2}))
    make(world)
    make(world, name="Second")
    with pytest.raises(Refused) as refusal:
        world.run(authorities.create_authority(small, world.actor, replace(ROOT, name="Third")))
    assert refusal.value.code == "ca_quota"


# --- parents outside and CAs brought along ---------------------------------------------------------------------------


def signed_outside(world: World, csr_der: bytes) -> list[bytes]:
    """What another organisation's root makes of a request: the certificate and that root."""
    now = world.clock.now()
    root_key = generate(KeyAlgorithm.EC_P384)
    wide = replace(issue.ROOT, path_len=None)

    def sign(profile: Any, subject: Subject, public: Any, issuer: Any) -> bytes:
        start, end = issue.validity(profile, issuer, at=now, seconds=3600 * 24 * 300)
        linted = issue.approve(
            issue.draft_certificate(
                profile=profile, subject=subject, names=(), public_key=public, issuer=issuer,
                serial=issue.new_serial(), not_before=start, not_after=end,
            )
        )  # fmt: skip
        return issue.assemble(linted, issue.sign_with_key(root_key, linted.tbs))

    root = sign(wide, Subject(common_name="Outside root"), root_key.public_key(), None)
    subject = Subject(common_name="As the parent wishes")
    child = sign(
        replace(issue.ISSUING, crl_url=False, aia_url=False), subject, read_csr_key(csr_der),
        issue.issuer_facts(root),
    )  # fmt: skip
    return [child, root]


def test_a_ca_of_a_parent_outside_waits_for_its_certificate_and_then_issues(world: World, tmp_path: Path) -> None:
    waiting = make(world, BELOW, outside=True)
    assert (waiting.state, waiting.certificate_der, waiting.crl_number) == (CaState.PENDING, None, 0)
    with pytest.raises(Refused):
        leaf(world, waiting.id)
    assert waiting.csr_der is not None
    child, root = signed_outside(world, waiting.csr_der)
    text = to_pem(child) + to_pem(root)
    installed = world.run(authorities.install_certificate(world.services, world.actor, waiting.id, text))
    world.drain()
    assert (installed.state, installed.subject) == (CaState.ACTIVE, "CN=As the parent wishes")
    made = leaf(world, waiting.id)
    pem_files(tmp_path, root=root, chain=child, leaf=made.der)
    assert openssl_verifies(tmp_path, world) == "leaf.pem: OK"
    assert read_crl(world.run(authorities.newest_crl(world.services, waiting.id)).der).number == 1
    with pytest.raises(Refused) as again:
        world.run(authorities.install_certificate(world.services, world.actor, waiting.id, text))
    assert again.value.code == "ca_certificate_installed"


def test_a_pending_ca_takes_only_a_certificate_of_its_own_request(world: World) -> None:
    waiting, other = make(world, BELOW, outside=True), make(world, BELOW, name="Other", outside=True)
    assert waiting.csr_der is not None
    assert other.csr_der is not None
    child, root = signed_outside(world, other.csr_der)
    strange = signed_outside(world, waiting.csr_der)
    own_root = make(world, name="Own")
    assert own_root.certificate_der is not None
    for text, code in (
        (to_pem(child) + to_pem(root), "ca_certificate_other_key"),
        (to_pem(strange[0]) + to_pem(root), "chain_broken"),
        (to_pem(own_root.certificate_der), "self_signed"),
        (to_pem(leaf(world, make(world, BELOW, name="Third", parent_id=own_root.id).id).der), "not_a_ca"),
        ("nothing", "not_pem"),
    ):
        with pytest.raises(Invalid) as refusal:
            world.run(authorities.install_certificate(world.services, world.actor, waiting.id, text))
        assert refusal.value.code == code
    assert look(world, waiting.id).state is CaState.PENDING


def brought(world: World, **changes: Any) -> authorities.Authority:
    key = generate(KeyAlgorithm.RSA_2048)
    profile = replace(issue.ROOT, path_len=None)
    start, end = issue.validity(profile, None, at=world.clock.now())
    linted = issue.approve(
        issue.draft_certificate(
            profile=profile, subject=Subject(common_name="Old CA"), names=(), public_key=key.public_key(), issuer=None,
            serial=issue.new_serial(), not_before=start, not_after=end,
        )
    )  # fmt: skip
    der = issue.assemble(linted, issue.sign_with_key(key, linted.tbs))
    said = {
        "name": "Brought", "certificate": to_pem(der), "private_key": to_pkcs8_pem(key, b"secret 123").decode(),
        "passphrase": "secret 123", "crl_number": 41,
    } | changes  # fmt: skip
    made = world.run(authorities.import_authority(world.services, world.actor, **said))
    world.drain()
    return made


def test_a_ca_brought_along_goes_on_where_its_lists_stood(world: World) -> None:
    made = brought(world)
    assert (made.state, made.kind, made.origin) == (CaState.ACTIVE, "root", "imported")
    assert look(world, made.id).crl_number == 42
    below = make(world, BELOW, parent_id=made.id)
    assert facts_of(leaf(world, below.id).der).issuer == below.subject


def test_a_ca_is_not_brought_with_anothers_key_or_twice(world: World) -> None:
    other = to_pkcs8_pem(generate(KeyAlgorithm.EC_P256)).decode()
    with pytest.raises(Invalid) as refusal:
        brought(world, private_key=other, passphrase=None)
    assert refusal.value.code == "key_mismatch"
    with pytest.raises(Invalid) as locked:
        brought(world, passphrase="wrong")
    assert locked.value.code == "wrong_passphrase"
    assert "secret 123" not in str(locked.value.as_dict())


def test_what_stands_above_is_remembered_of_the_ca_and_not_of_its_certificate(world: World) -> None:
    root = make(world)
    low = make(world, BELOW, parent_id=root.id, path_len=0)
    assert low.certificate_der is not None
    assert root.certificate_der is not None
    made = leaf(world, low.id)
    # As if it had been brought once without what is above it, and again with more.
    said = {
        "kind": "issuing", "parent_id": None, "revision": 1, "sha256": low.sha256,
        "certificate_der": low.certificate_der,
    }  # fmt: skip
    short = SimpleNamespace(id="ca_short", outside_chain=[], **said)
    long = SimpleNamespace(id="ca_long", outside_chain=[made.der, root.certificate_der], **said)

    async def both() -> list[tuple[bytes, ...]]:
        async with world.services.db.begin() as tx:
            return [await store.chain(tx, ca) for ca in (short, long, short)]

    assert world.run(both()) == [(low.certificate_der,), (low.certificate_der, made.der), (low.certificate_der,)]
    assert store.known_chain("ca_long", 1) == (low.certificate_der, made.der)


# --- states ----------------------------------------------------------------------------------------------------------


def facts(**changes: Any) -> CaFacts:
    return replace(CaFacts("X", False, False, True, START + timedelta(days=10), False, False, None), **changes)


def test_states_follow_from_facts() -> None:
    now = START
    for changes, state in (
        ({}, CaState.ACTIVE),
        ({"has_certificate": False, "not_after": None}, CaState.PENDING),
        ({"disabled": True}, CaState.DISABLED),
        ({"not_after": now}, CaState.EXPIRED),
        ({"not_after": now, "disabled": True}, CaState.EXPIRED),
        ({"revoked": True, "not_after": now}, CaState.REVOKED),
        ({"revoked": True, "delete_at": now}, CaState.DELETED),
    ):
        assert rules.state_of(facts(**changes), now) is state


ALLOWED = {
    CaState.PENDING: {"install", "delete", "update"},
    CaState.ACTIVE: {"issue", "disable", "revoke", "update", "install", "renew"},
    CaState.DISABLED: {"enable", "revoke", "delete", "update"},
    CaState.EXPIRED: {"delete", "install", "renew"},
    CaState.REVOKED: {"delete", "update"},
    CaState.DELETED: {"restore"},
}
IN_STATE: dict[CaState, dict[str, Any]] = {
    CaState.PENDING: {"has_certificate": False, "not_after": None},
    CaState.ACTIVE: {},
    CaState.DISABLED: {"disabled": True},
    CaState.EXPIRED: {"ended": True},
    CaState.REVOKED: {"revoked": True},
    CaState.DELETED: {"waits": True},
}


@pytest.mark.parametrize("state", list(CaState))
def test_only_these_operations_are_possible_for_a_ca_that_is(state: CaState) -> None:
    now = START
    said = dict(IN_STATE[state])
    changes: dict[str, Any] = {"not_after": now} if said.pop("ended", False) else {}
    changes |= {"delete_at": now + timedelta(days=7)} if said.pop("waits", False) else {}
    ca = facts(**said, **changes)
    allowed = {op.value for op in CaOperation if rules.refusal(op, ca, now) is None}
    assert allowed == ALLOWED[state]


def test_a_root_is_never_revoked_and_the_builtin_ca_never_deleted() -> None:
    now = START
    root = rules.refusal(CaOperation.REVOKE, facts(root=True), now)
    builtin = rules.refusal(CaOperation.DELETE, facts(builtin=True, disabled=True), now)
    children = rules.refusal(CaOperation.DELETE, facts(disabled=True, children=2), now)
    assert [p.code for p in (root, builtin, children) if p] == ["ca_root_revoke", "ca_is_builtin", "ca_has_children"]


def test_a_disabled_ca_issues_nothing_and_goes_on_publishing(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id)
    victim = leaf(world, low.id)
    assert do(world, "disable", low.id).state is CaState.DISABLED
    with pytest.raises(Refused) as refusal:
        leaf(world, low.id)
    assert refusal.value.code == "ca_not_active"
    world.run(authorities.revoke_leaf(world.services, world.actor, low.id, victim.id, "superseded"))
    world.drain()
    assert victim.serial in read_crl(world.run(authorities.newest_crl(world.services, low.id)).der).entries
    assert do(world, "enable", low.id).state is CaState.ACTIVE
    leaf(world, low.id)


def test_a_revoked_ca_is_on_its_parents_list_at_once(world: World) -> None:
    root = make(world)
    low = make(world, BELOW, parent_id=root.id)
    assert do(world, "revoke", low.id, "cessation_of_operation").state is CaState.REVOKED
    listed = read_crl(world.run(authorities.newest_crl(world.services, root.id)).der).entries
    assert listed[low.serial or ""][1] == "cessation_of_operation"
    with pytest.raises(Refused):
        leaf(world, low.id)


def test_a_deleted_ca_can_be_restored_until_its_key_is_erased(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id)
    do(world, "disable", low.id)
    waiting = do(world, "delete", low.id, days=7)
    assert waiting.delete_at == world.clock.now() + timedelta(days=7)
    assert do(world, "restore", low.id).state is CaState.DISABLED
    do(world, "delete", low.id, days=8)
    world.later(days=7)
    world.drain()
    assert look(world, low.id).state is CaState.DELETED
    world.later(days=1, seconds=1)
    world.drain()
    with pytest.raises(NotFound):
        look(world, low.id)

    async def sealed() -> list[Any]:
        async with world.services.db.begin() as tx:
            rows = await tx.execute(sa.select(ca_keys.c.sealed, ca_keys.c.erased_at))
            return sorted((row.sealed is None, row.erased_at is not None) for row in rows)

    assert world.run(sealed()) == [(False, False), (True, True)]
    # The name is free again; the key is not.
    make(world, BELOW, parent_id=make(world, name="Root 2").id)


@pytest.mark.parametrize("days", [6, 31])
def test_a_ca_waits_7_to_30_days(days: int) -> None:
    assert [rules.judge_wait(good).days for good in (7, 30)] == [7, 30]
    with pytest.raises(Invalid) as refusal:
        rules.judge_wait(days)
    assert refusal.value.code == "ca_wait_out_of_range"


def test_settings_change_for_what_is_issued_from_then_on(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id)
    before = facts_of(leaf(world, low.id).der)
    assert before.crl_urls == (low.crl_url,)
    changed = do(world, "update", low.id, revision=low.revision, crl_shards=4, ocsp_enabled=True, name="New")
    assert (changed.name, changed.crl_shards, changed.ocsp_enabled) == ("New", 4, True)
    urls = {facts_of(leaf(world, low.id).der).crl_urls[0] for _ in range(30)}
    assert len(urls) > 1
    off = do(world, "update", low.id, revision=changed.revision, crl_enabled=False)
    assert facts_of(leaf(world, low.id).der).crl_urls == ()
    with pytest.raises(Stale):
        do(world, "update", low.id, revision=off.revision - 1, name="Other")


# --- lists in parts --------------------------------------------------------------------------------------------------


def test_each_list_of_several_names_its_own_and_only_its_own(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id, crl_shards=3)
    made = [leaf(world, low.id) for _ in range(12)]
    for one in made:
        world.run(authorities.revoke_leaf(world.services, world.actor, low.id, one.id, "superseded"))
    world.drain()
    seen: set[str] = set()
    for shard in range(3):
        der = world.run(authorities.newest_crl(world.services, low.id, shard)).der
        listed = read_crl(der)
        assert listed.idp_url is not None
        mine = {one.serial for one in made if facts_of(one.der).crl_urls == (listed.idp_url,)}
        assert set(listed.entries) == mine
        seen |= mine
    assert seen == {one.serial for one in made}


def test_revoking_and_publishing_at_once_never_block_each_other_in_turn(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id, crl_shards=4)
    made = [leaf(world, low.id) for _ in range(24)]

    async def revoke(one: authorities.Leaf) -> None:
        await authorities.revoke_leaf(world.services, world.actor, low.id, one.id, "superseded")

    async def all_at_once() -> None:
        # A deadlock would end one of them with an error of the database.
        await asyncio.gather(*(revoke(one) for one in made), *(step(world.services, low.id) for _ in range(24)))

    world.run(all_at_once())
    world.drain()
    listed = [read_crl(world.run(authorities.newest_crl(world.services, low.id, n)).der).entries for n in range(4)]
    assert {serial for entries in listed for serial in entries} == {one.serial for one in made}


# --- doors -----------------------------------------------------------------------------------------------------------


def test_nothing_of_another_account_or_without_permission(world: World) -> None:
    low = make(world, BELOW, parent_id=make(world).id)
    made = leaf(world, low.id)
    stranger = world.other_actor
    weak = world.actor_with("ccm:ca:get", "ccm:ca:list", "ccm:cert:get")
    for name, args in (
        ("disable_authority", ()), ("revoke_authority", ()), ("delete_authority", ()), ("restore_authority", ()),
        ("update_authority", ()), ("install_certificate", ("x",)), ("issue_leaves", ([LeafRequest("client")],)),
        ("revoke_leaf", (made.id,)), ("delete_leaf", (made.id,)),
    ):  # fmt: skip
        action = getattr(authorities, name)
        with pytest.raises((NotFound, Invalid)):
            world.run(action(world.services, stranger, low.id, *args))
        with pytest.raises((Forbidden, Invalid)):
            world.run(action(world.services, weak, low.id, *args))
    with pytest.raises(NotFound):
        world.run(authorities.export_leaf(world.services, stranger, low.id, made.id, server="pem"))
    with pytest.raises(Forbidden):
        world.run(authorities.export_leaf(world.services, weak, low.id, made.id, server="pem"))
    with pytest.raises(NotFound):
        world.run(authorities.create_authority(world.services, stranger, replace(BELOW, parent_id=low.parent_id or "")))
