"""Pure decisions: which methods a name may use, where a record goes, how old evidence may be, and what looks mean.

Every cause of failure has a code, a sentence that names what was seen where, and what to do about it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from certwright.kernel.names import DnsName, is_public_suffix, looks_like_ip, parse_dns_name, registrable_domain
from certwright.kernel.problems import Invalid, Problem, Refused, TooMany, Unavailable
from certwright.platform.resolver import Look, Outcome
from certwright.rooms.validation.rulepack import RulePack, dcv_usable_until, method_end
from certwright.rooms.validation.words import (
    CNAME_TARGET,
    MAILBOXES,
    VALUE_PREFIX,
    Act,
    CaaFacts,
    CaaRecord,
    CaaVerdict,
    CaKind,
    ChallengeStatus,
    Delegation,
    DnsFacts,
    DnsRecord,
    Explanation,
    FileAttempt,
    FileFacts,
    FileToPublish,
    Issuer,
    Mailing,
    Method,
    Offer,
    TlsAttempt,
    texts,
)

VALUE_BYTES = 20
VALUE_LIFE = timedelta(days=30)
_FILE_NAME_BYTES = 10
_BODY_SHOWN = 80

# 10 s, 30 s, 60 s … 10 min: quick while a person watches, easy on their servers afterwards.
_POLL = tuple(timedelta(seconds=s) for s in (10, 30, 60, 120, 300, 600))
# A zone's servers copy a change of ours within seconds.
_POLL_AUTOMATIC = (timedelta(seconds=1), timedelta(seconds=3), *_POLL)

_OWN_METHODS = (Method.DNS, Method.FILE, Method.EMAIL)

MAILINGS = 5
"""How often one application may write to the mailboxes of a domain."""
MAIL_AGAIN = timedelta(minutes=5)


# --- what to publish ---------------------------------------------------------------------------------------------


def fresh_value(entropy: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A value of 160 random bits (BR 1.6.1 asks for 112, we for 128), recognisable as ours in a zone."""
    return VALUE_PREFIX + base64.b32encode(entropy(VALUE_BYTES)).decode("ascii").lower()


