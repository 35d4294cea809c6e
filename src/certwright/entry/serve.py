"""`certwright serve`: database, migrations, first-start objects, web and worker, until a signal says stop.

One process by default. `processes` adds web processes on the same socket, see `entry.siblings`; `role` runs web or
worker alone on an external or the same embedded database; see `entry.split` and `entry.signing` for CA keys in a
process apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import structlog
import uvicorn
from pydantic import SecretStr

from certwright.entry import checks, wiring
from certwright.entry.children import Child, clean_environment
from certwright.entry.lifeline import handed, loop_factory, say, stop_event
from certwright.entry.one_write import OneWrite, hold_little
from certwright.entry.responder import ChallengeResponder
from certwright.entry.siblings import Siblings, fork
from certwright.entry.turns import Shares, TurnByTurn
from certwright.entry.web_certificate import WebCertificate
from certwright.kernel.problems import Invalid, Problem, Unavailable
from certwright.platform import roles
from certwright.platform.config import Settings, host_and_port
from certwright.platform.jobs import Worker
from certwright.platform.memory import freeze_loaded, give_back_large_blocks, give_back_regularly
from certwright.platform.migrations import migrate
from certwright.platform.postgres import APP, SIGNER, EmbeddedPostgres
from certwright.platform.services import Services
from certwright.platform.telemetry import configure_logging
from certwright.rooms import accounts, authorities
from certwright.x509.certificates import to_pem

if TYPE_CHECKING:
    from certwright.entry.status_listener import StatusListener

log = structlog.get_logger(__name__)

Role = Literal["all", "web", "worker"]

# How long requests may take to finish after a stop signal, in seconds.
_GRACE = 5
_LOOK_AT_DATABASE_EVERY = 5.0
# Request lines of vendor-compatible doors come up to this long (bytes).
_LONGEST_REQUEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ground:
    """The database under an installation. `url` is the owner's; `app_url` and `signer_url` are those of the roles for
    processes that do only a part, where there are such."""

    url: str
    embedded: EmbeddedPostgres | None = None
    app_url: str | None = None
    signer_url: str | None = None


@asynccontextmanager
async def ground(settings: Settings, *, apart: bool = False) -> AsyncIterator[Ground]:
    """The settings' database, or the embedded one, started and given back as needed; `apart` with the roles of a split
    installation. Raises Invalid `split_needs_roles`."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    app_url, signer_url = _url(settings.app_database_url), _url(settings.signer_database_url)
    if settings.database_url is not None:
        if apart and (app_url is None or signer_url is None):
            raise Invalid(
                "split_needs_roles", "With an external database, --split needs two more database roles.",
                field="CERTWRIGHT_APP_DATABASE_URL",
                fix="Make them, and set CERTWRIGHT_APP_DATABASE_URL and CERTWRIGHT_SIGNER_DATABASE_URL: see the page "
                "Signing apart of the guide.",
            )  # fmt: skip
        yield Ground(settings.database_url.get_secret_value(), None, app_url, signer_url)
        return
    embedded = EmbeddedPostgres(settings.data_dir / "postgres", passwords=settings.data_dir / "signing" / "pgpass")
    await embedded.start()
    keeper = asyncio.create_task(_keep_alive(embedded))
    try:
        urls = await embedded.require_passwords(APP, SIGNER) if apart else {}
        yield Ground((await embedded.start()).url, embedded, urls.get(APP), urls.get(SIGNER))
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await embedded.stop()


