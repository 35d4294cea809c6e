"""An installation with ACME clients, for kills: `certwright serve` in lives that end with SIGKILL, its own embedded
PostgreSQL, a web site that answers for its clients' names, and the places at which a life may end.

A place in the database is where a statement has just written a row, or where a transaction is about to commit. A
trigger of the test's own stops the n-th to come by; the process is killed while it stands there, and then it may go
on, as a database does that nobody told of the death: what was a statement of a transaction is rolled back, and what was
a commit is one that nobody ever heard of. The product knows nothing of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from tests.servers.ports import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; only reached when something is broken

_LOCK = 7_733_001
_TABLES = (
    "acme_accounts", "acme_authorizations", "acme_eab_keys", "acme_orders", "acme_used_nonces", "audit_events",
    "crl_shards", "events", "issued_certificates",
)  # fmt: skip
_STOPS = """
CREATE TABLE test_awaited (place text NOT NULL, n bigint NOT NULL);
CREATE SEQUENCE test_passed;
CREATE FUNCTION test_pass() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    awaited test_awaited;
    here jsonb := to_jsonb(NEW);
    place text;
BEGIN
    SELECT * INTO awaited FROM test_awaited;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    place := concat_ws(
        ' ', TG_ARGV[0], lower(TG_OP), TG_TABLE_NAME, here->>'status', here->>'action',
        CASE WHEN here->>'replaces' IS NOT NULL THEN 'replacing' END,
        CASE WHEN here->>'revoked_at' IS NOT NULL THEN 'revoked' END
    );
    IF place NOT LIKE awaited.place THEN
        RETURN NULL;
    END IF;
    IF TG_ARGV[0] = 'at the commit of' THEN
        -- However many rows a transaction writes, it commits once.
        IF current_setting('test.commits', true) = 'yes' THEN
            RETURN NULL;
        END IF;
        PERFORM set_config('test.commits', 'yes', true);
    END IF;
    IF nextval('test_passed') = awaited.n THEN
        PERFORM set_config('application_name', place, true);
        PERFORM pg_advisory_xact_lock_shared({lock});
    END IF;
    RETURN NULL;
END $$;
""".replace("{lock}", str(_LOCK))
_STOP = """
CREATE TRIGGER test_after AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION test_pass('after');
CREATE CONSTRAINT TRIGGER test_commit AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION test_pass('at the commit of');
"""
_STANDING = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objid = $1 AND NOT l.granted
"""
_OTHERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


async def until(fact: Callable[[], Awaitable[T]]) -> T:
    """What it answers, once that is something. There is no event to wait for: another process makes it true."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await fact()):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"it never came about: {fact.__qualname__}") from None
    return found


class Site:
    """Answers http-01 for every name below `localhost`, but for one challenge: who asks there dies unanswered."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left: int | None = None
        """How many looks there are until the one that isn't answered."""
        self.held: bytes | None = None
        self.looked = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def await_look(self, n: int | None) -> None:
        """The `n`th from now on isn't answered, nor whoever asks there again; or each is."""
        self.left, self.held = n, None
        self.looked.clear()

    def answer_all(self) -> None:
        """From now on, whether or not the awaited look has come."""
        self.left = self.held = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1]
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    self.held = path
                    self.looked.set()
            if path == self.held:
                # Until the one who asked is gone.
                await reader.read()
                writer.close()
                return
            body = self.files.get(path.decode(), b"")
            status = "200 OK" if body else "404 Not Found"
            said = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(said.encode() + body)
            await writer.drain()
        writer.close()

    # what its clients do

    def publish(self, kind: str, name: str, token: str, said: str) -> None:
        assert kind == "http-01"
        self.files[f"/.well-known/acme-challenge/{token}"] = said.encode()

    async def passing(self, look: int) -> None:
        await asyncio.sleep(0.05)


