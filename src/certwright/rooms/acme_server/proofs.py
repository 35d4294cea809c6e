"""Looking at challenges: outside calls, with no transaction open, and recording what was seen.

Everything goes through the guarded client and the guarded resolver: names are ordered by clients, and the addresses
behind them are theirs to choose (spec: validator isolation). What was found there is never repeated to the client, so
that this server can't be used to read what only it can reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
import structlog

from certwright.acme.challenges import dns_record_name, dns_value, http_path
from certwright.acme.jose import thumbprint
from certwright.acme.objects import Identifier
from certwright.acme.requests import AcmeProblem
from certwright.kernel.problems import Problem
from certwright.platform.egress import WEB_PORTS, EgressProblem
from certwright.platform.jobs import Next
from certwright.platform.resolver import Look, Outcome
from certwright.platform.services import Services
from certwright.rooms import validation
from certwright.rooms.acme_server import rules, store
from certwright.rooms.acme_server.tables import acme_authorizations
from certwright.rooms.acme_server.words import Client
from certwright.rooms.validation import Delegation, DnsRecord

log = structlog.get_logger(__name__)

_MOST_BYTES = 8 * 1024
_SECONDS = 10.0
_MOST_REDIRECTS = 10
# The DNS is asked many things, each within its own time; this is for servers that answer each as late as they can.
_SECONDS_IN_ALL = 20.0
# How many challenges one process looks at together, and how many of one account: hosts that answer late, which a client
# may have chosen, keep none of the others waiting.
_AT_ONCE = 64
_OF_ONE = 32
# The same for the worker, which has other things to do: what finds no place at once comes again.
_AT_ONCE_AT_WORK = 4
_OF_ONE_AT_WORK = 2
_PATIENCE = 0.2
_COME_AGAIN = timedelta(seconds=30)


class Turns:
    """Room for some at once, and for fewer of one account."""

    def __init__(self, at_once: int, of_one: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._of_one = of_one
        self._each: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    def is_free(self, acme_account_id: str) -> bool:
        """Whether an account's turn comes at once."""
        mine = self._each.get(acme_account_id)
        return not self._all.locked() and (mine is None or not mine.locked())

    @asynccontextmanager
    async def one_for(self, acme_account_id: str, *, patience: float | None = None) -> AsyncIterator[bool]:
        """True when it is this account's turn; False where that doesn't come within `patience` seconds."""
        mine = self._each.setdefault(acme_account_id, asyncio.Semaphore(self._of_one))
        self._users[acme_account_id] += 1
        taken: list[asyncio.Semaphore] = []
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    for semaphore in (mine, self._all):
                        await semaphore.acquire()
                        taken.append(semaphore)
            yield self._all in taken
        finally:
            for semaphore in taken:
                semaphore.release()
            self._users[acme_account_id] -= 1
            if not self._users[acme_account_id]:
                del self._users[acme_account_id], self._each[acme_account_id]


class Prover:
    """Looks at challenges as soon as clients ask, in the process that was asked; plugged into Services.ports by the
    entry. What it doesn't get to, the worker's step does."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._turns = Turns(_AT_ONCE, _OF_ONE)
        self.at_work = Turns(_AT_ONCE_AT_WORK, _OF_ONE_AT_WORK)

    def begin(self, begun: Any, client: Client) -> None:
        """`begun` is the row of an authorization whose challenge was begun just now."""
        task = asyncio.create_task(self._prove(begun, client), name=f"acme {begun.id}")
        self._tasks[begun.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(begun.id, None))

    async def _prove(self, begun: Any, client: Client) -> Any:
        # It needn't be read again, unless it has to wait for its turn.
        row = SimpleNamespace(**vars(begun) | {"jwk": client.jwk}) if self._turns.is_free(client.id) else None
        async with self._turns.one_for(client.id):
            try:
                row = row or await store.to_prove(self._services.db, begun.id)
                return None if row is None else (await _look_and_record(self._services, row))[1]
            except Problem as problem:
                # The row is still due: the worker's step tries again.
                log.warning("a challenge couldn't be looked at", code=problem.code, object_id=begun.id)
                return None

    async def wait(self, authorization_id: str, seconds: float) -> Any:
        """Until what was begun here for an authorization is over, but at most so long; its row as it is then, where
        that is known."""
        task = self._tasks.get(authorization_id)
        if task is None:
            return None
        await asyncio.wait({task}, timeout=seconds)
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    async def idle(self) -> None:
        """Until nothing begun here is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def step(services: Services, authorization_id: str) -> Next:
    """What the process that was asked didn't get to, and second looks; content to find the challenge decided."""
    row = await store.to_prove(services.db, authorization_id)
    if row is None:
        return None
    async with services.port(Prover).at_work.one_for(row.acme_account_id, patience=_PATIENCE) as is_its_turn:
        return (await _look_and_record(services, row))[0] if is_its_turn else _COME_AGAIN


