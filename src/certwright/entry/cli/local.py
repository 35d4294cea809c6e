"""Commands that work on this machine's data directory instead of the API: start, set up, verify, rotate."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from certwright.entry.cli import output
from certwright.entry.cli.common import Everything, Json, Limit, Yes, confirm, group, show_list, show_one
from certwright.entry.cli.errors import FAILED, USAGE, CliError

if TYPE_CHECKING:
    from certwright.platform.services import Services
    from certwright.rooms.audit import Head

T = TypeVar("T")

audit = group("audit", "What was done, and whether the record of it is whole.")
keys = group("keys", "The key that encrypts all private keys and credentials.")

Listen = Annotated[str | None, typer.Option(help="HOST:PORT to serve HTTPS on.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of database, keyring and root certificate.")]
Config = Annotated[Path | None, typer.Option(help="Settings file (TOML).")]


class Role(StrEnum):
    ALL = "all"
    WEB = "web"
    WORKER = "worker"
    SIGNER = "signer"


def _settle(listen: str | None, data_dir: Path | None, config: Path | None) -> None:
    """Options become settings of the environment, which processes started from here inherit."""
    for variable, value in (("LISTEN", listen), ("DATA_DIR", data_dir), ("CONFIG", config)):
        if value is not None:
            os.environ[f"CERTWRIGHT_{variable}"] = str(value)


def serve(
    listen: Listen = None,
    data_dir: DataDir = None,
    config: Config = None,
    role: Annotated[Role, typer.Option(help="Web and worker in one, or one process.")] = Role.ALL,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Web processes on the same address.")] = 1,
    split: Annotated[
        bool, typer.Option("--split", help="Signing, worker and web as processes apart: only the first has CA keys.")
    ] = False,
    socket_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    handed_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    leads: Annotated[bool, typer.Option("--leads", hidden=True)] = False,
    shares_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    number: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Start the product: database, console, API and worker, until Ctrl-C."""
    _settle(listen, data_dir, config)
    from certwright.entry.lifeline import confine, take
    from certwright.platform.config import load_settings
    from certwright.platform.memory import loading

    if split and role is not Role.ALL:
        raise CliError("usage", "--split starts every role; leave --role out.", exit_code=USAGE)
    if handed_fd is None:
        settings = load_settings()
    else:
        settings, forbidden = take(handed_fd)
        confine(role.value, forbidden)
    if role is Role.SIGNER:
        with loading():
            from certwright.entry import signing

        signing.main(settings, handed_fd)
        return
    with loading():
        from certwright.entry import serve as server
        from certwright.entry.turns import Shares

    server.main(
        settings, role=cast("server.Role", role.value), processes=processes, socket_fd=socket_fd, split=split,
        lifeline=handed_fd, leads=leads, shares=None if shares_fd is None else Shares(shares_fd, number),
    )  # fmt: skip


def worker(data_dir: DataDir = None, config: Config = None) -> None:
    """Start a worker alone, beside other processes on the same database."""
    _settle(None, data_dir, config)
    from certwright.platform.config import load_settings
    from certwright.platform.memory import loading

    with loading():
        from certwright.entry import serve as server

    server.main(load_settings(), role="worker")


def setup_link(data_dir: DataDir = None, config: Config = None) -> None:
    """Print a fresh one-time link for the first administrator; only while there is none."""
    from certwright.entry.serve import first_start, setup_url
    from certwright.rooms import accounts

    async def fresh(services: Services) -> str | None:
        await first_start(services)
        link = await accounts.fresh_setup_link(services)
        return setup_url(services.settings, link.secret) if link else None

    url = _with_services(fresh, data_dir, config)
    if url is None:
        raise CliError(
            "already_set_up", "There is an administrator already.",
            "Sign in, or ask an administrator for a password link.",
        )  # fmt: skip
    output.say(url)


def _with_services(
    work: Callable[[Services], Awaitable[T]], data_dir: Path | None, config: Path | None, *, owner: bool = False
) -> T:
    """Run `work` on the data directory's database, whether the product runs or not; as its `owner` also where the
    settings name a signing process."""
    _settle(None, data_dir, config)
    import asyncio

    from certwright.platform.config import load_settings
    from certwright.platform.memory import loading
    from certwright.platform.telemetry import configure_logging

    with loading():
        from certwright.entry.serve import running_services

    configure_logging(level="warning")
    settings = load_settings()

    async def run() -> T:
        async with running_services(settings, owner=owner) as services:
            return await work(services)

    return asyncio.run(run())


