"""The demonstration, run as people run it: what its last line says, and that nothing of it stays behind."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.servers.programs import require

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src/certwright/entry/demo"


def _start(tmp_path: Path, *arguments: str, path: str | None = None) -> subprocess.Popen[str]:
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    if path is not None:
        environ["PATH"] = path
    return subprocess.Popen(
        [sys.executable, "-m", "certwright.entry.demo", *arguments], env=environ, cwd=tmp_path, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _left(tmp_path: Path) -> list[str]:
    """Processes that work below the demonstration's directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(tmp_path) in words or str(process.info["cwd"] or "").startswith(str(tmp_path / "certwright-demo")):
            found.append(words)
    return found


@pytest.mark.parametrize(("method", "programs"), [("file", ("nginx",)), ("dns", ("nginx", "knotd"))])
def test_the_main_job_is_done_on_real_servers(tmp_path: Path, method: str, programs: tuple[str, ...]) -> None:
    require(*programs)
    demo = _start(tmp_path, method)
    said, _ = demo.communicate(timeout=240)
    assert said.splitlines()[-1] == "demo: passed", said
    assert demo.returncode == 0
    assert " 0 failed" in said
    assert list(tmp_path.iterdir()) == []
    assert _left(tmp_path) == []


def test_stopped_half_way_it_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    require("nginx")
    demo = _start(tmp_path, "file")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "administrator" in line:
            break
    demo.send_signal(signal.SIGTERM)
    rest = demo.stdout.read().splitlines()
    demo.stdout.close()
    assert demo.wait(60) == 1
    assert rest[-1].startswith("demo: failed at ")
    assert rest[-1].endswith(": interrupted")
    assert list(tmp_path.iterdir()) == []
    assert _left(tmp_path) == []


def test_killed_it_takes_its_servers_with_it(tmp_path: Path) -> None:
    require("nginx")
    demo = _start(tmp_path, "file")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "administrator" in line:
            break
    assert _left(tmp_path)
    demo.kill()
    demo.wait(60)
    demo.stdout.close()
    deadline = time.monotonic() + 60
    while _left(tmp_path):
        assert time.monotonic() < deadline, _left(tmp_path)
        time.sleep(0.05)


def test_a_method_that_is_none_is_refused(tmp_path: Path) -> None:
    demo = _start(tmp_path, "pigeon")
    said, _ = demo.communicate(timeout=60)
    assert (demo.returncode, said.splitlines()[-1]) == (2, "demo: failed at start: DEMO is file or dns, not pigeon")


def test_the_demonstration_knows_the_public_api_only() -> None:
    imported = set()
    for file in DEMO.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    own = {name for name in imported if name.startswith("certwright")}
    allowed = ("certwright.entry.cli.", "certwright.entry.demo.")
    assert {name for name in own if not name.startswith(allowed)} == set()
