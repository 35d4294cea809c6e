"""The room at work: challenges, evidence and its re-use, DNS connections, on the database and real servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.tsig
import dns.update
import pytest
import sqlalchemy as sa

from certwright.connectors.dns.rfc2136 import Rfc2136Provider
from certwright.kernel.actor import Actor
from certwright.kernel.problems import Invalid, NotFound, Problem, Refused, Stale
from certwright.platform.config import Settings
from certwright.platform.events import events
from certwright.rooms import validation
from certwright.rooms.audit import audit_events
from certwright.rooms.validation import (
    CaKind,
    ChallengeStatus,
    DnsConnection,
    DnsProviders,
    DnsRecord,
    DomainState,
    Method,
    Wanted,
)
from certwright.rooms.validation import actions as validation_actions
from certwright.rooms.validation.tables import challenges, dns_connections, evidence
from tests.conftest import World
from tests.servers.dns import DnsServer, TsigKey, authoritative, zone_text
from tests.servers.hostile_http import Handler, HostileHttp, answer, hostile_http
from tests.servers.ports import free_port
from tests.validation.servers import require

ZONE = "room.test"
OTHER_ZONE = "acme.example"
KEY = TsigKey("room.key")
# `drain` also runs what is due within a lease, so that the first waits (10, 30, 60 s) pass in one go.
NEXT_LOOK = timedelta(minutes=11)


@pytest.fixture(scope="module")
def dns_port() -> int:
    return free_port("127.0.0.1", "127.0.0.2")


@pytest.fixture(scope="module")
def server(dns_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    """Authoritative for the zone, and what the product asks as its resolver."""
    require("knotd")
    zones = {ZONE: zone_text(ZONE, ["www A 127.0.0.1"]), OTHER_ZONE: zone_text(OTHER_ZONE, [])}
    with authoritative(tmp_path_factory.mktemp("dns"), zones, keys=[KEY], port=dns_port) as running:
        yield running


@pytest.fixture
def routes() -> dict[str, Handler]:
    return {}


@pytest.fixture
def site(routes: dict[str, Handler]) -> Iterator[HostileHttp]:
    with hostile_http(routes) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, worker_database: str, dns_port: int, site: HostileHttp) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=worker_database, database_pool=8, public_url="https://cw.example",
        allowed_networks=("127.0.0.0/8",), dns_servers=(f"127.0.0.1:{dns_port}",), dns_authoritative_port=dns_port,
        validation_http_port=site.port,
    )  # fmt: skip


@pytest.fixture
def room(world: World) -> World:
    world.services.ports[DnsProviders] = DnsProviders({"rfc2136": Rfc2136Provider()})  # type: ignore[index]
    return world


def require_names(
    world: World, subject: str, *names: str, method: str = "dns", per_name: dict[str, str] | None = None, **changes: Any
) -> None:
    options: dict[str, Any] = {
        "account_id": world.account.id, "project_id": world.project_id, "ca": "builtin", "now": world.clock.now(),
    }  # fmt: skip

    async def go() -> None:
        async with world.services.db.begin() as tx:
            await validation.require_domains(
                tx, world.services, subject_id=subject, names=names, method=method,
                per_name_methods=per_name or {}, **(options | changes),
            )  # fmt: skip

    world.run(go())


def state_of(world: World, subject: str) -> validation.ValidationState:
    async def go() -> validation.ValidationState:
        async with world.services.db.begin() as tx:
            return await validation.state(tx, world.services, subject, world.clock.now())

    return world.run(go())


def only(world: World, subject: str) -> DomainState:
    (domain,) = state_of(world, subject).domains
    return domain


def cancel(world: World, subject: str) -> None:
    async def go() -> None:
        async with world.services.db.begin() as tx:
            await validation.cancel(tx, subject, world.clock.now())

    world.run(go())


def rows(world: World, table: sa.Table) -> list[Any]:
    async def go() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(sa.select(table).order_by(table.c.id))).all())

    return world.run(go())


def heard(world: World) -> list[str]:
    """Subscribe to the room's event before anything happens; the list fills as they are delivered."""
    subjects: list[str] = []

    async def listen(_: Any, event: Any) -> None:
        subjects.append(event.object_id)

    world.services.events.subscribe(validation.DOMAINS_VALIDATED, "test", listen)
    return subjects


def issued(world: World, subject: str) -> None:
    async def go() -> None:
        async with world.services.db.begin() as tx:
            await world.services.events.publish(
                tx, "certificate.version_issued", account_id=world.account.id, object_id="cert_x",
                payload={
                    "application_id": subject, "version_id": "ver_x", "certificate_id": "cert_x", "number": 1,
                    "project_id": world.project_id, "sha256": "00" * 32, "serial": "01", "names": [f"www.{ZONE}"],
                    "not_before": world.clock.now().isoformat(),
                    "not_after": (world.clock.now() + timedelta(days=90)).isoformat(),
                },
            )  # fmt: skip

    world.run(go())
    world.drain()


def connect(world: World, server: DnsServer, actor: Actor | None = None, **changes: Any) -> DnsConnection:
    options: dict[str, Any] = {
        "name": "Knot", "kind": "rfc2136", "zones": [ZONE], "secret": KEY.secret,
        "settings": {"server": server.address, "port": server.port, "key_name": KEY.name},
    }  # fmt: skip
    return world.run(validation.create_connection(world.services, actor or world.actor, **(options | changes)))


