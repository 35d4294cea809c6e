"""Who uses signing requests; answered by the certificates room, which this room must not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from certwright.platform.db import Tx
from certwright.rooms.csrs.words import UsedBy


class Users(Protocol):
    async def used_by(self, tx: Tx, csr_ids: Sequence[str]) -> Mapping[str, UsedBy]:
        """By the request's id; requests nobody uses may be missing."""
        ...
