"""What watching needs that others have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from certwright.platform.services import Services


class TrustedRoots(Protocol):
    """Root certificates beyond the machine's own store: those of the built-in CA, plugged in by the entry."""

    async def roots(self, services: Services) -> Sequence[bytes]:
        """DER certificates of every account's roots; asked for about once a minute."""
