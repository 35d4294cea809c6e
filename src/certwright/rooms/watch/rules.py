"""What counts as wrong, and what an alarm does about it. Pure: facts and the time in, verdicts out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from certwright.kernel.names import covers
from certwright.rooms.watch.words import (
    CA_ENDS,
    DIFFERS,
    EXCEPTION,
    OVERDUE,
    AlarmFact,
    Chain,
    Expectation,
    Move,
    Observation,
    OpenAlarm,
    ServedChain,
    Severity,
    Verdict,
    stamp,
)

ENDPOINT_KINDS = (EXCEPTION, DIFFERS)

_SHORT_LIFE = timedelta(days=100)
_MINOR_LEFT = timedelta(days=30)
_MAJOR_LEFT = timedelta(days=7)
# Of lives under 100 days: 0.33 of 90 days is the familiar month, 0.15 of 47 days the familiar week.
_MINOR_FRACTION = 0.33
_MAJOR_FRACTION = 0.15

# A new version is put in place by rollouts that take minutes; until then the old one being served is no surprise.
LONGEST_SETTLING = timedelta(hours=1)

# So much the clocks of workers that share the work may differ. What is later than that allows was written by a clock
# that ran ahead, and must not keep anybody from looking until that time has really come.
CLOCKS_DIFFER = timedelta(minutes=1)

# How much of the time between "renew now" and the end may pass before somebody should look.
_OVERDUE_SLACK = 0.2
_RENEWAL_TAKES = timedelta(hours=1)


def judge(observation: Observation, expectation: Expectation, now: datetime) -> Verdict:
    """What is wrong with one look at one address: at most one fact of ALM-2001006 and one of ALM-2001010."""
    if observation.chain is None:
        return _without_certificate(observation, expectation)
    chain = observation.chain
    facts = []
    exception = _exception(chain, expectation, now)
    if exception is not None:
        facts.append(replace(exception, addresses=(observation.address,)))
    undecided: frozenset[str] = frozenset()
    if expectation.fingerprint is not None and chain.fingerprint != expectation.fingerprint:
        # Later than any time to settle: written by a clock that ran ahead.
        latest = now + LONGEST_SETTLING + CLOCKS_DIFFER
        if expectation.settle_until is not None and now < expectation.settle_until <= latest:
            undecided = frozenset((DIFFERS,))
        else:
            facts.append(
                AlarmFact(
                    DIFFERS,
                    Severity.MAJOR,
                    "differs",
                    params={"served": chain.fingerprint, "intended": expectation.fingerprint},
                    identity=(chain.fingerprint, expectation.fingerprint),
                    addresses=(observation.address,),
                )
            )
    return Verdict(tuple(facts), undecided)


def _without_certificate(observation: Observation, expectation: Expectation) -> Verdict:
    # An address the operator hasn't opened was never looked at, nor was one that our own resolver could not be asked
    # for: nothing can be said about them, and an outage here must not raise an alarm for every endpoint there is.
    unseen = observation.problem in ("denied", "resolver_away")
    if unseen or (not observation.reachable and observation.failures < expectation.confirm):
        return Verdict(undecided=frozenset(ENDPOINT_KINDS))
    problem = observation.problem or "no_certificate"
    reason = problem if problem in ("no_certificate", "unreadable") else "unreachable"
    fact = AlarmFact(
        EXCEPTION,
        Severity.CRITICAL,
        reason,
        threshold=3,
        params={"problem": problem, "detail": observation.detail},
        identity=(problem,),
        addresses=(observation.address,) if observation.address else (),
    )
    return Verdict((fact,), frozenset((DIFFERS,)))


def _exception(chain: ServedChain, expectation: Expectation, now: datetime) -> AlarmFact | None:
    """The first that applies of: expired, not yet valid, wrong name, broken chain, running out."""
    days_left = (chain.not_after - now) / timedelta(days=1)
    common = {"not_after": stamp(chain.not_after), "subject": chain.subject, "fingerprint": chain.fingerprint}

    def fact(reason: str, severity: Severity, threshold: int, **params: object) -> AlarmFact:
        return AlarmFact(
            EXCEPTION,
            severity,
            reason,
            threshold=threshold,
            value=round(days_left, 2),
            params=common | params,
            identity=(chain.fingerprint,),
        )

    if now > chain.not_after:
        return fact("expired", Severity.CRITICAL, 2)
    if now < chain.not_before:
        return fact("not_yet_valid", Severity.CRITICAL, 3, not_before=stamp(chain.not_before))
    if not any(covers(name, expectation.name) for name in chain.names):
        return fact("wrong_name", Severity.CRITICAL, 3, name=expectation.name, names=list(chain.names[:20]))
    if chain.state in (Chain.INCOMPLETE, Chain.BROKEN):
        return fact(f"chain_{chain.state}", Severity.CRITICAL, 3, detail=chain.detail)
    severity = severity_of_time_left(chain.not_before, chain.not_after, now)
    if severity is not None:
        return fact("expires_soon", severity, 1)
    return None


def severity_of_time_left(not_before: datetime, not_after: datetime, now: datetime) -> Severity | None:
    """Minor under 30 days, major under 7; for lives under 100 days under 0.33 and 0.15 of the life."""
    life, left = not_after - not_before, not_after - now
    short = life < _SHORT_LIFE
    if left < (life * _MAJOR_FRACTION if short else _MAJOR_LEFT):
        return Severity.MAJOR
    if left < (life * _MINOR_FRACTION if short else _MINOR_LEFT):
        return Severity.MINOR
    return None


def combine(verdicts: Sequence[tuple[Observation, Verdict]]) -> Verdict:
    """One verdict for an endpoint from those of its addresses: the worst fact of each kind, naming every address.

    An address this machine has no route to says nothing while another address can be judged.
    """
    routed = [pair for pair in verdicts if pair[0].problem != "no_route"]
    counted = [verdict for _, verdict in (routed or verdicts)]
    facts = []
    for kind in ENDPOINT_KINDS:
        found = [fact for verdict in counted for fact in verdict.facts if fact.kind == kind]
        if not found:
            continue
        worst = max(found, key=lambda fact: (fact.severity.weight, fact.threshold or 0))
        addresses = tuple(sorted({address for fact in found for address in fact.addresses}))
        facts.append(replace(worst, addresses=addresses, identity=(*worst.identity, *addresses)))
    decided = {fact.kind for fact in facts}
    undecided = {kind for verdict in counted for kind in verdict.undecided} - decided
    return Verdict(tuple(facts), frozenset(undecided))


def move(alarm: OpenAlarm | None, fact: AlarmFact | None, *, undecided: bool = False) -> Move:
    """What the alarm of one (object, kind) does next: raised → changed → cleared."""
    if fact is None:
        return Move.KEEP if alarm is None or undecided else Move.CLEAR
    if alarm is None:
        return Move.RAISE
    same = (fact.severity, fact.threshold, fact.reason, tuple(fact.identity)) == (
        alarm.severity,
        alarm.threshold,
        alarm.reason,
        tuple(alarm.identity),
    )
    return Move.KEEP if same else Move.CHANGE


def overdue_at(due: datetime, not_after: datetime, goes_at: datetime | None = None) -> datetime:
    """When a certificate that was due for renewal and has no successor should have somebody look at it: after a fifth
    of the time that is left, and not while windows or freezes hold it (until `goes_at`, its last safe moment at the
    latest) nor at once after."""
    usual = due + (not_after - due) * _OVERDUE_SLACK
    if goes_at is None:
        return usual
    return max(usual, goes_at + min(_RENEWAL_TAKES, (not_after - goes_at) * _OVERDUE_SLACK))


def renewal_overdue(
    version_id: str, due: datetime, not_after: datetime, now: datetime, goes_at: datetime | None = None
) -> AlarmFact | None:
    """ALM-2001011 for the newest version of a certificate that renews by itself."""
    if now < overdue_at(due, not_after, goes_at):
        return None
    return AlarmFact(
        OVERDUE,
        Severity.MAJOR,
        "renewal_overdue",
        value=round((not_after - now) / timedelta(days=1), 2),
        params={"due": stamp(due), "not_after": stamp(not_after), "version_id": version_id},
        identity=(version_id,),
    )


# A year is about the longest that servers' and clients' certificates live: from then on their lives are cut off by the
# CA's end. Of a CA that lives for less than five years itself it is a fifth of its life.
_CA_WINDOW = timedelta(days=365)
_CA_FRACTION = 0.2
# Of the window.
_CA_LAST = 0.1


def ca_ends(
    *, name: str, sha256: str, not_before: datetime, not_after: datetime, used_to_the_end: bool, now: datetime
) -> AlarmFact | None:
    """ALM-2001018 for a CA that is active or disabled, or would be if it hadn't ended."""
    window = min(_CA_WINDOW, (not_after - not_before) * _CA_FRACTION)
    left = not_after - now
    if left > window or (left <= timedelta(0) and not used_to_the_end):
        return None
    if left <= timedelta(0):
        severity, reason, threshold = Severity.CRITICAL, "ca_ended", 2
    else:
        severity = Severity.MAJOR if left <= window * _CA_LAST else Severity.MINOR
        reason, threshold = "ca_ends", 1
    return AlarmFact(
        CA_ENDS,
        severity,
        reason,
        threshold=threshold,
        value=left // timedelta(days=1),
        params={"ca": name, "not_after": stamp(not_after)},
        identity=(sha256,),
    )


def digest(observation: Observation, *, intended: bool | None) -> str:
    """Equal for two looks between which nothing worth a line of history happened (hex SHA-256)."""
    chain = observation.chain
    facts: Mapping[str, object] = {
        "problem": observation.problem,
        "links": [link.fingerprint for link in chain.links] if chain else [],
        "state": chain.state if chain else None,
        "trusted": chain.trusted if chain else None,
        "tls": [observation.tls_version, observation.cipher, observation.group],
        "intended": intended,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