@dataclass
class Installation:
    """`start` and `kill` as often as wanted; `query` asks its database beside it."""

    home: Path
    site: Site
    url: str = ""
    _harness: subprocess.Popen[str] | None = None
    _first: int = 0
    _use: int | None = None
    _database: asyncpg.Connection[Any] | None = None
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.home / "log"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def root(self) -> Path:
        return self.data / "root.pem"

    @property
    def database_url(self) -> str:
        return f"postgresql://certwright@/certwright?host={self.data / 'postgres' / 'cluster'}"

    def open(self) -> None:
        listen = f"127.0.2.1:{free_port('127.0.2.1')}"
        self.url = f"https://{listen}"
        own = {
            "DATA_DIR": str(self.data), "LISTEN": listen, "LOG_FORMAT": "json", "LOG_LEVEL": "warning",
            "ALLOWED_NETWORKS": "127.0.0.0/8", "VALIDATION_HTTP_PORT": str(self.site.port), "STEP_LEASE": "1",
            "SWEEP_INTERVAL": "0.1",
        }  # fmt: skip
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CERTWRIGHT_")}
        environ |= {f"CERTWRIGHT_{key}": value for key, value in own.items()}
        environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        with (self.home / "harness.log").open("ab") as errors:
            self._harness = subprocess.Popen(
                [sys.executable, "-m", "tests.acme_server.serve_harness", str(self._log)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=environ, text=True,
            )  # fmt: skip

    async def start(self, awaited: str = "Certwright is ready at", *, processes: int = 1) -> str:
        """What it prints after `awaited`, once it says that."""
        self._tell(f"start --processes {processes}")
        self._first = int(await asyncio.to_thread(self._hear, "process "))
        said = await asyncio.to_thread(self._hear, awaited)
        self._leave_database()
        return said

    def kill_siblings(self) -> int:
        """SIGKILL for the web processes beside the first one, which goes on; how many there were."""
        found = 0
        for pid in Path(f"/proc/{self._first}/task/{self._first}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                # Forked from the harness, or in the place of one that was.
                if {b"tests.acme_server.serve_harness", b"--socket-fd"} & set(words):
                    os.kill(int(pid), signal.SIGKILL)
                    found += 1
        return found

    async def kill(self, *, with_database: bool = False, only_first: bool = False) -> None:
        """SIGKILL; then nothing of it is left but what is on disk, and statements that were under way are over. Killed
        `only_first`, the others finish what they are at."""
        if only_first:
            # The last to end in order would stop PostgreSQL: until the next start somebody uses it still.
            self._use = os.open(self.data / "postgres" / "users.lock", os.O_RDWR)
            fcntl.flock(self._use, fcntl.LOCK_SH)
        self._tell("kill-first" if only_first else "kill")
        await asyncio.to_thread(self._hear, "ended")
        # One that took the place of another may not have begun.
        await until(self._nobody_listens)
        if with_database:
            pid = int((self.data / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            self._hang_up()
        else:
            await self.let_go()
            await until(self._nobody_else)

    def _leave_database(self) -> None:
        if self._use is not None:
            os.close(self._use)
            self._use = None

    async def stop(self) -> None:
        self._hang_up()
        self._tell("stop")
        await asyncio.to_thread(self._hear, "ended")

    def close(self) -> None:
        """Whatever happened: nothing of it goes on."""
        # What stands at a stop waits for this connection.
        self._hang_up()
        self._leave_database()
        if self._harness is not None:
            assert self._harness.stdin is not None
            assert self._harness.stdout is not None
            self._harness.stdin.close()
            self._harness.wait(PATIENCE)
            self._harness.stdout.close()

    def _tell(self, word: str) -> None:
        assert self._harness is not None
        assert self._harness.stdin is not None
        self._harness.stdin.write(f"{word}\n")
        self._harness.stdin.flush()

    def _hear(self, awaited: str) -> str:
        assert self._harness is not None
        assert self._harness.stdout is not None
        for line in self._harness.stdout:
            _, found, rest = line.strip().partition(awaited)
            if found:
                return rest
        raise AssertionError((self.home / "harness.log").read_text() + self.log()[-2000:])

    def log(self) -> str:
        """What it said in all its lives."""
        return self._log.read_text() if self._log.exists() else ""

    # --- the database, looked at from beside --------------------------------------------------------------------------

    async def query(self, sql: str, *values: object) -> list[Any]:
        return list(await (await self._connected()).fetch(sql, *values))

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._database is None or self._database.is_closed():
            self._database = await asyncpg.connect(self.database_url, timeout=PATIENCE)
        return self._database

    def _hang_up(self) -> None:
        if self._database is not None:
            self._database.terminate()
            self._database = None

    async def _nobody_else(self) -> bool:
        return not await self.query(_OTHERS)

    async def _nobody_listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(*self.url.removeprefix("https://").split(":"))
        except ConnectionError:
            return True
        writer.close()
        return False

    # --- places -------------------------------------------------------------------------------------------------------

    async def make_stops(self) -> None:
        connection = await self._connected()
        await connection.execute(_STOPS)
        for table in _TABLES:
            # Each by itself: the product is at work, and takes locks on several in an order of its own.
            await connection.execute(_STOP.format(table=table))

    async def await_place(self, place: str, n: int) -> None:
        """From now on the `n`th to come by is stopped; `place` is how a pattern of LIKE begins."""
        connection = await self._connected()
        await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
        await connection.execute("SELECT setval('test_passed', 1, false)")
        await connection.execute("INSERT INTO test_awaited (place, n) VALUES ($1, $2)", f"{place}%", n)

    async def stands_at(self) -> str:
        """Where, once there is one that stands."""

        async def look() -> str:
            found = await self.query(_STANDING, _LOCK)
            return str(found[0]["application_name"]) if found else ""

        return await until(look)

    async def let_go(self) -> None:
        connection = await self._connected()
        await connection.execute("DELETE FROM test_awaited")
        await connection.execute("SELECT pg_advisory_unlock_all()")
