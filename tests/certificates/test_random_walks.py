"""Random walks through the real rooms on a real database, compared with the table of operations.

A walk takes one certificate (bought, free, from the built-in CA, from one that asks itself, with a second CA, OV and EV
with the desk, multi and wildcard, hosted) through operations, days, and moods of CAs and desk. Every operation is tried
in every state: what worked must be allowed by the pure rules *and* by the table typed in here by hand, what was refused
must be refused there, every change of stage must be one the specification knows and must be in the audit log
(`promises`), and in the end the certificate comes to rest.

As many walks as CERTWRIGHT_WALKS says (`make walks`); a table of what was reached is printed with `-s`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from certwright.kernel.problems import Invalid, NotFound, Refused, Stale
from certwright.rooms import billing, certificates, keys
from certwright.rooms.billing import Asked, OrderStatus, PayWith
from certwright.rooms.certificates import Application, Changes, Operation, Purpose, RevocationReason, State
from certwright.x509.certificates import read_certificate
from certwright.x509.keys import KeyAlgorithm
from tests.conftest import database_for
from tests.flows.promises import check_audit, check_inside, check_outside, check_transitions, take_notes
from tests.flows.stage import APPLICANT, Stage, organisation
from tests.servers.tls import issue

WALKS = int(os.environ.get("CERTWRIGHT_WALKS") or 0) or 60

S, Op = State, Operation

FROM: dict[Operation, set[State]] = {
    Op.APPLY: {S.PENDING_APPLICATION, S.APPROVAL_FAILED},
    Op.SAVE_DRAFT: {S.PENDING_APPLICATION, S.APPROVAL_FAILED},
    Op.VERIFY_DOMAINS: {
        S.PENDING_DOMAIN_VALIDATION, S.VERIFYING_DOMAIN_ADDITION, S.VERIFYING_REISSUE,
        S.REVOCATION_PENDING_DOMAIN_VALIDATION,
    },
    Op.WITHDRAW: {
        S.PENDING_DOMAIN_VALIDATION, S.PENDING_ORGANIZATION_VALIDATION, S.VERIFYING_DOMAIN_ADDITION,
        S.VERIFYING_REISSUE,
    },
    Op.REISSUE: {S.ISSUED},
    Op.ADD_DOMAINS: {S.ISSUED},
    Op.RENEW: {S.ISSUED},
    Op.APPLY_AGAIN: {S.REVOKED},
    # Somebody else's key can't wait for what is under way.
    Op.REVOKE: {S.ISSUED, S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION},
    Op.REVOKE_EARLIER: set(S) - {S.REFUND_REVIEW, S.HOSTED},
    Op.DOWNLOAD: {S.ISSUED, S.HOSTED, S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION},
    Op.EXPORT_KEY: {S.ISSUED, S.HOSTED, S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION},
    Op.DEPLOY: {S.ISSUED, S.HOSTED, S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION},
    Op.REPLACE: {S.HOSTED, S.EXPIRED},
    Op.SET_AUTO_RENEW: set(S) - {S.REFUND_REVIEW, S.EXPIRED, S.REVOKED},
    Op.UPDATE: set(S) - {S.REFUND_REVIEW},
    Op.WITHDRAW_PRIVACY: set(S) - {
        S.REFUND_REVIEW, S.PENDING_DOMAIN_VALIDATION, S.PENDING_ORGANIZATION_VALIDATION, S.TO_BE_ISSUED,
        S.VERIFYING_DOMAIN_ADDITION,
    },
    Op.DELETE: {S.PENDING_APPLICATION, S.APPROVAL_FAILED, S.ISSUED, S.REVOKED, S.EXPIRED, S.HOSTED},
}  # fmt: skip
"""In which states the specification's table lets an operation happen at all."""

