"""What is asked outside about an upload: missing issuers by AIA, revocation by OCSP, else by list (RFC 5280 4.2.2.1).

All of it goes through the guarded client with no transaction open. Whoever is away, refuses or answers nonsense makes a
note and nothing else: strangers' servers decide over no upload.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from certwright.kernel.problems import TooMany, Unavailable
from certwright.platform.egress import EgressProblem
from certwright.platform.limits import CheckLimit
from certwright.platform.processes import Processes
from certwright.platform.services import Services
from certwright.rooms.uploads import rules
from certwright.rooms.uploads.words import Finding
from certwright.x509.certificates import CertificateFacts
from certwright.x509.workshop import revocation, toolbox
from certwright.x509.workshop.toolbox import Judged

_MOST_ISSUERS = 4
_MAX_ISSUER = 256 * 1024
_SECONDS = 5.0
_SECONDS_LIST = 8.0
# For all questions about one upload together.
_SECONDS_ALL = 10.0
_KEPT_FOR = timedelta(hours=1)
_KEPT_BYTES = 32 * 1024 * 1024


@dataclass
class Fetches:
    """Files fetched lately, by address: certificates come from the same few CAs again and again. One per process,
    plugged into Services.ports by the entry; at most 32 MiB and an hour."""

    size: int = 0
    _files: OrderedDict[str, tuple[datetime, bytes]] = field(default_factory=OrderedDict)

    def get(self, url: str, now: datetime) -> bytes | None:
        found = self._files.get(url)
        if found is None or not timedelta(0) <= now - found[0] < _KEPT_FOR:
            return None
        self._files.move_to_end(url)
        return found[1]

    def put(self, url: str, now: datetime, body: bytes) -> None:
        old = self._files.pop(url, None)
        self._files[url] = (now, body)
        self.size += len(body) - (len(old[1]) if old is not None else 0)
        while self.size > _KEPT_BYTES:
            _, (_, gone) = self._files.popitem(last=False)
            self.size -= len(gone)


@dataclass(frozen=True, slots=True)
class Found:
    """Issuers that were fetched, and what is to be noted."""

    issuers: tuple[CertificateFacts, ...] = ()
    notes: tuple[Finding, ...] = ()


async def issuers(services: Services, account_id: str, urls: Sequence[str]) -> Found:
    """The issuer's certificate from the first address that has one, and its issuers up to the root."""
    found: list[CertificateFacts] = []
    notes: list[Finding] = []
    asked: set[str] = set()
    try:
        if urls:
            services.port(CheckLimit).take(account_id, services.clock.now())
        async with asyncio.timeout(_SECONDS_ALL):
            todo = list(urls)
            while todo and len(asked) < _MOST_ISSUERS:
                url = todo.pop(0)
                if url in asked:
                    continue
                asked.add(url)
                new = await _authorities(services, url, notes)
                found += new
                if new and not any(facts.self_signed for facts in new):
                    todo = [u for facts in new for u in facts.aia_urls if u.startswith("http://")]
                elif new:
                    break
    except TimeoutError:
        notes.append(rules.issuer_not_fetched(str(urls[0]), "it took too long"))
    except (TooMany, Unavailable) as problem:
        notes.append(rules.issuer_not_fetched(str(urls[0]), problem.message))
    return Found(tuple(found), tuple(notes))


async def _authorities(services: Services, url: str, notes: list[Finding]) -> tuple[CertificateFacts, ...]:
    try:
        body = await _fetched(services, url, _MAX_ISSUER, _SECONDS)
    except _Away as away:
        notes.append(rules.issuer_not_fetched(url, str(away)))
        return ()
    found = await services.port(Processes).run(toolbox.authorities_in, body)
    if not found:
        notes.append(rules.issuer_not_fetched(url, "there is no CA certificate at that address"))
    return found


class _Away(Exception):
    """Nothing usable came; its words are for people."""


async def _fetched(services: Services, url: str, most: int, seconds: float) -> bytes:
    kept, now = services.port(Fetches), services.clock.now()
    known = kept.get(url, now)
    if known is not None:
        return known
    try:
        answer = await services.egress.fetch(url, max_bytes=most, timeout=seconds, max_redirects=2)
    except EgressProblem as problem:
        raise _Away(problem.message) from problem
    if answer.status != 200:
        raise _Away(f"the server answered {answer.status}")
    kept.put(url, now, answer.body)
    return answer.body


@dataclass(frozen=True, slots=True)
class Revocation:
    """`words` that follow "was revoked", by fingerprint, as the workshop wants them; and what is to be noted."""

    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[Finding, ...] = ()


async def revoked(services: Services, account_id: str, judged: Judged) -> Revocation:
    """Whether the leaf was revoked. Nothing is said where its issuer isn't there, or it names nobody to ask."""
    leaf, issuer = judged.leaf, judged.issuer
    if leaf is None or issuer is None or leaf.self_signed or not (judged.sources.ocsp or judged.sources.crl):
        return Revocation()
    why = ""
    try:
        services.port(CheckLimit).take(account_id, services.clock.now())
        async with asyncio.timeout(_SECONDS_ALL):
            questions = [(_ask_ocsp, url) for url in judged.sources.ocsp] + [
                (_ask_list, url) for url in judged.sources.crl
            ]
            for ask, url in questions:
                said = await ask(services, url, leaf.der, issuer)
                if said.revoked:
                    return Revocation({leaf.sha256: said.revoked})
                if said.good:
                    return Revocation()
                why = why or said.why
    except TimeoutError:
        why = why or "the answer took too long"
    except (TooMany, Unavailable) as problem:
        why = problem.message
    return Revocation(notes=(rules.revocation_unknown(why),))


async def _ask_ocsp(services: Services, url: str, leaf: bytes, issuer: bytes) -> revocation.Answer:
    try:
        answer = await services.egress.fetch(
            url, method="POST", content=revocation.ocsp_request(leaf, issuer), timeout=_SECONDS,
            headers={"Content-Type": "application/ocsp-request"}, max_bytes=revocation.MAX_RESPONSE,
        )  # fmt: skip
    except EgressProblem as problem:
        return revocation.Answer(why=problem.message)
    if answer.status != 200:
        return revocation.Answer(why=f"the OCSP responder {url[:200]} answered {answer.status}")
    now = services.clock.now()
    return await services.port(Processes).run(revocation.read_ocsp, answer.body, leaf, issuer, now)


async def _ask_list(services: Services, url: str, leaf: bytes, issuer: bytes) -> revocation.Answer:
    try:
        body = await _fetched(services, url, revocation.MAX_LIST, _SECONDS_LIST)
    except _Away as away:
        return revocation.Answer(why=str(away))
    return await services.port(Processes).run(revocation.read_list, body, leaf, issuer, services.clock.now())
