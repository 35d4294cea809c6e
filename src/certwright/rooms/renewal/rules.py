"""Whether to renew now: facts and time in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from certwright.rooms.certificates import State

# How soon to look again at a certificate that is busy with something else.
_BUSY = timedelta(minutes=10)


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
