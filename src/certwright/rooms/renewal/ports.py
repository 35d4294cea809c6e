"""What the renewal room needs from beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from certwright.platform.db import Tx


class Serving(Protocol):
    """Which certificates serve somewhere; answered by the deployment room, which this room must not know."""

    async def serving(self, tx: Tx, certificate_ids: Sequence[str]) -> frozenset[str]:
        """Of these certificates those that a listener is bound to."""
        ...
