"""When a version is due, whether it may be renewed now, how fast, and what survives shorter lives: facts and time in,
verdict and reason out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from certwright.kernel.problems import Invalid, InvalidFields, Problem
from certwright.rooms.certificates import RenewalWindow, Standing, State, why_bound_to_ca
from certwright.rooms.renewal.words import (
    Allowed,
    Bucket,
    Criteria,
    Destination,
    Estimate,
    Freeze,
    ItemState,
    NameProof,
    Outcome,
    Proof,
    Readiness,
    ReadinessFacts,
    Renewer,
    Replaceable,
    RuleStep,
    Survival,
    Window,
)

# How soon to look again at a certificate that is busy with something else.
_BUSY = timedelta(minutes=10)


# --- whether ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """`look_again` None: nothing to do until something changes (an event will tell)."""

    renew: bool
    reason: str
    look_again: timedelta | None = None


def why_renew(*, auto_renew: bool, state: State, renew_at: datetime, not_after: datetime, now: datetime) -> Verdict:
    """Renew an issued certificate whose version is due and not over, unless its owner switched renewal off."""
    if not auto_renew:
        return Verdict(False, "automatic renewal is switched off")
    if state in (State.REVOKED, State.VERIFYING_REVOCATION):
        return Verdict(False, "the certificate is revoked")
    if state is State.EXPIRED or now >= not_after:
        return Verdict(False, "the certificate has expired: a new application is needed")
    if now < renew_at:
        return Verdict(False, "not due yet", renew_at - now)
    if state is not State.ISSUED:
        return Verdict(False, f"the certificate is busy ({state})", _BUSY)
    return Verdict(True, "due")


def retry_after(left: timedelta) -> timedelta:
    """How long a refused renewal waits: six hours, less when the version has less than five days."""
    return min(timedelta(hours=6), max(left / 20, timedelta(minutes=5)))


# --- when ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """`at`: renew then; `need_by`: the last safe moment, for which neither windows nor freezes are waited."""

    at: datetime
    need_by: datetime


def by_fraction(due: datetime, not_after: datetime) -> Due:
    """Without ARI: half of the time between due and the end of life may be spent waiting."""
    return Due(due, due + (not_after - due) / 2)


# A CA that says of every new version at once that it is late would have it replaced without end.
_FRESH = timedelta(hours=6)
_FRESH_SHARE = 0.1


def by_window(
    window: RenewalWindow, place: float, fraction_due: datetime, not_after: datetime, not_before: datetime
) -> Due:
    """A moment inside the CA's window (RFC 9773, section 4.2); `place` in [0, 1) is drawn once per version, so that
    asking again doesn't draw again. A moment that has passed means now.

    The end of the window is the last safe moment: a window the CA moved to the past says that the certificate is about
    to be revoked. A window later than our own last safe moment is not waited for, and no version is replaced in its
    first six hours, or tenth of its life.
    """
    if not 0 <= place < 1:
        raise ValueError("the place lies outside [0, 1)")
    latest = by_fraction(fraction_due, not_after).need_by
    settled = not_before + min(_FRESH, (not_after - not_before) * _FRESH_SHARE)
    at = max(min(window.start + (window.end - window.start) * place, latest), settled)
    return Due(at, max(at, min(window.end, by_fraction(at, not_after).need_by)))


# --- windows and freezes ---------------------------------------------------------------------------------------------

_WEEK = 7
_DAY = timedelta(days=1)


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Raises Invalid `zone_unknown`."""
    try:
        if name in available_timezones():
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise Invalid("zone_unknown", f"There is no time zone {name[:60]!r}.", field="zone",
                  fix="Use an IANA name such as Europe/Berlin or UTC.")  # fmt: skip


def is_open(window: Window, at: datetime) -> bool:
    """By the clocks of the window's zone: `from_time` is inside, `to_time` isn't."""
    local = at.astimezone(zone_of(window.zone))
    wall, today = local.time(), local.weekday()
    if window.from_time < window.to_time:
        return today in window.weekdays and window.from_time <= wall < window.to_time
    begun_yesterday = (today - 1) % _WEEK in window.weekdays and wall < window.to_time
    return begun_yesterday or (today in window.weekdays and wall >= window.from_time)


