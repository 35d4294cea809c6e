"""What the console takes from npm: pinned, complete, and silent about the outside."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from certwright.entry.console.web import static_dir

ROOT = Path(__file__).resolve().parents[2]
OURS = ("console.css", "console.js", "theme.js", "brand.svg")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_versions_are_pinned_and_the_lock_names_no_download_host() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
    lock = json.loads((ROOT / "package-lock.json").read_text())
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry, name
        assert name == "" or entry["integrity"].startswith("sha512-"), name


def test_what_is_there_already_is_not_fetched_again(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_npm", lambda *_: pytest.fail("npm was asked though nothing is missing"))
    assert hook.fetch() is False


def test_a_missing_or_outdated_asset_is_fetched(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def npm(work: Path, _arguments: list[str]) -> None:
        for source in hook.FILES:
            (work / "node_modules" / source).parent.mkdir(parents=True, exist_ok=True)
            (work / "node_modules" / source).write_bytes(b"a{}\n//# sourceMappingURL=x.map\n")

    monkeypatch.setattr(hook, "_npm", npm)
    vendor = tmp_path / "vendor"
    assert hook.fetch(vendor) is True
    assert hook.fetch(vendor) is False
    for name in hook.FILES.values():
        assert (vendor / name).read_bytes() == b"a{}\n"
        assert gzip.decompress((vendor / f"{name}.gz").read_bytes()) == b"a{}\n"
    (vendor / "htmx.min.js").unlink()
    assert hook.fetch(vendor) is True
    (vendor / hook.STAMP).write_text("of another lock file")
    assert hook.fetch(vendor) is True


def test_npm_that_fails_is_told_in_its_own_words(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "npm"
    broken.write_text("#!/bin/sh\necho 'npm error network unreachable' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SystemExit, match="network unreachable"):
        hook.fetch(tmp_path / "vendor")
    assert not (tmp_path / "vendor").exists()


@pytest.mark.parametrize("name", ["vendor/tabler.min.css", "vendor/htmx.min.js", *OURS])
def test_no_asset_asks_another_host_for_anything(name: str) -> None:
    text = (static_dir() / name).read_text()
    assert not re.search(r"url\(\s*[\"']?(https?:)?//", text)
    assert "@import" not in text
    assert "sourceMappingURL" not in text
    if name in OURS:
        addresses = re.findall(r"https?://[^\s\"']+", text)
        assert all(address == "http://www.w3.org/2000/svg" for address in addresses)