def fresh_file_name(entropy: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Independent of the value, which must not be part of the request that fetches it (BR 3.2.2.4.18)."""
    return entropy(_FILE_NAME_BYTES).hex() + ".txt"


def record_place(name: DnsName, *, single: bool) -> str:
    """The name at which the DNS record goes: a single `www.` name and a wildcard at the name below them."""
    if name.is_wildcard:
        return name.base
    label, _, parent = name.ascii.partition(".")
    # www.com must not be validated at com: nobody below a public suffix speaks for it.
    if single and label == "www" and "." in parent and not is_public_suffix(parse_dns_name(parent)):
        return parent
    return name.ascii


def record_places(names: Sequence[str], *, single: bool) -> dict[str, str]:
    """Where the record of each of these names goes (A-labels, no IP addresses); `single`: the application has no other.

    Names below one that is shown anyway share its record: who shows a domain speaks for all below it (BR 3.2.2.4.7).
    """
    own = {name: record_place(parse_dns_name(name), single=single) for name in names}
    shown = set(own.values())
    return {
        name: min((above for above in shown if place == above or place.endswith("." + above)), key=len)
        for name, place in own.items()
    }


def is_delegable(record: DnsRecord) -> bool:
    """Whether a CNAME at the record's name hands it to another zone: a name that begins with an underscore is there for
    nothing but validation. At a host name a CNAME directs visitors, and says nothing about who vouches for the name."""
    return record.type == "TXT" and record.name.startswith("_")


def cname_instead(record: DnsRecord) -> DnsRecord | None:
    """The CNAME that does as well as a TXT record of ours, for names where no TXT record can be added; None for what
    another CA asks for, which knows nothing of it.

    The label comes from the value, so that applications for one name don't ask for the same CNAME.
    """
    if record.type != "TXT" or not record.value.startswith(VALUE_PREFIX):
        return None
    label = "_" + hashlib.sha256(record.value.encode()).hexdigest()[:16]
    return DnsRecord(f"{label}.{record.name}", "CNAME", f"{record.value.removeprefix(VALUE_PREFIX)}.{CNAME_TARGET}")


def mail_domain(name: str) -> str:
    """The domain whose mailboxes are written to: the registrable one, for few hosts take mail; of an internal name
    the name itself, without `*.` or `www.`."""
    parsed = parse_dns_name(name)
    return registrable_domain(parsed) or record_place(parsed, single=True)


def mailboxes(domain: str) -> tuple[str, ...]:
    return tuple(f"{local}@{domain}" for local in MAILBOXES)


def why_not_mail(mailing: Mailing | None, now: datetime) -> Problem | None:
    """Whether the mailboxes may be written to once more."""
    if mailing is None:
        return None
    if mailing.mailings >= MAILINGS:
        return Refused(
            "mailings_spent", f"The mailboxes of {mailing.domain} have been written to {mailing.mailings} times.",
            fix="Check that one of them is read, or withdraw the application and choose dns or file.",
        )  # fmt: skip
    wait = mailing.sent_at + MAIL_AGAIN - now
    if wait > timedelta(0):
        seconds = int(wait.total_seconds()) + 1
        return TooMany(
            "mailing_too_soon", f"The mailboxes of {mailing.domain} were written to a moment ago.",
            fix=f"Look into the mailboxes; ask again in {seconds} s.", extra={"retry_after": seconds},
        )  # fmt: skip
    return None


def validated_domain(name: str, method: Method, *, single: bool) -> str:
    """The domain that evidence speaks for once this name is validated."""
    if looks_like_ip(name):
        return name
    if method is Method.EMAIL:
        return mail_domain(name)
    parsed = parse_dns_name(name)
    return record_place(parsed, single=single) if covers_children(method) else parsed.ascii


def covers_children(method: Method) -> bool:
    """Whether control of a domain shown this way speaks for every name below it (BR 3.2.2.4, table of SC-101)."""
    return method in (Method.DNS, Method.DNS_01, Method.EMAIL)


# --- which methods -----------------------------------------------------------------------------------------------


def offers(name: str, kind: CaKind, now: datetime, pack: RulePack) -> tuple[Offer, ...]:
    """Every method of this kind of CA for one name today, refused ones with their reason.

    `ends` and `discouraged_since` are the dates for public CAs; an operator's own CA isn't bound by them.
    """
    methods = tuple(Method) if kind is CaKind.PUBLIC else _OWN_METHODS
    return tuple(_offer(name, method, kind, now, pack) for method in methods)


def _offer(name: str, method: Method, kind: CaKind, now: datetime, pack: RulePack) -> Offer:
    is_ip = looks_like_ip(name)
    public = kind is CaKind.PUBLIC
    end = method_end(pack, method)
    discouraged = pack.public_tls.method_discouraged.get(method)

    def offer(allowed: bool, code: str = "", reason: str = "") -> Offer:
        return Offer(
            method, allowed, code, reason,
            discouraged.isoformat() if discouraged else None, end.date().isoformat() if end else None,
        )  # fmt: skip

    if public and end is not None and now >= end:
        return offer(False, "method_ended", f"Public CAs may not use {method} any more since {end.date()}.")
    if is_ip and covers_children(method):
        return offer(False, "method_not_for_ip", f"An IP address has no zone of its own, so {method} can't be used.")
    if name.startswith("*.") and method in pack.public_tls.exact_fqdn_only:
        return offer(
            False, "method_not_for_wildcard", f"{method} proves one exact name only and never a wildcard; use dns."
        )
    return offer(True)


def require_method(name: str, method: str, kind: CaKind, now: datetime, pack: RulePack) -> Method:
    """The method if this name may use it today; raises Invalid with the offer's code otherwise."""
    known = {offer.method.value: offer for offer in offers(name, kind, now, pack)}
    offer = known.get(method)
    allowed = [m for m, o in known.items() if o.allowed]
    fix = f"Choose one of: {', '.join(allowed)}."
    if offer is None:
        raise Invalid(
            "method_unknown", f"{method!r} is not a validation method of this CA.", field="validation_method", fix=fix
        )
    if not offer.allowed:
        raise Invalid(offer.code, f"{name}: {offer.reason}", field="validation_method", fix=fix)
    return offer.method


# --- evidence and time -------------------------------------------------------------------------------------------


def evidence_covers(domain: str, method: Method, name: str) -> bool:
    """Whether evidence for `domain` speaks for `name` (an IP address, host name or wildcard)."""
    if looks_like_ip(name) or not covers_children(method):
        return domain == name
    base = name.removeprefix("*.")
    return base == domain or base.endswith("." + domain)


def domains_that_would_cover(name: str) -> tuple[str, ...]:
    """Every domain whose evidence might cover `name`: itself, its base, and the domains above."""
    if looks_like_ip(name):
        return (name,)
    out = [name]
    at = name.removeprefix("*.")
    while at:
        if at not in out:
            out.append(at)
        at = at.partition(".")[2]
    return tuple(out)


def evidence_until(method: Method, validated_at: datetime, kind: CaKind, pack: RulePack) -> datetime:
    """The last moment of issue this evidence is good for."""
    return dcv_usable_until(pack, method, validated_at, public=kind is CaKind.PUBLIC)


EVIDENCE_WARNING = timedelta(days=30)
"""How long before evidence runs out it is said that a renewal will miss it."""


def planned_renewal(not_before: datetime, not_after: datetime, pack: RulePack) -> datetime:
    """When a version is due for renewal where its CA says nothing else (rules-2026)."""
    fallback, life = pack.renewal_fallback, not_after - not_before
    short = life < timedelta(days=10)
    return not_before + life * (fallback.fraction_if_life_under_10_days if short else fallback.fraction_of_life)


def evidence_gap(
    until: Mapping[str, datetime | None], automatic: Iterable[str], needed_at: datetime
) -> dict[str, datetime | None]:
    """Of names with the moment their best evidence ends (None: there is none), those a renewal at `needed_at` will miss
    it for, and for which somebody has to do something."""
    by_itself = set(automatic)
    return {
        name: end for name, end in until.items() if name not in by_itself and (end is None or end < needed_at)
    }  # fmt: skip


def warn_at(gap: Mapping[str, datetime | None], now: datetime) -> datetime:
    """When to say that evidence runs out too early: at once where there is none, else in time to act."""
    ends = [end for end in gap.values() if end is not None]
    return now if len(ends) < len(gap) else min(ends) - EVIDENCE_WARNING


def challenge_status(
    *, validated_at: datetime | None, cancelled_at: datetime | None, expires_at: datetime, now: datetime
) -> ChallengeStatus:
    if validated_at is not None:
        return ChallengeStatus.VALID
    if cancelled_at is not None:
        return ChallengeStatus.CANCELLED
    return ChallengeStatus.EXPIRED if now >= expires_at else ChallengeStatus.PENDING


def poll_after(checks_done: int, *, automatic: bool = False) -> timedelta:
    """How long to wait before looking again by ourselves."""
    waits = _POLL_AUTOMATIC if automatic else _POLL
    return waits[min(checks_done, len(waits) - 1)]


def next_act(
    *,
    automatic: bool,
    write_intended_at: datetime | None,
    written_at: datetime | None,
    removed_at: datetime | None,
    released_at: datetime | None,
    cancelled_at: datetime | None,
    validated_at: datetime | None,
    expires_at: datetime,
    now: datetime,
) -> Act:
    """The first missing fact of a challenge. A record that may have been written is removed once it is of no use."""
    may_stand = automatic and write_intended_at is not None and removed_at is None
    if cancelled_at is not None or released_at is not None or now >= expires_at:
        return Act.REMOVE if may_stand else Act.DONE
    if validated_at is not None:
        return Act.HOLD if may_stand else Act.DONE
    return Act.WRITE if automatic and written_at is None else Act.CHECK


def evidence_scope(method: Method) -> str:
    return "subtree" if covers_children(method) else "exact"


# --- CAA ---------------------------------------------------------------------------------------------------------

_CAA = re.compile(r'^(\d{1,3}) ([A-Za-z0-9]+) "?(.*?)"?$')
_CAA_KNOWN = frozenset(("issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"))
_CRITICAL = 128


def parse_caa(values: Iterable[str]) -> tuple[CaaRecord, ...]:
    """Records from presentation form; one that can't be read counts as unknown and critical."""
    out = []
    for value in values:
        match = _CAA.match(value)
        out.append(
            CaaRecord(int(match[1]), match[2].lower(), match[3]) if match else CaaRecord(_CRITICAL, "unreadable", value)
        )
    return tuple(out)


def caa_verdict(facts: CaaFacts, issuer: Issuer) -> CaaVerdict:
    """May this CA issue? (RFC 8659 4.2, 4.3; RFC 8657 for account and method; BR 3.2.2.8: a failed look-up is a no.)"""
    if facts.failure is not None:
        code, fix = ("caa_dnssec_failure", "Mend the zone's signatures or its DS record at the registry") if (
            facts.broken
        ) else ("caa_lookup_failed", "Mend the zone's DNS servers or DNSSEC")  # fmt: skip
        return CaaVerdict(
            False, code, f"The CAA records of {facts.name} can't be looked up: {facts.failure}.",
            f"{fix}; a CA must treat this as a no.",
        )  # fmt: skip
    found = tuple(f'{facts.at}. CAA {r.flags} {r.tag} "{r.value}"' for r in facts.records)
    if facts.at is None:
        return CaaVerdict(True, "caa_none", f"No CAA record limits who may issue for {facts.name}.")
    unknown = [r for r in facts.records if r.flags & _CRITICAL and r.tag not in _CAA_KNOWN]
    if unknown:
        return CaaVerdict(
            False, "caa_unknown_critical",
            f"The CAA set at {facts.at} holds the unknown critical tag {unknown[0].tag!r}; no CA may issue.",
            "Correct or remove that record.", (), found,
        )  # fmt: skip
    wild = [r for r in facts.records if r.tag == "issuewild"] if facts.wildcard else []
    relevant = wild or [r for r in facts.records if r.tag == "issue"]
    if not relevant:
        return CaaVerdict(
            True, "caa_permits", f"The CAA records at {facts.at} don't limit who may issue.", "", (), found
        )
    read = [_issue_value(r.value) for r in relevant]
    wanted = {identifier.lower() for identifier in issuer.identifiers}
    ours = [(domain, parameters) for domain, parameters in read if domain in wanted and parameters is not None]
    judged = [_narrowed(parameters or {}, issuer) for _, parameters in ours]
    if None in judged:
        who = ", ".join(sorted(wanted))
        return CaaVerdict(True, "caa_permits", f"The CAA records at {facts.at} permit {who}.", "", (), found)
    add = caa_record(facts.at, issuer, "issuewild" if wild else "issue")
    fix = f"Add: {add}" if add else ""
    records = (add,) if add else ()
    if judged:
        code, sentence = judged[0] or ("", "")
        return CaaVerdict(False, code, f"The CAA record at {facts.at} {sentence}.", fix, records, found)
    named = {domain if given is not None else f"{domain} (unreadable)" for domain, given in read if domain}
    who = ", ".join(sorted(named)) or "nobody"
    return CaaVerdict(
        False, "caa_forbids", f"The CAA records at {facts.at} let only {who} issue for {facts.name}.", fix, records,
        found,
    )  # fmt: skip


def caa_record(at: str, issuer: Issuer, tag: str) -> str:
    """The record, as in a zone file, that lets this CA issue; empty for a CA that has no CAA domain name."""
    return f'{at}. CAA 0 {tag} "{issuer.identifiers[0]}"' if issuer.identifiers else ""


_PARAMETER = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)")