async def _look_and_record(services: Services, row: Any) -> tuple[Next, Any]:
    """Looks at the challenge of an authorization (a row of `store.to_prove`) and records what was seen. Answers when to
    look again, and the row as it is now where that is known."""
    if row.expires_at <= services.clock.now():
        return None, None
    authorization_id = row.id
    authorization = f"{row.token}.{thumbprint(row.jwk)}"
    problem = await look(services, row.challenge, row.value, row.token, authorization)
    now = services.clock.now()
    if problem is None:
        return None, await store.proven(services.db, authorization_id, now=now, until=now + rules.PROOF_LIFE)
    z = acme_authorizations.c
    again = rules.next_look(row.challenge, row.looks + 1, problem)
    async with services.db.begin() as tx:
        values: dict[str, Any] = {"looks": row.looks + 1, "error": problem.document()}
        if again is None:
            values |= {"status": "invalid"} | store.DECIDED
        else:
            values["next_step_at"] = now + again
        changed = await tx.execute(
            sa.update(acme_authorizations)
            .where(z.id == authorization_id, z.status == "pending", z.looks == row.looks)
            .values(values)
        )
        if changed.rowcount and again is None:
            await store.fail_orders(tx, row.acme_account_id, authorization_id, problem.document())
    return again, None


# --- the three kinds --------------------------------------------------------------------------------------------------


async def look(services: Services, kind: str, name: str, token: str, authorization: str) -> AcmeProblem | None:
    """None if the challenge is met; otherwise what the client is told."""
    identifier = rules.identifier_of(name)
    try:
        async with asyncio.timeout(_SECONDS_IN_ALL):
            if kind == "http-01":
                return await _look_http(services, identifier, token, authorization)
            if kind == "dns-01":
                return await _look_dns(services, identifier, authorization)
            return await _look_tls(services, identifier, authorization)
    except TimeoutError:
        said = f"Not everything that had to be asked was answered within {_SECONDS_IN_ALL:g} seconds."
        return AcmeProblem("dns" if kind == "dns-01" else "connection", said, identifier=identifier)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    # A redirect to https may lead to the very certificate that is to be replaced (RFC 8555 section 8.3).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _look_http(services: Services, identifier: Identifier, token: str, authorization: str) -> AcmeProblem | None:
    port = services.settings.validation_http_port
    host = f"[{identifier.value}]" if ":" in identifier.value else identifier.value
    url = f"http://{host}{'' if port == 80 else f':{port}'}{http_path(token)}"
    try:
        fetched = await services.egress.fetch(
            url, max_bytes=_MOST_BYTES, timeout=_SECONDS, max_redirects=_MOST_REDIRECTS,
            allowed_ports=WEB_PORTS | {port}, tls=_unverified(),
        )  # fmt: skip
    except EgressProblem as problem:
        # For whoever runs this server; the client learns less.
        log.info("a challenge's file can't be had", code=problem.code, reason=problem.message)
        return _failed(problem.code, problem.extra, port, identifier)
    if not 200 <= fetched.status < 300:
        return _unauthorized(f"{url} was answered with status {fetched.status}; the challenge's file must be there.",
                             identifier)  # fmt: skip
    if fetched.body.strip() != authorization.encode("ascii"):
        return _unauthorized(
            f"{url} has {len(fetched.body)} bytes of other content: another server answers for this name, or another "
            "account's file is there.", identifier,
        )  # fmt: skip
    return None