def next_opening(window: Window, after: datetime) -> datetime:
    """The first moment from `after` on at which the window is open; `after` itself if it is."""
    if is_open(window, after):
        return after
    return min(moment for moment in _openings(window, after) if moment >= after and is_open(window, moment))


def _openings(window: Window, after: datetime) -> Iterator[datetime]:
    """Candidates within nine days: each weekday comes again in seven, and an opening that the clocks skip wholly (a
    window inside the skipped hour) comes a week later."""
    zone = zone_of(window.zone)
    first = after.astimezone(zone).date() - _DAY
    for offset in range(2 * _WEEK + 3):
        wall = datetime.combine(first + offset * _DAY, window.from_time)
        early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        # Shown twice: it opens at both. Skipped: it opens at the moment the clocks skip to.
        yield early
        yield late
        if late < early:
            yield _skip(zone, late, early)


def _skip(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The second between these two at which the clocks of the zone were put forward."""
    offset = before.astimezone(zone).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def when_allowed(now: datetime, windows: Sequence[Window], freezes: Sequence[Freeze], need_by: datetime) -> Allowed:
    """The first moment from `now` on at which a renewal may run: inside a window (without any: always) and outside all
    freezes, but never later than `need_by`, at which it runs in spite of them."""
    blocked = _blocked(now, windows, freezes)
    if blocked is None:
        return Allowed(now, False, "allowed", "Nothing holds it back.")
    code, reason = blocked
    if now >= need_by:
        return Allowed(now, True, "last_safe_moment", f"Its last safe moment has come, in spite of this: {reason}")
    at = now
    while at < need_by:
        frozen = [freeze for freeze in freezes if freeze.from_at <= at < freeze.to_at]
        if frozen:
            at = max(freeze.to_at for freeze in frozen)
            continue
        opening = min((next_opening(window, at) for window in windows), default=at)
        if opening > at:
            at = opening
            continue
        return Allowed(at, False, code, reason)
    return Allowed(need_by, True, "last_safe_moment", f"It can't wait longer than its last safe moment: {reason}")


def _blocked(now: datetime, windows: Sequence[Window], freezes: Sequence[Freeze]) -> tuple[str, str] | None:
    for freeze in freezes:
        if freeze.from_at <= now < freeze.to_at:
            until = f"{freeze.to_at:%Y-%m-%d %H:%M} UTC"
            return "frozen", f"Renewals are frozen until {until}: {freeze.reason}"
    if windows and not any(is_open(window, now) for window in windows):
        return "outside_window", "No maintenance window is open."
    return None


def judge_window(window: Window) -> Window:
    """Raises InvalidFields."""
    problems: list[Problem] = []
    if not window.weekdays or not window.weekdays <= set(range(_WEEK)):
        problems.append(Invalid("window_days_invalid", "A window needs one or more days of the week.",
                                field="weekdays", fix="Give numbers from 0 (Monday) to 6 (Sunday)."))  # fmt: skip
    try:
        zone_of(window.zone)
    except Invalid as problem:
        problems.append(problem)
    if not 1 <= len(window.name) <= 63 or not window.name.isprintable():
        problems.append(Invalid("window_name_invalid", "A window's name has 1 to 63 printable characters.",
                                field="name", fix="Call it nights, say."))  # fmt: skip
    if problems:
        raise InvalidFields(problems)
    return window


_LONGEST_FREEZE = timedelta(days=366)


def judge_freeze(freeze: Freeze, now: datetime) -> Freeze:
    """Raises InvalidFields."""
    problems: list[Problem] = []
    if not freeze.from_at < freeze.to_at or freeze.to_at <= now:
        problems.append(Invalid("freeze_span_invalid", "A freeze ends after it begins, and in the future.",
                                field="to", fix="Correct its beginning and end."))  # fmt: skip
    elif freeze.to_at - freeze.from_at > _LONGEST_FREEZE:
        problems.append(Invalid("freeze_too_long", "A freeze lasts at most 366 days.", field="to",
                                fix="Switch automatic renewal off instead."))  # fmt: skip
    if not 1 <= len(freeze.reason.strip()) <= 255 or not freeze.reason.isprintable():
        problems.append(Invalid("freeze_reason_missing", "A freeze needs a reason of 1 to 255 characters.",
                                field="reason", fix="Say why nothing may change then."))  # fmt: skip
    if problems:
        raise InvalidFields(problems)
    return freeze


# --- how fast --------------------------------------------------------------------------------------------------------

OWN_PER_MINUTE = 600
OUTSIDE_PER_MINUTE = 60
RESERVE_PERCENT = 20
_MINUTE = timedelta(minutes=1)
_SLICES = 7


def capacity(bucket: Bucket) -> float:
    """What the bucket holds: a seventh of a minute's worth. Whatever sum is taken within any minute, it is never more
    than what was held and what flows in, and these two together are `per_minute`."""
    return max(1.0, bucket.per_minute / _SLICES)


def refill_per_minute(bucket: Bucket) -> float:
    return max(bucket.per_minute - capacity(bucket), 0.5)


def filled(bucket: Bucket, now: datetime) -> float:
    """Tokens at `now`; a clock set back fills nothing."""
    passed = max(now - bucket.filled_at, timedelta(0)) / _MINUTE
    return min(capacity(bucket), bucket.tokens + passed * refill_per_minute(bucket))


def reserve(bucket: Bucket) -> float:
    """Tokens only urgent ones may take. A bucket that holds one or two has none: it would never serve the others."""
    return min(capacity(bucket) * bucket.reserve_percent / 100, capacity(bucket) - 1)


def until_token(bucket: Bucket, tokens: float, *, keep: float = 0.0) -> timedelta:
    """How long until a whole token is there above what is kept; a second at least, so that many go together."""
    missing = max(0.0, 1 + keep - tokens)
    # A hair more, because times are whole microseconds.
    return max(_MINUTE * (missing / refill_per_minute(bucket)), timedelta(seconds=1)) + timedelta(milliseconds=1)


def whole(tokens: float) -> int:
    """Tokens that can be taken: what summing fractions lost is forgiven."""
    return int(tokens + 1e-9)


def judge_limit(per_minute: int, reserve_percent: int) -> None:
    """Raises InvalidFields."""
    problems: list[Problem] = []
    if not 1 <= per_minute <= 100_000:
        problems.append(Invalid("rate_invalid", "At most 100000 renewals a minute, and one at least.",
                                field="per_minute", fix="Correct it."))  # fmt: skip
    if not 0 <= reserve_percent <= 90:
        problems.append(Invalid("reserve_invalid", "The reserve is 0 to 90 percent.", field="reserve_percent",
                                fix="Correct it."))  # fmt: skip
    if problems:
        raise InvalidFields(problems)


# --- mass replacement ------------------------------------------------------------------------------------------------

MOST_ATTEMPTS = 6
_FIRST_RETRY = timedelta(minutes=5)
_LAST_RETRY = timedelta(hours=6)


def judge_criteria(criteria: Criteria) -> Criteria:
    """Raises Invalid: everything there is must not be replaced because nothing was said."""
    if not criteria.as_dict():
        raise Invalid("campaign_matches_all", "Say which certificates are to be replaced.", field="criteria",
                      fix="Name a CA, a key algorithm, an issuer, a time or names; names * is all.")  # fmt: skip
    for word, text in criteria.as_dict().items():
        if len(text) > 300 or not text.isprintable():
            raise Invalid("campaign_criterion_invalid", f"The criterion {word} is too long or not readable.",
                          field=f"criteria.{word}", fix="Use at most 300 printable characters.")  # fmt: skip
    return criteria


def judge_campaign(name: str, per_hour: int, deadline: datetime, now: datetime) -> None:
    """Raises InvalidFields."""
    problems: list[Problem] = []
    if not 1 <= len(name) <= 100 or not name.isprintable():
        problems.append(Invalid("campaign_name_invalid", "A mass replacement's name has 1 to 100 printable characters.",
                                field="name", fix="Say what it is about."))  # fmt: skip
    if not 1 <= per_hour <= 100_000:
        problems.append(Invalid("campaign_rate_invalid", "The rate is 1 to 100000 certificates an hour.",
                                field="per_hour", fix="Correct it."))  # fmt: skip
    if deadline <= now:
        problems.append(Invalid("campaign_deadline_past", "The deadline has passed.", field="deadline",
                                fix="Give a time in the future."))  # fmt: skip
    if problems:
        raise InvalidFields(problems)


def replaceable(one: Standing, to: Destination | None = None) -> Replaceable:
    """Whether a certificate that matches can be replaced from here, by a version of the CA `to` if one is given; a busy
    one is, as soon as it is free."""
    state = one.state
    if one.uploaded:
        return Replaceable(ItemState.EXCLUDED, "uploaded", "It was uploaded: get its successor where it was issued.")
    if not one.has_key:
        return Replaceable(ItemState.EXCLUDED, "uploaded_csr", "Its CSR was uploaded: its owner must make a new one.")
    if state in (State.REVOKED, State.VERIFYING_REVOCATION, State.REVOCATION_PENDING_DOMAIN_VALIDATION):
        return Replaceable(ItemState.EXCLUDED, "revoked", "It is revoked: apply for a new certificate if it is needed.")
    if state is State.EXPIRED:
        return Replaceable(
            ItemState.EXCLUDED, "expired", "It has expired: apply for a new certificate if it is needed."
        )
    if state is State.REFUND_REVIEW:
        return Replaceable(ItemState.EXCLUDED, "refund_review", "Its order is being unsubscribed from.")
    if to is not None and to.ca != one.ca:
        why = _why_not_there(one, to)
        if why is not None:
            return why
    if state is not State.ISSUED:
        return Replaceable(ItemState.WAITING, "busy", f"It is in another operation ({state}) and comes after it.")
    return Replaceable(ItemState.WAITING, "replaceable", "")


def _why_not_there(one: Standing, to: Destination) -> Replaceable | None:
    bound = why_bound_to_ca(bought=one.bought, vouched=one.vouched)
    if bound is not None:
        return Replaceable(ItemState.EXCLUDED, bound.code, bound.message)
    other = [method for method in (one.validation_method, *one.per_name_methods.values()) if method not in to.methods]
    if other:
        said = f"Its names are shown by {other[0]}, which the other CA doesn't take: choose another method first."
        return Replaceable(ItemState.EXCLUDED, "method_not_taken", said)
    return None


def hourly_capacity(per_hour: int) -> float:
    """Tokens a campaign's bucket holds: a minute's worth. With what flows in, no hour sees more than `per_hour`."""
    return max(1.0, per_hour / 60)


def hourly_inflow(per_hour: int) -> float:
    return max(per_hour - hourly_capacity(per_hour), 0.5)


def item_retry(attempts: int) -> timedelta | None:
    """How long an item waits after its attempt number `attempts` failed; None: no more."""
    if attempts >= MOST_ATTEMPTS:
        return None
    doubled: timedelta = _FIRST_RETRY * 2 ** (attempts - 1)
    return min(doubled, _LAST_RETRY)


def estimate(
    *, now: datetime, deadline: datetime, per_hour: int, left: Mapping[str, int], per_minute: Mapping[str, int]
) -> Estimate:
    """When the last of those `left` (per CA) would be started, at the campaign's rate and at each CA's; the CA's other
    renewals are not counted in."""
    total = sum(left.values())
    hours = max([total / per_hour, *(count / (60 * per_minute[ca]) for ca, count in left.items())])
    ends_at = now + timedelta(hours=hours)
    remaining = max((deadline - now) / timedelta(hours=1), 1 / 60)
    return Estimate(ends_at, ends_at <= deadline, ceil(total / remaining))


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """An item on its way, and the certificate as it is now. `newest_application` is that of the certificate,
    `application_before` the newest one when the reissue was intended."""

    version_id: str
    application_before: str | None
    newest_application: str | None
    current_version: str | None
    state: State


class Move:
    """What to do with an item: one of these."""

    DONE = "done"
    ADOPT = "adopt"
    REISSUE = "reissue"
    LATER = "later"
    OVER = "over"


def next_move(facts: ItemFacts) -> str:
    """After the intention was recorded: the certificate itself tells whether the reissue was asked for already, however
    often whoever asks was killed."""
    if facts.current_version != facts.version_id:
        return Move.DONE
    if facts.newest_application != facts.application_before:
        return Move.ADOPT
    if facts.state is State.ISSUED:
        return Move.REISSUE
    if facts.state in (State.VERIFYING_REISSUE, State.VERIFYING_DOMAIN_ADDITION):
        return Move.LATER
    return Move.OVER


# --- readiness -------------------------------------------------------------------------------------------------------

_YEAR = timedelta(days=365)


def readiness(
    facts: ReadinessFacts, *, now: RuleStep, steps: Sequence[RuleStep], fraction: float, at: datetime
) -> Readiness:
    """Whether a certificate goes on by itself under the limits of `now` (those at the moment asked about), and under
    each of `steps`. Public CAs' lives shrink with the limits; a private one's stay, its evidence ages alike."""
    who, who_reason = _who(facts, at)
    proof, proof_reason = _proof(facts.proofs, facts.method_ended)
    return Readiness(
        who, who_reason, proof, proof_reason, facts.evidence_until,
        facts.evidence_until is not None and facts.evidence_until >= facts.renew_at,
        _outcome(facts, who, proof, now, fraction),
        tuple(_outcome(facts, who, proof, step, fraction) for step in steps),
    )  # fmt: skip


def _who(facts: ReadinessFacts, at: datetime) -> tuple[Renewer, str]:
    if facts.uploaded:
        return Renewer.NOBODY, "It was uploaded: nobody here can renew it."
    if not facts.has_key:
        return Renewer.OWNER, "Its CSR was uploaded: its owner must make a new one for every version."
    if not facts.auto_renew:
        return Renewer.NOBODY, "Automatic renewal is switched off."
    if facts.bought:
        if facts.coverage_ends_at is not None and facts.coverage_ends_at <= at:
            return Renewer.NOBODY, f"The coverage that was bought ends on {facts.coverage_ends_at:%Y-%m-%d}."
        return Renewer.US_BY_ORDER, "We reissue it within the coverage that was bought; then it takes a new order."
    return Renewer.US, "We renew it."


def _proof(proofs: Sequence[NameProof], ended: str | None) -> tuple[Proof, str]:
    if not proofs:
        return Proof.NOT_NEEDED, "No proof of control is asked for."
    if ended is not None:
        return Proof.ENDED, f"Public CAs no longer take the method {ended}."
    by_hand = [proof for proof in proofs if not proof.automatic]
    if not by_hand:
        if any(proof.method == "tls-alpn-01" for proof in proofs):
            return Proof.AUTOMATIC, "This server answers the CA itself, or a DNS connection shows the records."
        return Proof.AUTOMATIC, "A DNS connection shows the records by itself."
    one = by_hand[0]
    more = f" and {len(by_hand) - 1} more" if len(by_hand) > 1 else ""
    return Proof.BY_HAND, f"Somebody must show {one.name}{more} by {one.method}."


def _outcome(facts: ReadinessFacts, who: Renewer, proof: Proof, step: RuleStep, fraction: float) -> Outcome:
    life = min(timedelta(days=step.life_days), facts.life) if facts.public else facts.life
    between = max(life * fraction, timedelta(minutes=1))
    renewals = _YEAR / between
    days = min(step.life_days, ceil(life / timedelta(days=1)))
    if who is Renewer.NOBODY or proof is Proof.ENDED:
        return Outcome(days, step.reuse_days, Survival.NO, 0.0)
    if who is Renewer.OWNER:
        return Outcome(days, step.reuse_days, Survival.WITH_WORK, round(renewals, 1))
    if proof is Proof.BY_HAND:
        # Evidence shown for one version serves those that follow until it is too old.
        served = int(timedelta(days=step.reuse_days) / between) + 1
        return Outcome(days, step.reuse_days, Survival.WITH_WORK, round(renewals / served, 1))
    return Outcome(days, step.reuse_days, Survival.YES, 0.0)