def _issue_value(value: str) -> tuple[str, Mapping[str, str] | None]:
    """(issuer's domain name, parameters) of an issue or issuewild value; None: it can't be read, and permits nobody
    (RFC 8659 4.2)."""
    domain, *rest = (part.strip(" \t") for part in value.split(";"))
    if not all(label and all(c.isascii() and (c.isalnum() or c == "-") for c in label) for label in domain.split(".")):
        return ("" if not domain else domain.lower()), None
    parameters: dict[str, str] = {}
    for part in rest:
        if not part:
            continue
        match = _PARAMETER.fullmatch(part)
        # Said twice, nobody knows which counts (RFC 8657 3, 4).
        if match is None or match[1].lower() in parameters:
            return domain.lower(), None
        parameters[match[1].lower()] = match[2]
    return domain.lower(), parameters


def _narrowed(parameters: Mapping[str, str], issuer: Issuer) -> tuple[str, str] | None:
    """Why parameters of RFC 8657 keep this CA from issuing in this way; None when they don't."""
    account = parameters.get("accounturi")
    if account is not None and issuer.account_uri is not None and account != issuer.account_uri:
        return "caa_forbids_account", f"permits only the account {account}, not {issuer.account_uri}"
    if "validationmethods" in parameters and issuer.methods:
        allowed = [method for method in parameters["validationmethods"].split(",") if method]
        missing = [method for method in issuer.methods if method not in allowed]
        if missing:
            shown = ", ".join(allowed) or "none"
            return "caa_forbids_method", f"permits validation by {shown} only, not by {', '.join(missing)}"
    return None