def _url(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@asynccontextmanager
async def owners_services(settings: Settings, on: Ground, *, prepared: bool = False) -> AsyncIterator[Services]:
    """Services of the database's owner, who opens CA keys, too: on a migrated database, whose roles may do theirs.
    Where another process `prepared` it and goes on serving, nothing of that is done again: programs that were
    exchanged meanwhile would change the schema below it. Raises then Unavailable `schema_outdated`."""
    services = await wiring.build(settings, database_url=on.url, signs=True)
    try:
        if prepared:
            await checks.require_schema(services)
        else:
            await _prepare(services, on)
        await checks.check_keyring(services)
        await checks.check_ca_keyring(services)
        yield services
    finally:
        await wiring.aclose(services)


async def _prepare(services: Services, on: Ground) -> None:
    await migrate(services.db)
    if on.app_url is not None and on.signer_url is not None:
        app, signer = (urlsplit(url).username or "" for url in (on.app_url, on.signer_url))
        await roles.grant(
            services.db, app=app, signer=signer, hidden=authorities.ca_keys.c.sealed,
            rights=authorities.SIGNER_RIGHTS,
        )  # fmt: skip
    if on.embedded is not None:
        await _take_over(services, on.embedded)


@asynccontextmanager
async def _guests_services(settings: Settings) -> AsyncIterator[Services]:
    """Services of a process that has others sign, with a database role that couldn't. Raises Invalid
    `database_url_missing`, Unavailable `schema_outdated`, `database_role_too_strong`."""
    services = await wiring.build(settings)
    try:
        await checks.require_schema(services)
        await roles.refuse_if_able(services.db, [authorities.ca_keys.c.sealed])
        await checks.check_keyring(services)
        yield services
    finally:
        await wiring.aclose(services)


@asynccontextmanager
async def running_services(
    settings: Settings, *, owner: bool = False, prepared: bool = False
) -> AsyncIterator[Services]:
    """Services of the database's owner, or of a guest where the settings name a signing process, unless `owner`;
    `prepared` as in `owners_services`."""
    if settings.signer_socket is not None and not owner:
        async with _guests_services(settings) as services:
            yield services
    else:
        async with ground(settings) as on, owners_services(settings, on, prepared=prepared) as services:
            yield services


async def _take_over(services: Services, embedded: EmbeddedPostgres) -> None:
    """Every worker on the embedded database counts as its user, by a kernel lock that dies with it. So when there is no
    other user, whoever held a lease is dead, and its work needn't wait until the lease runs out."""
    async with embedded.while_alone() as alone:
        ended = await services.jobs.take_over(services.db) if alone else 0
    if ended:
        log.info("took over from a worker that was killed", steps=ended)


async def _keep_alive(embedded: EmbeddedPostgres) -> None:
    """A database that was killed comes back by itself; what can't be mended is said and tried again."""
    while True:
        await asyncio.sleep(_LOOK_AT_DATABASE_EVERY)
        try:
            if await embedded.revive():
                log.warning("the embedded PostgreSQL had stopped and was started again")
        except Problem as problem:
            log.error("the embedded PostgreSQL does not start", code=problem.code, reason=problem.message)


async def first_start(services: Services) -> None:
    """What every installation has: an account with a project, a root and an issuing CA; and lists that know where they
    are found. Content to find it so."""
    account = await accounts.ensure_account(services)
    async with services.db.begin() as tx:
        project_id = await accounts.store.default_project(tx, account.id)
    await authorities.ensure_builtin(services, account.id, project_id)
    await authorities.follow_address(services)
    await _write_root(services)


async def _write_root(services: Services) -> None:
    """Keep the roots' certificates beside the data, where the CLI of this machine looks for them."""
    async with services.db.begin() as tx:
        ders = await authorities.root_ders(tx)
    text = "".join(to_pem(der) for der in ders)
    path = services.settings.data_dir / "root.pem"
    if not path.exists() or path.read_text() != text:
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(path)


def main(
    settings: Settings,
    *,
    role: Role = "all",
    processes: int = 1,
    socket_fd: int | None = None,
    split: bool = False,
    lifeline: int | None = None,
    leads: bool = False,
    shares: Shares | None = None,
) -> None:
    """Run until SIGINT or SIGTERM. Raises Problem with what the installation needs before it can start.

    `split` starts processes apart. Those have a `lifeline`, a descriptor whose other end their parent holds: they run
    until it is closed, and signals mean nothing to them. Of several web processes on one socket the one that `leads`
    has the listeners there is one of, and by `shares` they share out connections.
    """
    configure_logging(format=settings.log_format, level=settings.log_level)
    give_back_large_blocks()
    if split:
        from certwright.entry.split import supervise

        _run(supervise(settings, processes))
        return
    leads = leads or socket_fd is None
    unbound: socket.socket | None = None
    siblings: Siblings | None = None
    if processes > 1 and role != "worker" and socket_fd is None:
        from certwright.entry.app import load

        load()
        unbound, shares = _new_listener(settings), Shares.made(processes)
        successor = partial(_successor, settings, unbound.fileno(), shares)
        forked = fork(processes - 1, successor)
        if isinstance(forked, Siblings):
            siblings = forked
        elif forked.may_serve():
            role, socket_fd, lifeline, leads = "web", unbound.detach(), forked.lifeline, False
            shares.belong_to(forked.number)
        else:
            return
    try:
        _run(
            _serve(settings, role, socket_fd, lifeline, leads=leads, unbound=unbound, siblings=siblings, shares=shares)
        )
    finally:
        if siblings is not None:
            siblings.cut()  # also those that wait for a start that failed


def _successor(settings: Settings, listener: int, shares: Shares, number: int) -> Child:
    return web_child(number, listener, shares, handed(settings, []), environment=clean_environment())


def web_child(
    number: int, listener: int, shares: Shares, said: bytes, *, environment: dict[str, str],
    held: Sequence[int] = (), leads: bool = False,
) -> Child:  # fmt: skip
    """A web process with a number (from 0) among those that share the `listener`. `said` is as `lifeline.handed` makes
    it, `held` what it shall hold besides."""
    arguments = ["--role", "web", "--socket-fd", str(listener), "--shares-fd", str(shares.descriptor)]
    arguments += ["--number", str(number), *(["--leads"] if leads else [])]
    return Child(
        f"web {number + 1}", arguments, said, (listener, shares.descriptor, *held), environment=environment,
        when_ended=partial(shares.gone, number),
    )  # fmt: skip


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work)


