"""The PIN of the token, and the memory of one that was refused: tokens lock for good after a few wrong ones, and not
all say beforehand that the next is the last.

A process remembers the PIN. All processes of this installation, and those started again later, remember which version
of the PIN's file was refused; of a PIN in the environment or the configuration there is no such version.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from certwright.kernel.problems import Refused, Unavailable
from certwright.platform.config import Settings

log = structlog.get_logger(__name__)

_NOTE: Final = "hsm-pin-refused"


class Pin:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._refused: str | None = None
        self._written = False
        self._version: str | None = None
        self._note = settings.data_dir / _NOTE

    def read(self) -> str:
        """Read each time, so that a new PIN in the file counts without a restart. Raises Refused and Unavailable
        `hsm_not_configured`."""
        self._version = None
        path = self._settings.hsm_pin_file
        if self._settings.hsm_pin is not None:
            pin = self._settings.hsm_pin.get_secret_value()
        elif path is not None:
            pin = self._read(path)
        else:
            raise Refused(
                "hsm_not_configured", "The HSM's PIN isn't set.", field="hsm_pin_file",
                fix="Write the PIN into a file only the server may read, and set hsm_pin_file.",
            )  # fmt: skip
        if not pin:
            # Tried all the same, it would count as a wrong one.
            raise Refused(
                "hsm_not_configured", "The HSM's PIN is empty.", field="hsm_pin_file",
                fix="Write the PIN into the file that hsm_pin_file names.",
            )  # fmt: skip
        return pin

    def _read(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                looked = os.fstat(file.fileno())
                pin = file.read().decode().strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't text"
            raise Unavailable(
                "hsm_not_configured", f"The file {path} with the HSM's PIN can't be read: {reason}.",
                field="hsm_pin_file", fix="Check the path and that the server's user may read it.",
            ) from None  # fmt: skip
        self._version = f"{self._settings.hsm_token_label}\n{looked.st_ino}\n{looked.st_mtime_ns}\n"
        return pin

    def may_be_tried(self, pin: str) -> bool:
        """Whether this PIN, as it was read, wasn't refused before."""
        noted = self._noted()
        if noted is not None and noted == self._version:
            return False
        # The note we made is gone when another process had the PIN taken.
        return pin != self._refused or (self._written and noted is None)

    def was_refused(self, pin: str) -> None:
        self._refused, self._written = pin, False
        if self._version is None:
            return
        try:
            self._note.write_text(self._version)
            self._written = True
        except OSError as error:
            log.warning("a refused PIN can't be noted; each process tries it once", reason=error.strerror)

    def was_taken(self) -> None:
        self._refused = None
        with suppress(OSError):
            self._note.unlink(missing_ok=True)

    def _noted(self) -> str | None:
        try:
            return self._note.read_text()
        except (OSError, UnicodeDecodeError):
            return None
