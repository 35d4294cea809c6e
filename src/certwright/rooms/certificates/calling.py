"""How steps talk to a CA: with no transaction open, and as patiently as it asks."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from certwright.kernel.problems import Unavailable
from certwright.platform.db import assert_no_transaction
from certwright.platform.jobs import Again

T = TypeVar("T")

# Validation tells us by event; this look-in is for the event that was lost with a restored backup.
LOOK_IN = timedelta(minutes=10)


async def asked(call: Awaitable[T]) -> T:
    """What the CA answers; how long it asks us to wait becomes the pause until the next try."""
    assert_no_transaction()
    try:
        return await call
    except Unavailable as later:
        seconds = later.extra.get("retry_after")
        if isinstance(seconds, int):
            raise Again(timedelta(seconds=seconds), later) from later
        raise
