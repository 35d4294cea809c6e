"""Certificates from a private CA at once: who may use the CA vouches for the names.

Requests of one caller that arrive together are written together: signing is cheap, round trips and disk flushes are
not. Each is recorded in the transaction it is signed in, whatever the size of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from certwright.kernel.actor import Actor
from certwright.kernel.ids import new_id
from certwright.kernel.problems import Invalid, Problem
from certwright.platform.batching import Coalescer
from certwright.platform.db import Tx
from certwright.platform.services import Services
from certwright.rooms import access, audit, authorities, keys
from certwright.rooms.certificates import rules, store, views
from certwright.rooms.certificates.actions import BUILTIN_CA, generated_name, name_taken
from certwright.rooms.certificates.tables import applications, certificates, versions
from certwright.rooms.certificates.words import VOUCHED, DomainType, State
from certwright.x509.certificates import CertificateFacts, read_certificate
from certwright.x509.csr import read_csr

LONGEST_DAYS = 199


@dataclass(frozen=True, slots=True)
class _Request:
    """A judged request; `new` is the key made for it, None where a CSR came."""

    actor: Actor
    names: tuple[str, ...]
    public_key: object
    new: keys.NewKey | None
    key_algorithm: str
    days: int | None
    name: str | None
    description: str
    auto_renew: bool


# (account, caller, CA or the built-in one, project or the default one)
_Key = tuple[str, str, str | None, str | None]


class PrivateIssuance:
    """The queue of one process; plugged into Services.ports by the entry."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._queue: Coalescer[_Key, _Request, views.Summary] = Coalescer(self._write)

    async def issue(self, request: _Request, authority_id: str | None, project_id: str | None) -> views.Summary:
        return await self._queue.submit((request.actor.account_id, request.actor.id, authority_id, project_id), request)

    async def _write(self, key: _Key, requests: Sequence[_Request]) -> list[views.Summary | Problem]:
        try:
            return await _write(self._services, key, requests)
        except IntegrityError:
            if len(requests) == 1:
                name = requests[0].name
                if name is None:
                    raise  # not a name: somebody deleted the project, say
                return [name_taken(name)]
            # Somebody took a name between our look and the insert: one at a time, the others get theirs.
            return [(await self._write(key, [request]))[0] for request in requests]


async def issue_private(
    services: Services,
    actor: Actor,
    *,
    authority_id: str | None = None,
    names: Sequence[str],
    key_algorithm: str = "EC_P256",
    csr: str | None = None,
    days: int | None = None,
    name: str | None = None,
    project_id: str | None = None,
    description: str = "",
    auto_renew: bool = True,
) -> views.Summary:
    """A server certificate from a private CA; needs `ccm:cert:issue` on it. Names may be IP addresses.

    `days` counts from an hour before now (clocks differ) and is cut off by the CA's own end; default 90, at most 199.
    Key, certificate, record and audit are committed together before the answer.
    """
    access.require_somewhere(actor, "ccm:cert:issue")
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise Invalid(
            "days_out_of_range", f"A certificate lives 1 to {LONGEST_DAYS} days.", field="days", fix="Choose 1 to 199."
        )
    if name is not None:
        rules.judge_name(name)
    rules.judge_description(description)
    new: keys.NewKey | None = None
    if csr is not None:
        facts = read_csr(csr.encode())
        judged = rules.judge_private_names(tuple(names) or facts.dns_names + facts.ip_addresses)
        public_key: object = facts.public_key
        algorithm = facts.key_algorithm
    else:
        judged = rules.judge_private_names(names)
        new = await keys.new_key(rules.judge_key_algorithm(key_algorithm))
        public_key, algorithm = new.key.public_key(), key_algorithm
    request = _Request(actor, judged, public_key, new, algorithm, days, name, description, auto_renew)
    return await services.port(PrivateIssuance).issue(request, authority_id, project_id)


async def _write(services: Services, key: _Key, requests: Sequence[_Request]) -> list[views.Summary | Problem]:
    _, _, authority_id, project_id = key
    now = services.clock.now()
    first = requests[0].actor
    async with services.db.begin() as tx:
        project = await access.project_for(tx, first, "ccm:cert:issue", project_id)
        if authority_id is None:
            ca_id = await authorities.builtin_issuing_id(tx, first.account_id)
        else:
            # Whoever may issue in one project may use another one's CA only where its project allows it, too.
            await authorities.signs_for(tx, first, authority_id)
            ca_id = authority_id
        for request in requests:
            access.require(request.actor, "ccm:cert:issue", project_id=project, resource=f"authority:{ca_id}")
        taken = await _names_taken(tx, first.account_id, [r.name for r in requests if r.name is not None])
        answers: list[views.Summary | Problem | None] = [None] * len(requests)
        going: list[tuple[int, str, _Request]] = []
        for index, request in enumerate(requests):
            if request.name is not None and request.name in taken:
                answers[index] = name_taken(request.name)
                continue
            if request.name is not None:
                taken.add(request.name)
            going.append((index, new_id("app", now), request))
        issued = await authorities.issue_many(
            tx,
            services,
            ca_id,
            [
                authorities.IssueRequest(
                    reference=application_id, account_id=first.account_id, project_id=project, names=request.names,
                    public_key=request.public_key, seconds=None if request.days is None else request.days * 86_400,
                    # The product by itself asks for what it serves its console with, and for nothing else.
                    internal=request.actor.kind == "system",
                )
                for _, application_id, request in going
            ],
        )  # fmt: skip
        made: list[_Made] = []
        for (index, application_id, request), result in zip(going, issued, strict=True):
            if isinstance(result, Problem):
                answers[index] = result
            else:
                made.append(_Made(index, request, application_id, new_id("cert", now), new_id("ver", now), result))
        for index, summary in await _record(tx, services, first.account_id, project, made):
            answers[index] = summary
    return [answer for answer in answers if answer is not None]


