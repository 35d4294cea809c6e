"""The database: one metadata, transactions that know they are open, and the columns every stepped table has.

An outside call while a transaction is open would hold locks for as long as a stranger likes; `assert_no_transaction`
makes that mistake loud instead of slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from certwright.kernel.problems import Invalid, Unavailable

Tx = AsyncConnection
"""A connection inside `Database.begin()`."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_open_transactions: ContextVar[int] = ContextVar("open_transactions", default=0)


def id_column(name: str = "id", *args: Any, **kwargs: Any) -> sa.Column[str]:
    """Ids compare as bytes: they sort by age whatever the database's locale."""
    return sa.Column(name, sa.Text(collation="C"), *args, **kwargs)


def at_column(name: str, **kwargs: Any) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), **kwargs)


def json_column(name: str, **kwargs: Any) -> sa.Column[Any]:
    return sa.Column(name, JSONB(none_as_null=True), **kwargs)


def tenant_columns() -> list[sa.Column[Any]]:
    """Every tenant-owned row carries these; the filter on them lives in the access room alone."""
    return [
        id_column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
        id_column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    ]


def step_columns() -> list[sa.Column[Any]]:
    """What a table needs so that its rows move by steps (see platform.jobs)."""
    return [
        at_column("next_step_at"),
        at_column("step_lease_until"),
        sa.Column("step_attempts", sa.Integer, nullable=False, server_default="0"),
        json_column("step_problem"),
    ]


def assert_no_transaction() -> None:
    """Call before any outside call; an open transaction here is a mistake in our code, not a user's problem."""
    if _open_transactions.get():
        raise RuntimeError("an outside call was about to be made while a database transaction is open")


# 53: insufficient resources (disk full, too many connections); 57P: shutting down; 08: connection.
_NO_SERVICE = ("53", "57P", "08")
# All that the product says to the database in daily work; asyncpg's own 100 would make it prepare some again and again.
_PREPARED = 400
_OUT_OF_DEADLOCKS = 2
# Seconds for a connection to be made, or to become free.
_PATIENCE = 10
# More statements than these a process has hardly ever under way at once: each takes a fraction of a millisecond.
_STRAIGHT = 4
_SERVER_SETTINGS = {"application_name": "certwright", "timezone": "UTC"}


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def unnested(name: str, **columns: tuple[sa.types.TypeEngine[Any], Sequence[Any]]) -> Any:
    """Rows of values as a FROM item: `unnested("seen", id=(sa.Text(), ids), ms=(sa.Float(), times)).c.id`.

    One statement whatever the number of rows, so that it is prepared once.
    """
    arrays = [sa.cast(list(values), ARRAY(kind)) for kind, values in columns.values()]
    return sa.func.unnest(*arrays).table_valued(*columns, name=name).render_derived()


