"""Revoked by the account, by the certificate's key, or after showing its names anew (RFC 8555 section 7.6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.platform.config import Settings
from certwright.rooms import audit, cas, certificates
from certwright.rooms.cas.tables import ca_orders
from certwright.rooms.certificates import Applicant, Application, Operation, RevocationReason, State, versions
from certwright.x509.csr import make_csr, to_pem
from certwright.x509.keys import KeyAlgorithm, generate
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import Api, World
from tests.servers.acme import FakeAcme, fake_acme, problem

NAME = "shop.demo.localhost"
OTHER = "other.demo.localhost"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, web: Site) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8", "::1/128"), validation_http_port=web.port,
    )  # fmt: skip


@pytest.fixture
def ca(world: World) -> Iterator[FakeAcme]:
    with fake_acme() as running:
        running.now = world.clock.now
        work.add(world, running.directory_url, running.root_pem)
        yield running


def close_account(ca: FakeAcme) -> None:
    """As a CA does with an account it found abused."""
    for account in ca.accounts.values():
        account["status"] = "deactivated"


def change_account(world: World, ca: FakeAcme) -> cas.Ca:
    """What somebody does whose account was closed."""
    close_account(ca)
    (added,) = world.run(cas.list_cas(world.services, world.actor))
    found = world.run(cas.new_account(world.services, world.actor, added.id))
    assert found.problem is None, found.problem
    return found


def revoke(
    world: World, certificate_id: str, reason: RevocationReason = RevocationReason.SUPERSEDED, **changes: Any
) -> certificates.Detail:
    world.run(certificates.revoke(world.services, world.actor, certificate_id, reason, **changes))
    world.drain()
    return work.look(world, certificate_id)


def by_own_csr(world: World, web: Site, *names: str) -> str:
    """A certificate whose key is not held here."""
    pem = to_pem(make_csr(generate(KeyAlgorithm.EC_P256), names)).decode()
    asked = Application(
        csr=pem, validation_method="file", applicant=Applicant("Ada", "ada@example.com", "+44 20 7946 0000"),
        consent=True,
    )  # fmt: skip
    made = world.run(
        certificates.create_certificate(world.services, world.actor, application=asked, ca="acme")
    )  # fmt: skip
    world.drain()
    work.publish_all(world, web, made.id)
    assert work.finish(world, made.id).summary.state is State.ISSUED
    return made.id


def test_the_account_that_ordered_it_revokes_it_and_the_api_says_so(
    world: World, ca: FakeAcme, web: Site, api: Api
) -> None:
    detail = work.issue(world, web, NAME)
    assert revoke(world, detail.id).summary.state is State.REVOKED
    (version,) = api.get(f"/api/v1/certificates/{detail.id}").json()["versions"]
    assert version["revoked_by"] == "account"
    assert len(ca.revoked) == 1


def test_a_key_others_know_is_shown_to_the_ca_which_then_blocks_it(world: World, ca: FakeAcme, web: Site) -> None:
    detail = work.issue(world, web, NAME)
    before = len(ca.requests("new-account"))
    after = revoke(world, detail.id, RevocationReason.KEY_COMPROMISE)
    assert (after.summary.state, after.versions[0].revoked_by) == (State.REVOKED, "key")
    assert list(ca.revoked.values()) == [1]
    assert len(ca.requests("new-account")) == before


@pytest.mark.parametrize("how", ["closed", "changed"])
def test_when_the_account_may_not_any_more_the_certificates_key_does(
    world: World, ca: FakeAcme, web: Site, how: str
) -> None:
    detail = work.issue(world, web, NAME)
    close_account(ca) if how == "closed" else change_account(world, ca)
    after = revoke(world, detail.id)
    assert (after.summary.state, after.versions[0].revoked_by) == (State.REVOKED, "key")
    told = work.rows(
        world, sa.select(audit.audit_events.c.after).where(audit.audit_events.c.action == "scm:cert:revoke")
    )
    assert any((row.after or {}).get("revoked_by") == "key" for row in told)


def test_without_account_and_key_the_names_are_shown_anew_and_then_it_is_revoked(
    world: World, ca: FakeAcme, web: Site
) -> None:
    certificate_id = by_own_csr(world, web, NAME, OTHER)
    change_account(world, ca)
    waiting = revoke(world, certificate_id)
    assert waiting.summary.state is State.REVOCATION_PENDING_DOMAIN_VALIDATION
    assert waiting.allowed[Operation.VERIFY_DOMAINS] is None
    assert waiting.validation is not None
    assert {domain.name: domain.file is not None for domain in waiting.validation.domains} == {NAME: True, OTHER: True}
    assert not ca.revoked
    results = world.run(certificates.check_domains(world.services, world.actor, certificate_id))
    assert {result.status for result in results} == {"pending"}
    work.publish_all(world, web, certificate_id)
    world.later(seconds=2)
    world.run(certificates.check_domains(world.services, world.actor, certificate_id))
    for _ in range(3):
        world.drain()
        world.later(seconds=30)
    done = work.look(world, certificate_id)
    assert (done.summary.state, done.versions[0].revoked_by) == (State.REVOKED, "control")
    assert done.validation is None
    assert len(ca.revoked) == 1
    # The order that served to show the names was never finalized, and nobody goes on with it.
    assert [order.csr is None for order in ca.orders.values()] == [False, True]
    rows = work.rows(world, sa.select(ca_orders.c.csr_der, ca_orders.c.failed_at))
    assert {(row.csr_der is None, row.failed_at is not None) for row in rows} == {(False, False), (True, True)}


def test_an_account_that_holds_authorizations_for_all_names_revokes_at_once(
    world: World, ca: FakeAcme, web: Site
) -> None:
    certificate_id = by_own_csr(world, web, NAME)
    change_account(world, ca)
    work.issue(world, web, NAME)  # so the new account has shown the name
    done = revoke(world, certificate_id)
    assert (done.summary.state, done.versions[0].revoked_by) == (State.REVOKED, "account")


def test_names_the_ca_does_not_believe_are_asked_for_again_later_with_new_values(
    world: World, ca: FakeAcme, web: Site
) -> None:
    certificate_id = by_own_csr(world, web, NAME)
    change_account(world, ca)
    revoke(world, certificate_id)
    first = work.publish_all(world, web, certificate_id)
    ca.failing[NAME] = {"type": "urn:ietf:params:acme:error:connection", "detail": "the firewall says no"}
    work.check(world, certificate_id)
    world.drain()
    stuck = work.look(world, certificate_id)
    assert stuck.summary.state is State.VERIFYING_REVOCATION
    assert stuck.versions[0].waiting_for is not None
    assert stuck.versions[0].waiting_for["code"] == "control_not_shown"
    assert "the firewall says no" in stuck.versions[0].waiting_for["message"]
    del ca.failing[NAME]
    ca.orders[2].tried.clear()
    world.later(minutes=62)
    world.drain()
    second = work.publish_all(world, web, certificate_id)
    assert second != first
    work.check(world, certificate_id)
    world.drain()
    assert work.look(world, certificate_id).versions[0].revoked_by == "control"


def test_an_earlier_version_is_revoked_the_same_way_and_the_state_speaks_of_the_current_one(
    world: World, ca: FakeAcme, web: Site
) -> None:
    certificate_id = by_own_csr(world, web, NAME)
    earlier = work.look(world, certificate_id).versions[0].id
    pem = to_pem(make_csr(generate(KeyAlgorithm.EC_P256), [NAME])).decode()
    world.run(
        certificates.reissue(world.services, world.actor, certificate_id, certificates.Changes(csr=pem))
    )  # fmt: skip
    world.drain()
    work.publish_all(world, web, certificate_id)
    work.finish(world, certificate_id)
    change_account(world, ca)
    waiting = revoke(world, certificate_id, version_id=earlier)
    assert waiting.summary.state is State.ISSUED
    assert waiting.validation is not None
    work.publish_all(world, web, certificate_id)
    for _ in range(3):
        world.later(minutes=1)
        world.drain()
    done = work.look(world, certificate_id)
    assert [version.revoked_by for version in done.versions] == [None, "control"]
    assert done.summary.state is State.ISSUED


def test_a_revocation_that_the_ca_never_took_ends_with_the_certificate(world: World, ca: FakeAcme, web: Site) -> None:
    certificate_id = by_own_csr(world, web, NAME)
    ca.in_the_way["revoke"].extend([problem("serverInternal", "no", 400)] * 100)
    revoke(world, certificate_id)
    assert work.look(world, certificate_id).summary.state is State.VERIFYING_REVOCATION
    world.later(days=91)
    world.drain()
    detail = work.look(world, certificate_id)
    assert detail.summary.state is State.EXPIRED
    assert detail.versions[0].revoke_asked_at is None
    assert detail.allowed[Operation.DELETE] is None


def test_moving_the_certificate_takes_along_what_is_being_shown(world: World, ca: FakeAcme, web: Site) -> None:
    from certwright.rooms.access import people
    from certwright.rooms.validation.tables import challenges

    certificate_id = by_own_csr(world, web, NAME)
    change_account(world, ca)
    detail = revoke(world, certificate_id)
    project = world.run(people.create_project(world.services, world.actor, name="elsewhere"))
    world.run(
        certificates.update_certificate(
            world.services, world.actor, certificate_id, revision=detail.summary.revision, project_id=project.id
        )
    )  # fmt: skip
    (control,) = work.rows(world, sa.select(versions.c.control_id).where(versions.c.certificate_id == certificate_id))
    moved = work.rows(world, sa.select(challenges.c.project_id).where(challenges.c.subject_id == control.control_id))
    assert {row.project_id for row in moved} == {project.id}


def test_a_new_account_has_a_new_key_and_the_old_one_is_erased(world: World, ca: FakeAcme) -> None:
    from certwright.rooms.cas.tables import cas as cas_table
    from certwright.rooms.keys.tables import private_keys

    (added,) = world.run(cas.list_cas(world.services, world.actor))
    first = world.run(cas.check_ca(world.services, world.actor, added.id))
    second = change_account(world, ca)
    assert first.account_url != second.account_url
    assert len(ca.accounts) == 2
    held = work.rows(world, sa.select(private_keys.c.erased_at, private_keys.c.id))
    (used,) = work.rows(world, sa.select(cas_table.c.key_id))
    assert sorted((row.erased_at is not None, row.id == used.key_id) for row in held) == [(False, True), (True, False)]


def test_only_whoever_may_change_a_ca_gets_it_another_account(world: World, ca: FakeAcme, api: Api) -> None:
    from certwright.kernel.problems import Forbidden, NotFound

    (added,) = world.run(cas.list_cas(world.services, world.actor))
    reader = world.actor_with("scm:ca:get", "scm:ca:list")
    for actor, refusal in ((reader, Forbidden), (world.other_actor, NotFound)):
        with pytest.raises(refusal):
            world.run(cas.new_account(world.services, actor, added.id))
    answer = api.post(f"/api/v1/cas/{added.id}/new-account")
    assert answer.status_code == 200, answer.text
    assert answer.json()["problem"] is None


def test_a_ca_that_takes_no_control_for_an_answer_is_asked_once_a_day(world: World, ca: FakeAcme, web: Site) -> None:
    """Pebble is one of them: only the account that ordered a certificate revokes it there, whatever others show."""
    ca.revokes_for_control = False
    certificate_id = by_own_csr(world, web, NAME)
    change_account(world, ca)
    ca.valid_names.add(NAME)
    revoke(world, certificate_id)
    for _ in range(10):
        world.later(hours=2)
        world.drain()
    held = work.look(world, certificate_id).versions[0].waiting_for
    assert held is not None
    assert "Ask the CA to revoke it" in held["fix"]
    assert len(ca.orders) == 2