def publish(server: DnsServer, name: str, value: str | None) -> None:
    """By hand, as a person would at their DNS operator."""
    update = dns.update.UpdateMessage(ZONE + ".", keyring=dns.tsig.Key(KEY.name + ".", KEY.secret, KEY.algorithm + "."))
    update.delete(name + ".", "TXT")
    if value is not None:
        update.add(name + ".", 300, "TXT", f'"{value}"')
    assert dns.query.tcp(update, server.address, 5, server.port).rcode() == 0


def publish_cname(server: DnsServer, name: str, target: str | None) -> None:
    zone = ZONE if name.endswith(ZONE) else OTHER_ZONE
    update = dns.update.UpdateMessage(zone + ".", keyring=dns.tsig.Key(KEY.name + ".", KEY.secret, KEY.algorithm + "."))
    update.delete(name + ".", "CNAME")
    if target is not None:
        update.add(name + ".", 300, "CNAME", target)
    assert dns.query.tcp(update, server.address, 5, server.port).rcode() == 0


def txt(server: DnsServer, name: str) -> set[str]:
    said = dns.query.tcp(dns.message.make_query(name + ".", "TXT", flags=0), server.address, 5, server.port)
    return {b"".join(rdata.strings).decode() for rrset in said.answer for rdata in rrset}


# --- manual ------------------------------------------------------------------------------------------------------


def cname(server: DnsServer, name: str) -> str | None:
    answer = dns.query.tcp(dns.message.make_query(name + ".", "CNAME", flags=0), server.address, 5, server.port)
    return str(answer.answer[0][0]).rstrip(".") if answer.answer else None


def test_a_record_published_by_hand_is_noticed_and_becomes_evidence(room: World, server: DnsServer) -> None:
    subjects = heard(room)
    require_names(room, "app_dns", f"www.{ZONE}")
    room.drain()
    domain = only(room, "app_dns")
    assert (domain.status, domain.automatic) == (ChallengeStatus.PENDING, False)
    assert domain.explanation is not None
    assert domain.explanation["code"] in ("dns_no_record", "dns_no_such_name")
    assert domain.record is not None
    assert domain.record.name == ZONE  # a single www name is shown at its parent
    assert domain.instructions is not None
    assert domain.instructions["quoted"] == f'"{domain.record.value}"'
    publish(server, ZONE, domain.record.value)
    room.clock.move(NEXT_LOOK)
    room.drain()
    state = state_of(room, "app_dns")
    assert state.all_valid
    assert state.domains[0].valid_until is not None
    assert subjects == ["app_dns"]
    (entry,) = rows(room, evidence)
    assert (entry.domain, entry.scope, entry.method, entry.ca) == (ZONE, "subtree", "dns", "builtin")
    assert entry.seen["authoritative"][0]["values"] == [domain.record.value]
    publish(server, ZONE, None)


def test_the_ledger_says_by_which_resolver_and_at_which_servers_it_was_seen(
    room: World, server: DnsServer, routes: dict[str, Handler]
) -> None:
    prove(room, routes, "app_seen", "seen.localhost")
    publish(server, f"seen.{ZONE}", None)
    require_names(room, "app_seen_dns", f"seen.{ZONE}")
    record = only(room, "app_seen_dns").record
    assert record is not None
    publish(server, record.name, record.value)
    room.later(minutes=11)
    room.drain()
    by_file, by_dns = (row.seen for row in rows(room, evidence))
    assert by_file["resolved_by"] == [f"127.0.0.1 port {server.port}"]
    assert by_file["attempts"][0]["address"] == "127.0.0.1"
    assert [look["server"] for look in by_dns["resolvers"]] == [f"127.0.0.1 port {server.port}"]
    assert [look["server"] for look in by_dns["authoritative"]] == [f"ns1.{ZONE} (127.0.0.1 port {server.port})"]
    assert by_dns["authoritative"][0]["values"] == [record.value]


def test_a_file_published_by_hand_is_noticed(room: World, routes: dict[str, Handler]) -> None:
    require_names(room, "app_file", "site.localhost", method="file")
    room.drain()
    domain = only(room, "app_file")
    assert domain.explanation is not None
    assert domain.explanation["code"] == "file_not_2xx"
    assert domain.file is not None
    port = room.services.settings.validation_http_port
    assert domain.file.url == f"http://site.localhost:{port}{domain.file.path}", "the address that is looked at"
    assert domain.instructions is not None
    assert domain.instructions["url"] == domain.file.url
    routes[domain.file.path] = answer(200, domain.file.content.encode())
    room.clock.move(NEXT_LOOK)
    room.drain()
    assert state_of(room, "app_file").all_valid
    (entry,) = rows(room, evidence)
    assert (entry.domain, entry.scope, entry.seen["attempts"][0]["address"]) == ("site.localhost", "exact", "127.0.0.1")


