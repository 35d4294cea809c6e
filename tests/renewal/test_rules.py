"""Whether a version is renewed now: each case is a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certwright.rooms.certificates import State
from certwright.rooms.renewal.rules import why_renew

DUE = datetime(2027, 1, 20, tzinfo=UTC)
END = DUE + timedelta(days=30)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("state", "auto_renew", "now", "renew", "look_again"),
    [
        pytest.param(State.ISSUED, True, DUE, True, None, id="issued and due"),
        pytest.param(State.ISSUED, True, DUE - SECOND, False, SECOND, id="a second too early"),
        pytest.param(State.ISSUED, True, END - SECOND, True, None, id="a second before the end"),
        pytest.param(State.EXPIRED, True, END, False, None, id="over"),
        pytest.param(State.ISSUED, False, DUE, False, None, id="switched off"),
        pytest.param(State.REVOKED, True, DUE, False, None, id="revoked"),
        pytest.param(State.VERIFYING_REVOCATION, True, DUE, False, None, id="being revoked"),
        pytest.param(State.VERIFYING_REISSUE, True, DUE, False, timedelta(minutes=10), id="a reissue is under way"),
    ],
)
def test_a_version_is_renewed_only_when_issued_due_and_alive(
    state: State, auto_renew: bool, now: datetime, renew: bool, look_again: timedelta | None
) -> None:
    verdict = why_renew(auto_renew=auto_renew, state=state, renew_at=DUE, not_after=END, now=now)
    assert (verdict.renew, verdict.look_again) == (renew, look_again)
    assert verdict.reason
