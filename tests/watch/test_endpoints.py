"""Endpoints from the first probe to the last alarm, against real TLS servers and the real database."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.problems import Forbidden, Invalid, NotFound, Problem, Refused, Stale
from certwright.rooms import certificates, renewal, watch
from certwright.rooms.watch import actions, alarms, metrics, store
from certwright.rooms.watch.chains import Roots
from certwright.rooms.watch.tables import alarm_history, endpoints
from certwright.rooms.watch.tables import alarms as alarms_table
from certwright.rooms.watch.words import EXCEPTION, AlarmFact, Observation, Severity
from tests.servers.ports import free_port
from tests.servers.tls import Issued, TlsServer, issue, tls_server
from tests.watch.material import (
    begin_rollout,
    change_binding,
    finish_rollouts,
    publish,
    put_binding,
    put_version,
    site_of,
    span,
)

NAME = "www.example.test"


def add(world: Any, server: TlsServer | int, **more: Any) -> str:
    port = server if isinstance(server, int) else server.port
    row = world.run(watch.create_endpoint(world.services, world.actor, host="127.0.0.1", port=port, sni=NAME, **more))
    return str(row.id)


def probe(world: Any, endpoint_id: str) -> None:
    world.run(watch.probe_now(world.services, world.actor, endpoint_id))
    world.drain()


def open_alarms(world: Any, object_id: str) -> list[Any]:
    listed: list[Any] = world.run(
        watch.list_alarms(world.services, world.actor, watch.AlarmFilter(object_id=object_id))
    )
    return listed


def good(world: Any) -> Issued:
    return issue(NAME, **span(world, left=80, life=90))


def test_an_expired_certificate_raises_and_a_good_one_clears(world: Any) -> None:
    expired = issue(NAME, **span(world, left=-2, life=90))
    with tls_server(expired) as server:
        endpoint_id = add(world, server)
        world.drain()
        (alarm,) = open_alarms(world, endpoint_id)
        assert (alarm.kind, alarm.severity, alarm.threshold, alarm.reason) == (EXCEPTION, "critical", 2, "expired")
        assert (alarm.object_type, alarm.addresses, alarm.location["port"]) == ("endpoint", ["127.0.0.1"], server.port)
        assert [value["value"] for value in alarm.recent_values] == [-2.0]
        assert watch.sentence(alarm.reason, alarm.params) == f"The certificate {NAME} expired on 2026-02-27 12:00 UTC."

        world.later(hours=12)
        probe(world, endpoint_id)
        (alarm,) = open_alarms(world, endpoint_id)
        assert [value["value"] for value in alarm.recent_values] == [-2.0, -2.5]

        server.serve(good(world))
        world.later(minutes=5)
        probe(world, endpoint_id)
        assert open_alarms(world, endpoint_id) == []
        row, history = world.run(watch.get_alarm(world.services, world.actor, alarm.id))
        assert row.cleared_at == world.clock.now()
        assert [line.what for line in history] == ["raised", "cleared"]


def test_history_is_kept_as_changes(world: Any) -> None:
    first, second = good(world), good(world)
    with tls_server(first) as server:
        endpoint_id = add(world, server)
        world.drain()
        start = world.clock.now()
        for _ in range(3):
            world.later(minutes=5)
            probe(world, endpoint_id)
        server.serve(second)
        world.later(minutes=5)
        probe(world, endpoint_id)
    now, before = world.run(watch.observations(world.services, world.actor, endpoint_id))
    assert (before.fingerprint, now.fingerprint) == (first.fingerprint, second.fingerprint)
    assert (before.first_seen, before.last_seen) == (start, start + timedelta(minutes=15))
    assert before.superseded_at == now.first_seen == start + timedelta(minutes=20)
    assert now.superseded_at is None
    assert (now.tls_version, now.key_exchange_group, now.trusted, now.chain_state) == (
        "TLSv1.3",
        "x25519",
        False,
        "complete",
    )
    assert now.chain_ders == [second.der]
    assert now.latency_ms > 0


def test_an_alarm_gets_worse_and_an_acknowledgement_ends_with_it(world: Any) -> None:
    with tls_server(issue(NAME, **span(world, left=20, life=200))) as server:
        endpoint_id = add(world, server)
        world.drain()
        (alarm,) = open_alarms(world, endpoint_id)
        assert alarm.severity == "minor"
        row, _ = world.run(watch.acknowledge(world.services, world.actor, alarm.id))
        assert row.acknowledged_by == world.actor.name
        world.later(days=14)
        probe(world, endpoint_id)
        (worse,) = open_alarms(world, endpoint_id)
        assert (worse.id, worse.severity, worse.acknowledged_at) == (alarm.id, "major", None)
        _, history = world.run(watch.get_alarm(world.services, world.actor, alarm.id))
        assert [line.what for line in history] == ["raised", "acknowledged", "changed"]


def test_a_cleared_alarm_is_not_acknowledged(world: Any) -> None:
    with tls_server(issue(NAME, **span(world, left=-1, life=90))) as server:
        endpoint_id = add(world, server)
        world.drain()
        (alarm,) = open_alarms(world, endpoint_id)
        world.run(watch.delete_endpoint(world.services, world.actor, endpoint_id))
    with pytest.raises(Refused) as caught:
        world.run(watch.acknowledge(world.services, world.actor, alarm.id))
    assert caught.value.code == "alarm_cleared"
    row, history = world.run(watch.get_alarm(world.services, world.actor, alarm.id))
    assert (row.cleared_by, [line.what for line in history]) == ("no longer watched", ["raised", "cleared"])


def test_one_missed_probe_is_no_alarm_and_two_are(world: Any) -> None:
    with tls_server(good(world)) as server:
        endpoint_id = add(world, server)
        world.drain()
        server.mode = "close"
        world.later(minutes=5)
        probe(world, endpoint_id)
        assert open_alarms(world, endpoint_id) == []
        row, _, _ = world.run(watch.get_endpoint(world.services, world.actor, endpoint_id))
        assert (row.reachable, row.failures) == (True, 1)
        assert row.next_probe_at == world.clock.now() + timedelta(seconds=10)
        world.later(seconds=10)
        assert world.run(watch.probe_due(world.services)) == 1
        (alarm,) = open_alarms(world, endpoint_id)
        assert (alarm.reason, alarm.threshold, alarm.severity) == ("unreachable", 3, "critical")
        server.mode = "tls"
        world.later(minutes=5)
        assert world.run(watch.probe_due(world.services)) == 1
        assert open_alarms(world, endpoint_id) == []


def test_what_never_answered_is_an_alarm_at_once(world: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint_id = add(world, free.getsockname()[1])
        world.drain()
    (alarm,) = open_alarms(world, endpoint_id)
    assert (alarm.reason, alarm.params["problem"]) == ("unreachable", "refused")


def test_every_address_of_a_host_is_probed(world: Any) -> None:
    with (
        tls_server(good(world), port=free_port("127.0.0.1", "::1")) as server,
        tls_server(issue(NAME, **span(world, left=-1, life=9)), host="::1", port=server.port),
    ):
        row = world.run(
            watch.create_endpoint(world.services, world.actor, host="localhost", port=server.port, sni=NAME)
        )
        world.drain()
        _, seen, (alarm,) = world.run(watch.get_endpoint(world.services, world.actor, row.id))
        assert {each.address for each in seen} == {"127.0.0.1", "::1"}
        assert (alarm.reason, alarm.addresses) == ("expired", ["::1"])


def test_an_address_that_is_not_permitted_is_recorded_without_an_alarm(world: Any) -> None:
    row = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    world.drain()
    row, (seen,), standing = world.run(watch.get_endpoint(world.services, world.actor, row.id))
    assert (seen.problem, seen.reachable, standing, row.reachable) == ("denied", False, [], False)


def test_starttls_endpoints_are_probed(world: Any) -> None:
    with tls_server(good(world), mode="smtp") as server:
        endpoint_id = add(world, server, starttls="smtp")
        world.drain()
        row, (seen,), _ = world.run(watch.get_endpoint(world.services, world.actor, endpoint_id))
        assert (row.reachable, seen.tls_version) == (True, "TLSv1.3")


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"host": ""}, "name_empty", "host"),
        ({"host": "https://a.example"}, "name_is_url", "host"),
        ({"host": "*.example.com"}, "host_is_wildcard", "host"),
        ({"host": "a.example.com", "port": 0}, "port_invalid", "port"),
        ({"host": "a.example.com", "port": 65536}, "port_invalid", "port"),
        ({"host": "a.example.com", "sni": "*.example.com"}, "sni_is_wildcard", "sni"),
        ({"host": "a.example.com", "sni": "a b"}, "name_bad_character", "sni"),
        ({"host": "a.example.com", "starttls": "ftp"}, "starttls_unknown", "starttls"),
    ],
)
def test_bad_endpoints_are_refused(world: Any, given: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        world.run(watch.create_endpoint(world.services, world.actor, **given))
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.fix


def test_the_same_endpoint_twice_is_refused(world: Any) -> None:
    world.run(watch.create_endpoint(world.services, world.actor, host="A.Example.com."))
    with pytest.raises(Refused) as caught:
        world.run(watch.create_endpoint(world.services, world.actor, host="a.example.com"))
    assert caught.value.code == "endpoint_exists"


def test_other_accounts_see_nothing_and_the_unpermitted_may_not(world: Any) -> None:
    row = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    services = world.services
    assert world.run(watch.list_endpoints(services, world.other_actor)) == []
    for attempt in (
        watch.get_endpoint(services, world.other_actor, row.id),
        watch.probe_now(services, world.other_actor, row.id),
        watch.delete_endpoint(services, world.other_actor, row.id),
        watch.update_endpoint(services, world.other_actor, row.id, enabled=False),
        watch.observations(services, world.other_actor, row.id),
    ):
        with pytest.raises(NotFound):
            world.run(attempt)
    reader = world.actor_with("alarm:endpoint:get", "alarm:endpoint:list")
    assert [each.id for each in world.run(watch.list_endpoints(services, reader))] == [row.id]
    with pytest.raises(Forbidden):
        world.run(watch.delete_endpoint(services, reader, row.id))


def test_a_change_on_an_old_revision_is_refused(world: Any) -> None:
    row = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    changed = world.run(
        watch.update_endpoint(world.services, world.actor, row.id, revision=row.revision, enabled=False)
    )
    assert (changed.enabled, changed.next_probe_at) == (False, None)
    with pytest.raises(Stale):
        world.run(watch.update_endpoint(world.services, world.actor, row.id, revision=row.revision, enabled=True))
    with pytest.raises(Refused):
        world.run(watch.probe_now(world.services, world.actor, row.id))


def test_a_served_certificate_other_than_intended_is_an_alarm(world: Any) -> None:
    intended, other = good(world), good(world)
    certificate_id = world.run(put_version(world, intended))
    world.drain()
    with tls_server(other) as server:
        endpoint_id = add(world, server, certificate_id=certificate_id)
        world.drain()
        (alarm,) = open_alarms(world, endpoint_id)
        assert (alarm.kind, alarm.params["served"]) == ("ALM-2001010", other.fingerprint)
        _, (seen,), _ = world.run(watch.get_endpoint(world.services, world.actor, endpoint_id))
        assert seen.intended is False
        server.serve(intended)
        probe(world, endpoint_id)
        assert open_alarms(world, endpoint_id) == []


def test_a_new_version_is_waited_for_before_the_old_one_is_an_alarm(world: Any) -> None:
    old, new = good(world), issue(NAME, **span(world, left=90, life=90))
    certificate_id = world.run(put_version(world, old))
    with tls_server(old) as server:
        endpoint_id = add(world, server, certificate_id=certificate_id)
        world.drain()
        world.run(put_version(world, new, certificate_id=certificate_id))
        world.drain()
        probe(world, endpoint_id)
        assert open_alarms(world, endpoint_id) == []
        world.later(hours=1)
        probe(world, endpoint_id)
        assert [alarm.kind for alarm in open_alarms(world, endpoint_id)] == ["ALM-2001010"]


def bound_at(world: Any, server: TlsServer, certificate_id: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """A binding, and what its events tell; the event is published."""
    binding_id = world.run(put_binding(world, certificate_id, **more))
    told = {
        "binding_id": binding_id, "certificate_id": certificate_id, "host": "127.0.0.1",
        "port": server.port, "sni": NAME,
    }  # fmt: skip
    world.run(publish(world, "deployment.binding_created", binding_id, **told))
    world.drain()
    return binding_id, told


def test_bindings_bring_and_take_their_endpoints(world: Any) -> None:
    served = good(world)
    certificate_id = world.run(put_version(world, served))
    with tls_server(served) as server:
        binding_id, told = bound_at(world, server, certificate_id)
        world.run(publish(world, "deployment.binding_created", binding_id, **told))
        world.drain()
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        assert (row.host, row.origin, row.expected_fingerprint) == ("127.0.0.1", "binding", served.fingerprint)
        assert row.reachable is True
        with pytest.raises(Refused) as caught:
            world.run(watch.delete_endpoint(world.services, world.actor, row.id))
        assert caught.value.code == "endpoint_bound"
        world.run(change_binding(world, binding_id))
        world.run(publish(world, "deployment.binding_removed", binding_id, binding_id=binding_id))
        world.drain()
        assert world.run(watch.list_endpoints(world.services, world.actor)) == []


def test_a_binding_takes_over_an_endpoint_added_by_hand_and_leaves_it_behind(world: Any) -> None:
    served = good(world)
    certificate_id = world.run(put_version(world, served))
    with tls_server(served) as server:
        endpoint_id = add(world, server)
        binding_id, _ = bound_at(world, server, certificate_id)
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        assert (row.id, row.binding_id, row.origin) == (endpoint_id, binding_id, "manual")
        world.run(change_binding(world, binding_id))
        world.run(publish(world, "deployment.binding_removed", binding_id, binding_id=binding_id))
        world.drain()
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        assert (row.id, row.binding_id, row.certificate_id) == (endpoint_id, None, None)


@pytest.mark.parametrize("order", [("removed", "created"), ("created", "removed")])
def test_a_binding_moved_to_another_certificate_is_watched_whatever_is_told_first(
    world: Any, order: tuple[str, str]
) -> None:
    first, second = good(world), good(world)
    first_id, second_id = world.run(put_version(world, first)), world.run(put_version(world, second))
    with tls_server(second) as server:
        binding_id, told = bound_at(world, server, first_id)
        version = world.run(current_version(world, second_id))
        world.run(change_binding(world, binding_id, certificate_id=second_id, deployed_version_id=version))
        for what in order:
            named = first_id if what == "removed" else second_id
            world.run(publish(world, f"deployment.binding_{what}", binding_id, **told | {"certificate_id": named}))
            world.drain()
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        assert (row.certificate_id, row.expected_fingerprint) == (second_id, second.fingerprint)
        assert open_alarms(world, row.id) == []


@pytest.mark.parametrize(
    ("told_name", "asked"),
    [("_", ""), ("*.example.test", "certwright-probe.example.test"), ("WWW.example.test", NAME), ("~^x.*$", "")],
)
def test_a_sites_name_becomes_one_that_can_be_asked_for(world: Any, told_name: str, asked: str) -> None:
    certificate_id = world.run(put_version(world, good(world)))
    binding_id = world.run(put_binding(world, certificate_id))
    told = {"binding_id": binding_id, "host": "127.0.0.1", "port": 1, "sni": told_name}
    world.run(publish(world, "deployment.binding_created", binding_id, **told))
    world.drain()
    (row,) = world.run(watch.list_endpoints(world.services, world.actor))
    assert row.sni == asked


def test_a_mistake_at_one_endpoint_leaves_the_others_recorded(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    fine = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.2"))
    real = actions.look

    async def look(services: Any, row: Any, roots: Roots) -> actions.Look:
        if row.id == bad.id:
            raise RuntimeError("a mistake of ours")
        return await real(services, row, roots)

    monkeypatch.setattr(actions, "look", look)
    now = world.later(seconds=world.services.settings.probe_interval)
    world.run(watch.probe_due(world.services))
    rows = {row.id: row for row in world.run(watch.list_endpoints(world.services, world.actor))}
    assert (rows[fine.id].last_probe_at, rows[bad.id].last_probe_at) == (now, None)


def test_an_event_of_a_binding_that_is_gone_brings_nothing(world: Any) -> None:
    certificate_id = world.run(put_version(world, good(world)))
    told = {"binding_id": "bind_x", "certificate_id": certificate_id, "host": "127.0.0.1", "port": 1, "sni": NAME}
    world.run(publish(world, "deployment.binding_created", "bind_x", **told))
    world.drain()
    assert world.run(watch.list_endpoints(world.services, world.actor)) == []


def test_while_a_rollout_is_under_way_another_certificate_is_no_alarm(world: Any) -> None:
    old, new = good(world), good(world)
    certificate_id = world.run(put_version(world, old))
    with tls_server(new) as server:
        binding_id = world.run(put_binding(world, certificate_id))
        world.run(begin_rollout(world, binding_id))
        told = {"binding_id": binding_id, "host": "127.0.0.1", "port": server.port, "sni": NAME}
        world.run(publish(world, "deployment.binding_created", binding_id, **told))
        world.drain()
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        world.later(hours=2)
        probe(world, row.id)
        assert open_alarms(world, row.id) == []
        world.run(finish_rollouts(world))
        probe(world, row.id)
        assert [alarm.kind for alarm in open_alarms(world, row.id)] == ["ALM-2001010"]
        # What the binding says counts, even before its event arrives.
        world.run(put_version(world, new, certificate_id=certificate_id))
        version = world.run(current_version(world, certificate_id))
        world.run(change_binding(world, binding_id, deployed_version_id=version))
        probe(world, row.id)
        assert open_alarms(world, row.id) == []


def test_a_site_with_two_certificates_may_serve_either(world: Any) -> None:
    one, other = good(world), good(world)
    one_id, other_id = world.run(put_version(world, one)), world.run(put_version(world, other))
    with tls_server(one) as server:
        first, _ = bound_at(world, server, one_id, slot="ec")
        bound_at(world, server, other_id, slot="rsa", site_id=world.run(site_of(world, first)))
        (row,) = world.run(watch.list_endpoints(world.services, world.actor))
        world.later(hours=2)
        for served in (one, other):
            server.serve(served)
            probe(world, row.id)
            assert open_alarms(world, row.id) == []
        server.serve(good(world))
        probe(world, row.id)
        assert [alarm.kind for alarm in open_alarms(world, row.id)] == ["ALM-2001010"]


async def current_version(world: Any, certificate_id: str) -> str:
    async with world.services.db.begin() as tx:
        found = await certificates.current_version(tx, certificate_id)
        assert found is not None
        return found.version_id


def test_a_failed_rollout_is_an_alarm_until_one_succeeds(world: Any) -> None:
    certificate_id = world.run(put_version(world, good(world)))
    failed = {
        "certificate_ids": [certificate_id],
        "state": "undone",
        "problem": {"message": "nginx -t failed at line 3."},
    }
    world.run(publish(world, "deployment.rollout_failed", "roll_1", rollout_id="roll_1", **failed))
    world.drain()
    (alarm,) = open_alarms(world, certificate_id)
    assert (alarm.kind, alarm.object_type, alarm.reason) == ("ALM-2001012", "certificate", "rollout_undone")
    assert "nginx -t failed at line 3" in watch.sentence(alarm.reason, alarm.params)
    world.run(publish(world, "deployment.rollout_finished", "roll_2", certificate_ids=[certificate_id]))
    world.drain()
    assert open_alarms(world, certificate_id) == []


def test_renewal_overdue_is_raised_in_time_and_cleared_by_a_new_version(world: Any) -> None:
    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=90, life=90))))
    world.drain()
    world.later(days=66, seconds=-1)
    world.drain()
    assert open_alarms(world, certificate_id) == []
    world.later(hours=12)  # what renewals are spread by
    world.drain()
    (alarm,) = open_alarms(world, certificate_id)
    assert alarm.kind == "ALM-2001011"
    assert 23.4 < alarm.recent_values[0]["value"] <= 24.0
    world.run(put_version(world, issue(NAME, **span(world, left=90, life=90)), certificate_id=certificate_id))
    world.drain()
    assert open_alarms(world, certificate_id) == []


def test_a_renewal_that_a_freeze_holds_is_overdue_after_its_last_safe_moment(world: Any) -> None:
    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=90, life=90))))
    world.drain()
    now = world.clock.now()
    freeze = renewal.Freeze(now, now + timedelta(days=89), "audit")
    world.run(renewal.add_freeze(world.services, world.actor, freeze))
    world.later(days=68)
    world.drain()
    assert open_alarms(world, certificate_id) == []
    world.later(days=8)  # half of the time between due and the end is over
    world.drain()
    (alarm,) = open_alarms(world, certificate_id)
    assert alarm.kind == "ALM-2001011"


def test_what_does_not_renew_is_never_overdue(world: Any) -> None:
    certificate_id = world.run(put_version(world, issue(NAME, **span(world, left=90, life=90)), auto_renew=False))
    world.drain()
    world.later(days=80)
    world.drain()
    assert open_alarms(world, certificate_id) == []


def test_a_look_older_than_what_was_recorded_changes_nothing(world: Any) -> None:
    row = world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    early = actions.Look(
        row.id, world.clock.now(), (Observation("10.0.0.1", world.clock.now(), problem="refused", failures=2),)
    )
    world.later(seconds=5)
    world.run(actions.record(world.services, [replace(early, started_at=world.clock.now())]))
    (alarm,) = open_alarms(world, row.id)
    world.later(seconds=5)
    fine = replace(early.observations[0], problem="timeout")
    world.run(actions.record(world.services, [replace(early, observations=(fine,))]))
    assert open_alarms(world, row.id)[0].params == alarm.params


def test_the_round_probes_what_is_due_once(world: Any) -> None:
    with tls_server(good(world)) as server:
        ids = [
            world.run(
                watch.create_endpoint(
                    world.services, world.actor, host="127.0.0.1", port=server.port, sni=f"host{number}.example.test"
                )
            ).id
            for number in range(25)
        ]
        world.later(seconds=world.services.settings.probe_interval)

        async def two_workers() -> list[int]:
            return list(await asyncio.gather(watch.probe_due(world.services), watch.probe_due(world.services)))

        assert sum(world.run(two_workers())) == 25
        assert server.connections == 25
        assert world.run(watch.probe_due(world.services)) == 0
        rows = world.run(watch.list_endpoints(world.services, world.actor, limit=50))
        assert {row.id for row in rows if row.last_probe_at == world.clock.now()} == set(ids)
        late = world.later(seconds=world.services.settings.probe_interval * 1.1)
        assert world.run(watch.probe_due(world.services)) == 25
        assert all(row.last_probe_at == late for row in world.run(watch.list_endpoints(world.services, world.actor)))


def test_counts_and_gauges_show_what_the_last_probes_found(world: Any) -> None:
    expired = issue(NAME, **span(world, left=-1, life=90))
    with tls_server(expired) as server:
        endpoint_id = add(world, server)
        world.drain()

    async def counted() -> watch.Counts:
        async with world.services.db.begin() as tx:
            return await watch.counts(tx, world.actor)

    assert world.run(counted()) == watch.Counts({"critical": 1}, 1, 1, 0)
    metrics.GAUGES.read_at = None
    world.run(watch.refresh_metrics(world.services))
    text = watch.metrics_text(world.actor).decode()
    line = next(line for line in text.splitlines() if line.startswith("x509_cert_not_after{"))
    assert f'endpoint="{endpoint_id}"' in line
    assert float(line.rpartition(" ")[2]) == expired.certificate.not_valid_after_utc.timestamp()
    assert f'instance="127.0.0.1:{server.port}"' in line
    assert "probe_success{" in text
    assert "probe_ssl_earliest_cert_expiry{" in text
    assert "certwright_probes_total{" in text


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ((), True),
        ((Statement("Deny", ("alarm:endpoint:list",)),), False),
        ((Statement("Deny", ("alarm:*",), ("endpoint:other",)),), True),
        ((Statement("Deny", ("iam:metrics:read",), ("endpoint:*",)),), False),
    ],
    ids=["metrics-only", "no-lists", "another-denied", "no-metrics-of-endpoints"],
)
def test_gauges_show_their_own_account_what_nothing_denies(
    world: Any, extra: tuple[Statement, ...], shown: bool
) -> None:
    expired = issue(NAME, **span(world, left=-1, life=90))
    with tls_server(expired) as server:
        endpoint_id = add(world, server)
        world.drain()
    metrics.GAUGES.read_at = None
    world.run(watch.refresh_metrics(world.services))
    grant = Grant("test", (Statement("Allow", ("iam:metrics:read",)), *extra))
    reader = Actor("user", world.actor.id, "x", world.account.id, (grant,), world.actor.user_id)
    assert (endpoint_id in watch.metrics_text(reader).decode()) == shown
    assert endpoint_id not in watch.metrics_text(world.other_actor).decode()


def test_known_roots_make_a_chain_trusted(world: Any) -> None:
    root = issue("Our Root", ca=True, **span(world, left=900, life=1000))
    leaf = issue(NAME, root, **span(world, left=80, life=90))

    async def looked(roots: Roots) -> Observation:
        async with world.services.db.begin() as tx:
            row = await store.endpoint(tx, endpoint_id)
        (seen,) = (await actions.look(world.services, row, roots)).observations
        return seen

    with tls_server(leaf) as server:
        endpoint_id = add(world, server)
        unknown, known = world.run(looked(Roots([]))), world.run(looked(Roots([root.der])))
    assert unknown.chain is not None
    assert known.chain is not None
    assert (unknown.chain.state, known.chain.state, known.chain.trusted) == ("incomplete", "complete", True)


def test_the_one_open_alarm_holds_against_any_order_of_events(world: Any) -> None:
    """One open alarm per object and kind, histories that begin with raised and end, when cleared, with cleared."""
    services = world.services
    facts = {
        "minor": AlarmFact(EXCEPTION, Severity.MINOR, "expires_soon", threshold=1, identity=("a",), value=20.0),
        "major": AlarmFact(EXCEPTION, Severity.MAJOR, "expires_soon", threshold=1, identity=("a",), value=5.0),
        "expired": AlarmFact(EXCEPTION, Severity.CRITICAL, "expired", threshold=2, identity=("a",), value=-1.0),
    }

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            world.later(minutes=1)
            self.subject = alarms.Subject(
                "endpoint", f"endp_{world.clock.now().timestamp()}", "x", world.account.id, world.project_id
            )

        async def _settle(self, fact: AlarmFact | None, undecided: bool, stale: Any) -> None:
            async with services.db.begin() as tx:
                standing = stale or (await store.open_alarms(tx, [self.subject.id])).get((self.subject.id, EXCEPTION))
                await alarms.settle(tx, services, self.subject, EXCEPTION, fact, standing, undecided=undecided)

        async def _standing(self) -> Any:
            async with services.db.begin() as tx:
                return (await store.open_alarms(tx, [self.subject.id])).get((self.subject.id, EXCEPTION))

        def _probe(self, which: str) -> None:
            world.later(seconds=1)
            world.run(self._settle(facts.get(which), which == "undecided", None))

        @rule()
        def minor(self) -> None:
            self._probe("minor")

        @rule()
        def major(self) -> None:
            self._probe("major")

        @rule()
        def expired(self) -> None:
            self._probe("expired")

        @rule()
        def good(self) -> None:
            self._probe("good")

        @rule()
        def cannot_tell(self) -> None:
            self._probe("undecided")

        @rule()
        def two_workers_at_once(self) -> None:
            """Both saw the same row before either wrote."""
            world.later(seconds=1)
            seen = world.run(self._standing())

            async def both() -> None:
                await asyncio.gather(
                    self._settle(facts["expired"], False, seen), self._settle(facts["expired"], False, seen)
                )

            world.run(both())

        @rule()
        def a_late_clear_after_a_clear(self) -> None:
            seen = world.run(self._standing())
            self._probe("good")
            if seen is not None:
                world.run(self._settle(None, False, seen))

        @invariant()
        def at_most_one_is_open_and_histories_are_whole(self) -> None:
            async def read() -> tuple[list[Any], list[Any]]:
                async with services.db.begin() as tx:
                    mine = sa.select(alarms_table).where(alarms_table.c.object_id == self.subject.id)
                    rows = list(await tx.execute(mine))
                    lines = list(
                        await tx.execute(
                            sa.select(alarm_history)
                            .where(alarm_history.c.alarm_id.in_([row.id for row in rows]))
                            .order_by(alarm_history.c.position)
                        )
                    )
                    return rows, lines

            rows, lines = world.run(read())
            assert sum(row.cleared_at is None for row in rows) <= 1
            for row in rows:
                whats = [line.what for line in lines if line.alarm_id == row.id]
                assert whats[0] == "raised"
                assert whats.count("raised") == 1
                assert whats.count("cleared") == (row.cleared_at is not None)
                assert row.cleared_at is None or whats[-1] == "cleared"

    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(max_examples=25, stateful_step_count=12, deadline=None),
    )


def test_problems_have_a_fix(world: Any) -> None:
    with pytest.raises(Problem) as caught:
        world.run(watch.get_alarm(world.services, world.actor, "alarm_0"))
    assert (caught.value.code, bool(caught.value.fix)) == ("not_found", True)


def test_no_endpoint_is_lost_when_a_round_is_cut_short(world: Any) -> None:
    with tls_server(good(world), mode="hang") as server:
        endpoint_id = add(world, server)
        world.later(seconds=world.services.settings.probe_interval)

        async def cut_short() -> None:
            task = asyncio.create_task(watch.probe_due(world.services))
            async with asyncio.timeout(60):
                while not server.connections:
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        world.run(cut_short())

        async def claimed_until() -> Any:
            async with world.services.db.begin() as tx:
                return await tx.scalar(sa.select(endpoints.c.next_probe_at).where(endpoints.c.id == endpoint_id))

        assert world.run(claimed_until()) == world.clock.now() + timedelta(seconds=60)
        server.mode = "tls"
        world.later(seconds=60)
        assert world.run(watch.probe_due(world.services)) == 1


# --- scraping ---------------------------------------------------------------------------------------------------------


def test_many_endpoints_of_one_account_hide_no_others(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_MOST_ENDPOINTS", 2)
    for number in range(3):
        world.run(watch.create_endpoint(world.services, world.actor, host=f"10.0.0.{number}"))
    world.later(seconds=1)
    other = world.run(watch.create_endpoint(world.services, world.other_actor, host="10.0.1.1")).id
    world.drain()
    metrics.GAUGES.read_at = None
    world.run(watch.refresh_metrics(world.services))
    assert watch.metrics_text(world.actor).count(b"\nprobe_success{") == 2
    assert other in watch.metrics_text(world.other_actor).decode()


def test_scraping_again_and_again_makes_the_gauges_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(watch.create_endpoint(world.services, world.actor, host="10.0.0.1"))
    world.drain()
    made: list[int] = []

    class Counted(metrics.EndpointGauges):
        def __init__(self, rows: Any) -> None:
            made.append(len(rows))
            super().__init__(rows)

    monkeypatch.setattr(metrics, "EndpointGauges", Counted)
    metrics.GAUGES.read_at = None
    for _ in range(5):
        world.run(watch.refresh_metrics(world.services))
        assert b"probe_success{" in watch.metrics_text(world.actor)
    assert made == [1]
    assert b"probe_success{" not in watch.metrics_text(world.other_actor), "what was made for others isn't shown"
    metrics.GAUGES.read_at = None
    world.run(watch.refresh_metrics(world.services))
    watch.metrics_text(world.actor)
    assert made == [1, 0, 1], "news are made anew"


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_what_ended_long_ago_is_forgotten_and_what_stands_is_not(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.jobs, "_FORGOTTEN_AT_ONCE", 1)
    expired = [issue(NAME, **span(world, left=-1, life=90)) for _ in range(3)]
    with tls_server(expired[0]) as server:
        endpoint_id = add(world, server)
        world.drain()
        for one in (*expired[1:], issue(NAME, **span(world, left=900, life=1000))):
            world.later(minutes=5)
            server.serve(one)
            probe(world, endpoint_id)
    (cleared,) = everything(world, alarms_table)
    assert cleared.cleared_at is not None
    assert len(everything(world, watch.tables.observations)) == 4

    world.later(days=89)
    world.run(watch.jobs.forget(world.services))
    assert len(everything(world, watch.tables.observations)) == 4
    world.later(days=2)
    world.run(watch.jobs.forget(world.services))
    (standing,) = everything(world, watch.tables.observations)
    assert standing.superseded_at is None, "what is served now is no history"
    assert len(everything(world, alarms_table)) == 1, "alarms are kept longer"

    with tls_server(expired[0]) as server:
        add(world, server)
        world.drain()
    world.later(days=320)
    world.run(watch.jobs.forget(world.services))
    (open_alarm,) = everything(world, alarms_table)
    assert open_alarm.cleared_at is None
    assert {line.alarm_id for line in everything(world, alarm_history)} == {open_alarm.id}


def everything(world: Any, table: Any) -> list[Any]:
    async def read() -> list[Any]:
        async with world.services.db.begin() as tx:
            return list((await tx.execute(sa.select(table))).all())

    found: list[Any] = world.run(read())
    return found
