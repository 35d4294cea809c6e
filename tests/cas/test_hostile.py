"""Orders at a CA that does what the test says: late, double, wrong and missing answers, and kills in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.acme.renewal import certificate_id
from certwright.connectors.ca.outside import OutsideCas
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Refused, Stale
from certwright.platform.config import Settings
from certwright.rooms import cas, certificates
from certwright.rooms.cas.tables import ca_orders, ca_uses
from certwright.rooms.certificates import AuthorityDirectory, RevocationReason, State
from certwright.rooms.certificates.tables import applications, versions
from certwright.rooms.validation.tables import challenges
from tests.cas import work
from tests.cas.site import Site, site
from tests.conftest import Api, World
from tests.servers.acme import FakeAcme, Reply, fake_acme, problem

NAME = "shop.demo.localhost"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "site") as running:
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
        yield running


def add(world: World, ca: FakeAcme, **changes: Any) -> cas.Ca:
    return work.add(world, ca.directory_url, ca.root_pem, **changes)


def leaf(world: World, certificate_id: str) -> bytes:
    query = sa.select(versions.c.leaf_der).where(
        versions.c.certificate_id == certificate_id, versions.c.superseded_at.is_(None)
    )
    (row,) = work.rows(world, query)
    return bytes(row.leaf_der)


def behind(world: World, ca_id: str) -> Any:
    """The CA as the certificates room finds it."""

    async def go() -> Any:
        async with world.services.db.begin() as tx:
            return await world.services.port(AuthorityDirectory).find(tx, world.account.id, ca_id)

    found = world.run(go())
    assert found is not None
    return found[1]


# --- patience --------------------------------------------------------------------------------------------------------


def test_a_rate_limited_order_waits_as_long_as_the_ca_asks_and_then_goes_on(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    ca.in_the_way["new-order"].append(problem("rateLimited", "too many", 429, ("Retry-After", "7200")))
    made = work.apply(world, NAME)
    world.drain()
    waiting = work.look(world, made.id).application
    assert waiting is not None
    assert waiting.waiting_for is not None
    assert waiting.waiting_for["code"] == "ca_rate_limited"
    assert len(ca.requests("new-order")) == 1
    world.later(minutes=118)
    world.drain()
    assert len(ca.requests("new-order")) == 1
    world.later(minutes=3)
    world.drain()
    work.publish_all(world, web, made.id)
    assert work.finish(world, made.id).summary.state is State.ISSUED


def test_a_slow_ca_is_asked_again_no_sooner_than_it_says(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    ca.processing_looks, ca.retry_after = 1, "600"
    made = work.apply(world, NAME)
    world.drain()
    work.publish_all(world, web, made.id)
    work.check(world, made.id)
    world.drain()
    looked = len(ca.requests("order"))
    world.later(minutes=8)
    world.drain()
    assert len(ca.requests("order")) == looked
    for _ in range(4):
        world.later(minutes=10)
        world.drain()
    assert work.look(world, made.id).summary.state is State.ISSUED


def test_a_ca_that_falls_over_in_the_middle_costs_time_and_nothing_else(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    for resource in ("directory", "new-account", "new-order", "order", "authorization", "challenge", "finalize",
                     "certificate"):  # fmt: skip
        ca.in_the_way[resource].extend([Reply(503, b"", (("Retry-After", "1"),)), Reply(200, b"<html>")])
    made = work.apply(world, NAME)
    for _ in range(30):
        world.drain()
        work.publish_all(world, web, made.id)
        world.later(minutes=11)
        if work.look(world, made.id).summary.state is State.ISSUED:
            break
    detail = work.look(world, made.id)
    assert detail.summary.state is State.ISSUED, detail.application
    assert len(detail.versions) == 1
    assert not any(ca.in_the_way.values())
    assert len([o for o in ca.orders.values() if o.csr is not None]) == 1


# --- the CA says no --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [("rejectedIdentifier", "ca_name_refused"), ("caa", "ca_caa_forbids"), ("userActionRequired", "ca_user_action")],
)
def test_a_refused_order_fails_the_application_with_the_cas_words(
    world: World, ca: FakeAcme, kind: str, code: str
) -> None:
    add(world, ca)
    ca.in_the_way["new-order"].append(problem(kind, "policy forbids it", 403))
    made = work.apply(world, NAME)
    world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert work.why(detail).startswith(code)
    assert "policy forbids it" in work.why(detail)


def test_a_refused_validation_names_the_domain_and_what_was_seen(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    other = "other.demo.localhost"
    ca.failing[other] = {"type": "urn:ietf:params:acme:error:connection", "detail": "the firewall says no"}
    made = work.apply(world, NAME, other)
    world.drain()
    work.publish_all(world, web, made.id)
    detail = work.finish(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert f"{other} (invalid) http-01: the firewall says no" in work.why(detail)
    assert NAME not in work.why(detail)
    failed = work.rows(world, sa.select(ca_uses.c.subject).where(ca_uses.c.kind == "failed_validations"))
    assert [row.subject for row in failed] == [other]


def test_a_method_the_ca_does_not_offer_fails_with_what_it_offers(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    ca.offered = ["dns-01"]
    made = work.apply(world, NAME)
    world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "doesn't take http-01" in work.why(detail)
    assert "it offers dns-01" in work.why(detail)


def test_an_order_that_the_ca_forgot_fails(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    made = work.apply(world, NAME)
    ca.in_the_way["order"].append(problem("malformed", "no such order", 404))
    world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "doesn't know the order any more" in work.why(detail)


def test_what_is_not_published_before_the_order_ends_fails_and_the_next_application_works(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    ca.order_life = timedelta(hours=8)
    made = work.apply(world, NAME)
    world.drain()
    for _ in range(52):
        world.later(minutes=10)
        world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert work.why(detail).startswith("order_expired")
    work.issue(world, web, NAME)


# --- the CA lies -----------------------------------------------------------------------------------------------------


def test_a_certificate_for_other_names_is_not_believed(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    ca.issued_names = ["evil.demo.localhost"]
    made = work.apply(world, NAME)
    world.drain()
    work.publish_all(world, web, made.id)
    detail = work.finish(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert work.why(detail).startswith("issued_other_names")
    assert detail.versions == ()


def test_a_certificate_for_another_key_is_not_believed(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    ca.issued_other_key = True
    made = work.apply(world, NAME)
    world.drain()
    work.publish_all(world, web, made.id)
    detail = work.finish(world, made.id)
    assert work.why(detail).startswith("issued_other_key")


def test_nothing_is_published_for_a_name_nobody_asked_for(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    made = work.apply(world, NAME)
    body = (
        b'{"identifier": {"type": "dns", "value": "bank.demo.localhost"}, "status": "pending", "challenges": '
        b'[{"type": "http-01", "url": "https://127.0.0.1/c", "token": "abc"}]}'
    )
    ca.in_the_way["authorization"].append(Reply(200, body))
    world.drain()
    detail = work.look(world, made.id)
    assert detail.summary.state is State.APPROVAL_FAILED
    assert "wasn't asked for" in work.why(detail)


@pytest.mark.parametrize("token", ["../../etc/passwd", "a/b", "a\nb"])
def test_a_token_that_could_leave_its_folder_is_never_published(world: World, ca: FakeAcme, token: str) -> None:
    add(world, ca)
    made = work.apply(world, NAME)
    challenge = {"type": "http-01", "url": "https://127.0.0.1/c", "token": token}
    shown = {"identifier": {"type": "dns", "value": NAME}, "status": "pending", "challenges": [challenge]}
    body = json.dumps(shown).encode()
    ca.in_the_way["authorization"].append(Reply(200, body))
    world.drain(until=world.clock.now() - world.services.jobs.lease)
    world.run(world.services.jobs.run_step(world.services, "certificates.issue", application_of(world, made.id)))
    found = work.look(world, made.id)
    assert found.validation is not None
    assert found.validation.domains == ()


def application_of(world: World, certificate_id: str) -> str:
    application = work.look(world, certificate_id).application
    assert application is not None
    return application.id


# --- killed in between -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """The first call of this function that succeeds does its work, and then the process is gone."""
    usual, times = getattr(owner, name), [0]

    async def dying(*args: Any, **kwargs: Any) -> Any:
        result = await usual(*args, **kwargs)
        times[0] += 1
        if times[0] == 1:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)
    return times


def revive(world: World) -> None:
    """Another process takes over: nothing is remembered, and the leases of the dead one have run out.

    `drain` clears the due time of what it runs; the sweeper, which this stands for, leaves one lease from now.
    """
    usual = world.services.port(AuthorityDirectory)
    fresh = AuthorityDirectory(usual.by_id, OutsideCas(world.services))
    world.services.ports[AuthorityDirectory] = fresh  # type: ignore[index]

    async def due_again() -> None:
        for table in (applications, challenges):
            async with world.services.db.begin() as tx:
                left = sa.and_(table.c.next_step_at.is_(None), table.c.step_lease_until.is_not(None))
                await tx.execute(sa.update(table).where(left).values(next_step_at=table.c.step_lease_until))

    world.run(due_again())
    world.later(minutes=12)


MOMENTS = ["new_account", "new_order", "respond", "finalize", "download"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_right_after_the_ca_did_it_one_certificate_comes_out(
    world: World, ca: FakeAcme, web: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from certwright.connectors.ca.acme import AcmeClient

    add(world, ca)
    times = killed_once(monkeypatch, AcmeClient, moment)
    made = work.apply(world, NAME)
    deaths = 0
    for _ in range(12):
        try:
            world.drain()
            work.publish_all(world, web, made.id)
            work.check(world, made.id)
        except Killed:
            deaths += 1
        revive(world)
    detail = work.look(world, made.id)
    assert (deaths, detail.summary.state) == (1, State.ISSUED), detail.application
    assert times[0] >= 1
    assert len(detail.versions) == 1
    assert len([o for o in ca.orders.values() if o.csr is not None]) == 1
    assert len(ca.accounts) == 1
    # One whose address was lost with the process is found again in the account's list.
    assert len(ca.orders) == 1
    counted = work.rows(world, sa.select(ca_uses.c.kind).where(ca_uses.c.kind == "duplicates"))
    assert len(counted) == 1


def test_a_key_change_killed_after_the_ca_took_it_is_settled_by_a_test(
    world: World, ca: FakeAcme, web: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from certwright.connectors.ca.acme import AcmeClient

    added = add(world, ca)
    world.run(cas.check_ca(world.services, world.actor, added.id))
    with monkeypatch.context() as patch:
        killed_once(patch, AcmeClient, "change_key")
        with pytest.raises(Killed):
            world.run(cas.change_key(world.services, world.actor, added.id))
    limbo = world.run(cas.get_ca(world.services, world.actor, added.id))
    assert limbo.key_change_pending
    settled = world.run(cas.check_ca(world.services, world.actor, added.id))
    assert (settled.key_change_pending, settled.problem) == (False, None)
    assert len(ca.accounts) == 1
    work.issue(world, web, NAME)


def test_a_key_change_the_ca_refused_keeps_the_old_key(world: World, ca: FakeAcme, web: Site) -> None:
    added = add(world, ca)
    world.run(cas.check_ca(world.services, world.actor, added.id))
    ca.in_the_way["key-change"].append(problem("malformed", "not today"))
    with pytest.raises(Refused, match="not today"):
        world.run(cas.change_key(world.services, world.actor, added.id))
    assert not world.run(cas.get_ca(world.services, world.actor, added.id)).key_change_pending
    work.issue(world, web, NAME)


# --- profiles, chains, renewal information ---------------------------------------------------------------------------


def test_the_profile_of_a_ca_goes_into_its_orders_and_an_unknown_one_is_told_by_a_test(
    world: World, ca: FakeAcme, web: Site
) -> None:
    ca.profiles = {"classic": "The usual one", "shortlived": "Six days"}
    added = add(world, ca, profile="shortlived")
    work.issue(world, web, NAME)
    assert ca.requests("new-order")[0]["profile"] == "shortlived"
    now = world.run(cas.get_ca(world.services, world.actor, added.id))
    with pytest.raises(Invalid, match="no profile called 'tlsclient'"):
        world.run(cas.update_ca(world.services, world.actor, added.id, revision=now.revision, profile="tlsclient"))
    wrong = world.run(cas.check_ca(world.services, world.actor, add(world, ca, name="b", profile="nosuch").id))
    assert wrong.problem is not None
    assert wrong.problem["code"] == "ca_profile_unknown"


@pytest.mark.parametrize(
    ("preferred", "root"),
    [(None, "First Root"), ("Second Root", "Second Root"), ("second root", "Second Root"), ("No Root", "First Root")],
)
def test_the_preferred_chain_is_taken_if_the_ca_has_it(
    world: World, ca: FakeAcme, web: Site, preferred: str | None, root: str
) -> None:
    from cryptography import x509

    add(world, ca, preferred_chain=preferred)
    detail = work.issue(world, web, NAME)
    (row,) = work.rows(world, sa.select(versions.c.chain_ders).where(versions.c.certificate_id == detail.id))
    (above,) = row.chain_ders
    assert x509.load_der_x509_certificate(above).issuer.rfc4514_string() == f"CN={root}"


def test_a_reissue_names_the_certificate_it_replaces_and_orders_anyway_if_somebody_was_first(
    world: World, ca: FakeAcme, web: Site
) -> None:
    add(world, ca)
    detail = work.issue(world, web, NAME)
    assert "replaces" not in ca.requests("new-order")[0]
    old = certificate_id(leaf(world, detail.id))

    def reissue() -> None:
        world.run(certificates.reissue(world.services, world.actor, detail.id))
        world.drain()
        work.publish_all(world, web, detail.id)
        assert work.finish(world, detail.id).summary.state is State.ISSUED

    reissue()
    assert ca.requests("new-order")[1]["replaces"] == old
    newer = certificate_id(leaf(world, detail.id))
    assert newer is not None
    ca.replaced.add(newer)
    reissue()
    second, third = ca.requests("new-order")[2:]
    assert (second["replaces"], "replaces" in third) == (newer, False)


def test_a_ca_without_renewal_information_is_never_told_what_is_replaced(world: World, ca: FakeAcme, web: Site) -> None:
    ca.with_ari = False
    add(world, ca)
    detail = work.issue(world, web, NAME)
    world.run(certificates.reissue(world.services, world.actor, detail.id))
    world.drain()
    work.publish_all(world, web, detail.id)
    work.finish(world, detail.id)
    assert all("replaces" not in payload for payload in ca.requests("new-order"))


def test_the_window_of_a_certificate_is_asked_for_by_its_id(world: World, ca: FakeAcme, web: Site) -> None:
    added = add(world, ca)
    detail = work.issue(world, web, NAME)
    start = world.clock.now() + timedelta(days=60)
    ca.ari_window, ca.ari_wait = (start, start + timedelta(days=2)), "5"
    authority = behind(world, added.id)
    assert isinstance(authority, certificates.RenewalInformation)
    window = world.run(authority.renewal_window(leaf(world, detail.id)))
    assert window is not None
    assert (window.start, window.end, window.again) == (start, start + timedelta(days=2), timedelta(minutes=1))
    assert ca.requests("renewal-info") == [certificate_id(leaf(world, detail.id))]


def test_a_certificate_can_be_revoked_with_its_key_alone(world: World, ca: FakeAcme, web: Site) -> None:
    from certwright.x509.keys import read_private_key

    added = add(world, ca)
    detail = work.issue(world, web, NAME)
    file = world.run(certificates.download(world.services, world.actor, detail.id, "key"))
    authority = behind(world, added.id)
    assert isinstance(authority, certificates.RevokesByKey)
    world.run(
        authority.revoke_with_key(
            leaf(world, detail.id), read_private_key(file.content), RevocationReason.KEY_COMPROMISE
        )
    )
    assert ca.revoked[leaf(world, detail.id)] == 1


def test_a_reason_lets_encrypt_does_not_take_is_refused_before_it_is_asked(
    world: World, ca: FakeAcme, web: Site
) -> None:
    ca.caa_identities = ["letsencrypt.org"]
    add(world, ca)
    detail = work.issue(world, web, NAME)
    with pytest.raises(Invalid, match="affiliation_changed"):
        world.run(certificates.revoke(world.services, world.actor, detail.id, RevocationReason.AFFILIATION_CHANGED))
    assert not ca.revoked


# --- limits ----------------------------------------------------------------------------------------------------------


def test_the_sixth_certificate_for_the_same_names_in_a_week_waits_here(world: World, ca: FakeAcme, web: Site) -> None:
    add(world, ca)
    ca.with_ari = False
    ca.valid_names.add(NAME)
    for _ in range(5):
        work.issue(world, web, NAME)
    sixth = work.apply(world, NAME)
    world.drain()
    application = work.look(world, sixth.id).application
    assert application is not None
    assert application.waiting_for is not None
    assert application.waiting_for["code"] == "ca_quota_spent"
    assert "same names" in application.waiting_for["message"]
    assert len(ca.requests("new-order")) == 5
    work.issue(world, web, "another.demo.localhost")
    world.later(days=7, minutes=1)
    world.drain()
    assert work.finish(world, sixth.id).summary.state is State.ISSUED


def test_edited_limits_count_at_once(world: World, ca: FakeAcme, web: Site) -> None:
    added = add(world, ca, limits={"orders": {"count": 1, "seconds": 3600}})
    ca.valid_names |= {NAME, "b.demo.localhost"}
    work.issue(world, web, NAME)
    second = work.apply(world, "b.demo.localhost")
    world.drain()
    assert len(ca.requests("new-order")) == 1
    world.run(
        cas.update_ca(
            world.services, world.actor, added.id, revision=added.revision,
            limits={"orders": {"count": 5, "seconds": 3600}},
        )
    )  # fmt: skip
    world.later(hours=2)
    assert work.finish(world, second.id).summary.state is State.ISSUED


# --- who may ---------------------------------------------------------------------------------------------------------


def test_another_account_neither_sees_nor_uses_the_ca(world: World, ca: FakeAcme) -> None:
    added = add(world, ca)
    for act in (
        cas.get_ca(world.services, world.other_actor, added.id),
        cas.check_ca(world.services, world.other_actor, added.id),
        cas.change_key(world.services, world.other_actor, added.id),
        cas.delete_ca(world.services, world.other_actor, added.id),
        cas.update_ca(world.services, world.other_actor, added.id, revision=1, name="mine"),
    ):
        with pytest.raises(NotFound):
            world.run(act)
    assert world.run(cas.list_cas(world.services, world.other_actor)) == ()
    for text in ("acme", added.id):
        with pytest.raises(Invalid, match="There is no CA"):
            world.run(certificates.create_certificate(world.services, world.other_actor, ca=text))
    assert not ca.seen


def test_whoever_may_apply_but_not_use_cas_gets_the_built_in_one_only(world: World, ca: FakeAcme) -> None:
    added = add(world, ca)
    applicant = world.actor_with("scm:cert:apply", "scm:cert:get")
    with pytest.raises(Forbidden) as caught:
        world.run(certificates.create_certificate(world.services, applicant, ca="acme"))
    assert caught.value.extra["action"] == "scm:ca:use"
    world.run(certificates.create_certificate(world.services, applicant))
    narrow = world.actor_with("scm:cert:apply", "scm:cert:get", "scm:ca:use", resources=("certificate:*", "ca:eca_x"))
    with pytest.raises(Forbidden):
        world.run(certificates.create_certificate(world.services, narrow, ca=added.id))


def test_seeing_a_ca_is_not_changing_it(world: World, ca: FakeAcme) -> None:
    added = add(world, ca)
    reader = world.actor_with("scm:ca:get", "scm:ca:list")
    assert world.run(cas.get_ca(world.services, reader, added.id)).name == "acme"
    for act in (
        cas.check_ca(world.services, reader, added.id),
        cas.change_key(world.services, reader, added.id),
        cas.delete_ca(world.services, reader, added.id),
        cas.update_ca(world.services, reader, added.id, revision=1, name="mine"),
        cas.add_ca(world.services, reader, name="other", directory_url="https://ca.example/dir"),
    ):
        with pytest.raises(Forbidden):
            world.run(act)


# --- keeping CAs -----------------------------------------------------------------------------------------------------


def test_a_ca_in_use_stays(world: World, ca: FakeAcme, web: Site) -> None:
    added = add(world, ca)
    detail = work.issue(world, web, NAME)
    with pytest.raises(Refused) as caught:
        world.run(cas.delete_ca(world.services, world.actor, added.id))
    assert (caught.value.code, caught.value.extra["certificates"]) == ("ca_in_use", 1)
    world.run(certificates.delete_certificate(world.services, world.actor, detail.id))
    world.run(cas.delete_ca(world.services, world.actor, added.id))
    assert work.rows(world, sa.select(ca_orders.c.id)) == []


def test_a_change_on_what_somebody_else_changed_is_stale(world: World, ca: FakeAcme) -> None:
    added = add(world, ca)
    world.run(cas.update_ca(world.services, world.actor, added.id, revision=added.revision, name="one"))
    with pytest.raises(Stale):
        world.run(cas.update_ca(world.services, world.actor, added.id, revision=added.revision, name="two"))


def test_names_are_taken_once_an_account(world: World, ca: FakeAcme) -> None:
    add(world, ca)
    with pytest.raises(Refused, match="called 'acme'"):
        add(world, ca)
    with pytest.raises(Invalid, match="must have 1 to 63"):
        add(world, ca, name="Builtin")


def test_the_secrets_of_a_ca_leave_through_no_door(world: World, ca: FakeAcme, api: Api) -> None:
    key = "c2VjcmV0LW1hYy1rZXktb2YtdGhlLWNh"
    body = {
        "name": "bound", "directory_url": ca.directory_url, "root_pem": ca.root_pem, "eab_kid": "kid", "eab_key": key,
        "public": False,
    }  # fmt: skip
    made = api.post("/api/v1/cas", body)
    assert made.status_code == 201, made.text
    ca_id = made.json()["id"]
    answers = [made, api.get(f"/api/v1/cas/{ca_id}"), api.get("/api/v1/cas"), api.post(f"/api/v1/cas/{ca_id}/test")]
    log = api.get("/api/v1/audit-events")
    for answer in [*answers, log]:
        assert answer.status_code in (200, 201), answer.text
        assert key not in answer.text
        assert "secret-mac-key" not in answer.text
        assert "PRIVATE KEY" not in answer.text


def test_the_api_adds_tests_edits_lists_and_removes(world: World, ca: FakeAcme, api: Api) -> None:
    ca.terms = "https://ca.example/terms"
    body = {"name": "le", "directory_url": ca.directory_url, "root_pem": ca.root_pem, "contacts": ["a@example.com"]}
    made = api.post("/api/v1/cas", body)
    path = made.headers["location"]
    tested = api.post(f"{path}/test").json()
    assert tested["problem"]["code"] == "ca_terms_not_agreed"
    assert tested["problem"]["url"] == "https://ca.example/terms"
    etag = api.get(path).headers["etag"]
    patched = api.patch(path, {"agree_terms": True, "limits": {"orders": {"count": 7, "seconds": 60}}},
                        headers={"if-match": etag})  # fmt: skip
    assert patched.status_code == 200, patched.text
    assert patched.json()["limits"]["orders"] == {"count": 7, "seconds": 60}
    assert patched.json()["limits"]["duplicates"] == {"count": 5, "seconds": 604800}
    good = api.post(f"{path}/test").json()
    assert good["problem"] is None
    assert good["account_url"]
    changed = api.post(f"{path}/change-key")
    assert changed.json()["account_url"] == good["account_url"]
    assert [item["name"] for item in api.get("/api/v1/cas").json()["items"]] == ["le"]
    assert api.delete(f"{path}?deactivate=true").status_code == 204
    assert next(iter(ca.accounts.values()))["status"] == "deactivated"
    assert api.get(path).status_code == 404
