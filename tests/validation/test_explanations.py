"""Each cause the check-it tool tells apart, provoked at real servers: two Knot DNS and a validating BIND."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import pytest

from certwright.kernel.problems import Unavailable
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress
from certwright.platform.resolver import Nameserver, Resolver
from certwright.rooms.validation.checks import gather_caa, gather_dns, gather_file
from certwright.rooms.validation.rules import caa_block, caa_verdict, explain_dns, explain_file
from certwright.rooms.validation.words import DnsRecord, Explanation, FileToPublish, Issuer
from tests.servers.dns import authoritative, ds_of, validating_resolver, zone_text
from tests.servers.dnssec import signed_zone
from tests.servers.hostile_dns import hostile_dns, reply
from tests.servers.hostile_http import answer, endless, hostile_http, raw, silent
from tests.servers.ports import free_port
from tests.validation.servers import require

VALUE = "certwright-validation=abcdefgh"
LABEL = VALUE.replace("=", r"\061")  # Knot reads "=" in names only in escaped form
ZONE = "example.test"
GUARD = AddressGuard.of(["127.0.0.0/8"])
BOTH = {f"ns1.{ZONE}": "127.0.0.1", f"ns2.{ZONE}": "127.0.0.2"}

# Names that are there for validation only, handed on by CNAME.
DELEGATED = [
    "_acme-challenge.good CNAME good.target.test.",
    f"_acme-challenge.chain CNAME _hop.{ZONE}.\n_hop CNAME good.target.test.",
    "_acme-challenge.empty CNAME empty.target.test.",
    "_acme-challenge.stale CNAME stale.target.test.",
    f"_acme-challenge.circle CNAME _circle.{ZONE}.\n_circle CNAME _acme-challenge.circle.{ZONE}.",
    f"_acme-challenge.self CNAME _acme-challenge.self.{ZONE}.",
    "_acme-challenge.nowhere CNAME x.nosuch.domain.",
    "_acme-challenge.lame CNAME x.lame.test.",
    "_acme-challenge.forged CNAME forged.test.",
    "_acme-challenge.lost CNAME lost.moved.test.",
    '_acme-challenge.barred CNAME good.target.test.\nbarred CAA 0 issue "ca.other.test"',
    *(f"_long{n} CNAME _long{n + 1}.{ZONE}." for n in range(12)),
]

RECORDS = [
    *DELEGATED,
    f'ok TXT "{VALUE}"',
    f'joined TXT "v=spf1 -all"\njoined TXT "{VALUE}"',
    f'split TXT "{VALUE[:10]}" "{VALUE[10:]}"',
    f'doubled.{ZONE} TXT "{VALUE}"',
    f'www.misplaced TXT "{VALUE}"',
    f"typed CNAME {LABEL}",
    'old TXT "certwright-validation=zyxwvu"',
    'other TXT "google-site-verification=1"',
    'several TXT "google-site-verification=1"\nseveral TXT "v=spf1 -all"',
    f'quoted TXT "\\"{VALUE}\\""',
    "alias CNAME lb.cloud.test.",
    "exists A 127.0.0.1",
    f"cname CNAME {LABEL}.elsewhere.test.",
    f'untyped TXT "{VALUE}.elsewhere.test"',
    f'limited TXT "{VALUE}"\nlimited CAA 0 issue "ca.other.test"',
    f'mine TXT "{VALUE}"\nmine CAA 0 issue "ca.ours.test; accounturi=https://x/1"\nmine CAA 0 issue ";"',
    f'nobody TXT "{VALUE}"\nnobody CAA 0 issue ";"',
    f'odd TXT "{VALUE}"\nodd CAA 128 surprise "x"',
    f"pointing CNAME limited.{ZONE}.",
    f'below CAA 0 issue "ca.below.test"\nblind.below CNAME exists.{ZONE}.',
    f'wild TXT "{VALUE}"\nwild CAA 0 issue "ca.ours.test"\nwild CAA 0 issuewild "ca.other.test"',
]


@dataclass(frozen=True)
class Servers:
    """`first` holds every zone, `second` part of them; `resolver` validates and asks `first`."""

    port: int
    resolver: Resolver
    first: Nameserver


def root_zone() -> str:
    lines = ["$ORIGIN .", "$TTL 300", "@ SOA ns.rootserver. host. 1 3600 600 86400 5", "@ NS ns.rootserver."]
    return "\n".join([*lines, "ns.rootserver. A 127.0.0.1"]) + "\n"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    require("knotd", "named", "keymgr")
    directory: Path = tmp_path_factory.mktemp("dns")
    port = free_port("127.0.0.1", "127.0.0.2")
    records = [f'@ TXT "{VALUE}"', '@ CAA 0 issue "ca.ours.test"']
    # Signed as they should be; then somebody put our value in, and the signatures of the other ran out.
    forged = signed_zone("forged.test", ['@ TXT "something-else"']).with_changed("something-else", VALUE)
    overdue = signed_zone("overdue.test", records, expired=True)
    target = zone_text("target.test", [f'good TXT "{VALUE}"', 'stale TXT "certwright-validation=zyxwvu"'])
    first_zones = {
        "target.test": target,
        ZONE: zone_text(ZONE, [*RECORDS, f'late TXT "{VALUE}"', "_late CNAME good.target.test."], BOTH),
        "moved.test": zone_text(
            "moved.test", [f'@ TXT "{VALUE}"', f'lost TXT "{VALUE}"'], {"ns.moved.test": "127.0.0.2"}
        ),
        "lame.test": zone_text("lame.test", [], {"ns.lame.test": "127.0.0.2"}),
        "dead.test": zone_text("dead.test", [], {"ns.dead.test": "127.0.0.3"}),
        "inside.test": zone_text("inside.test", [], {"ns.inside.test": "10.0.0.1"}),
        "nameless.test": zone_text("nameless.test", [], {"ns.nowhere.test": "127.0.0.1"}),
        "signed.test": zone_text("signed.test", [f'@ TXT "{VALUE}"', 'caa CAA 0 issue ";"']),
        "forged.test": forged.text,
        "overdue.test": overdue.text,
        "broken.test": zone_text("broken.test", [f'@ TXT "{VALUE}"']),
        ".": root_zone(),
    }
    second_zones = {
        ZONE: zone_text(ZONE, RECORDS, BOTH),
        "moved.test": zone_text("moved.test", [], {"ns.moved.test": "127.0.0.2"}),
    }
    with (
        authoritative(directory / "first", first_zones, port=port, signed=["signed.test"]) as first,
        authoritative(directory / "second", second_zones, port=port, address="127.0.0.2"),
    ):
        ds = ds_of(directory / "first", "signed.test")
        wrong = re.sub(r"[0-9a-f]{64}", "ab" * 32, ds)
        anchors = {"signed.test": ds, "broken.test": wrong, "forged.test": forged.ds, "overdue.test": overdue.ds}
        with validating_resolver(directory / "resolver", {".": first.endpoint}, anchors) as recursive:
            resolver = Resolver([recursive.endpoint], guard=GUARD, authoritative_port=port, timeout=4)
            yield Servers(port, resolver, Nameserver("127.0.0.1", port, "ns.connection.test"))


def check(servers: Servers, name: str, rdtype: str = "TXT", value: str = VALUE, **options: Any) -> Explanation:
    return explain_dns(asyncio.run(gather_dns(servers.resolver, DnsRecord(name, rdtype, value), **options)))


@pytest.mark.parametrize("name", [f"ok.{ZONE}", f"joined.{ZONE}", f"split.{ZONE}", "signed.test"])
def test_a_record_at_every_server_is_accepted(servers: Servers, name: str) -> None:
    explanation = check(servers, name)
    assert (explanation.ok, explanation.code) == (True, "dns_ok")
    assert all(look["outcome"] == "found" for look in explanation.seen["authoritative"])


def test_what_a_validating_resolver_confirmed_is_noted(servers: Servers) -> None:
    assert check(servers, "signed.test").seen["resolvers"][0]["dnssec"] is True


CAUSES: list[tuple[str, str, list[str]]] = [
    (f"nothing.{ZONE}", "dns_no_such_name", ["doesn't exist", "ns1.example.test, ns2.example.test"]),
    (f"exists.{ZONE}", "dns_no_record", ["no TXT record"]),
    (f"doubled.{ZONE}", "dns_doubled_zone", [f"doubled.{ZONE}.{ZONE}", "twice"]),
    (f"misplaced.{ZONE}", "dns_wrong_name", [f"www.misplaced.{ZONE} instead of misplaced.{ZONE}"]),
    (f"typed.{ZONE}", "dns_wrong_type", ["as CNAME instead of TXT"]),
    (f"old.{ZONE}", "dns_old_value", ["certwright-validation=zyxwvu"]),
    (f"other.{ZONE}", "dns_wrong_value", ["google-site-verification=1"]),
    (f"several.{ZONE}", "dns_several_values", ["2 TXT values", "v=spf1 -all"]),
    (f"quoted.{ZONE}", "dns_value_quoted", ["quotation marks"]),
    (f"alias.{ZONE}", "dns_cname_conflict", ["CNAME of lb.cloud.test"]),
    (f"late.{ZONE}", "dns_not_everywhere", ["1 of 2 servers", "not yet: ns2.example.test (127.0.0.2"]),
    ("lame.test", "dns_not_served", ["delegated to ns.lame.test"]),
    ("dead.test", "dns_servers_unreachable", ["127.0.0.3"]),
    ("nameless.test", "dns_servers_unreachable", ["ns.nowhere.test", "has no address"]),
    ("inside.test", "dns_server_forbidden", ["private address"]),
    ("nosuch.domain", "dns_no_such_zone", ["isn't registered"]),
    ("broken.test", "dns_dnssec_failure", ["DNSSEC of broken.test"]),
    ("forged.test", "dns_dnssec_failure", ["DNSSEC of forged.test"]),
    ("overdue.test", "dns_dnssec_failure", ["DNSSEC of overdue.test"]),
]


@pytest.mark.parametrize(("name", "code", "words"), CAUSES, ids=[f"{code}-{name}" for name, code, _ in CAUSES])
def test_every_cause_has_its_code_and_names_what_was_seen(
    servers: Servers, name: str, code: str, words: list[str]
) -> None:
    explanation = check(servers, name)
    assert (explanation.ok, explanation.code) == (False, code), explanation.sentence
    for word in words:
        assert word in explanation.sentence
    assert explanation.fix
    assert explanation.seen["record"]["name"] == name


DELEGATIONS: list[tuple[str, str, list[str]]] = [
    ("_acme-challenge.empty", "dns_no_such_name", ["empty.target.test doesn't exist at the servers of target.test"]),
    ("_acme-challenge.stale", "dns_old_value", ["stale.target.test still has an earlier value"]),
    ("_acme-challenge.nowhere", "dns_no_such_zone", ["No DNS zone holds x.nosuch.domain"]),
    ("_acme-challenge.lame", "dns_not_served", ["don't serve lame.test"]),
    ("_acme-challenge.forged", "dns_dnssec_failure", ["DNSSEC of forged.test"]),
]
LOOPS: list[tuple[str, str]] = [
    ("_acme-challenge.circle", f"_acme-challenge.circle.{ZONE} → _circle.{ZONE} → _acme-challenge.circle.{ZONE}"),
    ("_acme-challenge.self", f"_acme-challenge.self.{ZONE} → _acme-challenge.self.{ZONE}"),
    ("_long0", f"_long7.{ZONE} → _long8.{ZONE}"),
]


@pytest.mark.parametrize("label", ["_acme-challenge.good", "_acme-challenge.chain"])
def test_a_record_where_the_cname_of_a_validation_name_leads_is_accepted(servers: Servers, label: str) -> None:
    explanation = check(servers, f"{label}.{ZONE}")
    assert (explanation.ok, explanation.code) == (True, "dns_ok"), explanation.sentence
    assert explanation.sentence.startswith(f"{label}.{ZONE} leads to good.target.test by CNAME.")
    assert explanation.seen["delegation"][-1] == "good.target.test"
    assert explanation.seen["zone"] == "target.test"


@pytest.mark.parametrize(("label", "code", "words"), DELEGATIONS, ids=[code for _, code, _ in DELEGATIONS])
def test_what_is_wrong_where_a_cname_leads_is_told_with_both_names(
    servers: Servers, label: str, code: str, words: list[str]
) -> None:
    explanation = check(servers, f"{label}.{ZONE}")
    assert (explanation.ok, explanation.code) == (False, code), explanation.sentence
    for word in [f"{label}.{ZONE} leads to ", *words]:
        assert word in explanation.sentence
    assert explanation.fix


@pytest.mark.parametrize(("label", "path"), LOOPS)
def test_cnames_that_lead_nowhere_are_told_with_their_path(servers: Servers, label: str, path: str) -> None:
    explanation = check(servers, f"{label}.{ZONE}")
    assert (explanation.ok, explanation.code) == (False, "dns_cname_loop"), explanation.sentence
    assert path in explanation.sentence


def test_a_cname_that_not_every_server_has_is_not_yet_everywhere(servers: Servers) -> None:
    explanation = check(servers, f"_late.{ZONE}")
    assert explanation.code == "dns_not_everywhere"
    assert "as a CNAME of good.target.test; not so: ns2.example.test (127.0.0.2" in explanation.sentence


def test_a_record_written_for_a_delegated_name_at_the_wrong_operator_names_the_right_one(servers: Servers) -> None:
    explanation = check(servers, f"_acme-challenge.lost.{ZONE}", written_at=[servers.first])
    assert explanation.code == "dns_wrong_operator"
    assert "moved.test is served by ns.moved.test" in explanation.sentence


def test_caa_of_a_delegated_name_is_that_of_the_name_asked_for(servers: Servers) -> None:
    explanation = check(servers, f"_acme-challenge.barred.{ZONE}", ca_identifiers=["ca.ours.test"])
    assert explanation.code == "caa_forbids"
    assert f"CAA records at barred.{ZONE}" in explanation.sentence


def test_a_cname_of_a_host_name_is_never_taken_for_a_delegation(servers: Servers) -> None:
    assert check(servers, f"pointing.{ZONE}").code == "dns_cname_conflict"


def test_a_record_at_the_old_operator_names_the_servers_that_count(servers: Servers) -> None:
    explanation = check(servers, "moved.test", written_at=[servers.first])
    assert explanation.code == "dns_wrong_operator"
    assert "ns.connection.test (127.0.0.1" in explanation.sentence
    assert "served by ns.moved.test" in explanation.sentence


def test_a_value_asked_for_before_is_told_as_old_even_without_our_prefix(servers: Servers) -> None:
    explanation = check(servers, f"other.{ZONE}", previous_values=frozenset(["google-site-verification=1"]))
    assert explanation.code == "dns_old_value"


def test_a_cname_record_is_checked_by_its_target(servers: Servers) -> None:
    target = f"{VALUE}.elsewhere.test"
    assert check(servers, f"cname.{ZONE}", "CNAME", target).code == "dns_ok"
    assert check(servers, f"untyped.{ZONE}", "CNAME", target).code == "dns_wrong_type"
    assert check(servers, f"alias.{ZONE}", "CNAME", target).code == "dns_wrong_value"
    assert check(servers, f"nothing.{ZONE}", "CNAME", target).code == "dns_no_such_name"


@pytest.mark.parametrize(
    ("name", "wildcard", "code"),
    [
        ("limited", False, "caa_forbids"),
        ("nobody", False, "caa_forbids"),
        ("odd", False, "caa_unknown_critical"),
        ("wild", True, "caa_forbids"),
        ("wild", False, "dns_ok"),
        ("mine", False, "dns_ok"),
        ("mine", True, "dns_ok"),
        ("ok", False, "dns_ok"),
    ],
)
def test_caa_decides_for_a_ca_that_heeds_it(servers: Servers, name: str, wildcard: bool, code: str) -> None:
    explanation = check(servers, f"{name}.{ZONE}", ca_identifiers=["ca.ours.test"], wildcard=wildcard)
    assert explanation.code == code
    if code == "caa_forbids" and name == "limited":
        assert "only ca.other.test" in explanation.sentence
        assert explanation.fix == 'Add: limited.example.test. CAA 0 issue "ca.ours.test"'


def test_caa_is_only_for_information_where_the_ca_does_not_heed_it(servers: Servers) -> None:
    explanation = check(servers, f"limited.{ZONE}")
    assert explanation.ok
    assert explanation.seen["caa"]["records"] == ["0 issue ca.other.test"]


@pytest.mark.parametrize("name", ["broken.test", "overdue.test", "a.overdue.test"])
def test_caa_behind_broken_dnssec_is_a_block_and_not_a_pass(servers: Servers, name: str) -> None:
    facts = asyncio.run(gather_caa(servers.resolver, name, wildcard=False))
    verdict = caa_verdict(facts, Issuer(("ca.ours.test",)))
    assert (verdict.allowed, verdict.code) == (False, "caa_dnssec_failure"), verdict.sentence
    assert isinstance(caa_block([verdict]), Unavailable)


def test_the_same_record_signed_properly_is_accepted(servers: Servers) -> None:
    assert check(servers, "signed.test").ok
    facts = asyncio.run(gather_caa(servers.resolver, "caa.signed.test", wildcard=False))
    assert caa_verdict(facts, Issuer(("ca.ours.test",))).code == "caa_forbids"


def test_caa_of_a_cname_is_that_of_its_target_and_else_that_of_the_name_above(servers: Servers) -> None:
    followed = asyncio.run(gather_caa(servers.resolver, f"pointing.{ZONE}", wildcard=False))
    assert (followed.at, [r.value for r in followed.records]) == (f"pointing.{ZONE}", ["ca.other.test"])
    bare = asyncio.run(gather_caa(servers.resolver, f"blind.below.{ZONE}", wildcard=False))
    assert (bare.at, [r.value for r in bare.records]) == (f"below.{ZONE}", ["ca.below.test"])


def test_caa_is_found_by_climbing(servers: Servers) -> None:
    facts = asyncio.run(gather_caa(servers.resolver, f"a.b.limited.{ZONE}", wildcard=False))
    assert facts.at == f"limited.{ZONE}"


def test_a_failed_caa_lookup_is_a_no() -> None:
    with hostile_dns(lambda query: reply(query, rcode=2)) as server:
        facts = asyncio.run(gather_caa(Resolver([server.endpoint]), "a.test", wildcard=False))
        verdict = caa_verdict(facts, Issuer(("ca.ours.test",)))
        assert (verdict.allowed, verdict.code) == (False, "caa_lookup_failed")


@pytest.mark.parametrize(
    ("rcode", "code"), [(2, "dns_server_failure"), (5, "dns_resolver_unreachable"), (None, "dns_resolver_unreachable")]
)
def test_a_resolver_that_does_not_help_is_told(rcode: int | None, code: str) -> None:
    with hostile_dns(lambda query: None if rcode is None else reply(query, rcode=rcode)) as server:
        # Who is answered has time for it, however busy the machine is.
        resolver = Resolver([server.endpoint], timeout=0.3 if rcode is None else 60)
        explanation = explain_dns(asyncio.run(gather_dns(resolver, DnsRecord("a.test", "TXT", VALUE))))
        assert (explanation.ok, explanation.code) == (False, code)


def test_servers_that_answer_as_late_as_they_can_do_not_hold_a_check_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certwright.rooms.validation.checks.LOOK_UP_SECONDS", 0.4)
    with hostile_dns(lambda query: None) as server:
        facts = asyncio.run(gather_dns(Resolver([server.endpoint], timeout=60), DnsRecord("a.b.test", "TXT", VALUE)))
        assert explain_dns(facts).code == "dns_resolver_unreachable"
        caa = asyncio.run(gather_caa(Resolver([server.endpoint], timeout=60), "a.b.test", wildcard=False))
        assert not caa_verdict(caa, Issuer(("ca.ours.test",))).allowed


def test_a_dead_delegation_is_not_mistaken_for_its_parent() -> None:
    def say(query: dns.message.Message) -> dns.message.Message:
        name = str(query.question[0].name)
        if name.endswith("dead.parent.test."):
            return reply(query, rcode=2)
        return reply(query, "parent.test. 5 IN SOA a. b. 1 2 3 4 5")

    with hostile_dns(say) as server:
        facts = asyncio.run(gather_dns(Resolver([server.endpoint]), DnsRecord("x.dead.parent.test", "TXT", VALUE)))
        assert explain_dns(facts).code == "dns_server_failure"


def test_a_resolver_with_an_old_answer_in_its_cache_does_not_hold_things_up(tmp_path: Path) -> None:
    require("knotd")
    zone = zone_text("cached.test", [f'@ TXT "{VALUE}"'])

    def stale(query: dns.message.Message) -> dns.message.Message:
        name, rdtype = query.question[0].name, query.question[0].rdtype
        known = {dns.rdatatype.SOA: "ns1.cached.test. host. 1 2 3 4 5", dns.rdatatype.NS: "ns1.cached.test.",
                 dns.rdatatype.A: "127.0.0.1"}  # fmt: skip
        if rdtype in known:
            return reply(query, f"{name} 5 IN {dns.rdatatype.to_text(rdtype)} {known[rdtype]}")
        return reply(query, authority=[f"{name} 5 IN SOA ns1. host. 1 2 3 4 5"])

    with authoritative(tmp_path, {"cached.test": zone}) as server, hostile_dns(stale) as cache:
        resolver = Resolver([cache.endpoint], guard=GUARD, authoritative_port=server.port)
        explanation = explain_dns(asyncio.run(gather_dns(resolver, DnsRecord("cached.test", "TXT", VALUE))))
        assert explanation.ok
        assert "Older answers are still in the cache of the resolver" in explanation.sentence


# --- files -------------------------------------------------------------------------------------------------------

FILE = FileToPublish("site.localhost", "0123456789.txt", VALUE)
TO_SSH = answer(302, Location="http://site.localhost:22/")
NOT_FILES: list[tuple[str, Any, str, list[str]]] = [
    ("wrong", answer(200, b"<html>Welcome to our shop</html>"), "file_wrong_content", ["begins with '<html>Welcome"]),
    ("empty", answer(200, b""), "file_wrong_content", ["is empty"]),
    ("longer", answer(200, VALUE.encode() + b"x"), "file_wrong_content", [VALUE + "x"]),
    ("404", answer(404), "file_not_2xx", ["status 404"]),
    ("403", answer(403), "file_not_2xx", ["status 403"]),
    ("503", answer(503, VALUE.encode()), "file_not_2xx", ["status 503"]),
    ("redirect-kind", answer(303, Location="/"), "file_bad_redirect", ["303"]),
    ("redirect-port", TO_SSH, "file_bad_redirect", ["port 22"]),
    ("redirect-scheme", answer(301, Location="ftp://site.localhost/"), "file_bad_redirect", ["http:// or https://"]),
    ("no-location", answer(302), "file_bad_redirect", ["302"]),
    ("loop", answer(301, Location=FILE.path), "file_bad_redirect", ["more than 10"]),
    ("huge", endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000), "file_too_large", ["8192 bytes"]),
    ("not-http", raw(b"SSH-2.0-OpenSSH\r\n"), "file_not_http", ["isn't HTTP"]),
]


def check_file(port: int, file: FileToPublish = FILE, guard: AddressGuard = GUARD) -> Explanation:
    egress = Egress(Resolver(["127.0.0.1:9"], guard=guard, timeout=0.3), guard)
    return explain_file(asyncio.run(gather_file(egress, replace(file, port=port))))


@pytest.mark.parametrize(
    "body", [VALUE.encode(), VALUE.encode() + b"\r\n", b"\xef\xbb\xbf" + VALUE.encode()], ids=["bare", "newline", "bom"]
)
def test_the_file_is_accepted(body: bytes) -> None:
    with hostile_http({FILE.path: answer(200, body)}) as site:
        explanation = check_file(site.port)
        assert (explanation.ok, explanation.code) == (True, "file_ok")
        assert f"Host: site.localhost:{site.port}" in site.requests[0]
        assert explanation.seen["attempts"][0]["address"] == "127.0.0.1"


def test_the_file_is_accepted_after_allowed_redirects() -> None:
    routes = {
        FILE.path: answer(308, Location="/a"),
        "/a": answer(302, Location="/b"),
        "/b": answer(200, VALUE.encode()),
    }
    with hostile_http(routes) as site:
        explanation = check_file(site.port)
        assert explanation.ok
        assert "after 2 redirects" in explanation.sentence


@pytest.mark.parametrize(("handler", "code", "words"), [c[1:] for c in NOT_FILES], ids=[c[0] for c in NOT_FILES])
def test_every_way_a_file_is_not_there_is_told(handler: Any, code: str, words: list[str]) -> None:
    with hostile_http({FILE.path: handler}) as site:
        explanation = check_file(site.port)
        assert (explanation.ok, explanation.code) == (False, code), explanation.sentence
        for word in words:
            assert word in explanation.sentence
        assert explanation.fix


def test_a_redirect_into_a_forbidden_network_is_denied() -> None:
    port = free_port("127.0.0.1")
    with hostile_http({FILE.path: answer(301, Location=f"http://10.0.0.1:{port}/")}, port=port):
        explanation = check_file(port)
        assert explanation.code == "file_network_denied"
        assert "10.0.0.1, a private address" in explanation.sentence


def test_nobody_listening_is_a_refused_connection() -> None:
    explanation = check_file(free_port("127.0.0.1"))
    assert explanation.code == "file_connection_refused"


def test_a_silent_site_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certwright.rooms.validation.checks.FILE_TIMEOUT", 0.5)
    with hostile_http({FILE.path: silent()}) as site:
        assert check_file(site.port).code == "file_timeout"


def test_a_name_without_address_is_told() -> None:
    missing = FileToPublish("missing.test", "a.txt", VALUE)
    assert check_file(8080, missing).code == "file_host_not_found"


def test_a_network_the_operator_did_not_open_is_denied() -> None:
    explanation = check_file(8080, guard=AddressGuard())
    assert explanation.code == "file_network_denied"
    assert "loopback" in explanation.sentence


def test_on_the_usual_port_https_is_tried_when_http_does_not_answer() -> None:
    asked: list[str] = []

    class Recording(Egress):
        async def fetch(self, url: str, **options: Any) -> Any:
            asked.append(url)
            return await super().fetch(url, **(options | {"timeout": 1}))

    guard = AddressGuard.of(["127.0.0.0/8"])
    egress = Recording(Resolver(["127.0.0.1:9"], guard=guard), AddressGuard.of(["127.200.0.1/32"]))
    file = FileToPublish("127.200.0.1", "a.txt", VALUE)
    explanation = explain_file(asyncio.run(gather_file(egress, file)))
    assert asked == [file.url, file.url.replace("http://", "https://")]
    assert not explanation.ok
    assert len(explanation.seen["attempts"]) == 2
