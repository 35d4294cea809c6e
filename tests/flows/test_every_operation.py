"""Every operation on a certificate with a process that dies, a database that goes away, and a rival doing the same.

A *moment* is just before and just after every commit that wrote, and every call to the outside. At each of them

- the process dies, and another one that knows only what was left behind goes on (the person looks again at what there
  is and does what is still missing, workers do what is due),
- the database ends every connection, and the same process goes on,
- or two processes do the same step or the same deed at once, waiting for each other at the outside.

Afterwards nothing is lost, doubled or stuck, and the audit log tells all of it: see `promises`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from certwright.kernel.problems import NotFound, Refused, Unavailable
from certwright.rooms import billing, certificates
from certwright.rooms.billing import Asked, OrderStatus, PayWith
from certwright.rooms.certificates import Application, Changes, Operation, RevocationReason, State
from tests.conftest import database_for
from tests.flows.promises import check_everything, check_rest, take_notes
from tests.flows.stage import APPLICANT, Death, Fate, Pair, Process, Stage, organisation

THOROUGH = int(os.environ.get("CERTWRIGHT_WALKS") or 0) > 0
"""Then each moment is met alone as well, beginning anew for each: see `make walks`."""

LINK = "/confirm-revocation?token="


@dataclass
class Case:
    """One certificate, and what a person remembers of it."""

    stage: Stage
    name: str
    certificate_id: str = ""
    order_id: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    async def look(self) -> certificates.Detail:
        return await self.stage.look(self.certificate_id)

    async def state(self) -> State:
        return (await self.look()).summary.state


Deed = Callable[[Process, Case], Awaitable[None]]
"""What a person does: looks, and does what is still missing. Done twice it is done once."""


# --- deeds -----------------------------------------------------------------------------------------------------------


async def can(case: Case, operation: Operation) -> bool:
    return (await case.look()).allowed[operation] is None


async def begun(case: Case, deed: str) -> bool:
    """Whether an application was made since this deed was first thought of: the person looks, and doesn't remember."""
    (row,) = await case.stage.rows(
        "SELECT count(*) AS n FROM applications WHERE certificate_id = :id", id=case.certificate_id
    )
    return bool(row.n > case.facts.setdefault(deed, row.n))


def buy(product: str, *, card: bool = False, **asked: Any) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        services, actor = process.services, case.stage.actor
        before = case.facts.setdefault(
            "orders", {order.id for order in await billing.list_orders(case.stage.main.services, actor, _ALL)}
        )
        mine = [o for o in await billing.list_orders(case.stage.main.services, actor, _ALL) if o.id not in before]
        assert len(mine) <= 1
        case.order_id = mine[0].id if mine else ""
        if not mine:
            placed = await billing.place_order(services, actor, Asked(product, **asked), agree=True)
            case.order_id = placed.summary.id
        order = await billing.get_order(case.stage.main.services, actor, case.order_id)
        if order.summary.status is OrderStatus.PENDING_PAYMENT:
            await billing.pay_order(services, actor, case.order_id, PayWith("card" if card else "balance"))
        await process.work(1)
        order = await billing.get_order(case.stage.main.services, actor, case.order_id)
        case.certificate_id = str(order.certificates[0]["id"])

    return deed


_ALL = billing.OrderFilter()


def create(ca: str, fallback: str | None = None) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        services, actor = process.services, case.stage.actor
        found = await certificates.list_certificates(
            case.stage.main.services, actor, certificates.Filters(search=case.name)
        )
        if found:
            case.certificate_id = found[0].id
            return
        made = await certificates.create_certificate(services, actor, name=case.name, ca=ca, fallback_ca=fallback)
        case.certificate_id = made.id

    return deed


def apply(*names: str, method: str = "file", organised: str | None = None) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        if organised is not None and "organisation" not in case.facts:
            case.facts["organisation"] = await organisation(case.stage, case.stage.main, f"{case.name} GmbH")
        if await begun(case, f"applied {len(case.facts.get('again', ''))}") or not await can(case, Operation.APPLY):
            return
        asked = Application(
            names=named(case, names or ("",)), validation_method=method, applicant=APPLICANT, consent=True,
            certificate_type=organised, organisation_id=case.facts.get("organisation"),
        )  # fmt: skip
        await certificates.apply(process.services, case.stage.actor, case.certificate_id, asked)

    return deed


def named(case: Case, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}{case.name}.example.com" for prefix in prefixes)


