"""An installation for walks, crashes and races: the real rooms on a real database, and an outside that is in memory.

The outside (CAs, web sites, name servers, a payment provider, a mail server) remembers what it was told, as a
stranger's own database would outlive our crash, and counts what can't be taken back. Every call to it and every commit
is a *moment* at which a test may let something happen: see `Fate`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import sqlalchemy as sa
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy.ext.asyncio import AsyncEngine

from certwright.entry import wiring
from certwright.kernel.actor import Actor, Grant, Statement
from certwright.kernel.clock import SetClock
from certwright.kernel.money import Money
from certwright.kernel.problems import NotFound, Problem, Refused, Unavailable
from certwright.platform.config import Settings
from certwright.platform.db import Database, Tx
from certwright.platform.egress import EgressProblem, Fetched
from certwright.platform.jobs import Again
from certwright.platform.limits import CheckLimit
from certwright.platform.resolver import Look, Outcome, Zone, ZoneServer
from certwright.platform.services import Services
from certwright.rooms import access, accounts, authorities, billing, certificates, notify, organisations
from certwright.rooms.billing.ports import Charge, Charged, Declined, Waiting
from certwright.rooms.certificates import (
    Applicant,
    AuthorityDirectory,
    Cancelled,
    Capabilities,
    CertificateOrder,
    CertificateType,
    ControlShown,
    Issued,
    MayNotRevoke,
    Needs,
    Pending,
    Rejected,
    RevocationReason,
    TooLate,
    Wanted,
)
from certwright.rooms.notify import Letter, Receipt
from certwright.rooms.organisations.rules import REQUIRED
from certwright.rooms.validation import Method
from certwright.x509.certificates import read_certificate

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
APPLICANT = Applicant("Ada Lovelace", "ada@example.com", "+44 20 7946 0000")
SETTLED = 60
"""More rounds than any certificate needs to come to rest."""


# --- moments ---------------------------------------------------------------------------------------------------------


class Death(BaseException):
    """The process was killed here. No handler of the product's sees it, as none would see a SIGKILL."""


class TickingClock(SetClock):
    """Goes on by a millisecond at every look, so that what came later has a later id."""

    def now(self) -> datetime:
        self.move(timedelta(milliseconds=1))
        return super().now()


Strike = Callable[["Fate", str], Awaitable[None]]


class Fate:
    """What happens to one process at its moments: `strike` is called at each of them with the moment's name, which is
    what happens there and the place in the product's code that does it."""

    def __init__(self) -> None:
        self.strike: Strike | None = None
        self.dead = False

    async def moment(self, what: str) -> None:
        self.heed()
        if self.strike is not None:
            await self.strike(self, f"{what} in {place()}")

    def heed(self) -> None:
        """Nothing is done by the dead, not even tidying up."""
        if self.dead:
            raise Death

    def die(self, where: str) -> None:
        self.dead = True
        raise Death(where)


def place() -> str:
    """Where in the rooms or connectors we are called from, innermost first, up to the step or action."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        _, _, room = frame.f_code.co_filename.rpartition("/certwright/")
        if room.startswith(("rooms/", "connectors/")) or room == "platform/events.py":
            found.append(f"{room.removesuffix('.py')}.{frame.f_code.co_name}:{frame.f_lineno}")
        elif room == "platform/jobs.py":
            found.append(f"jobs.{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found) or "nowhere"


def watch_commits(db: Database, fate: Fate) -> None:
    """A moment before and one after each commit of a transaction that wrote something, and around each statement that
    commits by itself."""
    begin, moment, single, fetch = db.begin, db.moment, db.single, db.fetch

    @asynccontextmanager
    async def counted() -> AsyncIterator[Tx]:
        fate.heed()
        if fate.strike is None:
            async with begin() as tx:
                yield tx
            return
        async with begin() as tx:
            yield tx
            wrote = await tx.scalar(sa.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"))
            if wrote:
                await fate.moment("before a commit")
        if wrote:
            await fate.moment("after a commit")

    @asynccontextmanager
    async def living() -> AsyncIterator[Tx]:
        fate.heed()
        async with single() as tx:
            yield tx

    @asynccontextmanager
    async def still() -> AsyncIterator[Tx]:
        fate.heed()
        async with moment() as tx:
            yield tx

    @asynccontextmanager
    async def at_once() -> AsyncIterator[Tx]:
        await fate.moment("before a statement of its own")
        async with single() as tx:
            yield tx
        await fate.moment("after a statement of its own")

    async def fetched(sql: str, arguments: Sequence[Any]) -> Any:
        await fate.moment("before a statement of its own")
        found = await fetch(sql, arguments)
        await fate.moment("after a statement of its own")
        return found

    db.begin, db.moment, db.read = counted, still, living  # type: ignore[method-assign]
    db.single, db.fetch = at_once, fetched  # type: ignore[method-assign]


# --- outside ---------------------------------------------------------------------------------------------------------


@dataclass
class Order:
    """An order as the CA keeps it."""

    order: CertificateOrder
    number: int
    mood: str
    leaf: bytes | None = None
    cancelled: bool = False
    told_to_go: bool = False


class Books:
    """What CAs remember: every order by its reference, every certificate, every revocation."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.signed: Counter[str] = Counter()
        """Certificates made for each reference."""
        self.revoked: dict[bytes, str] = {}
        self.calls: Counter[str] = Counter()
        self.controls: dict[str, tuple[CertificateOrder, bool]] = {}
        """Who shows control of names to revoke, and whether the CA was told to look."""

    def forget(self) -> None:
        for memory in (self.orders, self.signed, self.revoked, self.calls, self.controls):
            memory.clear()