def migrate(data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the database to this release's schema; `serve` does it by itself."""

    async def nothing(_: Services) -> None:
        # Services come on a migrated database.
        return

    _with_services(nothing, data_dir, config, owner=True)
    output.say("The database has this release's schema.")


# --- audit ----------------------------------------------------------------------------------------------------------


@audit.command(name="list")
def list_events(
    action: Annotated[str | None, typer.Option(help="Only this action; may end in *.")] = None,
    actor_id: Annotated[str | None, typer.Option("--actor", help="Only what this user or token did.")] = None,
    object_id: Annotated[str | None, typer.Option("--object", help="Only what was done to this object.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (2026-03-01T00:00:00Z).")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time.")] = None,
    limit: Limit = 20,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List what was done in the account, newest first."""
    columns = (("AT", "at"), ("WHO", "actor_name"), ("ACTION", "action"), ("OBJECT", "object_id"), ("ID", "id"))
    show_list(
        "/audit-events", columns, as_json=as_json, limit=limit, everything=everything, action=action,
        actor_id=actor_id, object_id=object_id, since=since, until=until,
    )  # fmt: skip


@audit.command()
def show(event: Annotated[str, typer.Argument(help="Id of the event.")], as_json: Json = False) -> None:
    """Show one event with what it changed."""
    show_one(f"/audit-events/{event}", as_json=as_json)


@audit.command()
def verify(
    noted: Annotated[
        str | None, typer.Option(help="POSITION:HASH of an earlier verification, kept outside the database.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check the whole hash chain on this machine's database. Exit code 1 when something was changed or removed."""
    from certwright.rooms import audit as room

    head = _head(noted)

    async def check(services: Services) -> room.Verdict:
        return await room.verify(services.db, now=services.clock.now(), noted=head)

    verdict = _with_services(check, data_dir, config)
    end = f"{verdict.head.position}:{verdict.head.hash}" if verdict.head else None
    if as_json:
        output.document(
            {
                "ok": verdict.ok, "sealed": verdict.sealed, "unsealed": verdict.unsealed, "head": end,
                "finding": verdict.finding, "first_bad_position": verdict.first_bad_position,
                "first_bad_event": verdict.first_bad_event, "message": verdict.explanation,
            }
        )  # fmt: skip
    else:
        output.say(f"{verdict.explanation} {verdict.sealed} events checked, {verdict.unsealed} not sealed yet.")
        if end:
            output.say(f"Newest link: {end}\nNote it outside this machine and pass it to --noted next time.")
    if not verdict.ok:
        where = f"position {verdict.first_bad_position}, event {verdict.first_bad_event}"
        output.note(f"First finding: {verdict.finding} at {where}.")
        raise typer.Exit(FAILED)


def _head(noted: str | None) -> Head | None:
    if noted is None:
        return None
    from certwright.rooms import audit as room

    position, colon, digest = noted.partition(":")
    if not colon or not position.isdigit():
        raise CliError("usage", "--noted takes POSITION:HASH.", exit_code=USAGE)
    return room.Head(int(position), digest)


# --- keys -----------------------------------------------------------------------------------------------------------


@keys.command()
def rotate(
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Destroy the old keys; older backups can't be opened any more.")
    ] = False,
    yes: Yes = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a fresh key-encryption key and put every stored secret under it, while the product runs or not."""
    from certwright.platform.vault import FileKeyKeeper
    from certwright.rooms.authorities import CaVault

    if forget_old:
        confirm(
            "Destroy the old keys? Backups of the database made before now, and the file backups of earlier rollouts, "
            "become unreadable.",
            yes=yes,
        )

    async def run(services: Services) -> list[tuple[str, int]]:
        done = []
        for vault in (services.vault, services.port(CaVault)):
            keeper = vault.keeper
            if not isinstance(keeper, FileKeyKeeper):
                raise CliError("keyring_elsewhere", "The key is kept outside this machine.", "Rotate it there.")
            fresh = keeper.rotate()
            count = await vault.rewrap(services.db)
            # Once more for what others sealed with the old key while the first pass ran.
            count += await vault.rewrap(services.db)
            if forget_old:
                keeper.forget(fresh)
            done.append((fresh, count))
        return done

    (fresh, count), (ca_fresh, ca_count) = _with_services(run, data_dir, config, owner=True)
    output.say(f"Key {fresh} is active; {count} secrets were put under it.")
    output.say(f"Key {ca_fresh} is active for CA keys; {ca_count} were put under it.")
    output.say("The old keys are gone." if forget_old else "The old keys are kept for backups; see --forget-old.")