def caa_block(verdicts: Sequence[CaaVerdict]) -> Refused | Unavailable | None:
    """Why nothing may be ordered yet: Refused where CAA says no, Unavailable where it can't be looked up now."""
    said = [verdict for verdict in verdicts if not verdict.allowed]
    if not said:
        return None
    sentence = " ".join(verdict.sentence for verdict in said[:5])
    fix = " ".join(dict.fromkeys(verdict.fix for verdict in said[:5] if verdict.fix))
    extra = {"add": [line for verdict in said for line in verdict.add], "codes": [verdict.code for verdict in said]}
    waits = ("caa_lookup_failed", "caa_dnssec_failure")
    first = next((verdict for verdict in said if verdict.code not in waits), None)
    if first is not None:
        return Refused(first.code, sentence, fix=fix, extra=extra)
    return Unavailable(said[0].code, sentence, fix=fix, extra=extra)


# --- explaining DNS ----------------------------------------------------------------------------------------------


def other_places(record: DnsRecord, zone: str) -> tuple[tuple[str, bool], ...]:
    """Where people publish the record by mistake: (name, whether it is the doubled zone suffix)."""
    places: list[tuple[str, bool]] = [(f"{record.name}.{zone}", True)]
    if record.name != zone:
        places.append((zone, False))
        parent = record.name.partition(".")[2]
        if parent != zone:
            places.append((parent, False))
    if not record.name.startswith("www."):
        places.append((f"www.{record.name}", False))
    places += [(f"{label}.{record.name}", False) for label in ("_dnsauth", "_acme-challenge")]
    return tuple(places)


