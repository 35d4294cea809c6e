"""The signing process as an operator runs it by himself: an external database, roles the owner gives their rights, and
web and worker that only know its socket."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as rounds
from hypothesis import strategies as st
from pydantic import SecretStr

from certwright.entry import serve, signing
from certwright.entry.children import Child, end
from certwright.entry.lifeline import handed
from certwright.entry.serve import first_start, ground, owners_services, running_services
from certwright.kernel.actor import system_actor
from certwright.kernel.problems import Invalid, NotFound, Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.platform.services import Services
from certwright.rooms import accounts, authorities
from certwright.rooms.authorities import remote
from certwright.rooms.authorities.words import CaRequest
from certwright.x509.issue import Subject
from tests.conftest import database_for

T = TypeVar("T")

BOUND = 60.0


@dataclass(frozen=True)
class Units:
    """The settings of each unit, and the signing process."""

    owner: Settings
    web: Settings
    signer: Child
    signers: Path

    def on_web(self, work: Callable[[Services], Awaitable[T]]) -> T:
        async def run() -> T:
            async with running_services(self.web) as services:
                return await work(services)

        return asyncio.run(run())


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not fact():
        assert time.monotonic() < deadline, "the awaited fact did not come about"
        time.sleep(0.02)


def with_role(url: str, role: str) -> SecretStr:
    parts = urlsplit(url)
    return SecretStr(urlunsplit(parts._replace(netloc=f"{role}@")))


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory, database_server: str) -> Iterator[Units]:
    home, mark = tmp_path_factory.mktemp("units"), secrets.token_hex(4)
    app, signer = f"app_{mark}", f"signer_{mark}"
    with database_for(database_server, "units") as url:

        async def admin(statement: str) -> None:
            connection = await asyncpg.connect(url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(admin(f"CREATE ROLE {app} LOGIN NOINHERIT; CREATE ROLE {signer} LOGIN NOINHERIT"))
        try:
            owner = Settings(
                data_dir=home / "web", database_url=SecretStr(url), database_pool=3, public_url="https://cw.example",
                app_database_url=with_role(url, app), signer_database_url=with_role(url, signer),
                ca_keyring_file=home / "signer" / "signing" / "keyring.json",
            )  # fmt: skip
            own = Settings(
                data_dir=home / "signer", database_url=with_role(url, signer), database_pool=3, log_level="warning"
            )
            web = Settings(
                data_dir=home / "web", database_url=with_role(url, app), database_pool=3,
                public_url="https://cw.example", signer_socket=signing.socket_path(own),
            )  # fmt: skip

            async def prepare() -> None:
                async with ground(owner) as on, owners_services(owner, on):
                    pass

            asyncio.run(prepare())
            child = Child("signer", ["--role", "signer"], handed(own, []), environment=dict(os.environ))
            child.start()
            try:
                until(lambda: authorities.is_signer_there(signing.socket_path(own)))
                yield Units(owner, web, child, home / "signer")
            finally:
                asyncio.run(end([child], BOUND))
                assert child.process is not None
                assert child.process.returncode == 0, "it ended by itself when its lifeline was cut"
        finally:
            asyncio.run(admin(f"DROP OWNED BY {app}, {signer}; DROP ROLE {app}; DROP ROLE {signer}"))


# --- how they speak --------------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda head, octets: remote.written(head, octets)[:300],
        st.dictionaries(st.text(max_size=9), st.integers(-9, 9)),
        st.binary(max_size=99),
    )
)
@rounds(max_examples=100)
def test_octets_are_a_frame_or_end_the_connection(sent: bytes) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(sent)
        reader.feed_eof()
        lengths = await reader.readexactly(remote.LENGTHS.size)
        head, size = await remote.read_head(reader, lengths, most=99)
        assert isinstance(head, dict)
        assert size <= 99

    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        asyncio.run(read())


@pytest.mark.parametrize("kind", [Invalid, Refused, Unavailable, NotFound])
def test_a_problem_arrives_as_it_was_raised(kind: type[Problem]) -> None:
    sent = kind("code", "A sentence.", fix="Do this.", field="name", extra={"findings": [{"code": "x"}]})
    got = remote.read_problem(remote.problem_words(sent))
    assert (type(got), got.as_dict(), str(got)) == (kind, sent.as_dict(), "A sentence.")


# --- units -----------------------------------------------------------------------------------------------------------


def test_a_first_start_makes_both_cas_of_one_transaction_over_the_socket(units: Units) -> None:
    async def start(services: Services) -> list[str]:
        await first_start(services)
        return [ca.subject for ca in await authorities.public_authorities(services)]

    subjects = units.on_web(start)
    assert len(subjects) == 2
    assert not (units.web.data_dir / "signing").exists(), "the web unit has no keyring of CA keys"
    assert units.on_web(start) == subjects


async def make(services: Services, name: str) -> authorities.Authority:
    account = await accounts.ensure_account(services)
    request = CaRequest(name, Subject(common_name=name))
    return await authorities.create_authority(services, system_actor(account.id, "test"), request)


def test_what_the_caller_rolls_back_leaves_a_key_and_nothing_else(units: Units) -> None:
    async def unused(services: Services) -> int:
        used = sa.exists().where(authorities.authorities.c.ca_key_id == authorities.ca_keys.c.id)
        async with services.db.begin() as tx:
            return int(await tx.scalar(sa.select(sa.func.count()).select_from(authorities.ca_keys).where(~used)) or 0)

    units.on_web(lambda services: make(services, "Named once"))
    before = units.on_web(unused)
    with pytest.raises(Refused) as caught:
        units.on_web(lambda services: make(services, "Named once"))
    assert caught.value.code == "ca_name_taken"
    assert units.on_web(unused) == before + 1


def test_the_state_of_the_hsm_is_asked_of_the_process_that_has_it(units: Units) -> None:
    state = units.on_web(lambda services: services.port(authorities.Signer).token_state())
    assert not state.configured
    assert isinstance(state.problem, Problem | None)


def test_an_external_database_needs_the_roles_for_a_split(units: Units) -> None:
    async def start() -> None:
        async with ground(units.owner.model_copy(update={"signer_database_url": None}), apart=True):
            pass

    with pytest.raises(Invalid) as caught:
        asyncio.run(start())
    assert caught.value.code == "split_needs_roles"


def test_web_and_worker_wait_for_the_owner_to_bring_the_schema(units: Units) -> None:
    async def owner(statement: str) -> None:
        connection = await asyncpg.connect(serve._url(units.owner.database_url))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(owner("UPDATE alembic_version SET version_num = 'old' || version_num"))
    try:
        with pytest.raises(Unavailable) as caught:
            units.on_web(first_start)
        assert caught.value.code == "schema_outdated"
    finally:
        asyncio.run(owner("UPDATE alembic_version SET version_num = replace(version_num, 'old', '')"))


def test_signals_mean_nothing_to_a_process_with_a_parent(units: Units) -> None:
    process = units.signer.process
    assert process is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    units.on_web(lambda services: make(services, "After the signals"))
    assert process.poll() is None


def test_two_signing_processes_do_not_take_each_others_socket(units: Units) -> None:
    with pytest.raises(Unavailable) as caught:
        asyncio.run(listen(units, signing.socket_path(units.owner.model_copy(update={"data_dir": units.signers}))))
    assert caught.value.code == "signer_running"
    units.on_web(lambda services: make(services, "Still the first"))


def test_a_group_nobody_made_is_said(units: Units, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        asyncio.run(listen(units, tmp_path / "socket", "no-such-group-here"))
    assert caught.value.code == "signer_group_unknown"


async def listen(units: Units, path: Path, group: str | None = None) -> None:
    """A second signing process, in this one; for a moment."""
    async with running_services(units.owner, owner=True) as services:
        server = await started(services, path, group)
        await server.close()


async def started(services: Services, path: Path, group: str | None) -> authorities.SigningServer:
    signer = services.port(authorities.Signer)
    assert isinstance(signer, authorities.LocalSigner)
    server = authorities.SigningServer(services, signer)
    await server.listen(path, group)
    return server


def asked_as_nobody(address: str, groups: list[int], descriptors: tuple[int, ...] = ()) -> str:
    """What a process of another user gets: "answer", "closed" for nothing, "barred" where the files keep it out."""
    program = (
        "import os, socket, sys\n"
        f"os.setgroups({groups!r})\nos.setgid(65534)\nos.setuid(65534)\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        f"    connection.connect({address!r})\n"
        f"    connection.sendall({remote.written({'do': 'nothing'})!r})\n"
        "    print('answer' if connection.recv(1) else 'closed')\n"
        "except PermissionError:\n    print('barred')\n"
        "except ConnectionError:\n    print('closed')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=BOUND, pass_fds=descriptors
    )
    return ran.stdout.decode().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_members_of_the_group_may_ask_and_others_may_not(units: Units) -> None:
    """Who isn't a member can't open the socket; who had it opened to him is turned away all the same."""
    member = grp.getgrnam("daemon").gr_gid
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        path = Path(home) / "socket"
        Path(home).chmod(0o755)

        async def scenario() -> list[str]:
            async with running_services(units.owner, owner=True) as services:
                server = await started(services, path, "daemon")
                mode = path.stat().st_mode & 0o777
                said = [await asyncio.to_thread(asked_as_nobody, str(path), groups) for groups in ([member], [])]
                path.chmod(0o666)
                said.append(await asyncio.to_thread(asked_as_nobody, str(path), []))
                await server.close()
                return [oct(mode), *said]

        assert asyncio.run(scenario()) == ["0o660", "answer", "barred", "closed"]