TO: dict[Operation, set[State]] = {
    Op.APPLY: {S.PENDING_DOMAIN_VALIDATION},
    Op.WITHDRAW: {
        S.VERIFYING_WITHDRAWAL, S.PENDING_APPLICATION, S.ISSUED, S.VERIFYING_REVOCATION, S.REVOKED, S.EXPIRED,
        S.REVOCATION_PENDING_DOMAIN_VALIDATION,
    },
    Op.REISSUE: {S.VERIFYING_REISSUE},
    Op.ADD_DOMAINS: {S.VERIFYING_DOMAIN_ADDITION},
    Op.REVOKE: {S.VERIFYING_REVOCATION, S.VERIFYING_REISSUE, S.VERIFYING_DOMAIN_ADDITION},
    Op.APPLY_AGAIN: {S.PENDING_APPLICATION},
    Op.REPLACE: {S.HOSTED},
}  # fmt: skip
"""Where it leads; what isn't here leaves the state as it is."""

REST = {S.PENDING_APPLICATION, S.APPROVAL_FAILED, S.ISSUED, S.REVOKED, S.EXPIRED, S.HOSTED}

RACES = {
    "no_open_application",  # the last one ended, and the page doesn't know
    "withdrawal_too_late",
    "renewal_ordered",  # there is such an order already
    "person_withdrawn",  # nobody is left who could be asked about an OV reissue
    "checks_throttled",
}
"""Refusals that aren't about the state."""

KINDS = (
    "single", "multi", "wildcard", "ov", "ev", "free", "built-in", "built-in multi", "built-in wildcard", "asking",
    "asking multi", "second CA", "hosted",
)  # fmt: skip

MOODS: dict[str, dict[str, Any]] = {
    "the CA is willing": {},
    "the CA is slow": {"mood": "slow"},
    "the CA is slow and approves": {"mood": "slow", "too_late": True},
    "the CA refuses": {"mood": "refusing"},
    "the CA rejects": {"mood": "rejecting"},
    "the CA is away": {"mood": "away"},
    "the CA sends other names": {"mood": "other names"},
    "the CA sends another key": {"mood": "other key"},
    "the CA sends garbage": {"mood": "garbage"},
    "the CA doesn't revoke": {"revoking": "refusing"},
    "the CA wants to see control": {"revoking": "stranger"},
}
DAYS = {f"{days} days pass": days for days in (1, 9, 29, 45, 61, 100, 340)}


_READS = {Op.DOWNLOAD, Op.EXPORT_KEY, Op.DEPLOY}

_BRIEFLY = 1
"""Minutes: what was started is done, and nobody looks again and again at what nobody published."""