async def validate(process: Process, case: Case) -> None:
    """Publish what is asked for, have it looked at, and let the workers run."""
    await process.work(1)
    await case.stage.publish(case.certificate_id)
    if await can(case, Operation.VERIFY_DOMAINS):
        await certificates.check_domains(process.services, case.stage.actor, case.certificate_id)
    await process.work()


async def desk_verifies(process: Process, case: Case) -> None:
    if await case.state() is State.PENDING_ORGANIZATION_VALIDATION:
        await case.stage.decide(process, case.certificate_id, verify=True)
    await process.work()


async def desk_refuses(process: Process, case: Case) -> None:
    if await case.state() is State.PENDING_ORGANIZATION_VALIDATION:
        await case.stage.decide(process, case.certificate_id, verify=False)
    await process.work()


def reissue(**changes: Any) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        if await begun(case, "reissued"):
            return
        names = changes.get("names")
        wanted = Changes(**(changes | ({"names": named(case, names)} if names else {})))
        await certificates.reissue(process.services, case.stage.actor, case.certificate_id, wanted)

    return deed


def add_domains(*names: str) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        if await begun(case, "added"):
            return
        await certificates.add_domains(process.services, case.stage.actor, case.certificate_id, named(case, names))

    return deed


async def withdraw(process: Process, case: Case) -> None:
    asked = await case.stage.rows(
        "SELECT object_id FROM audit_events WHERE action = 'scm:cert:withdraw' AND object_id = :id",
        id=case.certificate_id,
    )
    if not asked and await can(case, Operation.WITHDRAW):
        await certificates.withdraw(process.services, case.stage.actor, case.certificate_id)
    await process.work()


def revoke(reason: RevocationReason = RevocationReason.SUPERSEDED) -> Deed:
    async def deed(process: Process, case: Case) -> None:
        if await can(case, Operation.REVOKE):
            await certificates.revoke(process.services, case.stage.actor, case.certificate_id, reason)
        await process.work()

    return deed


async def confirm(process: Process, case: Case) -> None:
    """Follow the newest mailed link of this certificate."""
    if await case.state() is State.VERIFYING_REVOCATION:
        letters = [one for one in case.stage.letters.values() if case.name in one.text and LINK in one.text]
        secrets = [re.findall(re.escape(LINK) + r"([\w-]+)", one.text)[0] for one in letters]
        assert len(letters) == 1, "one letter, however often the process died"
        with suppress(Refused):  # followed before
            await certificates.confirm_revocation(process.services, secrets[-1])
    await process.work()


async def apply_again(process: Process, case: Case) -> None:
    if await can(case, Operation.APPLY_AGAIN):
        await certificates.apply_again(process.services, case.stage.actor, case.certificate_id)
    case.facts["again"] = "again"


async def forget(process: Process, case: Case) -> None:
    if await can(case, Operation.WITHDRAW_PRIVACY):
        await certificates.withdraw_privacy(process.services, case.stage.actor, case.certificate_id)


async def delete(process: Process, case: Case) -> None:
    with suppress(NotFound):
        if await can(case, Operation.DELETE):
            await certificates.delete_certificate(process.services, case.stage.actor, case.certificate_id)
    await process.work()


async def unsubscribe(process: Process, case: Case) -> None:
    order = await billing.get_order(case.stage.main.services, case.stage.actor, case.order_id)
    if order.summary.status is OrderStatus.PAID:
        await billing.unsubscribe(process.services, case.stage.actor, case.order_id, acknowledge=True)
    await process.work()


async def approve_refund(process: Process, case: Case) -> None:
    found = await billing.list_unsubscriptions(case.stage.main.services, case.stage.actor)
    for one in found:
        if one.order_id == case.order_id and one.approved_at is None:
            await billing.approve(process.services, case.stage.actor, one.id)
    await process.work()


async def renewal_is_due(process: Process, case: Case) -> None:
    """Time passes until the engine renews by itself."""
    detail = await case.look()
    if len(detail.versions) == 1 and detail.renew_at is not None:
        case.stage.clock.set(max(case.stage.clock.now(), detail.renew_at))
    await process.work(60)


async def grace_passes(process: Process, case: Case) -> None:
    """Until the version whose names were changed is revoked as superseded."""
    detail = await case.look()
    if len(detail.versions) > 1 and detail.versions[1].revoked_at is None:
        case.stage.clock.move(timedelta(days=case.stage.settings.superseded_grace_days + 1))
    await process.work()


def moods(name: str, mood: str = "willing", **more: Any) -> Callable[[Stage], Any]:
    return lambda stage: stage.mood(name, mood, **more)


# --- scenarios -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """`before` is done without disturbance, `deeds` with it. Afterwards the certificate is in state `ends` (None: it
    is gone) with `versions`, `orders` were placed at CAs for it, and `letters` of `kind` were written."""

    before: tuple[Deed, ...]
    deeds: tuple[Deed, ...]
    ends: State | None
    versions: int = 1
    orders: int = 1
    letters: int = 0
    moods: tuple[Callable[[Stage], Any], ...] = ()
    check: Callable[[Case], Awaitable[None]] | None = None


async def the_old_one_is_revoked(case: Case) -> None:
    old = (await case.look()).versions[1]
    assert (old.revoked_at is not None, old.revocation_reason) == (True, "superseded")


async def nobody_is_known(case: Case) -> None:
    kept = await case.stage.rows(
        "SELECT applicant FROM applications WHERE certificate_id = :id", id=case.certificate_id
    )
    assert [row.applicant for row in kept] == [None]


async def the_money_is_back(case: Case) -> None:
    order = await billing.get_order(case.stage.main.services, case.stage.actor, case.order_id)
    assert order.summary.status is OrderStatus.REFUNDED
    charged = [money.minor for money in case.stage.charged.values()]
    assert sorted(charged) == sorted(money.minor for money in case.stage.refunded.values())
    assert len(charged) == 1


async def keys_are_erased(case: Case) -> None:
    (gone,) = await case.stage.rows(
        "SELECT count(*) AS n FROM private_keys WHERE sealed IS NOT NULL AND NOT id = ANY(:furnished) AND NOT EXISTS "
        "(SELECT FROM versions v WHERE v.key_id = private_keys.id)", furnished=case.stage.furnished_keys,
    )  # fmt: skip
    assert gone.n == 0


async def the_second_issued(case: Case) -> None:
    detail = await case.look()
    assert (detail.summary.ca, detail.fallback_ca) == ("second", "house")


def failed_with(code: str) -> Callable[[Case], Awaitable[None]]:
    async def check(case: Case) -> None:
        detail = await case.look()
        assert detail.application is not None
        assert detail.application.failure is not None
        assert detail.application.failure["code"] == code

    return check


BOUGHT = (buy("single"), apply(), validate)
OV = (create("builtin"), apply(organised="ov"), validate, desk_verifies)


def refused_with_an_alarm(code: str) -> Callable[[Case], Awaitable[None]]:
    """What came back was refused and recorded, somebody is alarmed, and the next good certificate ends the alarm."""

    async def alarms(case: Case) -> list[bool]:
        found = await case.stage.rows(
            "SELECT cleared_at FROM alarms WHERE kind = 'ALM-2001017' AND object_id = :id", id=case.certificate_id
        )
        return [row.cleared_at is not None for row in found]

    async def check(case: Case) -> None:
        await failed_with(code)(case)
        assert await alarms(case) == [False]
        case.facts["again"] = "again"
        for deed in (apply(), validate):
            await deed(case.stage.main, case)
        assert await case.state() is State.ISSUED
        assert await alarms(case) == [True]

    return check


SCENARIOS: dict[str, Scenario] = {
    "order, pay, apply, issue": Scenario((), (buy("single", card=True), apply(), validate), State.ISSUED),
    "apply at a CA that asks itself": Scenario((create("asking"),), (apply(), validate), State.ISSUED),
    "apply at the built-in CA": Scenario((create("builtin"),), (apply(), validate), State.ISSUED, orders=0),
    "apply for a wildcard": Scenario((buy("wildcard"),), (apply("*.", method="dns"), validate), State.ISSUED),
    "add domains": Scenario(
        (buy("multi", names=4), apply("a.", "b."), validate), (add_domains("c."), validate), State.ISSUED,
        versions=2, orders=2,
    ),
    "reissue with other names": Scenario(
        BOUGHT, (reissue(names=("new.",)), validate, grace_passes), State.ISSUED, versions=2, orders=2,
        check=the_old_one_is_revoked,
    ),
    "withdraw an application": Scenario((create("asking"), apply()), (withdraw,), State.PENDING_APPLICATION, 0),
    "withdraw a reissue the CA has": Scenario(
        BOUGHT, (reissue(names=("new.",)), validate, withdraw), State.ISSUED, 1, 2, moods=(moods("house", "slow"),)
    ),
    "withdraw too late": Scenario(
        BOUGHT, (reissue(names=("new.",)), validate, withdraw, validate), State.ISSUED, 2, 2,
        moods=(moods("house", "slow", too_late=True),),
    ),
    "revoke": Scenario(BOUGHT, (revoke(),), State.REVOKED),
    "revoke OV, confirmed by mail": Scenario(OV, (revoke(), confirm), State.REVOKED, orders=0, letters=1),
    "apply again": Scenario((*BOUGHT, revoke()), (apply_again, apply(), validate), State.ISSUED, 2, 2),
    "withdraw the privacy authorisation": Scenario(BOUGHT, (forget,), State.ISSUED, check=nobody_is_known),
    "fall over to the second CA": Scenario(
        (create("house", "second"),), (apply(), validate, validate), State.ISSUED, orders=1,
        moods=(moods("house", "refusing"),), check=the_second_issued,
    ),
    "renewed by the engine": Scenario(BOUGHT, (renewal_is_due,), State.ISSUED, versions=2, orders=2),
    "unsubscribe": Scenario(
        (buy("single", card=True),), (unsubscribe, approve_refund), None, 0, 0, check=the_money_is_back
    ),
    "delete": Scenario(BOUGHT, (delete,), None, 0, check=keys_are_erased),
    "the desk verifies for OV": Scenario(
        (create("builtin"),), (apply(organised="ov"), validate, desk_verifies), State.ISSUED, orders=0
    ),
    "two people verify for EV": Scenario(
        (create("builtin"),), (apply(organised="ev"), validate, desk_verifies), State.ISSUED, orders=0
    ),
    "the desk refuses": Scenario(
        (create("builtin"), apply(organised="ov"), validate), (desk_refuses,), State.APPROVAL_FAILED, 0, 0,
        check=failed_with("organisation_refused"),
    ),
    **{
        f"a CA that sends {what}": Scenario(
            (create("house"),), (apply(), validate), State.APPROVAL_FAILED, 0, moods=(moods("house", what),),
            check=refused_with_an_alarm(code),
        )
        for what, code in (
            ("other names", "issued_other_names"), ("other key", "issued_other_key"), ("garbage", "issued_unreadable"),
        )
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with database_for(database_server, "moments") as url:
        made = Stage(url, tmp_path_factory.mktemp("stage"))
        made.run(take_notes(made))
        try:
            yield made
        finally:
            made.close()


@contextmanager
def in_the_mood(stage: Stage, scenario: Scenario) -> Iterator[None]:
    with ExitStack() as stack:
        for one in scenario.moods:
            stack.enter_context(one(stage))
        yield


async def opened(stage: Stage, scenario: Scenario, *, quietly: bool = False) -> Case:
    """A fresh certificate, brought to where the scenario begins. What earlier ones left is nobody's business."""
    await stage.clean()
    case = Case(stage, f"case{next(stage.number)}")
    for deed in scenario.before:
        await deed(stage.main, case)
    if scenario.before and not quietly:
        await stage.main.work()
    return case


