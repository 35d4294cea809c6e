"""Renewals are let through in time, in order and at a rate: on a real database, with the clock moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, NotFound, Refused, Stale, Unavailable
from certwright.platform.jobs import Again
from certwright.rooms import certificates, renewal
from certwright.rooms.audit import audit_events
from certwright.rooms.certificates import RenewalWindow, State
from certwright.rooms.renewal import jobs
from certwright.rooms.renewal.tables import renewal_queues, renewals
from certwright.rooms.renewal.words import Freeze, Window
from tests.conftest import World
from tests.renewal.conftest import (
    AskedCa,
    detail,
    issued,
    numbers,
    plan,
    plant,
    queue_id,
    rows,
    run_queue,
    write,
)

EVERY_DAY = frozenset(range(7))
MINUTE = timedelta(minutes=1)
CHRISTMAS = Freeze(datetime(2026, 12, 20, tzinfo=UTC), datetime(2027, 1, 7, tzinfo=UTC), "Christmas trade")


def limit(world: World, per_minute: int, reserve: int = 20) -> renewal.LimitView:
    return world.run(
        renewal.set_limit(world.services, world.actor, "builtin", per_minute=per_minute, reserve_percent=reserve)
    )


def admitted(world: World) -> list[Any]:
    """In the order they were let through."""
    query = sa.select(renewals).where(renewals.c.admitted_at.is_not(None)).order_by(renewals.c.admitted_at)
    return rows(world, query)


# --- in time ---------------------------------------------------------------------------------------------------------


def test_a_version_is_planned_after_two_thirds_of_its_life_and_renewed_then(product: World) -> None:
    certificate_id = issued(product)
    found = plan(product, certificate_id)
    version = detail(product, certificate_id).versions[0]
    two_thirds = certificates.renew_at(version.not_before, version.not_after)
    assert two_thirds <= found.renew_at < two_thirds + timedelta(hours=13)
    assert found.renew_at == detail(product, certificate_id).renew_at
    assert found.need_by == found.renew_at + (found.not_after - found.renew_at) / 2
    product.clock.set(found.renew_at - timedelta(seconds=1))
    product.drain()
    assert numbers(product, certificate_id) == [1]
    product.clock.set(found.renew_at)
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]


def test_a_renewal_that_is_let_through_starts_once_however_often_its_step_runs(product: World) -> None:
    certificate_id = issued(product)
    product.clock.set(plan(product, certificate_id).renew_at)
    run_queue(product)
    row = plan(product, certificate_id)
    for _ in range(3):
        product.run(product.services.jobs.run_step(product.services, jobs.STEP, row.id))
    assert detail(product, certificate_id).summary.state is State.VERIFYING_REISSUE
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]


def test_a_renewal_whose_worker_was_killed_after_the_reissue_is_not_started_twice(
    product: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate_id = issued(product)
    product.clock.set(plan(product, certificate_id).renew_at)
    run_queue(product)
    reissue = certificates.renew_version

    async def killed(*args: Any, **kwargs: Any) -> str:
        await reissue(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.certificates, "renew_version", killed)
    row = plan(product, certificate_id)
    with pytest.raises(KeyboardInterrupt):
        product.run(product.services.jobs.run_step(product.services, jobs.STEP, row.id))
    monkeypatch.setattr(jobs.certificates, "renew_version", reissue)
    product.later(minutes=2)  # its lease runs out
    product.drain()
    product.later(hours=7)
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]


def test_a_refused_renewal_waits_and_takes_its_turn_again(product: World, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate_id = issued(product)
    product.clock.set(plan(product, certificate_id).renew_at)

    async def refused(*_: Any, **__: Any) -> str:
        raise Refused("no", "The CA is on holiday.")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.certificates, "renew_version", refused)
        product.drain()
    found = plan(product, certificate_id)
    assert (found.admitted_at, found.started_at) == (None, None)
    assert found.held_until == product.clock.now() + timedelta(hours=6)
    assert found.step_problem["code"] == "no"
    product.later(hours=5, minutes=58)
    product.drain()
    assert numbers(product, certificate_id) == [1]
    product.later(minutes=2)
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]


def test_switched_off_costs_no_token(product: World) -> None:
    now = product.clock.now()
    plant(product, 3, due=lambda _: now, ends=lambda _: now + timedelta(days=30), auto_renew=False)
    before = rows(product, sa.select(renewal_queues.c.tokens))
    run_queue(product)
    assert admitted(product) == []
    assert rows(product, sa.select(renewal_queues.c.tokens)) == before


# --- windows and freezes ---------------------------------------------------------------------------------------------


def nights(world: World, project_id: str | None = None) -> renewal.WindowView:
    window = Window(EVERY_DAY, time(22), time(4), "UTC", "nights")
    return world.run(renewal.add_window(world.services, world.actor, window, project_id=project_id))


def test_renewals_wait_for_the_window_and_the_queue_looks_again_when_it_opens(product: World) -> None:
    nights(product)
    now = product.clock.now()  # noon
    (one,) = plant(product, 1, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    assert run_queue(product) == now.replace(hour=22)
    assert admitted(product) == []
    shown = product.run(renewal.get_renewal(product.services, product.actor, one))
    assert shown.allowed is not None
    assert (shown.allowed.at, shown.allowed.code) == (now.replace(hour=22), "outside_window")
    product.clock.set(now.replace(hour=22))
    run_queue(product)
    assert len(admitted(product)) == 1


def test_a_freeze_holds_everything_but_the_last_safe_moment_and_the_audit_says_why(product: World) -> None:
    now = product.clock.now()
    freeze = Freeze(now - MINUTE, now + timedelta(days=20), "Christmas trade")
    product.run(renewal.add_freeze(product.services, product.actor, freeze))
    (late, soon) = plant(
        product, 2, due=lambda _: now, ends=lambda number: now + timedelta(hours=720 if number == 0 else 30)
    )
    assert run_queue(product) == plan(product, soon).need_by
    assert admitted(product) == []
    product.clock.set(plan(product, soon).need_by)
    run_queue(product)
    assert [row.certificate_id for row in admitted(product)] == [soon]
    (said,) = rows(product, sa.select(audit_events).where(audit_events.c.object_id == soon))
    assert said.action == "scm:cert:renew"
    assert "last safe moment" in said.reason
    assert "Christmas trade" in said.reason
    product.clock.set(now + timedelta(days=20))
    run_queue(product)
    assert {row.certificate_id for row in admitted(product)} == {soon, late}
    assert rows(product, sa.select(audit_events).where(audit_events.c.object_id == late)) == []


def test_a_projects_own_windows_stand_in_for_the_accounts(product: World) -> None:
    nights(product)
    noon = Window(EVERY_DAY, time(11), time(13), "UTC", "noon")
    product.run(renewal.add_window(product.services, product.actor, noon, project_id=product.project_id))
    now = product.clock.now()
    plant(product, 1, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    run_queue(product)
    assert len(admitted(product)) == 1


def test_taking_a_window_away_wakes_the_queue(product: World) -> None:
    window = nights(product)
    now = product.clock.now()
    plant(product, 1, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    run_queue(product)
    product.run(renewal.delete_window(product.services, product.actor, window.id))
    (row,) = rows(product, sa.select(renewal_queues.c.next_step_at))
    assert row.next_step_at <= now
    run_queue(product)
    assert len(admitted(product)) == 1


# --- how fast --------------------------------------------------------------------------------------------------------


def test_after_a_weeks_outage_ten_thousand_drain_at_the_rate_the_soonest_ending_first(product: World) -> None:
    start = product.clock.now()
    count, per_minute = 10_000, 6000
    # Due in the order they were made, ending in another one, all within the week nobody was there.
    plant(
        product, count, due=lambda number: start + timedelta(minutes=number),
        ends=lambda number: start + timedelta(days=40, minutes=(number * 7919) % count),
    )  # fmt: skip
    limit(product, per_minute)
    product.later(days=7)
    began = product.clock.now()
    for _ in range(2000):
        again = run_queue(product)
        if len(
            admitted_count := rows(product, sa.select(sa.func.count()).where(renewals.c.admitted_at.is_(None)))
        ) and (admitted_count[0][0] == 0):
            break
        assert began < again < began + timedelta(minutes=30)
        product.clock.set(max(again, product.clock.now() + timedelta(seconds=1)))
    order = rows(
        product,
        sa.select(renewals.c.admitted_at, renewals.c.not_after).order_by(renewals.c.admitted_at, renewals.c.not_after),
    )
    assert len(order) == count
    assert all(earlier.not_after <= later.not_after for earlier, later in pairwise(order))
    at = [(row.admitted_at - began) // timedelta(seconds=1) for row in order]
    per_second = Counter(at)
    for second in range(max(at) + 1):
        assert sum(per_second[second + more] for more in range(60)) <= per_minute
    # It takes its time, and not much more: a seventh of each minute is held back for what the bucket may hold.
    assert count / per_minute - 1 <= max(at) / 60 <= count / per_minute * 7 / 6 + 1


def test_urgent_ones_use_the_reserve_that_ordinary_ones_leave(product: World) -> None:
    now = product.clock.now()
    limit(product, 70, reserve=50)  # the bucket holds ten
    plant(product, 20, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    write(product, sa.update(renewal_queues).values(tokens=10.0, filled_at=now))
    run_queue(product)
    assert len(admitted(product)) == 5
    write(product, sa.update(renewals).where(renewals.c.admitted_at.is_(None)).values(need_by=now))
    run_queue(product)
    assert len(admitted(product)) == 10
    assert rows(product, sa.select(renewal_queues.c.tokens)) == [(0.0,)]


def test_two_workers_at_one_queue_take_each_token_once(product: World) -> None:
    now = product.clock.now()
    limit(product, 70, reserve=0)
    plant(product, 50, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    write(product, sa.update(renewal_queues).values(tokens=10.0, filled_at=now))
    found = queue_id(product)

    async def both() -> None:
        await asyncio.gather(*(jobs.admit_step(product.services, found) for _ in range(4)))

    product.run(both())
    assert len(admitted(product)) == 10


def test_what_one_account_starts_costs_another_nothing(product: World) -> None:
    now = product.clock.now()
    plant(product, 1, due=lambda _: now, ends=lambda _: now + timedelta(days=30))
    with contextlib.suppress(NotFound):
        product.run(
            renewal.set_limit(product.services, product.other_actor, "builtin", per_minute=1, reserve_percent=0)
        )
    (mine,) = product.run(renewal.list_limits(product.services, product.actor))
    assert (mine.ca, mine.per_minute, mine.waiting) == ("builtin", 600, 1)


# --- the CA's own wish -----------------------------------------------------------------------------------------------


def ask(world: World, certificate_id: str, ca: AskedCa, draw: float = 0.5) -> Any:
    """One question to this CA about the certificate's version."""

    class Directory:
        async def find(self, tx: Any, account_id: str, name: str) -> tuple[str, AskedCa]:
            return name, ca

    class Ports:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.services, name)

        def port(self, kind: type) -> Any:
            return Directory() if kind is certificates.AuthorityDirectory else world.services.port(kind)

    return world.run(jobs._ask(Ports(), plan(world, certificate_id), draw))  # type: ignore[arg-type]  # stands in