def is_registry(zone: str, name: str) -> bool:
    """Whether the enclosing zone is the root or a registry's: then the domain itself has no zone."""
    return zone == "" or (zone != name and is_public_suffix(DnsName(zone, zone)))


def holds(look: Look, record: DnsRecord) -> bool:
    """Whether this look shows the expected value itself, at the name itself."""
    if record.type == "CNAME":
        return any(_same_name(alias, record.value) for alias in (*look.aliases[:1], *look.values))
    return look.outcome is Outcome.FOUND and not look.aliases and record.value in look.values


def explain_dns(facts: DnsFacts) -> Explanation:
    """The first cause that keeps this record from being accepted, or ok. See tests for each."""
    if facts.delegation is not None:
        return _explain_delegated(facts, facts.delegation)
    record = facts.record
    if facts.dnssec_failure is not None:
        return _dns(
            facts, "dns_dnssec_failure",
            f"DNSSEC of {facts.zone or record.name} is broken ({facts.dnssec_failure}); a CA must refuse, whatever the "
            "record says.",
            "Mend the zone's signatures or its DS record at the registry, or remove the DS record.",
        )  # fmt: skip
    if facts.zone is None:
        return _explain_no_zone(facts)
    if facts.ca_identifiers and facts.caa is not None:
        verdict = caa_verdict(facts.caa, Issuer(facts.ca_identifiers))
        if not verdict.allowed:
            return _dns(facts, verdict.code, verdict.sentence, verdict.fix)
    answered = [look for look in facts.authoritative if look.outcome in _ANSWERS]
    having = [look for look in answered if holds(look, record)]
    silent = [look for look in facts.authoritative if look.outcome not in _ANSWERS]
    if having and len(having) == len(answered):
        return _explain_found(facts, having, silent)
    if having:
        missing = [look.server for look in answered if not holds(look, record)]
        return _dns(
            facts, "dns_not_everywhere",
            f"{len(having)} of {len(answered)} servers of {facts.zone} have the record; not yet: {', '.join(missing)}.",
            "Wait until the zone's servers have copied the change, then check again.",
        )  # fmt: skip
    return _explain_missing(facts, answered)


_ANSWERS = frozenset((Outcome.FOUND, Outcome.NO_SUCH_NAME, Outcome.NO_SUCH_TYPE, Outcome.ALIAS))


def _explain_delegated(facts: DnsFacts, delegation: Delegation) -> Explanation:
    asked, path = delegation.names[0], " → ".join(delegation.names)
    if delegation.loops:
        return _dns(
            facts, "dns_cname_loop", f"The CNAMEs of {asked} lead nowhere: {path}.",
            f"Let {asked} lead to one name that can hold the {facts.record.type} record, or remove it.",
        )  # fmt: skip
    said = explain_dns(replace(facts, delegation=None))
    seen = {**said.seen, "delegation": list(delegation.names)}
    return replace(said, sentence=f"{asked} leads to {delegation.names[-1]} by CNAME. {said.sentence}", seen=seen)


def _explain_found(facts: DnsFacts, having: Sequence[Look], silent: Sequence[Look]) -> Explanation:
    record, note = facts.record, ""
    late = [look for look in facts.resolvers if look.outcome in _ANSWERS and not holds(look, record)]
    if late:
        who = ", ".join(f"{look.server} ({look.ttl} s left)" if look.ttl else look.server for look in late)
        note = f" Older answers are still in the cache of the resolver {who}."
    if silent:
        note += f" No answer from: {', '.join(look.server for look in silent)}."
    others = sorted({value for look in having for value in look.values} - {record.value})
    return Explanation(
        True, "dns_ok",
        f"The {record.type} record at {record.name} was found at {_count(having, 'server')} of {facts.zone}.{note}",
        "", _dns_seen(facts) | ({"other_values": others} if others else {}),
    )  # fmt: skip


def _explain_no_zone(facts: DnsFacts) -> Explanation:
    record = facts.record
    look = facts.resolvers[0] if facts.resolvers else None
    if look is None or look.outcome in (Outcome.TIMEOUT, Outcome.UNREACHABLE, Outcome.MALFORMED, Outcome.REFUSED):
        server = look.server if look else "no DNS server"
        return _dns(
            facts, "dns_resolver_unreachable", f"The zone of {record.name} can't be found: {server} doesn't answer.",
            "Check the setting dns_servers and that DNS is not blocked by a firewall.",
        )  # fmt: skip
    if look.outcome is Outcome.SERVER_FAILURE:
        return _dns(
            facts, "dns_server_failure",
            f"{look.server} answers SERVFAIL for {record.name}: the zone's servers are down or its DNSSEC is broken.",
            "Check that every server of the zone answers, and the DS record at the registry.",
        )  # fmt: skip
    return _dns(
        facts, "dns_no_such_zone", f"No DNS zone holds {record.name}: the domain isn't registered or not delegated.",
        "Check the spelling and the domain's registration.",
    )  # fmt: skip