class Walk:
    """One certificate on its way, and whoever has a hand in it."""

    def __init__(self, stage: Stage, kind: str) -> None:
        self.stage, self.kind, self.process = stage, kind, stage.main
        self.services, self.actor = stage.main.services, stage.actor
        self.name = f"walk{next(stage.number)}"
        self.organisation_id: str | None = None
        self.order_id = ""
        self.trail: list[str] = []
        self.gone = False

    async def begin(self) -> None:
        await self.stage.clean()
        self.certificate_id = await self._made()
        await self.look()

    async def _made(self) -> str:
        services, actor = self.services, self.actor
        if self.kind in ("ov", "ev"):
            self.organisation_id = await organisation(self.stage, self.process, f"{self.name} GmbH")
        if self.kind == "hosted":
            async with services.db.begin() as tx:
                return (
                    await certificates.host(
                        tx, services, actor, self._hosted(), project_id=self.stage.project_id, name=self.name,
                        description="", tags={},
                    )
                )[0]  # fmt: skip
        product = self.kind if self.kind in ("single", "multi", "wildcard", "ov", "ev", "free") else None
        if product is not None:
            asked = Asked(product, names=4) if product == "multi" else Asked(product)
            pay = None if product == "free" else PayWith("card" if product == "single" else "balance")
            order = await billing.place_order(services, actor, asked, agree=True, pay=pay)
            self.order_id = order.summary.id
            await self.process.work(1)
            order = await billing.get_order(services, actor, self.order_id)
            return str(order.certificates[0]["id"])
        ca = {"second CA": "house"}.get(self.kind, self.kind.partition(" ")[0].replace("built-in", "builtin"))
        made = await certificates.create_certificate(
            services, actor, name=self.name, ca=ca, fallback_ca="second" if self.kind == "second CA" else None
        )
        return made.id

    def _hosted(self) -> certificates.Hosted:
        now = self.stage.clock.now().replace(microsecond=0)
        made = issue(f"{self.name}.example.com", not_before=now, not_after=now + timedelta(days=90))
        leaf = read_certificate(made.der)
        return certificates.Hosted(
            Purpose.SERVER, leaf, (), keys.NewKey(made.key, KeyAlgorithm.EC_P256.value, leaf.spki_sha256)
        )

    async def look(self) -> certificates.Detail:
        self.detail = await self.stage.look(self.certificate_id)
        return self.detail

    @property
    def state(self) -> State:
        return self.detail.summary.state

    @property
    def at_ca(self) -> str:
        return self.detail.summary.ca

    def names(self) -> tuple[str, ...]:
        base = f"{self.name}.example.com"
        if "multi" in self.kind:
            return (f"a.{base}", f"b.{base}")
        return (f"*.{base}",) if "wildcard" in self.kind else (base,)

    def application(self) -> Application:
        return Application(
            names=self.names(), validation_method="dns" if "wildcard" in self.kind else "file", applicant=APPLICANT,
            consent=True, certificate_type=self.kind if self.organisation_id else None,
            organisation_id=self.organisation_id,
        )  # fmt: skip

    # --- operations ---------------------------------------------------------------------------------------------------

    async def attempt(self, operation: Operation) -> None:
        """Try it, and hold what came of it against the rules and the table."""
        before, after, code = self.detail, None, None
        verdict = before.allowed[operation]
        if operation is Op.REVOKE:
            # The reason decides, too: see `rules.judge_revocation`.
            closed = self._last_days()
            verdict = verdict or (Refused("closed", "The last 30 days.") if closed else None)
        try:
            after = await self._do(operation)
        except (Refused, Stale, Invalid, NotFound) as problem:
            code = problem.code
        state = before.summary.state
        where = f"{operation} in {state} of {self.kind}: {' > '.join(self.trail)}"
        COVERED[operation, "refused" if code else "done"] += 1
        if code is None:
            assert state in FROM[operation], f"{where}: the table knows no such thing"
            assert verdict is None, f"{where}: it worked although the rules refuse it: {verdict}"
        else:
            assert verdict is not None or code in RACES, f"{where}: refused as {code} although the rules allow it"
        if operation is Op.DELETE and code is None:
            self.gone = True
            return
        if code is None and operation not in _READS:
            self.detail = after or await self.stage.look(self.certificate_id)
            ends = TO.get(operation, {state})
            assert self.state in ends, f"{where}: it led to {self.state}"
        else:
            (row,) = await self.stage.rows("SELECT revision FROM certificates WHERE id = :id", id=self.certificate_id)
            assert row.revision == before.summary.revision, f"{where}: {code or 'read only'}, and yet it was changed"

    def _last_days(self) -> bool:
        coverage = self.detail.coverage
        if coverage is None or coverage.ends_at is None or self.kind == "free":
            return False
        return self.stage.clock.now() >= coverage.ends_at - timedelta(days=30)

    async def _do(self, operation: Operation) -> certificates.Detail | None:
        """What the service says of the certificate afterwards, where it says it."""
        services, actor, which = self.services, self.actor, self.certificate_id
        # A name of its own each time: one that is there already is wrong input, not a forbidden operation.
        fresh = f"n{len(self.trail)}.{self.name}.example.com"
        match operation:
            case Op.APPLY:
                return await certificates.apply(services, actor, which, self.application())
            case Op.SAVE_DRAFT:
                await certificates.save_draft(services, actor, which, self.application())
            case Op.VERIFY_DOMAINS:
                await certificates.check_domains(services, actor, which)
            case Op.WITHDRAW:
                return await certificates.withdraw(services, actor, which)
            case Op.REISSUE:
                others = len(self.trail) % 2 and "wildcard" not in self.kind and "multi" not in self.kind
                changed = Changes(names=(fresh,), applicant=APPLICANT, organisation_id=self.organisation_id)
                await certificates.reissue(services, actor, which, changed if others else Changes())
            case Op.ADD_DOMAINS:
                await certificates.add_domains(services, actor, which, [fresh], Changes(applicant=APPLICANT))
            case Op.RENEW:
                await billing.place_order(
                    services, actor, Asked(self.kind if self.order_id else "single"), agree=True, renews=which
                )
            case Op.APPLY_AGAIN:
                return await certificates.apply_again(services, actor, which)
            case Op.REVOKE:
                return await certificates.revoke(services, actor, which, RevocationReason.SUPERSEDED)
            case Op.REVOKE_EARLIER:
                await certificates.revoke(
                    services, actor, which, RevocationReason.KEY_COMPROMISE, version_id=self._earlier()
                )
            case Op.DOWNLOAD:
                await certificates.download(services, actor, which, "fullchain")
            case Op.EXPORT_KEY:
                await certificates.download(services, actor, which, "key")
            case Op.DEPLOY:
                async with services.db.begin() as tx:
                    await certificates.usable_version(
                        tx, services, actor, which, action="scm:cert:deploy", operation=Op.DEPLOY
                    )
            case Op.REPLACE:
                async with services.db.begin() as tx:
                    old = await certificates.replaceable(tx, services, actor, which, lock=True)
                    await certificates.host_version(tx, services, actor, old, self._hosted())
            case Op.SET_AUTO_RENEW:
                return await certificates.update_certificate(
                    services, actor, which, revision=self.detail.summary.revision,
                    auto_renew=not self.detail.summary.auto_renew,
                )  # fmt: skip
            case Op.UPDATE:
                return await certificates.update_certificate(
                    services, actor, which, revision=self.detail.summary.revision, description=fresh
                )
            case Op.WITHDRAW_PRIVACY:
                return await certificates.withdraw_privacy(services, actor, which)
            case Op.DELETE:
                await certificates.delete_certificate(services, actor, which)
        return None

    def _earlier(self) -> str:
        known = self.detail.versions[1:]
        good = [v.id for v in known if v.revoke_asked_at is None and v.not_after > self.stage.clock.now()]
        ids = [*good, *(v.id for v in known)]
        if not ids:
            raise Refused("no_earlier_version", "There is no earlier version.")
        return ids[0]

    # --- what else happens --------------------------------------------------------------------------------------------

    async def happen(self, what: str) -> None:
        COVERED[what, "happened"] += 1
        if what in MOODS:
            if self.at_ca in ("house", "second", "asking"):
                self.stage.set_mood(self.at_ca, **MOODS[what])
            return
        if what in DAYS:
            self.stage.clock.move(timedelta(days=DAYS[what]))
            await self.process.work(_BRIEFLY)
        else:
            await EVENTS[what](self)
        if what != "published":
            await self.look()

    async def forward(self) -> None:
        """One step towards the good end, by whoever may take it."""
        if self.detail.allowed[Op.APPLY] is None:
            await self.attempt(Op.APPLY)
        elif self.detail.allowed[Op.VERIFY_DOMAINS] is None:
            await self.stage.publish(self.certificate_id, self.detail)
            with suppress(Refused):
                await certificates.check_domains(self.services, self.actor, self.certificate_id)
        elif self.state is S.PENDING_ORGANIZATION_VALIDATION:
            await self.desk(verify=True)
        elif self.state is S.VERIFYING_REVOCATION:
            await self.confirm()
        await self.process.work(_BRIEFLY)

    async def desk(self, *, verify: bool) -> None:
        if self.detail.application is not None:
            await self.stage.decide(self.process, self.certificate_id, verify=verify)
        await self.process.work(_BRIEFLY)

    async def confirm(self) -> None:
        """Follow the newest link mailed about this certificate."""
        await self.process.work(_BRIEFLY)
        found = [
            secret
            for letter in sorted(self.stage.letters.values(), key=lambda one: one.id)
            for secret in re.findall(r"/confirm-revocation\?token=([\w-]+)", letter.text)
        ]
        if found:
            with suppress(Refused, Invalid):  # it is too old, or whom it was mailed to was forgotten
                await certificates.confirm_revocation(self.services, found[-1])
        await self.process.work(_BRIEFLY)

    async def unsubscribe(self) -> None:
        if self.order_id:
            with suppress(Refused):
                await billing.unsubscribe(self.services, self.actor, self.order_id, acknowledge=True)

    async def review(self, *, approve: bool) -> None:
        for one in await billing.list_unsubscriptions(self.services, self.actor):
            if one.order_id == self.order_id and one.approved_at is None and one.rejected_at is None:
                if approve:
                    await billing.approve(self.services, self.actor, one.id)
                    self.gone = True
                else:
                    await billing.reject(self.services, self.actor, one.id, "used")
        await self.process.work(_BRIEFLY)

    # --- from the first to the last step ------------------------------------------------------------------------------

    async def take(self, steps: list[Operation | str]) -> None:
        await self.begin()
        REACHED[self.state] += 1
        for step in steps:
            self.trail.append(str(step))
            if isinstance(step, Operation):
                await self.attempt(step)
            else:
                with suppress(NotFound):
                    await self.happen(step)
            if self.gone:
                break
            REACHED[self.state] += 1
        await self.finish()

    def _expired(self) -> bool:
        """What was to be published is too old: only withdrawing helps."""
        shown = self.detail.validation
        return shown is not None and any(domain.status == "expired" for domain in shown.domains)

    async def finish(self) -> None:
        """From wherever the walk ended, the certificate can be brought to rest: nothing is stuck."""
        where = f"{self.kind}: {' > '.join(self.trail)}"
        for name in ("house", "second", "asking"):
            self.stage.set_mood(name)
        for patience in (1, 1, 1, 1, 60, 60, 420, 1500, 1500):
            # Steps that failed many times pause for up to an hour, CAs that are slow are asked every hour.
            await self.process.work(patience)
            if self.gone:
                break
            await self.look()
            REACHED[self.state] += 1
            if self.state is S.REFUND_REVIEW:
                await self.review(approve=False)
            elif self.state in REST:
                break
            elif self._expired() and self.detail.allowed[Op.WITHDRAW] is None:
                await self.attempt(Op.WITHDRAW)
            else:
                await self.forward()
        else:
            pytest.fail(f"stuck in {self.state}: {where}: {self.detail.application} {self.detail.validation}")
        await self.process.work(_BRIEFLY)
        await check_transitions(self.stage, where)
        await check_outside(self.stage, where)
        await check_inside(self.stage, where)
        if self.order_id:
            order = await billing.get_order(self.services, self.actor, self.order_id)
            charged, refunded = (
                sum(money.minor for money in book.values()) for book in (self.stage.charged, self.stage.refunded)
            )
            assert refunded in (0, charged), where
            if order.summary.status is OrderStatus.REFUNDED and charged:
                assert refunded == charged, f"{where}: refunded here, and not by the bank"