def wished(world: World, days_from: float, days_to: float) -> RenewalWindow:
    now = world.clock.now()
    return RenewalWindow(
        now + timedelta(days=days_from), now + timedelta(days=days_to), "https://ca.example/why", timedelta(hours=3)
    )


def test_the_cas_window_stands_in_for_the_fraction(product: World) -> None:
    certificate_id = issued(product)
    now = product.clock.now()
    again = ask(product, certificate_id, AskedCa(wished(product, 30, 40)))
    found = plan(product, certificate_id)
    assert found.renew_at == now + timedelta(days=35)
    assert (found.asked_at, found.ask_at, again) == (now, now + timedelta(hours=3), timedelta(hours=3))
    shown = product.run(renewal.get_renewal(product.services, product.actor, certificate_id))
    assert (shown.source, shown.explanation_url) == ("ca", "https://ca.example/why")
    (queue,) = rows(product, sa.select(renewal_queues.c.next_step_at))
    assert queue.next_step_at <= found.renew_at


def test_the_place_in_the_window_is_drawn_once_for_a_version(product: World) -> None:
    certificate_id = issued(product)
    ca = AskedCa(wished(product, 30, 40))
    ask(product, certificate_id, ca, 0.25)
    first = plan(product, certificate_id)
    ask(product, certificate_id, ca, 0.75)
    assert plan(product, certificate_id).renew_at == first.renew_at
    assert plan(product, certificate_id).window_place == 0.25


