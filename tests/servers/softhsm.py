"""SoftHSM2 with tokens of its own: an HSM in files, with the calls of a real one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import require

_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN = "pin-4711-secret"


@dataclass(frozen=True)
class SoftHsm:
    """`SOFTHSM2_CONF` must name `conf` while the module starts."""

    folder: Path

    @property
    def module(self) -> Path:
        return next(Path(path) for path in _MODULES if Path(path).exists())

    @property
    def conf(self) -> Path:
        return self.folder / "softhsm2.conf"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def pin_file(self) -> Path:
        return self.folder / "pin"

    def add_token(self, label: str) -> None:
        _util(self.conf, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "so-" + PIN)

    def show_slots(self) -> str:
        return _util(self.conf, "--show-slots")


def make(folder: Path, label: str = "cas") -> SoftHsm:
    """An HSM with one token; skips the test where SoftHSM2 isn't installed."""
    require("softhsm2-util")
    hsm = SoftHsm(folder)
    hsm.tokens.mkdir(parents=True)
    hsm.conf.write_text(f"directories.tokendir = {hsm.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    hsm.pin_file.write_text(PIN + "\n")
    hsm.add_token(label)
    return hsm


def _util(conf: Path, *words: str) -> str:
    done = subprocess.run(
        ["softhsm2-util", *words], env=os.environ | {"SOFTHSM2_CONF": str(conf)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout
