"""Where the guide's pages lie: in the package, or in a checkout beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path


@lru_cache(maxsize=1)
def guide_pages() -> Mapping[str, Path]:
    """Every page by its name, `start` or `findings/expired`; empty where the guide wasn't shipped."""
    shipped = Path(str(files("certwright") / "guide"))
    root = shipped if shipped.is_dir() else Path(__file__).resolve().parents[3] / "docs" / "guide"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.md"))}