def test_a_window_moved_to_the_past_means_now_in_spite_of_a_freeze_and_is_written_down(product: World) -> None:
    certificate_id = issued(product)
    ask(product, certificate_id, AskedCa(wished(product, 30, 40)))
    product.later(days=10)
    now = product.clock.now()
    freeze = Freeze(now - MINUTE, now + timedelta(days=30), "Christmas trade")
    product.run(renewal.add_freeze(product.services, product.actor, freeze))
    ask(product, certificate_id, AskedCa(wished(product, -3, -1)))
    found = plan(product, certificate_id)
    assert found.renew_at < found.need_by <= now
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]
    said = rows(product, sa.select(audit_events.c.reason).where(audit_events.c.object_id == certificate_id))
    assert any("moved its renewal window forward (https://ca.example/why)" in row.reason for row in said)
    assert any("Christmas trade" in row.reason for row in said)


def test_a_window_that_is_taken_back_leaves_the_fraction(product: World) -> None:
    certificate_id = issued(product)
    before = plan(product, certificate_id)
    ask(product, certificate_id, AskedCa(wished(product, 30, 40)))
    ask(product, certificate_id, AskedCa(None))
    after = plan(product, certificate_id)
    assert (after.renew_at, after.need_by, after.window_start) == (before.renew_at, before.need_by, None)