EVENTS: dict[str, Callable[[Walk], Awaitable[None]]] = {
    "forward": Walk.forward,
    "work": lambda walk: walk.process.work(_BRIEFLY),
    "published": lambda walk: walk.stage.publish(walk.certificate_id, walk.detail),
    "the desk verifies": lambda walk: walk.desk(verify=True),
    "the desk refuses": lambda walk: walk.desk(verify=False),
    "the link is followed": Walk.confirm,
    "unsubscribed": Walk.unsubscribe,
    "the refund is approved": lambda walk: walk.review(approve=True),
    "the refund is rejected": lambda walk: walk.review(approve=False),
}  # type: ignore[dict-item]

REACHED: Counter[State] = Counter()
COVERED: Counter[tuple[Any, str]] = Counter()

# Without some pushing hardly a walk would get far.
STEP = st.one_of(
    st.sampled_from(["forward"] * 3 + ["work"]), st.sampled_from(Operation),
    st.sampled_from([*EVENTS, *DAYS, *MOODS]), st.sampled_from([Op.REISSUE, Op.WITHDRAW, Op.REVOKE, Op.ADD_DOMAINS]),
)  # fmt: skip

ISSUE: list[Operation | str] = ["forward", "forward", "forward", "forward"]
SCRIPTS: tuple[tuple[str, list[Operation | str]], ...] = (
    ("single", [Op.APPLY, "the CA is away", "published", "work"]),
    ("single", [*ISSUE, "the CA is slow", Op.REISSUE, "work", Op.WITHDRAW, "work"]),
    ("single", [*ISSUE, "the CA is slow and approves", Op.REISSUE, "forward", Op.WITHDRAW]),
    ("single", [*ISSUE, Op.REVOKE, "forward", "unsubscribed", "the refund is approved"]),
    ("single", ["unsubscribed", Op.DELETE, "the refund is rejected", *ISSUE]),
    ("single", [*ISSUE, Op.REVOKE, "work", Op.APPLY_AGAIN, *ISSUE]),
    ("single", [*ISSUE, *["61 days pass", "forward", "forward"] * 5, "29 days pass", "1 days pass", "1 days pass",
                "forward", Op.RENEW, Op.REVOKE]),
    # Everything is tried where nothing is allowed, and where most of it isn't.
    ("single", ["unsubscribed", *Operation]),
    ("hosted", list(Operation)),
    ("built-in multi", [Op.SAVE_DRAFT, *Operation]),
    ("free", [*ISSUE, Op.SET_AUTO_RENEW, "100 days pass", Op.DELETE]),
    ("multi", [*ISSUE, Op.ADD_DOMAINS, "forward", Op.REVOKE_EARLIER, Op.ADD_DOMAINS, Op.WITHDRAW]),
    ("ov", ["forward", "forward", "the desk refuses", Op.APPLY, "forward", "forward", "forward", Op.REVOKE, "work"]),
    ("ev", [*ISSUE, Op.REVOKE, "the link is followed", Op.WITHDRAW_PRIVACY]),
    ("ov", [*ISSUE, Op.REISSUE, "work", Op.WITHDRAW_PRIVACY, "work", "61 days pass"]),
    ("ov", [*ISSUE, Op.REISSUE, "work", Op.WITHDRAW_PRIVACY, "forward"]),
    ("ov", [*ISSUE, Op.WITHDRAW_PRIVACY, "61 days pass", "9 days pass"]),
    ("ov", [*ISSUE, Op.SET_AUTO_RENEW, Op.REVOKE, "100 days pass", "100 days pass"]),
    ("asking", [*ISSUE, "the CA wants to see control", Op.REVOKE, "work", "work", Op.VERIFY_DOMAINS]),
    ("asking", [Op.APPLY, "work", Op.WITHDRAW, "work", Op.APPLY, "published", "forward"]),
    ("second CA", ["the CA refuses", *ISSUE, *ISSUE]),
    ("second CA", [*ISSUE, "the CA rejects", Op.REISSUE, "forward", Op.WITHDRAW]),
    ("built-in wildcard", [*ISSUE, Op.EXPORT_KEY, Op.DEPLOY, Op.REISSUE, "forward", Op.DELETE]),
    ("hosted", [Op.DOWNLOAD, Op.REPLACE, "100 days pass", Op.REPLACE, Op.DELETE]),
    *((kind, [*ISSUE, f"the CA sends {what}", Op.REISSUE, "forward"]) for kind in ("single", "asking")
      for what in ("other names", "another key", "garbage")),
)  # fmt: skip
"""Walks that were worth taking once: rare states, and what went wrong before."""


