"""Skipping visibly where a real server isn't installed; under CI=true that is a failure."""

from __future__ import annotations

import os

import pytest

from tests.servers.dns import find


def require(*programs: str) -> None:
    """Skip (or fail under CI) unless every program is there."""
    missing = [program for program in programs if find(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages knot and bind9)")
