"""The dated rules can be replaced: strictly read, stored, audited, taken back; and every boundary is exact."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden, Invalid, InvalidFields, Refused
from certwright.rooms import validation
from certwright.rooms.audit import audit_events
from certwright.rooms.validation import Method, rulebook
from certwright.rooms.validation.rulepack import RulePack, parse, shipped_text
from certwright.rooms.validation.tables import rule_packs
from tests.conftest import World

SHIPPED = shipped_text()
SECOND = timedelta(seconds=1)


# --- every boundary --------------------------------------------------------------------------------------------------

PACK = parse(SHIPPED)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def boundaries(steps: Any) -> list[Any]:
    return [
        pytest.param(earlier, later, id=f"{later.from_}")
        for earlier, later in pairwise(steps)
    ]  # fmt: skip


@pytest.mark.parametrize(("earlier", "later"), boundaries(PACK.public_tls.validity_days))
def test_the_longest_life_changes_at_midnight(earlier: Any, later: Any) -> None:
    begins = midnight(later.from_)
    assert validation.validity(PACK, begins - SECOND) == validation.Validity(earlier.max, earlier.ask)
    assert validation.validity(PACK, begins) == validation.Validity(later.max, later.ask)
    assert validation.validity(PACK, begins + SECOND) == validation.Validity(later.max, later.ask)


@pytest.mark.parametrize(("earlier", "later"), boundaries(PACK.public_tls.dcv_reuse_days))
def test_the_age_of_a_domain_validation_changes_at_midnight(earlier: Any, later: Any) -> None:
    begins = midnight(later.from_)
    assert validation.dcv_reuse(PACK, begins - SECOND) == timedelta(days=earlier.max)
    assert validation.dcv_reuse(PACK, begins + SECOND) == timedelta(days=later.max)
    # Shown so long ago that it is good only under the earlier rule: over at the boundary.
    shown = begins - timedelta(days=later.max + 1)
    until = validation.dcv_usable_until(PACK, "dns", shown, public=True)
    assert begins - SECOND <= until < begins


@pytest.mark.parametrize(("earlier", "later"), boundaries(PACK.public_tls.organization_reuse_days))
def test_the_age_of_an_organisations_verification_changes_at_midnight(earlier: Any, later: Any) -> None:
    begins = midnight(later.from_)
    assert validation.organization_reuse(PACK, begins - SECOND) == timedelta(days=earlier.max)
    assert validation.organization_reuse(PACK, begins + SECOND) == timedelta(days=later.max)


@pytest.mark.parametrize("method", sorted(PACK.public_tls.method_end))
def test_a_method_ends_at_midnight_with_all_it_showed(method: str) -> None:
    end = midnight(PACK.public_tls.method_end[method])
    assert validation.method_end(PACK, method) == end
    until = validation.dcv_usable_until(PACK, method, end - SECOND, public=True)
    assert end - SECOND <= until < end
    assert validation.dcv_usable_until(PACK, method, end - SECOND, public=False) > end


@pytest.mark.parametrize(
    ("at", "allowed"),
    [
        pytest.param(datetime(2028, 3, 14, 23, 59, 59, tzinfo=UTC), True, id="a second before its end"),
        pytest.param(datetime(2028, 3, 15, 0, 0, 1, tzinfo=UTC), False, id="a second after its end"),
    ],
)
def test_email_is_offered_until_its_end(at: datetime, allowed: bool) -> None:
    from certwright.rooms.validation import rules

    offers = rules.offers("shop.example.com", validation.CaKind.PUBLIC, at, PACK)
    (email,) = [offer for offer in offers if offer.method is Method.EMAIL]
    assert email.allowed is allowed


# --- reading strictly ------------------------------------------------------------------------------------------------


def test_the_shipped_rules_are_taken_as_they_are() -> None:
    assert rulebook.checked(SHIPPED) == PACK


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        pytest.param("{from: 2029-03-15, max: 47, ask: 46}", "{from: 2029-03-15, max: 47, ask: 48}",
                     "public_tls.validity_days.3", "ask must not be more", id="asking for more than there may be"),
        pytest.param("{from: 2029-03-15, max: 47, ask: 46}", "{from: 2029-03-15, max: 47}",
                     "public_tls.validity_days.3.ask", "is missing", id="a missing field"),
        pytest.param("{from: 2029-03-15, max: 47, ask: 46}", "{from: 2029-03-15, max: 47, ask: 46, min: 1}",
                     "public_tls.validity_days.3.min", "is no field", id="an unknown field"),
        pytest.param("{from: 2029-03-15, max: 47, ask: 46}", "{from: soon, max: 47, ask: 46}",
                     "public_tls.validity_days.3.from", "date", id="a date that is none"),
        pytest.param("{from: 2029-03-15, max: 47, ask: 46}", "{from: 2020-01-01, max: 47, ask: 46}",
                     "public_tls", "in order", id="steps out of order"),
        pytest.param("{from: 2029-03-15, max: 10}", "{from: 2029-03-15, max: -1}",
                     "public_tls.dcv_reuse_days.3.max", "greater than 0", id="a negative limit"),
        pytest.param("{from: 2029-03-15, max: 10}", "{from: 2029-03-15, max: 999999999}",
                     "public_tls.dcv_reuse_days.3.max", "less than or equal", id="a limit that fits no date"),
        pytest.param("fraction_of_life: 0.6667", "fraction_of_life: 1.5",
                     "renewal_fallback.fraction_of_life", "less than 1", id="renewal after the end"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_line(old: str, new: str, field: str, words: str) -> None:
    assert SHIPPED.count(old) == 1
    text = SHIPPED.replace(old, new)
    with pytest.raises(InvalidFields) as caught:
        rulebook.checked(text)
    problem = caught.value.problems[0]
    assert problem.field == field
    assert words in problem.message
    line = problem.extra["line"]
    if field != "public_tls":
        assert new in text.splitlines()[line - 1]
    assert problem.message.startswith(f"Line {line}: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("public_tls: [\n  a: b\n", 3, id="no YAML"),
        pytest.param("a: 1\nb: 2\na: 3\n", 3, id="a field given twice"),
        pytest.param("a: &x [1]\nb: *x\n", 1, id="an anchor"),
        pytest.param("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, id="a tag"),
        pytest.param("a: 1\nb: 2026-02-30\n", 1, id="a day that isn't in the calendar"),
        pytest.param("[" * 60_000, 1, id="nested without end"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        rulebook.checked(text)
    assert caught.value.code == "rules_unreadable"
    assert caught.value.extra["line"] >= line or line == 1


@pytest.mark.parametrize("text", ["", "null\n", "[]\n", "just words\n", "x" * 70_000])
def test_what_is_no_rules_at_all_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        rulebook.checked(text)


# --- replacing -------------------------------------------------------------------------------------------------------


def in_force(world: World, account_id: str) -> RulePack:
    async def read() -> RulePack:
        async with world.services.db.begin() as tx:
            return await validation.rules_of(tx, account_id)

    return world.run(read())


OTHER = SHIPPED.replace("fraction_of_life: 0.6667", "fraction_of_life: 0.5")


def test_rules_are_replaced_for_the_own_account_alone_and_taken_back(world: World) -> None:
    first = world.run(validation.get_rules(world.services, world.actor))
    assert (first.id, first.text) == (None, SHIPPED)
    made = world.run(validation.replace_rules(world.services, world.actor, OTHER))
    assert made.uploaded_by == "ann@one.example"
    assert in_force(world, world.account.id).renewal_fallback.fraction_of_life == 0.5
    assert in_force(world, world.other_account.id) == PACK
    again = world.run(validation.replace_rules(world.services, world.actor, OTHER))
    assert again.id == made.id
    world.later(seconds=1)
    assert world.run(validation.revert_rules(world.services, world.actor)).id is None
    assert in_force(world, world.account.id) == PACK
    with pytest.raises(Refused):
        world.run(validation.revert_rules(world.services, world.actor))

    async def kept() -> Any:
        async with world.services.db.begin() as tx:
            said = list(
                await tx.execute(
                    sa.select(audit_events.c.before, audit_events.c.after)
                    .where(audit_events.c.action == "scm:rules:update")
                    .order_by(audit_events.c.id)
                )
            )
            return said, list(await tx.execute(sa.select(rule_packs.c.replaced_at)))

    said, packs = world.run(kept())
    assert [(row.before["id"], row.after["id"]) for row in said] == [(None, made.id), (made.id, None)]
    assert [row.replaced_at for row in packs] == [world.clock.now()]


def test_wrong_rules_replace_nothing(world: World) -> None:
    with pytest.raises(InvalidFields):
        world.run(validation.replace_rules(world.services, world.actor, OTHER.replace("max: 47", "max: many")))
    assert world.run(validation.get_rules(world.services, world.actor)).id is None


def test_whoever_may_not_is_refused(world: World) -> None:
    weak = world.actor_with("scm:rules:get")
    assert world.run(validation.get_rules(world.services, weak)).id is None
    with pytest.raises(Forbidden):
        world.run(validation.replace_rules(world.services, weak, OTHER))
    with pytest.raises(Forbidden):
        world.run(validation.revert_rules(world.services, weak))
    with pytest.raises(Forbidden):
        world.run(validation.get_rules(world.services, world.actor_with("scm:cert:*")))