async def live(process: Process, case: Case, scenario: Scenario) -> None:
    for deed in scenario.deeds:
        await deed(process, case)
    await process.work()


async def check(case: Case, scenario: Scenario, where: str) -> None:
    stage = case.stage
    if scenario.ends is None:
        with pytest.raises(NotFound):
            await case.look()
    else:
        detail = await case.look()
        assert detail.summary.state is scenario.ends, f"{where}: {detail.application} {detail.validation}"
        assert len(detail.versions) == scenario.versions, where
    assert len(stage.books.orders) == scenario.orders, f"{where}: {list(stage.books.orders)}"
    letters = await stage.rows("SELECT kind FROM messages WHERE kind = 'certificate.confirm_revocation'")
    assert len(letters) == scenario.letters, where
    await check_everything(stage, where)
    await check_rest(stage, where)
    if scenario.check is not None:
        await scenario.check(case)


# --- the process dies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_that_dies_at_every_moment_in_turn_is_followed_by_one_that_goes_on(stage: Stage, name: str) -> None:
    """Each process dies at the first moment at which none died before; the last one finishes."""
    scenario, met = SCENARIOS[name], set[str]()

    async def strike(fate: Fate, where: str) -> None:
        if where not in met:
            met.add(where)
            fate.die(where)

    async def go() -> None:
        case = await opened(stage, scenario)
        with in_the_mood(stage, scenario):
            for _ in range(_MOST_MOMENTS):
                process, deaths = await stage.start(strike), len(met)
                try:
                    await live(process, case, scenario)
                    break
                except Death:
                    assert len(met) == deaths + 1
                    # Well after the dead one's leases ran out.
                    stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
                finally:
                    await process.bury()
            else:
                pytest.fail(f"no process ever finished: {sorted(met)}")
        await check(case, scenario, f"{name}, killed at {len(met)} moments")
        assert len(met) >= 2

    stage.run(go())


_MOST_MOMENTS = 400


@pytest.mark.skipif(not THOROUGH, reason="CERTWRIGHT_WALKS isn't set: every moment is met in turn, not each alone")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_that_dies_at_one_moment_is_followed_by_one_that_goes_on(stage: Stage, name: str) -> None:
    scenario = SCENARIOS[name]

    async def go(at: int) -> bool:
        seen, died = 0, ""

        async def strike(fate: Fate, where: str) -> None:
            nonlocal seen, died
            seen += 1
            if seen == at:
                died = where
                fate.die(where)

        case = await opened(stage, scenario)
        with in_the_mood(stage, scenario):
            process = await stage.start(strike)
            try:
                with suppress(Death):
                    await live(process, case, scenario)
            finally:
                await process.bury()
            stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
            await live(stage.main, case, scenario)
        await check(case, scenario, f"{name}, killed {died or 'nowhere'}")
        return bool(died)

    moments = next(at for at in range(1, _MOST_MOMENTS) if not stage.run(go(at)))
    assert moments > 2


# --- the database goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_whose_connections_are_ended_at_every_moment_in_turn_goes_on(stage: Stage, name: str) -> None:
    scenario, met = SCENARIOS[name], set[str]()

    async def strike(fate: Fate, where: str) -> None:
        if where not in met:
            met.add(where)
            await stage.cut_connections()

    async def go() -> None:
        case = await opened(stage, scenario)
        with in_the_mood(stage, scenario):
            process = await stage.start(strike)
            for _ in range(_MOST_MOMENTS):
                try:
                    await live(process, case, scenario)
                    break
                except Unavailable:
                    stage.clock.move(stage.main.services.jobs.lease + timedelta(seconds=1))
            else:
                pytest.fail(f"it never got through: {sorted(met)}")
            process.fate.strike = None
            # Steps that failed many times in a row pause for up to an hour.
            await process.work(120)
            await live(process, case, scenario)
            await process.bury()
        await check(case, scenario, f"{name}, cut at {len(met)} moments")
        assert len(met) >= 2

    stage.run(go())


# --- two at once -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossing:
    """While a worker carries out `deeds`, somebody does `meanwhile`. Any of `ends` is a good end."""

    before: tuple[Deed, ...]
    deeds: tuple[Deed, ...]
    meanwhile: Deed
    ends: frozenset[State | None]
    moods: tuple[Callable[[Stage], Any], ...] = ()


async def work(process: Process, case: Case) -> None:
    await process.work()


def once(operation: Operation, do: Callable[[Process, Case], Awaitable[Any]]) -> Deed:
    """What somebody does if it is allowed just now."""

    async def deed(process: Process, case: Case) -> None:
        with suppress(Refused):
            await do(process, case)

    return deed


withdraws = once(Operation.WITHDRAW, lambda p, c: certificates.withdraw(p.services, c.stage.actor, c.certificate_id))
deletes = once(
    Operation.DELETE, lambda p, c: certificates.delete_certificate(p.services, c.stage.actor, c.certificate_id)
)
revokes = once(
    Operation.REVOKE,
    lambda p, c: certificates.revoke(
        p.services, c.stage.actor, c.certificate_id, RevocationReason.KEY_COMPROMISE
    ),
)  # fmt: skip
is_forgotten = once(
    Operation.WITHDRAW_PRIVACY,
    lambda p, c: certificates.withdraw_privacy(p.services, c.stage.actor, c.certificate_id),
)  # fmt: skip
unsubscribes = once(
    Operation.DELETE,
    lambda p, c: billing.unsubscribe(p.services, c.stage.actor, c.order_id, acknowledge=True),
)  # fmt: skip

