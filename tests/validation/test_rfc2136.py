"""The RFC 2136 connector against real Knot DNS and BIND."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.tsig
import dns.update
import pytest

from certwright.connectors.dns.rfc2136 import ALGORITHMS, Rfc2136Provider, Rfc2136Writer
from certwright.kernel.problems import Invalid, InvalidFields, Unavailable
from certwright.platform.addresses import AddressGuard
from certwright.platform.egress import Egress, EgressProblem
from certwright.platform.resolver import Resolver
from tests.servers.dns import DnsServer, TsigKey, authoritative, zone_text
from tests.servers.hostile_dns import hostile_dns
from tests.servers.ports import free_port
from tests.validation.dns_writer_conformance import DnsWriterConformance, Subject, code_of, run, txt
from tests.validation.servers import require

ZONE = "update.test"
KEY = TsigKey("certwright.key", "hmac-sha256")
LONG_KEY = TsigKey("long.key", "hmac-sha512")
LAME_KEY = TsigKey("lame.key", may_update=False)
GUARD = AddressGuard.of(["127.0.0.0/8"])


def writer(port: int, key: TsigKey, zones: tuple[str, ...] = (ZONE,), **changes: Any) -> Rfc2136Writer:
    options: dict[str, Any] = {"key_name": key.name, "algorithm": key.algorithm, "secret": key.secret}
    egress = Egress(Resolver([], guard=GUARD), GUARD)
    return Rfc2136Writer(egress, "127.0.0.1", port, zones, **(options | changes))


@pytest.fixture(scope="module", params=["knot", "bind"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    require({"knot": "knotd", "bind": "named"}[request.param])
    directory: Path = tmp_path_factory.mktemp(request.param)
    zones = {ZONE: zone_text(ZONE, ["www A 127.0.0.1"])}
    with authoritative(directory, zones, keys=[KEY, LONG_KEY, LAME_KEY], kind=request.param) as running:
        yield running


class TestRfc2136(DnsWriterConformance):
    @pytest.fixture
    def subject(self, server: DnsServer) -> Subject:
        def values(name: str) -> tuple[set[str], int | None]:
            answer = dns.query.tcp(dns.message.make_query(name + ".", "TXT", flags=0), server.address, 5, server.port)
            found = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.TXT]
            there = {b"".join(rdata.strings).decode() for rrset in found for rdata in rrset}
            return there, found[0].ttl if found else None

        def cname(name: str) -> str | None:
            query = dns.message.make_query(name + ".", "CNAME", flags=0)
            answer = dns.query.tcp(query, server.address, 5, server.port)
            return str(answer.answer[0][0]).rstrip(".") if answer.answer else None

        def put(name: str, rdtype: str, data: str, ttl: int) -> None:
            keyring = dns.tsig.Key(KEY.name + ".", KEY.secret, KEY.algorithm + ".")
            update = dns.update.UpdateMessage(ZONE + ".", keyring=keyring)
            update.replace(name + ".", ttl, rdtype, data)
            assert dns.query.tcp(update, server.address, 5, server.port).rcode() == 0

        return Subject(
            zone=ZONE, writer=writer(server.port, KEY), txt=values, cname=cname, put=put,
            wrong_secret=writer(server.port, KEY, secret=TsigKey("other").secret),
            unknown_key=writer(server.port, TsigKey("nobody.key")),
            not_permitted=writer(server.port, LAME_KEY),
            not_listening=writer(free_port(), KEY),
            foreign_zone=writer(server.port, KEY, ("elsewhere.test",)),
            foreign_name="_x.elsewhere.test",
        )  # fmt: skip


def test_the_longer_digest_works_too(server: DnsServer) -> None:
    run(writer(server.port, LONG_KEY).check_credentials())


def test_the_wrong_algorithm_for_a_known_key_is_a_bad_key(server: DnsServer) -> None:
    assert code_of(writer(server.port, KEY, algorithm="hmac-sha512").check_credentials()) == "dns_update_bad_key"


def test_a_silent_server_is_unreachable_within_the_limit() -> None:
    with hostile_dns(lambda query: None) as silent:
        assert code_of(writer(silent.port, KEY, timeout=0.5).check_credentials()) == "dns_update_unreachable"


def test_a_server_that_does_not_run_is_told_in_words() -> None:
    with pytest.raises(Unavailable, match="can't be reached over TCP: connection refused"):
        run(writer(free_port(), KEY).check_credentials())


def test_an_unsigned_success_is_not_believed() -> None:
    def agree(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        response.tsig = None
        return response.to_wire()

    with hostile_dns(agree) as liar:
        assert code_of(writer(liar.port, KEY).check_credentials()) == "dns_update_failed"


def test_a_server_on_a_forbidden_network_is_never_contacted() -> None:
    with hostile_dns(lambda query: None) as server:
        closed = Rfc2136Writer(
            Egress(Resolver([])), "127.0.0.1", server.port, (ZONE,),
            key_name=KEY.name, algorithm=KEY.algorithm, secret=KEY.secret,
        )  # fmt: skip
        with pytest.raises(EgressProblem) as caught:
            run(closed.add(txt(f"_a.{ZONE}", "v", 300)))
        assert caught.value.code == "egress_denied"
        assert server.asked == []


def test_settings_are_completed_and_normalised() -> None:
    assert Rfc2136Provider().settings({"server": " NS1.Example.com ", "key_name": "Key.Name."}) == {
        "server": "ns1.example.com", "port": 53, "key_name": "key.name", "algorithm": ALGORITHMS[0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"server": ""}, "settings.server", "dns_server_invalid"),
        ({"server": 5}, "settings.server", "dns_server_invalid"),
        ({"port": 0}, "settings.port", "dns_port_invalid"),
        ({"port": "53"}, "settings.port", "dns_port_invalid"),
        ({"port": True}, "settings.port", "dns_port_invalid"),
        ({"key_name": ""}, "settings.key_name", "tsig_key_name_invalid"),
        ({"key_name": "a..b"}, "settings.key_name", "tsig_key_name_invalid"),
        ({"algorithm": "hmac-md5"}, "settings.algorithm", "tsig_algorithm_unknown"),
        ({"colour": "red"}, "settings.colour", "setting_unknown"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_field(change: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        Rfc2136Provider().settings({"server": "ns1.test", "key_name": "k"} | change)
    assert (caught.value.field, caught.value.code) == (field, code)


@pytest.mark.parametrize("secret", ["", "not base 64!", "c2hvcnQ="])
def test_a_secret_that_cannot_be_one_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(Invalid) as caught:
        Rfc2136Provider().check_secret(secret, {})
    assert caught.value.code == "tsig_secret_invalid"
    assert not secret or secret not in caught.value.message