def _explain_missing(facts: DnsFacts, answered: Sequence[Look]) -> Explanation:
    record, zone = facts.record, facts.zone
    operators = ", ".join(facts.nameservers) or "no server"
    elsewhere = [look.server for look in facts.written_at if holds(look, record)]
    if elsewhere:
        return _dns(
            facts, "dns_wrong_operator",
            f"The record is at {', '.join(elsewhere)}, but {zone} is served by {operators}, where it isn't.",
            f"Publish it with the operator of {operators}, or change the NS records at the registry.",
        )  # fmt: skip
    if not answered:
        return _explain_silence(facts, operators)
    if facts.other_type is not None:
        return _dns(
            facts, "dns_wrong_type",
            f"The value is at {record.name}, but as {facts.other_type.type} instead of {record.type}.",
            f"Delete that record and add one of type {record.type}.",
        )  # fmt: skip
    if record.type != "CNAME":
        aliased = next((look for look in answered if look.aliases), None)
        if aliased is not None and is_delegable(record):
            missing = [look.server for look in answered if look.aliases != aliased.aliases]
            return _dns(
                facts, "dns_not_everywhere",
                f"{aliased.server} has {record.name} as a CNAME of {aliased.aliases[0]}; not so: {', '.join(missing)}.",
                "Wait until the zone's servers have copied the change, then check again.",
            )  # fmt: skip
        if aliased is not None:
            return _dns(
                facts, "dns_cname_conflict",
                f"{record.name} is a CNAME of {aliased.aliases[0]}, and a CNAME allows no other record beside it.",
                "Add the CNAME that does as well, where one is shown; else remove this one while validating, or choose "
                "file validation.",
            )  # fmt: skip
    found = list(dict.fromkeys(v for look in answered for v in look.values))
    if found:
        return _explain_values(facts, found)
    if facts.misplaced is not None:
        where = facts.misplaced.name
        if facts.misplaced.doubled_zone:
            return _dns(
                facts, "dns_doubled_zone",
                f"The record is at {where}: the zone's name was added twice.",
                f"Enter the name without {zone}, or end it with a dot, so that it becomes {record.name}.",
            )  # fmt: skip
        return _dns(
            facts, "dns_wrong_name", f"The record is at {where} instead of {record.name}.",
            f"Move it to {record.name}.",
        )  # fmt: skip
    served = f"The zone {zone} is served by {operators}; a record published anywhere else has no effect."
    if all(look.outcome is Outcome.NO_SUCH_NAME for look in answered):
        return _dns(
            facts, "dns_no_such_name", f"{record.name} doesn't exist at the servers of {zone} ({operators}).",
            f"Add the {record.type} record. {served}",
        )  # fmt: skip
    return _dns(
        facts, "dns_no_record", f"{record.name} has no {record.type} record at the servers of {zone} ({operators}).",
        f"Add the {record.type} record. {served}",
    )  # fmt: skip


def _explain_values(facts: DnsFacts, found: Sequence[str]) -> Explanation:
    record = facts.record
    if any(value.strip().strip("\"'“”") == record.value for value in found):
        return _dns(
            facts, "dns_value_quoted",
            f"The value at {record.name} has quotation marks or spaces of its own: {texts(found)}.",
            "Enter the value without quotation marks; your DNS console adds them.",
        )  # fmt: skip
    old = [v for v in found if v in facts.previous_values or (v.startswith(VALUE_PREFIX) and record.type == "TXT")]
    if old:
        return _dns(
            facts, "dns_old_value",
            f"{record.name} still has an earlier value ({texts(old)}) instead of the one asked for now.",
            f"Replace it with {record.quoted}; the old one can be deleted.",
        )  # fmt: skip
    if len(found) > 1:
        return _dns(
            facts, "dns_several_values",
            f"{record.name} has {len(found)} {record.type} values, none of them the one asked for: {texts(found)}.",
            f"Add {record.quoted} beside them; the others may stay.",
        )  # fmt: skip
    return _dns(
        facts, "dns_wrong_value", f"{record.name} has another {record.type} value: {texts(found)}.",
        f"Add {record.quoted}." + (" The other may stay." if record.type == "TXT" else ""),
    )  # fmt: skip


