"""Who renews, how names are proved, what survives shorter lives: tables of the rule, the report over real rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from certwright.kernel.problems import Forbidden
from certwright.rooms import certificates, renewal, validation
from certwright.rooms.certificates import RevocationReason
from certwright.rooms.certificates.tables import certificates as certificates_table
from certwright.rooms.renewal import Proof, Renewer, Survival, rules
from certwright.rooms.renewal.readiness import _Judge, at_lets_encrypt, step_at, steps_of
from certwright.rooms.renewal.words import NameProof, Readiness, ReadinessFacts, RuleStep
from tests.conftest import World
from tests.renewal.conftest import issued, plant, write
from tests.renewal.test_rules import STANDING

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FRACTION = 2 / 3
TODAY = RuleStep(NOW, 199, 200)
STEPS = [TODAY, RuleStep(NOW, 99, 100), RuleStep(NOW, 46, 10)]
BY_DNS = NameProof("a.example", "dns", True)
BY_FILE = NameProof("a.example", "file", False)
GOOD = ReadinessFacts(
    uploaded=False, has_key=True, auto_renew=True, bought=False, coverage_ends_at=None, public=True,
    life=timedelta(days=199), proofs=(BY_DNS,), method_ended=None, evidence_until=NOW + timedelta(days=150),
    renew_at=NOW + timedelta(days=100),
)  # fmt: skip


def judged(facts: ReadinessFacts) -> Readiness:
    return rules.readiness(facts, now=TODAY, steps=STEPS, fraction=FRACTION, at=NOW)


@pytest.mark.parametrize(
    ("change", "who", "proof", "survives"),
    [
        pytest.param({}, Renewer.US, Proof.AUTOMATIC, ["yes", "yes", "yes"],
                     id="renewed by us with a DNS connection: survives everything"),
        pytest.param({"proofs": ()}, Renewer.US, Proof.NOT_NEEDED, ["yes", "yes", "yes"],
                     id="vouched for: no proof is needed"),
        pytest.param({"proofs": (BY_FILE,)}, Renewer.US, Proof.BY_HAND, ["with_work", "with_work", "with_work"],
                     id="validated by file: somebody must act"),
        pytest.param({"proofs": (BY_DNS, BY_FILE)}, Renewer.US, Proof.BY_HAND, ["with_work", "with_work", "with_work"],
                     id="one name of two by hand: somebody must act"),
        pytest.param({"auto_renew": False}, Renewer.NOBODY, Proof.AUTOMATIC, ["no", "no", "no"],
                     id="renewal is switched off: it dies"),
        pytest.param({"uploaded": True}, Renewer.NOBODY, Proof.AUTOMATIC, ["no", "no", "no"],
                     id="uploaded: nobody here renews it"),
        pytest.param({"has_key": False}, Renewer.OWNER, Proof.AUTOMATIC, ["with_work", "with_work", "with_work"],
                     id="its owner's CSR: a new one for every version"),
        pytest.param({"bought": True, "coverage_ends_at": NOW + timedelta(days=300)}, Renewer.US_BY_ORDER,
                     Proof.AUTOMATIC, ["yes", "yes", "yes"], id="bought: reissued inside its coverage"),
        pytest.param({"bought": True, "coverage_ends_at": NOW}, Renewer.NOBODY, Proof.AUTOMATIC, ["no", "no", "no"],
                     id="bought, and its coverage is over: nobody"),
        pytest.param({"method_ended": "email"}, Renewer.US, Proof.ENDED, ["no", "no", "no"],
                     id="by a method that CAs no longer take: it dies"),
    ],
)  # fmt: skip
def test_who_renews_it_and_what_it_survives(
    change: dict[str, Any], who: Renewer, proof: Proof, survives: list[str]
) -> None:
    found = judged(replace(GOOD, **change))
    assert (found.who, found.proof) == (who, proof)
    assert [outcome.survives.value for outcome in found.steps] == survives
    assert found.outcome == found.steps[0]
    assert found.who_reason
    assert found.proof_reason


@pytest.mark.parametrize(
    ("life", "reuse", "times"),
    [
        # Renewed every 132.7 days; evidence of 200 days serves two of them.
        pytest.param(199, 200, 1.4, id="199 days, evidence good for 200"),
        pytest.param(99, 100, 2.8, id="99 days, evidence good for 100"),
        pytest.param(46, 10, 11.9, id="46 days, evidence good for 10: each time"),
    ],
)
def test_how_often_a_year_somebody_must_act(life: int, reuse: int, times: float) -> None:
    found = rules.readiness(
        replace(GOOD, proofs=(BY_FILE,)), now=RuleStep(NOW, life, reuse), steps=(), fraction=FRACTION, at=NOW
    )
    assert found.outcome.times_a_year == times


def test_a_private_cas_life_stays_while_public_ones_shrink() -> None:
    year = replace(GOOD, life=timedelta(days=365), proofs=(BY_FILE,), public=False)
    assert {outcome.life_days for outcome in judged(year).steps} <= {199, 99, 46, 365}
    private, public = (judged(replace(year, public=public)).steps[2].times_a_year for public in (False, True))
    assert (private, public) == (1.5, 11.9)


@pytest.mark.parametrize(
    ("until", "reusable"),
    [
        pytest.param(GOOD.renew_at, True, id="it lasts until the renewal"),
        pytest.param(GOOD.renew_at - timedelta(seconds=1), False, id="it ends a second before"),
        pytest.param(None, False, id="there is none"),
    ],
)
def test_evidence_is_used_again_if_it_lasts_until_the_renewal(until: datetime | None, reusable: bool) -> None:
    assert judged(replace(GOOD, evidence_until=until)).evidence_reusable is reusable


@pytest.mark.parametrize(
    ("at", "life", "reuse"),
    [
        pytest.param("2026-03-14T23:59:59+00:00", 397, 398, id="a second before 15 March 2026"),
        pytest.param("2026-03-15T00:00:00+00:00", 199, 200, id="from 15 March 2026"),
        pytest.param("2027-03-14T23:59:59+00:00", 199, 200, id="a second before 15 March 2027"),
        pytest.param("2027-03-15T00:00:01+00:00", 99, 100, id="a second into 15 March 2027"),
        pytest.param("2029-03-14T23:59:59+00:00", 99, 100, id="a second before 15 March 2029"),
        pytest.param("2029-03-15T00:00:00+00:00", 46, 10, id="from 15 March 2029"),
    ],
)
def test_the_limits_are_those_of_the_moment_asked_about(at: str, life: int, reuse: int) -> None:
    step = step_at(validation.rule_pack(), datetime.fromisoformat(at))
    assert (step.life_days, step.reuse_days) == (life, reuse)


def test_the_limits_in_force_and_every_later_set_are_judged() -> None:
    pairs = [(step.life_days, step.reuse_days) for step in steps_of(validation.rule_pack(), NOW)]
    assert pairs == [(199, 200), (99, 100), (46, 10)]


@pytest.mark.parametrize(
    ("at", "life", "reuse"),
    [
        pytest.param("2027-02-09T23:59:59+00:00", 90, 30, id="a second before 10 February 2027"),
        pytest.param("2027-02-10T00:00:00+00:00", 64, 10, id="from 10 February 2027, before the rule for all"),
        pytest.param("2028-02-15T23:59:59+00:00", 64, 10, id="a second before 16 February 2028"),
        pytest.param("2028-02-16T00:00:00+00:00", 45, 0, id="from 16 February 2028: proofs are good for hours"),
        pytest.param("2029-03-15T00:00:00+00:00", 45, 0, id="the rule for all asks for no less"),
    ],
)
def test_lets_encrypts_certificates_shrink_by_its_own_dates(at: str, life: int, reuse: int) -> None:
    pack = validation.rule_pack()
    step = at_lets_encrypt(pack, step_at(pack, datetime.fromisoformat(at)))
    assert (step.life_days, step.reuse_days) == (life, reuse)


@pytest.mark.parametrize(
    ("method", "zones", "written", "responder", "automatic"),
    [
        pytest.param("dns", ("example",), False, None, True, id="a connection holds its zone"),
        pytest.param("dns-01", ("example",), False, None, True, id="the same for dns-01"),
        pytest.param("dns", (), True, None, True, id="a connection wrote it where its CNAME leads"),
        pytest.param("dns", ("other.example",), False, None, False, id="a connection holds another zone"),
        pytest.param("tls-alpn-01", (), False, "0.0.0.0:443", True, id="this server answers tls-alpn-01"),
        pytest.param("tls-alpn-01", (), False, None, False, id="tls-alpn-01, and nothing here answers it"),
        pytest.param("file", ("example",), False, None, False, id="a file is published by somebody"),
        pytest.param("email", ("example",), False, None, False, id="a mail is answered by somebody"),
    ],
)
def test_a_name_is_shown_by_itself(
    world: World, method: str, zones: tuple[str, ...], written: bool, responder: str | None, automatic: bool
) -> None:
    settings = world.services.settings.model_copy(update={"tls_alpn_listen": responder})
    services = replace(world.services, settings=settings)
    judge = _Judge(services, world.account.id, validation.rule_pack(), {"prj_1": zones}, NOW, NOW)
    seen = [validation.Shown("a.example", validation.Method(method), NOW, by_connection=written)]
    first, *_ = judge._proofs(replace(STANDING, validation_method=method), seen)
    assert (first.name, first.automatic) == ("a.example", automatic)


# --- the report ------------------------------------------------------------------------------------------------------


def report(world: World, **more: Any) -> list[renewal.ReadinessLine]:
    lines, _ = world.run(renewal.list_readiness(world.services, world.actor, limit=100, **more))
    return lines


def test_the_report_shows_what_is_alive_and_the_summary_counts_it(product: World) -> None:
    good = issued(product, "good.example")
    off = issued(product, "off.example")
    write(product, sa.update(certificates_table).where(certificates_table.c.id == off).values(auto_renew=False))
    owner = issued(product, "owner.example")
    write(product, sa.update(certificates_table).where(certificates_table.c.id == owner).values(key_id=None))
    revoked = issued(product, "revoked.example")
    product.run(certificates.revoke(product.services, product.actor, revoked, RevocationReason.SUPERSEDED))
    found = {line.certificate_id: line.readiness for line in report(product)}
    assert {one: (line.who.value, line.outcome.survives.value) for one, line in found.items()} == {
        good: ("us", "yes"), off: ("nobody", "no"), owner: ("owner", "with_work"),
    }  # fmt: skip
    summary = product.run(renewal.summarize(product.services, product.actor))
    assert summary.certificates == 3
    assert summary.who == {"us": 1, "nobody": 1, "owner": 1}
    assert summary.outcomes == {"yes": 1, "no": 1, "with_work": 1}
    assert all(sum(counts.values()) == 3 for counts in summary.steps.values())
    assert [*summary.steps][-1] == "46/10"


def test_what_if_it_were_2029(product: World) -> None:
    issued(product)
    at = datetime(2029, 4, 1, tzinfo=UTC)
    summary = product.run(renewal.summarize(product.services, product.actor, at=at))
    assert (summary.life_days, summary.reuse_days) == (46, 10)
    (line,) = report(product, at=at)
    assert line.readiness.outcome.reuse_days == 10
    assert line.readiness.outcome.survives is Survival.YES


def test_pages_hold_each_certificate_once(product: World) -> None:
    now = product.clock.now()
    ids = plant(product, 7, due=lambda _: now + timedelta(days=40), ends=lambda _: now + timedelta(days=60))
    seen: list[str] = []
    after: str | None = None
    while True:
        lines, after = product.run(renewal.list_readiness(product.services, product.actor, after=after, limit=3))
        seen += [line.certificate_id for line in lines]
        if after is None:
            break
    assert seen == sorted(ids)


def test_the_report_is_of_what_one_may_see(product: World) -> None:
    issued(product)
    with pytest.raises(Forbidden):
        product.run(renewal.summarize(product.services, product.actor_with("scm:cert:*")))
    lines, _ = product.run(renewal.list_readiness(product.services, product.other_actor))
    assert lines == []
    assert product.run(renewal.summarize(product.services, product.other_actor)).certificates == 0