def test_a_ca_that_is_away_is_asked_again_and_the_plan_stands(product: World) -> None:
    certificate_id = issued(product)
    before = plan(product, certificate_id)
    away = Unavailable("ca_away", "It is away.", extra={"retry_after": 90})
    with pytest.raises(Again) as caught:
        ask(product, certificate_id, AskedCa(problem=away))
    assert caught.value.after == timedelta(seconds=90)
    assert plan(product, certificate_id).renew_at == before.renew_at


def test_our_own_ca_is_not_asked(product: World) -> None:
    found = plan(product, issued(product))
    assert (found.ask_at, found.next_step_at) == (None, None)


# --- the doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "do",
    [
        pytest.param(lambda w, a: renewal.add_window(w.services, a, Window(EVERY_DAY, time(1), time(2), "UTC", "n")),
                     id="add a window"),
        pytest.param(lambda w, a: renewal.add_freeze(w.services, a, CHRISTMAS),
                     id="add a freeze"),
        pytest.param(lambda w, a: renewal.set_limit(w.services, a, "builtin", per_minute=1, reserve_percent=0),
                     id="set a limit"),
        pytest.param(lambda w, a: renewal.list_limits(w.services, a), id="look at limits"),
    ],
)  # fmt: skip
def test_whoever_may_not_is_refused(product: World, do: Any) -> None:
    for powerless in (product.actor_with("scm:cert:*"), product.actor_with("scm:renewal:get")):
        with pytest.raises(Forbidden):
            product.run(do(product, powerless))


def test_whoever_is_narrowed_to_a_project_sets_no_times_for_the_account(product: World) -> None:
    narrow = product.actor_with("scm:renewal:*", project_id=product.project_id)
    window = Window(EVERY_DAY, time(1), time(2), "UTC", "n")
    with pytest.raises(Forbidden):
        product.run(renewal.add_window(product.services, narrow, window))
    made = product.run(renewal.add_window(product.services, narrow, window, project_id=product.project_id))
    account_wide = nights(product)
    with pytest.raises(NotFound):
        product.run(renewal.delete_window(product.services, narrow, account_wide.id))
    product.run(renewal.delete_window(product.services, narrow, made.id))