CROSSINGS: dict[str, Crossing] = {
    "an application is withdrawn": Crossing(
        (create("house"), apply()), (validate,), withdraws,
        frozenset((State.ISSUED, State.PENDING_APPLICATION)),
    ),
    "an application at a CA that asks itself is withdrawn": Crossing(
        (create("asking"), apply()), (validate,), withdraws,
        frozenset((State.ISSUED, State.PENDING_APPLICATION)),
    ),
    "a reissue is withdrawn": Crossing(
        BOUGHT, (reissue(names=("new.",)), validate), withdraws, frozenset((State.ISSUED,)),
    ),
    "a reissue of a CA that has to think is withdrawn": Crossing(
        (*BOUGHT, reissue(names=("new.",))), (validate,), withdraws, frozenset((State.ISSUED,)),
        moods=(moods("house", "willing", too_late=True),),
    ),
    "an addition is withdrawn": Crossing(
        (buy("multi", names=4), apply("a.", "b."), validate), (add_domains("c."), validate), withdraws,
        frozenset((State.ISSUED,)),
    ),
    "a rejected reissue is withdrawn": Crossing(
        BOUGHT, (reissue(names=("new.",)), validate), withdraws, frozenset((State.ISSUED,)),
        moods=(moods("house", "rejecting"),),
    ),
    "a key under reissue gets known": Crossing(
        BOUGHT, (reissue(names=("new.",)), validate), revokes, frozenset((State.ISSUED, State.REVOKED)),
    ),
    "a certificate is deleted while it is revoked": Crossing(
        BOUGHT, (revoke(),), deletes, frozenset((State.REVOKED, None))
    ),
    "a certificate is deleted while the engine renews it": Crossing(
        BOUGHT, (renewal_is_due,), deletes, frozenset((State.ISSUED, None))
    ),
    "a revocation is asked for while the engine renews": Crossing(
        BOUGHT, (renewal_is_due,), revokes, frozenset((State.ISSUED, State.REVOKED))
    ),
    "an order is given back while its certificate is revoked": Crossing(
        BOUGHT, (revoke(), approve_refund), unsubscribes, frozenset((State.REVOKED, State.REFUND_REVIEW, None))
    ),
    "an applicant is forgotten while the desk is at work": Crossing(
        OV, (reissue(names=("new.",)), validate, desk_verifies), is_forgotten, frozenset((State.ISSUED,))
    ),
    "an OV application is withdrawn while the desk is at work": Crossing(
        (create("builtin"), apply(organised="ov")), (validate, desk_verifies), withdraws,
        frozenset((State.ISSUED, State.PENDING_APPLICATION)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CROSSINGS)
def test_whatever_somebody_does_between_two_moments_of_a_worker_comes_to_a_good_end(stage: Stage, name: str) -> None:
    crossing = CROSSINGS[name]

    async def go(at: int) -> bool:
        seen, met = 0, ""

        async def strike(fate: Fate, where: str) -> None:
            nonlocal seen, met
            if where.startswith("before a commit"):
                return  # somebody else would wait for the row
            seen += 1
            if seen == at:
                met = where
                await crossing.meanwhile(stage.main, case)

        case = await opened(stage, Scenario(crossing.before, (), None))
        where = f"{name}, moment {at}"
        with ExitStack() as stack:
            for one in crossing.moods:
                stack.enter_context(one(stage))
            process = await stage.start(strike)
            for deed in crossing.deeds:
                # Withdrawn or deleted meanwhile, there is nothing to do any more.
                with suppress(Refused, NotFound):
                    await deed(process, case)
            await process.bury()
            await stage.main.work(60 * 24)
        try:
            detail = await case.look()
        except NotFound:
            state, why = None, ""
        else:
            state, why = detail.summary.state, f"{detail.application}, {detail.validation}"
        where = f"{where}: {met}"
        assert state in crossing.ends, f"{where}: {state}, {why}"
        await check_everything(stage, where)
        await check_rest(stage, where)
        return bool(met)

    # Some of them every time, and others for each crossing.
    first, each = (1, 1) if THOROUGH else (1 + 2 * sorted(CROSSINGS).index(name) % 11, 16)
    moments = next(at for at in range(first, _MOST_MOMENTS, each) if not stage.run(go(at)))
    assert moments > first


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_that_do_everything_at_once_do_it_once(stage: Stage, name: str) -> None:
    scenario = SCENARIOS[name]

    async def go() -> None:
        case = await opened(stage, scenario)
        with in_the_mood(stage, scenario):
            pair = Pair(await stage.start(), await stage.start())
            for deed in scenario.deeds:

                async def do(process: Process, deed: Deed = deed) -> None:
                    await deed(process, case)

                await pair.do(do)
            await pair.work(15)
            for process in pair.both:
                await process.bury()
        await check(case, scenario, f"{name}, by two at once")

    stage.run(go())