@dataclass(frozen=True, slots=True)
class _Made:
    index: int
    request: _Request
    application_id: str
    certificate_id: str
    version_id: str
    issued: authorities.IssuedCertificate


async def _names_taken(tx: Tx, account_id: str, wanted: list[str]) -> set[str]:
    if not wanted:
        return set()
    c = certificates.c
    return set((await tx.scalars(sa.select(c.name).where(c.account_id == account_id, c.name.in_(wanted)))).all())


async def _record(
    tx: Tx, services: Services, account_id: str, project_id: str, made: Sequence[_Made]
) -> list[tuple[int, views.Summary]]:
    """Certificates, applications, versions, keys, events and audit of a batch: one statement a table."""
    if not made:
        return []
    now = services.clock.now()
    holders = [one for one in made if one.request.new is not None]
    new_keys = [one.request.new for one in holders if one.request.new is not None]
    key_ids = await keys.store_keys(tx, services, new_keys, account_id=account_id, project_id=project_id)
    key_of = {one.certificate_id: key_id for one, key_id in zip(holders, key_ids, strict=True)}
    tenant = {"account_id": account_id, "project_id": project_id}
    certificate_rows: list[dict[str, Any]] = []
    application_rows: list[dict[str, Any]] = []
    version_rows: list[dict[str, Any]] = []
    events: list[tuple[str, str, dict[str, Any]]] = []
    entries: list[audit.Entry] = []
    for one in made:
        leaf = read_certificate(one.issued.der)
        key_id = key_of.get(one.certificate_id)
        certificate_rows.append(tenant | _certificate_row(one, leaf, key_id, now))
        application_rows.append(tenant | _application_row(one, key_id, now))
        version_rows.append(tenant | _version_row(one, leaf, key_id, now))
        facts = {"version": 1, "sha256": leaf.sha256, "serial": leaf.serial}
        events.append((account_id, one.certificate_id, _told(one, leaf, project_id)))
        entries.append(
            audit.Entry(
                one.request.actor, "ccm:cert:issue", "certificate", one.certificate_id, project_id,
                after={"state": State.ISSUED.value, "names": list(one.request.names)} | facts,
            )
        )  # fmt: skip
    await tx.execute(sa.insert(certificates), certificate_rows)
    await tx.execute(sa.insert(applications), application_rows)
    await tx.execute(sa.insert(versions), version_rows)
    await services.events.publish_many(tx, "certificate.version_issued", events)
    await audit.record_many(tx, services, entries)
    return [
        (one.index, views.summary(SimpleNamespace(**row, tags={}, uploaded=False, notify=True, revision=1), now))
        for one, row in zip(made, certificate_rows, strict=True)
    ]


def _certificate_row(one: _Made, leaf: CertificateFacts, key_id: str | None, now: Any) -> dict[str, Any]:
    name, names = one.request.name or generated_name(), one.request.names
    unicode_names = [views.unicode_name(n) for n in names]
    return {
        "id": one.certificate_id, "name": name, "description": one.request.description, "ca": BUILTIN_CA,
        "stage": State.ISSUED.value, "auto_renew": one.request.auto_renew, "primary_name": names[0],
        "names": list(names), "current_version_id": one.version_id, "key_id": key_id,
        "search_text": store.search_text(name, names, unicode_names, leaf.sha256, leaf.serial),
        "key_algorithm": leaf.key_algorithm, "sha256": leaf.sha256, "serial": leaf.serial,
        "not_before": leaf.not_before, "not_after": leaf.not_after, "created_at": now, "updated_at": now,
    }  # fmt: skip


def _application_row(one: _Made, key_id: str | None, now: Any) -> dict[str, Any]:
    request = one.request
    return {
        "id": one.application_id, "certificate_id": one.certificate_id, "kind": "apply", "names": list(request.names),
        "domain_type": (DomainType.MULTI if len(request.names) > 1 else DomainType.SINGLE).value,
        "validation_method": VOUCHED, "per_name_methods": {}, "key_algorithm": request.key_algorithm,
        "csr_uploaded": request.new is None, "key_id": key_id, "submitted_at": now, "validated_at": now,
        "order_intended_at": now, "order_id": one.issued.id, "issued_at": now,
    }  # fmt: skip


def _version_row(one: _Made, leaf: CertificateFacts, key_id: str | None, now: Any) -> dict[str, Any]:
    return {"id": one.version_id, "certificate_id": one.certificate_id, "number": 1} | store.version_values(
        leaf, one.issued.chain_ders, application_id=one.application_id, key_id=key_id, issued_at=now
    )


def _told(one: _Made, leaf: CertificateFacts, project_id: str) -> dict[str, Any]:
    return views.version_issued_payload(
        version_id=one.version_id, number=1, application_id=one.application_id, leaf=leaf, project_id=project_id
    )
