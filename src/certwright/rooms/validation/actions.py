"""What other rooms and doors ask of validation: require, look at, cancel, check now, and read the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from certwright.kernel.actor import Actor, system_actor
from certwright.kernel.ids import new_id
from certwright.kernel.names import looks_like_ip, parse_dns_name
from certwright.kernel.problems import Invalid, Problem, Refused, Unavailable
from certwright.platform.db import Tx
from certwright.platform.limits import CheckLimit
from certwright.platform.resolver import Nameserver
from certwright.platform.services import Services
from certwright.rooms import access
from certwright.rooms.validation import checks, connections, ledger, mails, rules, store
from certwright.rooms.validation.connections import STEP
from certwright.rooms.validation.ports import longest_zone
from certwright.rooms.validation.rulebook import rules_of
from certwright.rooms.validation.rulepack import RulePack, method_end
from certwright.rooms.validation.tables import challenges, dns_connections, evidence
from certwright.rooms.validation.words import (
    ACME_WELL_KNOWN,
    WELL_KNOWN,
    CaaVerdict,
    CaKind,
    ChallengeStatus,
    DnsRecord,
    DomainResult,
    DomainState,
    Evidence,
    Explanation,
    FileToPublish,
    Issuer,
    Mailing,
    Method,
    Offer,
    ValidationState,
    Wanted,
)

# No evidence was ever good for longer (BR 4.2.1), so that older rows need no look.
_OLDEST_EVIDENCE = timedelta(days=400)
_CHECK_NOW_AT_ONCE = 8
CHECK_NOW_SECONDS = 20.0


async def require_domains(
    tx: Tx,
    services: Services,
    *,
    account_id: str,
    project_id: str,
    subject_id: str,
    names: Sequence[str],
    method: str,
    per_name_methods: Mapping[str, str],
    ca: str,
    now: datetime,
    ca_kind: CaKind = CaKind.PRIVATE,
) -> None:
    """In the caller's transaction, make every name either valid by earlier evidence or a pending challenge.

    `names` are A-labels, wildcards or IP addresses; `subject_id` is the application. Names whose record goes to the
    same place share one value. Raises Invalid (field validation_method or per_name_methods.<name>) for a method that
    can't show a name today.
    """
    single = len(names) == 1
    pack = await rules_of(tx, account_id)
    chosen = {name: _method(name, method, per_name_methods, ca_kind, now, pack) for name in names}
    known = await _usable_evidence(tx, account_id, project_id, ca, names, ca_kind, now, pack)
    by_dns = [name for name, how in chosen.items() if how is Method.DNS and name not in known]
    places = rules.record_places(by_dns, single=single)
    holders = await holders_of(tx, account_id, project_id, sorted(set(places.values())))
    values = {place: rules.fresh_value() for place in places.values()}
    rows: list[dict[str, Any]] = []
    for position, name in enumerate(names):
        how, found = chosen[name], known.get(name)
        row: dict[str, Any] = {
            "id": new_id("chal", now), "account_id": account_id, "project_id": project_id, "subject_id": subject_id,
            "position": position, "name": name, "method": how.value, "ca": ca, "ca_kind": ca_kind.value,
            "domain": rules.validated_domain(name, how, single=single), "created_at": now,
            "expires_at": now + rules.VALUE_LIFE, "value": None, "record_name": None, "record_type": None,
            "file_name": None, "connection_id": None, "validated_at": None, "evidence_id": None,
        }  # fmt: skip
        if found is not None:
            row |= {"evidence_id": found, "validated_at": now}
        elif how is Method.DNS:
            place = places[name]
            row |= {"record_name": place, "record_type": "TXT", "value": values[place], "domain": place,
                    "connection_id": holders.get(place)}  # fmt: skip
        elif how is Method.FILE:
            row |= {"file_name": rules.fresh_file_name(), "value": rules.fresh_value()}
        rows.append(row)
    await store.insert_challenges(tx, rows)
    await mails.write_all(tx, services, subject_id, now)
    looked_for = [row["id"] for row in rows if row["evidence_id"] is None and row["method"] != Method.EMAIL]
    await services.jobs.start(tx, STEP, *looked_for)


async def publish(
    tx: Tx,
    services: Services,
    *,
    account_id: str,
    project_id: str,
    subject_id: str,
    wanted: Sequence[Wanted],
    ca: str,
    ca_kind: CaKind,
    now: datetime,
) -> None:
    """In the caller's transaction, make what a CA wants to see pending challenges of an application: shown by whoever
    shows our own, and `DOMAINS_VALIDATED` once all of it is in place. The CA's own look comes after that.

    Content to be called twice; the caller holds a lock that keeps it from being called at the same time.
    """
    if await store.of_subject(tx, subject_id):
        return
    records = (Method.DNS_01, Method.DNS)
    places = sorted({one.place for one in wanted if one.method in records})
    holders = await holders_of(tx, account_id, project_id, places)
    rows: list[dict[str, Any]] = []
    for position, one in enumerate(wanted):
        dns = one.method in records
        rows.append({
            "id": new_id("chal", now), "account_id": account_id, "project_id": project_id, "subject_id": subject_id,
            "position": position, "name": one.name, "method": one.method.value, "ca": ca, "ca_kind": ca_kind.value,
            "domain": one.name.removeprefix("*."), "created_at": now, "expires_at": one.until, "value": one.value,
            "record_name": one.place if dns else None, "record_type": one.record_type if dns else None,
            "file_name": None if dns else one.place or None, "connection_id": holders.get(one.place) if dns else None,
        })  # fmt: skip
    await store.insert_challenges(tx, rows)
    await services.jobs.start(tx, STEP, *(row["id"] for row in rows))


def _method(
    name: str, method: str, per_name_methods: Mapping[str, str], kind: CaKind, now: datetime, pack: RulePack
) -> Method:
    chosen = per_name_methods.get(name)
    try:
        how = rules.require_method(name, chosen or method, kind, now, pack)
    except Invalid as problem:
        raise (problem.at(f"per_name_methods.{name}") if chosen else problem) from None
    if how not in (Method.DNS, Method.FILE, Method.EMAIL):
        raise Invalid(
            "method_not_available", f"{how} isn't done by this server itself.", field="validation_method",
            fix="Choose dns, file or email.",
        )  # fmt: skip
    return how


async def _usable_evidence(
    tx: Tx,
    account_id: str,
    project_id: str,
    ca: str,
    names: Sequence[str],
    kind: CaKind,
    now: datetime,
    pack: RulePack,
) -> dict[str, str]:
    """For each name that needs nothing new, the id of the evidence that lasts longest."""
    best = await _best_evidence(tx, account_id, project_id, ca, names, kind, now, pack)
    return {name: row.id for name, (_, row) in best.items()}


async def evidence_ends(
    tx: Tx,
    account_id: str,
    project_id: str,
    ca: str,
    names: Sequence[str],
    kind: CaKind,
    now: datetime,
    pack: RulePack,
) -> dict[str, datetime | None]:
    """For each name until when the evidence there is counts; None: there is none that counts now."""
    best = await _best_evidence(tx, account_id, project_id, ca, names, kind, now, pack)
    return {name: best[name][0] if name in best else None for name in names}


async def _best_evidence(
    tx: Tx,
    account_id: str,
    project_id: str,
    ca: str,
    names: Sequence[str],
    kind: CaKind,
    now: datetime,
    pack: RulePack,
) -> dict[str, tuple[datetime, store.Row]]:
    """For each name that has any, the evidence that lasts longest, with its end."""
    domains = sorted({domain for name in names for domain in rules.domains_that_would_cover(name)})
    rows = await store.evidence_for(tx, account_id, project_id, ca, domains, now - _OLDEST_EVIDENCE)
    usable = [
        (rules.evidence_until(Method(row.method), row.validated_at, kind, pack), row)
        for row in rows
        if row.validated_at <= now and rules.evidence_until(Method(row.method), row.validated_at, kind, pack) > now
    ]
    usable.sort(key=lambda pair: pair[0], reverse=True)
    found: dict[str, tuple[datetime, store.Row]] = {}
    for name in names:
        for end, row in usable:
            if rules.evidence_covers(row.domain, Method(row.method), name):
                found[name] = (end, row)
                break
    return found


async def holders_of(tx: Tx, account_id: str, project_id: str, places: Sequence[str]) -> dict[str, str]:
    """For each record name, the connection of the project whose zone holds it most closely."""
    zones = sorted({zone for place in places for zone in rules.domains_that_would_cover(place)})
    if not zones:
        return {}
    rows = await store.connections_of_project(tx, account_id, project_id, zones)
    found: dict[str, str] = {}
    for place in places:
        held = [(len(zone), row.id) for row in rows if (zone := longest_zone(place, row.zones)) is not None]
        if held:
            # The longest zone wins; of equals the oldest connection.
            found[place] = min(held, key=lambda pair: (-pair[0], pair[1]))[1]
    return found


async def state(tx: Tx, services: Services, subject_id: str, now: datetime) -> ValidationState:
    """Every name of an application as it stands at `now`; what evidence is too old by then counts as expired."""
    rows = await store.of_subject(tx, subject_id)
    if not rows:
        return ValidationState(False, ())
    pack = await rules_of(tx, rows[0].account_id)
    mailed = await _mailed(tx, rows)
    domains = tuple(domain_state(services, row, now, pack, mailed) for row in rows)
    return ValidationState(all(d.status is ChallengeStatus.VALID for d in domains), domains)


async def _mailed(tx: Tx, rows: Sequence[store.Row]) -> Mapping[str, Mailing]:
    """What was mailed for the names of one application, by domain."""
    by_mail = [row.subject_id for row in rows if row.method == Method.EMAIL]
    return await mails.mailings_of(tx, by_mail[0]) if by_mail else {}


def domain_state(
    services: Services, row: store.Row, now: datetime, pack: RulePack, mailed: Mapping[str, Mailing]
) -> DomainState:
    """From a row of `store.of_subject`; `mailed` by domain."""
    status = rules.challenge_status(
        validated_at=row.validated_at, cancelled_at=row.cancelled_at, expires_at=row.expires_at, now=now
    )
    until: datetime | None = None
    if row.seen_at is not None:
        until = rules.evidence_until(Method(row.seen_method), row.seen_at, CaKind(row.ca_kind), pack)
        status = ChallengeStatus.VALID if now <= until else ChallengeStatus.EXPIRED
    asked, ends = record_of(row), method_end(pack, row.method)
    record = replace(asked, name=row.leads_to) if asked is not None and row.leads_to else asked
    return DomainState(
        name=row.name,
        method=Method(row.method),
        status=status,
        automatic=row.connection_id is not None or row.method == Method.TLS_ALPN_01,
        connection_id=row.connection_id,
        record=record,
        instead=rules.cname_instead(record) if record is not None else None,
        delegated_from=row.record_name if row.leads_to else None,
        file=file_of(services, row),
        responder=services.settings.tls_alpn_listen if row.method == Method.TLS_ALPN_01 else None,
        mailing=mailed.get(row.domain) if row.method == Method.EMAIL else None,
        ends=ends.date().isoformat() if ends is not None else None,
        explanation=row.explanation,
        checked_at=row.checked_at,
        next_check_at=row.next_step_at if status is ChallengeStatus.PENDING else None,
        evidence_id=row.evidence_id,
        valid_until=until,
        expires_at=row.expires_at if status is ChallengeStatus.PENDING else None,
        challenge_id=row.id,
    )


def record_of(row: store.Row) -> DnsRecord | None:
    """The record as it is asked for; its name may be a CNAME (`leads_to`)."""
    return DnsRecord(row.record_name, row.record_type, row.value) if row.record_name and row.value else None


def file_of(services: Services, row: store.Row) -> FileToPublish | None:
    if not (row.file_name and row.value):
        return None
    folder = ACME_WELL_KNOWN if row.method == Method.HTTP_01 else WELL_KNOWN
    return FileToPublish(row.name, row.file_name, row.value, services.settings.validation_http_port, folder)


async def tls_alpn_answers(tx: Tx, now: datetime) -> dict[str, str]:
    """For whoever answers tls-alpn-01: by name the key authorization a CA, or our own look, may ask for now."""
    return await store.tls_alpn_answers(tx, now)


async def cancel(tx: Tx, subject_id: str, now: datetime) -> None:
    """Give up what is pending; records we wrote are removed by their next step. Content to be called twice."""
    await store.cancel(tx, subject_id, now)


async def move(tx: Tx, subject_ids: Sequence[str], project_id: str) -> None:
    """What is shown for these applications goes to another project with them. Evidence stays where it was found: it
    vouches for the names of whoever may apply there."""
    await store.move(tx, subject_ids, project_id)


async def check_now(services: Services, actor: Actor, subject_id: str) -> tuple[DomainResult, ...]:
    """Look at every pending name at once, record what was found, and say it. Names for which the time (20 s) didn't
    suffice keep their place in the queue and answer with what was seen last. Raises TooMany `checks_throttled`."""
    services.port(CheckLimit).take(actor.account_id, services.clock.now())
    visible = access.visible(challenges, actor, "scm:validation:check")
    async with services.db.begin() as tx:
        before = await store.of_subject(tx, subject_id, visible)
        pack = await rules_of(tx, actor.account_id)
        mailed = await _mailed(tx, before)
    now = services.clock.now()
    shown = {row.id: domain_state(services, row, now, pack, mailed) for row in before}
    pending = [row for row in before if shown[row.id].status is ChallengeStatus.PENDING]
    gate = asyncio.Semaphore(_CHECK_NOW_AT_ONCE)
    fresh: dict[str, Explanation] = {}

    async def look(row: store.Row) -> None:
        mailing = shown[row.id].mailing
        if mailing is not None:
            fresh[row.id] = rules.explain_mail(mailing)
            return
        async with gate:
            try:
                fresh[row.id] = await examine(services, actor, row)
            except Problem as problem:
                # One name's trouble (its DNS connection is gone, say) must not hide what the others showed.
                fresh[row.id] = Explanation(False, problem.code, problem.message, problem.fix)

    tasks = [asyncio.create_task(look(row)) for row in pending]
    if tasks:
        done, late = await asyncio.wait(tasks, timeout=CHECK_NOW_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            task.result()
    async with services.db.begin() as tx:
        after = await store.of_subject(tx, subject_id, visible)
    now = services.clock.now()
    return tuple(_result(row, domain_state(services, row, now, pack, mailed), fresh.get(row.id)) for row in after)


def _result(row: store.Row, shown: DomainState, fresh: Explanation | None) -> DomainResult:
    said = fresh
    if said is None and shown.explanation is not None:
        kept = dict(shown.explanation)
        said = Explanation(
            bool(kept.get("ok")), str(kept.get("code", "")), str(kept.get("message", "")), str(kept.get("fix", "")),
            kept.get("seen", {}),
        )  # fmt: skip
    if said is None and shown.status is ChallengeStatus.EXPIRED:
        said = Explanation(
            False, "validation_expired", f"The value for {row.name} was good for 30 days and has expired.",
            "Withdraw the application and submit it again to get a new one.",
        )  # fmt: skip
    return DomainResult(row.name, shown.method, shown.status, said)


async def examine(services: Services, actor: Actor, row: store.Row) -> Explanation:
    """Look at one pending challenge and record the outcome. No transaction may be open."""
    explanation = await _look(services, row)
    await record_outcome(services, actor, row, explanation)
    return explanation


async def _look(services: Services, row: store.Row) -> Explanation:
    record, file = record_of(row), file_of(services, row)
    if record is not None:
        written_at: tuple[Nameserver, ...] = ()
        if row.connection_id is not None and row.written_at is not None:
            written_at = await (await connections.open_writer(services, row.connection_id)).servers()
        async with services.db.read() as tx:
            earlier = await store.previous_values(tx, row.account_id, record.name, services.clock.now())
        wildcard = row.name.startswith("*.")
        facts = await checks.gather_dns(
            services.resolver, record, written_at=written_at, previous_values=earlier, wildcard=wildcard
        )
        said = rules.explain_dns(facts)
        instead = rules.cname_instead(record)
        if said.ok or instead is None or row.connection_id is not None:
            return said
        other = await checks.gather_dns(services.resolver, instead, wildcard=wildcard)
        return rules.explain_either(said, rules.explain_dns(other))
    if row.method == Method.TLS_ALPN_01:
        port = services.settings.validation_tls_port
        return rules.explain_tls_alpn(await checks.gather_tls_alpn(services.egress, row.name, port), row.value)
    assert file is not None, "a pending challenge that is looked at has a record or a file"
    said = rules.explain_file(await checks.gather_file(services.egress, file))
    # Who said where the site is belongs to what was seen.
    return replace(said, seen={**said.seen, "resolved_by": [str(server) for server in services.resolver.servers]})


async def record_outcome(services: Services, actor: Actor, row: store.Row, explanation: Explanation) -> None:
    """Keep what a check said; when it passed, write the evidence, and tell others if it was the last name."""
    now = services.clock.now()
    async with services.db.begin() as tx:
        await store.lock_subject(tx, row.subject_id)
        if not await store.checked(tx, row.id, now, explanation.as_dict()) or not explanation.ok:
            return
        if now < row.expires_at:
            await ledger.keep(tx, services, actor, row, {"message": explanation.sentence, **explanation.seen}, now)


def acting(row: store.Row) -> Actor:
    """The product itself, for steps."""
    return system_actor(row.account_id, "validation")


# --- the check-it tool -------------------------------------------------------------------------------------------


async def check_dns(
    services: Services,
    actor: Actor,
    *,
    name: str,
    rdtype: str,
    value: str,
    connection_id: str | None = None,
    ca_identifiers: Sequence[str] = (),
) -> Explanation:
    """ "Does it take effect?" for any record; with a connection, also whether it only stands there."""
    access.require_somewhere(actor, "scm:validation:check")
    services.port(CheckLimit).take(actor.account_id, services.clock.now())
    owner = _owner(name)
    if not value.strip() or len(value) > 4000:
        raise Invalid("check_value_invalid", "The value is empty or longer than 4000 characters.", field="value",
                      fix="Enter the value the record should have.")  # fmt: skip
    if rdtype not in ("TXT", "CNAME"):
        raise Invalid(
            "check_type_invalid", f"{rdtype!r} is not TXT or CNAME.", field="type", fix="Choose TXT or CNAME."
        )
    written_at: tuple[Nameserver, ...] = ()
    if connection_id is not None:
        visible = access.visible(dns_connections, actor, "dns:connection:get")
        async with services.db.begin() as tx:
            if await store.connection(tx, connection_id, visible) is None:
                raise Refused("dns_connection_unknown", "There is no such DNS connection that you may see.",
                              field="connection_id", fix="List the DNS connections to find its id.")  # fmt: skip
        written_at = await (await connections.open_writer(services, connection_id)).servers()
    facts = await checks.gather_dns(
        services.resolver, DnsRecord(owner, rdtype, value), written_at=written_at, ca_identifiers=ca_identifiers
    )
    return rules.explain_dns(facts)


async def check_file(services: Services, actor: Actor, *, host: str, file_name: str, content: str) -> Explanation:
    """Whether the site that answers for `host` serves this file below /.well-known/pki-validation/."""
    access.require_somewhere(actor, "scm:validation:check")
    services.port(CheckLimit).take(actor.account_id, services.clock.now())
    plain = host.strip()
    if not looks_like_ip(plain):
        parsed = parse_dns_name(plain, field="host")
        if parsed.is_wildcard:
            raise Invalid("method_not_for_wildcard", "A file is served by one exact name, never by a wildcard.",
                          field="host", fix=f"Enter {parsed.base}.")  # fmt: skip
        plain = parsed.ascii
    if not file_name or len(file_name) > 200 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in file_name):
        raise Invalid("check_file_name_invalid", "The file name has characters other than letters, digits and . _ -.",
                      field="file_name", fix="Enter the name alone, without a path.")  # fmt: skip
    if not content.strip() or len(content) > 4000:
        raise Invalid("check_value_invalid", "The content is empty or longer than 4000 characters.", field="content",
                      fix="Enter what the file should hold.")  # fmt: skip
    file = FileToPublish(plain, file_name, content.strip(), services.settings.validation_http_port)
    return rules.explain_file(await checks.gather_file(services.egress, file))


async def check_caa(
    services: Services,
    actor: Actor,
    *,
    name: str,
    ca_identifiers: Sequence[str],
    methods: Sequence[str] = (),
    account_uri: str | None = None,
) -> CaaVerdict:
    """May a CA with these CAA domain names issue for the name today? `methods` and `account_uri` are what RFC 8657
    narrows; without them its parameters are not looked at."""
    access.require_somewhere(actor, "scm:validation:check")
    services.port(CheckLimit).take(actor.account_id, services.clock.now())
    parsed = parse_dns_name(name, field="name")
    facts = await checks.gather_caa(services.resolver, parsed.base, wildcard=parsed.is_wildcard)
    return rules.caa_verdict(facts, Issuer(tuple(ca_identifiers), tuple(methods), account_uri))


async def why_caa_forbids(
    services: Services, *, identifiers: Sequence[str], methods: Mapping[str, str], account_uri: str | None
) -> Refused | Unavailable | None:
    """Before anything is ordered from a CA that heeds CAA: why it would refuse (Refused) or can't be asked for the
    moment (Unavailable: look-ups fail, or DNSSEC is broken); None when it may issue. `methods` gives what
    CAA calls the method of each name, empty where it has no word for it; IP addresses have no CAA. Call outside any
    transaction."""
    gate = asyncio.Semaphore(_CHECK_NOW_AT_ONCE)

    async def judge(name: str, method: str) -> CaaVerdict:
        parsed = parse_dns_name(name)
        async with gate:
            facts = await checks.gather_caa(services.resolver, parsed.base, wildcard=parsed.is_wildcard)
        return rules.caa_verdict(facts, Issuer(tuple(identifiers), (method,) if method else (), account_uri))

    asked = [judge(name, method) for name, method in methods.items() if not looks_like_ip(name)]
    return rules.caa_block(await asyncio.gather(*asked))


async def method_offers(services: Services, actor: Actor, name: str, kind: CaKind) -> tuple[Offer, ...]:
    """Which methods this kind of CA takes for one name today."""
    plain = name if looks_like_ip(name) else parse_dns_name(name, field="name").ascii
    async with services.db.read() as tx:
        pack = await rules_of(tx, actor.account_id)
    return rules.offers(plain, kind, services.clock.now(), pack)


def _owner(name: str) -> str:
    """A record's name: host name rules, but labels may begin with an underscore (RFC 8552)."""
    labels = name.strip().removesuffix(".").split(".")
    if all(label.lstrip("_") for label in labels):
        parse_dns_name(".".join(label.lstrip("_") for label in labels), field="name")
        if any(label.startswith("_") for label in labels) and name.isascii():
            return ".".join(labels).lower()
    return parse_dns_name(name, field="name").ascii


# --- the ledger --------------------------------------------------------------------------------------------------


async def list_evidence(
    services: Services, actor: Actor, *, domain: str | None = None, after: str | None = None, limit: int = 20
) -> tuple[Evidence, ...]:
    """Newest first; `after` is the id of the last one seen."""
    visible = access.visible(evidence, actor, "scm:evidence:list")
    async with services.db.begin() as tx:
        rows = await store.list_evidence(tx, visible, domain=domain, after=after, limit=limit)
        pack = await rules_of(tx, actor.account_id)
    return tuple(
        Evidence(
            row.id, row.project_id, row.domain, row.scope, Method(row.method), row.ca, CaKind(row.ca_kind),
            row.subject_id, row.validated_at,
            rules.evidence_until(Method(row.method), row.validated_at, CaKind(row.ca_kind), pack), row.seen,
        )
        for row in rows
    )  # fmt: skip