async def _look_dns(services: Services, identifier: Identifier, authorization: str) -> AcmeProblem | None:
    expected = dns_value(authorization)
    delegation = await validation.follow(
        services.resolver, DnsRecord(dns_record_name(identifier.value), "TXT", expected)
    )
    if delegation.loops:
        return AcmeProblem("dns", f"The aliases (CNAME) of {delegation.names[0]} lead in a circle.",
                           identifier=identifier)  # fmt: skip
    looks = await _ask_for_text(services, delegation)
    if any(expected in said.values for said in looks):
        return None
    where = delegation.names[-1]
    found = sum(len(said.values) for said in looks)
    if found:
        return _unauthorized(f"{where} has {found} TXT record(s), and none is this challenge's.", identifier)
    outcomes = {said.outcome for said in looks}
    if outcomes <= _NOTHING_THERE:
        return _unauthorized(f"There is no TXT record at {where}.", identifier)
    why = ", ".join(sorted(outcome.replace("_", " ") for outcome in outcomes)) or "no server is named for the zone"
    return AcmeProblem("dns", f"The DNS servers don't say what is at {where}: {why}.", identifier=identifier)


async def _ask_for_text(services: Services, delegation: Delegation) -> tuple[Look, ...]:
    """At the zone's own servers, whose answers are never old; where none can be found, at the resolver."""
    name = delegation.names[-1]
    zone = await services.resolver.zone_of(name)
    looks = () if zone is None else await services.resolver.authoritative(zone, name, "TXT")
    return looks or (await services.resolver.lookup(name, "TXT"),)


async def _look_tls(services: Services, identifier: Identifier, authorization: str) -> AcmeProblem | None:
    attempt = await validation.gather_tls_alpn(services.egress, identifier.value, services.settings.validation_tls_port)
    where = f"{attempt.name} port {attempt.port}"
    if attempt.code == "egress_tls" or (attempt.code is None and not attempt.spoke):
        return AcmeProblem("tls", f"What answers at {where} doesn't speak acme-tls/1.", identifier=identifier)
    if attempt.code is not None:
        log.info("a challenge's connection fails", code=attempt.code, reason=attempt.message)
        return _failed(attempt.code, attempt.extra, attempt.port, identifier)
    if attempt.names != (identifier.value,) or attempt.digest is None:
        return _unauthorized(f"What answers acme-tls/1 at {where} shows another certificate than the challenge's.",
                             identifier)  # fmt: skip
    if attempt.digest != hashlib.sha256(authorization.encode("ascii")).digest():
        return _unauthorized(f"What answers acme-tls/1 at {where} answers for another order or account.", identifier)
    return None


_NOTHING_THERE = frozenset({Outcome.NO_SUCH_NAME, Outcome.NO_SUCH_TYPE, Outcome.ALIAS})


def _failed(code: str, extra: Mapping[str, Any], port: int, identifier: Identifier) -> AcmeProblem:
    """What the guarded client says, without the addresses: those are what the inner DNS knows, and clients may be
    strangers. Of names that a redirect led to, nothing at all."""
    where = f"{identifier.value} port {port}"
    if code == "egress_dns" and extra.get("host") == identifier.value and extra.get("outcome") not in _NOTHING_THERE:
        why = str(extra.get("outcome")).replace("_", " ")
        return AcmeProblem("dns", f"The DNS that this server asks doesn't say where {identifier.value} is: {why}.",
                           identifier=identifier)  # fmt: skip
    kind, detail = {
        "egress_dns": ("dns", f"{identifier.value} has no address in the DNS that this server asks."),
        "egress_tls": ("tls", f"TLS with {where} fails."),
        "egress_denied": (
            "rejectedIdentifier", f"{identifier.value} leads to an address that this server doesn't connect to; "
            "whoever runs it opens networks with CERTWRIGHT_ALLOWED_NETWORKS.",
        ),
        "egress_too_large": ("unauthorized", f"{where} answers with more than a challenge's file can have."),
        "egress_bad_redirect": ("connection", f"{where} redirects to where a challenge isn't looked for."),
        "egress_timeout": ("connection", f"{where} didn't answer within {_SECONDS:g} seconds."),
    }.get(code, ("connection", f"{where} can't be connected to, or breaks off the connection."))  # fmt: skip
    return AcmeProblem(kind, detail, identifier=identifier)


def _unauthorized(detail: str, identifier: Identifier) -> AcmeProblem:
    return AcmeProblem("unauthorized", detail, identifier=identifier)