@pytest.fixture(scope="module")
def stage(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with database_for(database_server, "walks") as url:
        made = Stage(url, tmp_path_factory.mktemp("stage"))
        made.run(take_notes(made))
        try:
            yield made
        finally:
            made.close()


def test_no_walk_finds_a_step_the_table_the_rules_and_the_service_disagree_about(stage: Stage) -> None:
    for kind, steps in SCRIPTS:
        stage.run(Walk(stage, kind).take(list(steps)))

    # The trail in the message is short enough to be read as it is.
    @hypothesis.settings(
        max_examples=WALKS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[hypothesis.Phase.generate],
    )
    @given(kind=st.sampled_from(KINDS), steps=st.lists(STEP, min_size=3, max_size=12))
    def walks(kind: str, steps: list[Operation | str]) -> None:
        stage.run(Walk(stage, kind).take(steps))

    walks()
    stage.run(check_audit(stage, "after all walks"))
    print(table())
    assert set(REACHED) == set(State), f"never reached: {set(State) - set(REACHED)}"
    missing = {operation for operation in Operation if not COVERED[operation, "done"]}
    assert not missing, f"never done: {missing}"
    unrefused = {o for o in Operation if not COVERED[o, "refused"]}
    assert not unrefused, f"never refused: {unrefused}"


def table() -> str:
    lines = ["", "states reached (times seen):"]
    lines += [f"  {state.value:40} {REACHED[state]:7}" for state in State]
    lines += ["operations (done, refused):"]
    lines += [f"  {o.value:40} {COVERED[o, 'done']:7} {COVERED[o, 'refused']:7}" for o in Operation]
    return "\n".join(lines)
