"""The 47-day report: who renews each certificate, how its names are proved, what it survives. It changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from certwright.kernel.actor import Actor
from certwright.kernel.names import looks_like_ip
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, certificates, validation
from certwright.rooms.certificates import Standing, State
from certwright.rooms.renewal import rules
from certwright.rooms.renewal.words import (
    NameProof,
    Readiness,
    ReadinessFacts,
    ReadinessLine,
    ReadinessSummary,
    RuleStep,
)

_PAGE = 1000
_SHORT = timedelta(days=10)
_DNS = frozenset(("dns", "dns-01"))
_TLS_ALPN = validation.Method.TLS_ALPN_01.value
# These are over: nothing is left to be ready.
_ENDED = frozenset((State.EXPIRED, State.REVOKED, State.VERIFYING_REVOCATION))


async def list_readiness(
    services: Services, actor: Actor, *, at: datetime | None = None, after: str | None = None, limit: int = 20
) -> tuple[list[ReadinessLine], str | None]:
    """A page by certificate id, under the rules of `at` (default now), and the id to go on after (None: the end).

    Certificates that have expired or are revoked are left out, so a page may be shorter than `limit`.
    """
    access.require_somewhere(actor, "scm:readiness:get")
    async with services.db.begin() as tx:
        judge = await _Judge.of(tx, services, actor, at)
        found = await certificates.standing(
            tx, actor, "scm:readiness:get", certificates.Match(), judge.now, after=after, limit=limit + 1
        )
        page = found[:limit]
        lines = await judge.lines(tx, page)
    return lines, page[-1].certificate_id if len(found) > limit else None


async def summarize(services: Services, actor: Actor, *, at: datetime | None = None) -> ReadinessSummary:
    """Counts over every certificate the actor may see, under the rules of `at`."""
    access.require_somewhere(actor, "scm:readiness:get")
    who: Counter[str] = Counter()
    proof: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    steps: dict[str, Counter[str]] = {}
    total = 0
    async with services.db.begin() as tx:
        judge = await _Judge.of(tx, services, actor, at)
        after: str | None = None
        while True:
            found = await certificates.standing(
                tx, actor, "scm:readiness:get", certificates.Match(), judge.now, after=after, limit=_PAGE
            )
            for line in await judge.lines(tx, found):
                one = line.readiness
                total += 1
                who[one.who.value] += 1
                proof[one.proof.value] += 1
                outcomes[one.outcome.survives.value] += 1
                for step, outcome in zip(judge.steps, one.steps, strict=True):
                    steps.setdefault(f"{step.life_days}/{step.reuse_days}", Counter())[outcome.survives.value] += 1
            if len(found) < _PAGE:
                break
            after = found[-1].certificate_id
    return ReadinessSummary(
        judge.at, total, judge.in_force.life_days, judge.in_force.reuse_days, who, proof, outcomes, steps
    )


def at_lets_encrypt(pack: validation.RulePack, step: RuleStep) -> RuleStep:
    """The limits of a moment at Let's Encrypt, whose certificates shrink sooner than the rules for all ask."""
    days, hours = validation.lets_encrypt_classic(pack, step.begins)
    return RuleStep(step.begins, min(step.life_days, days), min(step.reuse_days, hours // 24))


def steps_of(pack: validation.RulePack, now: datetime) -> list[RuleStep]:
    """The limits in force now and every later set of them."""
    days = {step.from_ for step in (*pack.public_tls.validity_days, *pack.public_tls.dcv_reuse_days)}
    begins = sorted(datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days)
    return [step_at(pack, now), *(step_at(pack, begin) for begin in begins if begin > now)]


def step_at(pack: validation.RulePack, at: datetime) -> RuleStep:
    return RuleStep(at, validation.validity(pack, at).ask_days, validation.dcv_reuse(pack, at).days)


class _Judge:
    """What all certificates of one report are judged by."""

    def __init__(
        self,
        services: Services,
        account_id: str,
        pack: validation.RulePack,
        zones: dict[str, tuple[str, ...]],
        now: datetime,
        at: datetime,
    ) -> None:
        self._services, self._account_id, self._pack, self._zones = services, account_id, pack, zones
        self.now, self.at = now, at
        self.in_force = step_at(pack, at)
        self.steps = steps_of(pack, now)
        self._cas: dict[str, tuple[bool, bool]] = {}

    @classmethod
    async def of(cls, tx: Tx, services: Services, actor: Actor, at: datetime | None) -> _Judge:
        now = services.clock.now()
        pack = await validation.rules_of(tx, actor.account_id)
        zones = await validation.held_zones(tx, actor.account_id)
        return cls(services, actor.account_id, pack, zones, now, at or now)

    async def lines(self, tx: Tx, found: Sequence[Standing]) -> list[ReadinessLine]:
        alive = [one for one in found if one.state not in _ENDED]
        shown = await validation.shown_by(tx, [one.application_id for one in alive if one.application_id is not None])
        lines = []
        for one in alive:
            public, lets_encrypt = await self._kind(tx, one.ca)
            judged = self._readiness(one, public, lets_encrypt, shown.get(one.application_id or "", []))
            lines.append(
                ReadinessLine(
                    one.certificate_id, one.project_id, one.name, one.primary_name, one.ca, one.not_after, judged
                )
            )
        return lines

    async def _kind(self, tx: Tx, ca: str) -> tuple[bool, bool]:
        """(public, Let's Encrypt). An uploaded certificate's CA isn't known, which changes nothing for it."""
        if ca not in self._cas:
            found = await self._services.port(certificates.AuthorityDirectory).find(tx, self._account_id, ca)
            can = found[1].capabilities if found is not None else None
            public = can is not None and can.public
            self._cas[ca] = public, can is not None and public and validation.LETS_ENCRYPT in can.caa_identifiers
        return self._cas[ca]

    def _readiness(
        self, one: Standing, public: bool, lets_encrypt: bool, shown: Sequence[validation.Shown]
    ) -> Readiness:
        proofs = self._proofs(one, shown)
        ended = None
        if public:
            ends = {proof.method: validation.method_end(self._pack, proof.method) for proof in proofs}
            ended = next((method for method, end in ends.items() if end is not None and end <= self.at), None)
        until = None
        if proofs and {seen.name for seen in shown} >= set(one.names):
            until = min(
                validation.dcv_usable_until(self._pack, seen.method.value, seen.validated_at, public=public)
                for seen in shown
            )
        life = one.not_after - one.not_before
        fallback = self._pack.renewal_fallback
        fraction = fallback.fraction_if_life_under_10_days if life < _SHORT else fallback.fraction_of_life
        facts = ReadinessFacts(
            uploaded=one.uploaded, has_key=one.has_key, auto_renew=one.auto_renew, bought=one.bought,
            coverage_ends_at=one.coverage_ends_at, public=public, life=life, proofs=proofs, method_ended=ended,
            evidence_until=until,
            renew_at=certificates.renew_at(one.not_before, one.not_after, one.version_id, fallback),
        )  # fmt: skip
        now, steps = self.in_force, self.steps
        if lets_encrypt:
            now, steps = at_lets_encrypt(self._pack, now), [at_lets_encrypt(self._pack, step) for step in steps]
        return rules.readiness(facts, now=now, steps=steps, fraction=fraction, at=self.at)

    def _proofs(self, one: Standing, shown: Sequence[validation.Shown]) -> tuple[NameProof, ...]:
        if one.validation_method is None or one.vouched:
            return ()
        zones = self._zones.get(one.project_id, ())
        written = {seen.name for seen in shown if seen.by_connection}
        return tuple(self._proof(name, one, zones, name in written) for name in one.names)

    def _proof(self, name: str, one: Standing, zones: Sequence[str], written: bool) -> NameProof:
        """`written`: a connection showed it the last time, by a zone of its own or where a CNAME leads."""
        method = one.per_name_methods.get(name, one.validation_method or "")
        if method == _TLS_ALPN:
            return NameProof(name, method, self._services.settings.tls_alpn_listen is not None)
        held = not looks_like_ip(name) and validation.longest_zone(name.removeprefix("*."), zones) is not None
        return NameProof(name, method, method in _DNS and (held or written))