def is_one_of(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """Like `column.in_(values)`, as one statement whatever the number of values: for statements said often."""
    return column == sa.any_(sa.cast(list(values), ARRAY(sa.Text)))


class Said:
    """A statement said many times a second outside transactions: compiled once and handed to asyncpg as it is, which
    costs a quarter of what SQLAlchemy's way costs. Its parameters are `sa.bindparam`s; rows come as plain objects."""

    def __init__(self, statement: sa.sql.expression.Executable) -> None:
        self._statement = statement
        self._made: tuple[str, tuple[str, ...], Mapping[str, Any]] | None = None

    async def rows(self, db: Database, **values: Any) -> list[Any]:
        """Every row; JSON is read by the connection's own codec. Raises Unavailable."""
        sql, names, fixed = self._made or self._make(db)
        found = await db.fetch(sql, [values[name] if name in values else fixed[name] for name in names])
        return [SimpleNamespace(**row) for row in found]

    async def row(self, db: Database, **values: Any) -> Any:
        """The one row there can be, or None."""
        rows = await self.rows(db, **values)
        return rows[0] if rows else None

    def _make(self, db: Database) -> tuple[str, tuple[str, ...], Mapping[str, Any]]:
        # Executable says nothing of compile(), which every statement has.
        compiled: Any = self._statement.compile(dialect=db.engine.dialect)  # type: ignore[attr-defined]
        fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        self._made = (str(compiled), tuple(compiled.positiontup or ()), fixed)
        return self._made


class _Straight:
    """A few connections for single statements, without SQLAlchemy: the one used last is used next."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._turns = asyncio.Semaphore(_STRAIGHT)
        self._idle: list[asyncpg.Connection[Any]] = []
        self._closed = False

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        """Raises Unavailable, and asyncpg's errors for what the statement does."""
        try:
            if self._turns.locked():
                async with asyncio.timeout(_PATIENCE):
                    await self._turns.acquire()
            else:
                await self._turns.acquire()
        except TimeoutError as error:
            raise _unavailable(error) from error
        try:
            for _ in range(_OUT_OF_DEADLOCKS):
                # Undone as a whole for somebody else's sake, it is said again.
                with suppress(asyncpg.DeadlockDetectedError):
                    return await self._fetch(sql, arguments)
            return await self._fetch(sql, arguments)
        finally:
            self._turns.release()

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        connection, healthy = None, False
        try:
            connection = await self._connection()
            found: list[Any] = await connection.fetch(sql, *arguments)
            healthy = True
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if isinstance(error, asyncpg.IntegrityConstraintViolationError):
                healthy = True
                # The same for callers as in a transaction.
                raise IntegrityError(sql, None, error, hide_parameters=True) from error
            sqlstate = getattr(error, "sqlstate", None) or ""
            healthy = connection is not None and not connection.is_closed() and not sqlstate.startswith(_NO_SERVICE)
            if healthy:
                raise
            raise _unavailable(error) from error
        # asyncpg is in a muddle where the server's farewell has come, and the end of the connection hasn't.
        except (asyncpg.InternalClientError, OSError, TimeoutError) as error:
            raise _unavailable(error) from error
        finally:
            # One that was left in the middle of an answer, by whatever, is of no more use.
            if connection is not None and healthy and not self._closed:
                self._idle.append(connection)
            elif connection is not None:
                connection.terminate()
        return found

    async def _connection(self) -> asyncpg.Connection[Any]:
        while self._idle:
            if not (connection := self._idle.pop()).is_closed():
                return connection
        connection = await asyncpg.connect(
            self._dsn, timeout=_PATIENCE, server_settings=_SERVER_SETTINGS, statement_cache_size=_PREPARED
        )
        ready = False
        try:
            async with asyncio.timeout(_PATIENCE):
                for kind in ("json", "jsonb"):
                    await connection.set_type_codec(
                        kind, schema="pg_catalog", encoder=_to_json, decoder=orjson.loads, format="text"
                    )
            ready = True
        finally:
            if not ready:
                connection.terminate()
        return connection

    def close(self) -> None:
        """Nobody waits for anything any more: a connection that is in use ends when its statement does."""
        self._closed = True
        while self._idle:
            self._idle.pop().terminate()


class Database:
    """The pool and the two ways to use it. URL: `postgresql://…` as asyncpg understands it."""

    def __init__(self, url: str, *, pool_size: int = 12) -> None:
        split = urlsplit(url)
        if split.scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
            raise Invalid(
                "database_url_invalid", "The database address is not a postgresql:// URL.",
                field="CERTWRIGHT_DATABASE_URL", fix="Write postgresql://user:password@host/database.",
            )  # fmt: skip
        self.dsn = urlunsplit(split._replace(scheme="postgresql"))
        engine = create_async_engine(
            urlunsplit(split._replace(scheme="postgresql+asyncpg")),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_PATIENCE,
            pool_pre_ping=False,
            # The connections used last know the statements already; the others are for the rush hour.
            pool_use_lifo=True,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            connect_args={
                "server_settings": _SERVER_SETTINGS,
                "timeout": _PATIENCE,
                "prepared_statement_cache_size": _PREPARED,
            },
            hide_parameters=True,
        )
        self.run_on(engine)
        self._straight = _Straight(self.dsn)

    def run_on(self, engine: AsyncEngine) -> None:
        """Take the connections of this engine from now on."""
        self.engine = engine
        # The same pool, without BEGIN and COMMIT.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._of_one_moment = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def begin(self) -> AbstractAsyncContextManager[Tx]:
        """One transaction: commits at the end, rolls back on any exception. Each statement sees what was committed
        before it. Raises Unavailable."""
        return self._begin(self.engine)

    def moment(self) -> AbstractAsyncContextManager[Tx]:
        """For SELECTs whose answers make one document: all see what was committed before the first. Raises
        Unavailable."""
        return self._begin(self._of_one_moment)

    @asynccontextmanager
    async def _begin(self, engine: AsyncEngine) -> AsyncIterator[Tx]:
        try:
            async with engine.begin() as tx:
                token = _open_transactions.set(_open_transactions.get() + 1)
                try:
                    yield tx
                finally:
                    _open_transactions.reset(token)
        except (OperationalError, InterfaceError, OSError, TimeoutError, sa.exc.TimeoutError) as error:
            raise _unavailable(error) from error
        except DBAPIError as error:
            raise_if_unavailable(error)
            raise

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """For SELECTs that needn't see one moment: no transaction, so two round trips fewer. Raises Unavailable."""
        return self.single()

    @asynccontextmanager
    async def single(self) -> AsyncIterator[Tx]:
        """Each statement is a transaction by itself, committed when it returns. Raises Unavailable."""
        try:
            async with self._reading.connect() as connection:
                yield connection
        except (OperationalError, InterfaceError, OSError, TimeoutError, sa.exc.TimeoutError) as error:
            raise _unavailable(error) from error
        except DBAPIError as error:
            raise_if_unavailable(error)
            raise

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """The rows of one statement in PostgreSQL's own words ($1, $2 …), a transaction by itself; for `Said`."""
        return await self._straight.fetch(sql, arguments)

    async def close(self) -> None:
        self._straight.close()
        # As new, like the engine's pool is: whatever loop comes next.
        self._straight = _Straight(self.dsn)
        await self.engine.dispose()

    async def connect_raw(self) -> asyncpg.Connection[Any]:
        """A connection of its own for LISTEN/NOTIFY; the caller closes it."""
        return await asyncpg.connect(self.dsn, timeout=10, server_settings={"application_name": "certwright jobs"})


def raise_if_unavailable(error: DBAPIError) -> None:
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate.startswith(_NO_SERVICE) or error.connection_invalidated:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
    if sqlstate == "53100":
        return Unavailable(
            "database_disk_full",
            "The database can't write: its disk is full.",
            fix="Free space on the database's disk.",
        )
    return Unavailable(
        "database_unavailable",
        "The database can't be reached at the moment.",
        fix="Wait a moment; if it lasts, check that PostgreSQL runs and that CERTWRIGHT_DATABASE_URL is right.",
    )
