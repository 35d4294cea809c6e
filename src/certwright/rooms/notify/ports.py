"""How a letter leaves the house."""

from __future__ import annotations

from typing import Protocol

from certwright.rooms.notify.words import Letter, Receipt


class Channel(Protocol):
    """One way to reach people. It is plugged in only when the operator has configured it."""

    async def send(self, letter: Letter) -> Receipt:
        """Hand the letter over. Raises NotSentError; anything else is a mistake in the channel.

        May be called again with a letter that was handed over already, when the answer was lost on the way: the
        letter's id must then make the second recognisable.
        """
