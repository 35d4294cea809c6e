"""Real programs that tests run: where they are, and skipping visibly where they are not."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

PACKAGES = {
    "nginx": "nginx-light", "named": "bind9", "knotd": "knot", "softhsm2-util": "softhsm2", "pkcs11-tool": "opensc",
    "unshare": "util-linux",
}  # fmt: skip
"""Debian packages whose name differs from the program's."""


def find(program: str) -> str | None:
    """Debian keeps servers in /usr/sbin, which ordinary users don't have on PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def require(*programs: str) -> None:
    """Skip the test, saying why, unless every program is there; under CI=true that is a failure."""
    absent = [program for program in programs if find(program) is None]
    if not absent:
        return
    packages = " ".join(PACKAGES.get(program, program) for program in absent)
    missing(f"not installed: {', '.join(absent)} (Debian: apt-get install {packages})")


def missing(reason: str) -> NoReturn:
    """Skips the test, or fails it under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