def _explain_silence(facts: DnsFacts, operators: str) -> Explanation:
    zone = facts.zone
    outcomes = {look.outcome for look in facts.authoritative}
    if outcomes == {Outcome.REFUSED}:
        return _dns(
            facts, "dns_not_served",
            f"The domain is delegated to {operators}, but these servers don't serve {zone}.",
            "Create the zone there, or point the NS records at the registry to the operator that has it.",
        )  # fmt: skip
    if outcomes == {Outcome.FORBIDDEN_ADDRESS}:
        details = sorted({look.detail for look in facts.authoritative})
        return _dns(
            facts, "dns_server_forbidden", f"The servers of {zone} ({operators}) are at {details[0]}.",
            "If it is meant, start the server with their network in CERTWRIGHT_ALLOWED_NETWORKS=10.0.0.0/8.",
        )  # fmt: skip
    said = "; ".join(f"{look.server}: {look.detail or look.outcome.replace('_', ' ')}" for look in facts.authoritative)
    return _dns(
        facts, "dns_servers_unreachable", f"No server of {zone} gives an answer ({said or operators}).",
        "Check that the zone's servers run and answer over UDP and TCP port 53.",
    )  # fmt: skip


def _dns(facts: DnsFacts, code: str, sentence: str, fix: str) -> Explanation:
    return Explanation(False, code, sentence, fix, _dns_seen(facts))


def _dns_seen(facts: DnsFacts) -> dict[str, Any]:
    """What was seen where, for the ledger and for people who want to look themselves."""
    seen: dict[str, Any] = {
        "record": facts.record.as_dict(),
        "zone": facts.zone,
        "nameservers": list(facts.nameservers),
        "authoritative": [look_as_dict(look) for look in facts.authoritative],
        "resolvers": [look_as_dict(look) for look in facts.resolvers],
    }
    if facts.written_at:
        seen["written_at"] = [look_as_dict(look) for look in facts.written_at]
    if facts.caa is not None:
        verdict = caa_verdict(facts.caa, Issuer(facts.ca_identifiers))
        seen["caa"] = {"code": verdict.code, "message": verdict.sentence} if facts.ca_identifiers else {
            "at": facts.caa.at, "records": [f"{r.flags} {r.tag} {r.value}" for r in facts.caa.records],
            "failure": facts.caa.failure,
        }  # fmt: skip
    return seen


def look_as_dict(look: Look) -> dict[str, Any]:
    out: dict[str, Any] = {"server": look.server, "outcome": str(look.outcome), "values": list(look.values[:10])}
    if look.aliases:
        out["aliases"] = list(look.aliases)
    if look.ttl is not None:
        out["ttl"] = look.ttl
    if look.authentic:
        out["dnssec"] = True
    if look.detail:
        out["detail"] = look.detail
    return out


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"all {len(things)} {noun}s"


def _same_name(left: str, right: str) -> bool:
    return left.rstrip(".").lower() == right.rstrip(".").lower()


def explain_either(txt: Explanation, cname: Explanation) -> Explanation:
    """A TXT record and the CNAME that does as well: either passes; otherwise what was published is explained, which is
    the TXT record unless only the CNAME is there."""
    only_cname = txt.code in _NOTHING_THERE and cname.code not in _NOTHING_THERE
    return cname if not txt.ok and (cname.ok or only_cname) else txt


_NOTHING_THERE = ("dns_no_such_name", "dns_no_record")


# --- explaining mail ---------------------------------------------------------------------------------------------


def explain_mail(mailing: Mailing) -> Explanation:
    """Nobody has confirmed yet; that somebody has is evidence, and needs no explanation."""
    return Explanation(
        False, "email_not_confirmed",
        f"Nobody has followed the link mailed to {len(mailing.addresses)} mailboxes of {mailing.domain} yet.",
        f"Open the mail in one of {', '.join(mailing.addresses)} and confirm, or have it sent again.",
        {"mail": mailing.as_dict()},
    )  # fmt: skip