async def _serve(
    settings: Settings,
    role: Role,
    socket_fd: int | None,
    lifeline: int | None,
    *,
    leads: bool,
    unbound: socket.socket | None,
    siblings: Siblings | None,
    shares: Shares | None,
) -> None:
    is_alone = socket_fd is None and lifeline is None
    stopping = stop_event(lifeline, quiet=not is_alone)
    async with running_services(settings, prepared=lifeline is not None) as services:
        if lifeline is None:
            await first_start(services)
        tasks: list[asyncio.Task[None]] = []
        worker = Worker(services) if role in ("all", "worker") else None
        server: _Server | None = None
        beside = [asyncio.create_task(give_back_regularly(), name="memory")]
        responder: ChallengeResponder | None = None
        status: StatusListener | None = None
        try:
            # One process of this machine answers.
            if settings.tls_alpn_listen is not None and role in ("all", "web") and leads:
                responder = ChallengeResponder(services)
                await responder.start()
            if settings.status_listen is not None and role in ("all", "web") and leads:
                from certwright.entry.status_listener import StatusListener

                status = StatusListener(services)
                await status.start()
            if worker is not None:
                tasks.append(asyncio.create_task(worker.run(), name="worker"))
            if role in ("all", "web"):
                listener = listen(settings, unbound) if socket_fd is None else socket.socket(fileno=socket_fd)
                certificate = WebCertificate(services)
                await certificate.load()
                server = _Server(_uvicorn_config(services, certificate.context), shares)
                tasks.append(asyncio.create_task(server.serve(sockets=[listener]), name="web"))
                beside.append(asyncio.create_task(certificate.keep_fresh(), name="web certificate"))
            if siblings is not None:
                siblings.let_serve()
                beside.append(asyncio.create_task(siblings.watch(), name="siblings"))
            _settle()
            if is_alone:
                await greet(services, role)
            waiting = asyncio.create_task(stopping.wait())
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {waiting}:
                task.result()  # a part that ended by itself takes the product down with its error
            waiting.cancel()
        finally:
            for task in beside:
                task.cancel()
            await _stop(server, worker, tasks, siblings)
            if responder is not None:
                await responder.stop()
            if status is not None:
                await status.stop()
    if is_alone:
        say("stopped")