def test_another_account_sees_and_takes_away_nothing(product: World) -> None:
    window = nights(product)
    certificate_id = issued(product)
    other = product.other_actor
    assert product.run(renewal.list_windows(product.services, other)) == []
    with pytest.raises(NotFound):
        product.run(renewal.delete_window(product.services, other, window.id))
    with pytest.raises(NotFound):
        product.run(renewal.get_renewal(product.services, other, certificate_id))
    assert product.run(renewal.list_renewals(product.services, other)) == []
    with pytest.raises(NotFound):
        product.run(
            renewal.add_window(
                product.services, other, Window(EVERY_DAY, time(1), time(2), "UTC", "n"), project_id=product.project_id
            )
        )


def test_a_changed_freeze_lets_go_what_it_held_and_is_audited(product: World) -> None:
    certificate_id = issued(product)
    now = plan(product, certificate_id).renew_at
    product.clock.set(now)
    made = product.run(
        renewal.add_freeze(product.services, product.actor, Freeze(now - MINUTE, now + timedelta(days=2), "audit"))
    )
    run_queue(product)
    product.drain()
    assert numbers(product, certificate_id) == [1]
    shorter = Freeze(now - MINUTE, now + MINUTE, "audit is over")
    with pytest.raises(NotFound):
        product.run(renewal.update_freeze(product.services, product.other_actor, made.id, shorter))
    with pytest.raises(Forbidden):
        product.run(
            renewal.update_freeze(
                product.services, product.actor_with("scm:renewal:list", "scm:renewal:get"), made.id, shorter
            )
        )
    product.run(renewal.update_freeze(product.services, product.actor, made.id, shorter))
    (queue,) = rows(product, sa.select(renewal_queues.c.next_step_at))
    assert queue.next_step_at <= product.clock.now()
    product.later(minutes=2)
    product.drain()
    assert numbers(product, certificate_id) == [2, 1]
    said = rows(product, sa.select(audit_events).where(audit_events.c.object_id == made.id))
    reasons = {((row.before or {}).get("reason"), row.after["reason"]) for row in said}
    assert reasons == {(None, "audit"), ("audit", "audit is over")}


def test_a_limit_of_an_unknown_ca_or_of_an_older_revision_is_refused(product: World) -> None:
    with pytest.raises(NotFound):
        product.run(renewal.set_limit(product.services, product.actor, "nobody", per_minute=1, reserve_percent=0))
    first = limit(product, 10)
    limit(product, 20)
    with pytest.raises(Stale):
        product.run(
            renewal.set_limit(
                product.services, product.actor, "builtin", per_minute=1, reserve_percent=0, revision=first.revision
            )
        )
    for per_minute, reserve in ((0, 0), (100_001, 0), (1, 91)):
        with pytest.raises((Invalid, InvalidFields)):
            limit(product, per_minute, reserve)


def test_changes_of_times_and_limits_are_audited(product: World) -> None:
    window = nights(product)
    product.later(seconds=1)
    product.run(renewal.delete_window(product.services, product.actor, window.id))
    product.later(seconds=1)
    limit(product, 5)
    said = rows(
        product,
        sa.select(audit_events.c.object_type, audit_events.c.before, audit_events.c.after)
        .where(audit_events.c.action == "scm:renewal:update")
        .order_by(audit_events.c.id),
    )
    assert [row.object_type for row in said] == ["renewal-window", "renewal-window", "renewal-limit"]
    assert said[1].before["name"] == "nights"
    assert (said[2].before["per_minute"], said[2].after["per_minute"]) == (600, 5)


def test_the_list_is_paged_by_what_is_due_next(product: World) -> None:
    now = product.clock.now()
    plant(product, 5, due=lambda number: now + timedelta(days=5 - number), ends=lambda _: now + timedelta(days=60))
    seen: list[datetime] = []
    after = None
    while True:
        page = product.run(renewal.list_renewals(product.services, product.actor, after=after, limit=2))
        if not page:
            break
        seen += [view.renew_at for _, view in page]
        after = page[-1][0]
    assert seen == sorted(seen)
    assert len(seen) == 5
    assert seen[0].tzinfo == UTC or seen[0].utcoffset() == timedelta(0)