# --- explaining files --------------------------------------------------------------------------------------------

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def explain_tls_alpn(attempt: TlsAttempt, expected: str) -> Explanation:
    """`expected` is the key authorization the certificate must hold the digest of."""
    where = f"{attempt.name} port {attempt.port}"
    if attempt.code == "egress_tls" or (attempt.code is None and not attempt.spoke):
        code = "tls_alpn_not_spoken"
        sentence = f"What answers at {where} doesn't speak acme-tls/1."
        fix = "Hand connections that ask for this protocol to the address in CERTWRIGHT_TLS_ALPN_LISTEN."
    elif attempt.code is not None:
        code, sentence, fix = attempt.code, attempt.message, attempt.fix
    elif attempt.names != (attempt.name,) or attempt.digest is None:
        code = "tls_alpn_other_certificate"
        sentence = f"What answers at {where} shows the certificate of {texts(attempt.names) or 'nobody'}."
        fix = "Hand the connections through as they are: what ends TLS in between hides our answer."
    elif attempt.digest != hashlib.sha256(expected.encode()).digest():
        code = "tls_alpn_other_value"
        sentence = f"What answers at {where} answers for another order."
        fix = "Make sure that only this server answers acme-tls/1 for the name."
    else:
        code, sentence, fix = "tls_alpn_found", f"The challenge's certificate is served at {where}.", ""
    seen = {"address": attempt.address, "names": list(attempt.names[:10])}
    return Explanation(code == "tls_alpn_found", code, sentence, fix, seen)


def file_matches(attempt: FileAttempt, file: FileToPublish) -> bool:
    """A 2xx answer with exactly the content, apart from white space around it and a byte order mark."""
    if attempt.status is None or not 200 <= attempt.status < 300:
        return False
    return attempt.body.removeprefix(_BYTE_ORDER_MARK).strip() == file.content.encode()


def explain_file(facts: FileFacts) -> Explanation:
    """Whether one of the attempts shows the file; otherwise what kept the first (http) from it."""
    seen = {"url": facts.file.url, "attempts": [_attempt_as_dict(attempt) for attempt in facts.attempts]}
    for attempt in facts.attempts:
        if file_matches(attempt, facts.file):
            via = f" after {len(attempt.redirects)} redirects" if attempt.redirects else ""
            return Explanation(
                True, "file_ok", f"The file was found at {attempt.url} ({attempt.address}){via}.", "", seen
            )
    code, sentence, fix = _explain_attempt(facts.attempts[0], facts.file)
    return Explanation(False, code, sentence, fix, seen)


_FILE_CODES: Mapping[str, tuple[str, str]] = {
    "egress_refused": ("file_connection_refused", "Start the web server, or open the port in the firewall."),
    "egress_bad_redirect": ("file_bad_redirect", "Serve the file at its own address, or redirect by the rules."),
    "egress_timeout": ("file_timeout", "Check that the site can be reached from outside and answers quickly."),
    "egress_too_large": ("file_too_large", "The file must hold the given text and nothing else."),
    "egress_denied": (
        "file_network_denied",
        "If it is meant, start the server with the site's network in CERTWRIGHT_ALLOWED_NETWORKS=10.0.0.0/8.",
    ),
    "egress_dns": ("file_host_not_found", "Add an A or AAAA record for exactly this name."),
    "egress_tls": ("file_tls_failure", "Serve the file over http, or mend the server's TLS."),
    "egress_protocol": ("file_not_http", "Check which program answers on that port."),
}


def _explain_attempt(attempt: FileAttempt, file: FileToPublish) -> tuple[str, str, str]:
    if attempt.code is not None:
        code, fix = _FILE_CODES.get(attempt.code, ("file_unreachable", "Check the address in a browser."))
        return code, f"{attempt.url} can't be fetched: {attempt.message}", fix
    assert attempt.status is not None, "an attempt without a problem has a status"
    if 300 <= attempt.status < 400:
        return (
            "file_bad_redirect", f"{attempt.url} answers with the redirect {attempt.status}, which isn't followed.",
            _FILE_CODES["egress_bad_redirect"][1],
        )  # fmt: skip
    if not 200 <= attempt.status < 300:
        reason = _STATUS_HINTS.get(attempt.status, "Publish the file there so that it answers 200.")
        return "file_not_2xx", f"{attempt.url} answers with status {attempt.status} instead of 2xx.", reason
    shown = attempt.body[:_BODY_SHOWN].decode("utf-8", "backslashreplace")
    what = f"begins with {shown!r}" if shown.strip() else "is empty"
    return (
        "file_wrong_content", f"{attempt.url} is there, but its content {what}.",
        f"The file must hold exactly {file.content!r} as plain text.",
    )  # fmt: skip


_STATUS_HINTS = {
    401: "Let everyone read this file without signing in.",
    403: "Let everyone read this file.",
    404: "Publish the file at exactly this path; check the document root of this host name.",
}


def _attempt_as_dict(attempt: FileAttempt) -> dict[str, Any]:
    out: dict[str, Any] = {"url": attempt.url}
    if attempt.address:
        out["address"] = attempt.address
    if attempt.status is not None:
        out["status"] = attempt.status
        out["first_bytes"] = attempt.body[:_BODY_SHOWN].decode("utf-8", "backslashreplace")
    if attempt.redirects:
        out["redirects"] = list(attempt.redirects)
    if attempt.code:
        out["code"], out["message"] = attempt.code, attempt.message
    return out