def test_check_now_looks_at_once_and_says_what_it_saw(room: World, routes: dict[str, Handler]) -> None:
    subjects = heard(room)
    require_names(room, "app_now", "a.localhost", "b.localhost", method="file")
    domains = state_of(room, "app_now").domains
    assert domains[0].file is not None
    routes[domains[0].file.path] = answer(200, domains[0].file.content.encode())
    first, second = room.run(validation.check_now(room.services, room.actor, "app_now"))
    assert first.status is ChallengeStatus.VALID
    assert first.explanation is not None
    assert first.explanation.code == "file_ok"
    assert second.status is ChallengeStatus.PENDING
    assert second.explanation is not None
    assert (second.explanation.code, second.name) == ("file_not_2xx", "b.localhost")
    room.drain()
    assert subjects == []
    assert domains[1].file is not None
    routes[domains[1].file.path] = answer(200, domains[1].file.content.encode())
    results = room.run(validation.check_now(room.services, room.actor, "app_now"))
    assert [r.status for r in results] == [ChallengeStatus.VALID] * 2
    room.drain()
    assert subjects == ["app_now"]
    assert len(rows(room, evidence)) == 2
    again = room.run(validation.check_now(room.services, room.actor, "app_now"))
    assert [r.status for r in again] == [ChallengeStatus.VALID] * 2
    assert len(rows(room, evidence)) == 2


def test_names_validated_together_announce_the_application_exactly_once(
    room: World, routes: dict[str, Handler]
) -> None:
    subjects = heard(room)
    names = [f"n{number}.localhost" for number in range(12)]
    require_names(room, "app_many", *names, method="file")
    for domain in state_of(room, "app_many").domains:
        assert domain.file is not None
        routes[domain.file.path] = answer(200, domain.file.content.encode())
    results = room.run(validation.check_now(room.services, room.actor, "app_many"))
    assert [r.name for r in results] == names
    assert state_of(room, "app_many").all_valid
    room.drain()
    assert subjects == ["app_many"]


def test_a_manual_challenge_is_looked_at_ever_more_slowly(room: World) -> None:
    require_names(room, "app_poll", "slow.localhost", method="file")
    waits = []
    for _ in range(7):
        (row,) = rows(room, challenges)
        room.run(room.services.jobs.run_step(room.services, validation.STEP, row.id))
        (row,) = rows(room, challenges)
        waits.append((row.next_step_at - room.clock.now()).total_seconds())
        room.clock.set(row.next_step_at)
    assert waits == [10, 30, 60, 120, 300, 600, 600]


def test_a_value_expires_after_thirty_days_and_is_not_accepted_afterwards(
    room: World, routes: dict[str, Handler]
) -> None:
    require_names(room, "app_old", "late.localhost", method="file")
    file = only(room, "app_old").file
    assert file is not None
    routes[file.path] = answer(200, file.content.encode())
    room.later(days=30)
    room.drain()
    assert only(room, "app_old").status is ChallengeStatus.EXPIRED
    (result,) = room.run(validation.check_now(room.services, room.actor, "app_old"))
    assert result.explanation is not None
    assert (result.status, result.explanation.code) == (ChallengeStatus.EXPIRED, "validation_expired")
    assert rows(room, evidence) == []


def test_a_cancelled_application_is_not_validated_any_more(room: World, routes: dict[str, Handler]) -> None:
    require_names(room, "app_cancel", "gone.localhost", method="file")
    file = only(room, "app_cancel").file
    assert file is not None
    routes[file.path] = answer(200, file.content.encode())
    cancel(room, "app_cancel")
    cancel(room, "app_cancel")
    room.later(minutes=1)
    room.drain()
    assert only(room, "app_cancel").status is ChallengeStatus.CANCELLED
    assert not state_of(room, "app_cancel").all_valid
    assert rows(room, evidence) == []


def test_names_whose_record_goes_to_the_same_place_share_one_value(room: World) -> None:
    require_names(room, "app_share", f"*.{ZONE}", ZONE, f"www.{ZONE}", "elsewhere.test")
    records = [domain.record for domain in state_of(room, "app_share").domains]
    assert all(record is not None for record in records)
    assert [record.name for record in records if record] == [ZONE, ZONE, ZONE, "elsewhere.test"]
    values = [record.value for record in records if record]
    assert values[0] == values[1] == values[2] != values[3]


def test_one_record_at_the_domain_shows_the_names_below_it_too(room: World, server: DnsServer) -> None:
    subjects = heard(room)
    require_names(room, "app_below", f"deep.a.{ZONE}", ZONE)
    record = state_of(room, "app_below").domains[0].record
    assert record is not None
    publish(server, ZONE, record.value)
    room.drain()
    assert state_of(room, "app_below").all_valid
    assert subjects == ["app_below"]
    assert {entry.domain for entry in rows(room, evidence)} == {ZONE}
    publish(server, ZONE, None)


def test_a_cname_beside_does_as_well_as_the_txt_record(room: World, server: DnsServer) -> None:
    require_names(room, "app_cname", f"host.{ZONE}")
    domain = only(room, "app_cname")
    assert domain.instead is not None
    assert domain.instructions is not None
    assert domain.instructions["instead"]["type"] == "CNAME"
    publish_cname(server, domain.instead.name, "wrong.certwright.invalid.")
    room.drain()
    explanation = only(room, "app_cname").explanation
    assert explanation is not None
    assert explanation["code"] == "dns_wrong_value", "the CNAME is what was tried, so it is explained"
    publish_cname(server, domain.instead.name, domain.instead.value + ".")
    room.clock.move(NEXT_LOOK)
    room.drain()
    assert state_of(room, "app_cname").all_valid
    (entry,) = rows(room, evidence)
    assert entry.seen["record"]["type"] == "CNAME"
    publish_cname(server, domain.instead.name, None)