class RememberingCa:
    """A CA that does what its `mood` says to orders placed from now on:

    `willing` issues when asked for the certificate; `slow` only after its mood changed; `refusing` won't take orders;
    `rejecting` says no when asked for the certificate; `away` can't be reached; `garbage` sends octets that are no
    certificate; `other names` and `other key` send somebody else's.
    """

    def __init__(self, fate: Fate, clock: SetClock, books: Books, capabilities: Capabilities, key: Any) -> None:
        self.capabilities, self.fate, self.clock, self.books = capabilities, fate, clock, books
        self.key, self.root = key
        self.mood = "willing"
        # What it answers to a withdrawal: whether it approved meanwhile.
        self.too_late = False
        self.revoking = "willing"

    async def _call(self, what: str) -> None:
        await self.fate.moment(f"before {self.capabilities.name} hears {what}")
        self.books.calls[what] += 1
        if self.mood == "away":
            raise Unavailable("ca_unreachable", "The CA can't be reached.")

    async def _answered(self, what: str, answer: T) -> T:
        await self.fate.moment(f"after {self.capabilities.name} heard {what}")
        return answer

    async def submit(self, order: CertificateOrder) -> str:
        await self._call("an order")
        if self.mood == "refusing":
            raise Refused("blocked", "This name is on the CA's list.")
        known = self.books.orders.setdefault(
            f"{self.capabilities.name}/{order.reference}", Order(order, len(self.books.orders) + 1, self.mood)
        )
        assert known.order.csr_der == order.csr_der, "one reference, one request"
        return await self._answered("an order", f"{self.capabilities.name}/{order.reference}")

    async def collect(self, order_id: str, account_id: str) -> Any:
        await self._call("a question")
        found = self._found(order_id)
        if found.cancelled:
            return Rejected(("The order was cancelled.",))
        if self.capabilities.challenges and not found.told_to_go and found.leaf is None:
            return await self._answered("a question", Needs(self._wanted(found)))
        return await self._answered("a question", self._result(found))

    def _result(self, found: Order) -> Any:
        if found.mood == "slow":
            return Pending(timedelta(hours=1))
        if found.mood == "rejecting":
            return Rejected(("The list of names we don't certify has it.",))
        if found.mood == "garbage":
            return Issued(b"\x30\x03no certificate", ())
        if found.leaf is None:
            found.leaf = self._sign(found)
            self.books.signed[found.order.reference] += 1
        return Issued(found.leaf, (self.root,))

    async def proceed(self, order_id: str, account_id: str) -> None:
        await self._call("to go on")
        if order_id in self.books.controls:
            self.books.controls[order_id] = (self.books.controls[order_id][0], True)
        else:
            self._found(order_id).told_to_go = True
        await self._answered("to go on", None)

    async def cancel(self, order_id: str, account_id: str) -> Cancelled | TooLate:
        await self._call("a withdrawal")
        if self.books.controls.pop(order_id, None) is not None:
            return await self._answered("a withdrawal", Cancelled())
        found = self._found(order_id)
        # What was never told to go on, nobody approves.
        thinks = found.told_to_go or not self.capabilities.challenges
        if not found.cancelled and ((self.too_late and thinks) or found.leaf is not None):
            found.mood, found.told_to_go = "willing" if found.mood == "slow" else found.mood, True
            return await self._answered("a withdrawal", TooLate("approved a minute ago"))
        found.cancelled = True
        return await self._answered("a withdrawal", Cancelled())

    async def revoke(self, leaf_der: bytes, reason: RevocationReason, account_id: str) -> None:
        await self._call("a revocation")
        if self.revoking == "refusing":
            raise Refused("not_now", "The CA doesn't revoke today.")
        shown = {name for order, told in self.books.controls.values() if told for name in order.names}
        if self.revoking == "stranger" and not set(read_certificate(leaf_der).dns_names) <= shown:
            raise MayNotRevoke("not_yours", "Another account ordered that.")
        self.books.revoked.setdefault(leaf_der, reason.value)
        await self._answered("a revocation", None)

    async def show_control(self, order: CertificateOrder) -> str:
        await self._call("who shows control")
        self.books.controls.setdefault(order.reference, (order, False))
        return await self._answered("who shows control", order.reference)

    async def control_shown(self, order_id: str, account_id: str) -> ControlShown | Pending | Needs | Rejected:
        await self._call("whether control was shown")
        order, told = self.books.controls[order_id]
        answer = ControlShown() if told else Needs(self._places(order, "control"))
        return await self._answered("whether control was shown", answer)

    def _found(self, order_id: str) -> Order:
        if order_id not in self.books.orders:
            raise NotFound("not_found", "There is no such order.")
        return self.books.orders[order_id]

    def _wanted(self, found: Order) -> tuple[Wanted, ...]:
        return self._places(found.order, f"order-{found.number}")

    def _places(self, order: CertificateOrder, what: str) -> tuple[Wanted, ...]:
        until = self.clock.now() + timedelta(days=7)
        return tuple(
            Wanted(name, Method.DNS_01, f"_acme-challenge.{name[2:]}", f"value-{what}-{n}", until)
            if name.startswith("*.")
            else Wanted(name, Method.HTTP_01, f"token-{what}-{n}", f"value-{what}-{n}", until)
            for n, name in enumerate(order.names)
        )

    def _sign(self, found: Order) -> bytes:
        request = x509.load_der_x509_csr(found.order.csr_der)
        names = ("elsewhere.example.com",) if found.mood == "other names" else found.order.names
        public = ec.generate_private_key(ec.SECP256R1()).public_key() if found.mood == "other key" else None
        now = self.clock.now().replace(microsecond=0)
        issuer = x509.load_der_x509_certificate(self.root)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(issuer.subject).public_key(public or request.public_key())  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        )  # fmt: skip
        return made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _root() -> tuple[Any, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Outside Root")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(START - timedelta(days=365)).not_valid_after(START + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )  # fmt: skip
    return key, made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


class Outside:
    """Web sites and name servers: what applicants published is there, everything else isn't."""

    servers = ()

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.files: dict[tuple[str, str], bytes] = {}
        self.records: dict[tuple[str, str], list[str]] = {}

    # what the product's egress is asked

    async def fetch(self, url: str, **_: Any) -> Fetched:
        await self.fate.moment("before a site is looked at")
        split = urlsplit(url)
        body = self.files.get((split.hostname or "", split.path))
        await self.fate.moment("after a site was looked at")
        if body is None:
            return Fetched(404, url, "192.0.2.80", b"not here")
        return Fetched(200, url, "192.0.2.80", body)

    async def resolve(self, host: str) -> Any:
        raise EgressProblem("egress_dns", f"{host} has no address in the DNS.", extra={"host": host})

    # what the product's resolver is asked

    async def zone_of(self, name: str) -> Zone:
        return Zone("example.com", (ZoneServer("ns.example.com", ("192.0.2.53",)),))

    async def dnssec_broken(self, name: str, rdtype: str) -> str | None:
        return None

    async def lookup(self, name: str, rdtype: str) -> Look:
        values = tuple(self.records.get((name, rdtype), ()))
        outcome = Outcome.FOUND if values else Outcome.NO_SUCH_NAME
        return Look("192.0.2.53", name, rdtype, outcome, values, authoritative=True)

    async def authoritative(self, zone: Zone, name: str, rdtype: str) -> tuple[Look, ...]:
        await self.fate.moment("before a name server is asked")
        found = await self.lookup(name, rdtype)
        await self.fate.moment("after a name server was asked")
        return (found,)

    async def lookup_everywhere(self, name: str, rdtype: str) -> tuple[Look, ...]:
        return (await self.lookup(name, rdtype),)


class Mailbox:
    """The mail server: letters by their id; the same id twice is the same letter."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.letters: dict[str, Letter] = {}

    async def send(self, letter: Letter) -> Receipt:
        await self.fate.moment("before a letter leaves")
        self.letters.setdefault(letter.id, letter)
        await self.fate.moment("after a letter left")
        return Receipt("250 ok")

    def links(self, path: str) -> list[str]:
        """The secrets of the links of this kind, oldest letter first."""
        return [
            letter.text.partition(path)[2].split()[0]
            for letter in sorted(self.letters.values(), key=lambda one: one.id)
            if path in letter.text
        ]


class Bank:
    """A payment provider with a memory: the same reference is charged and refunded once."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.charged: dict[str, Money] = {}
        self.refunded: dict[str, Money] = {}

    async def charge(self, charge: Charge) -> Charged | Waiting | Declined:
        await self.fate.moment("before the bank is asked to charge")
        assert self.charged.setdefault(charge.reference, charge.amount) == charge.amount
        await self.fate.moment("after the bank charged")
        return Charged(f"ch_{charge.reference}")

    async def refund(self, charge: Charge, provider_reference: str) -> Charged | Waiting | Declined:
        await self.fate.moment("before the bank is asked to refund")
        assert provider_reference.removeprefix("ch_") in self.charged
        assert self.refunded.setdefault(charge.reference, charge.amount) == charge.amount
        await self.fate.moment("after the bank refunded")
        return Charged(f"re_{charge.reference}")


# --- processes -------------------------------------------------------------------------------------------------------


class Process:
    """One process of the product: its own pool, its own memory, its own view of the same outside."""

    def __init__(self, stage: Stage, services: Services, fate: Fate) -> None:
        self.stage, self.services, self.fate = stage, services, fate
        self.rival: Pair | None = None
        self._due = _due_sql(services)

    async def due(self, until: datetime) -> tuple[datetime, str, str] | None:
        """The step that falls due first until then: (when, which, of what)."""
        async with self.services.db.read() as tx:
            row = (await tx.execute(self._due, {"until": until})).one_or_none()
        return None if row is None else (row.at, row.step, row.id)

    async def work(self, minutes: float = 15) -> int:
        """What a worker does within the next minutes: every row that falls due, in order, the clock moving from one to
        the next. Answers how many steps it took."""
        if self.rival is not None:
            return await self.rival.work(minutes)
        clock, jobs = self.stage.clock, self.services.jobs
        until = clock.now() + timedelta(minutes=minutes)
        for taken in itertools.count():
            found = await self.due(until)
            if found is None:
                return taken
            assert taken < 2000, f"there is always another step: {found}"
            at, step, row_id = found
            clock.set(max(clock.now(), at))
            if not await jobs.run_step(self.services, step, row_id):
                # A dead worker's lease: wait for it to run out.
                clock.move(jobs.lease + timedelta(seconds=1))
        raise AssertionError

    async def bury(self) -> None:
        """Its connections are closed, as the kernel does it for the dead."""
        self.fate.dead = False
        self.stage.processes.remove(self)
        await wiring.aclose(self.services)
        self.stage.engines.append(self.services.db.engine)


class Pair:
    """Two processes that do the same work at once: each step is run by both, as when one outlives its lease, and each
    waits for the other whenever it is about to tell the outside something."""

    def __init__(self, one: Process, other: Process) -> None:
        self.both = (one, other)
        self._working = asyncio.Lock()
        self._met: dict[str, asyncio.Event] = {}
        for process in self.both:
            process.rival = self
            process.fate.strike = self._meet

    async def _meet(self, fate: Fate, where: str) -> None:
        """Wait until the other is here as well, or for a moment if it isn't coming."""
        if where.startswith("before a commit"):
            return  # whoever has locked the row must not wait for whoever wants it
        if (known := self._met.pop(where, None)) is not None:
            known.set()
            return
        mine = self._met[where] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(mine.wait(), 0.01)
        if self._met.get(where) is mine:
            del self._met[where]

    async def work(self, minutes: float) -> int:
        one, other = self.both
        clock, jobs = one.stage.clock, one.services.jobs
        async with self._working:
            until = clock.now() + timedelta(minutes=minutes)
            for taken in itertools.count():
                found = await one.due(until)
                if found is None:
                    return taken
                assert taken < 2000, f"there is always another step: {found}"
                at, step, row_id = found
                clock.set(max(clock.now(), at))
                await asyncio.gather(jobs.run_step(one.services, step, row_id), self._unbidden(other, step, row_id))
        raise AssertionError

    async def _unbidden(self, process: Process, step: str, row_id: str) -> None:
        """The step without the lease that keeps others from it."""
        with contextlib.suppress(Problem, Again):
            await process.services.jobs.steps[step].run(process.services, row_id)

    async def do(self, deed: Callable[[Process], Awaitable[None]]) -> None:
        """Both do it at once; one of them may be told that it is done."""
        ends = await asyncio.gather(*(deed(process) for process in self.both), return_exceptions=True)
        for end in ends:
            if end is not None and not isinstance(end, Problem):
                raise end


def _due_sql(services: Services) -> sa.TextClause:
    """One statement for all tables: a process asks it after every step."""
    parts = " UNION ALL ".join(
        f"(SELECT next_step_at AS at, '{step.name}' AS step, id FROM {step.table.name} "
        "WHERE next_step_at <= :until ORDER BY next_step_at LIMIT 1)"
        for step in services.jobs.steps.values()
    )
    return sa.text(f"SELECT at, step, id FROM ({parts}) due ORDER BY at LIMIT 1")


PRODUCTS: dict[str, dict[str, Any]] = {
    "single": {"domain_type": "single", "type": "dv", "prices": {"base": "100"}},
    "multi": {
        "domain_type": "multi", "type": "dv", "included_names": 2, "max_names": 10,
        "prices": {"base": "150", "additional_name": "40"},
    },
    "wildcard": {"domain_type": "wildcard", "type": "dv", "prices": {"base": "300"}, "wildcards": "only"},
    "ov": {"domain_type": "single", "type": "ov", "prices": {"base": "400"}},
    "ev": {"domain_type": "single", "type": "ev", "prices": {"base": "900"}},
    "free": {"domain_type": "single", "type": "dv", "free": True},
}  # fmt: skip


_FURNITURE = ("authorities", "orders", "payments", "unsubscriptions")
_WILLING = ("willing", False, "willing")


class Stage:
    """One database, one outside, one clock; and as many processes on it as a test starts."""

    def __init__(self, url: str, directory: Path, **settings: Any) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.clock = TickingClock(START)
        self.settings = Settings(
            **({"data_dir": directory / "data", "database_url": url, "database_pool": 5,
                "public_url": "https://cw.example", "step_lease": 30.0} | settings)
        )  # fmt: skip
        self.books, self.key = Books(), _root()
        self.files: dict[tuple[str, str], bytes] = {}
        self.records: dict[tuple[str, str], list[str]] = {}
        self.letters: dict[str, Letter] = {}
        self.charged: dict[str, Money] = {}
        self.refunded: dict[str, Money] = {}
        self.processes: list[Process] = []
        self.engines: list[AsyncEngine] = []
        """Of the dead, without connections: the next ones needn't translate every statement anew."""
        self.moods: dict[str, tuple[str, bool, str]] = {}
        self.number = itertools.count(1)
        self.main = self.run(self.start())
        self.run(self._furnish())
        self.furnished_at = self.clock.now()
        self.furnished_keys = [row.id for row in self.run(self.rows("SELECT id FROM private_keys"))]

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def cut_connections(self) -> None:
        """The database ends every connection, and none of those that were waiting in pools is usable."""
        admin = await asyncpg.connect(self.main.services.db.dsn)
        try:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await admin.close()
        # Whoever looks at the facts isn't what is tested.
        await self.main.services.db.engine.dispose()

    async def start(self, strike: Strike | None = None) -> Process:
        """Another process; `strike` decides its fate."""
        fate = Fate()
        fate.strike = strike
        services = await wiring.build(self.settings, clock=self.clock)
        if self.engines:
            services.db.run_on(self.engines.pop())
        watch_commits(services.db, fate)
        outside = Outside(fate)
        outside.files, outside.records = self.files, self.records
        mailbox, bank = Mailbox(fate), Bank(fate)
        mailbox.letters, bank.charged, bank.refunded = self.letters, self.charged, self.refunded
        object.__setattr__(services, "egress", outside)
        object.__setattr__(services, "resolver", outside)
        ports: Any = services.ports
        directory = services.port(AuthorityDirectory)
        cas = {name: self._ca(name, fate) for name in ("house", "second", "asking")}
        ports[AuthorityDirectory] = AuthorityDirectory({**directory.by_id, **cas}, directory.outside)
        ports[notify.Channel] = mailbox
        ports[billing.PaymentProviders] = billing.PaymentProviders({"card": bank})
        process = Process(self, services, fate)
        self.processes.append(process)
        return process

    def _ca(self, name: str, fate: Fate) -> RememberingCa:
        can = Capabilities(
            name=name, public=name != "second", methods=("dns", "file", "email"),
            revocation_reasons=tuple(RevocationReason), types=tuple(CertificateType), challenges=name == "asking",
        )  # fmt: skip
        if name == "asking":
            can = replace(can, methods=("dns", "file"), types=(CertificateType.DV,))
        made = RememberingCa(fate, self.clock, self.books, can, self.key)
        made.mood, made.too_late, made.revoking = self.moods.get(name, _WILLING)
        return made

    @contextmanager
    def mood(
        self, name: str, mood: str = "willing", *, too_late: bool = False, revoking: str = "willing"
    ) -> Iterator[None]:
        """The CA behaves like this for the time being, in processes to come as well."""
        self._set_mood(name, (mood, too_late, revoking))
        try:
            yield
        finally:
            self._set_mood(name, _WILLING)

    def set_mood(self, name: str, mood: str = "willing", *, too_late: bool = False, revoking: str = "willing") -> None:
        self._set_mood(name, (mood, too_late, revoking))

    def _set_mood(self, name: str, mood: tuple[str, bool, str]) -> None:
        if mood[0] == "willing":
            # Whoever was slow gets round to it.
            for key, order in self.books.orders.items():
                if key.startswith(f"{name}/") and order.mood == "slow":
                    order.mood = "willing"
        self.moods[name] = mood
        for process in self.processes:
            ca: Any = process.services.port(AuthorityDirectory).by_id[name]
            ca.mood, ca.too_late, ca.revoking = mood

    async def _furnish(self) -> None:
        """An account, its administrator, two people at the desk, products, money."""
        services = self.main.services
        account = await accounts.ensure_account(services, "One")
        self.account_id = account.id
        async with services.db.begin() as tx:
            user = await accounts.insert_user(
                tx, services, account.id, email="ann@one.example", name="Ann", password_hash="none"
            )
            await access.people.make_administrator(tx, services, user)
            self.project_id = await accounts.store.default_project(tx, account.id)
            desk = [
                await accounts.insert_user(
                    tx, services, account.id, email=f"{name}@one.example", name=name, password_hash="none"
                )
                for name in ("first", "second")
            ]
        grant = Grant("Tenant Administrator", (Statement("Allow", ("*",)),))
        self.actor = Actor("user", user.id, "ann@one.example", account.id, (grant,), user.id)
        self.desk = tuple(Actor("user", u.id, u.email, account.id, (grant,), u.id) for u in desk)
        await authorities.ensure_builtin(services, account.id, self.project_id)
        for code, product in PRODUCTS.items():
            document = {
                "code": code, "name": code, "brand": "House", "ca": "house", "public": True, "currency": "EUR",
                "years": {"1": "0"}, "reissue_days": 60,
            } | product  # fmt: skip
            await billing.create_product(services, self.actor, document)
        await billing.top_up(services, self.actor, Money.of("10000000", "EUR"), reference="first")

    async def clean(self) -> None:
        """Take away what a walk left behind, and begin at the same moment again: else years of it would add up until
        the built-in CA has expired."""
        if not hasattr(self, "_clean_sql"):
            stepped = [step.table.name for step in self.main.services.jobs.steps.values()]
            tables = dict.fromkeys([*stepped, "certificates", "confirmations", "evidence", "alarms", "noted_stages"])
            lines = "".join(
                f"IF EXISTS (SELECT FROM {name}) THEN DELETE FROM {name}; END IF; "
                for name in tables if name not in _FURNITURE
            )  # fmt: skip
            kept = ", ".join(f"'{key}'" for key in ("", *self.furnished_keys))
            self._clean_sql = (
                "DO $$ BEGIN SET LOCAL session_replication_role = replica; "
                f"{lines} DELETE FROM private_keys WHERE id NOT IN ({kept}); DELETE FROM pgqueuer; END $$"
            )
        async with self.main.services.db.begin() as tx:
            await tx.exec_driver_sql(self._clean_sql)
        for memory in (self.letters, self.charged, self.refunded, self.files, self.records):
            memory.clear()
        self.books.forget()
        for name in list(self.moods):
            self._set_mood(name, _WILLING)
        self.main.services.port(CheckLimit).buckets.clear()
        self.clock.set(self.furnished_at)

    # --- facts a test compares ----------------------------------------------------------------------------------------

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.main.services.db.read() as tx:
            return list((await tx.execute(sa.text(sql), values)).all())

    async def look(self, certificate_id: str) -> certificates.Detail:
        return await certificates.get_certificate(self.main.services, self.actor, certificate_id)

    async def publish(self, certificate_id: str, detail: certificates.Detail | None = None) -> None:
        """Put in place whatever is asked for, as an applicant would."""
        shown = (detail or await self.look(certificate_id)).validation
        for domain in shown.domains if shown is not None else ():
            if domain.file is not None:
                split = urlsplit(domain.file.url)
                self.files[split.hostname or "", split.path] = domain.file.content.encode()
            if domain.record is not None:
                values = self.records.setdefault((domain.record.name, domain.record.type), [])
                if domain.record.value not in values:
                    values.append(domain.record.value)

    async def decide(self, process: Process, certificate_id: str, *, verify: bool) -> None:
        """The desk does what is left to do about the organisation of the open application, if it has a case."""
        detail = await self.look(certificate_id)
        assert detail.application is not None
        services, (first, second) = process.services, self.desk
        async with services.db.begin() as tx:
            case = await organisations.state(tx, services, detail.application.id, self.clock.now())
        if case is None or case.verified_at is not None or case.state in _OVER:
            return
        if case.state is organisations.State.AWAITING_CHOICE:
            await organisations.choose(services, self.actor, case.case_id, "phone")
        seen = await organisations.get_case(services, first, case.case_id)
        if seen.state is organisations.State.QUEUED:
            seen = await organisations.claim(services, first, case.case_id)
        if not verify:
            await organisations.refuse(services, first, case.case_id, ["Not in the register."])
            return
        if seen.state is organisations.State.IN_REVIEW:
            for item in REQUIRED[seen.level]:
                await organisations.record_check(
                    services, first, case.case_id, item=item.value, outcome="passed", source="Register", note=""
                )
            revision = (await organisations.get_case(services, first, case.case_id)).revision
            seen = await organisations.approve(services, first, case.case_id, revision=revision)
        if seen.state is organisations.State.AWAITING_SECOND:
            revision = (await organisations.get_case(services, second, case.case_id)).revision
            await organisations.approve(services, second, case.case_id, revision=revision)

    def close(self) -> None:
        for process in list(self.processes):
            self.run(process.bury())
        self.runner.close()


_OVER = (organisations.State.VERIFIED, organisations.State.REFUSED, organisations.State.CANCELLED)

ORGANISATION: dict[str, str] = {
    "kind": "company", "registration_number": "HRB 12345 B", "jurisdiction_country": "DE",
    "jurisdiction_region": "Berlin", "street": "Hauptstraße 1", "city": "Berlin", "province": "Berlin",
    "postal_code": "10115", "country": "DE", "phone": "+49 (30) 123-4567", "phone_source": "Das Örtliche",
}  # fmt: skip


async def organisation(stage: Stage, process: Process, name: str) -> str:
    made = await organisations.add_organisation(
        process.services, stage.actor, facts=ORGANISATION | {"legal_name": name},
        contacts=[{"name": "Max Muster", "email": "max@beispiel.example", "phone": "", "role": "IT"}],
    )  # fmt: skip
    return made.id
