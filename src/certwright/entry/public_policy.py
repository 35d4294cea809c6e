"""The shipped rules of public trust as the workshop wants them, without loading the room that keeps the file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import certwright
from certwright.x509.workshop.policy import PublicPolicy, from_document


@lru_cache(maxsize=1)
def public_policy() -> PublicPolicy:
    """Read straight from the file: importing rooms.validation would cost an offline command ten times its own time."""
    import yaml

    # By path: importlib.resources takes 10 ms to load, a tenth of a whole offline check.
    rules = Path(certwright.__file__).parent / "rooms" / "validation" / "rules-2026.yaml"
    return from_document(yaml.safe_load(rules.read_text("utf-8")))