def test_a_value_of_an_earlier_application_is_told_as_old(room: World, server: DnsServer) -> None:
    require_names(room, "app_first", f"again.{ZONE}")
    first = only(room, "app_first").record
    assert first is not None
    cancel(room, "app_first")
    require_names(room, "app_second", f"again.{ZONE}")
    publish(server, f"again.{ZONE}", first.value)
    room.drain()
    explanation = only(room, "app_second").explanation
    assert explanation is not None
    assert explanation["code"] == "dns_old_value"
    publish(server, f"again.{ZONE}", None)


def test_every_application_gets_values_of_its_own(room: World) -> None:
    for number in range(3):
        require_names(room, f"app_own{number}", f"own.{ZONE}")
    assert len({row.value for row in rows(room, challenges)}) == 3


def test_an_application_without_names_is_not_valid(room: World) -> None:
    assert not state_of(room, "app_nothing").all_valid


@pytest.mark.parametrize(
    ("name", "method", "per_name", "code", "field"),
    [
        ("*.a.test", "file", {}, "method_not_for_wildcard", "validation_method"),
        ("*.a.test", "dns", {"*.a.test": "file"}, "method_not_for_wildcard", "per_name_methods.*.a.test"),
        ("10.0.0.1", "dns", {}, "method_not_for_ip", "validation_method"),
        ("a.test", "fax", {}, "method_unknown", "validation_method"),
    ],
)
def test_a_method_that_can_not_show_a_name_is_refused(
    room: World, name: str, method: str, per_name: dict[str, str], code: str, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        require_names(room, "app_bad", name, method=method, per_name=per_name)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert rows(room, challenges) == []


def test_methods_of_a_public_ca_that_its_connector_does_are_not_done_here(room: World) -> None:
    with pytest.raises(Invalid) as caught:
        require_names(room, "app_acme", "a.test", method="http-01", ca_kind=validation.CaKind.PUBLIC)
    assert caught.value.code == "method_not_available"


def test_somebody_without_the_right_sees_and_checks_nothing(room: World, routes: dict[str, Handler]) -> None:
    require_names(room, "app_right", "mine.localhost", method="file")
    for actor in (room.other_actor, room.actor_with("scm:cert:list")):
        assert room.run(validation.check_now(room.services, actor, "app_right")) == ()
    assert only(room, "app_right").checked_at is None


# --- re-use ------------------------------------------------------------------------------------------------------


def prove(world: World, routes: dict[str, Handler], subject: str, name: str, **changes: Any) -> str:
    require_names(world, subject, name, method="file", **changes)
    file = only(world, subject).file
    assert file is not None
    routes[file.path] = answer(200, file.content.encode())
    world.run(validation.check_now(world.services, world.actor, subject))
    found = only(world, subject).evidence_id
    assert found is not None
    return found


def test_valid_evidence_is_used_again_without_anything_to_publish(room: World, routes: dict[str, Handler]) -> None:
    known = prove(room, routes, "app_one", "reuse.localhost")
    room.later(days=13)
    require_names(room, "app_two", "reuse.localhost", method="file")
    state = state_of(room, "app_two")
    assert state.all_valid
    domain = state.domains[0]
    assert (domain.evidence_id, domain.file, domain.record, domain.instructions) == (known, None, None, None)
    assert len(rows(room, evidence)) == 1


@pytest.mark.parametrize("days", [-1, 0, 1], ids=["the day before", "to the second", "after"])
def test_evidence_is_used_up_to_the_limit_of_the_day_of_issue(
    room: World, routes: dict[str, Handler], days: int
) -> None:
    room.clock.set(room.clock.now().replace(month=4))
    prove(room, routes, "app_limit", "limit.localhost")
    room.later(days=200, seconds=days)
    require_names(room, "app_next", "limit.localhost", method="file")
    assert state_of(room, "app_next").all_valid is (days < 0)


def test_evidence_that_grows_too_old_before_issue_makes_the_name_expired(
    room: World, routes: dict[str, Handler]
) -> None:
    room.clock.set(room.clock.now().replace(month=4))
    prove(room, routes, "app_wait", "wait.localhost")
    until = only(room, "app_wait").valid_until
    assert until == room.clock.now() + timedelta(days=200)
    room.clock.set(until)
    assert state_of(room, "app_wait").all_valid
    room.later(seconds=1)
    assert only(room, "app_wait").status is ChallengeStatus.EXPIRED


def test_evidence_is_not_used_for_another_ca_project_or_account(room: World, routes: dict[str, Handler]) -> None:
    prove(room, routes, "app_base", "shared.localhost")
    require_names(room, "app_ca", "shared.localhost", method="file", ca="ca_other")
    require_names(
        room, "app_acc", "shared.localhost", method="file",
        account_id=room.other_account.id, project_id=room.other_project_id,
    )  # fmt: skip
    assert not state_of(room, "app_ca").all_valid
    assert not state_of(room, "app_acc").all_valid


def test_file_evidence_speaks_for_its_exact_name_only(room: World, routes: dict[str, Handler]) -> None:
    prove(room, routes, "app_exact", "exact.localhost")
    require_names(room, "app_sub", "www.exact.localhost", "exact.localhost", method="file")
    assert [d.status for d in state_of(room, "app_sub").domains] == [ChallengeStatus.PENDING, ChallengeStatus.VALID]


def test_dns_evidence_speaks_for_everything_below_its_domain(room: World, server: DnsServer) -> None:
    require_names(room, "app_zone", ZONE)
    record = only(room, "app_zone").record
    assert record is not None
    publish(server, ZONE, record.value)
    room.run(validation.check_now(room.services, room.actor, "app_zone"))
    require_names(room, "app_below", f"*.{ZONE}", f"a.b.{ZONE}", f"other{ZONE}")
    assert [d.status for d in state_of(room, "app_below").domains] == [
        ChallengeStatus.VALID, ChallengeStatus.VALID, ChallengeStatus.PENDING,
    ]  # fmt: skip
    publish(server, ZONE, None)


def test_the_ledger_lists_newest_first_with_its_limit(room: World, routes: dict[str, Handler]) -> None:
    for number in range(3):
        room.later(minutes=1)
        prove(room, routes, f"app_l{number}", f"l{number}.localhost")
    listed = room.run(validation.list_evidence(room.services, room.actor, limit=2))
    assert [e.domain for e in listed] == ["l2.localhost", "l1.localhost"]
    rest = room.run(validation.list_evidence(room.services, room.actor, after=listed[-1].id))
    assert [e.domain for e in rest] == ["l0.localhost"]
    assert rest[0].method is Method.FILE
    assert rest[0].reuse_until == rest[0].validated_at + timedelta(days=200)
    one = room.run(validation.list_evidence(room.services, room.actor, domain="l1.localhost"))
    assert [e.domain for e in one] == ["l1.localhost"]
    assert room.run(validation.list_evidence(room.services, room.other_actor)) == ()


# --- automatic ---------------------------------------------------------------------------------------------------


def test_a_connection_writes_checks_validates_and_removes_only_after_issue(room: World, server: DnsServer) -> None:
    subjects = heard(room)
    connection = connect(room, server)
    require_names(room, "app_auto", f"auto.{ZONE}")
    domain = only(room, "app_auto")
    assert (domain.automatic, domain.connection_id) == (True, connection.id)
    assert domain.record is not None
    room.drain()
    assert state_of(room, "app_auto").all_valid
    assert subjects == ["app_auto"]
    assert txt(server, f"auto.{ZONE}") == {domain.record.value}
    room.later(hours=1)
    room.drain()
    assert txt(server, f"auto.{ZONE}") == {domain.record.value}
    issued(room, "app_auto")
    room.drain()
    assert txt(server, f"auto.{ZONE}") == set()
    (row,) = rows(room, challenges)
    assert row.removed_at is not None
    assert row.next_step_at is None


def test_what_was_written_is_removed_after_cancel(room: World, server: DnsServer) -> None:
    connect(room, server)
    require_names(room, "app_stop", f"stop.{ZONE}", f"stay.{ZONE}")
    room.drain()
    assert len(txt(server, f"stop.{ZONE}")) == 1
    cancel(room, "app_stop")
    room.drain()
    assert txt(server, f"stop.{ZONE}") == set()
    assert txt(server, f"stay.{ZONE}") == set()


def test_a_record_nobody_needs_is_removed_when_its_value_expires(room: World, server: DnsServer) -> None:
    connect(room, server)
    require_names(room, "app_forgotten", f"forgotten.{ZONE}")
    room.drain()
    assert len(txt(server, f"forgotten.{ZONE}")) == 1
    room.later(days=30, seconds=1)
    room.drain()
    assert txt(server, f"forgotten.{ZONE}") == set()


def test_a_crash_between_write_and_record_leaves_nothing_behind(room: World, server: DnsServer) -> None:
    connect(room, server)
    require_names(room, "app_crash", f"crash.{ZONE}")
    (row,) = rows(room, challenges)

    async def half_a_step() -> None:
        async with room.services.db.begin() as tx:
            assert await validation_actions.store.intend_write(tx, row.id, room.clock.now())
        writer = await validation_actions.connections.open_writer(room.services, row.connection_id)
        await writer.add(DnsRecord(row.record_name, "TXT", row.value))

    room.run(half_a_step())
    assert len(txt(server, f"crash.{ZONE}")) == 1
    cancel(room, "app_crash")
    room.drain()
    assert txt(server, f"crash.{ZONE}") == set()


def test_a_crashed_write_is_repeated_without_doubling_the_record(room: World, server: DnsServer) -> None:
    connect(room, server)
    require_names(room, "app_again", f"again.{ZONE}")
    (row,) = rows(room, challenges)

    async def write() -> None:
        writer = await validation_actions.connections.open_writer(room.services, row.connection_id)
        await writer.add(DnsRecord(row.record_name, "TXT", row.value))

    room.run(write())
    room.drain()
    assert txt(server, f"again.{ZONE}") == {row.value}
    assert state_of(room, "app_again").all_valid
    issued(room, "app_again")
    room.drain()
    assert txt(server, f"again.{ZONE}") == set()


def test_a_server_that_is_down_is_told_and_tried_again(room: World, server: DnsServer) -> None:
    settings = {"server": "127.0.0.1", "port": free_port("127.0.0.1"), "key_name": KEY.name}
    connection = connect(room, server, settings=settings)
    require_names(room, "app_down", f"down.{ZONE}")
    room.drain()
    domain = only(room, "app_down")
    assert domain.explanation is not None
    assert domain.explanation["code"] == "dns_update_unreachable"
    (row,) = rows(room, challenges)
    assert row.step_problem["code"] == "dns_update_unreachable"
    working = {"server": server.address, "port": server.port, "key_name": KEY.name}
    room.run(validation.update_connection(room.services, room.actor, connection.id, revision=1, settings=working))
    room.clock.move(NEXT_LOOK)
    room.drain()
    assert state_of(room, "app_down").all_valid
    cancel(room, "app_down")
    room.drain()


def test_a_record_written_where_nobody_asks_names_the_right_operator(
    room: World, server: DnsServer, dns_port: int, tmp_path: Path
) -> None:
    elsewhere = {ZONE: zone_text(ZONE)}
    with authoritative(tmp_path / "elsewhere", elsewhere, keys=[KEY], address="127.0.0.2", port=dns_port) as other:
        connect(room, other)
        require_names(room, "app_wrong", f"wrong.{ZONE}")
        room.drain()
        domain = only(room, "app_wrong")
        assert domain.explanation is not None
        assert domain.explanation["code"] == "dns_wrong_operator"
        assert f"served by ns1.{ZONE}" in domain.explanation["message"]


def test_a_connection_of_another_project_is_not_used(room: World, server: DnsServer) -> None:
    connect(room, server, actor=room.other_actor)
    require_names(room, "app_foreign", f"foreign.{ZONE}")
    assert not only(room, "app_foreign").automatic


def test_the_connection_with_the_closest_zone_is_used(room: World, server: DnsServer) -> None:
    connect(room, server, name="wide")
    close = connect(room, server, name="close", zones=[f"deep.{ZONE}"])
    require_names(room, "app_close", f"a.deep.{ZONE}", f"a.{ZONE}", f"*.deep.{ZONE}")
    found = [domain.connection_id for domain in state_of(room, "app_close").domains]
    assert found[0] == found[2] == close.id
    assert found[1] != close.id


# --- names that lead elsewhere by CNAME --------------------------------------------------------------------------


def want(world: World, subject: str, *wanted: Wanted) -> None:
    """As a CA outside asks."""

    async def go() -> None:
        async with world.services.db.begin() as tx:
            await validation.publish(
                tx, world.services, account_id=world.account.id, project_id=world.project_id, subject_id=subject,
                wanted=wanted, ca="acme", ca_kind=CaKind.PUBLIC, now=world.clock.now(),
            )  # fmt: skip

    world.run(go())


def dns_01(world: World, name: str, value: str = "token-digest") -> Wanted:
    until = world.clock.now() + timedelta(days=7)
    return Wanted(name, Method.DNS_01, f"_acme-challenge.{name}", value, until)


def test_a_delegated_name_is_written_where_its_cname_leads_and_removed_from_there(
    room: World, server: DnsServer
) -> None:
    connect(room, server, zones=[OTHER_ZONE])
    asked, target = f"_acme-challenge.led.{ZONE}", f"led.{OTHER_ZONE}"
    publish_cname(server, asked, target + ".")
    want(room, "app_led", dns_01(room, f"led.{ZONE}"))
    assert only(room, "app_led").automatic is False
    room.drain()
    domain = only(room, "app_led")
    assert (domain.status, domain.automatic) == (ChallengeStatus.VALID, True)
    assert txt(server, target) == {"token-digest"}
    (entry,) = rows(room, evidence)
    assert entry.seen["delegation"] == [asked, target]
    assert f"{asked} leads to {target} by CNAME" in entry.seen["message"]
    issued(room, "app_led")
    assert txt(server, target) == set()


def test_a_connection_that_holds_the_cname_only_leaves_the_record_to_people(room: World, server: DnsServer) -> None:
    connect(room, server)
    asked, target = f"_acme-challenge.far.{ZONE}", f"far.{OTHER_ZONE}"
    publish_cname(server, asked, target + ".")
    want(room, "app_far", dns_01(room, f"far.{ZONE}"))
    room.drain()
    domain = only(room, "app_far")
    assert (domain.status, domain.automatic) == (ChallengeStatus.PENDING, False)
    assert domain.instructions is not None
    assert (domain.instructions["name"], domain.instructions["delegated_from"]) == (target, asked)
    assert domain.explanation is not None
    assert domain.explanation["code"] == "dns_no_such_name"
    assert domain.explanation["message"].startswith(f"{asked} leads to {target} by CNAME. {target} doesn't exist")
    connect(room, server, name="Target", zones=[OTHER_ZONE])
    room.later(minutes=11)
    room.drain()
    assert only(room, "app_far").status is ChallengeStatus.VALID


def test_a_cname_removed_before_anything_was_written_leads_back(room: World, server: DnsServer) -> None:
    asked = f"_acme-challenge.back.{ZONE}"
    publish_cname(server, asked, f"back.{OTHER_ZONE}.")
    want(room, "app_back", dns_01(room, f"back.{ZONE}"))
    room.drain()
    assert only(room, "app_back").delegated_from == asked
    publish_cname(server, asked, None)
    connect(room, server)
    room.later(minutes=11)
    room.drain()
    domain = only(room, "app_back")
    assert (domain.status, domain.delegated_from) == (ChallengeStatus.VALID, None)
    assert txt(server, asked) == {"token-digest"}


def test_a_circle_of_cnames_is_told_and_nothing_is_written(room: World, server: DnsServer) -> None:
    connect(room, server, zones=[ZONE, OTHER_ZONE])
    asked, other = f"_acme-challenge.circle.{ZONE}", f"_circle.{OTHER_ZONE}"
    publish_cname(server, asked, other + ".")
    publish_cname(server, other, asked + ".")
    want(room, "app_circle", dns_01(room, f"circle.{ZONE}"))
    room.drain()
    domain = only(room, "app_circle")
    assert (domain.status, domain.automatic) == (ChallengeStatus.PENDING, False)
    assert domain.explanation is not None
    assert domain.explanation["code"] == "dns_cname_loop"
    assert f"{asked} → {other} → {asked}" in domain.explanation["message"]


def test_a_connection_of_others_is_not_used_through_a_cname(room: World, server: DnsServer) -> None:
    connect(room, server, actor=room.other_actor, zones=[OTHER_ZONE])
    publish_cname(server, f"_acme-challenge.theirs.{ZONE}", f"theirs.{OTHER_ZONE}.")
    want(room, "app_theirs", dns_01(room, f"theirs.{ZONE}"))
    room.drain()
    assert only(room, "app_theirs").automatic is False
    assert txt(server, f"theirs.{OTHER_ZONE}") == set()


def test_where_a_cname_keeps_our_txt_record_out_the_cname_beside_is_written(room: World, server: DnsServer) -> None:
    connect(room, server)
    name = f"shop.{ZONE}"
    publish_cname(server, name, "cdn.elsewhere.test.")
    require_names(room, "app_cdn", name)
    room.drain()
    domain = only(room, "app_cdn")
    assert (domain.status, domain.automatic) == (ChallengeStatus.VALID, True)
    assert domain.record is not None
    assert domain.record.type == "CNAME"
    assert cname(server, domain.record.name) == domain.record.value
    issued(room, "app_cdn")
    assert cname(server, domain.record.name) is None
    assert cname(server, name) == "cdn.elsewhere.test"


def test_a_cname_a_ca_asks_for_is_written_and_removed(room: World, server: DnsServer) -> None:
    connect(room, server)
    place, target = f"_dnsauth.bought.{ZONE}", "abc.dcv.elsewhere.test"
    until = room.clock.now() + timedelta(days=7)
    want(room, "app_bought", Wanted(f"bought.{ZONE}", Method.DNS, place, target, until, "CNAME"))
    assert only(room, "app_bought").instead is None
    room.drain()
    assert only(room, "app_bought").status is ChallengeStatus.VALID
    assert cname(server, place) == target
    issued(room, "app_bought")
    assert cname(server, place) is None


# --- connections -------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_sealed_tested_changed_and_deleted(room: World, server: DnsServer) -> None:
    made = connect(room, server)
    assert (made.zones, made.settings["algorithm"], made.revision) == ((ZONE,), "hmac-sha256", 1)
    (row,) = rows(room, dns_connections)
    assert KEY.secret.encode() not in row.secret
    tested = room.run(validation.check_connection(room.services, room.actor, made.id))
    assert (tested.checked_at, tested.problem) == (room.clock.now(), None)
    wrong = TsigKey("x").secret
    changed = room.run(
        validation.update_connection(room.services, room.actor, made.id, revision=1, name="Mine", secret=wrong)
    )
    assert (changed.name, changed.revision, changed.checked_at) == ("Mine", 2, None)
    failed = room.run(validation.check_connection(room.services, room.actor, made.id))
    assert failed.problem is not None
    assert failed.problem["code"] == "dns_update_bad_key"
    assert wrong not in str(failed.problem)
    with pytest.raises(Stale):
        room.run(validation.update_connection(room.services, room.actor, made.id, revision=1, name="Late"))
    assert [c.id for c in room.run(validation.list_connections(room.services, room.actor))] == [made.id]
    room.run(validation.delete_connection(room.services, room.actor, made.id))
    with pytest.raises(NotFound):
        room.run(validation.get_connection(room.services, room.actor, made.id))
    assert room.run(validation.list_connections(room.services, room.actor)) == ()


def test_a_connection_in_use_is_not_deleted(room: World, server: DnsServer) -> None:
    made = connect(room, server)
    require_names(room, "app_use", f"use.{ZONE}")
    with pytest.raises(Refused) as caught:
        room.run(validation.delete_connection(room.services, room.actor, made.id))
    assert (caught.value.code, caught.value.extra) == ("dns_connection_in_use", {"waiting": 1})
    cancel(room, "app_use")
    room.drain()
    room.run(validation.delete_connection(room.services, room.actor, made.id))


def test_deleting_a_connection_first_removes_the_records_written_through_it(room: World, server: DnsServer) -> None:
    made = connect(room, server)
    require_names(room, "app_out", f"out.{ZONE}")
    room.drain()
    assert only(room, "app_out").status is ChallengeStatus.VALID
    with pytest.raises(Refused) as needed:
        room.run(validation.delete_connection(room.services, room.actor, made.id))
    assert (needed.value.code, needed.value.extra) == ("dns_records_out", {"records": [f"out.{ZONE}"]})
    assert "are issued" in needed.value.fix
    cancel(room, "app_out")
    with pytest.raises(Refused) as removing:
        room.run(validation.delete_connection(room.services, room.actor, made.id))
    assert "being removed now" in removing.value.fix
    assert txt(server, f"out.{ZONE}"), "nothing may be forgotten while it stands"
    room.drain()
    assert txt(server, f"out.{ZONE}") == set()
    room.run(validation.delete_connection(room.services, room.actor, made.id))


def test_a_connection_whose_server_is_gone_can_be_deleted_by_leaving_its_records(
    room: World, server: DnsServer
) -> None:
    made = connect(room, server)
    require_names(room, "app_left", f"left.{ZONE}")
    room.drain()
    (record,) = txt(server, f"left.{ZONE}")
    room.run(validation.delete_connection(room.services, room.actor, made.id, leave_records=True))
    (line,) = [row for row in rows(room, audit_events) if row.action == "dns:connection:delete"]
    assert line.before["records_left"] == [f"left.{ZONE}"]
    assert txt(server, f"left.{ZONE}") == {record}
    publish(server, f"left.{ZONE}", None)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": " "}, "dns_connection_name_invalid", "name"),
        ({"name": "x" * 64}, "dns_connection_name_invalid", "name"),
        ({"kind": "carrier-pigeon"}, "dns_kind_unknown", "kind"),
        ({"zones": []}, "dns_zones_count", "zones"),
        ({"zones": ["*.a.test"]}, "dns_zone_wildcard", "zones.0"),
        ({"zones": ["a.test", "A.test."]}, "dns_zone_twice", "zones.1"),
        ({"zones": ["com"]}, "dns_zone_public_suffix", "zones.0"),
        ({"zones": ["a b"]}, "name_bad_character", "zones.0"),
        ({"settings": {"server": "ns", "key_name": "k", "port": 70000}}, "dns_port_invalid", "settings.port"),
        ({"secret": "?"}, "tsig_secret_invalid", "secret"),
        ({"project_id": "prj_unknown"}, "not_found", "project_id"),
    ],
)
def test_a_connection_with_a_mistake_is_refused_by_its_field(
    room: World, change: dict[str, Any], code: str, field: str
) -> None:
    nowhere = DnsServer("none", "127.0.0.1", 53, None, Path())  # type: ignore[arg-type]
    with pytest.raises(Problem) as caught:
        connect(room, nowhere, **change)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert rows(room, dns_connections) == []


def test_two_connections_of_a_project_can_not_share_a_name(room: World, server: DnsServer) -> None:
    connect(room, server)
    second = connect(room, server, name="Second")
    with pytest.raises(Refused) as caught:
        connect(room, server)
    assert caught.value.code == "dns_connection_name_taken"
    with pytest.raises(Refused):
        room.run(validation.update_connection(room.services, room.actor, second.id, revision=1, name="Knot"))


def test_connections_of_others_do_not_exist(room: World, server: DnsServer) -> None:
    made = connect(room, server)
    for actor in (room.other_actor, room.actor_with("scm:cert:list")):
        for call in (
            validation.get_connection(room.services, actor, made.id),
            validation.check_connection(room.services, actor, made.id),
            validation.delete_connection(room.services, actor, made.id),
            validation.update_connection(room.services, actor, made.id, revision=1, name="x"),
        ):
            with pytest.raises(NotFound):
                room.run(call)


# --- the tool ----------------------------------------------------------------------------------------------------


def test_the_tool_checks_any_record_file_and_caa(room: World, server: DnsServer, routes: dict[str, Handler]) -> None:
    publish(server, f"tool.{ZONE}", "expected")
    found = room.run(
        validation.check_dns(room.services, room.actor, name=f"Tool.{ZONE}", rdtype="TXT", value="expected")
    )
    assert found.code == "dns_ok"
    under = room.run(
        validation.check_dns(room.services, room.actor, name=f"_dnsauth.{ZONE}", rdtype="TXT", value="expected")
    )
    assert under.code == "dns_no_such_name"
    routes["/.well-known/pki-validation/x.txt"] = answer(200, b"hello")
    file = room.run(
        validation.check_file(room.services, room.actor, host="f.localhost", file_name="x.txt", content="hello")
    )
    assert file.code == "file_ok"
    verdict = room.run(validation.check_caa(room.services, room.actor, name=f"*.{ZONE}", ca_identifiers=["ca.test"]))
    assert verdict.code in ("caa_none", "caa_lookup_failed")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"name": "a..b", "rdtype": "TXT", "value": "v"}, "name_empty_label"),
        ({"name": "a.test", "rdtype": "MX", "value": "v"}, "check_type_invalid"),
        ({"name": "a.test", "rdtype": "TXT", "value": " "}, "check_value_invalid"),
        ({"name": "a.test", "rdtype": "TXT", "value": "v", "connection_id": "dns_x"}, "dns_connection_unknown"),
    ],
)
def test_the_tool_refuses_what_it_can_not_look_up(room: World, call: dict[str, Any], code: str) -> None:
    with pytest.raises(Problem) as caught:
        room.run(validation.check_dns(room.services, room.actor, **call))
    assert caught.value.code == code


def test_the_tool_needs_the_right_to_check(room: World) -> None:
    actor = replace(room.actor, grants=())
    with pytest.raises(Problem) as caught:
        room.run(validation.check_dns(room.services, actor, name="a.test", rdtype="TXT", value="v"))
    assert caught.value.code == "not_permitted"


def test_events_carry_ids_and_no_values(room: World, routes: dict[str, Handler]) -> None:
    heard(room)
    prove(room, routes, "app_event", "event.localhost")
    (event,) = [row for row in rows(room, events) if row.kind == validation.DOMAINS_VALIDATED]
    assert event.payload == {"subject_id": "app_event", "project_id": room.project_id}