def _settle() -> None:
    freeze_loaded()
    gc.set_threshold(20_000, 20, 50)


async def _stop(
    server: _Server | None, worker: Worker | None, tasks: list[asyncio.Task[None]], siblings: Siblings | None
) -> None:
    if siblings is not None:
        siblings.cut()
    if server is not None:
        server.should_exit = True
    if worker is not None:
        worker.stop()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if siblings is not None:
        await siblings.gone(_GRACE)


class _Server(uvicorn.Server):
    """Leaves signals to us: one stop must end web, worker and database in order. With `shares`, several processes share
    the listeners out among them."""

    def __init__(self, config: uvicorn.Config, shares: Shares | None = None) -> None:
        super().__init__(config)
        self._shares = shares

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._shares is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for listener in sockets or []:
            server = TurnByTurn(listener, self._shares, self._protocol, self.config.ssl)
            server.start(self.config.backlog)
            # To uvicorn all that matters of a server is that it can be closed.
            self.servers.append(server)  # type: ignore[arg-type]

    def _protocol(self) -> OneWrite:
        assert self._shares is not None
        protocol = OneWrite(self.config, self.server_state, self.lifespan.state)
        protocol.at_the_end = self._shares.one_less
        return protocol

    # uvicorn gives this hook no type we could repeat.
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _uvicorn_config(services: Services, context: ssl.SSLContext) -> uvicorn.Config:
    from certwright.entry.app import create_app

    return uvicorn.Config(
        create_app(services),
        http=OneWrite,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        # Uvicorn would believe whoever connects from this machine; entry.forwarded believes whom the operator named.
        proxy_headers=False,
        h11_max_incomplete_event_size=_LONGEST_REQUEST_LINE,
        timeout_graceful_shutdown=_GRACE,
        ssl_context_factory=lambda *_: context,
    )


def _new_listener(settings: Settings) -> socket.socket:
    host, _ = host_and_port(settings.listen)
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def listen(settings: Settings, unbound: socket.socket | None = None) -> socket.socket:
    """On the settings' address, with a socket made before where there is one. Raises Unavailable `listen_failed`."""
    listener = unbound or _new_listener(settings)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hold_little(listener)
    try:
        listener.bind(host_and_port(settings.listen))
    except OSError as error:
        listener.close()
        raise Unavailable(
            "listen_failed",
            f"The address {settings.listen} can't be listened on: {error.strerror}.",
            field="CERTWRIGHT_LISTEN",
            fix="Stop what uses it, or set CERTWRIGHT_LISTEN to another HOST:PORT.",
        ) from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


async def greet(services: Services, role: Role) -> None:
    """What somebody at the terminal needs: where it is, and the first time how to get in."""
    if role == "worker":
        log.info("worker ready")
        return
    lines = [f"Certwright is ready at {services.settings.base_url}"]
    link = await accounts.fresh_setup_link(services)
    if link is not None:
        lines.append("Set up the first administrator (one-time link, good for 24 hours):")
        lines.append(f"  {setup_url(services.settings, link.secret)}")
        lines.append(f"Its certificate is signed by your own new root: {services.settings.data_dir / 'root.pem'}")
    # Straight to the terminal: a log line would keep the link, and this is for the person who started it.
    print("\n".join(lines), flush=True)


def setup_url(settings: Settings, secret: str) -> str:
    """The one-time link for the first administrator; its secret is stored only as a hash."""
    return f"{settings.base_url}/setup?token={secret}"
